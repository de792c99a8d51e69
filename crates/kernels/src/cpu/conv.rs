//! One-dimensional convolution (cross-correlation, as deep learning has it) and its adjoints.
//!
//! No im2col copy is made: each tap of the kernel is one matrix product of its weights with a shifted, strided view of
//! the input, added to the result. Groups with few channels (depthwise) are plain loops over the sequence.

use std::ops::Range;

use bullet_ops::{Compute, ConvSpec, Error, Float, Result};

use super::gemm::{Epilogue, MatLayout, MatMut, MatRef, Scratch, gemm, widen};
use super::math::Real;
use super::par::{self, SharedMut};
use super::simd::{SimdOp, Target, dispatch};

/// Weights of a tap in a group from which a matrix product beats loops.
const GEMM_FROM: usize = 64;

/// Sizes of a convolution: input `[batch, in_channels, length]`, weight `[out_channels, in_channels / groups, taps]`,
/// output `[batch, out_channels, out_length]`, all contiguous.
#[derive(Clone, Copy, Debug)]
pub struct Conv1d {
    batch: usize,
    in_channels: usize,
    length: usize,
    out_channels: usize,
    taps: usize,
    out_length: usize,
    spec: ConvSpec,
}

impl Conv1d {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If stride, dilation or groups is 0, groups do not divide the channels, or the window is longer than the padded
    /// input.
    pub fn new(input: [usize; 3], weight: [usize; 3], spec: ConvSpec) -> Result<Conv1d> {
        let ([batch, in_channels, length], [out_channels, per_group, taps]) = (input, weight);
        if spec.stride == 0 || spec.dilation == 0 || spec.groups == 0 {
            return Err(Error::argument(format!(
                "conv1d: {spec:?}; expected stride, dilation and groups of at least 1"
            )));
        }
        if per_group * spec.groups != in_channels || !out_channels.is_multiple_of(spec.groups) {
            return Err(Error::shape(format!(
                "conv1d: input {input:?} and weight {weight:?} with {} groups; expected a weight of [a multiple of the \
                 groups, {in_channels} / groups, taps]",
                spec.groups
            )));
        }
        let window = taps.saturating_sub(1).saturating_mul(spec.dilation) + 1;
        let padded = length + 2 * spec.padding;
        if taps == 0 || window > padded {
            return Err(Error::shape(format!(
                "conv1d: {taps} taps span {window} elements of a padded input of {padded}; expected 1 to {padded}"
            )));
        }
        let out_length = (padded - window) / spec.stride + 1;
        Ok(Conv1d { batch, in_channels, length, out_channels, taps, out_length, spec })
    }

    /// Length of the output.
    pub fn out_length(&self) -> usize {
        self.out_length
    }

    /// `y = x * w + bias`, the bias one value an output channel.
    ///
    /// # Errors
    /// If a slice has not the size that [`Conv1d::new`] was told.
    pub fn forward<T: Float<Compute: Real>>(
        &self,
        x: &[T],
        w: &[T],
        bias: Option<&[T]>,
        y: &mut [T],
    ) -> Result<()> {
        self.check(x.len(), w.len(), y.len())?;
        if let Some(bias) = bias
            && bias.len() != self.out_channels
        {
            return Err(Error::shape(format!(
                "conv1d: bias of {}, expected {}",
                bias.len(),
                self.out_channels
            )));
        }
        let (x, w) = (Wide::of(x), Wide::of(w));
        let mut out = Scratch::take(y.len());
        for (i, row) in out.chunks_exact_mut(self.out_length).enumerate() {
            row.fill(bias.map_or(T::Compute::ZERO, |b| b[i % self.out_channels].up()));
        }
        if self.by_gemm() {
            for (group, tap) in self.window_taps() {
                let (w_at, w_view) = self.weight_view(group, tap);
                let (x_at, x_view) = self.input_view(group, tap);
                let (y_at, y_view) = self.output_view(group, tap);
                let (w, x) = (MatRef::new(&w, w_at, w_view)?, MatRef::new(&x, x_at, x_view)?);
                gemm(w, x, MatMut::new(&mut out, y_at, y_view)?, adding())?;
            }
        } else {
            let rows = SharedMut::new(&mut out);
            self.each_row(self.batch * self.out_channels, |row| {
                let (n, co) = (row / self.out_channels, row % self.out_channels);
                // SAFETY: each row is one part.
                let y = unsafe { rows.part(row * self.out_length..(row + 1) * self.out_length) };
                for (ci, tap) in self.inputs_of(co) {
                    let x = &x[(n * self.in_channels + ci) * self.length..][..self.length];
                    let factor = w[self.weight_index(co, ci, tap)];
                    let (from, span) = self.span(tap);
                    let y = &mut y[span];
                    if !y.is_empty() {
                        dispatch(Axpy {
                            factor,
                            x: &x[from..],
                            x_step: self.spec.stride,
                            n: y.len(),
                            y,
                            y_step: 1,
                        });
                    }
                }
            });
        }
        narrow(&out, y);
        Ok(())
    }

