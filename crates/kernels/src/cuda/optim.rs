//! Optimizer steps over many tensors: launches of `optim.cu`. One launch for up to `SLOTS` tensors, whose addresses are
//! parameters of the launch, so that a captured one replays; everything that changes from step to step is device memory.
//!
//! Semantics are those of [`crate::cpu::optim`]: a parameter is computed in f32, or f64 if it is f64; its gradient is of
//! any float dtype, its moments are of the type that is computed in.

use std::sync::{Mutex, PoisonError};

use bullet_ops::DType;
use bullet_runtime::jit::Tier;
use bullet_runtime::{Buffer, DevicePtr, KernelArgs, Result};

use super::gpu::{Define, Gpu, Unit, args};
use crate::cpu::optim::{Adam, Sgd};
use crate::{View, ViewMut};

const SOURCE: &str = include_str!("../../cuda/optim.cu");
const THREADS: usize = 256;
/// Tensors of one launch of a step, and of one of [`gradient_scale`]; as in the source.
const SLOTS: usize = 80;
const GRADS: usize = 224;
/// Elements that a block of either takes at a time; as in the source.
const PIECE: usize = 4 * THREADS;
const SUMMED: usize = 16 * THREADS;
/// Bit of a kind: four elements may be moved as one. As in the source.
const ALIGNED: u8 = 64;
/// Longer tensors go as several, so that 32-bit numbers hold every place.
const LONGEST: usize = 1 << 30;

/// Every unit that this family asks for, with its entry points.
pub(crate) fn units() -> Vec<(Unit, Vec<&'static str>)> {
    let entries = vec!["adam", "sgd", "sgd_momentum", "gradient_scale", "loss_scale"];
    [false, true].map(|wide| (unit(wide), entries.clone())).into()
}

/// `wide`: some parameter is f64.
fn unit(wide: bool) -> Unit {
    let defines = vec![Define::Int("WIDE", i64::from(wide))];
    Unit { name: "optim", source: SOURCE, defines, since: Tier::Sm35 }
}

/// The scalars of one step, each a view of one element on the device.
#[derive(Debug)]
pub struct State<'a> {
    /// i64: steps taken so far; grows by one unless the step is skipped.
    pub step: ViewMut<'a>,
    /// f32: the learning rate.
    pub lr: View<'a>,
    /// f32: factor on every gradient.
    pub grad_scale: View<'a>,
    /// bool: leave everything as it is.
    pub skip: View<'a>,
}

/// What a step works on; all views are contiguous, and those of one parameter are of one length.
#[derive(Debug)]
pub struct Tensors<'t, 'a> {
    /// Overwritten with their new values; floats.
    pub params: &'t mut [ViewMut<'a>],
    /// One a parameter; floats.
    pub grads: &'t [View<'a>],
    /// As many a parameter as the rule keeps, `[m0, v0, m1, v1, ..]`: f32, or f64 for an f64 parameter.
    pub moments: &'t mut [ViewMut<'a>],
    /// For each parameter a float tensor that gets its new value too, or none; may be empty.
    pub shadows: &'t mut [Option<ViewMut<'a>>],
}

/// One step of Adam or AdamW on every parameter, which counts the step.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
///
/// # Panics
/// If the views don't fit each other.
pub fn adam(gpu: &Gpu, tensors: &mut Tensors<'_, '_>, hyper: &Adam, state: &mut State<'_>) -> Result<()> {
    let mut bytes = floats(&[hyper.beta1, hyper.beta2, hyper.eps, hyper.weight_decay]);
    bytes.extend(i64::from(hyper.decoupled).to_ne_bytes());
    step(gpu, "adam", 2, tensors, &bytes, state)
}

/// One step of stochastic gradient descent on every parameter, which counts the step; with a velocity a parameter where
/// there is momentum.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
///
/// # Panics
/// If the views don't fit each other.
pub fn sgd(gpu: &Gpu, tensors: &mut Tensors<'_, '_>, hyper: &Sgd, state: &mut State<'_>) -> Result<()> {
    let mut bytes = floats(&[hyper.momentum, hyper.weight_decay]);
    bytes.extend(i64::from(hyper.nesterov).to_ne_bytes());
    match hyper.momentum == 0.0 {
        true => step(gpu, "sgd", 0, tensors, &bytes, state),
        false => step(gpu, "sgd_momentum", 1, tensors, &bytes, state),
    }
}

