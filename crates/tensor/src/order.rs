//! Scans, order, and what is composed of them: methods of [`Tensor`].
//!
//! Where the size of a result depends on values (nonzero, unique, selection by mask), the op fills a tensor of the largest
//! size; its count is read, which waits for the device, and the rest is cut off.

use std::slice::from_ref;

use bullet_ops::expr::Expr;
use bullet_ops::{DType, Error as OpError, Op, Shape};

use crate::dispatch::{run, run_expr, run_one};
use crate::error::Result;
use crate::tape::no_grad;
use crate::tensor::Tensor;
use crate::views::Slice;

/// The distinct elements of a tensor, as [`Tensor::unique`] finds them.
#[derive(Clone)]
pub struct Unique {
    /// They themselves, in ascending order: a vector of their number, of the tensor's dtype. Each NaN is distinct.
    pub values: Tensor,
    /// Row-major position (i64) of the first of each.
    pub indices: Tensor,
    /// For each element which of the values it is (i64), in the tensor's shape.
    pub inverse: Tensor,
    /// How often each is there (i64).
    pub counts: Tensor,
}

/// Scans.
impl Tensor {
    /// Running sums along `axis`; integers and bools add up in i64.
    ///
    /// # Errors
    /// No such axis.
    pub fn cumsum(&self, axis: isize) -> Result<Tensor> {
        self.scan(false, axis)
    }

    /// Running products along `axis`; integers and bools multiply in i64.
    ///
    /// # Errors
    /// No such axis.
    pub fn cumprod(&self, axis: isize) -> Result<Tensor> {
        self.scan(true, axis)
    }

    fn scan(&self, product: bool, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        run_one(Op::Scan { product, axis, reverse: false, exclusive: false }, &[self])
    }

    /// Differences of neighbours along `axis`, taken `n` times: each time the axis is one shorter, until it is empty.
    ///
    /// # Errors
    /// No such axis; bools, which have no difference.
    pub fn diff(&self, n: usize, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        (0..n).try_fold(self.clone(), |x, _| {
            let len = x.dim(axis).saturating_sub(1);
            let (axis, from) = (axis as isize, x.dim(axis) - len);
            x.narrow(axis, from, len)?.sub(&x.narrow(axis, 0, len)?)
        })
    }
}

/// Order.
impl Tensor {
    /// Elements along `axis` in order, and their indices (i64) before. Equals keep their order in either direction, and NaN
    /// is last. Gradients flow through the first.
    ///
    /// # Errors
    /// No such axis.
    pub fn sort_with_indices(&self, axis: isize, descending: bool) -> Result<(Tensor, Tensor)> {
        let last = self.shape().axis(axis)? + 1 == self.rank();
        let turned = if last { self.clone() } else { self.transpose(axis, -1)? };
        let mut results = run(Op::Sort { descending }, &[&turned])?.into_iter();
        let back = |t: Option<Tensor>| {
            let t = t.expect("sort has two results");
            if last { Ok(t) } else { t.transpose(axis, -1) }
        };
        Ok((back(results.next())?, back(results.next())?))
    }

    /// Elements along `axis` in order: see [`Tensor::sort_with_indices`].
    ///
    /// # Errors
    /// No such axis.
    pub fn sort(&self, axis: isize, descending: bool) -> Result<Tensor> {
        Ok(self.sort_with_indices(axis, descending)?.0)
    }

    /// The indices (i64) that put elements along `axis` in order: see [`Tensor::sort_with_indices`].
    ///
    /// # Errors
    /// No such axis.
    pub fn argsort(&self, axis: isize, descending: bool) -> Result<Tensor> {
        Ok(no_grad(|| self.sort_with_indices(axis, descending))?.1)
    }

    /// Where `values` go into this vector, which ascends (NaN last), so that it stays so: for each how many elements (i64)
    /// are below it, or, with `right`, not above it. Dtypes are promoted.
    ///
    /// # Errors
    /// This has not one axis.
    pub fn searchsorted(&self, values: &Tensor, right: bool) -> Result<Tensor> {
        let joint = self.dtype().promote(values.dtype());
        no_grad(|| run_one(Op::SearchSorted { right }, &[&self.cast(joint)?, &values.cast(joint)?]))
    }

