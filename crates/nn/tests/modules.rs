//! Layers and models: values against plain loops, gradients against differences, names, state, mixed precision.

mod models;
mod naive;

use std::sync::Arc;

use bullet_nn::config::{FeedForward, Positions};
use bullet_nn::layers::{
    Attention, AttentionConfig, Embedding, Gru, LayerNorm, Linear, Lstm, Mlp, RmsNorm, RnnConfig,
};
use bullet_nn::{Fill, Init, LanguageModel, Module, Pass, Result, StateDict, Transformer, TransformerConfig};
use bullet_tensor::{Activation, DType, Device, Generator, Tensor, no_grad};
use models::{ids, max_difference, model, scramble, small, variations};
use naive::naive_logits;

fn init(dtype: DType) -> Init {
    Init::new(1, dtype, &Device::cpu())
}

fn random(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    Tensor::randn(shape, dtype, &Device::cpu(), seed).unwrap()
}

/// A scalar that depends on every element differently.
fn scalar(y: &Tensor) -> Result<Tensor> {
    Ok(y.mul(&random(y.shape(), y.dtype(), 77))?.sum(&[], false)?)
}

/// A module with a scalar to differentiate, computed from it alone.
struct Case {
    name: String,
    module: Box<dyn Module>,
    loss: Box<dyn Fn() -> Result<Tensor>>,
}

fn case<M: Module + 'static>(name: &str, module: M, loss: impl Fn(&M) -> Result<Tensor> + 'static) -> Case {
    struct Shared<M>(Arc<M>);
    impl<M: Module> Module for Shared<M> {
        fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
            self.0.visit(path, f);
        }
    }
    scramble(&module);
    let module = Arc::new(module);
    let other = module.clone();
    Case { name: name.into(), module: Box::new(Shared(module)), loss: Box::new(move || loss(&other)) }
}

/// Every module type and variation, small, with parameters of `dtype`.
fn every_module(dtype: DType) -> Vec<Case> {
    let init = &init(dtype);
    let x = move || random(&[2, 3, 8], dtype, 5);
    let eval = Pass::eval;
    let mut all = vec![
        case("linear", Linear::new(init, 8, 4, true, Fill::GPT2).unwrap(), move |m| {
            scalar(&m.forward_with(&x(), Activation::Gelu, &eval())?)
        }),
        case("embedding", Embedding::new(init, 5, 4, Fill::GPT2).unwrap(), move |m| {
            scalar(&m.forward(&ids(&[1, 4, 1], &[3]), &eval())?)
        }),
        case("layer norm", LayerNorm::new(init, 8, true, 1e-5).unwrap(), move |m| {
            scalar(&m.forward(&x(), &eval())?)
        }),
        case("rms norm", RmsNorm::new(init, 8, 1e-5).unwrap(), move |m| scalar(&m.forward(&x(), &eval())?)),
    ];
    for (causal, rope, kv_heads) in [(true, None, 4), (false, None, 2), (true, Some(100.0), 1)] {
        let out = Fill::residual(2);
        let config =
            AttentionConfig { dim: 8, heads: 4, kv_heads, causal, rope, bias: true, out, dropout: 0.0 };
        let name = format!("attention causal={causal} rope={rope:?} kv_heads={kv_heads}");
        all.push(case(&name, Attention::new(init, config).unwrap(), move |m| {
            scalar(&m.forward(&x(), &eval())?)
        }));
    }
    for &kind in FeedForward::ALL {
        let mlp = Mlp::new(init, 8, 6, kind, true, Fill::residual(2)).unwrap();
        all.push(case(&format!("mlp {kind}"), mlp, move |m| scalar(&m.forward(&x(), &eval())?)));
    }
    for (name, config) in variations() {
        let transformer = Transformer::new(config, init).unwrap();
        all.push(case(name, transformer, move |m| {
            m.loss(&ids(&[1, 2, 3, 4, 5, 6], &[2, 3]), &ids(&[2, 3, 4, 5, -100, 0], &[2, 3]), &eval())
        }));
    }
    let config = RnnConfig { layers: 2, ..RnnConfig::new(8, 5) };
    let h0 = move |seed| random(&[2, 2, 5], dtype, seed);
    all.push(case("gru", Gru::new(init, config.clone()).unwrap(), move |m| {
        let (y, h) = m.forward(&x(), Some(&h0(1)), &eval())?;
        Ok(scalar(&y)?.add(&scalar(&h)?)?)
    }));
    all.push(case("lstm", Lstm::new(init, config).unwrap(), move |m| {
        let (y, (h, c)) = m.forward(&x(), Some((&h0(1), &h0(2))), &eval())?;
        Ok(scalar(&y)?.add(&scalar(&h)?)?.add(&scalar(&c)?)?)
    }));
    all
}

