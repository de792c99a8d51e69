//! Strided matrix views: the operands of [`gemm`](super::gemm).

use std::marker::PhantomData;

use bullet_ops::{Error, Result};

/// Sizes and strides of a batch of matrices, in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MatLayout {
    /// Number of matrices.
    pub batch: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub cols: usize,
    /// From a matrix to the next; 0 broadcasts one matrix over the batch.
    pub batch_stride: isize,
    /// From a row to the next; 0 broadcasts.
    pub row_stride: isize,
    /// From a column to the next; 0 broadcasts.
    pub col_stride: isize,
}

impl MatLayout {
    /// One matrix with these strides.
    pub const fn new(rows: usize, cols: usize, row_stride: isize, col_stride: isize) -> MatLayout {
        MatLayout { batch: 1, rows, cols, batch_stride: 0, row_stride, col_stride }
    }

    /// One contiguous matrix, row after row.
    pub const fn row_major(rows: usize, cols: usize) -> MatLayout {
        MatLayout::new(rows, cols, cols as isize, 1)
    }

    /// `batch` such matrices, `stride` elements apart.
    pub const fn batched(self, batch: usize, stride: isize) -> MatLayout {
        MatLayout { batch, batch_stride: stride, ..self }
    }

    /// Rows and columns exchanged.
    pub const fn transposed(self) -> MatLayout {
        MatLayout {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn dims(&self) -> [(usize, isize); 3] {
        [(self.batch, self.batch_stride), (self.rows, self.row_stride), (self.cols, self.col_stride)]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch == 0 || self.rows == 0 || self.cols == 0
    }

    /// The lowest and highest element index relative to the first element; `None` if there is no element.
    fn extent(&self) -> Option<(isize, isize)> {
        if self.is_empty() {
            return None;
        }
        Some(self.dims().iter().fold((0, 0), |(lo, hi), &(n, stride)| {
            let reach = (n as isize - 1).saturating_mul(stride);
            (lo.saturating_add(reach.min(0)), hi.saturating_add(reach.max(0)))
        }))
    }

    fn check_bounds(&self, offset: usize, len: usize) -> Result<()> {
        let Some((lo, hi)) = self.extent() else { return Ok(()) };
        if offset as isize + lo < 0 || (offset as isize).saturating_add(hi) >= len as isize {
            return Err(Error::argument(format!(
                "matrix view {self:?} at offset {offset} reaches outside its {len} elements; expected strides and \
                 sizes that stay inside"
            )));
        }
        Ok(())
    }

    /// Whether no two indices name one element, judged by nesting the dimensions (sufficient, and what every
    /// permuted or sliced contiguous array satisfies).
    fn check_distinct(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut dims = self.dims();
        dims.sort_by_key(|&(_, stride)| stride.unsigned_abs());
        let mut reach = 0usize;
        for (n, stride) in dims.into_iter().filter(|&(n, _)| n > 1) {
            if stride.unsigned_abs() <= reach {
                return Err(Error::argument(format!(
                    "output view {self:?} maps two indices to one element; expected non-overlapping strides"
                )));
            }
            reach = reach.saturating_add((n - 1).saturating_mul(stride.unsigned_abs()));
        }
        Ok(())
    }
}

/// A batch of matrices to read.
#[derive(Debug)]
pub struct MatRef<'a, T> {
    pub(super) ptr: *const T,
    pub(super) layout: MatLayout,
    life: PhantomData<&'a [T]>,
}

impl<T> Clone for MatRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for MatRef<'_, T> {}

// SAFETY: a `MatRef` is a `&[T]` with strides.
unsafe impl<T: Sync> Send for MatRef<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MatRef<'_, T> {}

impl<'a, T> MatRef<'a, T> {
    /// A view of `data` whose element (0, 0, 0) is `data[offset]`; an error if it would reach outside `data`.
    pub fn new(data: &'a [T], offset: usize, layout: MatLayout) -> Result<MatRef<'a, T>> {
        layout.check_bounds(offset, data.len())?;
        Ok(MatRef { ptr: data.as_ptr().wrapping_add(offset), layout, life: PhantomData })
    }

    /// A view of raw memory.
    ///
    /// # Safety
    /// Every element that `layout` names, counted from `ptr`, is initialised and not written during `'a`.
    pub unsafe fn from_raw(ptr: *const T, layout: MatLayout) -> MatRef<'a, T> {
        MatRef { ptr, layout, life: PhantomData }
    }

    /// Rows and columns exchanged; nothing is copied.
    pub fn t(self) -> MatRef<'a, T> {
        MatRef { layout: self.layout.transposed(), ..self }
    }

    /// Sizes and strides.
    pub fn layout(&self) -> MatLayout {
        self.layout
    }
}

/// A batch of matrices to write.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    pub(super) ptr: *mut T,
    pub(super) layout: MatLayout,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: a `MatMut` is a `&mut [T]` with strides.
unsafe impl<T: Send> Send for MatMut<'_, T> {}
// SAFETY: shared references to a `MatMut` give no access to its elements.
unsafe impl<T: Sync> Sync for MatMut<'_, T> {}

impl<'a, T> MatMut<'a, T> {
    /// A view of `data` whose element (0, 0, 0) is `data[offset]`; an error if it would reach outside `data` or name
    /// an element twice.
    pub fn new(data: &'a mut [T], offset: usize, layout: MatLayout) -> Result<MatMut<'a, T>> {
        layout.check_bounds(offset, data.len())?;
        layout.check_distinct()?;
        Ok(MatMut { ptr: data.as_mut_ptr().wrapping_add(offset), layout, life: PhantomData })
    }

    /// A view of raw memory, which may hold anything (it is read only where an op says it accumulates).
    ///
    /// # Safety
    /// Every element that `layout` names, counted from `ptr`, is named once, is allocated, and is accessed by nobody
    /// else during `'a`.
    pub unsafe fn from_raw(ptr: *mut T, layout: MatLayout) -> MatMut<'a, T> {
        MatMut { ptr, layout, life: PhantomData }
    }

    /// Rows and columns exchanged; nothing is copied.
    pub fn t(self) -> MatMut<'a, T> {
        MatMut { layout: self.layout.transposed(), ..self }
    }

    /// Sizes and strides.
    pub fn layout(&self) -> MatLayout {
        self.layout
    }
}
