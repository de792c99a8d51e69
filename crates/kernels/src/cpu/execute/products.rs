//! Matrix products: views as (batches of) strided matrices.

use bullet_ops::{Activation, DType, Float, Layout, Result, Shape};

use crate::cpu::gemm::{Epilogue, MatLayout, MatMut, MatRef, gemm};
use crate::cpu::stop;
use crate::{View, ViewMut};

/// The last two axes of a layout as a matrix.
fn matrix(layout: &Layout) -> MatLayout {
    let r = layout.shape.rank();
    let s = layout.strides();
    MatLayout::new(layout.shape[r - 2], layout.shape[r - 1], s[r - 2], s[r - 1])
}

fn at<'a, T: Float>(x: &View<'a>, offset: isize, layout: MatLayout) -> MatRef<'a, T> {
    // SAFETY: the caller derived offset and layout from the view's own, so they reach its elements only.
    unsafe { MatRef::from_raw(x.ptr::<T>().offset(offset), layout) }
}

/// `c[.., m, n] = a[.., m, k] b[.., k, n]`, leading axes broadcast.
///
/// One leading axis goes to the kernel as its batch; more are looped over, unless they merge into one.
pub(super) fn matmul<T: Float>(a: &View<'_>, b: &View<'_>, c: &mut ViewMut<'_>) -> Result<()> {
    let out = *c.layout();
    let lead = Shape::new(&out.shape[..out.shape.rank() - 2])?;
    let (la, lb) = (leading(a.layout(), lead)?, leading(b.layout(), lead)?);
    let (ma, mb) = (matrix(a.layout()), matrix(b.layout()));
    let (rows, cols) = (ma.rows, mb.cols);
    let merged = Shape::new(&[lead.numel()])?;
    let (la, lb, lead) = match (la.reshape(merged), lb.reshape(merged)) {
        (Some(la), Some(lb)) => (la, lb, merged),
        _ => (la, lb, lead),
    };
    let inner = lead.last().copied().unwrap_or(1);
    let last_stride = |l: &Layout| l.strides().last().copied().unwrap_or(0);
    let c: &mut [T] = c.slice();
    for (i, c) in c.chunks_mut((inner * rows * cols).max(1)).enumerate() {
        let batch = |x: &View<'_>, l: &Layout, m: MatLayout| {
            let m = if last_stride(l) == 0 { m } else { m.batched(inner, last_stride(l)) };
            // The views outlive this call; `at` ties the matrix to their memory.
            (offset_of(l, &lead, i * inner), m, x.ptr::<T>())
        };
        let (oa, ma, _) = batch(a, &la, ma);
        let (ob, mb, _) = batch(b, &lb, mb);
        let out = MatLayout::row_major(rows, cols).batched(inner, (rows * cols) as isize);
        gemm(at::<T>(a, oa, ma), at::<T>(b, ob, mb), MatMut::new(c, 0, out)?, Epilogue::default())?;
    }
    Ok(())
}

/// The leading axes of an operand, broadcast to those of the result.
fn leading(layout: &Layout, lead: Shape) -> Result<Layout> {
    let r = layout.shape.rank() - 2;
    Layout::strided(Shape::new(&layout.shape[..r])?, &layout.strides()[..r], 0).broadcast_to(lead)
}

/// Where element `index` (in row-major order of `shape`) lies.
fn offset_of(layout: &Layout, shape: &Shape, index: usize) -> isize {
    let mut rest = index;
    let mut offset = 0;
    for axis in (0..shape.rank()).rev() {
        offset += (rest % shape[axis]) as isize * layout.strides()[axis];
        rest /= shape[axis];
    }
    offset
}

/// `y = activation(x W^T + bias)`; the value before the activation goes to the second output, if there is one.
pub(super) fn linear<T: Float>(
    activation: Activation,
    x: &[View<'_>],
    out: &mut [ViewMut<'_>],
) -> Result<()> {
    let (input, weight) = (&x[0], &x[1]);
    let w = matrix(weight.layout());
    let rows = input.layout().shape.numel() / w.cols.max(1);
    // Without inputs the rows can't be told from the input's size.
    let rows = if w.cols == 0 { out[0].layout().shape.numel() / w.rows.max(1) } else { rows };
    let a = MatLayout::row_major(rows, w.cols);
    let c = MatLayout::row_major(rows, w.rows);
    let (y, pre) = out.split_first_mut().expect("linear has a result");
    let pre = match pre.first_mut() {
        Some(pre) => Some(MatMut::new(pre.slice::<T>(), 0, c)?),
        None => None,
    };
    let bias = x.get(2).map(|b| b.slice::<T>());
    let epilogue = Epilogue { accumulate: false, bias, activation, pre_activation: pre };
    gemm(
        MatRef::new(input.slice::<T>(), 0, a)?,
        at::<T>(weight, 0, w.transposed()),
        MatMut::new(y.slice::<T>(), 0, c)?,
        epilogue,
    )
}

/// As [`matmul`] for integers and bools, in wrapping i64: a plain loop, for exactness rather than speed.
pub(super) fn matmul_int(a: &View<'_>, b: &View<'_>, c: &mut ViewMut<'_>) -> Result<()> {
    let out = *c.layout();
    let rank = out.shape.rank();
    let lead = Shape::new(&out.shape[..rank - 2])?;
    let (la, lb) = (leading(a.layout(), lead)?, leading(b.layout(), lead)?);
    let (wide_a, wide_b) = (widen(a), widen(b));
    let (ma, mb) = (matrix(a.layout()), matrix(b.layout()));
    let mut sums = stop::filled(0i64, out.shape.numel());
    let mut next = sums.iter_mut();
    for batch in 0..lead.numel() {
        let (oa, ob) = (offset_of(&la, &lead, batch), offset_of(&lb, &lead, batch));
        for i in 0..ma.rows as isize {
            for j in 0..mb.cols as isize {
                let term = |k: isize| {
                    let x = wide_a(oa + i * ma.row_stride + k * ma.col_stride);
                    x.wrapping_mul(wide_b(ob + k * mb.row_stride + j * mb.col_stride))
                };
                let sum = (0..ma.cols as isize).map(term).fold(0i64, i64::wrapping_add);
                *next.next().expect("as many sums as elements") = sum;
            }
        }
    }
    let wide = View::of(&sums, Layout::contiguous(out.shape));
    crate::cpu::copy::copy(&wide, c);
    Ok(())
}

/// Reads the element at a distance (in elements) from the first, as i64.
fn widen<'a>(x: &'a View<'_>) -> impl Fn(isize) -> i64 + 'a {
    move |at| {
        // SAFETY: the caller's distances come from the view's own layout, so the element is inside it.
        unsafe {
            match x.dtype() {
                DType::Bool => i64::from(*x.ptr::<bool>().offset(at)),
                DType::U8 => i64::from(*x.ptr::<u8>().offset(at)),
                DType::U16 => i64::from(*x.ptr::<u16>().offset(at)),
                DType::U32 => i64::from(*x.ptr::<u32>().offset(at)),
                DType::U64 => *x.ptr::<u64>().offset(at) as i64,
                DType::I8 => i64::from(*x.ptr::<i8>().offset(at)),
                DType::I16 => i64::from(*x.ptr::<i16>().offset(at)),
                DType::I32 => i64::from(*x.ptr::<i32>().offset(at)),
                DType::I64 => *x.ptr::<i64>().offset(at),
                float @ (DType::F16 | DType::BF16 | DType::F32 | DType::F64) => {
                    unreachable!("{float} products go to the floating-point kernel")
                }
            }
        }
    }
}