#[test]
fn every_parameter_gets_a_gradient() {
    for dtype in [DType::F32, DType::F64] {
        for case in every_module(dtype) {
            (case.loss)().unwrap().backward().unwrap();
            for (name, tensor) in case.module.named_parameters() {
                let grad = tensor.grad().unwrap_or_else(|| panic!("{}: {name} has no gradient", case.name));
                assert_eq!((grad.shape(), grad.dtype()), (tensor.shape(), dtype), "{}: {name}", case.name);
                let values = grad.to_f64_vec().unwrap();
                assert!(values.iter().all(|v| v.is_finite()), "{}: {name}", case.name);
                assert!(values.iter().any(|v| *v != 0.0), "{}: {name} has a gradient of zeros", case.name);
            }
            case.module.zero_grad();
            assert!(case.module.named_parameters().iter().all(|(_, t)| t.grad().is_none()));
        }
    }
}

#[test]
fn gradients_are_those_of_differences() {
    for case in every_module(DType::F64) {
        (case.loss)().unwrap().backward().unwrap();
        for (name, tensor) in case.module.named_parameters() {
            let grad = tensor.grad().unwrap().to_f64_vec().unwrap();
            let values = tensor.to_vec::<f64>().unwrap();
            // Some elements of each, the last among them.
            for i in (0..values.len()).step_by(values.len() / 5 + 1).chain([values.len() - 1]) {
                let loss_at = |value: f64| {
                    let mut moved = values.clone();
                    moved[i] = value;
                    let moved = Tensor::from_slice(&moved, tensor.shape(), tensor.device()).unwrap();
                    no_grad(|| tensor.copy_(&moved)).unwrap();
                    no_grad(|| (case.loss)()).unwrap().item().unwrap()
                };
                let h = 1e-5;
                let numeric = (loss_at(values[i] + h) - loss_at(values[i] - h)) / (2.0 * h);
                loss_at(values[i]);
                let error = (grad[i] - numeric).abs() / (1.0 + numeric.abs());
                assert!(error < 1e-7, "{}: {name}[{i}]: {} against {numeric}", case.name, grad[i]);
            }
        }
    }
}

#[test]
fn transformers_compute_what_plain_loops_do() {
    let tokens = [3i64, 1, 4, 1, 5, 9, 2];
    for (name, config) in variations() {
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-4)] {
            let model = model(config.clone(), dtype);
            let got = model.forward(&ids(&tokens, &[1, 7]), &Pass::eval()).unwrap();
            assert_eq!((&got.shape()[..], got.dtype()), (&[1, 7, 11][..], dtype));
            let want = naive_logits(&config, &model.state_dict(), &tokens);
            let error = max_difference(&got.to_f64_vec().unwrap(), &want);
            assert!(error < tolerance, "{name} {dtype}: {error}");
        }
    }
}

#[test]
fn recurrent_layers_follow_the_equations() {
    let (batch, len, input, hidden, layers) = (2, 4, 3, 5, 2);
    let config = RnnConfig { layers, ..RnnConfig::new(input, hidden) };
    let (gru, lstm) =
        (Gru::new(&init(DType::F64), config.clone()).unwrap(), Lstm::new(&init(DType::F64), config).unwrap());
    let x = random(&[batch, len, input], DType::F64, 3);
    let (h0, c0) =
        (random(&[layers, batch, hidden], DType::F64, 4), random(&[layers, batch, hidden], DType::F64, 5));
    for states in [None, Some((&h0, &c0))] {
        let (y, h) = gru.forward(&x, states.map(|s| s.0), &Pass::eval()).unwrap();
        let (want_y, want_h, _) = naive_rnn(&gru.state_dict(), &x, states, 3);
        assert_eq!(
            (&y.shape()[..], &h.shape()[..]),
            (&[batch, len, hidden][..], &[layers, batch, hidden][..])
        );
        assert!(max_difference(&y.to_f64_vec().unwrap(), &want_y) < 1e-12);
        assert!(max_difference(&h.to_f64_vec().unwrap(), &want_h) < 1e-12);
        let (y, (h, c)) = lstm.forward(&x, states, &Pass::eval()).unwrap();
        let (want_y, want_h, want_c) = naive_rnn(&lstm.state_dict(), &x, states, 4);
        assert!(max_difference(&y.to_f64_vec().unwrap(), &want_y) < 1e-12);
        assert!(max_difference(&h.to_f64_vec().unwrap(), &want_h) < 1e-12);
        assert!(max_difference(&c.to_f64_vec().unwrap(), &want_c) < 1e-12);
    }
}

