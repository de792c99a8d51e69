//! Scaled dot-product attention: softmax(scale Q K^T + mask) V, and its adjoint.
//!
//! As in FlashAttention 2 (Dao 2023) no S x S matrix is kept: a block of queries holds its rows of scores in cache, the
//! forward pass keeps one log-sum-exp a query, and the backward pass computes the scores again. Rows are short enough
//! on a CPU that a block sees all its keys at once, so that no running maximum needs rescaling.
//! A task is a head (forward: or a range of its queries), so that results do not depend on timing.

mod backward;
mod forward;
mod rows;

use bullet_ops::random::WeightDropout;
use bullet_ops::{Error, Float, Result};

pub use backward::{Saved, attention_backward, attention_backward_on};
pub use forward::{attention_forward, attention_forward_on};

use super::gemm::widen;
use super::math::Real;
use super::simd::Isa;

/// Sizes and strides (in elements) of one tensor `[batch, heads, seq, dim]`, whose last axis is contiguous.
///
/// Any order of the other axes in memory will do, such as `[batch, seq, 3, heads, dim]` for packed operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadsLayout {
    /// Sequences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Positions.
    pub seq: usize,
    /// Elements of a head.
    pub dim: usize,
    /// From a sequence to the next.
    pub batch_stride: isize,
    /// From a head to the next.
    pub head_stride: isize,
    /// From a position to the next.
    pub seq_stride: isize,
}

impl HeadsLayout {
    /// Contiguous `[batch, seq, heads, dim]`: what a projection reads and writes.
    pub const fn by_position(batch: usize, heads: usize, seq: usize, dim: usize) -> HeadsLayout {
        HeadsLayout {
            batch,
            heads,
            seq,
            dim,
            batch_stride: (seq * heads * dim) as isize,
            head_stride: dim as isize,
            seq_stride: (heads * dim) as isize,
        }
    }

    /// Contiguous `[batch, heads, seq, dim]`.
    pub const fn by_head(batch: usize, heads: usize, seq: usize, dim: usize) -> HeadsLayout {
        HeadsLayout {
            batch,
            heads,
            seq,
            dim,
            batch_stride: (seq * heads * dim) as isize,
            head_stride: (seq * dim) as isize,
            seq_stride: dim as isize,
        }
    }

    /// Where a row of `dim` elements begins.
    fn row(&self, batch: usize, head: usize, position: usize) -> isize {
        batch as isize * self.batch_stride
            + head as isize * self.head_stride
            + position as isize * self.seq_stride
    }

    fn check(&self, offset: usize, len: usize, written: bool) -> Result<()> {
        if self.batch * self.heads * self.seq * self.dim == 0 {
            return Ok(());
        }
        let axes =
            [(self.batch, self.batch_stride), (self.heads, self.head_stride), (self.seq, self.seq_stride)];
        let reach = |negative: bool| -> isize {
            let far = |&(n, s): &(usize, isize)| (n as isize - 1).saturating_mul(s);
            axes.iter().map(far).filter(|&x| (x < 0) == negative).fold(0, isize::saturating_add)
        };
        let (lo, hi) = (offset as isize + reach(true), (offset + self.dim - 1) as isize + reach(false));
        if lo < 0 || hi >= len as isize {
            return Err(Error::argument(format!(
                "attention: view {self:?} at offset {offset} reaches outside its {len} elements"
            )));
        }
        let mut sorted = axes;
        sorted.sort_by_key(|&(_, s)| s.unsigned_abs());
        let mut covered = self.dim - 1;
        for (n, s) in sorted.into_iter().filter(|&(n, _)| written && n > 1) {
            if s.unsigned_abs() <= covered {
                return Err(Error::argument(format!("attention: output view {self:?} overlaps itself")));
            }
            covered += (n - 1) * s.unsigned_abs();
        }
        Ok(())
    }
}

