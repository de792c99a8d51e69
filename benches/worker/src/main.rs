//! Bullet's side of the benchmark: the reference model on the reference weights and batches, driven line by line by
//! `benches/run.py` (protocol in benches/README.md).

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use bullet_nn::config::{FeedForward, Norm, Positions};
use bullet_nn::data::Batch;
use bullet_nn::format::SafetensorsFile;
use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::optim::{GroupOptions, Optimizer, Rule, Schedule};
use bullet_nn::train::{StepOptions, TrainStep};
use bullet_nn::{Init, Module, Pass, StateDict, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device, Tensor, no_grad};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const BATCH: usize = 16;
const SEQ: usize = 64;
const LAYERS: usize = 4;

fn main() -> Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        return Err("usage: bullet-bench benches/micro.safetensors".into());
    };
    serve(&SafetensorsFile::open(&path)?)
}

fn serve(data: &SafetensorsFile) -> Result<()> {
    let mut worker = Worker::new(data)?;
    let start = Instant::now();
    let first = worker.step()?;
    let name = format!("bullet-{}", env!("CARGO_PKG_VERSION"));
    say(json!({ "ready": name, "first_loss": first, "first_ms": ms(start) }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.trim() {
            "" => {}
            "gen" => say(json!({ "gen_tok_s": worker.generation_speed()? }))?,
            count => {
                let (mut times, mut loss) = (Vec::new(), 0.0);
                for _ in 0..count.parse::<usize>()? {
                    let start = Instant::now();
                    loss = worker.step()?;
                    times.push(ms(start));
                }
                say(json!({ "name": name, "ms": times, "loss": loss, "i": worker.done }))?;
            }
        }
    }
    Ok(())
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn say(value: serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

struct Worker {
    train: TrainStep<Transformer>,
    batches: Vec<Batch>,
    first_token: u32,
    done: usize,
}

impl Worker {
    fn new(data: &SafetensorsFile) -> Result<Worker> {
        let device = Device::cpu();
        let model = Transformer::new(reference_model(), &Init::new(0, DType::F32, &device))?;
        model.load_state_dict(&weights(data, &model, &device)?)?;
        let decay = |_: &str, _: &Tensor| GroupOptions { weight_decay: 0.01, ..GroupOptions::default() };
        let optimizer = Optimizer::new(Rule::ADAMW, model.named_parameters(), decay)?;
        let options = StepOptions {
            batch: [BATCH, SEQ],
            accumulation: 1,
            schedule: Schedule::constant(1e-3),
            compute: None,
            loss_scale: None,
            grad_clip: None,
            recompute: false,
            seed: 0,
        };
        let tokens = data.tensor("tokens")?;
        let all = Tensor::from_bytes(tokens.bytes, tokens.dtype, tokens.shape, &device)?.cast(DType::I64)?;
        let all = all.to_vec::<i64>()?;
        let batches = all.chunks(BATCH * (SEQ + 1)).map(batch).collect();
        let train = TrainStep::new(model, optimizer, options, &device)?;
        Ok(Worker { train, batches, first_token: all[0] as u32, done: 0 })
    }

    /// One step, and its loss read back as the peers do.
    fn step(&mut self) -> Result<f64> {
        let batch = self.batches[self.done % self.batches.len()].clone();
        self.train.step(&[batch])?;
        self.done += 1;
        Ok(self.train.read()?.loss)
    }

    /// Tokens a second of greedy generation: batch 1, a prompt of 1 token, 63 new ones.
    fn generation_speed(&self) -> Result<f64> {
        let run = || -> Result<f64> {
            let start = Instant::now();
            let stream =
                TokenStream::new(self.train.model(), &[self.first_token], Sampler::greedy(), Pass::eval())?;
            let made = stream.take(SEQ - 1).collect::<std::result::Result<Vec<u32>, _>>()?.len();
            Ok(made as f64 / start.elapsed().as_secs_f64())
        };
        run()?;
        let mut speeds = (0..20).map(|_| run()).collect::<Result<Vec<f64>>>()?;
        speeds.sort_by(f64::total_cmp);
        Ok(speeds[speeds.len() / 2])
    }
}

/// The reference model of benches/README.md.
fn reference_model() -> TransformerConfig {
    TransformerConfig {
        vocab: 3000,
        dim: 128,
        layers: LAYERS,
        heads: 4,
        kv_heads: 0,
        ff: 256,
        max_seq: SEQ,
        positions: Positions::Learned,
        rope_base: 10_000.0,
        norm: Norm::Layer,
        norm_eps: 1e-5,
        feed_forward: FeedForward::GeluTanh,
        bias: true,
        head_bias: false,
        tie_embeddings: false,
        dropout: 0.0,
    }
}

/// Inputs and targets of a batch of sequences of one token more.
fn batch(tokens: &[i64]) -> Batch {
    let rows = tokens.chunks(SEQ + 1);
    let x = rows.clone().flat_map(|row| &row[..SEQ]).copied().collect();
    let y: Vec<i64> = rows.flat_map(|row| &row[1..]).copied().collect();
    Batch { x, targets: y.len(), y }
}

/// The reference weights under our names. The file has matrices as (in, out), and no zero biases of the last norm.
fn weights(data: &SafetensorsFile, model: &Transformer, device: &Device) -> Result<StateDict> {
    let mut state = StateDict::new();
    for (name, param) in model.named_parameters() {
        let theirs = their_name(&name);
        let value = match data.get(&theirs) {
            Some(t) => {
                let t = Tensor::from_bytes(t.bytes, t.dtype, t.shape, device)?;
                if t.shape() == param.shape() { t } else { no_grad(|| t.transpose(0, 1)?.contiguous())? }
            }
            None if name.ends_with("bias") => param.zeros_like()?,
            None => {
                return Err(
                    format!("the data file has no tensor '{theirs}' for the parameter '{name}'").into()
                );
            }
        };
        // Square matrices look the same either way round.
        let square = param.rank() == 2 && param.dim(0) == param.dim(1) && !name.contains("embedding");
        let value = if square { no_grad(|| value.transpose(0, 1)?.contiguous())? } else { value };
        state.insert(name, value);
    }
    Ok(state)
}

fn their_name(name: &str) -> String {
    let name = match name {
        "tok_embedding.weight" => return "tok".into(),
        "pos_embedding.weight" => return "pos".into(),
        "head.weight" => return "head.w".into(),
        _ => name.replace("blocks.", "h").replace("attn.", "").replace("mlp.", ""),
    };
    name.replace("ln_f", "lnf").replace(".weight", ".w").replace(".bias", ".b")
}
