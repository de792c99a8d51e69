//! What the array API has besides the op table, composed of it: products over chosen axes, triangles, axes elsewhere,
//! elementwise ops in place.

use bullet_ops::{AxisSet, DType, Error as OpError, Map, Shape};

use crate::dispatch::update;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Sum over products of elements along the last axes of this and the first of `other`: `axes` pairs of axes.
    ///
    /// # Errors
    /// No such axes; paired axes of different lengths; dtypes that don't multiply.
    pub fn tensordot(&self, other: &Tensor, axes: (&[isize], &[isize])) -> Result<Tensor> {
        let (a, b) = (axes_of(self, axes.0)?, axes_of(other, axes.1)?);
        if a.len() != b.len() || a.iter().zip(&b).any(|(&i, &j)| self.dim(i) != other.dim(j)) {
            return Err(OpError::shape(format!(
                "shape-mismatch for sum: axes {:?} of {} and {:?} of {} do not pair",
                axes.0,
                self.shape(),
                axes.1,
                other.shape()
            ))
            .into());
        }
        let rest = |t: &Tensor, taken: &[usize]| -> Vec<usize> {
            (0..t.rank()).filter(|axis| !taken.contains(axis)).collect()
        };
        let (rest_a, rest_b) = (rest(self, &a), rest(other, &b));
        let lengths =
            |t: &Tensor, axes: &[usize]| -> Vec<usize> { axes.iter().map(|&axis| t.dim(axis)).collect() };
        let (dims_a, dims_b) = (lengths(self, &rest_a), lengths(other, &rest_b));
        let shared: usize = a.iter().map(|&axis| self.dim(axis)).product();
        let signed =
            |axes: &[&[usize]]| -> Vec<isize> { axes.concat().iter().map(|&axis| axis as isize).collect() };
        let left = self.permute(&signed(&[&rest_a, &a]))?;
        let left = left.reshape_to(Shape::new(&[dims_a.iter().product(), shared])?)?;
        let right = other.permute(&signed(&[&b, &rest_b]))?;
        let right = right.reshape_to(Shape::new(&[shared, dims_b.iter().product()])?)?;
        let result = Shape::new(&[dims_a, dims_b].concat())?;
        left.product(&right)?.reshape_to(result)
    }

    /// Sum of products of elements along `axis`, which counts from the end; the other axes broadcast.
    ///
    /// # Errors
    /// No such axis; lengths that differ.
    pub fn vecdot(&self, other: &Tensor, axis: isize) -> Result<Tensor> {
        let (a, b) = (self.shape().axis(axis)?, other.shape().axis(axis)?);
        if self.dim(a) != other.dim(b) {
            return Err(OpError::shape(format!(
                "vecdot: the axes must be as long, got {} and {}",
                self.dim(a),
                other.dim(b)
            ))
            .into());
        }
        let row = self.moveaxis(&[a as isize], &[-1])?.unsqueeze(-2)?;
        let column = other.moveaxis(&[b as isize], &[-1])?.unsqueeze(-1)?;
        row.product(&column)?.squeeze(-1)?.squeeze(-1)
    }

    /// As [`Tensor::matmul`], of two dtypes that are promoted.
    ///
    /// # Errors
    /// As [`Tensor::matmul`].
    pub fn product(&self, other: &Tensor) -> Result<Tensor> {
        let joint = self.dtype().promote(other.dtype());
        self.cast(joint)?.matmul(&other.cast(joint)?)
    }

    /// A view with axes `from` at places `to`, the others in their order.
    ///
    /// # Errors
    /// No such axes, or one twice, or lists of different lengths.
    pub fn moveaxis(&self, from: &[isize], to: &[isize]) -> Result<Tensor> {
        if from.len() != to.len() {
            return Err(OpError::argument(
                "`source` and `destination` arguments must have the same number of elements",
            )
            .into());
        }
        let (from, to) = (axes_of(self, from)?, axes_of(self, to)?);
        let mut rest = (0..self.rank()).filter(|axis| !from.contains(axis));
        let order = (0..self.rank()).map(|place| match to.iter().position(|&t| t == place) {
            Some(i) => from[i] as isize,
            None => rest.next().map_or(0, |axis| axis as isize),
        });
        self.permute(&order.collect::<Vec<_>>())
    }

    /// Matrices of the last two axes with zeros above (`lower`) or below the `k`-th diagonal; 0 is the main one, positive
    /// ones are above it.
    ///
    /// # Errors
    /// Less than two axes.
    pub fn triangle(&self, lower: bool, k: i64) -> Result<Tensor> {
        if self.rank() < 2 {
            return Err(OpError::shape(format!(
                "a triangle needs at least 2 axes, got shape {}",
                self.shape()
            ))
            .into());
        }
        let (rows, columns) = (self.dim(self.rank() - 2), self.dim(self.rank() - 1));
        // A diagonal further out than this is out of the matrix too.
        let k = k.clamp(-(rows as i64) - 1, columns as i64 + 1);
        let diagonal = Tensor::arange(k, rows, self.device())?.unsqueeze(1)?;
        let column = Tensor::arange(0, columns, self.device())?;
        let keep = if lower { column.le(&diagonal)? } else { column.ge(&diagonal)? };
        keep.where_(self, &Tensor::zeros(&[], self.dtype(), self.device())?)
    }

    /// Tensors of one shape side by side along a new axis.
    ///
    /// # Errors
    /// None; different shapes; no such axis.
    pub fn stack(tensors: &[&Tensor], axis: isize) -> Result<Tensor> {
        if let Some(other) = tensors.iter().find(|t| t.shape() != tensors[0].shape()) {
            return Err(OpError::shape(format!(
                "all input arrays must have the same shape, got {} and {}",
                tensors[0].shape(),
                other.shape()
            ))
            .into());
        }
        let raised: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(axis)).collect::<Result<_>>()?;
        Tensor::concat(&raised.iter().collect::<Vec<_>>(), axis)
    }

    /// Overwrites this by an elementwise op of itself and `other`, which broadcasts to it.
    ///
    /// # Errors
    /// The op's result would not be of this dtype's kind, or not fit it by NumPy's rule `same_kind`; as
    /// [`Tensor::add_`].
    pub fn assign_op(&self, op: Map, other: &Tensor) -> Result<()> {
        let (_, result) = op.types(&[self.dtype(), other.dtype()])?;
        if !same_kind(result, self.dtype()) {
            return Err(OpError::dtype(format!(
                "Cannot cast '{}' output from {result} to {} with casting rule 'same_kind'; use the operator that makes a \
                 new tensor",
                op.row().name,
                self.dtype()
            ))
            .into());
        }
        update(self, &op.exprs().forward, &[self, other])
    }
}

/// Whether NumPy casts the first to the second where it overwrites: to a kind that comes no earlier.
fn same_kind(from: DType, to: DType) -> bool {
    let rank = |dtype: DType| match dtype.kind() {
        bullet_ops::Kind::Bool => 0,
        bullet_ops::Kind::Int if dtype.is_unsigned() => 1,
        bullet_ops::Kind::Int => 2,
        bullet_ops::Kind::Float => 3,
    };
    rank(from) <= rank(to)
}

/// Axes of a tensor, each once.
fn axes_of(tensor: &Tensor, axes: &[isize]) -> Result<Vec<usize>> {
    // Tells of an axis that is there twice.
    AxisSet::of(tensor.shape(), axes)?;
    Ok(axes.iter().map(|&axis| tensor.shape().axis(axis)).collect::<bullet_ops::Result<_>>()?)
}
