//! Optimizer steps over many tensors at once: one parallel region, one pass over memory.
//!
//! Semantics are PyTorch's: decoupled weight decay first scales the parameter (Loshchilov and Hutter 2019), the coupled
//! one adds to the gradient; Adam's epsilon (Kingma and Ba 2015) is added after the bias correction of the root.
//!
//! Tensors are contiguous views. Parameters and gradients are of any float dtypes, each of its own; moments are f32, for
//! an f64 parameter f64, which is also what is computed in. What changes from step to step comes apart ([`Scalars`]).

use std::ops::Range;

use bullet_ops::DType;

use super::convert::{Lane, load_block, store_block};
use super::lanes;
use super::math::Real;
use super::par;
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};
use crate::view::{View, ViewMut};

/// Hyper-parameters of Adam and AdamW.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW: the decay scales the parameter by `1 - lr * weight_decay`; else it is added to the gradient.
    pub decoupled: bool,
}

impl Default for Adam {
    /// PyTorch's AdamW.
    fn default() -> Adam {
        Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2, decoupled: true }
    }
}

/// Hyper-parameters of stochastic gradient descent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sgd {
    /// Decay of the velocity; 0 for none.
    pub momentum: f64,
    /// Nesterov's form: looks ahead along the velocity.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
}

/// What changes from step to step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scalars {
    /// Number of this step, from 1: for Adam's bias corrections.
    pub step: i64,
    /// Learning rate.
    pub lr: f64,
    /// Gradients are multiplied by this first: 1 / loss scale, or a clipping factor.
    pub grad_scale: f64,
}

/// Elements of a unit of work: its operands fit the first-level cache.
const CHUNK: usize = 1024;

/// One tensor with its gradient and moments, by address.
struct Slot {
    param: *mut u8,
    param_dtype: DType,
    grad: *const u8,
    grad_dtype: DType,
    /// None, one or two of them; dangling where absent.
    moments: [*mut u8; 2],
    len: usize,
}

// SAFETY: the addresses are those of views; pieces that threads work on are disjoint.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

fn slots(
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    each: usize,
) -> Vec<Slot> {
    assert_eq!(params.len(), grads.len(), "a gradient for each parameter");
    assert_eq!(params.len() * each, moments.len(), "{each} moments for each parameter");
    let mut moments = moments.iter_mut();
    let slots = params.iter_mut().zip(grads).map(|(p, g)| {
        let shape = p.layout().shape;
        let wide = p.dtype().compute();
        assert!(p.dtype().is_float() && g.dtype().is_float(), "parameters and gradients are floats");
        assert!(p.layout().is_contiguous() && g.layout().is_contiguous() && g.layout().shape == shape);
        let mut of = [std::ptr::dangling_mut(); 2];
        for (at, m) in of.iter_mut().zip(moments.by_ref().take(each)) {
            assert!(m.dtype() == wide && m.layout().is_contiguous() && m.layout().shape == shape);
            *at = m.bytes();
        }
        let (param_dtype, grad_dtype) = (p.dtype(), g.dtype());
        Slot { param: p.bytes(), param_dtype, grad: g.bytes(), grad_dtype, moments: of, len: shape.numel() }
    });
    slots.collect()
}

/// Cuts tensors of these lengths into ranges for the threads, and calls `f(tensor, range)` for each piece.
fn for_pieces(slots: &[Slot], f: impl Fn(&Slot, Range<usize>) + Sync) {
    let mut starts = vec![0];
    slots.iter().for_each(|s| starts.push(starts[starts.len() - 1] + s.len.div_ceil(CHUNK)));
    par::for_ranges(starts[slots.len()], par::SERIAL_BELOW / (CHUNK * 16), |r| {
        let mut chunk = r.start;
        let mut tensor = starts.partition_point(|&s| s <= chunk) - 1;
        while chunk < r.end {
            let end = starts[tensor + 1].min(r.end);
            if end > chunk {
                let first = starts[tensor];
                f(&slots[tensor], (chunk - first) * CHUNK..((end - first) * CHUNK).min(slots[tensor].len));
            }
            chunk = end;
            tensor += 1;
        }
    });
}