    /// The gradient of the input, from the weight and the gradient of the output.
    ///
    /// # Errors
    /// As [`forward`](Conv1d::forward).
    pub fn grad_input<T: Float<Compute: Real>>(&self, w: &[T], grad: &[T], dx: &mut [T]) -> Result<()> {
        self.check(dx.len(), w.len(), grad.len())?;
        let (w, grad) = (Wide::of(w), Wide::of(grad));
        let mut out = Scratch::take(dx.len());
        out.fill(T::Compute::ZERO);
        if self.by_gemm() {
            for (group, tap) in self.window_taps() {
                let (w_at, w_view) = self.weight_view(group, tap);
                let (g_at, g_view) = self.output_view(group, tap);
                let (x_at, x_view) = self.input_view(group, tap);
                let (w, g) = (MatRef::new(&w, w_at, w_view)?.t(), MatRef::new(&grad, g_at, g_view)?);
                gemm(w, g, MatMut::new(&mut out, x_at, x_view)?, adding())?;
            }
        } else {
            let rows = SharedMut::new(&mut out);
            self.each_row(self.batch * self.in_channels, |row| {
                let (n, ci) = (row / self.in_channels, row % self.in_channels);
                // SAFETY: each row is one part.
                let dx = unsafe { rows.part(row * self.length..(row + 1) * self.length) };
                for (co, tap) in self.outputs_of(ci) {
                    let g = &grad[(n * self.out_channels + co) * self.out_length..][..self.out_length];
                    let factor = w[self.weight_index(co, ci, tap)];
                    let (from, span) = self.span(tap);
                    let g = &g[span];
                    if !g.is_empty() {
                        let y = &mut dx[from..];
                        dispatch(Axpy { factor, x: g, x_step: 1, n: g.len(), y, y_step: self.spec.stride });
                    }
                }
            });
        }
        narrow(&out, dx);
        Ok(())
    }

    /// The gradient of the weight, from the input and the gradient of the output.
    ///
    /// # Errors
    /// As [`forward`](Conv1d::forward).
    pub fn grad_weight<T: Float<Compute: Real>>(&self, x: &[T], grad: &[T], dw: &mut [T]) -> Result<()> {
        self.check(x.len(), dw.len(), grad.len())?;
        let (x, grad) = (Wide::of(x), Wide::of(grad));
        let mut out = Scratch::take(dw.len());
        out.fill(T::Compute::ZERO);
        if self.by_gemm() {
            for (group, tap) in self.window_taps() {
                let (w_at, w_view) = self.weight_view(group, tap);
                let (g_at, g_view) = self.output_view(group, tap);
                let (x_at, x_view) = self.input_view(group, tap);
                // Every sequence adds to the same weights: one after the other.
                for n in 0..self.batch {
                    let (g_at, x_at) = (
                        g_at + n * self.out_channels * self.out_length,
                        x_at + n * self.in_channels * self.length,
                    );
                    let g = MatRef::new(&grad, g_at, g_view.batched(1, 0))?;
                    let x = MatRef::new(&x, x_at, x_view.batched(1, 0))?.t();
                    gemm(g, x, MatMut::new(&mut out, w_at, w_view)?, adding())?;
                }
            }
        } else {
            let per_channel = dw.len() / self.out_channels.max(1);
            let rows = SharedMut::new(&mut out);
            self.each_row(self.out_channels, |co| {
                // SAFETY: each channel is one part.
                let dw = unsafe { rows.part(co * per_channel..(co + 1) * per_channel) };
                for ((ci, tap), dw) in self.inputs_of(co).zip(dw) {
                    let (from, span) = self.span(tap);
                    for n in 0..self.batch {
                        let g = &grad[(n * self.out_channels + co) * self.out_length..][span.clone()];
                        let x = &x[(n * self.in_channels + ci) * self.length..][..self.length];
                        if !g.is_empty() {
                            *dw += dispatch(Dot { x: &x[from..], x_step: self.spec.stride, g });
                        }
                    }
                }
            });
        }
        narrow(&out, dw);
        Ok(())
    }