/// Two layers of GRU (3 gates) or LSTM (4), element by element: outputs, last hidden states, last cell states.
fn naive_rnn(
    state: &StateDict,
    x: &Tensor,
    initial: Option<(&Tensor, &Tensor)>,
    gates: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (batch, len) = (x.dim(0), x.dim(1));
    let hidden = state["weight_hh_l0"].dim(1);
    let start = |t: &Tensor, layer: usize, b: usize| {
        t.to_f64_vec().unwrap()[(layer * batch + b) * hidden..][..hidden].to_vec()
    };
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let (mut input, mut width) = (x.to_f64_vec().unwrap(), x.dim(2));
    let (mut last_h, mut last_c) = (Vec::new(), Vec::new());
    for layer in 0..2 {
        let [wi, wh, bi, bh] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
            .map(|name| state[&format!("{name}_l{layer}")].to_f64_vec().unwrap());
        let mut output = vec![0.0; batch * len * hidden];
        for b in 0..batch {
            let mut h = initial.map_or(vec![0.0; hidden], |s| start(s.0, layer, b));
            let mut c = initial.map_or(vec![0.0; hidden], |s| start(s.1, layer, b));
            for t in 0..len {
                let row = &input[(b * len + t) * width..][..width];
                let from_x = |o: usize| bi[o] + (0..width).map(|i| wi[o * width + i] * row[i]).sum::<f64>();
                let from_h = |o: usize| bh[o] + (0..hidden).map(|i| wh[o * hidden + i] * h[i]).sum::<f64>();
                let gate = |g: usize, i: usize| from_x(g * hidden + i) + from_h(g * hidden + i);
                let mut next = vec![0.0; hidden];
                for i in 0..hidden {
                    if gates == 3 {
                        let (r, z) = (sigmoid(gate(0, i)), sigmoid(gate(1, i)));
                        let n = (from_x(2 * hidden + i) + r * from_h(2 * hidden + i)).tanh();
                        next[i] = (1.0 - z) * n + z * h[i];
                    } else {
                        c[i] = sigmoid(gate(1, i)) * c[i] + sigmoid(gate(0, i)) * gate(2, i).tanh();
                        next[i] = sigmoid(gate(3, i)) * c[i].tanh();
                    }
                }
                h = next;
                output[(b * len + t) * hidden..][..hidden].copy_from_slice(&h);
            }
            last_h.extend(h);
            last_c.extend(c);
        }
        (input, width) = (output, hidden);
    }
    (input, last_h, last_c)
}

#[test]
fn recurrent_layers_name_wrong_input() {
    let gru = Gru::new(&init(DType::F32), RnnConfig::new(3, 5)).unwrap();
    let message = |x: &[usize], h: Option<&[usize]>| {
        let h = h.map(|shape| random(shape, DType::F32, 1));
        gru.forward(&random(x, DType::F32, 1), h.as_ref(), &Pass::eval()).err().unwrap().message
    };
    assert!(message(&[2, 4, 4], None).contains("(batch, sequence, 3)"));
    assert!(message(&[2, 0, 3], None).contains("at least 1"));
    assert!(message(&[2, 4, 3], Some(&[1, 3, 5])).contains("(1, 2, 5), got (1, 3, 5)"));
    assert!(Lstm::new(&init(DType::F32), RnnConfig::new(3, 0)).err().unwrap().message.contains("hidden = 0"));
}

fn train_pass(generator: &Arc<Generator>) -> Pass {
    generator.begin_step(0).unwrap();
    Pass::train(generator.clone())
}

fn grads(model: &dyn Module) -> Vec<Vec<f64>> {
    let all = model.named_parameters().iter().map(|(_, t)| t.grad().unwrap().to_f64_vec().unwrap()).collect();
    model.zero_grad();
    all
}

