//! Matrix products: `C = act(A B + bias)`, batched, on operands of any strides.
//!
//! [`gemm`] cuts C into tasks of row blocks (and column blocks where rows are few); each packs what it needs and walks
//! register tiles (`micro`) with B panels in L1 and A blocks in L2. K is never divided between threads, so that the
//! bits of a result do not depend on the number of threads. Vectors go another way (`gemv`): they are bound by
//! reading the matrix once. Bias and activation are applied while a tile is still in L1.

mod activation;
mod block;
mod gemv;
mod micro;
mod pack;
mod packed;
mod scratch;
pub(crate) mod vector;
mod view;

pub use bullet_ops::Activation;
use bullet_ops::{Compute, Error, Float, Result};

pub(crate) use gemv::{Dots, Sums};
pub(crate) use pack::widen;
pub(crate) use packed::Packed;
pub(crate) use scratch::Scratch;
pub use view::{MatLayout, MatMut, MatRef};

use crate::cpu::simd::{self, Isa};

/// What happens to A B on its way to C.
#[derive(Debug)]
pub struct Epilogue<'a, T> {
    /// Adds to what C holds; otherwise C is overwritten and never read.
    pub accumulate: bool,
    /// One value a column, added before the activation.
    pub bias: Option<&'a [T]>,
    /// Applied to A B + bias.
    pub activation: Activation,
    /// Where A B + bias goes, which the adjoint of the activation needs; of C's sizes.
    pub pre_activation: Option<MatMut<'a, T>>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { accumulate: false, bias: None, activation: Activation::Identity, pre_activation: None }
    }
}

/// `C = act(A B + bias)`, or `C += act(A B + bias)`, for each matrix of the batch.
///
/// A is m by k, B k by n, C m by n; a batch of 1 in A or B serves every matrix of C's batch. Sums are accumulated in
/// the compute type and rounded once. Any size may be 0; with k = 0 the product is zeros.
///
/// # Errors
/// If the sizes do not fit.
pub fn gemm<T: Float>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) -> Result<()> {
    gemm_on(simd::isa(), a, b, c, epilogue)
}

/// [`gemm`] with the instruction set `isa`, or the portable code where this machine hasn't got it.
///
/// # Errors
/// As [`gemm`].
pub fn gemm_on<T: Float>(
    isa: Isa,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    c: MatMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) -> Result<()> {
    check(&a.layout, &b.layout, &c.layout, &epilogue)?;
    if c.layout.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(isa, a, b, c, epilogue);
    problem.fold_batch();
    problem.prefer_rows();
    // SAFETY: the views reach what their layouts say, and the sizes were checked to fit.
    unsafe {
        if !gemv::try_gemv(&problem) {
            block::gemm(&problem);
        }
    }
    Ok(())
}

fn check<T>(a: &MatLayout, b: &MatLayout, c: &MatLayout, epilogue: &Epilogue<'_, T>) -> Result<()> {
    if a.cols != b.rows || a.rows != c.rows || b.cols != c.cols {
        return Err(Error::shape(format!(
            "matmul: operands ({}, {}) and ({}, {}) do not give a result ({}, {}); expected (m, k), (k, n) and (m, n)",
            a.rows, a.cols, b.rows, b.cols, c.rows, c.cols
        )));
    }
    for batch in [a.batch, b.batch] {
        if batch != c.batch && batch != 1 {
            return Err(Error::shape(format!(
                "matmul: a batch of {batch} matrices does not broadcast to a result of {}; expected {} or 1",
                c.batch, c.batch
            )));
        }
    }
    if let Some(bias) = epilogue.bias
        && bias.len() != c.cols
    {
        return Err(Error::shape(format!("matmul: bias of length {}, expected {}", bias.len(), c.cols)));
    }
    if let Some(pre) = &epilogue.pre_activation
        && (pre.layout.batch, pre.layout.rows, pre.layout.cols) != (c.batch, c.rows, c.cols)
    {
        return Err(Error::shape(format!(
            "matmul: pre-activation of {} matrices ({}, {}), expected {} of ({}, {}) as the result",
            pre.layout.batch, pre.layout.rows, pre.layout.cols, c.batch, c.rows, c.cols
        )));
    }
    Ok(())
}

/// A strided batch of matrices without its sizes.
#[derive(Clone, Copy)]
struct Operand<P> {
    ptr: P,
    batch: isize,
    row: isize,
    col: isize,
}

impl<P> Operand<P> {
    fn new(ptr: P, layout: MatLayout) -> Operand<P> {
        // A batch of one is the same matrix for all.
        let batch = if layout.batch == 1 { 0 } else { layout.batch_stride };
        Operand { ptr, batch, row: layout.row_stride, col: layout.col_stride }
    }

    fn transpose(&mut self) {
        std::mem::swap(&mut self.row, &mut self.col);
    }
}

/// A checked call: sizes once, operands as raw strided pointers.
struct Problem<T: Float> {
    isa: Isa,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a: Operand<*const T>,
    b: Operand<*const T>,
    c: Operand<*mut T>,
    pre: Option<Operand<*mut T>>,
    bias: Option<Bias<T>>,
    activation: Activation,
    accumulate: bool,
}

/// The bias: one value a column, or a row once the problem was transposed.
#[derive(Clone, Copy)]
struct Bias<T> {
    ptr: *const T,
    by_row: bool,
}

// SAFETY: the pointers come from views that may be sent and shared; tasks write disjoint parts of C.
unsafe impl<T: Float> Sync for Problem<T> {}

