//! Models on a GPU against the CPU: logits, generated tokens, training. Without a GPU nothing is tested.

use bullet_nn::config::{Config, FeedForward, Norm, Positions};
use bullet_nn::generate::{Sampler, TokenStream};
use bullet_nn::train::{TINY_SHAKESPEARE, Trainer};
use bullet_nn::{LanguageModel, Module, Pass, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device, no_grad};

use crate::common::{Scratch, Seen, builder, config_with};
use crate::models::{ids, max_difference, model, small, variations};

/// The GPU, or `None` where there is none; a GPU that does not work is a failure.
fn gpu() -> Option<Device> {
    match Device::parse("cuda") {
        Ok(device) => Some(device),
        Err(e) => {
            let kind = format!("{:?}", e.kind);
            assert!(kind == "DriverMissing" || kind == "NoDevice", "there is a GPU, but: {e}");
            println!("skipped: no CUDA device");
            None
        }
    }
}

/// Configurations of every kind: small ones, sizes that no vector load divides, a window longer than one part of
/// attention, the shape of the demo's model.
fn kinds() -> Vec<(&'static str, TransformerConfig)> {
    let mut all = variations();
    let wide =
        TransformerConfig { dim: 128, heads: 4, ff: 256, vocab: 3000, layers: 4, max_seq: 64, ..small() };
    let odd = TransformerConfig { dim: 33, heads: 3, ff: 50, vocab: 1031, ..small() };
    let long = TransformerConfig {
        dim: 96,
        heads: 2,
        kv_heads: 1,
        ff: 130,
        max_seq: 200,
        positions: Positions::Rope,
        norm: Norm::Rms,
        feed_forward: FeedForward::SwiGlu,
        ..small()
    };
    all.extend([("reference", wide), ("odd sizes", odd), ("long", long)]);
    all
}

/// Logits of what follows the last of `tokens`, by the full pass.
fn logits(model: &Transformer, tokens: &[u32]) -> Vec<f64> {
    let tokens: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
    let all = no_grad(|| model.forward(&ids(&tokens, &[1, tokens.len()]), &Pass::eval())).unwrap();
    all.select(1, -1).unwrap().to_f64_vec().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// Calls `check` with the window before each of `n` generated tokens, and that token.
fn generate(
    model: &Transformer,
    prompt: &[u32],
    sampler: &Sampler,
    n: usize,
    mut check: impl FnMut(usize, &[u32], u32),
) {
    let max_seq = model.max_seq();
    let stream = TokenStream::new(model, prompt, sampler.clone(), Pass::eval()).unwrap();
    let mut window = prompt.to_vec();
    for (i, token) in stream.take(n).enumerate() {
        if window.len() > max_seq {
            window.drain(..window.len() - (max_seq / 2).max(1));
        }
        let token = token.unwrap();
        check(i, &window, token);
        window.push(token);
    }
}

#[test]
fn one_launch_generates() {
    let Some(device) = gpu() else { return };
    for (name, config) in kinds() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let model = model(config.clone(), DType::F32).to(dtype, &device).unwrap();
            let cache = model.new_cache(1, &Pass::eval()).unwrap();
            assert!(model.decoder(&cache, &Pass::eval()).unwrap().is_some(), "{name} {dtype}");
        }
    }
}

#[test]
fn cached_logits_equal_the_cpus() {
    let Some(device) = gpu() else { return };
    let tokens = [3u32, 1, 4, 1, 5, 9, 2, 6, 10, 0];
    for (name, config) in kinds() {
        let on_cpu = model(config, DType::F32);
        let on_gpu = on_cpu.to(DType::F32, &device).unwrap();
        let mut cache = on_gpu.new_cache(1, &Pass::eval()).unwrap();
        for (start, end) in [(0, 4), (4, 5), (5, 10)] {
            let new: Vec<i64> = tokens[start..end].iter().map(|&t| i64::from(t)).collect();
            let new = ids(&new, &[1, end - start]).to_device(&device).unwrap();
            let got = on_gpu.forward_cached(&new, &mut cache, &Pass::eval()).unwrap().to_f64_vec().unwrap();
            let want = logits(&on_cpu, &tokens[..end]);
            let error = max_difference(&got, &want);
            assert!(error < 1e-4 * largest(&want).max(1.0), "{name}: {end} tokens: {error}");
        }
    }
}

