//! Optimizers against independent loops in f64, written from the update rules that PyTorch documents.

use bullet_nn::optim::{GroupOptions, LossScaler, Optimizer, Rule};
use bullet_nn::{Result, StateDict};
use bullet_tensor::{DType, Device, Tensor};

/// The gradient of step `t` at element `i`: changes sign and size, and depends on nothing else.
fn gradient(t: usize, i: usize) -> f64 {
    ((t * 37 + i * 11) as f64 * 0.7).sin() * (1.0 + (i % 5) as f64)
}

fn start(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * 1.3).cos()).collect()
}

/// What a rule does, in f64 on plain vectors.
struct Reference {
    rule: Rule,
    options: GroupOptions,
    p: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
    t: i32,
}

impl Reference {
    fn new(rule: Rule, options: GroupOptions, p: Vec<f64>) -> Reference {
        let zeros = vec![0.0; p.len()];
        Reference { rule, options, p, a: zeros.clone(), b: zeros, t: 0 }
    }

    fn step(&mut self, grad: impl Fn(usize) -> f64, lr: f64) {
        self.t += 1;
        let lr = lr * self.options.lr_scale;
        let decay = self.options.weight_decay;
        for i in 0..self.p.len() {
            let mut g = grad(i);
            match self.rule {
                Rule::Sgd { momentum, nesterov } => {
                    g += decay * self.p[i];
                    if momentum != 0.0 {
                        self.a[i] = if self.t == 1 { g } else { momentum * self.a[i] + g };
                        g = if nesterov { g + momentum * self.a[i] } else { self.a[i] };
                    }
                    self.p[i] -= lr * g;
                }
                Rule::Own => unreachable!("no test of this oracle has one"),
                Rule::Adam { beta1, beta2, eps } | Rule::AdamW { beta1, beta2, eps } => {
                    if matches!(self.rule, Rule::AdamW { .. }) {
                        self.p[i] -= lr * decay * self.p[i];
                    } else {
                        g += decay * self.p[i];
                    }
                    self.a[i] = beta1 * self.a[i] + (1.0 - beta1) * g;
                    self.b[i] = beta2 * self.b[i] + (1.0 - beta2) * g * g;
                    let mean = self.a[i] / (1.0 - beta1.powi(self.t));
                    let square = self.b[i] / (1.0 - beta2.powi(self.t));
                    self.p[i] -= lr * mean / (square.sqrt() + eps);
                }
            }
        }
    }
}

fn parameter(values: &[f64], shape: &[usize]) -> Tensor {
    let data: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap().requires_grad().unwrap()
}

fn set_grad(p: &Tensor, grad: impl Fn(usize) -> f64) {
    let data: Vec<f32> = (0..p.numel()).map(|i| grad(i) as f32).collect();
    p.set_grad(Some(Tensor::from_slice(&data, p.shape(), p.device()).unwrap()));
}

fn assert_close(name: &str, got: &Tensor, want: &[f64], tolerance: f64) {
    for (i, (g, w)) in got.to_f64_vec().unwrap().iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{name}: element {i} is {g}, not {w}");
    }
}

fn all_rules() -> Vec<Rule> {
    vec![
        Rule::SGD,
        Rule::Sgd { momentum: 0.9, nesterov: false },
        Rule::Sgd { momentum: 0.8, nesterov: true },
        Rule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        Rule::Adam { beta1: 0.5, beta2: 0.9, eps: 1e-3 },
        Rule::ADAMW,
        Rule::AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-5 },
        Rule::AdamW { beta1: 0.0, beta2: 0.99, eps: 1e-8 },
    ]
}

#[test]
fn every_rule_follows_its_documented_update_over_many_steps() -> Result<()> {
    // Above one chunk of the kernels and not a multiple of a vector.
    const N: usize = 1500;
    for rule in all_rules() {
        for weight_decay in [0.0, 0.05] {
            for lr_scale in [1.0, 0.5] {
                let options = GroupOptions { lr_scale, weight_decay };
                let mut reference = Reference::new(rule, options, start(N));
                let p = parameter(&start(N), &[N]);
                let optimizer = Optimizer::new(rule, vec![("p".into(), p.clone())], |_, _| options)?;
                for t in 0..100 {
                    let lr = 1e-2 / (1.0 + t as f64 / 50.0);
                    optimizer.set_lr(lr)?;
                    set_grad(&p, |i| gradient(t, i));
                    optimizer.step(&optimizer.gradient_scale(None, None)?)?;
                    reference.step(|i| gradient(t, i), lr);
                }
                // 100 roundings to f32 of a value near 1, and of its moments.
                assert_close(&format!("{rule:?} {options:?}"), &p, &reference.p, 2e-5);
                assert_eq!(optimizer.steps_taken().item()?, 100.0);
            }
        }
    }
    Ok(())
}

