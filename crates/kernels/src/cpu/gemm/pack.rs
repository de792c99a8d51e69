//! Copies of operands in the order the register tiles read them, widened to the compute type.

use bullet_ops::{Compute, DType, Float};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Widens `n` consecutive elements.
///
/// # Safety
/// `src` and `dst` reach `n` elements and do not overlap.
#[inline]
pub(crate) unsafe fn widen<T: Float>(src: *const T, dst: *mut T::Compute, n: usize) {
    // SAFETY: the caller's promise; each cast is of a type to itself, told by its dtype.
    unsafe {
        match T::DTYPE {
            DType::F16 => std::slice::from_raw_parts(src.cast::<f16>(), n)
                .convert_to_f32_slice(std::slice::from_raw_parts_mut(dst.cast(), n)),
            DType::BF16 => {
                for i in 0..n {
                    *dst.cast::<f32>().add(i) =
                        f32::from_bits(u32::from((*src.cast::<bf16>().add(i)).to_bits()) << 16);
                }
            }
            _ => std::ptr::copy_nonoverlapping(src.cast::<T::Compute>(), dst, n),
        }
    }
}

/// Packs `k` rows and `cols` columns of B as one panel: `k` rows of `width` elements, the last columns zero.
///
/// # Safety
/// `b` with its strides reaches `k` by `cols` elements; `cols <= width <= 64` and `dst` holds `k * width`.
pub(super) unsafe fn panel<T: Float>(
    b: *const T,
    (row_stride, col_stride): (isize, isize),
    k: usize,
    cols: usize,
    width: usize,
    dst: &mut [T::Compute],
) {
    let dst = dst[..k * width].as_mut_ptr();
    // SAFETY: the caller's promise; every write is below k * width.
    unsafe {
        if cols < width {
            for p in 0..k {
                std::slice::from_raw_parts_mut(dst.add(p * width + cols), width - cols)
                    .fill(T::Compute::ZERO);
            }
        }
        if col_stride == 1 {
            for p in 0..k {
                let (src, dst) = (b.offset(p as isize * row_stride), dst.add(p * width));
                // Whole panels are the rule: copies of a known size need no call.
                match cols {
                    32 => widen(src, dst, 32),
                    16 => widen(src, dst, 16),
                    _ => widen(src, dst, cols),
                }
            }
        } else if row_stride == 1 {
            transpose(b, col_stride, k, cols, width, dst);
        } else {
            for p in 0..k {
                for j in 0..cols {
                    *dst.add(p * width + j) =
                        (*b.offset(p as isize * row_stride + j as isize * col_stride)).up();
                }
            }
        }
    }
}

/// `dst[p * width + j] = b[j * stride + p]`, in squares of four that stay in registers.
unsafe fn transpose<T: Float>(
    b: *const T,
    stride: isize,
    k: usize,
    cols: usize,
    width: usize,
    dst: *mut T::Compute,
) {
    let (whole_k, whole_cols) = (k / 4 * 4, cols / 4 * 4);
    // SAFETY: rows below k and columns below cols, the caller's promise.
    unsafe {
        for p in (0..whole_k).step_by(4) {
            for j in (0..whole_cols).step_by(4) {
                square(b.offset(j as isize * stride).add(p), stride, dst.add(p * width + j), width);
            }
        }
        let one = |p: usize, j: usize| *dst.add(p * width + j) = (*b.offset(j as isize * stride).add(p)).up();
        for p in 0..k {
            for j in (if p < whole_k { whole_cols } else { 0 })..cols {
                one(p, j);
            }
        }
    }
}

/// Transposes four by four elements.
///
/// # Safety
/// `src` reaches four rows `stride` apart, `dst` four rows `width` apart.
#[inline(always)]
unsafe fn square<T: Float>(src: *const T, stride: isize, dst: *mut T::Compute, width: usize) {
    // SAFETY: the caller's promise; `T` is f32 where it is read as that, and SSE is part of x86-64.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if T::DTYPE == DType::F32 {
            use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
            let row = |i: isize| _mm_loadu_ps(src.offset(i * stride).cast());
            let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            for (i, x) in [a, b, c, d].into_iter().enumerate() {
                _mm_storeu_ps(dst.add(i * width).cast(), x);
            }
            return;
        }
        for p in 0..4 {
            let four: [T::Compute; 4] =
                std::array::from_fn(|j| (*src.offset(j as isize * stride).add(p)).up());
            dst.add(p * width).cast::<[T::Compute; 4]>().write_unaligned(four);
        }
    }
}

/// Packs `rows` by `k` elements of A, contiguous along whichever of its directions is contiguous already; returns the
/// strides of the copy.
///
/// # Safety
/// `a` with its strides reaches `rows` by `k` elements; `dst` holds `rows * pitch`, and `pitch >= k`.
pub(super) unsafe fn rows<T: Float>(
    a: *const T,
    (row_stride, col_stride): (isize, isize),
    rows: usize,
    k: usize,
    pitch: usize,
    dst: &mut [T::Compute],
) -> (isize, isize) {
    let dst = dst[..rows * pitch].as_mut_ptr();
    // SAFETY: the caller's promise; every write is below rows * pitch.
    unsafe {
        if row_stride == 1 && col_stride != 1 {
            for p in 0..k {
                widen(a.offset(p as isize * col_stride), dst.add(p * rows), rows);
            }
            return (1, rows as isize);
        }
        for i in 0..rows {
            let (src, dst) = (a.offset(i as isize * row_stride), dst.add(i * pitch));
            if col_stride == 1 {
                widen(src, dst, k);
            } else {
                for p in 0..k {
                    *dst.add(p) = (*src.offset(p as isize * col_stride)).up();
                }
            }
        }
        (pitch as isize, 1)
    }
}
