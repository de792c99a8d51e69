//! Running an [`Op`]: infer the results, allocate them, call the device's kernel, record on the tape.

use std::borrow::Cow;
use std::sync::Arc;

use bullet_kernels::cpu::stop;
use bullet_kernels::cuda::Gpu;
use bullet_kernels::{View, ViewMut, cpu, cuda};
use bullet_ops::expr::Expr;
use bullet_ops::{DType, Layout, Map, Meta, Op, Shape};
use bullet_runtime::{Device, DeviceKind};
use smallvec::{SmallVec, smallvec};

use crate::adjoint;
use crate::capture;
use crate::error::{Error, Result};
use crate::rescue;
use crate::storage::{Guards, Storage};
use crate::tape::{Autograd, Node, Saved, Step, grad_enabled, no_grad};
use crate::tensor::Tensor;

/// Runs an op and records it where a gradient flows; returns all of its results, of which those that are no statistics are
/// tracked: the first, and of [`Op::AddNorm`] the second.
pub fn run(op: Op, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    Ok(run_recorded(op, inputs)?.into_vec())
}

/// As [`run`], for the first result.
pub fn run_one(op: Op, inputs: &[&Tensor]) -> Result<Tensor> {
    if let Op::Map(map) = op
        && let Some(result) = map_dense(map, inputs)?
    {
        return Ok(result);
    }
    Ok(run_recorded(op, inputs)?.swap_remove(0))
}

/// An elementwise op whose operands lie alike, or are one number, on the CPU, where nothing is recorded: as [`run_one`], but
/// without lists, which take longer than few elements. `None` if it is none.
fn map_dense(map: Map, inputs: &[&Tensor]) -> Result<Option<Tensor>> {
    let (first, second) = match *inputs {
        [x] => (x, None),
        [x, y] => (x, Some(y)),
        _ => return Ok(None),
    };
    let tracked = first.is_tracked() || second.is_some_and(Tensor::is_tracked);
    let device = first.device();
    let whole = second.filter(|y| first.rank() == 0 && y.rank() > 0).unwrap_or(first);
    let alike = |x: &Tensor| x.rank() == 0 || x.is_contiguous() && x.shape() == whole.shape();
    let here = second.is_none_or(|y| alike(y) && y.device() == device) && device.kind() == DeviceKind::Cpu;
    if !here || !alike(first) {
        return Ok(None);
    }
    if (tracked && grad_enabled()) || device.is_capturing() || rescue::forced()?.is_some() {
        return Ok(None);
    }
    let dtypes = [first.dtype(), second.unwrap_or(first).dtype()];
    let (_, dtype) = map.types(&dtypes[..inputs.len()])?;
    let shape = *whole.shape();
    let out = Tensor::empty(Meta::new(shape, dtype), device)?;
    let storages: [&Storage; 2] = [first.storage(), second.unwrap_or(first).storage()];
    let _guards = Guards::take(&storages[..inputs.len()], &[]);
    let spread = |t| if *Tensor::shape(t) == shape { Ok(view(t)) } else { broadcast_view(t, shape) };
    let views = [spread(first)?, spread(second.unwrap_or(first))?];
    // SAFETY: fresh; no one else can name its memory yet.
    let mut target = unsafe { view_mut(&out) };
    on_cpu(|| cpu::execute(&Op::Map(map), &views[..inputs.len()], std::slice::from_mut(&mut target)))??;
    Ok(Some(out))
}

fn run_recorded(op: Op, inputs: &[&Tensor]) -> Result<Few<Tensor>> {
    let mut outputs = execute(&op, inputs)?;
    let tracked = grad_enabled() && inputs.iter().any(|t| t.is_tracked()) && adjoint::is_differentiable(&op);
    if tracked && outputs[0].dtype().is_float() {
        let (kept, results) = (adjoint::reads(&op, inputs), adjoint::tracked_results(&op));
        let all = inputs.iter().copied().chain(&outputs);
        let saved = all.zip(kept).map(|(t, keep)| keep.then(|| Saved::new(t))).collect();
        let metas = outputs.iter().map(Tensor::meta).collect();
        let node = Node::record(Step::Op(op), inputs, metas, saved);
        for (i, output) in outputs.iter_mut().enumerate().take(results) {
            *output = output.view_as(*output.layout(), Some(Autograd::Node(node.clone(), i)));
        }
    }
    Ok(outputs)
}