#[test]
fn groups_decay_matrices_only_and_scale_their_rate() -> Result<()> {
    let (matrix, bias) = (parameter(&start(6), &[2, 3]), parameter(&start(3), &[3]));
    let named = vec![("w".to_string(), matrix.clone()), ("b".to_string(), bias.clone())];
    let options = |_: &str, t: &Tensor| GroupOptions {
        lr_scale: if t.rank() >= 2 { 1.0 } else { 2.0 },
        weight_decay: if t.rank() >= 2 { 0.1 } else { 0.0 },
    };
    let optimizer = Optimizer::new(Rule::ADAMW, named, options)?;
    assert_eq!(optimizer.groups().map(|g| g.1).collect::<Vec<_>>(), [["w"], ["b"]]);
    let mut references = [(6, options("", &matrix)), (3, options("", &bias))]
        .map(|(n, o)| Reference::new(Rule::ADAMW, o, start(n)));
    optimizer.set_lr(0.01)?;
    for t in 0..20 {
        for (p, r) in [&matrix, &bias].into_iter().zip(&mut references) {
            set_grad(p, |i| gradient(t, i));
            r.step(|i| gradient(t, i), 0.01);
        }
        optimizer.step(&optimizer.gradient_scale(None, None)?)?;
    }
    assert_close("matrix", &matrix, &references[0].p, 1e-5);
    assert_close("bias", &bias, &references[1].p, 1e-5);
    Ok(())
}

#[test]
fn clipping_is_by_the_global_norm() -> Result<()> {
    for (limit, clipped) in [(1.0, true), (1000.0, false)] {
        let (a, b) = (parameter(&start(40), &[40]), parameter(&start(9), &[3, 3]));
        let named = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
        let optimizer = Optimizer::new(Rule::SGD, named, |_, _| GroupOptions::default())?;
        optimizer.set_lr(0.1)?;
        set_grad(&a, |i| gradient(1, i));
        set_grad(&b, |i| gradient(2, i));
        let squares = (0..40).map(|i| gradient(1, i).powi(2)).sum::<f64>()
            + (0..9).map(|i| gradient(2, i).powi(2)).sum::<f64>();
        let norm = squares.sqrt();
        // As torch.nn.utils.clip_grad_norm_.
        let factor = (limit / (norm + 1e-6)).min(1.0);
        assert_eq!(factor < 1.0, clipped);
        let scale = optimizer.gradient_scale(None, Some(limit))?;
        assert!((scale.norm.item()? - norm).abs() < 1e-4 * norm);
        optimizer.step(&scale)?;
        let want = |n, t| (0..n).map(|i| start(n)[i] - 0.1 * factor * gradient(t, i)).collect::<Vec<_>>();
        assert_close("a", &a, &want(40, 1), 1e-6);
        assert_close("b", &b, &want(9, 2), 1e-6);
    }
    Ok(())
}

#[test]
fn state_moves_to_another_optimizer_bit_by_bit() -> Result<()> {
    for rule in all_rules() {
        let make = |values: &Tensor| {
            let p = values.copy()?.requires_grad()?;
            let named = vec![("p".to_string(), p.clone())];
            let optimizer =
                Optimizer::new(rule, named, |_, _| GroupOptions { lr_scale: 1.0, weight_decay: 0.01 })?;
            optimizer.set_lr(0.05)?;
            Ok::<_, bullet_nn::Error>((p, optimizer))
        };
        let run = |p: &Tensor, optimizer: &Optimizer, steps: std::ops::Range<usize>| -> Result<()> {
            for t in steps {
                set_grad(p, |i| gradient(t, i));
                optimizer.step(&optimizer.gradient_scale(None, Some(1.0))?)?;
            }
            Ok(())
        };
        let (p, first) = make(&parameter(&start(33), &[33]).detach())?;
        run(&p, &first, 0..7)?;
        let (q, second) = make(&p.detach())?;
        let state: StateDict =
            first.state().into_iter().map(|(n, t)| Ok((n, t.copy()?))).collect::<Result<_>>()?;
        second.load(&state)?;
        run(&p, &first, 7..15)?;
        run(&q, &second, 7..15)?;
        assert_eq!(p.to_bytes()?, q.to_bytes()?, "{rule:?}");
        let lacking: StateDict = StateDict::new();
        let message = second.load(&lacking).unwrap_err().message;
        assert!(message.contains("optim.step: missing") && message.contains("resume with"), "{message}");
    }
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_halves_the_scale() -> Result<()> {
    for bad in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        for rule in all_rules() {
            let (a, b) = (parameter(&start(70), &[70]), parameter(&start(8), &[2, 4]));
            let named = vec![("a".to_string(), a.clone()), ("b".to_string(), b.clone())];
            let optimizer = Optimizer::new(rule, named, |_, t| GroupOptions {
                lr_scale: 1.0,
                weight_decay: t.rank() as f64 * 0.1,
            })?;
            let scaler = LossScaler::new(65536.0, 2000, &Device::cpu())?;
            optimizer.set_lr(0.1)?;
            let step = |bad: Option<f64>| -> Result<()> {
                set_grad(&a, |i| gradient(3, i) * 65536.0);
                set_grad(&b, |i| if i == 5 { bad.unwrap_or(1.0) } else { 1.0 });
                let scale = optimizer.gradient_scale(Some(scaler.scale()), Some(1.0))?;
                optimizer.step(&scale)?;
                scaler.update(&scale.non_finite)
            };
            step(None)?;
            let bytes = || -> Result<Vec<Vec<u8>>> {
                let state = optimizer.state();
                [&a, &b].into_iter().chain(state.iter().map(|s| &s.1)).map(|t| Ok(t.to_bytes()?)).collect()
            };
            let before = bytes()?;
            step(Some(bad))?;
            assert_eq!(bytes()?, before, "{rule:?} with {bad}");
            assert_eq!(scaler.scale().item()?, 32768.0);
            assert_eq!(optimizer.steps_taken().item()?, 1.0);
            step(None)?;
            assert_ne!(bytes()?, before, "{rule:?} must go on");
            assert_eq!(optimizer.steps_taken().item()?, 2.0);
        }
    }
    Ok(())
}

