//! Bullet's side of the benchmark: the reference model on the reference weights and batches, driven line by line by
//! `benches/run.py` (protocol in benches/README.md).

use std::io::{BufRead, Write};
use std::time::Instant;

use bullet_bench::{Result, SEQ, generation_speed};
use bullet_nn::data::Batch;
use bullet_nn::format::SafetensorsFile;
use bullet_nn::train::TrainStep;
use bullet_nn::{Module, StateDict, Transformer};
use bullet_tensor::{DType, Device, Tensor, no_grad};
use serde_json::json;

const BATCH: usize = 16;

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
            "gen" => {
                say(json!({ "gen_tok_s": generation_speed(worker.train.model(), worker.first_token, 20)? }))?
            }
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
        let model = bullet_bench::model(&device)?;
        model.load_state_dict(&weights(data, &model, &device)?)?;
        let tokens = data.tensor("tokens")?;
        let all = Tensor::from_bytes(tokens.bytes, tokens.dtype, tokens.shape, &device)?.cast(DType::I64)?;
        let all = all.to_vec::<i64>()?;
        let batches = all.chunks(BATCH * (SEQ + 1)).map(batch).collect();
        let train = bullet_bench::train_step(model, BATCH, None, None, &device)?;
        Ok(Worker { train, batches, first_token: all[0] as u32, done: 0 })
    }

    /// One step, and its loss read back as the peers do.
    fn step(&mut self) -> Result<f64> {
        let batch = self.batches[self.done % self.batches.len()].clone();
        self.train.step(&[batch])?;
        self.done += 1;
        Ok(self.train.read()?.loss)
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
