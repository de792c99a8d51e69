//! What is fused for training: sums with norms, whose two results both have gradients, and copies of parameters in the
//! dtype of training.

use bullet_tensor::optim::{Adam, Slot, StepState, adam_step};
use bullet_tensor::{Activation, DType, Device, Result, Tensor, no_grad};

use crate::harness::devices;

/// The devices under test, as for the conformance tests.
fn leaf(shape: &[usize], dtype: DType, device: &Device, seed: u64) -> Result<Tensor> {
    Tensor::randn(shape, dtype, device, seed)?.requires_grad()
}

fn values(t: &Tensor) -> Result<Vec<f64>> {
    t.contiguous()?.to_f64_vec()
}

/// The gradients of all leaves, where the norm's result counts `of_norm` times and the sum's `of_sum` times.
fn grads(fused: bool, rms: bool, weights: usize, uses: [bool; 2], device: &Device) -> Result<Vec<Vec<f64>>> {
    const ROWS: usize = 67;
    const WIDTH: usize = 40;
    let (x, r) = (leaf(&[ROWS, WIDTH], DType::F64, device, 1)?, leaf(&[ROWS, WIDTH], DType::F64, device, 2)?);
    let (w, b) = (leaf(&[WIDTH], DType::F64, device, 3)?, leaf(&[WIDTH], DType::F64, device, 4)?);
    let (weight, bias) = ((weights > 0).then_some(&w), (weights > 1).then_some(&b));
    let (norm, sum) = match (fused, rms) {
        (true, false) => x.add_layer_norm(&r, weight, bias, 1e-5)?,
        (true, true) => x.add_rms_norm(&r, weight, 1e-5)?,
        (false, rms) => {
            let sum = x.add(&r)?;
            (if rms { sum.rms_norm(weight, 1e-5)? } else { sum.layer_norm(weight, bias, 1e-5)? }, sum)
        }
    };
    let [of_norm, of_sum] = [5, 6].map(|seed| Tensor::randn(&[ROWS, WIDTH], DType::F64, device, seed));
    let (of_norm, of_sum) = (norm.mul(&of_norm?)?.sum(&[], false)?, sum.mul(&of_sum?)?.sum(&[], false)?);
    match uses {
        [true, true] => of_norm.add(&of_sum)?.backward()?,
        [true, false] => of_norm.backward()?,
        [false, _] => of_sum.backward()?,
    }
    let grad = |t: &Tensor| t.grad().map_or(Ok(Vec::new()), |g| values(&g));
    [&x, &r, &w, &b].into_iter().map(grad).collect()
}