/// Lists of operands and results, which are short: most ops allocate nothing for them.
pub(crate) type Few<T> = SmallVec<[T; 4]>;

/// Runs an op without recording.
///
/// # Errors
/// Operands that don't fit; no room for the results. Where there is none for what else the op needs, it is done with less
/// ([`rescue`]).
pub(crate) fn execute(op: &Op, inputs: &[&Tensor]) -> Result<Few<Tensor>> {
    let device = common_device(inputs)?;
    let mut metas: Few<Meta> = Few::new();
    metas.extend(inputs.iter().map(|t| t.meta()));
    let mut outputs: Few<Tensor> = Few::new();
    for meta in op.infer(&metas)? {
        outputs.push(Tensor::empty(meta, device)?);
    }
    if let Some(way) = rescue::forced()?
        && rescue::by_force(way, op, inputs, &outputs)?
    {
        return Ok(outputs);
    }
    match compute(op, inputs, &outputs) {
        Err(e) if e.is_out_of_memory() => rescue::execute(op, inputs, &outputs, e)?,
        done => done?,
    }
    Ok(outputs)
}

/// Runs an op into results of the right shape, which are contiguous and of fresh storages.
pub(crate) fn compute(op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let device = outputs[0].device();
    // Lists are filled in place: a list of views that is built elsewhere is most of a kilobyte to move.
    let mut dense: Few<Cow<'_, Tensor>> = Few::new();
    for (i, &t) in inputs.iter().enumerate() {
        dense.push(as_taken(op, i, t)?);
    }
    let mut reads: Few<&Storage> = Few::new();
    reads.extend(dense.iter().map(|t| &**t.storage()));
    let _guards = Guards::take(&reads, &[]);
    let mut views: Few<View<'_>> = Few::new();
    views.extend(dense.iter().map(|t| view(t)));
    let mut outs: Few<ViewMut<'_>> = Few::new();
    // SAFETY: the outputs are fresh; no one else can name their memory yet.
    outs.extend(outputs.iter().map(|t| unsafe { view_mut(t) }));
    match device.kind() {
        DeviceKind::Cpu if device.is_capturing() => {
            let op = op.clone();
            // SAFETY: the work owns all but the memory of its views.
            unsafe { capture::record(device, move || Ok(on_cpu(|| cpu::execute(&op, &views, &mut outs))??)) }
        }
        DeviceKind::Cpu => Ok(on_cpu(|| cpu::execute(op, &views, &mut outs))??),
        DeviceKind::Cuda(_) => Ok(cuda::execute(&*Gpu::of(device)?, op, &views, &mut outs)?),
    }
}

/// Runs a kernel of the CPU, which may find no room for what it needs besides its operands.
fn on_cpu<R>(kernel: impl FnOnce() -> R) -> Result<R> {
    stop::with_memory(kernel)
        .map_err(|stop::NoMemory(bytes)| bullet_runtime::Error::driver_out_of_memory(bytes).into())
}

/// Operand `i` as the kernel takes it: itself, or a contiguous copy.
fn as_taken<'a>(op: &Op, i: usize, t: &'a Tensor) -> Result<Cow<'a, Tensor>> {
    let taken = match t.device().kind() {
        DeviceKind::Cpu => cpu::takes_strided(op, i, t.layout()),
        DeviceKind::Cuda(_) => cuda::takes_strided(op, i, t.layout()),
    };
    if taken {
        return Ok(Cow::Borrowed(t));
    }
    Ok(Cow::Owned(no_grad(|| t.copy())?))
}

/// Evaluates an elementwise expression over broadcast operands into a new tensor; never recorded.
pub(crate) fn run_expr(
    expr: &Expr,
    compute: DType,
    inputs: &[Option<&Tensor>],
    out: Meta,
    device: &Device,
) -> Result<Tensor> {
    let result = Tensor::empty(out, device)?;
    expr_into(expr, compute, inputs, &result, false)?;
    Ok(result)
}

