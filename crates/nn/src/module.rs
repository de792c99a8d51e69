//! [`Module`]: what owns parameters, and the names, gradients and state that follow from walking them; [`Pass`]: how one
//! forward pass is run.
//!
//! A parameter is a leaf [`Tensor`] (`requires_grad`). Loading and optimizing overwrite it in place, so that clones of
//! it (a tied head) stay tied.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bullet_tensor::{DType, Generator, Tensor, no_grad};

use crate::error::{Error, Result};

/// Parameters by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// A part of a model: some parameters, and parts of its own.
pub trait Module: Send + Sync {
    /// Calls `f` with the name and the leaf of every parameter: its own first, then its children's, in a fixed order.
    ///
    /// `path` is the name of this module, without a trailing dot; see [`join`]. A parameter that two modules share is
    /// visited twice.
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor));

    /// Every parameter once, in the order of [`Module::visit`]; a tied one has the name it was met by first.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut found: Vec<(String, Tensor)> = Vec::new();
        self.visit("", &mut |name, tensor| {
            if !found.iter().any(|(_, seen)| same_parameter(seen, tensor)) {
                found.push((name.to_owned(), tensor.clone()));
            }
        });
        found
    }

    /// Number of trained scalars; a tied parameter counts once.
    fn num_parameters(&self) -> usize {
        self.named_parameters().iter().map(|(_, t)| t.numel()).sum()
    }

    /// Drops every gradient.
    fn zero_grad(&self) {
        self.visit("", &mut |_, tensor| tensor.set_grad(None));
    }

    /// The parameters by name, sharing memory with the model; clone with `copy` to keep a snapshot.
    fn state_dict(&self) -> StateDict {
        self.named_parameters().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect()
    }

    /// Overwrites every parameter with the tensor of its name, and nothing if any doesn't fit.
    ///
    /// The second name of a tied parameter may be absent; if it is there, it must hold the same values.
    ///
    /// # Errors
    /// Names that are missing or that the model does not have, shapes or dtypes that differ: one error that lists all.
    fn load_state_dict(&self, state: &StateDict) -> Result<()> {
        let mut wrong = Vec::new();
        let mut known = HashSet::new();
        let parameters = self.named_parameters();
        for (name, tensor) in &parameters {
            known.insert(name.clone());
            match state.get(name) {
                None => wrong.push(format!("{name}: missing; expected {}", describe(tensor))),
                Some(found) if found.shape() != tensor.shape() || found.dtype() != tensor.dtype() => {
                    wrong.push(format!("{name}: found {}, expected {}", describe(found), describe(tensor)));
                }
                Some(_) => {}
            }
        }
        for (alias, name) in aliases(self) {
            if let (Some(second), Some(first)) = (state.get(&alias), state.get(&name))
                && second.to_bytes()? != first.to_bytes()?
            {
                wrong.push(format!("{alias}: this model ties it to {name}, but the two tensors differ"));
            }
            known.insert(alias);
        }
        wrong.extend(state.iter().filter(|(name, _)| !known.contains(*name)).map(|(name, found)| {
            format!("{name}: unexpected {}; this model has no parameter of that name", describe(found))
        }));
        if !wrong.is_empty() {
            return Err(Error::data(format!(
                "the state does not fit the model ({} problem{}):\n  {}\nload it into a model of the configuration it was \
                 saved with",
                wrong.len(),
                if wrong.len() == 1 { "" } else { "s" },
                wrong.join("\n  ")
            )));
        }
        no_grad(|| parameters.iter().try_for_each(|(name, tensor)| tensor.copy_(&state[name])))?;
        Ok(())
    }
}

/// Other names of tied parameters, each with the first name.
fn aliases<M: Module + ?Sized>(module: &M) -> Vec<(String, String)> {
    let mut found: Vec<(String, Tensor)> = Vec::new();
    let mut aliases = Vec::new();
    module.visit("", &mut |name, tensor| match found.iter().find(|(_, seen)| same_parameter(seen, tensor)) {
        Some((first, _)) => aliases.push((name.to_owned(), first.clone())),
        None => found.push((name.to_owned(), tensor.clone())),
    });
    aliases
}

/// Whether both are views of all of the same memory; tensors without elements are never the same.
fn same_parameter(a: &Tensor, b: &Tensor) -> bool {
    a.numel() > 0 && a.shares_memory(b) && a.layout() == b.layout()
}

fn describe(tensor: &Tensor) -> String {
    format!("{} {}", tensor.dtype(), tensor.shape())
}

/// `name` inside the module called `path`: `blocks.0` and `attn` make `blocks.0.attn`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// How one forward pass is run; the same model serves training, evaluation and mixed precision.
#[derive(Clone, Default)]
pub struct Pass {
    /// Dropout is active.
    pub training: bool,
    /// The dtype that activations are computed in; that of the parameters if `None`.
    ///
    /// Parameters of another dtype keep their own (fp32 master weights under f16 or bf16: Micikevicius et al. 2018) and
    /// are used in that of the pass: in training by a copy kept beside each ([`Pass::param`]), else cast at each use.
    pub compute: Option<DType>,
    /// What dropout draws from.
    pub generator: Option<Arc<Generator>>,
    /// Blocks keep their input only and are run again in backward: less memory, about a third more time.
    pub recompute: bool,
}

impl Pass {
    /// A pass for evaluation, in the dtype of the parameters.
    pub fn eval() -> Pass {
        Pass::default()
    }

    /// A pass for training, with dropout drawn from `generator`.
    pub fn train(generator: Arc<Generator>) -> Pass {
        Pass { training: true, generator: Some(generator), ..Pass::default() }
    }

    /// This pass, with activations in `dtype`.
    pub fn with_compute(self, dtype: DType) -> Pass {
        Pass { compute: Some(dtype), ..self }
    }

    /// `tensor` in the dtype of this pass; itself if it has it.
    pub fn cast(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match self.compute {
            Some(dtype) => tensor.cast(dtype)?,
            None => tensor.clone(),
        })
    }

    /// A parameter in the dtype of this pass: in training a copy that is kept beside it ([`Tensor::shadow`]).
    pub fn param(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match self.compute {
            Some(dtype) if self.training => tensor.shadow(dtype)?,
            _ => return self.cast(tensor),
        })
    }

    /// As [`Pass::param`], for a parameter that may be absent.
    pub fn param_option(&self, tensor: Option<&Tensor>) -> Result<Option<Tensor>> {
        tensor.map(|t| self.param(t)).transpose()
    }

    /// `x` with dropout of probability `p`; `x` itself outside training.
    ///
    /// # Errors
    /// Training with `p > 0` without a generator; `p` outside 0..1.
    pub fn dropout(&self, x: &Tensor, p: f64) -> Result<Tensor> {
        Ok(match self.dropout_of(p)? {
            Some((p, generator)) => x.dropout(p, generator)?,
            None => x.clone(),
        })
    }

    /// What to drop with probability `p` from; `None` outside training and if `p` is 0.
    ///
    /// # Errors
    /// Training with `p > 0` without a generator.
    pub fn dropout_of(&self, p: f64) -> Result<Option<(f64, &Generator)>> {
        if !self.training || p == 0.0 {
            return Ok(None);
        }
        let generator = self.generator.as_ref().ok_or_else(|| {
            Error::argument(format!(
                "dropout of {p} in training needs a random generator; make the pass with Pass::train(generator)"
            ))
        })?;
        Ok(Some((p, generator)))
    }
}