/// A rule for a chunk of a tensor in the compute type.
trait Rule<R>: Copy + Sync {
    fn chunk<T: Target>(self, p: &mut [R], g: &[R], m: &mut [R], v: &mut [R]);
    /// How many moments it keeps.
    const MOMENTS: usize;
}

/// A rule over a piece of a tensor.
struct Piece<'a, R, U> {
    slot: &'a Slot,
    range: Range<usize>,
    rule: U,
    isa: Isa,
    _compute: std::marker::PhantomData<R>,
}

impl<R: Real + Lane, U: Rule<R>> SimdOp for Piece<'_, R, U> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        let slot = self.slot;
        let (mut ps, mut gs) = ([R::ZERO; CHUNK], [R::ZERO; CHUNK]);
        let mut at = self.range.start;
        while at < self.range.end {
            let n = CHUNK.min(self.range.end - at);
            // SAFETY: the chunk is inside the tensors and inside this piece, which is no other thread's; the tensors are
            // distinct memory, and moments are of the compute type.
            unsafe {
                let moment = |i: usize| match i < U::MOMENTS {
                    true => std::slice::from_raw_parts_mut(slot.moments[i].cast::<R>().add(at), n),
                    false => &mut [],
                };
                let g = load::<R>(self.isa, slot.grad_dtype, slot.grad, at, &mut gs[..n]);
                if slot.param_dtype == R::DTYPE {
                    let p = std::slice::from_raw_parts_mut(slot.param.cast::<R>().add(at), n);
                    self.rule.chunk::<T>(p, g, moment(0), moment(1));
                } else {
                    load::<R>(self.isa, slot.param_dtype, slot.param, at, &mut ps[..n]);
                    self.rule.chunk::<T>(&mut ps[..n], g, moment(0), moment(1));
                    let to = slot.param.add(at * slot.param_dtype.size());
                    store_block(self.isa, &ps[..n], slot.param_dtype, to, 1);
                }
            }
            at += n;
        }
    }
}

/// Elements from `at` on in the compute type: in place, or converted into `scratch`.
///
/// # Safety
/// As many elements of `dtype` as `scratch` has are readable there.
#[inline(always)]
unsafe fn load<R: Lane>(isa: Isa, dtype: DType, ptr: *const u8, at: usize, scratch: &mut [R]) -> &[R] {
    // SAFETY: by the caller's promise.
    unsafe {
        if dtype == R::DTYPE {
            return std::slice::from_raw_parts(ptr.cast::<R>().add(at), scratch.len());
        }
        load_block(isa, dtype, ptr.add(at * dtype.size()), 1, scratch);
    }
    scratch
}

fn step<A: Rule<f32>, B: Rule<f64>>(isa: Isa, slots: &[Slot], narrow: A, wide: B) {
    use std::marker::PhantomData;
    for_pieces(slots, |slot, range| match slot.param_dtype {
        DType::F64 => dispatch_on(isa, Piece { slot, range, rule: wide, isa, _compute: PhantomData::<f64> }),
        _ => dispatch_on(isa, Piece { slot, range, rule: narrow, isa, _compute: PhantomData::<f32> }),
    });
}

/// One step of Adam or AdamW on every parameter; `moments` are the running means of gradients and of their squares,
/// `[m0, v0, m1, v1, ..]`, zeros at first.
///
/// # Panics
/// If the views don't fit each other, or the step is below 1.
pub fn adam(
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    hyper: &Adam,
    scalars: Scalars,
) {
    adam_on(isa(), params, grads, moments, hyper, scalars);
}

/// As [`adam`], on this instruction set.
pub fn adam_on(
    isa: Isa,
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    hyper: &Adam,
    scalars: Scalars,
) {
    assert!(scalars.step >= 1, "optimizer steps count from 1");
    let slots = slots(params, grads, moments, 2);
    step(isa, &slots, AdamRule::<f32>::new(hyper, scalars), AdamRule::<f64>::new(hyper, scalars));
}

