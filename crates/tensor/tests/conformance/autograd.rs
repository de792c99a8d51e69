//! The tape: what it keeps, prunes, frees and refuses.

use std::sync::Arc;

use bullet_runtime::HostDriver;
use bullet_tensor::{Activation, DType, Device, Generator, Result, Tensor, no_grad, recompute};

use crate::harness::devices;

/// The first device under test.
fn cpu() -> Device {
    devices()[0].clone()
}

fn leaf(data: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, &cpu()).unwrap().requires_grad().unwrap()
}

fn grad(t: &Tensor) -> Vec<f64> {
    t.grad().expect("the leaf has a gradient").to_f64_vec().unwrap()
}

#[test]
fn a_tensor_used_twice_gets_both_gradients() -> Result<()> {
    let x = leaf(&[2.0, 3.0], &[2]);
    let y = x.mul(&x)?.add(&x)?;
    y.sum(&[], false)?.backward()?;
    assert_eq!(grad(&x), [5.0, 7.0]);
    Ok(())
}

#[test]
fn gradients_accumulate_over_backward_passes() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    for _ in 0..3 {
        x.mul_scalar(2.0)?.sum(&[], false)?.backward()?;
    }
    assert_eq!(grad(&x), [6.0, 6.0]);
    x.set_grad(None);
    assert!(x.grad().is_none());
    Ok(())
}

#[test]
fn two_leaves_of_one_sum_do_not_share_their_gradient() -> Result<()> {
    let (x, y) = (leaf(&[1.0], &[1]), leaf(&[2.0], &[1]));
    x.add(&y)?.sum(&[], false)?.backward()?;
    x.grad().unwrap().mul_(&Tensor::scalar(10.0, &cpu())?)?;
    assert_eq!((grad(&x), grad(&y)), (vec![10.0], vec![1.0]));
    Ok(())
}

#[test]
fn no_grad_and_detach_cut_the_tape() -> Result<()> {
    let x = leaf(&[1.0], &[1]);
    assert!(!no_grad(|| x.exp())?.is_tracked());
    assert!(!x.detach().exp()?.is_tracked());
    let y = x.exp()?.detach().mul(&x)?.sum(&[], false)?;
    y.backward()?;
    assert_eq!(grad(&x), [1f64.exp()]);
    let untracked = x.detach().sum(&[], false)?;
    assert!(untracked.backward().unwrap_err().to_string().contains("does not require gradients"));
    Ok(())
}

#[test]
fn an_overwritten_saved_tensor_is_an_error() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    let y = x.exp()?; // keeps its result
    y.detach().fill_(0.0)?;
    let err = y.sum(&[], false)?.backward().unwrap_err().to_string();
    assert!(err.contains("overwritten") && err.contains("exp"), "{err}");

    let x = leaf(&[1.0, 2.0], &[2]);
    let w = Tensor::from_slice(&[3.0, 4.0], &[2], &cpu())?;
    let y = x.mul(&w)?;
    w.add_(&w)?; // x's gradient would need the old w
    assert!(y.sum(&[], false)?.backward().is_err());
    assert!(x.grad().is_none());
    Ok(())
}

#[test]
fn overwriting_what_the_adjoint_does_not_read_is_fine() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    let w = Tensor::from_slice(&[3.0, 4.0], &[2], &cpu())?;
    let y = x.add(&w)?;
    w.fill_(9.0)?;
    y.sum(&[], false)?.backward()?;
    assert_eq!(grad(&x), [1.0, 1.0]);
    Ok(())
}

#[test]
fn in_place_ops_on_tracked_tensors_are_refused() -> Result<()> {
    let x = leaf(&[1.0], &[1]);
    assert!(x.add_(&x).unwrap_err().to_string().contains("in-place"));
    assert!(x.exp()?.fill_(0.0).is_err());
    no_grad(|| x.fill_(5.0))?;
    assert_eq!(x.to_vec::<f64>()?, [5.0]);
    let b = Tensor::zeros(&[1], DType::F32, &cpu())?.broadcast_to(&[3])?;
    assert!(b.fill_(1.0).unwrap_err().to_string().contains("broadcast"));
    Ok(())
}

