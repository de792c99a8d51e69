//! Typed-at-run-time, strided views of memory: what kernels get as operands and results.
//!
//! The memory is that of the device whose kernels get the view: for CUDA kernels the pointer is an address on the GPU,
//! which the host must not follow.

use std::marker::PhantomData;

use bullet_ops::{DType, Element, Layout, Shape};

/// A read-only operand.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    ptr: *const u8,
    dtype: DType,
    layout: Layout,
    _memory: PhantomData<&'a [u8]>,
}

/// A result, written by one kernel.
#[derive(Debug)]
pub struct ViewMut<'a> {
    ptr: *mut u8,
    dtype: DType,
    layout: Layout,
    _memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `View` is a shared borrow of plain numbers, a `ViewMut` an exclusive one.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}
// SAFETY: as above.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: as above; a shared `ViewMut` gives out no pointer that may be written.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> View<'a> {
    /// A view of the storage that begins at `base`; the layout's offset is applied here.
    ///
    /// # Safety
    /// For `'a`, every element that `layout` reaches from `base` is initialised memory of `dtype`, aligned, and not
    /// written.
    pub unsafe fn new(base: *const u8, dtype: DType, layout: Layout) -> View<'a> {
        // Wrapping, as an address on a GPU is in no allocation of the host.
        let ptr = base.wrapping_add(layout.offset * dtype.size());
        View { ptr, dtype, layout: layout.at_origin(), _memory: PhantomData }
    }

    /// A row-major view of a slice, with this layout inside it.
    ///
    /// # Panics
    /// If the layout reaches beyond the slice.
    pub fn of<T: Element>(slice: &'a [T], layout: Layout) -> View<'a> {
        assert!(
            layout.bounds().is_none_or(|(_, hi)| hi < slice.len()),
            "{layout:?} in {} elements",
            slice.len()
        );
        // SAFETY: in bounds by the assertion; the borrow of `slice` lasts for 'a.
        unsafe { View::new(slice.as_ptr().cast(), T::DTYPE, layout) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and strides; the offset is 0, as [`View::ptr`] points at the first element.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pointer to the element whose indices are all 0.
    pub fn ptr<T: Element>(&self) -> *const T {
        assert_eq!(T::DTYPE, self.dtype);
        self.ptr.cast()
    }

    /// The first byte.
    pub fn bytes(&self) -> *const u8 {
        self.ptr
    }

    /// The same memory under another layout (whose offset must be relative to this view's first element).
    ///
    /// # Safety
    /// The layout reaches only elements that this view's storage has.
    pub unsafe fn with_layout(&self, layout: Layout) -> View<'a> {
        // SAFETY: by the caller's promise.
        unsafe { View::new(self.ptr, self.dtype, layout) }
    }

    /// What is behind the last axis, as rows: (.., width) as (rows, width), or turned around.
    ///
    /// # Panics
    /// If the view is not contiguous.
    pub(crate) fn as_rows(&self, turned: bool) -> View<'a> {
        assert!(self.layout.is_contiguous(), "rows of {:?}", self.layout);
        let (&width, lead) = self.layout.shape.split_last().unwrap_or((&1, &[]));
        let rows = lead.iter().product();
        let (shape, strides) = match turned {
            false => ([rows, width], [width as isize, 1]),
            true => ([width, rows], [1, width as isize]),
        };
        let shape = Shape::new(&shape).expect("no more elements than there were");
        // SAFETY: the same elements.
        unsafe { self.with_layout(Layout::strided(shape, &strides, 0)) }
    }

    /// The elements, if they lie row-major without gaps.
    ///
    /// # Panics
    /// If `T` is not the dtype or the view is not contiguous.
    pub fn slice<T: Element>(&self) -> &'a [T] {
        assert_eq!(T::DTYPE, self.dtype);
        assert!(self.layout.is_contiguous(), "kernel needs a contiguous operand, got {:?}", self.layout);
        // SAFETY: contiguous, so these are exactly the elements that `new` was promised.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.layout.shape.numel()) }
    }
}

impl<'a> ViewMut<'a> {
    /// As [`View::new`], to be written; the memory may hold any elements.
    ///
    /// # Safety
    /// For `'a`, every element that `layout` reaches from `base` is valid for writes, aligned, and used through this
    /// view only (operands of the same elementwise op with the same layout aside). It is initialised memory of `dtype`
    /// already: any bytes for numbers, 0 or 1 for bools, since kernels make slices of what they overwrite.
    pub unsafe fn new(base: *mut u8, dtype: DType, layout: Layout) -> ViewMut<'a> {
        // Wrapping, as an address on a GPU is in no allocation of the host.
        let ptr = base.wrapping_add(layout.offset * dtype.size());
        ViewMut { ptr, dtype, layout: layout.at_origin(), _memory: PhantomData }
    }

    /// As [`View::of`], to be written.
    pub fn of<T: Element>(slice: &'a mut [T], layout: Layout) -> ViewMut<'a> {
        assert!(
            layout.bounds().is_none_or(|(_, hi)| hi < slice.len()),
            "{layout:?} in {} elements",
            slice.len()
        );
        // SAFETY: in bounds by the assertion; exclusive as `slice` is borrowed mutably for 'a.
        unsafe { ViewMut::new(slice.as_mut_ptr().cast(), T::DTYPE, layout) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and strides; the offset is 0.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pointer to the element whose indices are all 0.
    pub fn ptr<T: Element>(&mut self) -> *mut T {
        assert_eq!(T::DTYPE, self.dtype);
        self.ptr.cast()
    }

    /// The first byte.
    pub fn bytes(&mut self) -> *mut u8 {
        self.ptr
    }

    /// This view, to be read.
    pub fn as_view(&self) -> View<'_> {
        View { ptr: self.ptr, dtype: self.dtype, layout: self.layout, _memory: PhantomData }
    }

    /// Part of this view, to be written; the layout's offset is relative to this view's first element.
    ///
    /// # Safety
    /// The layout reaches only elements that this view reaches.
    pub unsafe fn part(&mut self, layout: Layout) -> ViewMut<'_> {
        // SAFETY: by the caller's promise; this view is borrowed for as long as the part lives.
        unsafe { ViewMut::new(self.ptr, self.dtype, layout) }
    }

    /// The elements, if they lie row-major without gaps.
    ///
    /// # Panics
    /// If `T` is not the dtype or the view is not contiguous.
    pub fn slice<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype);
        assert!(self.layout.is_contiguous(), "kernel needs a contiguous result, got {:?}", self.layout);
        // SAFETY: contiguous, so these are exactly the elements that `new` was promised, valid ones of `T` (the pool
        // hands out zeroed or previously written bytes, and `tensor` sets those of bools before any view is made).
        unsafe { std::slice::from_raw_parts_mut(self.ptr.cast(), self.layout.shape.numel()) }
    }
}