/// What a step multiplies by, in the compute type but derived in f64.
#[derive(Clone, Copy)]
struct AdamRule<R> {
    grad_scale: R,
    /// Times the parameter, added to the gradient.
    coupled: R,
    /// Times the parameter.
    shrink: R,
    beta1: R,
    one_less_beta1: R,
    beta2: R,
    one_less_beta2: R,
    /// `lr / (1 - beta1^step)`, negative.
    rate: R,
    /// `1 / sqrt(1 - beta2^step)`.
    root_scale: R,
    eps: R,
}

impl<R: Real> AdamRule<R> {
    fn new(h: &Adam, s: Scalars) -> AdamRule<R> {
        let correct = |beta: f64| 1.0 - beta.powf(s.step as f64);
        AdamRule {
            grad_scale: R::of(s.grad_scale),
            coupled: R::of(if h.decoupled { 0.0 } else { h.weight_decay }),
            shrink: R::of(if h.decoupled { 1.0 - s.lr * h.weight_decay } else { 1.0 }),
            beta1: R::of(h.beta1),
            one_less_beta1: R::of(1.0 - h.beta1),
            beta2: R::of(h.beta2),
            one_less_beta2: R::of(1.0 - h.beta2),
            rate: R::of(-s.lr / correct(h.beta1)),
            root_scale: R::of(1.0 / correct(h.beta2).sqrt()),
            eps: R::of(h.eps),
        }
    }
}

impl<R: Real> Rule<R> for AdamRule<R> {
    const MOMENTS: usize = 2;

    #[inline(always)]
    fn chunk<T: Target>(self, p: &mut [R], g: &[R], m: &mut [R], v: &mut [R]) {
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let grad = T::fma(p[i], self.coupled, g[i] * self.grad_scale);
            m[i] = T::fma(m[i], self.beta1, grad * self.one_less_beta1);
            v[i] = T::fma(v[i], self.beta2, grad * grad * self.one_less_beta2);
            let root = T::fma(v[i].sqrt(), self.root_scale, self.eps);
            p[i] = T::fma(self.rate, m[i] / root, p[i] * self.shrink);
        }
    }
}

/// One step of stochastic gradient descent on every parameter; `moments` are the velocities, zeros at first, one a
/// parameter where there is momentum and none otherwise.
///
/// # Panics
/// If the views don't fit each other.
pub fn sgd(
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    hyper: &Sgd,
    scalars: Scalars,
) {
    sgd_on(isa(), params, grads, moments, hyper, scalars);
}