#[test]
fn the_scale_doubles_after_enough_clean_steps_and_its_state_is_kept() -> Result<()> {
    let cpu = Device::cpu();
    let (clean, overflow) = (Tensor::scalar(false, &cpu)?, Tensor::scalar(true, &cpu)?);
    let scaler = LossScaler::new(1024.0, 3, &cpu)?;
    let mut seen = Vec::new();
    for flag in [&clean, &clean, &overflow, &clean, &clean, &clean, &clean, &clean] {
        scaler.update(flag)?;
        seen.push(scaler.scale().item()?);
    }
    assert_eq!(seen, [1024.0, 1024.0, 512.0, 512.0, 512.0, 1024.0, 1024.0, 1024.0]);
    // Two clean steps are counted: the next doubles, in a scaler that took over the state as well.
    let state: StateDict = scaler.state().into_iter().collect();
    let other = LossScaler::new(2.0, 3, &cpu)?;
    other.load(&state)?;
    other.update(&clean)?;
    assert_eq!(other.scale().item()?, 2048.0);
    Ok(())
}

#[test]
fn powers_of_two_do_not_change_unscaled_gradients() -> Result<()> {
    let mut results = Vec::new();
    for scale in [1.0, 256.0, 65536.0] {
        let p = parameter(&start(100), &[100]);
        let optimizer =
            Optimizer::new(Rule::ADAMW, vec![("p".into(), p.clone())], |_, _| GroupOptions::default())?;
        optimizer.set_lr(0.01)?;
        let scaler = LossScaler::new(scale, 2000, &Device::cpu())?;
        for t in 0..10 {
            set_grad(&p, |i| f64::from(gradient(t, i) as f32) * scale);
            let s = optimizer.gradient_scale(Some(scaler.scale()), Some(3.0))?;
            optimizer.step(&s)?;
        }
        results.push(p.to_bytes()?);
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
    Ok(())
}

#[test]
fn parameters_of_all_floats_are_updated() -> Result<()> {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let p = parameter(&start(50), &[50]).detach().cast(dtype)?.copy()?.requires_grad()?;
        let before = p.to_f64_vec()?;
        let optimizer =
            Optimizer::new(Rule::ADAMW, vec![("p".into(), p.clone())], |_, _| GroupOptions::default())?;
        optimizer.set_lr(0.1)?;
        p.set_grad(Some(Tensor::ones(&[50], dtype, &Device::cpu())?));
        optimizer.step(&optimizer.gradient_scale(None, None)?)?;
        // The first step of Adam has the size of the learning rate.
        let want: Vec<f64> = before.iter().map(|x| x - 0.1).collect();
        assert_close(dtype.name(), &p, &want, 0.02);
    }
    Ok(())
}

#[test]
fn mistakes_are_errors_that_say_what_would_do() {
    let p = || vec![("p".to_string(), parameter(&[1.0], &[1]))];
    let options = |_: &str, _: &Tensor| GroupOptions::default();
    let message = |r: Result<Optimizer>| r.err().expect("must fail").message;
    assert!(message(Optimizer::new(Rule::SGD, Vec::new(), options)).contains("no parameters"));
    let rule = Rule::AdamW { beta1: 1.0, beta2: 0.9, eps: 1e-8 };
    assert!(message(Optimizer::new(rule, p(), options)).contains("beta1 = 1 must be in 0..1"));
    let rule = Rule::Sgd { momentum: 0.0, nesterov: true };
    assert!(message(Optimizer::new(rule, p(), options)).contains("0.9 is usual"));
    let bad = |_: &str, _: &Tensor| GroupOptions { lr_scale: -1.0, weight_decay: 0.0 };
    assert!(message(Optimizer::new(Rule::SGD, p(), bad)).contains("parameter p has lr_scale = -1"));
    let optimizer = Optimizer::new(Rule::SGD, p(), options).unwrap();
    assert!(optimizer.gradient_scale(None, None).err().unwrap().message.contains("call backward"));
}
