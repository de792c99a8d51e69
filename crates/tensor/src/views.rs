//! Changes of shape that move no data: reshape, permute, slice, split, broadcast.

use bullet_ops::{AxisSet, Error as OpError, Layout, MAX_DIMS, Meta, Op, Shape};
use smallvec::SmallVec;

use crate::dispatch;
use crate::error::Result;
use crate::tape::{Autograd, Node, Step, grad_enabled};
use crate::tensor::Tensor;

/// A view, as the tape records it.
pub(crate) enum ViewOp {
    Reshape,
    Permute(Vec<usize>),
    Broadcast,
    Slice { axis: usize, start: usize, step: isize },
    Split { axis: usize },
}

impl ViewOp {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            ViewOp::Reshape => "reshape",
            ViewOp::Permute(_) => "permute",
            ViewOp::Broadcast => "broadcast_to",
            ViewOp::Slice { .. } => "slice",
            ViewOp::Split { .. } => "split",
        }
    }

    pub(crate) fn adjoint(
        &self,
        inputs: &[Meta],
        outputs: &[Meta],
        mut grads: Vec<Option<Tensor>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = inputs[0].shape;
        if let ViewOp::Split { axis } = self {
            return Ok(vec![join_grads(*axis, outputs, grads)?]);
        }
        let Some(g) = grads.pop().flatten() else { return Ok(vec![None]) };
        let grad = match self {
            ViewOp::Reshape => g.reshape_to(shape)?,
            ViewOp::Permute(axes) => {
                let mut inverse = vec![0; axes.len()];
                axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
                g.view_as(g.layout().permute(&inverse)?, None)
            }
            ViewOp::Broadcast => g.sum_to(shape)?,
            ViewOp::Slice { axis, start, step } => {
                let out = Tensor::zeros(&shape, g.dtype(), g.device())?;
                let window = out.layout().slice(*axis, *start, g.dim(*axis), *step);
                out.view_as(window, None).copy_(&g)?;
                out
            }
            ViewOp::Split { .. } => unreachable!("handled above"),
        };
        Ok(vec![Some(grad)])
    }
}

/// The gradients of the parts of a split, side by side; parts without one are zero.
fn join_grads(axis: usize, outputs: &[Meta], grads: Vec<Option<Tensor>>) -> Result<Option<Tensor>> {
    let Some(device) = grads.iter().flatten().next().map(|g| g.device().clone()) else { return Ok(None) };
    let parts = outputs.iter().zip(grads);
    let parts: Vec<Tensor> = parts
        .map(|(meta, grad)| grad.map_or_else(|| Tensor::zeros(&meta.shape, meta.dtype, &device), Ok))
        .collect::<Result<_>>()?;
    Ok(Some(Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis as isize)?))
}

/// A part of an axis: `start..end` by `step`, in NumPy's sense (negative counts from the end, out of range clips).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// First index; `None` is the first (or last, for a negative step).
    pub start: Option<isize>,
    /// One past the last index; `None` is to the end.
    pub end: Option<isize>,
    /// Distance between elements; not 0.
    pub step: isize,
}

impl Slice {
    /// First index, number of elements, for an axis of length `len`.
    fn resolve(self, len: usize) -> Result<(usize, usize)> {
        let (n, step) = (len as isize, self.step);
        if step == 0 {
            return Err(OpError::argument("slice step cannot be zero").into());
        }
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let clip = |i: isize| (if i < 0 { i.saturating_add(n) } else { i }).clamp(low, high);
        let start = self.start.map_or(if step > 0 { low } else { high }, clip);
        let end = self.end.map_or(if step > 0 { high } else { low }, clip);
        let span = if step > 0 { end - start } else { start - end };
        let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
        Ok((if count == 0 { 0 } else { start as usize }, count as usize))
    }
}

impl From<std::ops::Range<usize>> for Slice {
    fn from(r: std::ops::Range<usize>) -> Slice {
        Slice { start: Some(r.start as isize), end: Some(r.end as isize), step: 1 }
    }
}