#[test]
fn dropout_is_for_training() {
    let model = model(TransformerConfig { dropout: 0.3, ..small() }, DType::F32);
    let tokens = ids(&[1, 2, 3, 4], &[1, 4]);
    let run = |pass: &Pass| model.forward(&tokens, pass).unwrap().to_f64_vec().unwrap();
    let generator = Arc::new(Generator::new(3, &Device::cpu()).unwrap());
    let eval = run(&Pass::eval());
    assert_eq!(eval, run(&Pass { generator: Some(generator.clone()), ..Pass::eval() }));
    let dropped = run(&train_pass(&generator));
    assert_ne!(eval, dropped);
    assert_eq!(dropped, run(&train_pass(&generator)), "the same step drops the same elements");
    generator.begin_step(1).unwrap();
    assert_ne!(dropped, run(&Pass::train(generator)));
    let error = model.forward(&tokens, &Pass { training: true, ..Pass::default() }).unwrap_err().message;
    assert!(error.contains("dropout of 0.3") && error.contains("generator"), "{error}");
}

/// Dropout leaves the mean as it is, and everything behind the weights is linear in them.
#[test]
fn attention_drops_weights_in_training() {
    const STEPS: u64 = 4000;
    let out = Fill::residual(1);
    let sizes = AttentionConfig {
        dim: 8,
        heads: 2,
        kv_heads: 1,
        causal: true,
        rope: None,
        bias: true,
        out,
        dropout: 0.4,
    };
    let attention = Attention::new(&init(DType::F64), sizes).unwrap();
    scramble(&attention);
    let x = random(&[1, 5, 8], DType::F64, 5);
    let run = |pass: &Pass| attention.forward(&x, pass).unwrap().to_f64_vec().unwrap();
    let eval = run(&Pass::eval());
    let generator = Arc::new(Generator::new(3, &Device::cpu()).unwrap());
    assert!(max_difference(&eval, &run(&Pass::train(generator.clone()))) > 1e-3, "nothing is dropped");
    let mut mean = vec![0.0; eval.len()];
    for step in 0..STEPS {
        generator.begin_step(step).unwrap();
        let y = run(&Pass::train(generator.clone()));
        mean.iter_mut().zip(y).for_each(|(mean, y)| *mean += y / STEPS as f64);
    }
    let spread = eval.iter().fold(0.0f64, |m, y| m.max(y.abs()));
    assert!(max_difference(&eval, &mean) < 0.05 * spread, "{eval:?} but on average {mean:?}");
}