#[test]
fn both_results_of_a_sum_with_norm_have_gradients() -> Result<()> {
    for device in devices() {
        for rms in [false, true] {
            for weights in 0..=if rms { 1 } else { 2 } {
                for uses in [[true, true], [true, false], [false, true]] {
                    let [got, want] = [true, false].map(|fused| grads(fused, rms, weights, uses, device));
                    for (got, want) in got?.iter().zip(want?) {
                        assert_eq!(got.len(), want.len(), "rms {rms}, {weights} weights, {uses:?}");
                        let close = got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-9);
                        assert!(close, "rms {rms}, {weights} weights, {uses:?} on {device}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_sum_of_unlike_tensors_is_refused() -> Result<()> {
    let device = Device::cpu();
    let (x, r) = (Tensor::ones(&[2, 3], DType::F32, &device)?, Tensor::ones(&[1, 3], DType::F32, &device)?);
    let message = x.add_rms_norm(&r, None, 1e-5).unwrap_err().to_string();
    assert!(message.contains("(2, 3)") && message.contains("(1, 3)"), "{message}");
    Ok(())
}

/// Biases of several layers, some of them used twice, are summed together where that is one launch.
#[test]
fn biases_have_the_sums_of_rows() -> Result<()> {
    for device in devices() {
        let run = |twice: bool| -> Result<Vec<Vec<f64>>> {
            let mut y = leaf(&[3, 50, 16], DType::F32, device, 1)?;
            let mut biases = Vec::new();
            for i in 0..70 {
                let width = 16 + i % 3;
                let w = Tensor::randn(&[width, y.dim(2)], DType::F32, device, i as u64)?.mul_scalar(0.1)?;
                let b = Tensor::randn(&[width], DType::F32, device, 100 + i as u64)?.requires_grad()?;
                y = y.linear(&w, Some(&b), Activation::GeluTanh)?;
                biases.push((w, b));
            }
            let (w, b) = &biases[69];
            if twice {
                let x = Tensor::ones(&[2, w.dim(1)], DType::F32, device)?;
                let more = x.linear(w, Some(b), Activation::Identity)?.sum(&[], false)?;
                y.sum(&[], false)?.add(&more)?.backward()?;
            } else {
                y.sum(&[], false)?.backward()?;
            }
            biases.iter().map(|(_, b)| values(&b.grad().expect("every bias has a gradient"))).collect()
        };
        let (once, twice) = (run(false)?, run(true)?);
        assert_eq!(once, run(false)?);
        assert_eq!(once[..69], twice[..69]);
        for (once, twice) in once[69].iter().zip(&twice[69]) {
            assert!((twice - once - 2.0).abs() < 1e-3 * once.abs().max(1.0), "{twice} after {once}");
        }
    }
    Ok(())
}

fn cast(p: &Tensor) -> Result<Vec<f64>> {
    no_grad(|| values(&p.detach().cast(DType::F16)?))
}

#[test]
fn gradients_reach_a_parameter_through_its_shadow() -> Result<()> {
    for device in devices() {
        let p = leaf(&[33], DType::F32, device, 1)?;
        let once = |scale: f64| p.shadow(DType::F16)?.mul_scalar(scale)?.sum(&[], false)?.backward();
        once(0.5)?;
        assert_eq!(p.computed_grad().unwrap().dtype(), DType::F16);
        assert_eq!(p.grad().unwrap().dtype(), DType::F32);
        // Sums are in f32, where 2048.5 is a number, in whatever order the parts come.
        once(2048.0)?;
        assert_eq!(p.computed_grad().unwrap().dtype(), DType::F32);
        assert_eq!(values(&p.grad().unwrap())?, vec![2048.5; 33]);
        // Neither views nor other dtypes have shadows, and a shadow is not replaced.
        assert_eq!(p.narrow(0, 1, 2)?.shadow(DType::F16)?.dtype(), DType::F16);
        assert_eq!(p.shadow(DType::BF16)?.dtype(), DType::BF16);
        assert_eq!(p.shadow_values().unwrap().dtype(), DType::F16);
        assert!(p.shadow(DType::F32)?.shares_memory(&p));
    }
    Ok(())
}

#[test]
fn a_shadow_follows_what_is_written_to_its_parameter() -> Result<()> {
    for device in devices() {
        let p = leaf(&[5, 7], DType::F32, device, 1)?;
        let memory = p.shadow(DType::F16)?;
        no_grad(|| p.mul_(&Tensor::scalar(3.0f32, device)?))?;
        assert_ne!(values(&memory)?, cast(&p)?);
        p.refresh_shadow()?;
        assert_eq!(values(&memory)?, cast(&p)?);
        no_grad(|| p.copy_(&Tensor::randn(&[5, 7], DType::F32, device, 9)?))?;
        assert_eq!(values(&p.shadow(DType::F16)?)?, cast(&p)?);
        // Or to the shadow itself.
        memory.detach().fill_(1.0)?;
        assert_eq!(values(&p.shadow(DType::F16)?)?, cast(&p)?);
        assert!(p.shadow(DType::F16)?.shares_memory(&memory));
    }
    Ok(())
}

#[test]
fn optimizer_steps_keep_shadows_up_to_date() -> Result<()> {
    for device in devices() {
        let p = leaf(&[300], DType::F32, device, 1)?;
        let moments = [0, 1].map(|_| Tensor::zeros(&[300], DType::F32, device));
        let [m, v] = moments;
        let moments = [m?, v?];
        let (step, lr) = (Tensor::scalar(0i64, device)?, Tensor::scalar(0.1f32, device)?);
        let grad_scale = Tensor::scalar(1.0f32, device)?;
        let run = |skip: bool| -> Result<()> {
            let skip = Tensor::scalar(skip, device)?;
            let grad = p.computed_grad().expect("backward ran");
            let slot = Slot { param: &p, grad: &grad, moments: &moments, shadow: p.shadow_values() };
            let state = StepState { step: &step, lr: &lr, grad_scale: &grad_scale, skip: &skip };
            let hyper = Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, decoupled: true };
            no_grad(|| adam_step(&[slot], &state, &hyper))
        };
        let forward = || p.shadow(DType::F16)?.square()?.sum(&[], false)?.backward();
        for skip in [false, true, false] {
            forward()?;
            let (before, version) = (values(&p)?, p.shadow_values().unwrap().version());
            run(skip)?;
            assert_eq!(values(&p)? == before, skip);
            assert_eq!(values(&p.shadow_values().unwrap())?, cast(&p)?);
            // It is known to be up to date: nothing is copied.
            p.refresh_shadow()?;
            assert_eq!(p.shadow_values().unwrap().version(), version + 1);
        }
        // One that was out of date before a step that is skipped is so after it.
        forward()?;
        no_grad(|| p.mul_(&Tensor::scalar(2.0f32, device)?))?;
        run(true)?;
        assert_ne!(values(&p.shadow_values().unwrap())?, cast(&p)?);
        assert_eq!(values(&p.shadow(DType::F16)?)?, cast(&p)?);
    }
    Ok(())
}