#[test]
fn in_place_with_overlapping_operands_reads_the_old_values() -> Result<()> {
    let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4], &cpu())?;
    x.slice(0, 1..4)?.copy_(&x.slice(0, 0..3)?)?;
    assert_eq!(x.to_vec::<f32>()?, [1.0, 1.0, 2.0, 3.0]);
    let m = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &cpu())?;
    m.add_(&m.transpose(0, 1)?)?;
    assert_eq!(m.to_vec::<f32>()?, [2.0, 5.0, 5.0, 8.0]);
    Ok(())
}

#[test]
fn a_second_backward_says_why_not() -> Result<()> {
    let x = leaf(&[1.0], &[1]);
    let y = x.exp()?.sum(&[], false)?;
    y.backward()?;
    assert!(y.backward().unwrap_err().to_string().contains("second time"));
    Ok(())
}

#[test]
fn backward_needs_a_scalar_or_a_gradient() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    let y = x.mul_scalar(3.0)?;
    assert!(y.backward().unwrap_err().to_string().contains("(2,)"));
    assert!(y.backward_with(&Tensor::ones(&[3], DType::F64, &cpu())?).is_err());
    y.backward_with(&Tensor::from_slice(&[1.0, 10.0], &[2], &cpu())?)?;
    assert_eq!(grad(&x), [3.0, 30.0]);
    Ok(())
}

#[test]
fn long_tapes_neither_overflow_the_stack_when_walked_nor_when_dropped() -> Result<()> {
    let x = leaf(&[0.0], &[1]);
    let chain = |n: usize| (0..n).try_fold(x.clone(), |y, _| y.add_scalar(1.0));
    chain(50_000)?.sum(&[], false)?.backward()?;
    assert_eq!(grad(&x), [1.0]);
    drop(chain(50_000)?);
    Ok(())
}

/// Peak memory of a deep chain: backward frees what it passes and reuses gradient buffers, so that it adds no more
/// than a few activations to what the forward pass kept; recomputation keeps only the segments' inputs.
#[test]
fn peak_memory_of_backward_is_bounded() -> Result<()> {
    const LAYERS: usize = 16;
    const N: usize = 1 << 16;
    let bytes = N * 4;
    let run = |segments: bool| -> Result<(usize, usize)> {
        let device = Device::with_driver(Arc::new(HostDriver::new()));
        let x = Tensor::full(0.01, &[N], DType::F32, &device)?.requires_grad()?;
        let block = |t: &Tensor| (0..4).try_fold(t.clone(), |t, _| t.exp()?.sin());
        let mut y = x.clone();
        for _ in 0..LAYERS / 4 {
            y = if segments { recompute(move |t| block(&t[0]), &[&y], None)? } else { block(&y)? };
        }
        let forward = device.memory_stats().used;
        let loss = y.sum(&[], false)?;
        drop(y);
        device.reset_peak();
        loss.backward()?;
        Ok((forward, device.memory_stats().peak))
    };
    let (forward, peak) = run(false)?;
    assert!(forward >= LAYERS * bytes, "every pair of exp and sin keeps the tensor between: {forward}");
    assert!(peak <= forward + 4 * bytes, "backward took {} over the forward's {forward}", peak - forward);
    let (forward, peak) = run(true)?;
    assert!(forward <= 7 * bytes, "recomputation keeps segment inputs only: {forward}");
    assert!(peak <= 20 * bytes, "one segment at a time: {peak}");
    Ok(())
}

/// A constant operand costs nothing: no gradient is computed for it.
#[test]
fn gradients_nobody_needs_are_not_computed() -> Result<()> {
    let device = Device::with_driver(Arc::new(HostDriver::new()));
    const N: usize = 512;
    let x = Tensor::ones(&[N, N], DType::F32, &device)?;
    let w = Tensor::ones(&[1, N], DType::F32, &device)?.requires_grad()?;
    let loss = x.linear(&w, None, Activation::Identity)?.sum(&[], false)?;
    device.reset_peak();
    let before = device.memory_stats().used;
    loss.backward()?;
    let extra = device.memory_stats().peak - before;
    assert!(
        extra < N * N * 4 / 2,
        "backward took {extra} bytes; the gradient of x alone would take {}",
        N * N * 4
    );
    assert_eq!(w.grad().unwrap().to_vec::<f32>()?, vec![N as f32; N]);
    Ok(())
}

