//! [`Shape`], [`Layout`] (shape, strides, offset) and the rules of views and broadcasting, as NumPy has them.

use std::fmt;
use std::ops::Deref;

use crate::error::{Error, Result};

/// The most dimensions a tensor may have.
pub const MAX_DIMS: usize = 8;

/// The lengths of a tensor's axes; at most [`MAX_DIMS`] of them, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_DIMS],
    rank: u8,
}

impl Shape {
    /// The shape of a scalar: no axes, one element.
    pub const SCALAR: Shape = Shape { dims: [0; MAX_DIMS], rank: 0 };

    /// A shape with these axis lengths.
    ///
    /// # Errors
    /// More than [`MAX_DIMS`] axes, or more elements than fit an `isize`.
    pub fn new(dims: &[usize]) -> Result<Shape> {
        if dims.len() > MAX_DIMS {
            return Err(Error::shape(format!(
                "maximum supported dimension for a tensor is {MAX_DIMS}, found {}",
                dims.len()
            )));
        }
        let nonzero = dims.iter().filter(|&&d| d != 0);
        // 16 leaves room for the largest element.
        let fits = nonzero
            .into_iter()
            .try_fold(16usize, |n, &d| n.checked_mul(d))
            .is_some_and(|n| n <= isize::MAX as usize);
        if !fits {
            return Err(Error::shape(format!("shape {} is too big", fmt_tuple(dims))));
        }
        let mut shape = Shape { dims: [0; MAX_DIMS], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements: the product of the axis lengths, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// Turns an axis that may count from the end into one that counts from the start.
    pub fn axis(&self, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        if axis < -rank || axis >= rank {
            return Err(Error::shape(format!("axis {axis} is out of bounds for array of dimension {rank}")));
        }
        Ok(if axis < 0 { axis + rank } else { axis } as usize)
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> [isize; MAX_DIMS] {
        let mut strides = [0; MAX_DIMS];
        let mut step = 1;
        for i in (0..self.rank()).rev() {
            strides[i] = step;
            step *= self.dims[i].max(1) as isize;
        }
        strides
    }

    /// This shape with axis `axis` changed to length `len`.
    pub fn with(mut self, axis: usize, len: usize) -> Shape {
        assert!(axis < self.rank());
        self.dims[axis] = len;
        self
    }

    /// This shape without the axes that `axes` holds, or with length 1 in their place.
    pub fn reduce(&self, axes: AxisSet, keepdims: bool) -> Shape {
        let mut out = Shape { dims: [0; MAX_DIMS], rank: 0 };
        for (i, &d) in self.iter().enumerate() {
            if axes.contains(i) && !keepdims {
                continue;
            }
            out.dims[out.rank as usize] = if axes.contains(i) { 1 } else { d };
            out.rank += 1;
        }
        out
    }

    /// The shape both broadcast to.
    pub fn broadcast(&self, other: &Shape) -> Result<Shape> {
        Shape::broadcast_all(&[*self, *other])
    }

    /// The shape that all of these broadcast to.
    pub fn broadcast_all(shapes: &[Shape]) -> Result<Shape> {
        let rank = shapes.iter().map(Shape::rank).max().unwrap_or(0);
        let mut dims = [1; MAX_DIMS];
        for shape in shapes {
            for (i, &d) in shape.iter().enumerate() {
                let at = rank - shape.rank() + i;
                if d != 1 && dims[at] != 1 && dims[at] != d {
                    let all: Vec<String> = shapes.iter().map(Shape::to_string).collect();
                    return Err(Error::shape(format!(
                        "operands could not be broadcast together with shapes {}",
                        all.join(" ")
                    )));
                }
                if d != 1 {
                    dims[at] = d;
                }
            }
        }
        Shape::new(&dims[..rank])
    }
}

/// `(2, 3)`, `(4,)`, `()`: a tuple as Python prints it.
pub fn fmt_tuple(dims: &[usize]) -> String {
    let items: Vec<String> = dims.iter().map(usize::to_string).collect();
    if dims.len() == 1 { format!("({},)", items[0]) } else { format!("({})", items.join(", ")) }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fmt_tuple(self))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of axes, as a bit mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AxisSet(u8);

impl AxisSet {
    /// The set of all axes of `shape`.
    pub fn all(shape: &Shape) -> AxisSet {
        AxisSet(((1u16 << shape.rank()) - 1) as u8)
    }

    /// The first `count` axes.
    pub fn leading(count: usize) -> AxisSet {
        AxisSet(((1u16 << count) - 1) as u8)
    }

    /// The axes named in `axes`, which may count from the end.
    ///
    /// # Errors
    /// An axis out of range, or named twice.
    pub fn of(shape: &Shape, axes: &[isize]) -> Result<AxisSet> {
        let mut set = AxisSet(0);
        for &a in axes {
            let a = shape.axis(a)?;
            if set.contains(a) {
                return Err(Error::shape("duplicate value in 'axis'"));
            }
            set.0 |= 1 << a;
        }
        Ok(set)
    }

    /// Whether `axis` is in the set.
    pub fn contains(self, axis: usize) -> bool {
        axis < MAX_DIMS && self.0 & (1 << axis) != 0
    }

    /// Whether no axis is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of axes in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The axes, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_DIMS).filter(move |&i| self.contains(i))
    }
}

/// Where a tensor's elements lie in its storage: element `(i, j, ..)` is at `offset + i*strides[0] + j*strides[1] ..`.
///
/// Strides and offset count elements. A stride may be 0 (broadcast) or negative (a reversed slice).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Axis lengths.
    pub shape: Shape,
    strides: [isize; MAX_DIMS],
    /// Index of the element whose indices are all 0.
    pub offset: usize,
}

impl Layout {
    /// Row-major, from the start of the storage.
    pub fn contiguous(shape: Shape) -> Layout {
        Layout { shape, strides: shape.strides(), offset: 0 }
    }