impl Tensor {
    fn viewed(&self, op: impl FnOnce() -> ViewOp, layout: Layout) -> Tensor {
        let autograd = (grad_enabled() && self.is_tracked()).then(|| {
            let meta = Meta::new(layout.shape, self.dtype());
            Autograd::Node(Node::record(Step::View(op()), &[self], vec![meta], Vec::new()), 0)
        });
        self.view_as(layout, autograd)
    }

    /// The same elements in the same order under another shape; a copy only where a view can't do it.
    ///
    /// One length may be -1: what is left over.
    pub fn reshape(&self, dims: &[isize]) -> Result<Tensor> {
        let known: usize = dims.iter().filter(|&&d| d >= 0).map(|&d| d as usize).product();
        let fail = || {
            let dims: Vec<String> = dims.iter().map(isize::to_string).collect();
            let tuple =
                if dims.len() == 1 { format!("({},)", dims[0]) } else { format!("({})", dims.join(", ")) };
            OpError::shape(format!("cannot reshape array of size {} into shape {tuple}", self.numel()))
        };
        let free = dims.iter().filter(|&&d| d < 0).count();
        if free > 1 {
            return Err(OpError::shape("can only specify one unknown dimension").into());
        }
        if dims.iter().any(|&d| d < -1) || (free == 1 && (known == 0 || !self.numel().is_multiple_of(known)))
        {
            return Err(fail().into());
        }
        let rest = self.numel() / known.max(1);
        let dims: SmallVec<[usize; MAX_DIMS]> =
            dims.iter().map(|&d| if d < 0 { rest } else { d as usize }).collect();
        let shape = Shape::new(&dims)?;
        if shape.numel() != self.numel() {
            return Err(fail().into());
        }
        self.reshape_to(shape)
    }

    /// As [`Tensor::reshape`], where `shape` is known to have as many elements.
    pub(crate) fn reshape_to(&self, shape: Shape) -> Result<Tensor> {
        if shape == *self.shape() {
            return Ok(self.clone());
        }
        match self.layout().reshape(shape) {
            Some(layout) => Ok(self.viewed(|| ViewOp::Reshape, layout)),
            None => self.copy()?.reshape_to(shape),
        }
    }

    /// All axes from `from` on merged into one.
    pub fn flatten_from(&self, from: usize) -> Result<Tensor> {
        let tail = self.shape()[from..].iter().product();
        self.reshape_to(Shape::new(&[&self.shape()[..from], &[tail]].concat())?)
    }

    /// Axis `i` of the result is axis `axes[i]` of this.
    pub fn permute(&self, axes: &[isize]) -> Result<Tensor> {
        let axes: SmallVec<[usize; MAX_DIMS]> =
            axes.iter().map(|&a| self.shape().axis(a)).collect::<Result<_, _>>()?;
        self.permute_to(&axes)
    }

    fn permute_to(&self, axes: &[usize]) -> Result<Tensor> {
        let layout = self.layout().permute(axes)?;
        Ok(self.viewed(|| ViewOp::Permute(axes.to_vec()), layout))
    }