    /// The distinct elements of all axes together; composed of sort, scan and nonzero. Waits for the device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn unique(&self) -> Result<Unique> {
        let (n, device) = (self.numel(), self.device());
        let (sorted, order) = self.reshape(&[-1])?.sort_with_indices(0, false)?;
        // Where a value begins. A NaN differs from all.
        let begins = no_grad(|| {
            let first = Tensor::ones(&[n.min(1)], DType::Bool, device)?;
            let others = n.saturating_sub(1);
            let steps = sorted.narrow(0, n - others, others)?.ne(&sorted.narrow(0, 0, others)?)?;
            Tensor::concat(&[&first, &steps], 0)
        })?;
        let starts = begins.flat_nonzero()?;
        let ends = Tensor::concat(&[&starts, &Tensor::from_slice(&[n as i64], &[1], device)?], 0)?;
        let group = begins.cumsum(0)?.add_scalar(-1.0)?;
        let inverse = Tensor::zeros(&[n], DType::I64, device)?.scatter_add(0, &order, &group)?;
        Ok(Unique {
            values: sorted.index_select(0, &starts)?,
            indices: order.index_select(0, &starts)?,
            inverse: inverse.reshape_to(*self.shape())?,
            counts: ends.diff(1, 0)?,
        })
    }
}

/// Elements that are not zero.
impl Tensor {
    /// How many elements are not zero (i64), over `axes`, or over all if it is empty. NaN is not zero.
    ///
    /// # Errors
    /// No such axis.
    pub fn count_nonzero(&self, axes: &[isize], keepdims: bool) -> Result<Tensor> {
        self.cast(DType::Bool)?.sum(axes, keepdims)
    }

    /// Row-major positions (i64) of the elements that are not zero, in order. Waits for the device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn flat_nonzero(&self) -> Result<Tensor> {
        let results = run(Op::NonZero, &[self])?;
        let count = results[1].item()? as usize;
        let found = results[0].narrow(0, 0, count)?;
        // A view would keep memory for all elements.
        if count < self.numel() { found.copy() } else { Ok(found) }
    }

    /// The indices of the elements that are not zero, in row-major order: a vector (i64) for each axis. Waits for the
    /// device.
    ///
    /// # Errors
    /// A tensor without axes.
    pub fn nonzero(&self) -> Result<Vec<Tensor>> {
        if self.rank() == 0 {
            return Err(OpError::argument(
                "Calling nonzero on 0d arrays is not allowed. Use reshape to one axis before, if that is meant.",
            )
            .into());
        }
        let places = self.flat_nonzero()?;
        if self.rank() == 1 {
            return Ok(vec![places]);
        }
        // In f64 quotients are exact to their floor below 2^53: more elements than memory holds.
        let index = Expr::build(3, |x| {
            let whole = (x[0] / x[2]).floor();
            whole - (whole / x[1]).floor() * x[1]
        });
        let axes = (0..self.rank()).map(|axis| {
            let inner: usize = self.shape()[axis + 1..].iter().product();
            let scalar = |n: usize| Tensor::scalar(n.max(1) as i64, self.device());
            let (len, inner) = (scalar(self.dim(axis))?, scalar(inner)?);
            let operands = [Some(&places), Some(&len), Some(&inner)];
            run_expr(&index, DType::F64, &operands, places.meta(), self.device())
        });
        axes.collect()
    }

    /// The elements, or slices behind the mask's axes, where `mask` (bool, of the shape of the first axes) is true, along
    /// one axis in row-major order. Waits for the device; gradients flow back to the places they are from.
    ///
    /// # Errors
    /// A mask that is not of bools, or does not fit.
    pub fn masked_select(&self, mask: &Tensor) -> Result<Tensor> {
        if mask.dtype() != DType::Bool {
            return Err(OpError::index(format!(
                "masked_select: the mask must be of dtype bool, not {}; for indices use index_select",
                mask.dtype()
            ))
            .into());
        }
        if mask.rank() > self.rank() {
            return Err(OpError::index(format!(
                "too many indices for array: array is {}-dimensional, but {} were indexed",
                self.rank(),
                mask.rank()
            ))
            .into());
        }
        if let Some(axis) = (0..mask.rank()).find(|&axis| mask.dim(axis) != self.dim(axis)) {
            return Err(OpError::index(format!(
                "boolean index did not match indexed array along axis {axis}; size of axis is {} but size of \
                 corresponding boolean axis is {}",
                self.dim(axis),
                mask.dim(axis)
            ))
            .into());
        }
        let rest = &self.shape()[mask.rank()..];
        let rows = self.reshape_to(Shape::new(&[from_ref(&mask.numel()), rest].concat())?)?;
        rows.index_select(0, &mask.flat_nonzero()?)
    }
}