#[test]
fn the_likeliest_tokens_are_the_cpus() {
    let Some(device) = gpu() else { return };
    for (name, config) in kinds() {
        let n = 2 * config.max_seq + 20;
        let on_cpu = model(config, DType::F32);
        let on_gpu = on_cpu.to(DType::F32, &device).unwrap();
        // A prompt of one token needs no pass of its own; the texts go over the window twice.
        for prompt in [&[1u32][..], &[1, 2, 3]] {
            generate(&on_gpu, prompt, &Sampler::greedy(), n, |i, window, token| {
                let want = logits(&on_cpu, window);
                let best = want.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
                // Near ties may go either way by rounding.
                let gap = best - want[token as usize];
                assert!(
                    gap < 1e-4 * largest(&want).max(1.0),
                    "{name}: token {i}: {token} is {gap} below the best"
                );
            });
        }
    }
}

#[test]
fn drawn_tokens_are_the_cpus() {
    let Some(device) = gpu() else { return };
    let samplers = [
        Sampler { seed: 1, ..Sampler::default() },
        Sampler { temperature: 1.7, top_k: Some(5), seed: 2, ..Sampler::default() },
        Sampler { temperature: 0.8, top_p: Some(0.9), seed: 3, ..Sampler::default() },
        Sampler { temperature: 2.5, top_k: Some(40), top_p: Some(0.7), seed: 4 },
    ];
    for (name, config) in kinds() {
        let n = config.max_seq.min(60) + 20;
        let on_cpu = model(config, DType::F32);
        let on_gpu = on_cpu.to(DType::F32, &device).unwrap();
        for sampler in &samplers {
            let (mut same, mut total) = (0, 0);
            generate(&on_gpu, &[1, 2], sampler, n, |i, window, token| {
                let want: Vec<f32> = logits(&on_cpu, window).iter().map(|&v| v as f32).collect();
                same += usize::from(sampler.sample(&want, i as u64).unwrap() == token);
                total += 1;
            });
            // A number next to the border between two tokens may fall on either side by rounding.
            assert!(same * 100 >= total * 98, "{name}, {sampler:?}: {same} of {total} tokens");
        }
    }
}

