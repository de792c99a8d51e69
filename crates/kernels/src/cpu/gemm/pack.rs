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
                widen(b.offset(p as isize * row_stride), dst.add(p * width), cols);
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

/// `dst[p * width + j] = b[j * stride + p]`, in blocks whose source and destination lines stay in L1.
unsafe fn transpose<T: Float>(
    b: *const T,
    stride: isize,
    k: usize,
    cols: usize,
    width: usize,
    dst: *mut T::Compute,
) {
    const BLOCK: usize = 16;
    let mut lines = [[T::Compute::ZERO; BLOCK]; 4];
    for p0 in (0..k).step_by(BLOCK) {
        let steps = BLOCK.min(k - p0);
        for j0 in (0..cols).step_by(4) {
            let wide = 4.min(cols - j0);
            // SAFETY: rows below k and columns below cols, the caller's promise.
            unsafe {
                for (j, line) in lines.iter_mut().enumerate().take(wide) {
                    widen(b.offset((j0 + j) as isize * stride).add(p0), line.as_mut_ptr(), steps);
                }
                let out = dst.add(p0 * width + j0);
                if wide == 4 {
                    for p in 0..steps {
                        let four = [lines[0][p], lines[1][p], lines[2][p], lines[3][p]];
                        out.add(p * width).cast::<[T::Compute; 4]>().write(four);
                    }
                } else {
                    for p in 0..steps {
                        for j in 0..wide {
                            *out.add(p * width + j) = lines[j][p];
                        }
                    }
                }
            }
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