impl<T: Float> Problem<T> {
    fn new(
        isa: Isa,
        a: MatRef<'_, T>,
        b: MatRef<'_, T>,
        c: MatMut<'_, T>,
        epilogue: Epilogue<'_, T>,
    ) -> Problem<T> {
        Problem {
            isa,
            batch: c.layout.batch,
            m: c.layout.rows,
            n: c.layout.cols,
            k: a.layout.cols,
            a: Operand::new(a.ptr, a.layout),
            b: Operand::new(b.ptr, b.layout),
            c: Operand::new(c.ptr, c.layout),
            pre: epilogue.pre_activation.map(|pre| Operand::new(pre.ptr, pre.layout)),
            bias: epilogue.bias.map(|bias| Bias { ptr: bias.as_ptr(), by_row: false }),
            activation: epilogue.activation,
            accumulate: epilogue.accumulate,
        }
    }

    /// Makes one tall problem of a batch whose B is shared and whose rows follow each other.
    fn fold_batch(&mut self) {
        let m = self.m as isize;
        let follows = |batch: isize, row: isize| batch == row * m;
        let pre = self.pre.as_ref().is_none_or(|p| follows(p.batch, p.row));
        if self.batch > 1
            && self.b.batch == 0
            && follows(self.a.batch, self.a.row)
            && follows(self.c.batch, self.c.row)
            && pre
        {
            self.m *= self.batch;
            self.batch = 1;
        }
    }

    /// Transposes the whole problem if C is column-major, so that tiles are stored along contiguous columns.
    fn prefer_rows(&mut self) {
        if self.c.col == 1 || self.c.row != 1 || self.n == 1 {
            return;
        }
        std::mem::swap(&mut self.m, &mut self.n);
        std::mem::swap(&mut self.a, &mut self.b);
        self.a.transpose();
        self.b.transpose();
        self.c.transpose();
        if let Some(pre) = &mut self.pre {
            pre.transpose();
        }
        if let Some(bias) = &mut self.bias {
            bias.by_row = true;
        }
    }

    /// Pointers to the operands of one matrix of the batch.
    fn matrix(&self, i: usize) -> (*const T, *const T) {
        let i = i as isize;
        (self.a.ptr.wrapping_offset(i * self.a.batch), self.b.ptr.wrapping_offset(i * self.b.batch))
    }

    /// B transposed, in A's place.
    fn b_as_a(&self) -> Operand<*const T> {
        Operand { row: self.b.col, col: self.b.row, ..self.b }
    }

    /// A transposed, in B's place.
    fn a_as_b(&self) -> Operand<*const T> {
        Operand { row: self.a.col, col: self.a.row, ..self.a }
    }

    /// Work of one matrix, in multiply-adds.
    fn work(&self) -> usize {
        self.m.saturating_mul(self.n).saturating_mul(self.k.max(1))
    }

    /// Writes rows of A B (bias not yet added if it is by row) to C, through the activation.
    ///
    /// # Safety
    /// `src` holds `rows` rows of `cols` elements, `src_row` apart; the block at (`i0`, `j0`) lies inside C and nobody
    /// else accesses it.
    unsafe fn finish(
        &self,
        matrix: usize,
        (i0, j0): (usize, usize),
        (rows, cols): (usize, usize),
        src: *const T::Compute,
        src_row: isize,
    ) {
        let op = Finish { problem: self, matrix, at: (i0, j0), size: (rows, cols), src, src_row };
        simd::dispatch_on(self.isa, op);
    }
}

struct Finish<'a, T: Float> {
    problem: &'a Problem<T>,
    matrix: usize,
    at: (usize, usize),
    size: (usize, usize),
    src: *const T::Compute,
    src_row: isize,
}

impl<T: Float> simd::SimdOp for Finish<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: simd::Target>(self) {
        const WIDTH: usize = 64;
        let Problem { c, pre, bias, .. } = self.problem;
        let mut line = [T::Compute::ZERO; WIDTH];
        for i in 0..self.size.0 {
            for j in (0..self.size.1).step_by(WIDTH) {
                let (row, col) = ((self.at.0 + i) as isize, self.at.1 + j);
                let line = &mut line[..WIDTH.min(self.size.1 - j)];
                let to = |o: &Operand<*mut T>| {
                    o.ptr.wrapping_offset(self.matrix as isize * o.batch + row * o.row + col as isize * o.col)
                };
                // SAFETY: `finish`'s contract: the block lies inside source, C, pre-activation and bias.
                unsafe {
                    let src = self.src.offset(i as isize * self.src_row).add(j);
                    std::ptr::copy_nonoverlapping(src, line.as_mut_ptr(), line.len());
                    if let Some(Bias { ptr, by_row: true }) = *bias {
                        let bias = (*ptr.offset(row)).up();
                        line.iter_mut().for_each(|x| *x += bias);
                    }
                    if let Some(pre) = pre {
                        store(line, to(pre), pre.col, false);
                    }
                    activation::apply::<S, T::Compute>(self.problem.activation, line);
                    store(line, to(c), c.col, self.problem.accumulate);
                }
            }
        }
    }
}

/// Writes a line, or adds it to what is there.
///
/// # Safety
/// `dst` reaches `line.len()` elements `stride` apart.
#[inline(always)]
unsafe fn store<T: Float>(line: &[T::Compute], dst: *mut T, stride: isize, accumulate: bool) {
    for (j, &x) in line.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let dst = if stride == 1 { dst.add(j) } else { dst.offset(j as isize * stride) };
            *dst = T::down(if accumulate { (*dst).up() + x } else { x });
        }
    }
}