fn floats(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// A part of a parameter with what belongs to it: addresses in the order of the table's columns, 0 for none.
struct Slot {
    at: [u64; 5],
    len: usize,
    kind: u8,
}

/// The code of a float dtype in the source.
fn code(dtype: DType) -> u8 {
    match dtype {
        DType::F16 => 0,
        DType::BF16 => 1,
        DType::F32 => 2,
        DType::F64 => 3,
        DType::Bool
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64 => {
            panic!("optimizers work on floats, not {dtype}")
        }
    }
}

/// Whether four elements at a multiple of four from here can be moved as one, or f64 as two.
fn aligned(dtype: DType, at: u64) -> bool {
    at.is_multiple_of((4 * dtype.size() as u64).min(16))
}

fn slots(tensors: &mut Tensors<'_, '_>, each: usize) -> Vec<Slot> {
    let Tensors { params, grads, moments, shadows } = tensors;
    assert_eq!(params.len(), grads.len(), "a gradient for each parameter");
    assert_eq!(params.len() * each, moments.len(), "{each} moments for each parameter");
    assert!(shadows.is_empty() || shadows.len() == params.len(), "a shadow or none for each parameter");
    let mut all = Vec::new();
    for (i, param) in params.iter_mut().enumerate() {
        let (len, dtype) = (param.layout().shape.numel(), param.dtype());
        // Address and dtype of the parameter, its gradient, its moments and its shadow.
        let mut parts = [Some((param.bytes() as u64, dtype)), None, None, None, None];
        let fits = |layout: &bullet_ops::Layout| layout.is_contiguous() && layout.shape.numel() == len;
        assert!(
            fits(param.layout()) && fits(grads[i].layout()),
            "contiguous gradients as long as parameters"
        );
        parts[1] = Some((grads[i].bytes() as u64, grads[i].dtype()));
        for (part, m) in parts[2..4].iter_mut().zip(&mut moments[i * each..(i + 1) * each]) {
            assert!(fits(m.layout()) && m.dtype() == dtype.compute(), "moments of the type computed in");
            *part = Some((m.bytes() as u64, m.dtype()));
        }
        if let Some(shadow) = shadows.get_mut(i).and_then(Option::as_mut) {
            assert!(fits(shadow.layout()), "shadows as long as parameters");
            parts[4] = Some((shadow.bytes() as u64, shadow.dtype()));
        }
        let shadow = parts[4].map_or(0, |p| code(p.1));
        let whole = parts.iter().flatten().all(|&(at, dtype)| aligned(dtype, at));
        let kind = code(dtype) | code(grads[i].dtype()) << 2 | shadow << 4 | if whole { ALIGNED } else { 0 };
        for start in (0..len).step_by(LONGEST) {
            let at = parts.map(|p| p.map_or(0, |(at, dtype)| at + (start * dtype.size()) as u64));
            all.push(Slot { at, len: LONGEST.min(len - start), kind });
        }
    }
    all
}

/// The table of a launch: `columns` of addresses, then lengths, first pieces and kinds, of `room` rows each; and how many
/// pieces it has.
fn table(slots: &[Slot], columns: usize, room: usize, piece: usize) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; room * (8 * columns + 9)];
    let (lens, firsts, kinds) = (room * 8 * columns, room * (8 * columns + 4), room * (8 * columns + 8));
    let mut pieces = 0;
    for (i, slot) in slots.iter().enumerate() {
        for (c, at) in slot.at[..columns].iter().enumerate() {
            bytes[8 * (c * room + i)..][..8].copy_from_slice(&at.to_ne_bytes());
        }
        bytes[lens + 4 * i..][..4].copy_from_slice(&(slot.len as u32).to_ne_bytes());
        bytes[firsts + 4 * i..][..4].copy_from_slice(&(pieces as u32).to_ne_bytes());
        bytes[kinds + i] = slot.kind;
        pieces += slot.len.div_ceil(piece);
    }
    (bytes, pieces)
}