#[test]
fn recompute_gives_the_same_bits_and_replays_dropout() -> Result<()> {
    let run = |again: bool| -> Result<(Vec<f32>, Vec<f32>)> {
        let generator = Arc::new(Generator::new(7, &cpu())?);
        generator.begin_step(3)?;
        let x = Tensor::randn(&[8, 16], DType::F32, &cpu(), 1)?.requires_grad()?;
        let w = Tensor::randn(&[48, 16], DType::F32, &cpu(), 2)?.requires_grad()?;
        let (weight, random) = (w.clone(), generator.clone());
        let block = move |t: &[Tensor]| {
            let packed = t[0].linear(&weight, None, Activation::GeluTanh)?.reshape(&[2, 4, 48])?;
            let attended = packed.attention_packed(2, 2, true, Some((0.4, &random)))?;
            attended.reshape(&[8, 16])?.dropout(0.5, &random)?.add(&t[0])
        };
        let y =
            if again { recompute(block, &[&x], Some(generator))? } else { block(std::slice::from_ref(&x))? };
        y.square()?.sum(&[], false)?.backward()?;
        Ok((x.grad().unwrap().to_vec()?, w.grad().unwrap().to_vec()?))
    };
    assert_eq!(run(false)?, run(true)?);
    Ok(())
}

#[test]
fn recompute_refuses_an_overwritten_input() -> Result<()> {
    let x = leaf(&[1.0], &[1]);
    let h = x.mul_scalar(1.0)?;
    let y = recompute(|t| t[0].exp(), &[&h], None)?.sum(&[], false)?;
    h.detach().fill_(3.0)?;
    assert!(y.backward().unwrap_err().to_string().contains("overwritten"));
    Ok(())
}

#[test]
fn discrete_results_stop_gradients() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    for y in [x.gt(&x)?, x.argmax(None, false)?, x.cast(DType::I64)?] {
        assert!(!y.is_tracked());
    }
    let ints = Tensor::arange(0, 3, &cpu())?;
    assert!(ints.requires_grad().unwrap_err().to_string().contains("i64"));
    Ok(())
}

#[test]
fn casts_carry_gradients_in_the_leafs_dtype() -> Result<()> {
    let x = Tensor::from_slice(&[1.5f32, 2.5], &[2], &cpu())?.requires_grad()?;
    x.cast(DType::F16)?.mul_scalar(2.0)?.cast(DType::F32)?.sum(&[], false)?.backward()?;
    assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 2.0]);
    // Promotion casts as well.
    let y = Tensor::from_slice(&[1.0f64, 1.0], &[2], &cpu())?.requires_grad()?;
    x.mul(&y)?.sum(&[], false)?.backward()?;
    assert_eq!(x.grad().unwrap().dtype(), DType::F32);
    assert_eq!(grad(&y), [1.5, 2.5]);
    Ok(())
}

/// In-place writers and readers of one tensor on many threads: every read sees all elements of one write.
#[test]
fn threads_share_tensors_without_races() -> Result<()> {
    let x = Tensor::zeros(&[4096], DType::F32, &cpu())?;
    std::thread::scope(|scope| {
        for t in 0..4 {
            let x = &x;
            scope.spawn(move || {
                for i in 0..50 {
                    x.fill_(f64::from(t * 100 + i)).unwrap();
                    let y = x.add(x).unwrap().to_vec::<f32>().unwrap();
                    assert!(y.iter().all(|&v| v == y[0]));
                }
            });
        }
    });
    Ok(())
}