    fn check(&self, x: usize, w: usize, y: usize) -> Result<()> {
        let want = [
            ("input", self.batch * self.in_channels * self.length, x),
            ("weight", self.out_channels * (self.in_channels / self.spec.groups) * self.taps, w),
            ("output", self.batch * self.out_channels * self.out_length, y),
        ];
        match want.into_iter().find(|&(_, want, got)| want != got) {
            None => Ok(()),
            Some((what, want, got)) => {
                Err(Error::shape(format!("conv1d: {what} of {got} elements, expected {want}")))
            }
        }
    }

    fn group_in(&self) -> usize {
        self.in_channels / self.spec.groups
    }

    fn group_out(&self) -> usize {
        self.out_channels / self.spec.groups
    }

    fn by_gemm(&self) -> bool {
        self.group_in() * self.group_out() >= GEMM_FROM
    }

    /// Groups and taps whose window meets the input at all.
    fn window_taps(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let meets = |&tap: &usize| !self.span(tap).1.is_empty();
        (0..self.spec.groups).flat_map(move |g| (0..self.taps).filter(meets).map(move |tap| (g, tap)))
    }

    /// The outputs that a tap contributes to, and the input element that the first of them takes it from.
    fn span(&self, tap: usize) -> (usize, Range<usize>) {
        let (stride, shift) = (self.spec.stride, tap * self.spec.dilation);
        let start = self.spec.padding.saturating_sub(shift).div_ceil(stride);
        // Outputs `o` with o * stride + shift < length + padding.
        let end =
            (self.length + self.spec.padding).saturating_sub(shift).div_ceil(stride).min(self.out_length);
        if start >= end {
            return (0, 0..0);
        }
        (start * stride + shift - self.spec.padding, start..end)
    }

    /// Offset and layout of the weights of a tap: output by input channels of a group.
    fn weight_view(&self, group: usize, tap: usize) -> (usize, MatLayout) {
        let row = self.group_in() * self.taps;
        let layout = MatLayout::new(self.group_out(), self.group_in(), row as isize, self.taps as isize);
        (group * self.group_out() * row + tap, layout)
    }

    /// Offset and layout of the inputs that a tap meets: input channels of a group by outputs.
    fn input_view(&self, group: usize, tap: usize) -> (usize, MatLayout) {
        let (from, span) = self.span(tap);
        let layout =
            MatLayout::new(self.group_in(), span.len(), self.length as isize, self.spec.stride as isize);
        let batch = (self.in_channels * self.length) as isize;
        (group * self.group_in() * self.length + from, layout.batched(self.batch, batch))
    }

    /// Offset and layout of the outputs that a tap contributes to: output channels of a group by outputs.
    fn output_view(&self, group: usize, tap: usize) -> (usize, MatLayout) {
        let span = self.span(tap).1;
        let layout = MatLayout::new(self.group_out(), span.len(), self.out_length as isize, 1);
        let batch = (self.out_channels * self.out_length) as isize;
        (group * self.group_out() * self.out_length + span.start, layout.batched(self.batch, batch))
    }