/// Launches for all slots: at least one, so that the state moves even if there is nothing to update.
fn launches(slots: &[Slot], room: usize) -> Vec<&[Slot]> {
    if slots.is_empty() { vec![slots] } else { slots.chunks(room).collect() }
}

/// Blocks for this many pieces: not more than are resident at once, and all with as many pieces.
fn grid(gpu: &Gpu, pieces: usize, resident: usize) -> u32 {
    let most = resident * gpu.info().multiprocessors as usize;
    pieces.div_ceil(pieces.div_ceil(most).max(1)).max(1) as u32
}

fn step(
    gpu: &Gpu,
    entry: &'static str,
    each: usize,
    tensors: &mut Tensors<'_, '_>,
    hyper: &[u8],
    state: &mut State<'_>,
) -> Result<()> {
    let wide = tensors.params.iter().any(|p| p.dtype() == DType::F64);
    let slots = slots(tensors, each);
    let f = gpu.function(&unit(wide), entry)?;
    let mut addresses = Vec::new();
    let done = counters(gpu)?;
    let views = [state.lr.bytes(), state.grad_scale.bytes(), state.skip.bytes()].map(|p| p as u64);
    for at in [&[state.step.bytes() as u64][..], &views, &[done.0]].concat() {
        addresses.extend(at.to_ne_bytes());
    }
    let parts = launches(&slots, SLOTS);
    for (i, part) in parts.iter().enumerate() {
        let (table, pieces) = table(part, 5, SLOTS, PIECE);
        let mut args = KernelArgs::new();
        args.push_bytes(&table, 8).push_bytes(&addresses, 8).push_bytes(hyper, 8);
        args.push(part.len() as u32).push(pieces as u32).push(u32::from(i + 1 == parts.len()));
        // SAFETY: the table names views of so many elements, the state views of one.
        unsafe { gpu.launch(f, [grid(gpu, pieces, 3), 1, 1], THREADS as u32, 0, &args)? };
    }
    Ok(())
}

/// Where [`gradient_scale`] puts what it finds, each a view of one element.
#[derive(Debug)]
pub struct GradientScale<'a> {
    /// f32: the global Euclidean norm of the gradients, the loss scale divided out.
    pub norm: ViewMut<'a>,
    /// f32: what each gradient must be multiplied by: 1 / loss scale, and less where the norm is clipped.
    pub factor: ViewMut<'a>,
    /// bool: some gradient is infinite or NaN.
    pub non_finite: ViewMut<'a>,
}

