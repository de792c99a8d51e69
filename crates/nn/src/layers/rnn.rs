//! [`Gru`] and [`Lstm`]: recurrent layers with PyTorch's equations, gate order and parameter names.

use bullet_ops::fmt_tuple;
use bullet_tensor::{Tensor, no_grad};

use crate::error::{Error, Result};
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// Sizes of a recurrent network.
#[derive(Clone, PartialEq, Debug)]
pub struct RnnConfig {
    /// Width of the input.
    pub input: usize,
    /// Width of the hidden state, and of the output.
    pub hidden: usize,
    /// Layers, each fed with the outputs of the one before.
    pub layers: usize,
    /// Whether the gates have biases.
    pub bias: bool,
    /// Probability of dropping an element between layers.
    pub dropout: f64,
}

impl RnnConfig {
    /// One layer with biases and without dropout.
    pub fn new(input: usize, hidden: usize) -> RnnConfig {
        RnnConfig { input, hidden, layers: 1, bias: true, dropout: 0.0 }
    }

    /// # Errors
    /// A size of 0, or a dropout outside 0..1.
    pub fn validate(&self) -> Result<()> {
        for (name, size) in [("input", self.input), ("hidden", self.hidden), ("layers", self.layers)] {
            if size == 0 {
                return Err(Error::argument(format!("rnn: {name} = 0; it must be at least 1")));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::argument(format!("rnn: dropout = {} must be in [0, 1)", self.dropout)));
        }
        Ok(())
    }
}

/// The parameters of one layer; the gates lie one after the other in the first axis.
#[derive(Clone, Debug)]
struct Gates {
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Option<Tensor>,
    bias_hh: Option<Tensor>,
}

impl Gates {
    fn new(init: &Init, config: &RnnConfig, gates: usize, layer: usize) -> Result<Gates> {
        let RnnConfig { input, hidden, bias, .. } = *config;
        let (inputs, outputs, fill) =
            (if layer == 0 { input } else { hidden }, gates * hidden, Fill::fan_in(hidden));
        let matrix = |name, width| init.param(&format!("{name}_l{layer}"), &[outputs, width], fill);
        let vector =
            |name| bias.then(|| init.param(&format!("{name}_l{layer}"), &[outputs], fill)).transpose();
        Ok(Gates {
            weight_ih: matrix("weight_ih", inputs)?,
            weight_hh: matrix("weight_hh", hidden)?,
            bias_ih: vector("bias_ih")?,
            bias_hh: vector("bias_hh")?,
        })
    }

    fn visit(&self, path: &str, layer: usize, f: &mut dyn FnMut(&str, &Tensor)) {
        let own = [
            ("weight_ih", Some(&self.weight_ih)),
            ("weight_hh", Some(&self.weight_hh)),
            ("bias_ih", self.bias_ih.as_ref()),
            ("bias_hh", self.bias_hh.as_ref()),
        ];
        for (name, tensor) in own {
            tensor.into_iter().for_each(|t| f(&join(path, &format!("{name}_l{layer}")), t));
        }
    }

    /// In the dtype of the pass: cast once, not at every step.
    fn cast(&self, pass: &Pass) -> Result<Gates> {
        Ok(Gates {
            weight_ih: pass.param(&self.weight_ih)?,
            weight_hh: pass.param(&self.weight_hh)?,
            bias_ih: pass.param_option(self.bias_ih.as_ref())?,
            bias_hh: pass.param_option(self.bias_hh.as_ref())?,
        })
    }

    /// What the input adds to the gates at every step, in one product.
    fn of_input(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.linear(&self.weight_ih, self.bias_ih.as_ref(), Default::default())?)
    }

    /// What the hidden state adds to the gates.
    fn of_hidden(&self, h: &Tensor) -> Result<Tensor> {
        Ok(h.linear(&self.weight_hh, self.bias_hh.as_ref(), Default::default())?)
    }
}

/// Checks the input and returns it in the dtype of the pass.
fn check_input(config: &RnnConfig, x: &Tensor, pass: &Pass) -> Result<Tensor> {
    if x.rank() != 3 || x.dim(2) != config.input || x.dim(1) == 0 {
        return Err(Error::argument(format!(
            "rnn: the input must have shape (batch, sequence, {}) with a sequence of at least 1, got {}",
            config.input,
            x.shape()
        )));
    }
    pass.cast(x)
}

/// The initial states of all layers, each (batch, hidden): those given as (layers, batch, hidden), or zeros.
fn initial(config: &RnnConfig, given: Option<&Tensor>, x: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
    let dims = [config.layers, x.dim(0), config.hidden];
    let Some(given) = given else {
        let zeros = no_grad(|| Tensor::zeros(&dims[1..], x.dtype(), x.device()))?;
        return Ok(vec![zeros; config.layers]);
    };
    if given.shape()[..] != dims {
        return Err(Error::argument(format!(
            "rnn: an initial state must have shape (layers, batch, hidden) = {}, got {}",
            fmt_tuple(&dims),
            given.shape()
        )));
    }
    let given = pass.cast(given)?;
    Ok((0..config.layers).map(|layer| given.select(0, layer as isize)).collect::<Result<_, _>>()?)
}

fn stack(states: &[&Tensor], axis: isize) -> Result<Tensor> {
    let parts: Vec<Tensor> = states.iter().map(|t| t.unsqueeze(axis)).collect::<Result<_, _>>()?;
    Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)?)
}