#[test]
fn a_seed_names_a_text_on_the_gpu() {
    let Some(device) = gpu() else { return };
    let model = model(small(), DType::F32).to(DType::F32, &device).unwrap();
    let text = |seed| -> Vec<u32> {
        let sampler = Sampler { temperature: 1.5, top_k: Some(8), top_p: Some(0.99), seed };
        let stream = TokenStream::new(&model, &[1], sampler, Pass::eval()).unwrap();
        stream.take(100).map(Result::unwrap).collect()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn half_precision_generates_near_single() {
    let Some(device) = gpu() else { return };
    for (name, config) in kinds() {
        let n = config.max_seq.min(30) + 10;
        for dtype in [DType::F16, DType::BF16] {
            let on_cpu = model(config.clone(), DType::F32).to(dtype, &Device::cpu()).unwrap();
            let on_gpu = on_cpu.to(dtype, &device).unwrap();
            generate(&on_gpu, &[1], &Sampler::greedy(), n, |i, window, token| {
                let want = logits(&on_cpu, window);
                let best = want.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
                let gap = best - want[token as usize];
                assert!(
                    gap < 0.05 * largest(&want).max(1.0),
                    "{name}, {dtype}: token {i}: {gap} below the best"
                );
            });
        }
    }
}

#[test]
fn context_counts_tokens_taken() {
    let Some(device) = gpu() else { return };
    let on_cpu = model(small(), DType::F32);
    let on_gpu = on_cpu.to(DType::F32, &device).unwrap();
    let lengths = |model: &Transformer| -> Vec<usize> {
        let mut stream = TokenStream::new(model, &[1, 2], Sampler::greedy(), Pass::eval()).unwrap();
        (0..25)
            .map(|_| {
                stream.next().unwrap().unwrap();
                stream.context_len()
            })
            .collect()
    };
    assert_eq!(lengths(&on_gpu), lengths(&on_cpu));
}

#[test]
fn overflow_is_reported_after_the_tokens_before_it() {
    let Some(device) = gpu() else { return };
    let on_cpu = model(small(), DType::F32);
    for value in [f64::NAN, f64::INFINITY] {
        // Token 7 cannot be predicted: the first logit that is wrong is its own.
        let row = on_cpu.head.weight.detach().narrow(0, 7, 1).unwrap();
        no_grad(|| row.fill_(value)).unwrap();
        let on_gpu = on_cpu.to(DType::F32, &device).unwrap();
        let message = |model: &Transformer| {
            let stream = TokenStream::new(model, &[1], Sampler::greedy(), Pass::eval()).unwrap();
            stream.take(50).find_map(Result::err).unwrap().message
        };
        let (got, want) = (message(&on_gpu), message(&on_cpu));
        assert!(got.contains("token 7"), "{got}");
        assert_eq!(got, want);
    }
}

#[test]
fn training_follows_the_cpu() {
    let Some(device) = gpu() else { return };
    for (i, pairs) in [
        "model.bias=true optim.grad_clip=1",
        "model.positions=rope model.norm=rms model.feed_forward=swiglu model.bias=false model.kv_heads=1 model.tied=true",
    ]
    .iter()
    .enumerate()
    {
        let losses = |device: Device| -> Vec<f64> {
            let scratch = Scratch::new(&format!("cuda-{i}-{device}").replace(':', "-"));
            let mut config = config_with(scratch.path(), pairs);
            for pair in ["train.steps=20", "train.log_interval=1", "train.eval_interval=0", "optim.lr=0.003"] {
                config.set_pair(pair).unwrap();
            }
            let seen = Seen::default();
            builder(config).device(device).callback(seen.clone()).build().unwrap().run().unwrap();
            seen.logs().iter().map(|p| p.loss).collect()
        };
        let (got, want) = (losses(device.clone()), losses(Device::cpu()));
        assert_eq!(got.len(), 20, "{pairs}");
        for (step, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() < 1e-3 * want, "{pairs}: step {step}: {got} instead of {want}");
        }
    }
}

/// The demo's model, text and settings, for as many steps as it makes on a GPU.
#[test]
fn f16_reaches_the_validation_loss_of_f32_on_the_demo() {
    let Some(device) = gpu() else { return };
    let loss = |precision: &str| {
        let scratch = Scratch::new(&format!("cuda-demo-{precision}"));
        let mut config = Config::default();
        for pair in [
            "optim.lr=0.002 optim.min_lr=0.0001 optim.schedule=cosine optim.beta2=0.99 optim.weight_decay=0.1",
            "optim.decay_min_rank=2 optim.grad_clip=1 train.steps=2500 train.eval_interval=0 train.save_interval=0",
        ]
        .iter()
        .flat_map(|pairs| pairs.split_whitespace())
        {
            config.set_pair(pair).unwrap();
        }
        config.set_pair(&format!("train.precision={precision}")).unwrap();
        config.train.runs = scratch.path().display().to_string();
        let trainer = Trainer::builder(config).text(TINY_SHAKESPEARE).device(device.clone());
        trainer.build().unwrap().run().unwrap().evaluation.unwrap().loss
    };
    let (single, half) = (loss("f32"), loss("f16"));
    assert!(single < 4.5 && (half - single).abs() < 0.01 * single, "f32 {single}, f16 {half}");
}

#[test]
fn a_model_that_moves_keeps_its_values() {
    let Some(device) = gpu() else { return };
    let on_cpu = model(small(), DType::F32);
    let back = on_cpu.to(DType::F32, &device).unwrap().to(DType::F32, &Device::cpu()).unwrap();
    for ((name, a), (_, b)) in on_cpu.named_parameters().into_iter().zip(back.named_parameters()) {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name}");
    }
}
