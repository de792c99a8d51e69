//! candle as a peer: the reference model of `benches/make_data.py`, trained with `candle-core` and `candle-nn`.
//!
//! Usage: `candle-worker DATA.safetensors`. It speaks the worker protocol of `benches/README.md` on stdin and stdout.
//! Threads come from `RAYON_NUM_THREADS`, which the harness sets.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss, ops};

/// Attention heads; every other size is read off the tensors.
const HEADS: usize = 4;
/// What layer norm adds to the variance.
const NORM_EPS: f64 = 1e-5;
/// candle's version, for the report; the same as in `Cargo.toml`.
const NAME: &str = "candle-0.11.1";

/// The reference transformer: its parameters by name, and the causal mask they need.
struct Model {
    parameters: HashMap<String, Var>,
    layers: usize,
    mask: Tensor,
}

impl Model {
    fn new(weights: HashMap<String, Tensor>, device: &Device) -> Result<Model> {
        let mut parameters = HashMap::new();
        for (name, weight) in weights {
            parameters.insert(name, Var::from_tensor(&weight)?);
        }
        let layers = (0..).take_while(|i| parameters.contains_key(&format!("h{i}.qkv.w"))).count();
        let context = parameters["pos"].dim(0)?;
        let mask = causal_mask(context, device)?;
        Ok(Model { parameters, layers, mask })
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let weight = &self.parameters[&format!("{name}.w")];
        let bias = &self.parameters[&format!("{name}.b")];
        x.matmul(weight)?.broadcast_add(bias)
    }

    /// Layer norm over the last axis, spelled out: `candle_nn::ops::layer_norm` has no backward pass.
    fn layer_norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + NORM_EPS)?.sqrt()?)?;
        normed
            .broadcast_mul(&self.parameters[&format!("{name}.w")])?
            .broadcast_add(&self.parameters[&format!("{name}.b")])
    }

    /// Causal self-attention of `x` `[batch * time, width]`.
    fn attention(&self, x: &Tensor, batch: usize, time: usize, block: &str) -> Result<Tensor> {
        let width = x.dim(1)?;
        let head = width / HEADS;
        let heads = self
            .linear(x, &format!("{block}.qkv"))?
            .reshape((batch, time, 3, HEADS, head))?
            .permute((2, 0, 3, 1, 4))?;
        let q = heads.get(0)?.contiguous()?;
        let k = heads.get(1)?.contiguous()?;
        let v = heads.get(2)?.contiguous()?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (head as f64).sqrt())?;
        let weights = ops::softmax(&scores.broadcast_add(&self.mask)?, D::Minus1)?;
        let mixed = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch * time, width))?;
        self.linear(&mixed, &format!("{block}.proj"))
    }

    /// Logits `[batch * time, vocabulary]` of the tokens `[batch, time]`.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        let positions = &self.parameters["pos"];
        let width = positions.dim(1)?;
        let embedded = self.parameters["tok"].embedding(&tokens.flatten_all()?)?;
        let mut x = embedded
            .reshape((batch, time, width))?
            .broadcast_add(positions)?
            .reshape((batch * time, width))?;
        for layer in 0..self.layers {
            let block = format!("h{layer}");
            let normed = self.layer_norm(&x, &format!("{block}.ln1"))?;
            x = (x + self.attention(&normed, batch, time, &block)?)?;
            let normed = self.layer_norm(&x, &format!("{block}.ln2"))?;
            let hidden = self.linear(&normed, &format!("{block}.fc1"))?.gelu()?;
            x = (x + self.linear(&hidden, &format!("{block}.fc2"))?)?;
        }
        self.layer_norm(&x, "lnf")?.matmul(&self.parameters["head.w"])
    }
}

/// `[1, 1, context, context]`: 0 where attention may look, minus infinity at later positions.
fn causal_mask(context: usize, device: &Device) -> Result<Tensor> {
    let mut mask = vec![0f32; context * context];
    for (row, line) in mask.chunks_mut(context).enumerate() {
        line[row + 1..].fill(f32::NEG_INFINITY);
    }
    Tensor::from_vec(mask, (1, 1, context, context), device)
}

/// Inputs and targets of each batch, from the tokens `[batches, rows, context + 1]`.
fn batches(tokens: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
    let (count, _, width) = tokens.dims3()?;
    (0..count)
        .map(|i| {
            let batch = tokens.get(i)?;
            let inputs = batch.narrow(1, 0, width - 1)?.contiguous()?;
            let targets = batch.narrow(1, 1, width - 1)?.contiguous()?.flatten_all()?;
            Ok((inputs, targets))
        })
        .collect()
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: candle-worker DATA.safetensors")?;
    let device = Device::Cpu;
    let mut tensors = candle_core::safetensors::load(&path, &device)?;
    let tokens = tensors.remove("tokens").ok_or("the data file has no tensor `tokens`")?;
    let batches = batches(&tokens.to_dtype(DType::U32)?)?;
    let model = Model::new(tensors, &device)?;
    let settings = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer = AdamW::new(model.parameters.values().cloned().collect(), settings)?;
    let mut step = |i: usize| -> Result<f32> {
        let (inputs, targets) = &batches[i % batches.len()];
        let loss = loss::cross_entropy(&model.forward(inputs)?, targets)?;
        optimizer.backward_step(&loss)?;
        loss.to_scalar()
    };

    let mut out = std::io::stdout().lock();
    let start = Instant::now();
    let mut loss = step(0)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    writeln!(out, r#"{{"ready":"{NAME}","first_loss":{loss},"first_ms":{ms}}}"#)?;
    out.flush()?;
    let mut done = 1;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == "gen" {
            // candle has no KV-cached generation for this model; the protocol's answer for that is an empty object.
            writeln!(out, "{{}}")?;
            out.flush()?;
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..line.trim().parse::<usize>()? {
            let start = Instant::now();
            loss = step(done)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            done += 1;
        }
        writeln!(out, r#"{{"name":"{NAME}","ms":{times:?},"loss":{loss},"i":{done}}}"#)?;
        out.flush()?;
    }
    Ok(())
}