/// Runs `step` over the sequence, layer after layer, from the states of each; the first tensor of a state is the hidden
/// one. Returns the last layer's outputs and every layer's last state.
fn run<const N: usize>(
    config: &RnnConfig,
    layers: &[Gates],
    x: &Tensor,
    states: Vec<[Tensor; N]>,
    pass: &Pass,
    step: impl Fn(&Gates, &Tensor, &[Tensor; N]) -> Result<[Tensor; N]>,
) -> Result<(Tensor, Vec<[Tensor; N]>)> {
    let mut y = x.clone();
    let mut last = Vec::with_capacity(layers.len());
    for (i, (gates, mut state)) in layers.iter().zip(states).enumerate() {
        if i > 0 {
            y = pass.dropout(&y, config.dropout)?;
        }
        let gates = gates.cast(pass)?;
        // One split, not a slice a step: its gradient is one concatenation, not a tensor of zeros a step.
        let inputs = gates.of_input(&y)?.split(&vec![1; y.dim(1)], 1)?;
        let mut outputs = Vec::with_capacity(inputs.len());
        for input in &inputs {
            state = step(&gates, &input.squeeze(1)?, &state)?;
            outputs.push(state[0].clone());
        }
        y = stack(&outputs.iter().collect::<Vec<_>>(), 1)?;
        last.push(state);
    }
    Ok((y, last))
}

/// The gated recurrent unit (Cho et al. 2014), with the reset gate applied after the product, as PyTorch and cuDNN have it.
#[derive(Debug)]
pub struct Gru {
    layers: Vec<Gates>,
    config: RnnConfig,
}

impl Gru {
    /// A network whose parameters are uniform over `±1 / sqrt(hidden)`; gates in the order reset, update, new.
    ///
    /// # Errors
    /// [`RnnConfig::validate`]'s.
    pub fn new(init: &Init, config: RnnConfig) -> Result<Gru> {
        config.validate()?;
        let layers =
            (0..config.layers).map(|layer| Gates::new(init, &config, 3, layer)).collect::<Result<_>>()?;
        Ok(Gru { layers, config })
    }

    /// Runs over `x` (batch, sequence, input) from `h0` (layers, batch, hidden), zeros if `None`.
    ///
    /// Returns the last layer's outputs (batch, sequence, hidden) and every layer's last state (layers, batch, hidden).
    pub fn forward(&self, x: &Tensor, h0: Option<&Tensor>, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let x = check_input(&self.config, x, pass)?;
        let states = initial(&self.config, h0, &x, pass)?.into_iter().map(|h| [h]).collect();
        let hidden = self.config.hidden;
        let (y, last) = run(&self.config, &self.layers, &x, states, pass, |gates, input, [h]| {
            let sizes = [2 * hidden, hidden];
            let (from_x, from_h) = (input.split(&sizes, 1)?, gates.of_hidden(h)?.split(&sizes, 1)?);
            let reset_update = from_x[0].add(&from_h[0])?.sigmoid()?.chunk(2, 1)?;
            let new = from_x[1].add(&reset_update[0].mul(&from_h[1])?)?.tanh()?;
            // (1 - z) n + z h
            Ok([new.add(&reset_update[1].mul(&h.sub(&new)?)?)?])
        })?;
        Ok((y, stack(&last.iter().map(|[h]| h).collect::<Vec<_>>(), 0)?))
    }
}

impl Module for Gru {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.layers.iter().enumerate().for_each(|(i, gates)| gates.visit(path, i, f));
    }
}

/// Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate (Gers et al. 2000).
#[derive(Debug)]
pub struct Lstm {
    layers: Vec<Gates>,
    config: RnnConfig,
}

impl Lstm {
    /// A network whose parameters are uniform over `±1 / sqrt(hidden)`; gates in the order input, forget, cell, output.
    ///
    /// # Errors
    /// [`RnnConfig::validate`]'s.
    pub fn new(init: &Init, config: RnnConfig) -> Result<Lstm> {
        config.validate()?;
        let layers =
            (0..config.layers).map(|layer| Gates::new(init, &config, 4, layer)).collect::<Result<_>>()?;
        Ok(Lstm { layers, config })
    }

    /// Runs over `x` (batch, sequence, input) from the hidden and cell states `(h0, c0)`, each (layers, batch, hidden),
    /// zeros if `None`.
    ///
    /// Returns the last layer's outputs (batch, sequence, hidden) and every layer's last hidden and cell states.
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        pass: &Pass,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let x = check_input(&self.config, x, pass)?;
        let h0 = initial(&self.config, state.map(|s| s.0), &x, pass)?;
        let c0 = initial(&self.config, state.map(|s| s.1), &x, pass)?;
        let states = h0.into_iter().zip(c0).map(|(h, c)| [h, c]).collect();
        let hidden = self.config.hidden;
        let (y, last) = run(&self.config, &self.layers, &x, states, pass, |gates, input, [h, c]| {
            let all = input.add(&gates.of_hidden(h)?)?.split(&[2 * hidden, hidden, hidden], 1)?;
            let input_forget = all[0].sigmoid()?.chunk(2, 1)?;
            let cell = input_forget[1].mul(c)?.add(&input_forget[0].mul(&all[1].tanh()?)?)?;
            Ok([all[2].sigmoid()?.mul(&cell.tanh()?)?, cell])
        })?;
        let collect = |i: usize| stack(&last.iter().map(|s| &s[i]).collect::<Vec<_>>(), 0);
        Ok((y, (collect(0)?, collect(1)?)))
    }
}

impl Module for Lstm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        self.layers.iter().enumerate().for_each(|(i, gates)| gates.visit(path, i, f));
    }
}