macro_rules! heads_view {
    ($(#[$doc:meta])* $name:ident, $ptr:ty, $slice:ty, $as_ptr:ident, $written:literal, $raw:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T> {
            ptr: $ptr,
            layout: HeadsLayout,
            life: std::marker::PhantomData<$slice>,
        }

        impl<'a, T> $name<'a, T> {
            /// A view of `data` whose first element is `data[offset]`; an error if it would reach outside, or (of an
            /// output) name an element twice.
            pub fn new(data: $slice, offset: usize, layout: HeadsLayout) -> Result<Self> {
                layout.check(offset, data.len(), $written)?;
                Ok($name { ptr: data.$as_ptr().wrapping_add(offset), layout, life: std::marker::PhantomData })
            }

            #[doc = $raw]
            ///
            /// # Safety
            /// During `'a` every element that `layout` names from `ptr` may be so used; of an output, each is named once.
            pub unsafe fn from_raw(ptr: $ptr, layout: HeadsLayout) -> Self {
                $name { ptr, layout, life: std::marker::PhantomData }
            }
        }

        impl<T> $name<'_, T> {
            /// Sizes and strides.
            pub fn layout(&self) -> HeadsLayout {
                self.layout
            }

            /// The first of the `dim` elements of a position.
            pub(crate) fn row_ptr(&self, batch: usize, head: usize, position: usize) -> $ptr {
                self.ptr.wrapping_offset(self.layout.row(batch, head, position))
            }
        }

        // SAFETY: the view is a slice with strides; tasks that share an output write disjoint parts.
        unsafe impl<T: Send + Sync> Send for $name<'_, T> {}
        // SAFETY: as above.
        unsafe impl<T: Send + Sync> Sync for $name<'_, T> {}
    };
}
heads_view!(
    /// Queries, keys, values or gradients to read.
    HeadsRef, *const T, &'a [T], as_ptr, false, "A view of raw memory to read."
);
heads_view!(
    /// A result to write; what it holds before is never read.
    HeadsMut, *mut T, &'a mut [T], as_mut_ptr, true, "A view of raw memory to write."
);

impl<T> Clone for HeadsRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for HeadsRef<'_, T> {}

/// A mask `[batch, heads, queries, keys]` by strides in elements; 0 broadcasts an axis.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, T> {
    /// Every key is seen (that `causal` allows).
    None,
    /// True where the query sees the key.
    Attend(StridedMask<'a, bool>),
    /// Added to the scaled score.
    Bias(StridedMask<'a, T>),
}

/// The elements of a [`Mask`].
#[derive(Clone, Copy, Debug)]
pub struct StridedMask<'a, M> {
    ptr: *const M,
    strides: [isize; 4],
    reach: Option<(usize, usize)>,
    life: std::marker::PhantomData<&'a [M]>,
}

// SAFETY: a mask is a shared slice with strides.
unsafe impl<M: Sync> Send for StridedMask<'_, M> {}
// SAFETY: as above.
unsafe impl<M: Sync> Sync for StridedMask<'_, M> {}

impl<'a, M> StridedMask<'a, M> {
    /// A mask in `data` whose first element is `data[offset]`; bounds are checked when it is used.
    pub fn new(data: &'a [M], offset: usize, strides: [isize; 4]) -> StridedMask<'a, M> {
        let ptr = data.as_ptr().wrapping_add(offset);
        StridedMask { ptr, strides, reach: Some((offset, data.len())), life: std::marker::PhantomData }
    }

    /// A mask in raw memory.
    ///
    /// # Safety
    /// The strides with the sizes of the call it is used in reach initialised elements, unchanged during `'a`.
    pub unsafe fn from_raw(ptr: *const M, strides: [isize; 4]) -> StridedMask<'a, M> {
        StridedMask { ptr, strides, reach: None, life: std::marker::PhantomData }
    }