/// Evaluates an elementwise expression into `target`, whose version grows if it is an old tensor (`in_place`).
fn expr_into(
    expr: &Expr,
    compute: DType,
    inputs: &[Option<&Tensor>],
    target: &Tensor,
    in_place: bool,
) -> Result<()> {
    match expr_once(expr, compute, inputs, target, in_place) {
        Err(e) => {
            let operands: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
            if !rescue::may_move_to_cpu("an elementwise op", &operands, target.device(), &e) {
                return Err(e);
            }
            expr_on_cpu(expr, compute, inputs, target, in_place)
        }
        done => done,
    }
}

/// As [`expr_into`], on the CPU.
fn expr_on_cpu(
    expr: &Expr,
    compute: DType,
    inputs: &[Option<&Tensor>],
    target: &Tensor,
    in_place: bool,
) -> Result<()> {
    let reads: Vec<&Storage> = inputs.iter().flatten().map(|t| &**t.storage()).collect();
    let writes: &[&Storage] = if in_place { &[target.storage()] } else { &[] };
    let _guards = Guards::take(&reads, writes);
    let fetch = |t: &Option<&Tensor>| t.map(rescue::fetch).transpose();
    let operands: Vec<Option<Tensor>> = inputs.iter().map(fetch).collect::<Result<_>>()?;
    let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    let result = rescue::fetch(target)?;
    expr_once(expr, compute, &operands, &result, false)?;
    rescue::put(target, &result)
}

fn expr_once(
    expr: &Expr,
    compute: DType,
    inputs: &[Option<&Tensor>],
    target: &Tensor,
    in_place: bool,
) -> Result<()> {
    // An operand that overlaps the target otherwise than element on element would be overwritten before it is read.
    let safe = |t: &Tensor| {
        if in_place && t.shares_memory(target) && t.layout() != target.layout() {
            t.copy()
        } else {
            Ok(t.clone())
        }
    };
    let operands: Few<Option<Tensor>> =
        inputs.iter().map(|t| t.map(safe).transpose()).collect::<Result<_>>()?;
    let reads: Few<&Storage> = operands.iter().flatten().map(|t| &**t.storage()).collect();
    let writes: &[&Storage] = if in_place { &[target.storage()] } else { &[] };
    let _guards = Guards::take(&reads, writes);
    // SAFETY: the target is fresh, or held by the exclusive guard.
    let mut out = unsafe { view_mut(target) };
    let shape = *target.shape();
    // Filled in place: a list of views that is built elsewhere is most of a kilobyte to move.
    let mut views: Few<View<'_>> = Few::new();
    for t in &operands {
        views.push(match t {
            Some(t) => broadcast_view(t, shape)?,
            // Unused by the expression; any view of the right shape will do.
            None => View::of::<u8>(&[0], Layout::contiguous(Shape::SCALAR).broadcast_to(shape)?),
        });
    }
    match target.device().kind() {
        DeviceKind::Cpu if target.device().is_capturing() => {
            let expr = expr.clone();
            let work = move || on_cpu(|| cpu::map(&expr, compute, &views, &mut out));
            // SAFETY: the work owns all but the memory of its views; the one that stands for no operand is of a constant.
            unsafe { capture::record(target.device(), work)? };
        }
        DeviceKind::Cpu => on_cpu(|| cpu::map(expr, compute, &views, &mut out))?,
        DeviceKind::Cuda(_) => cuda::map(&*Gpu::of(target.device())?, expr, compute, &views, &mut out)?,
    }
    Ok(())
}

/// Sets every element of `target`.
pub(crate) fn fill(target: &Tensor, value: f64) -> Result<()> {
    let expr = Expr::build(0, |_| value.into());
    expr_into(&expr, target.dtype().compute(), &[], target, true)
}