/// 70,000 equal f16 elements are more than f16 counts.
#[test]
fn ties_of_a_maximum_are_counted_beyond_f16() -> Result<()> {
    let x = Tensor::ones(&[70_000], DType::F16, &cpu())?.requires_grad()?;
    x.max(&[], false)?.mul_scalar(1000.0)?.backward()?;
    let share = x.grad().unwrap().to_f64_vec()?[0];
    assert!((share - 1000.0 / 70_000.0).abs() < 1e-4, "{share}");
    Ok(())
}

#[test]
fn a_tracked_attention_mask_is_refused() -> Result<()> {
    let q = Tensor::randn(&[1, 1, 2, 4], DType::F32, &cpu(), 1)?;
    let mask = Tensor::zeros(&[2, 2], DType::F32, &cpu())?;
    q.attention(&q, &q, Some(&mask), false, None)?;
    let err = q.attention(&q, &q, Some(&mask.requires_grad()?), false, None).unwrap_err().to_string();
    assert!(err.contains("mask") && err.contains("detach"), "{err}");
    Ok(())
}

#[test]
fn ops_that_are_flat_give_gradients_of_zeros() -> Result<()> {
    let x = leaf(&[-1.5, 0.0, f64::NAN, 2.5], &[4]);
    for flat in [Tensor::sign, Tensor::floor, Tensor::ceil, Tensor::round] {
        x.set_grad(None);
        flat(&x)?.mul_scalar(f64::INFINITY)?.sum(&[], false)?.backward()?;
        assert_eq!(grad(&x), [0.0; 4]);
    }
    // Through more of the graph, and beside a gradient that is not zero.
    let (y, unused) = (leaf(&[1.5, 2.5], &[2]), leaf(&[1.0, 1.0], &[2]));
    y.exp()?.floor()?.add(&y)?.sum(&[], false)?.backward()?;
    assert_eq!(grad(&y), [1.0, 1.0]);
    assert!(unused.grad().is_none());
    Ok(())
}

#[test]
fn variance_far_from_zero_has_an_exact_gradient() -> Result<()> {
    let n = 1000;
    let values: Vec<f32> = (0..n).map(|i| (1e4 + 1e-2 * (f64::from(i) * 0.7).sin()) as f32).collect();
    let gradient = |x: Tensor| -> Result<Vec<f64>> {
        let x = x.requires_grad()?;
        x.var(&[], 1.0, false)?.backward()?;
        Ok(grad(&x))
    };
    let narrow = Tensor::from_slice(&values, &[n as usize], &cpu())?;
    let want = gradient(narrow.cast(DType::F64)?)?;
    for (got, want) in gradient(narrow)?.iter().zip(&want) {
        assert!((got - want).abs() < 1e-5 * 2.0 * 1e-2 / 999.0, "{got} for {want}");
    }
    Ok(())
}

#[test]
fn a_move_to_another_device_moves_the_gradient_back() -> Result<()> {
    let (here, there) = (cpu(), Device::with_driver(Arc::new(HostDriver::new())));
    let x = leaf(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    let far = x.transpose(0, 1)?.square()?.to_device(&there)?;
    assert!(far.is_tracked() && *far.device() == there);
    let weight = Tensor::from_slice(&[1.0, 10.0, 100.0], &[3, 1], &there)?.requires_grad()?;
    let back = far.mul(&weight)?.to_device(&here)?;
    back.mul(&x.transpose(0, 1)?)?.sum(&[], false)?.backward()?;
    // The derivative of w x^3 in x and in w.
    assert_eq!(grad(&x), [3.0, 120.0, 2700.0, 48.0, 750.0, 10800.0]);
    assert_eq!(grad(&weight), [65.0, 133.0, 243.0]);
    assert!(x.grad().unwrap().device() == &here && weight.grad().unwrap().device() == &there);
    assert!(!no_grad(|| x.to_device(&there))?.is_tracked());
    assert!(x.to_device(&here)?.is_tracked(), "it is there already");
    let integers = Tensor::arange(0, 3, &here)?.to_device(&there)?;
    assert_eq!(integers.to_vec::<i64>()?, [0, 1, 2]);
    Ok(())
}