/// The global norm of contiguous float gradients and the factor that clips it to `max_norm`, summed in f64 in an order that
/// depends on the lengths and the GPU only; `loss_scale` is a view of one f32.
///
/// # Errors
/// Out of memory; the kernel does not compile or cannot be launched.
///
/// # Panics
/// If a gradient is not a contiguous float tensor.
pub fn gradient_scale(
    gpu: &Gpu,
    grads: &[View<'_>],
    loss_scale: Option<&View<'_>>,
    max_norm: Option<f64>,
    out: &mut GradientScale<'_>,
) -> Result<()> {
    let mut slots = Vec::new();
    for grad in grads {
        assert!(grad.layout().is_contiguous(), "gradients are contiguous");
        let (at, dtype, len) = (grad.bytes() as u64, grad.dtype(), grad.layout().shape.numel());
        let kind = code(dtype) | if aligned(dtype, at) { ALIGNED } else { 0 };
        for start in (0..len).step_by(LONGEST) {
            let at = at + (start * dtype.size()) as u64;
            slots.push(Slot { at: [at, 0, 0, 0, 0], len: LONGEST.min(len - start), kind });
        }
    }
    let f = gpu.function(&unit(false), "gradient_scale")?;
    let parts = launches(&slots, GRADS);
    let tables: Vec<(Vec<u8>, usize)> = parts.iter().map(|part| table(part, 1, GRADS, SUMMED)).collect();
    let grids: Vec<u32> = tables.iter().map(|(_, pieces)| grid(gpu, *pieces, 4)).collect();
    let partials = gpu.scratch(16 * grids.iter().sum::<u32>() as usize)?;
    let mut ends = args![DevicePtr(out.norm.bytes() as u64), DevicePtr(out.factor.bytes() as u64)];
    ends.push(out.non_finite.bytes() as u64).push(loss_scale.map_or(0, |x| x.bytes() as u64));
    ends.push(max_norm.unwrap_or(-1.0)).push(counters(gpu)?.offset(4));
    let mut base = 0;
    for (i, (table, pieces)) in tables.iter().enumerate() {
        let mut args = KernelArgs::new();
        args.push_bytes(table, 8).push_bytes(ends.bytes(), 8).push(partials.ptr()).push(base);
        args.push(parts[i].len() as u32).push(*pieces as u32).push(u32::from(i + 1 == parts.len()));
        // SAFETY: the table names views of so many elements; a partial sum for each block of all launches.
        unsafe { gpu.launch(f, [grids[i], 1, 1], THREADS as u32, 0, &args)? };
        base += grids[i];
    }
    Ok(())
}

/// Moves the loss scale (f32) and its count of clean steps (i64): by `backoff` after a step whose gradients were not finite
/// (bool), by `growth` after `interval` clean ones. Each is a view of one element.
///
/// # Errors
/// The kernel does not compile or cannot be launched.
pub fn update_loss_scale(
    gpu: &Gpu,
    scale: &mut ViewMut<'_>,
    clean: &mut ViewMut<'_>,
    non_finite: &View<'_>,
    (growth, backoff, interval): (f32, f32, i64),
) -> Result<()> {
    let f = gpu.function(&unit(false), "loss_scale")?;
    let mut args = args![DevicePtr(scale.bytes() as u64), DevicePtr(clean.bytes() as u64)];
    args.push(non_finite.bytes() as u64).push(growth).push(backoff).push(interval);
    // SAFETY: views of one element of the types that the kernel takes.
    unsafe { gpu.launch(f, [1, 1, 1], 32, 0, &args) }
}

/// Counters of finished blocks, one u32 for steps and one for [`gradient_scale`], both 0 between launches.
#[derive(Default)]
struct Counters(Mutex<Option<Buffer>>);

/// Where a device's counters are; made, with a wait, at the first call, which must not be in a capture.
fn counters(gpu: &Gpu) -> Result<DevicePtr> {
    let counters = gpu.device().extension(Counters::default);
    let mut buffer = counters.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(buffer) = &*buffer {
        return Ok(buffer.ptr());
    }
    let mut new = gpu.device().alloc(8)?;
    new.write(0, &[0; 8])?;
    Ok(buffer.insert(new).ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_parameters_and_lie_as_the_source_has_them() {
        let slot = |at, len, kind| Slot { at: [at, at + 1, at + 2, at + 3, 0], len, kind };
        let (bytes, pieces) = table(&[slot(256, 1025, 10), slot(512, 3, 74)], 5, SLOTS, PIECE);
        assert_eq!(pieces, 3);
        let u64_at = |i: usize| u64::from_ne_bytes(bytes[i..i + 8].try_into().unwrap());
        let u32_at = |i: usize| u32::from_ne_bytes(bytes[i..i + 4].try_into().unwrap());
        assert_eq!((u64_at(8), u64_at(8 * SLOTS)), (512, 257));
        let lens = 40 * SLOTS;
        assert_eq!((u32_at(lens), u32_at(lens + 4), u32_at(lens + 4 * SLOTS + 4)), (1025, 3, 2));
        assert_eq!(bytes[48 * SLOTS..][..2], [10, 74]);
        // With state, hyper-parameters and counts.
        assert!(bytes.len() + 40 + 40 + 12 <= 4096);
        assert!(table(&[], 1, GRADS, SUMMED).0.len() + 48 + 24 <= 4096);
        assert_eq!(launches(&[], 4).len(), 1);
    }
}