/// Elements elsewhere.
impl Tensor {
    /// A view with these axes backwards; with all of them if there are none.
    ///
    /// # Errors
    /// No such axis, or one twice.
    pub fn flip(&self, axes: &[isize]) -> Result<Tensor> {
        let axes = match axes {
            [] => bullet_ops::AxisSet::all(self.shape()),
            _ => bullet_ops::AxisSet::of(self.shape(), axes)?,
        };
        let backwards = Slice { start: None, end: None, step: -1 };
        let mut axes = axes.iter().filter(|&axis| axis < self.rank());
        axes.try_fold(self.clone(), |x, axis| x.slice(axis as isize, backwards))
    }

    /// Elements moved by `shift` along `axis` (towards its end; back if negative), those beyond an end coming in at the
    /// other; all axes as one if it is `None`.
    ///
    /// # Errors
    /// No such axis.
    pub fn roll(&self, shift: isize, axis: Option<isize>) -> Result<Tensor> {
        let Some(axis) = axis else {
            return self.reshape(&[-1])?.roll(shift, Some(0))?.reshape_to(*self.shape());
        };
        let n = self.dim(self.shape().axis(axis)?);
        let by = if n == 0 { 0 } else { shift.rem_euclid(n as isize) as usize };
        if by == 0 {
            return Ok(self.clone());
        }
        Tensor::concat(&[&self.narrow(axis, n - by, by)?, &self.narrow(axis, 0, n - by)?], axis)
    }

    /// Each element along `axis` `times` times in a row.
    ///
    /// # Errors
    /// No such axis; a result that is too large.
    pub fn repeat(&self, times: usize, axis: isize) -> Result<Tensor> {
        let axis = self.shape().axis(axis)?;
        let (before, behind) = self.shape().split_at(axis + 1);
        let (rows, width) = (before.iter().product(), behind.iter().product());
        let len = self.dim(axis).checked_mul(times).ok_or_else(too_large)?;
        let thrice = self.reshape_to(Shape::new(&[rows, 1, width])?)?.broadcast_to(&[rows, times, width])?;
        thrice.reshape_to(Shape::new(&self.shape().with(axis, len))?)
    }

    /// Each element along `axis` as often as `counts` (a vector of integers) says. Waits for the device.
    ///
    /// # Errors
    /// No such axis; counts that are negative, not integers, or not one for each element.
    pub fn repeat_each(&self, counts: &Tensor, axis: isize) -> Result<Tensor> {
        let n = self.dim(self.shape().axis(axis)?);
        if counts.rank() != 1 || counts.dim(0) != n {
            return Err(OpError::shape(format!(
                "operands could not be broadcast together with shape ({n},) {}",
                counts.shape()
            ))
            .into());
        }
        if counts.dtype().is_float() {
            return Err(OpError::dtype(format!(
                "Cannot cast array data from {} to i64 according to the rule 'safe'",
                counts.dtype()
            ))
            .into());
        }
        // In f64, which does not wrap; beyond its whole numbers there is no such tensor.
        let total = counts.cast(DType::F64)?.sum(&[], false)?.item()?;
        if total > (1u64 << f64::MANTISSA_DIGITS) as f64 {
            return Err(too_large());
        }
        let ends = counts.cumsum(0)?;
        if n > 0 && counts.min(&[], false)?.item()? < 0.0 {
            return Err(OpError::argument("repeats may not contain negative values.").into());
        }
        let places = Tensor::arange(0, total as usize, self.device())?;
        self.index_select(axis, &ends.searchsorted(&places, true)?)
    }

    /// This tensor `times[i]` times side by side along axis `i`; the shorter of shape and `times` gets leading ones.
    ///
    /// # Errors
    /// A result that is too large, or has too many axes.
    pub fn tile(&self, times: &[usize]) -> Result<Tensor> {
        let rank = self.rank().max(times.len());
        let lead = vec![1; rank - self.rank()];
        let whole = self.reshape_to(Shape::new(&[&lead, &self.shape()[..]].concat())?)?;
        let skipped = rank - times.len();
        times.iter().enumerate().filter(|&(_, &times)| times != 1).try_fold(whole, |x, (i, &times)| {
            let axis = skipped + i;
            let (before, behind) = x.shape().split_at(axis);
            let (rows, width) = (before.iter().product(), behind.iter().product());
            let len = x.dim(axis).checked_mul(times).ok_or_else(too_large)?;
            let thrice = x.reshape_to(Shape::new(&[rows, 1, width])?)?.broadcast_to(&[rows, times, width])?;
            thrice.reshape_to(Shape::new(&x.shape().with(axis, len))?)
        })
    }
}

fn too_large() -> crate::Error {
    OpError::argument("Maximum allowed dimension exceeded").into()
}
