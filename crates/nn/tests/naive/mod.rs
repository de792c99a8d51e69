//! A transformer in plain f64 loops over its parameters, to measure the real one against.

use bullet_nn::config::{FeedForward, Norm, Positions};
use bullet_nn::{StateDict, TransformerConfig};

/// A matrix product with the transposed weight of `name`, and its bias if there is one.
fn linear(state: &StateDict, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let weight = &state[&format!("{name}.weight")];
    let (outputs, inputs, w) = (weight.dim(0), weight.dim(1), weight.to_f64_vec().unwrap());
    let bias = state.get(&format!("{name}.bias")).map(|b| b.to_f64_vec().unwrap());
    let row = |x: &Vec<f64>| {
        let out = |o: usize| {
            let sum: f64 = (0..inputs).map(|i| w[o * inputs + i] * x[i]).sum();
            sum + bias.as_ref().map_or(0.0, |b| b[o])
        };
        (0..outputs).map(out).collect()
    };
    x.iter().map(row).collect()
}

fn norm(config: &TransformerConfig, state: &StateDict, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let w = state[&format!("{name}.weight")].to_f64_vec().unwrap();
    let b = state.get(&format!("{name}.bias")).map(|b| b.to_f64_vec().unwrap());
    let row = |x: &Vec<f64>| {
        let n = x.len() as f64;
        let mean = if config.norm == Norm::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (var + config.norm_eps).sqrt();
        (0..x.len()).map(|i| (x[i] - mean) * scale * w[i] + b.as_ref().map_or(0.0, |b| b[i])).collect()
    };
    x.iter().map(row).collect()
}

/// The error function by its Maclaurin series, good for the |x| < 4 of these tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn feed_forward(config: &TransformerConfig, state: &StateDict, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let silu = |v: f64| v / (1.0 + (-v).exp());
    let gelu_tanh =
        |v: f64| 0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh());
    let inner = linear(state, &format!("{name}.fc1"), x);
    let act = |row: &Vec<f64>| -> Vec<f64> {
        match config.feed_forward {
            FeedForward::SwiGlu => (0..config.ff).map(|i| silu(row[i]) * row[config.ff + i]).collect(),
            FeedForward::Silu => row.iter().map(|&v| silu(v)).collect(),
            FeedForward::Relu => row.iter().map(|&v| v.max(0.0)).collect(),
            FeedForward::GeluTanh => row.iter().map(|&v| gelu_tanh(v)).collect(),
            FeedForward::Gelu => row.iter().map(|&v| 0.5 * v * (1.0 + erf(v / 2f64.sqrt()))).collect(),
        }
    };
    linear(state, &format!("{name}.fc2"), &inner.iter().map(act).collect::<Vec<_>>())
}

fn rotate(head: &mut [f64], position: usize, base: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * base.powf(-2.0 * i as f64 / head.len() as f64);
        let (a, b) = (head[i], head[i + half]);
        (head[i], head[i + half]) = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos());
    }
}

fn attention(config: &TransformerConfig, state: &StateDict, name: &str, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (heads, kv_heads, d) = (config.heads, config.kv_heads(), config.dim / config.heads);
    let mut qkv = linear(state, &format!("{name}.qkv"), x);
    if config.positions == Positions::Rope {
        for (position, row) in qkv.iter_mut().enumerate() {
            row.chunks_mut(d)
                .take(heads + kv_heads)
                .for_each(|head| rotate(head, position, config.rope_base));
        }
    }
    let mut y = vec![vec![0.0; config.dim]; x.len()];
    for h in 0..heads {
        let kv = h / (heads / kv_heads);
        let part = |t: usize, slot: usize| &qkv[t][slot * d..(slot + 1) * d];
        for t in 0..x.len() {
            let score = |s: usize| {
                part(t, h).iter().zip(part(s, heads + kv)).map(|(a, b)| a * b).sum::<f64>()
                    / (d as f64).sqrt()
            };
            let weights: Vec<f64> = (0..=t).map(|s| score(s).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (s, w) in weights.iter().enumerate() {
                for i in 0..d {
                    y[t][h * d + i] += w / total * part(s, heads + kv_heads + kv)[i];
                }
            }
        }
    }
    linear(state, &format!("{name}.proj"), &y)
}

/// The logits of one sequence, (sequence, vocab).
pub(crate) fn naive_logits(config: &TransformerConfig, state: &StateDict, tokens: &[i64]) -> Vec<f64> {
    let table = |name: &str, row: usize| state[name].select(0, row as isize).unwrap().to_f64_vec().unwrap();
    let add = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
    };
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|&t| table("tok_embedding.weight", t as usize)).collect();
    if config.positions == Positions::Learned {
        let positions: Vec<Vec<f64>> = (0..x.len()).map(|t| table("pos_embedding.weight", t)).collect();
        x = add(&x, &positions);
    }
    for i in 0..config.layers {
        let name = |part: &str| format!("blocks.{i}.{part}");
        x = add(&x, &attention(config, state, &name("attn"), &norm(config, state, &name("ln1"), &x)));
        x = add(&x, &feed_forward(config, state, &name("mlp"), &norm(config, state, &name("ln2"), &x)));
    }
    let mut state = state.clone();
    if config.tie_embeddings {
        state.insert("head.weight".into(), state["tok_embedding.weight"].clone());
    }
    linear(&state, "head", &norm(config, &state, "ln_f", &x)).concat()
}