    /// Axes `a` and `b` exchanged.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Tensor> {
        let mut axes: [usize; MAX_DIMS] = std::array::from_fn(|axis| axis);
        axes.swap(self.shape().axis(a)?, self.shape().axis(b)?);
        self.permute_to(&axes[..self.rank()])
    }

    /// A view in which axes of length 1, and new leading ones, are repeated to fill `dims`.
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Tensor> {
        let shape = Shape::new(dims)?;
        if shape == *self.shape() {
            return Ok(self.clone());
        }
        Ok(self.viewed(|| ViewOp::Broadcast, self.layout().broadcast_to(shape)?))
    }

    /// The elements of `axis` that `range` names.
    pub fn slice(&self, axis: isize, range: impl Into<Slice>) -> Result<Tensor> {
        let (axis, range) = (self.shape().axis(axis)?, range.into());
        let (start, len) = range.resolve(self.dim(axis))?;
        let step = range.step;
        Ok(self.viewed(|| ViewOp::Slice { axis, start, step }, self.layout().slice(axis, start, len, step)))
    }

    /// `len` elements of `axis` from `start`; out of range is an error, not clipped.
    pub fn narrow(&self, axis: isize, start: usize, len: usize) -> Result<Tensor> {
        let n = self.dim(self.shape().axis(axis)?);
        if start.checked_add(len).is_none_or(|end| end > n) {
            return Err(OpError::index(format!(
                "narrow: {len} elements from {start} are out of bounds for axis {axis} with size {n}"
            ))
            .into());
        }
        self.slice(axis, start..start + len)
    }

    /// The slice at `index` (which may count from the end) of `axis`, without that axis.
    pub fn select(&self, axis: isize, index: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        let n = self.dim(axis) as isize;
        if index < -n || index >= n {
            return Err(OpError::index(format!(
                "index {index} is out of bounds for axis {axis} with size {n}"
            ))
            .into());
        }
        let index = (if index < 0 { index + n } else { index }) as usize;
        let kept = self.slice(axis as isize, index..index + 1)?;
        let mut dims = kept.shape().to_vec();
        dims.remove(axis);
        kept.reshape_to(Shape::new(&dims)?)
    }

    /// The parts of these lengths along `axis`, as views; the lengths add up to the axis.
    pub fn split(&self, sizes: &[usize], axis: isize) -> Result<Vec<Tensor>> {
        let axis = self.shape().axis(axis)?;
        if sizes.iter().sum::<usize>() != self.dim(axis) {
            return Err(OpError::shape(format!(
                "split: sizes {sizes:?} add up to {}, but axis {axis} has {}",
                sizes.iter().sum::<usize>(),
                self.dim(axis)
            ))
            .into());
        }
        let mut start = 0;
        let mut layouts = Vec::with_capacity(sizes.len());
        for &len in sizes {
            layouts.push(self.layout().slice(axis, start, len, 1));
            start += len;
        }
        let node = (grad_enabled() && self.is_tracked()).then(|| {
            let metas = layouts.iter().map(|l| Meta::new(l.shape, self.dtype())).collect();
            Node::record(Step::View(ViewOp::Split { axis }), &[self], metas, Vec::new())
        });
        let part = |(i, layout)| self.view_as(layout, node.clone().map(|n| Autograd::Node(n, i)));
        Ok(layouts.into_iter().enumerate().map(part).collect())
    }

    /// `parts` equal parts along `axis`.
    pub fn chunk(&self, parts: usize, axis: isize) -> Result<Vec<Tensor>> {
        let n = self.dim(self.shape().axis(axis)?);
        if parts == 0 || !n.is_multiple_of(parts) {
            return Err(OpError::shape(format!(
                "chunk: {parts} equal parts of an axis of length {n} don't exist"
            ))
            .into());
        }
        self.split(&vec![n / parts; parts], axis)
    }

    /// With a new axis of length 1 at `axis`.
    pub fn unsqueeze(&self, axis: isize) -> Result<Tensor> {
        let rank = self.rank() as isize;
        if axis < -rank - 1 || axis > rank {
            return Err(OpError::shape(format!(
                "axis {axis} is out of bounds for array of dimension {}",
                rank + 1
            ))
            .into());
        }
        let axis = if axis < 0 { axis + rank + 1 } else { axis } as usize;
        Ok(self.viewed(|| ViewOp::Reshape, self.layout().unsqueeze(axis)?))
    }

    /// Without `axis`, which has length 1.
    pub fn squeeze(&self, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        if self.dim(axis) != 1 {
            return Err(OpError::shape(
                "cannot select an axis to squeeze out which has size not equal to one",
            )
            .into());
        }
        let mut dims = self.shape().to_vec();
        dims.remove(axis);
        self.reshape_to(Shape::new(&dims)?)
    }

    /// The sum over the axes along which `shape` was broadcast to this tensor's: the adjoint of broadcasting.
    pub(crate) fn sum_to(&self, shape: Shape) -> Result<Tensor> {
        if *self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = self.rank() - shape.rank();
        let axes: Vec<isize> = (0..self.rank())
            .filter(|&i| i < lead || shape[i - lead] != self.dim(i))
            .map(|i| i as isize)
            .collect();
        let axes = AxisSet::of(self.shape(), &axes)?;
        let kind = bullet_ops::Reduce::Sum;
        dispatch::run_one(Op::Reduce { kind, axes, keepdims: true }, &[self])?.reshape_to(shape)
    }
}