/// As [`sgd`], on this instruction set.
pub fn sgd_on(
    isa: Isa,
    params: &mut [ViewMut<'_>],
    grads: &[View<'_>],
    moments: &mut [ViewMut<'_>],
    hyper: &Sgd,
    scalars: Scalars,
) {
    let (h, s) = (*hyper, scalars);
    if h.momentum == 0.0 {
        let slots = slots(params, grads, moments, 0);
        step(isa, &slots, Plain { h, s }, Plain { h, s });
    } else {
        let slots = slots(params, grads, moments, 1);
        step(isa, &slots, Momentum { h, s }, Momentum { h, s });
    }
}

/// `p -= lr * grad`.
#[derive(Clone, Copy)]
struct Plain {
    h: Sgd,
    s: Scalars,
}

impl<R: Real> Rule<R> for Plain {
    const MOMENTS: usize = 0;

    #[inline(always)]
    fn chunk<T: Target>(self, p: &mut [R], g: &[R], _: &mut [R], _: &mut [R]) {
        let (scale, decay, rate) = (R::of(self.s.grad_scale), R::of(self.h.weight_decay), R::of(-self.s.lr));
        let g = &g[..p.len()];
        for i in 0..p.len() {
            p[i] = T::fma(rate, T::fma(p[i], decay, g[i] * scale), p[i]);
        }
    }
}

/// `v = momentum * v + grad; p -= lr * v` (or, after Nesterov, `lr * (grad + momentum * v)`).
#[derive(Clone, Copy)]
struct Momentum {
    h: Sgd,
    s: Scalars,
}

impl<R: Real> Rule<R> for Momentum {
    const MOMENTS: usize = 1;

    #[inline(always)]
    fn chunk<T: Target>(self, p: &mut [R], g: &[R], velocity: &mut [R], _: &mut [R]) {
        let (scale, decay, rate) = (R::of(self.s.grad_scale), R::of(self.h.weight_decay), R::of(-self.s.lr));
        let momentum = R::of(self.h.momentum);
        let (ahead, of_grad) = if self.h.nesterov { (momentum, R::ONE) } else { (R::ONE, R::ZERO) };
        let n = p.len();
        let (g, velocity) = (&g[..n], &mut velocity[..n]);
        for i in 0..n {
            let grad = T::fma(p[i], decay, g[i] * scale);
            velocity[i] = T::fma(velocity[i], momentum, grad);
            p[i] = T::fma(rate, T::fma(velocity[i], ahead, grad * of_grad), p[i]);
        }
    }
}

/// The sum of squares over many gradients (the square of their global norm), in f64, and whether all their elements are
/// finite; in one pass. The order of summation depends on the lengths only.
///
/// # Panics
/// If a gradient is not a contiguous float tensor.
pub fn sum_of_squares(grads: &[View<'_>]) -> (f64, bool) {
    sum_of_squares_on(isa(), grads)
}

/// As [`sum_of_squares`], on this instruction set.
pub fn sum_of_squares_on(isa: Isa, grads: &[View<'_>]) -> (f64, bool) {
    const UNIT: usize = 16 * CHUNK;
    assert!(grads.iter().all(|g| g.dtype().is_float() && g.layout().is_contiguous()));
    let units = |g: &View<'_>| g.layout().shape.numel().div_ceil(UNIT);
    let chunks: Vec<(usize, usize)> =
        (0..grads.len()).flat_map(|t| (0..units(&grads[t])).map(move |u| (t, u * UNIT))).collect();
    // A partial result for each unit, so that nothing depends on the number of threads.
    let parts = par::map_ranges(chunks.len(), 1, |r| {
        let one = |&(t, at): &(usize, usize)| {
            let grad = &grads[t];
            let range = at..(at + UNIT).min(grad.layout().shape.numel());
            match grad.dtype() {
                DType::F64 => dispatch_on(isa, SquaresOf(isa, grad, range, 0.0f64)),
                _ => dispatch_on(isa, SquaresOf(isa, grad, range, 0.0f32)),
            }
        };
        chunks[r].iter().map(one).collect::<Vec<_>>()
    });
    parts.into_iter().flatten().fold((0.0, true), |a, b| (a.0 + b.0, a.1 & b.1))
}

/// The last field names the compute type.
struct SquaresOf<'a, R>(Isa, &'a View<'a>, Range<usize>, R);

impl<R: Real + Lane> SimdOp for SquaresOf<'_, R> {
    type Output = (f64, bool);

    #[inline(always)]
    fn run<T: Target>(self) -> (f64, bool) {
        let SquaresOf(isa, grad, range, zero) = self;
        let mut scratch = [zero; CHUNK];
        let (mut total, mut finite) = (0.0, true);
        for at in range.clone().step_by(CHUNK) {
            let n = CHUNK.min(range.end - at);
            // SAFETY: the view is contiguous and reaches beyond `at + n`.
            let g = unsafe { load::<R>(isa, grad.dtype(), grad.bytes(), at, &mut scratch[..n]) };
            let sum = lanes::squares::<T, _>(g, zero).wide();
            // A finite sum has finite terms, and one of normal size has lost none to underflow; else look again in f64.
            if sum.is_finite() && sum > 1e-20 {
                total += sum;
            } else {
                finite &= g.iter().all(|x| x.wide().is_finite());
                total += g.iter().map(|x| x.wide() * x.wide()).sum::<f64>();
            }
        }
        (total, finite)
    }
}