/// Whether an in-place op may touch this tensor now.
pub(crate) fn check_in_place(target: &Tensor) -> Result<()> {
    if grad_enabled() && target.is_tracked() {
        return Err(Error::Autograd(
            "an in-place operation on a tensor that requires gradients would lose its history; use the op without \
             underscore, or detach() or no_grad if that is meant"
                .into(),
        ));
    }
    if target.storage().is_read_only() {
        return Err(bullet_ops::Error::argument(
            "assignment destination is read-only: the memory belongs to an array that may not be written; copy() it first",
        )
        .into());
    }
    let strides = target.layout().strides().iter().zip(&target.shape()[..]);
    if target.numel() > 0 && strides.into_iter().any(|(&stride, &dim)| stride == 0 && dim > 1) {
        return Err(bullet_ops::Error::argument(
            "an in-place operation on a broadcast view would write several elements to one memory location; call \
             copy() first",
        )
        .into());
    }
    Ok(())
}

/// Overwrites `target` with an expression of `inputs`, which broadcast to it.
pub(crate) fn update(target: &Tensor, expr: &Expr, inputs: &[&Tensor]) -> Result<()> {
    check_in_place(target)?;
    let mut all: Few<&Tensor> = smallvec![target];
    all.extend(inputs.iter().copied());
    common_device(&all)?;
    for input in inputs {
        if input.layout().broadcast_to(*target.shape()).is_err() {
            return Err(bullet_ops::Error::shape(format!(
                "non-broadcastable output operand with shape {} doesn't match the broadcast shape of {}",
                target.shape(),
                input.shape()
            ))
            .into());
        }
    }
    let joint = inputs.iter().map(|t| t.dtype()).fold(target.dtype(), DType::promote);
    let inputs: Few<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
    expr_into(expr, joint.compute(), &inputs, target, true)
}

/// Overwrites `target` with the converted elements of `source`.
pub(crate) fn copy_into(target: &Tensor, source: &Tensor) -> Result<()> {
    let moved;
    let source = if source.device() == target.device() {
        source
    } else {
        moved = source.to_device(target.device())?;
        &moved
    };
    // The source alone decides the type of the copy: nothing is computed.
    check_in_place(target)?;
    let expr = Expr::build(1, |x| x[0]);
    source.layout().broadcast_to(*target.shape())?;
    expr_into(&expr, source.dtype().compute(), &[Some(source)], target, true)
}

/// A view of the tensor's memory.
///
/// The caller holds a guard of the storage for as long as it uses the view.
pub(crate) fn view(t: &Tensor) -> View<'_> {
    // SAFETY: layouts stay inside their storage (views are checked when they are made), and the guard that the caller
    // holds keeps writers out.
    unsafe { View::new(t.storage().base(), t.dtype(), *t.layout()) }
}

fn broadcast_view(t: &Tensor, shape: Shape) -> Result<View<'_>> {
    // SAFETY: as in `view`; broadcasting reaches no further element.
    Ok(unsafe { View::new(t.storage().base(), t.dtype(), t.layout().broadcast_to(shape)?) })
}

/// A writable view of the tensor's memory.
///
/// # Safety
/// The storage is fresh, or the caller holds an exclusive guard of it for as long as it uses the view.
pub(crate) unsafe fn view_mut(t: &Tensor) -> ViewMut<'_> {
    // SAFETY: exclusive by the caller's promise, inside the storage as every layout is.
    unsafe { ViewMut::new(t.storage().base(), t.dtype(), *t.layout()) }
}

/// The device of all of these.
pub(crate) fn common_device<'a>(inputs: &[&'a Tensor]) -> Result<&'a Device> {
    let Some(first) = inputs.first() else {
        return Err(bullet_ops::Error::argument("need at least one tensor, got none").into());
    };
    match inputs.iter().find(|t| t.device() != first.device()) {
        Some(t) => Err(Error::DeviceMismatch(first.device().to_string(), t.device().to_string())),
        None => Ok(first.device()),
    }
}

/// Storages of tensors, for [`Guards::take`].
pub(crate) fn storages<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<&'a Storage> {
    tensors.into_iter().map(|t| Arc::as_ref(t.storage())).collect()
}
