//! Cross-entropy of logits against class indices with the softmax fused in: no matrix of probabilities is kept.
//!
//! With smoothing `s` the target distribution is `(1 - s)` at the target plus `s / c` everywhere (Szegedy et al. 2016).
//! The loss is the mean over the targets that are not `ignore_index`; with none it is NaN, as PyTorch's.

use bullet_ops::{Compute, Error, Result};

use super::convert::Storage;
use super::lanes;
use super::math::Real;
use super::par::{self, SharedMut};
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};
use super::softmax::sum_exp;

/// The attributes of the op.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spec {
    /// Targets of this value count for nothing.
    pub ignore_index: i64,
    /// Weight of the uniform distribution, in 0..=1.
    pub label_smoothing: f64,
}

/// What [`forward`] returns besides `lse`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Mean over the targets that count; NaN if none does.
    pub loss: f64,
    /// How many count.
    pub count: usize,
}

/// The loss of `logits[n, classes]` against `targets[n]`; `lse[n]` becomes the log of the sum of e^logits of each row
/// that counts (0 for the others).
///
/// # Errors
/// A target out of range.
///
/// # Panics
/// If a length is wrong.
pub fn forward<S: Storage>(
    spec: Spec,
    logits: &[S],
    classes: usize,
    targets: &[i64],
    lse: &mut [S::Compute],
) -> Result<Loss> {
    forward_on(isa(), spec, logits, classes, targets, lse)
}

/// As [`forward`], on this instruction set.
pub fn forward_on<S: Storage>(
    isa: Isa,
    spec: Spec,
    logits: &[S],
    classes: usize,
    targets: &[i64],
    lse: &mut [S::Compute],
) -> Result<Loss> {
    assert!(logits.len() == targets.len() * classes && lse.len() == targets.len());
    let count = check(spec, targets, classes)?;
    let out = SharedMut::new(lse);
    let parts = par::map_ranges(targets.len(), grain(classes), |r| {
        // SAFETY: ranges are disjoint.
        let lse = unsafe { out.part(r.clone()) };
        let logits = &logits[r.start * classes..r.end * classes];
        dispatch_on(isa, Forward { spec, logits, classes, targets: &targets[r], lse })
    });
    Ok(Loss { loss: parts.into_iter().sum::<f64>() / count as f64, count })
}

/// How many targets count.
fn check(spec: Spec, targets: &[i64], classes: usize) -> Result<usize> {
    let counted = || targets.iter().filter(|&&t| t != spec.ignore_index);
    if let Some(bad) = counted().find(|&&t| t < 0 || t >= classes as i64) {
        return Err(Error::index(format!(
            "target {bad} is out of bounds for {classes} classes (ignore_index is {})",
            spec.ignore_index
        )));
    }
    Ok(counted().count())
}

/// Rows that are worth a thread.
fn grain(classes: usize) -> usize {
    (par::SERIAL_BELOW / (16 * classes.max(1))).max(1)
}

struct Forward<'a, S: Storage> {
    spec: Spec,
    logits: &'a [S],
    classes: usize,
    targets: &'a [i64],
    lse: &'a mut [S::Compute],
}

impl<S: Storage> SimdOp for Forward<'_, S> {
    /// The sum of the rows' losses, in f64: a row's is rounded once, to the compute type.
    type Output = f64;

    #[inline(always)]
    fn run<T: Target>(self) -> f64 {
        let c = self.classes;
        let smoothing = self.spec.label_smoothing;
        let mut scratch = S::scratch(c);
        let mut total = 0.0;
        for (r, &target) in self.targets.iter().enumerate() {
            if target == self.spec.ignore_index {
                self.lse[r] = S::Compute::ZERO;
                continue;
            }
            let row = S::load::<T>(&self.logits[r * c..][..c], &mut scratch);
            let max = lanes::max(row);
            let log_sum = sum_exp::<T, _>(row, max).log::<T>();
            self.lse[r] = max + log_sum;
            // Differences from the largest logit are taken before log_sum is added: nearly exact for likely targets.
            let mut loss = log_sum.wide() + (max - row[target as usize]).wide();
            if smoothing != 0.0 {
                let mean = lanes::sum(row).wide() / c as f64;
                let uniform = log_sum.wide() + (max.wide() - mean);
                loss = (1.0 - smoothing) * loss + smoothing * uniform;
            }
            total += loss;
        }
        total
    }
}

/// The adjoint: `dlogits = (softmax - target distribution) * g / count`; rows of ignored targets are 0.
///
/// `lse` and `count` are the forward op's; `g` is the gradient of the loss.
///
/// # Errors
/// A target out of range.
///
/// # Panics
/// If a length is wrong.
pub fn backward<S: Storage>(
    spec: Spec,
    logits: &[S],
    classes: usize,
    targets: &[i64],
    lse: &[S::Compute],
    count: usize,
    g: f64,
    dlogits: &mut [S],
) -> Result<()> {
    backward_on(isa(), spec, logits, classes, targets, lse, count, g, dlogits)
}

/// As [`backward`], on this instruction set.
pub fn backward_on<S: Storage>(
    isa: Isa,
    spec: Spec,
    logits: &[S],
    classes: usize,
    targets: &[i64],
    lse: &[S::Compute],
    count: usize,
    g: f64,
    dlogits: &mut [S],
) -> Result<()> {
    assert!(logits.len() == targets.len() * classes && dlogits.len() == logits.len());
    assert_eq!(lse.len(), targets.len());
    check(spec, targets, classes)?;
    let scale = g / count as f64;
    let out = SharedMut::new(dlogits);
    par::for_ranges(targets.len(), grain(classes), |r| {
        let cells = r.start * classes..r.end * classes;
        // SAFETY: ranges are disjoint.
        let dlogits = unsafe { out.part(cells.clone()) };
        let (logits, targets, lse) = (&logits[cells], &targets[r.clone()], &lse[r]);
        dispatch_on(isa, Backward { spec, logits, classes, targets, lse, scale, dlogits });
    });
    Ok(())
}

struct Backward<'a, S: Storage> {
    spec: Spec,
    logits: &'a [S],
    classes: usize,
    targets: &'a [i64],
    lse: &'a [S::Compute],
    scale: f64,
    dlogits: &'a mut [S],
}

impl<S: Storage> SimdOp for Backward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        let c = self.classes;
        let (mut xs, mut ds) = (S::scratch(c), S::scratch(c));
        let scale = S::Compute::of(self.scale);
        let uniform = S::Compute::of(self.spec.label_smoothing / c as f64 * self.scale);
        let hit = S::Compute::of((1.0 - self.spec.label_smoothing) * self.scale);
        for (r, &target) in self.targets.iter().enumerate() {
            let d = &mut self.dlogits[r * c..][..c];
            if target == self.spec.ignore_index {
                d.fill(S::default());
                continue;
            }
            let x = S::load::<T>(&self.logits[r * c..][..c], &mut xs);
            match S::as_compute_mut(d) {
                Some(d) => row::<T, _>(x, self.lse[r], scale, uniform, hit, target as usize, d),
                None => {
                    row::<T, _>(x, self.lse[r], scale, uniform, hit, target as usize, &mut ds);
                    S::narrow::<T>(&ds, d);
                }
            }
        }
    }
}

#[inline(always)]
fn row<T: Target, R: Real>(x: &[R], lse: R, scale: R, uniform: R, hit: R, target: usize, d: &mut [R]) {
    let x = &x[..d.len()];
    for i in 0..x.len() {
        d[i] = T::fma((x[i] - lse).exp_nonpositive::<T>(), scale, -uniform);
    }
    d[target] -= hit;
}