    fn weight_index(&self, co: usize, ci: usize, tap: usize) -> usize {
        (co * self.group_in() + ci % self.group_in()) * self.taps + tap
    }

    /// Input channels and taps that an output channel reads, in the order of its weights.
    fn inputs_of(&self, co: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let first = co / self.group_out() * self.group_in();
        (first..first + self.group_in()).flat_map(|ci| (0..self.taps).map(move |tap| (ci, tap)))
    }

    /// Output channels and taps that read an input channel.
    fn outputs_of(&self, ci: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let first = ci / self.group_in() * self.group_out();
        (first..first + self.group_out()).flat_map(|co| (0..self.taps).map(move |tap| (co, tap)))
    }

    /// Runs independent rows, on several threads if there is enough to do.
    fn each_row(&self, rows: usize, f: impl Fn(usize) + Sync) {
        let work = self.batch * self.out_channels * self.group_in() * self.taps * self.out_length;
        let grain = (rows * par::SERIAL_BELOW / work.max(1)).max(1);
        par::for_ranges(rows, grain, |range| range.for_each(&f));
    }
}

/// Elements in the compute type: the slice itself if it is that already.
enum Wide<'a, C: Compute> {
    Slice(&'a [C]),
    Copy(Scratch<C>),
}

impl<'a, C: Compute> Wide<'a, C> {
    fn of<T: Float<Compute = C>>(x: &'a [T]) -> Wide<'a, C> {
        if T::DTYPE == C::DTYPE {
            // SAFETY: `T` is `C`.
            return Wide::Slice(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) });
        }
        let mut copy = Scratch::take(x.len());
        // SAFETY: both have the length of x.
        unsafe { widen(x.as_ptr(), copy.as_mut_ptr(), x.len()) };
        Wide::Copy(copy)
    }
}

impl<C: Compute> std::ops::Deref for Wide<'_, C> {
    type Target = [C];
    fn deref(&self) -> &[C] {
        match self {
            Wide::Slice(x) => x,
            Wide::Copy(x) => x,
        }
    }
}

fn narrow<T: Float>(from: &[T::Compute], to: &mut [T]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = T::down(from);
    }
}

/// An epilogue that adds to the result.
fn adding<T>() -> Epilogue<'static, T> {
    Epilogue { accumulate: true, ..Epilogue::default() }
}

/// `y[i * y_step] += factor * x[i * x_step]` for `n` elements.
struct Axpy<'a, C> {
    factor: C,
    x: &'a [C],
    x_step: usize,
    y: &'a mut [C],
    y_step: usize,
    n: usize,
}

impl<C: Real> SimdOp for Axpy<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Target>(self) {
        if self.x_step == 1 && self.y_step == 1 {
            for (y, &x) in self.y[..self.n].iter_mut().zip(&self.x[..self.n]) {
                *y = S::fma(self.factor, x, *y);
            }
        } else {
            for i in 0..self.n {
                let y = &mut self.y[i * self.y_step];
                *y = S::fma(self.factor, self.x[i * self.x_step], *y);
            }
        }
    }
}

/// Sum of `g[i] * x[i * x_step]`.
struct Dot<'a, C> {
    x: &'a [C],
    x_step: usize,
    g: &'a [C],
}

impl<C: Real> SimdOp for Dot<'_, C> {
    type Output = C;

    #[inline(always)]
    fn run<S: Target>(self) -> C {
        const STRANDS: usize = 16;
        let mut strands = [C::ZERO; STRANDS];
        let (whole, rest) = self.g.as_chunks::<STRANDS>();
        for (c, g) in whole.iter().enumerate() {
            for l in 0..STRANDS {
                strands[l] = S::fma(g[l], self.x[(c * STRANDS + l) * self.x_step], strands[l]);
            }
        }
        for (l, &g) in rest.iter().enumerate() {
            strands[l] = S::fma(g, self.x[(whole.len() * STRANDS + l) * self.x_step], strands[l]);
        }
        strands.into_iter().fold(C::ZERO, |sum, x| sum + x)
    }
}
