//! Optimizer steps: many parameters updated in place by one call, with every number that changes from step to step
//! (step count, learning rate, loss scale, whether to skip) in device tensors, so that nothing is read back to the host
//! and a captured step replays right.
//!
//! One training step is: [`gradient_scale`] over all gradients, then [`adam_step`] or [`sgd_step`], then, under mixed
//! precision, [`update_loss_scale`].

use bullet_kernels::cpu;
pub use bullet_kernels::cpu::optim::{Adam, Sgd};
use bullet_kernels::cuda::{self, Gpu};
use bullet_kernels::{View, ViewMut};
use bullet_ops::{DType, Meta, Shape};
use bullet_runtime::{Device, DeviceKind};

use crate::capture;
use crate::dispatch::{common_device, storages, view, view_mut};
use crate::error::{Error, Result};
use crate::rescue;
use crate::storage::Guards;
use crate::tensor::Tensor;

/// A parameter with its gradient and the optimizer's running moments. All are contiguous and of one shape.
pub struct Slot<'a> {
    /// Overwritten with the new value; any floating-point dtype.
    pub param: &'a Tensor,
    /// Read; any floating-point dtype.
    pub grad: &'a Tensor,
    /// Overwritten: first and second moment (Adam), or momentum (SGD; none without momentum). f32, or f64 for an f64
    /// parameter.
    pub moments: &'a [Tensor],
    /// Overwritten with the new value too: [`Tensor::shadow_values`] of the parameter.
    pub shadow: Option<Tensor>,
}

/// The scalars of one step, each a device tensor without axes.
pub struct StepState<'a> {
    /// i64: steps taken so far; grows by one unless the step is skipped.
    pub step: &'a Tensor,
    /// f32: the learning rate.
    pub lr: &'a Tensor,
    /// f32: factor on every gradient (clipping, loss scale).
    pub grad_scale: &'a Tensor,
    /// bool: leave parameters, moments and the count as they are, for a gradient was not finite.
    pub skip: &'a Tensor,
}

/// What [`gradient_scale`] found.
pub struct GradientScale {
    /// f32: the global Euclidean norm of the gradients, the loss scale divided out.
    pub norm: Tensor,
    /// f32: what each gradient must be multiplied by: 1 / loss scale, and less where the norm is clipped.
    pub factor: Tensor,
    /// bool: some gradient is infinite or NaN.
    pub non_finite: Tensor,
}

/// The global norm of all gradients and the factor that clips it to `max_norm`, in one pass.
pub fn gradient_scale(
    grads: &[&Tensor],
    loss_scale: Option<&Tensor>,
    max_norm: Option<f64>,
) -> Result<GradientScale> {
    let device = common_device(grads)?;
    let mut all = grads.to_vec();
    all.extend(loss_scale);
    let _guards = Guards::take(&storages(all), &[]);
    let views: Vec<View<'_>> = grads.iter().map(|t| view(t)).collect();
    match device.kind() {
        DeviceKind::Cpu => scale_on_cpu(views, loss_scale, max_norm, device),
        DeviceKind::Cuda(_) => match scale_on_gpu(&views, loss_scale, max_norm, device) {
            Err(e) if rescue::may_move_to_cpu("the norm of gradients", grads, device, &e) => {
                scale_elsewhere(grads, loss_scale, max_norm, device)
            }
            done => done,
        },
    }
}

/// As [`scale_on_gpu`], on the CPU; the caller holds guards.
fn scale_elsewhere(
    grads: &[&Tensor],
    loss_scale: Option<&Tensor>,
    max_norm: Option<f64>,
    device: &Device,
) -> Result<GradientScale> {
    let moved: Vec<Tensor> = grads.iter().map(|t| rescue::fetch(t)).collect::<Result<_>>()?;
    let loss_scale = loss_scale.map(rescue::fetch).transpose()?;
    let found =
        scale_on_cpu(moved.iter().map(view).collect(), loss_scale.as_ref(), max_norm, &Device::cpu())?;
    let scale = empty_scale(device)?;
    rescue::put(&scale.norm, &found.norm)?;
    rescue::put(&scale.factor, &found.factor)?;
    rescue::put(&scale.non_finite, &found.non_finite)?;
    Ok(scale)
}