#[test]
fn recomputed_blocks_give_the_same_gradients() {
    let model = model(TransformerConfig { dropout: 0.2, ..small() }, DType::F32);
    let (tokens, targets) = (ids(&[1, 2, 3, 4], &[2, 2]), ids(&[2, 3, 4, 5], &[2, 2]));
    let generator = Arc::new(Generator::new(3, &Device::cpu()).unwrap());
    let run = |recompute: bool| {
        let loss = model.loss(&tokens, &targets, &Pass { recompute, ..train_pass(&generator) }).unwrap();
        loss.backward().unwrap();
        (loss.item().unwrap(), grads(&model))
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn tied_weights_get_the_sum_of_both_gradients() {
    let untied = model(small(), DType::F64);
    let tied = model(TransformerConfig { tie_embeddings: true, ..small() }, DType::F64);
    assert_eq!(untied.num_parameters(), tied.num_parameters() + 11 * 8);
    assert!(tied.named_parameters().iter().all(|(name, _)| name != "head.weight"));
    // A state that holds the tied weight under both names, as PyTorch writes it, fits both.
    let mut state = tied.state_dict();
    state.insert("head.weight".into(), state["tok_embedding.weight"].copy().unwrap());
    untied.load_state_dict(&state).unwrap();
    tied.load_state_dict(&state).unwrap();
    let (tokens, targets) = (ids(&[1, 2, 3, 4], &[1, 4]), ids(&[2, 3, 4, 5], &[1, 4]));
    let backward = |model: &Transformer| {
        model.loss(&tokens, &targets, &Pass::eval()).unwrap().backward().unwrap();
        let grad = |t: &Tensor| t.grad().unwrap().to_f64_vec().unwrap();
        (grad(&model.tok_embedding.weight), grad(&model.head.weight))
    };
    let (embedding, head) = backward(&untied);
    let sum: Vec<f64> = embedding.iter().zip(&head).map(|(a, b)| a + b).collect();
    let (got, same) = backward(&tied);
    assert_eq!(got, same);
    assert!(max_difference(&got, &sum) < 1e-12);
    // But not if the two differ: one of them would be lost.
    state.insert("head.weight".into(), state["head.weight"].mul_scalar(2.0).unwrap());
    let error = tied.load_state_dict(&state).unwrap_err().message;
    assert!(error.contains("head.weight: this model ties it to tok_embedding.weight"), "{error}");
}

#[test]
fn half_precision_keeps_gradients_of_master_weights_single() {
    let (tokens, targets) = (ids(&[1, 2, 3, 4, 5, 6], &[2, 3]), ids(&[2, 3, 4, 5, 6, 7], &[2, 3]));
    for (name, config) in variations() {
        let model = model(config, DType::F32);
        let run = |pass: &Pass| {
            let loss = model.loss(&tokens, &targets, pass).unwrap();
            assert_eq!(loss.dtype(), DType::F32, "{name}");
            loss.backward().unwrap();
            assert!(
                model.named_parameters().iter().all(|(_, t)| t.grad().unwrap().dtype() == DType::F32),
                "{name}"
            );
            (loss.item().unwrap(), grads(&model).concat())
        };
        let (loss, grad) = run(&Pass::eval());
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (dtype, tolerance) in [(DType::F16, 0.02), (DType::BF16, 0.12)] {
            let pass = Pass::eval().with_compute(dtype);
            assert_eq!(no_grad(|| model.forward(&tokens, &pass)).unwrap().dtype(), dtype);
            let (half_loss, half_grad) = run(&pass);
            let difference: Vec<f64> = grad.iter().zip(&half_grad).map(|(a, b)| a - b).collect();
            let error = norm(&difference) / norm(&grad);
            assert!(error > 0.0 && error < tolerance, "{name} {dtype}: {error}");
            assert!(
                (half_loss - loss).abs() < tolerance * loss,
                "{name} {dtype}: {half_loss} against {loss}"
            );
        }
    }
}

#[test]
fn parameters_are_drawn_by_name() {
    let device = Device::cpu();
    let build = |config: TransformerConfig, seed| {
        Transformer::new(config, &Init::new(seed, DType::F32, &device)).unwrap().state_dict()
    };
    let bytes = |state: &StateDict, name: &str| state[name].to_bytes().unwrap();
    let (one, again, other) = (build(small(), 1), build(small(), 1), build(small(), 2));
    for name in one.keys() {
        assert_eq!(bytes(&one, name), bytes(&again, name), "{name}");
        // Biases and norms are constants.
        let drawn = name.ends_with("weight") && !name.contains("ln");
        assert_eq!(bytes(&one, name) != bytes(&other, name), drawn, "{name}");
    }
    assert_ne!(bytes(&one, "blocks.0.attn.qkv.weight"), bytes(&one, "blocks.1.attn.qkv.weight"));
    // A parameter does not depend on which others the model has.
    let rope = build(TransformerConfig { positions: Positions::Rope, ..small() }, 1);
    assert_eq!(bytes(&one, "blocks.1.mlp.fc2.weight"), bytes(&rope, "blocks.1.mlp.fc2.weight"));
}

#[test]
fn initial_values_are_those_of_gpt2() {
    let config = TransformerConfig { dim: 64, ff: 256, layers: 2, ..small() };
    let state = Transformer::new(config, &init(DType::F32)).unwrap().state_dict();
    let moments = |name: &str| {
        let v = state[name].to_f64_vec().unwrap();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        (mean, (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt())
    };
    for (name, std) in [
        ("blocks.0.attn.qkv.weight", 0.02),
        ("blocks.0.mlp.fc1.weight", 0.02),
        ("blocks.0.attn.proj.weight", 0.01),
        ("blocks.1.mlp.fc2.weight", 0.01),
    ] {
        let (mean, got) = moments(name);
        assert!(mean.abs() < 0.1 * std && (got / std - 1.0).abs() < 0.05, "{name}: mean {mean}, std {got}");
    }
    for (name, value) in [("blocks.0.attn.qkv.bias", 0.0), ("blocks.1.ln2.weight", 1.0), ("ln_f.bias", 0.0)] {
        assert!(state[name].to_f64_vec().unwrap().iter().all(|&v| v == value), "{name}");
    }
}

#[test]
fn names_are_those_of_the_checkpoint_format() {
    let config = TransformerConfig { layers: 1, ..small() };
    let names: Vec<String> =
        model(config, DType::F32).named_parameters().into_iter().map(|(name, _)| name).collect();
    let block = ["ln1", "attn.qkv", "attn.proj", "ln2", "mlp.fc1", "mlp.fc2"];
    let mut want = vec!["tok_embedding.weight".to_string(), "pos_embedding.weight".into()];
    for part in block.map(|part| format!("blocks.0.{part}")).into_iter().chain(["ln_f".into()]) {
        want.extend([format!("{part}.weight"), format!("{part}.bias")]);
    }
    want.push("head.weight".into());
    assert_eq!(names, want);
    let gru = Gru::new(&init(DType::F32), RnnConfig::new(3, 5)).unwrap();
    let shapes: Vec<String> =
        gru.named_parameters().iter().map(|(name, t)| format!("{name} {}", t.shape())).collect();
    assert_eq!(
        shapes,
        ["weight_ih_l0 (15, 3)", "weight_hh_l0 (15, 5)", "bias_ih_l0 (15,)", "bias_hh_l0 (15,)"]
    );
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let model = model(small(), DType::F32);
    let before = model.state_dict()["ln_f.weight"].to_bytes().unwrap();
    let mut state: StateDict =
        model.state_dict().into_iter().map(|(name, t)| (name, t.mul_scalar(2.0).unwrap())).collect();
    state.remove("head.weight");
    state.insert("ln_f.bias".into(), random(&[9], DType::F32, 1));
    state.insert("ln_f.scale".into(), random(&[8], DType::F32, 1));
    state.insert("blocks.0.ln1.weight".into(), random(&[8], DType::F64, 1));
    let error = model.load_state_dict(&state).unwrap_err().message;
    for words in [
        "4 problems",
        "head.weight: missing; expected f32 (11, 8)",
        "ln_f.bias: found f32 (9,), expected f32 (8,)",
        "blocks.0.ln1.weight: found f64 (8,), expected f32 (8,)",
        "ln_f.scale: unexpected f32 (8,)",
    ] {
        assert!(error.contains(words), "{words} is not in: {error}");
    }
    assert_eq!(model.state_dict()["ln_f.weight"].to_bytes().unwrap(), before);
}

#[test]
fn state_moves_between_models() {
    let (from, to) = (model(small(), DType::F32), Transformer::new(small(), &init(DType::F32)).unwrap());
    to.load_state_dict(&from.state_dict()).unwrap();
    let run =
        |m: &Transformer| m.forward(&ids(&[1, 2, 3], &[1, 3]), &Pass::eval()).unwrap().to_bytes().unwrap();
    assert_eq!(run(&from), run(&to));
}

#[test]
fn wrong_configurations_are_explained() {
    type Change = fn(&mut TransformerConfig);
    let message = |change: Change| {
        let mut config = small();
        change(&mut config);
        Transformer::new(config, &init(DType::F32)).expect_err("the configuration is wrong").message
    };
    let cases: [(Change, &str); 9] = [
        (|c| c.heads = 3, "heads = 3 must divide dim = 8: one of 1, 2, 4, 8"),
        (|c| (c.heads, c.kv_heads) = (4, 3), "kv_heads = 3 must divide heads = 4: one of 1, 2, 4"),
        (|c| (c.layers, c.ff) = (0, 0), "layers = 0, ff = 0"),
        (|c| (c.heads, c.positions) = (8, Positions::Rope), "8 / 8 = 1"),
        (|c| c.dropout = 1.0, "dropout = 1 must"),
        (|c| c.norm_eps = 0.0, "norm_eps = 0 must"),
        (|c| c.dropout = f64::NAN, "dropout = NaN must"),
        (|c| (c.positions, c.rope_base) = (Positions::Rope, 1.0), "rope_base = 1 must"),
        (|c| (c.tie_embeddings, c.head_bias) = (true, true), "head_bias = true"),
    ];
    for (change, words) in cases {
        let message = message(change);
        assert!(message.contains(words), "{words} is not in: {message}");
    }
    // Two mistakes, one message.
    let both = message(|c| (c.heads, c.dropout) = (3, -1.0));
    assert!(both.contains("heads = 3") && both.contains("dropout = -1"), "{both}");
}

#[test]
fn wrong_tokens_are_explained() {
    let model = model(small(), DType::F32);
    let message = |tokens: Tensor| model.forward(&tokens, &Pass::eval()).err().unwrap().message;
    let error = message(ids(&[1; 11], &[1, 11]));
    assert!(error.contains("11 tokens") && error.contains("10 positions"), "{error}");
    assert!(message(ids(&[], &[1, 0])).contains("at least one token"));
    assert!(message(ids(&[1, 2], &[2])).contains("(batch, sequence)"));
    let error = message(ids(&[1, 11], &[1, 2]));
    assert!(error.contains("11"), "{error}");
}

#[test]
fn configurations_go_through_json() {
    for (name, config) in variations() {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TransformerConfig>(&json).unwrap(), config, "{name}: {json}");
    }
}