    fn check(&self, sizes: [usize; 4]) -> Result<()> {
        let Some((offset, len)) = self.reach else { return Ok(()) };
        if sizes.contains(&0) {
            return Ok(());
        }
        let (mut lo, mut hi) = (offset as isize, offset as isize);
        for (n, s) in sizes.into_iter().zip(self.strides) {
            let far = (n as isize - 1).saturating_mul(s);
            (lo, hi) = (lo.saturating_add(far.min(0)), hi.saturating_add(far.max(0)));
        }
        if lo < 0 || hi >= len as isize {
            return Err(Error::shape(format!(
                "attention: mask with strides {:?} for scores {sizes:?} reaches outside its {len} elements",
                self.strides
            )));
        }
        Ok(())
    }

    fn row(&self, batch: usize, head: usize, query: usize) -> (*const M, isize) {
        let [b, h, q, k] = self.strides;
        (self.ptr.wrapping_offset(batch as isize * b + head as isize * h + query as isize * q), k)
    }
}

/// What a call attends to, beside its operands.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a, T> {
    /// Query `i` of `Sq` sees keys `j <= i + Sk - Sq` only.
    pub causal: bool,
    /// Factor on the scores, usually 1 / sqrt(dim).
    pub scale: f64,
    /// A further mask.
    pub mask: Mask<'a, T>,
    /// Which weights are dropped.
    pub dropout: Option<WeightDropout>,
}

impl<T> Attention<'_, T> {
    /// How many of `keys` the query sees, as far as `causal` says.
    fn visible(&self, query: usize, queries: usize, keys: usize) -> usize {
        if self.causal { (query + 1 + keys).saturating_sub(queries).min(keys) } else { keys }
    }

    fn check(&self, q: &HeadsLayout, k: &HeadsLayout, v: &HeadsLayout, o: &HeadsLayout) -> Result<()> {
        let fits = k.batch == q.batch
            && (k.batch, k.heads, k.seq, k.dim) == (v.batch, v.heads, v.seq, v.dim)
            && k.dim == q.dim
            && (o.batch, o.heads, o.seq, o.dim) == (q.batch, q.heads, q.seq, q.dim)
            && if k.heads == 0 { q.heads == 0 } else { q.heads.is_multiple_of(k.heads) };
        if !fits {
            return Err(Error::shape(format!(
                "attention: queries {}, keys {}, values {} and output {} do not fit; expected [b, hq, sq, d], twice \
                 [b, hk, sk, d] with hq a multiple of hk, and [b, hq, sq, d]",
                show(q),
                show(k),
                show(v),
                show(o)
            )));
        }
        let sizes = [q.batch, q.heads, q.seq, k.seq];
        match &self.mask {
            Mask::None => Ok(()),
            Mask::Attend(mask) => mask.check(sizes),
            Mask::Bias(mask) => mask.check(sizes),
        }
    }
}

fn show(l: &HeadsLayout) -> String {
    format!("[{}, {}, {}, {}]", l.batch, l.heads, l.seq, l.dim)
}

/// Queries of a block: its scores stay in cache, and causal blocks skip the keys they do not see.
const BLOCK: usize = 32;

/// Rows of a head in the compute type: in place if they are that already, else widened into `buffer`. Returns the
/// first element and the distance of rows.
///
/// # Safety
/// `src` reaches `n` rows of `dim` elements; `buffer` holds as many.
unsafe fn in_compute<T: Float>(
    src: *const T,
    stride: isize,
    (n, dim): (usize, usize),
    buffer: &mut [T::Compute],
) -> (*const T::Compute, isize) {
    if T::DTYPE == <T::Compute as bullet_ops::Element>::DTYPE {
        return (src.cast(), stride);
    }
    for i in 0..n {
        let row = &mut buffer[i * dim..(i + 1) * dim];
        // SAFETY: the caller's promise.
        unsafe { widen(src.offset(i as isize * stride), row.as_mut_ptr(), dim) };
    }
    (buffer.as_ptr(), dim as isize)
}

/// Rounds `n` values times `factor` to `dst`.
///
/// # Safety
/// `dst` reaches `src.len()` elements.
unsafe fn narrow<T: Float>(src: &[T::Compute], factor: T::Compute, dst: *mut T) {
    for (i, &x) in src.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { *dst.add(i) = T::down(x * factor) };
    }
}