    /// With these strides, which are as many as axes.
    pub fn strided(shape: Shape, strides: &[isize], offset: usize) -> Layout {
        assert_eq!(shape.rank(), strides.len());
        let mut all = [0; MAX_DIMS];
        all[..strides.len()].copy_from_slice(strides);
        Layout { shape, strides: all, offset }
    }

    /// The same layout with offset 0.
    pub fn at_origin(self) -> Layout {
        Layout { offset: 0, ..self }
    }

    /// Strides in elements, one an axis.
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.rank()]
    }

    /// Whether the elements lie one after the other in row-major order.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        let dense = self.shape.iter().zip(self.strides()).rev().filter(|(d, _)| **d != 1).all(|(&d, &s)| {
            let expected = step;
            step *= d as isize;
            s == expected
        });
        dense || self.shape.numel() == 0
    }

    /// Smallest and largest element index that the layout touches; `None` if it has no elements.
    pub fn bounds(&self) -> Option<(usize, usize)> {
        let (mut lo, mut hi) = (self.offset as isize, self.offset as isize);
        for (&d, &s) in self.shape.iter().zip(self.strides()) {
            if d == 0 {
                return None;
            }
            let reach = (d as isize - 1) * s;
            lo += reach.min(0);
            hi += reach.max(0);
        }
        Some((lo as usize, hi as usize))
    }

    /// Axis `i` of the result is axis `axes[i]` of this; `axes` is a permutation.
    pub fn permute(&self, axes: &[usize]) -> Result<Layout> {
        let rank = self.shape.rank();
        let named = axes.iter().filter(|&&a| a < rank).fold(0u32, |set, &a| set | 1 << a);
        if axes.len() != rank || named.count_ones() as usize != rank {
            return Err(Error::shape(format!(
                "axes {} don't match array of shape {}",
                fmt_tuple(axes),
                self.shape
            )));
        }
        let mut out = *self;
        for (i, &a) in axes.iter().enumerate() {
            out.shape.dims[i] = self.shape[a];
            out.strides[i] = self.strides[a];
        }
        Ok(out)
    }

    /// A view with `shape`, into which this one broadcasts.
    pub fn broadcast_to(&self, shape: Shape) -> Result<Layout> {
        let fail = || {
            Error::shape(format!(
                "operands could not be broadcast together with remapped shapes [original->remapped]: {} and \
                 requested shape {shape}",
                self.shape
            ))
        };
        let lead = shape.rank().checked_sub(self.shape.rank()).ok_or_else(fail)?;
        let mut out = Layout { shape, strides: [0; MAX_DIMS], offset: self.offset };
        for (i, &d) in self.shape.iter().enumerate() {
            if d == shape[lead + i] {
                out.strides[lead + i] = self.strides[i];
            } else if d != 1 {
                return Err(fail());
            }
        }
        Ok(out)
    }

    /// A view with the same elements in the same order under another shape, or `None` where that needs a copy.
    ///
    /// `shape` must have as many elements as this.
    pub fn reshape(&self, shape: Shape) -> Option<Layout> {
        debug_assert_eq!(shape.numel(), self.shape.numel());
        if self.is_contiguous() || shape.numel() == 0 {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape) });
        }
        // Merge old axes that lie densely one inside the other, then cut the runs into the new axes.
        let mut runs: Vec<(usize, isize)> = Vec::with_capacity(MAX_DIMS);
        for (&d, &s) in self.shape.iter().zip(self.strides()).filter(|(d, _)| **d != 1) {
            match runs.last_mut() {
                Some((len, stride)) if *stride == s * d as isize => (*len, *stride) = (*len * d, s),
                _ => runs.push((d, s)),
            }
        }
        let mut strides = [0; MAX_DIMS];
        let mut run = runs.pop();
        for i in (0..shape.rank()).rev() {
            if shape[i] == 1 {
                continue;
            }
            let (len, stride) = run?;
            if len % shape[i] != 0 {
                return None;
            }
            strides[i] = stride;
            run =
                if len == shape[i] { runs.pop() } else { Some((len / shape[i], stride * shape[i] as isize)) };
        }
        Some(Layout { shape, strides, offset: self.offset })
    }

    /// The elements `start, start + step, ..` (`len` of them) of `axis`; the caller has checked that they exist.
    pub fn slice(&self, axis: usize, start: usize, len: usize, step: isize) -> Layout {
        let mut out = *self;
        out.shape.dims[axis] = len;
        // A view of nothing stays where it is: of an empty tensor there is no other place inside the storage.
        if out.shape.numel() > 0 {
            out.offset = (self.offset as isize + start as isize * self.strides[axis]) as usize;
        }
        out.strides[axis] = self.strides[axis] * step;
        out
    }

    /// With a new axis of length 1 before `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Layout> {
        let mut dims = self.shape.to_vec();
        dims.insert(axis, 1);
        let mut strides = self.strides().to_vec();
        strides.insert(axis, 0);
        Ok(Layout::strided(Shape::new(&dims)?, &strides, self.offset))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}+{}", self.shape, self.strides(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn broadcasting_is_numpys() {
        assert_eq!(shape(&[2, 1, 3]).broadcast(&shape(&[4, 1])).unwrap(), shape(&[2, 4, 3]));
        assert_eq!(shape(&[0]).broadcast(&shape(&[1])).unwrap(), shape(&[0]));
        assert_eq!(
            shape(&[2, 3]).broadcast(&shape(&[4])).unwrap_err().message,
            "operands could not be broadcast together with shapes (2, 3) (4,)"
        );
        assert!(shape(&[0]).broadcast(&shape(&[2])).is_err());
    }

    #[test]
    fn reshape_keeps_views_where_it_can() {
        let t = Layout::contiguous(shape(&[4, 6])).permute(&[1, 0]).unwrap();
        assert!(t.reshape(shape(&[24])).is_none());
        assert_eq!(t.reshape(shape(&[2, 3, 4])).unwrap().strides(), [3, 1, 6]);
        let b = Layout::contiguous(shape(&[1, 3])).broadcast_to(shape(&[2, 3])).unwrap();
        assert!(b.reshape(shape(&[6])).is_none());
        assert_eq!(b.reshape(shape(&[2, 1, 3])).unwrap().strides(), [0, 0, 1]);
    }

    #[test]
    fn reshape_agrees_with_enumeration() {
        // Every reshape of a strided view must visit the same storage indices in the same order.
        let base = Layout::contiguous(shape(&[4, 3, 4]));
        let views = [
            base,
            base.permute(&[0, 2, 1]).unwrap(),
            base.slice(2, 0, 2, 2),
            base.slice(0, 3, 4, -1),
            base.slice(1, 1, 1, 1),
        ];
        for v in views {
            for dims in
                [&[2, 2, 12][..], &[48], &[4, 12], &[12, 4], &[16], &[2, 2, 1, 4], &[4, 1, 4], &[8, 3], &[24]]
            {
                let s = shape(dims);
                if s.numel() != v.shape.numel() {
                    continue;
                }
                if let Some(r) = v.reshape(s) {
                    assert_eq!(indices(&r), indices(&v), "{v:?} as {s}");
                }
            }
        }
    }

    fn indices(l: &Layout) -> Vec<usize> {
        let dense = l.shape.strides();
        (0..l.shape.numel())
            .map(|n| {
                let mut at = l.offset as isize;
                for i in 0..l.shape.rank() {
                    at += (n as isize / dense[i] % l.shape[i] as isize) * l.strides()[i];
                }
                at as usize
            })
            .collect()
    }

    #[test]
    fn contiguity_ignores_axes_of_length_one() {
        let l = Layout::strided(shape(&[1, 3]), &[77, 1], 5);
        assert!(l.is_contiguous());
        assert!(Layout::strided(shape(&[0, 3]), &[9, 9], 0).is_contiguous());
        assert!(!Layout::strided(shape(&[2, 3]), &[1, 2], 0).is_contiguous());
    }

    #[test]
    fn slices_of_nothing_stay_inside_the_storage() {
        let none = Layout::contiguous(shape(&[4, 0]));
        assert_eq!(none.slice(0, 3, 1, 1).offset, 0);
        assert_eq!(Layout::contiguous(shape(&[4, 2])).slice(0, 4, 0, 1).offset, 0);
    }

    #[test]
    fn huge_and_deep_shapes_are_refused() {
        assert!(Shape::new(&[usize::MAX, 2]).is_err());
        assert!(Shape::new(&[1; 9]).is_err());
        assert_eq!(
            Shape::new(&[2; 9]).unwrap_err().message,
            "maximum supported dimension for a tensor is 8, found 9"
        );
    }

    #[test]
    fn axes() {
        let s = shape(&[2, 3, 4]);
        assert_eq!(s.axis(-1).unwrap(), 2);
        assert_eq!(s.axis(3).unwrap_err().message, "axis 3 is out of bounds for array of dimension 3");
        let set = AxisSet::of(&s, &[0, -1]).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(s.reduce(set, false), shape(&[3]));
        assert_eq!(s.reduce(set, true), shape(&[1, 3, 1]));
        assert!(AxisSet::of(&s, &[1, -2]).is_err());
    }
}