fn scale_on_gpu(
    grads: &[View<'_>],
    loss_scale: Option<&Tensor>,
    max_norm: Option<f64>,
    device: &Device,
) -> Result<GradientScale> {
    let scale = empty_scale(device)?;
    // SAFETY: the tensors are fresh; no one else can name their memory yet.
    let [norm, factor, non_finite] =
        [&scale.norm, &scale.factor, &scale.non_finite].map(|t| unsafe { view_mut(t) });
    let mut out = cuda::optim::GradientScale { norm, factor, non_finite };
    let loss_scale = loss_scale.map(view);
    cuda::optim::gradient_scale(&*Gpu::of(device)?, grads, loss_scale.as_ref(), max_norm, &mut out)?;
    Ok(scale)
}

fn empty_scale(device: &Device) -> Result<GradientScale> {
    let empty = |dtype| Tensor::empty(Meta::new(Shape::SCALAR, dtype), device);
    Ok(GradientScale {
        norm: empty(DType::F32)?,
        factor: empty(DType::F32)?,
        non_finite: empty(DType::Bool)?,
    })
}

fn scale_on_cpu(
    grads: Vec<View<'_>>,
    loss_scale: Option<&Tensor>,
    max_norm: Option<f64>,
    device: &Device,
) -> Result<GradientScale> {
    let scale = empty_scale(device)?;
    // SAFETY: the tensors are fresh; no one else can name their memory yet.
    let [mut norm, mut factor, mut non_finite] =
        [&scale.norm, &scale.factor, &scale.non_finite].map(|t| unsafe { view_mut(t) });
    let loss_scale = loss_scale.map(view);
    let mut work = move || {
        let (sum, finite) = cpu::optim::sum_of_squares(&grads);
        let scale = loss_scale.as_ref().map_or(1.0, |v| f64::from(v.slice::<f32>()[0]));
        let total = sum.sqrt() / scale;
        // As PyTorch's clip_grad_norm_: a norm of exactly the limit is left alone, and 0 is not divided by.
        let clip = max_norm.map_or(1.0, |max| (max / (total + 1e-6)).min(1.0));
        norm.slice::<f32>()[0] = total as f32;
        factor.slice::<f32>()[0] = (clip / scale) as f32;
        non_finite.slice::<bool>()[0] = !finite;
        Ok(())
    };
    match device.is_capturing() {
        // SAFETY: the work owns all but the memory of its views.
        true => unsafe { capture::record(device, work)? },
        false => work()?,
    }
    Ok(scale)
}

/// One step of Adam or AdamW over all slots (Kingma and Ba 2015; Loshchilov and Hutter 2019).
pub fn adam_step(slots: &[Slot<'_>], state: &StepState<'_>, hyper: &Adam) -> Result<()> {
    step_all(slots, 2, state, &AnyRule::Adam(*hyper))
}

/// One step of stochastic gradient descent over all slots, with momentum where `hyper` has it (Sutskever et al. 2013).
pub fn sgd_step(slots: &[Slot<'_>], state: &StepState<'_>, hyper: &Sgd) -> Result<()> {
    let moments = usize::from(hyper.momentum != 0.0);
    step_all(slots, moments, state, &AnyRule::Sgd(*hyper))
}

#[derive(Clone, Copy)]
enum AnyRule {
    Adam(Adam),
    Sgd(Sgd),
}

fn step_all(slots: &[Slot<'_>], moments: usize, state: &StepState<'_>, rule: &AnyRule) -> Result<()> {
    for slot in slots {
        check(slot, moments)?;
    }
    let shadows = || slots.iter().filter_map(|s| s.shadow.as_ref());
    let written: Vec<&Tensor> =
        slots.iter().flat_map(|s| [s.param].into_iter().chain(s.moments)).chain(shadows()).collect();
    let mut read: Vec<&Tensor> = slots.iter().map(|s| s.grad).collect();
    read.extend([state.lr, state.grad_scale, state.skip]);
    let device = common_device(&[&written[..], &read[..], &[state.step]].concat())?;
    let mut targets = storages(written.iter().copied());
    targets.push(state.step.storage());
    let _guards = Guards::take(&storages(read), &targets);
    // SAFETY: the guards hold the storages of step, parameters and moments exclusively, and all are distinct tensors.
    let mut params: Vec<ViewMut<'_>> = slots.iter().map(|s| unsafe { view_mut(s.param) }).collect();
    let grads: Vec<View<'_>> = slots.iter().map(|s| view(s.grad)).collect();
    // SAFETY: as above.
    let mut moments: Vec<ViewMut<'_>> =
        slots.iter().flat_map(|s| s.moments).map(|t| unsafe { view_mut(t) }).collect();
    // SAFETY: as above.
    let mut shadows: Vec<Option<ViewMut<'_>>> =
        slots.iter().map(|s| s.shadow.as_ref().map(|t| unsafe { view_mut(t) })).collect();
    // SAFETY: as above.
    let mut step = unsafe { view_mut(state.step) };
    let (lr, grad_scale, skip) = (view(state.lr), view(state.grad_scale), view(state.skip));
    match device.kind() {
        DeviceKind::Cpu => {
            let rule = *rule;
            let mut work = move || {
                step_on_cpu(
                    &mut params,
                    &grads,
                    &mut moments,
                    &mut shadows,
                    &mut step,
                    [lr, grad_scale, skip],
                    rule,
                );
                Ok(())
            };
            match device.is_capturing() {
                // SAFETY: the work owns all but the memory of its views.
                true => unsafe { capture::record(device, work)? },
                false => work()?,
            }
        }
        DeviceKind::Cuda(_) => {
            let (params, moments, grads) = (&mut params[..], &mut moments[..], &grads[..]);
            let mut tensors = cuda::optim::Tensors { params, grads, moments, shadows: &mut shadows };
            let mut state = cuda::optim::State { step, lr, grad_scale, skip };
            let gpu = Gpu::of(device)?;
            match rule {
                AnyRule::Adam(hyper) => cuda::optim::adam(&gpu, &mut tensors, hyper, &mut state)?,
                AnyRule::Sgd(hyper) => cuda::optim::sgd(&gpu, &mut tensors, hyper, &mut state)?,
            }
        }
    }
    // A step that is skipped leaves both as they were.
    slots.iter().filter(|s| s.shadow.is_some()).for_each(|s| s.param.shadow_was_written());
    Ok(())
}

fn step_on_cpu(
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    shadows: &mut [Option<ViewMut<'_>>],
    step: &mut ViewMut<'_>,
    [lr, grad_scale, skip]: [View<'_>; 3],
    rule: AnyRule,
) {
    // Optimizer scalars are device memory; on the CPU that is host memory, so reading them here is no transfer.
    if skip.slice::<bool>()[0] {
        return;
    }
    let step = &mut step.slice::<i64>()[0];
    *step += 1;
    let scalars = cpu::optim::Scalars {
        step: *step,
        lr: f64::from(lr.slice::<f32>()[0]),
        grad_scale: f64::from(grad_scale.slice::<f32>()[0]),
    };
    match rule {
        AnyRule::Adam(hyper) => cpu::optim::adam(params, grads, moments, &hyper, scalars),
        AnyRule::Sgd(hyper) => cpu::optim::sgd(params, grads, moments, &hyper, scalars),
    }
    for (param, shadow) in params.iter_mut().zip(shadows) {
        if let Some(shadow) = shadow {
            cpu::copy::copy(&param.as_view(), shadow);
        }
    }
}

fn check(slot: &Slot<'_>, moments: usize) -> Result<()> {
    let shape = slot.param.shape();
    let wide = if slot.param.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let fits = |t: &Tensor| t.shape() == shape && t.is_contiguous() && t.dtype().is_float();
    let ok = fits(slot.param)
        && fits(slot.grad)
        && slot.shadow.as_ref().is_none_or(fits)
        && slot.moments.len() == moments
        && slot.moments.iter().all(|m| fits(m) && m.dtype() == wide);
    if ok {
        return Ok(());
    }
    Err(Error::Op(bullet_ops::Error::argument(format!(
        "optimizer: a parameter of shape {shape} needs a contiguous floating-point gradient and {moments} {wide} moments of \
         its shape; got a {} gradient of shape {} and {} moments",
        slot.grad.dtype(),
        slot.grad.shape(),
        slot.moments.len()
    ))))
}

/// How a dynamic loss scale moves (Micikevicius et al. 2018).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LossScaling {
    /// Factor after `interval` steps without overflow.
    pub growth: f32,
    /// Factor after an overflow.
    pub backoff: f32,
    /// Clean steps before it grows.
    pub interval: i64,
}

/// Moves the loss scale (f32) and its count of clean steps (i64), both on the device: back after a step whose gradients
/// were not finite, up after enough clean ones.
pub fn update_loss_scale(
    scale: &Tensor,
    clean: &Tensor,
    non_finite: &Tensor,
    rule: &LossScaling,
) -> Result<()> {
    let device = common_device(&[scale, clean, non_finite])?;
    let _guards = Guards::take(&storages([non_finite]), &storages([scale, clean]));
    if let DeviceKind::Cuda(_) = device.kind() {
        // SAFETY: the guards hold both storages exclusively.
        let (mut scale, mut clean) = unsafe { (view_mut(scale), view_mut(clean)) };
        let rule = (rule.growth, rule.backoff, rule.interval);
        let gpu = Gpu::of(device)?;
        return Ok(cuda::optim::update_loss_scale(&gpu, &mut scale, &mut clean, &view(non_finite), rule)?);
    }
    // SAFETY: the guards hold both storages exclusively.
    let (mut scale, mut clean) = unsafe { (view_mut(scale), view_mut(clean)) };
    let (non_finite, rule) = (view(non_finite), *rule);
    let mut work = move || {
        let overflow = non_finite.slice::<bool>()[0];
        move_loss_scale(&mut scale.slice::<f32>()[0], &mut clean.slice::<i64>()[0], overflow, &rule);
        Ok(())
    };
    match device.is_capturing() {
        // SAFETY: the work owns all but the memory of its views.
        true => unsafe { capture::record(device, work) },
        false => work(),
    }
}

fn move_loss_scale(scale: &mut f32, clean: &mut i64, overflow: bool, rule: &LossScaling) {
    *clean = if overflow { 0 } else { *clean + 1 };
    if overflow {
        // 1 is the floor: below it scaling does harm only.
        *scale = (*scale * rule.backoff).max(1.0);
    } else if *clean >= rule.interval {
        *clean = 0;
        // A scale beyond f16's range could never be backed off in time.
        *scale = (*scale * rule.growth).min(2f32.powi(24));
    }
}
