//! Small products on one thread, between blocks that a larger kernel keeps in cache (attention).

use bullet_ops::{Compute, Float};

use super::Scratch;
use super::micro::{Init, Kernels, Tile};
use super::pack;
use crate::cpu::par;
use crate::cpu::simd::Isa;

/// Steps of K between two visits of a tile.
const KC: usize = 256;

/// A right operand as register tiles read it, for several products: in place where its rows are whole panels already,
/// else packed once.
pub(crate) struct Packed<C: Compute> {
    kernels: Kernels<C>,
    ptr: *const C,
    /// From a row to the next, and from a panel to the next.
    row: isize,
    panel: isize,
    k: usize,
    n: usize,
    _copy: Option<Scratch<C>>,
}

impl<C: Compute> Packed<C> {
    /// Packs `k` rows of `n` columns.
    ///
    /// # Safety
    /// `b` with its strides reaches `k` by `n` elements, which do not change while this lives.
    pub(crate) unsafe fn new<T: Float<Compute = C>>(
        isa: Isa,
        b: *const T,
        (row_stride, col_stride): (isize, isize),
        (k, n): (usize, usize),
    ) -> Packed<C> {
        let kernels = Kernels::<C>::of(isa);
        let nr = kernels.nr();
        if T::DTYPE == C::DTYPE && col_stride == 1 && n.is_multiple_of(nr) {
            return Packed { kernels, ptr: b.cast(), row: row_stride, panel: nr as isize, k, n, _copy: None };
        }
        let mut data = Scratch::take(n.div_ceil(nr) * nr * k);
        for (i, dst) in data.chunks_mut((nr * k).max(1)).enumerate() {
            let from = b.wrapping_offset((i * nr) as isize * col_stride);
            // SAFETY: the caller's promise.
            unsafe { pack::panel(from, (row_stride, col_stride), k, nr.min(n - i * nr), nr, dst) };
        }
        let ptr = data.as_ptr();
        Packed { kernels, ptr, row: nr as isize, panel: (nr * k) as isize, k, n, _copy: Some(data) }
    }

    /// The multiple that rows of a result are padded to: [`multiply`](Packed::multiply) writes whole registers.
    pub(crate) fn pad(isa: Isa, n: usize) -> usize {
        n.next_multiple_of(Kernels::<C>::of(isa).nr())
    }

    /// `c = a b`, or `c += a b`, for the first `k` rows and `n` columns of the packed operand; `a` and `c` have `m`
    /// rows. Columns of `c` up to the next multiple of the panel width are written too.
    ///
    /// # Safety
    /// The pointers reach what the sizes and strides say; `c` does not overlap `a`.
    pub(crate) unsafe fn multiply(
        &self,
        (m, k, n): (usize, usize, usize),
        (a, a_row, a_step): (*const C, isize, isize),
        (c, c_row): (*mut C, usize),
        accumulate: bool,
    ) {
        let nr = self.kernels.nr();
        debug_assert!(k <= self.k && n <= self.n);
        let tiles = m.div_ceil(self.kernels.mr);
        let slices = k.div_ceil(KC).max(1);
        for slice in 0..slices {
            let steps = par::range(k, slices, slice);
            for panel in 0..n.div_ceil(nr) {
                for tile in 0..tiles {
                    let rows = par::range(m, tiles, tile);
                    let tile = Tile {
                        k: steps.len(),
                        a: a.wrapping_offset(rows.start as isize * a_row + steps.start as isize * a_step),
                        a_row,
                        a_step,
                        b: self
                            .ptr
                            .wrapping_offset(panel as isize * self.panel + steps.start as isize * self.row),
                        b_row: self.row,
                        c: c.wrapping_add(rows.start * c_row + panel * nr),
                        c_row: c_row as isize,
                        init: if accumulate || slice > 0 { Init::Accumulate } else { Init::Zero },
                    };
                    // SAFETY: the tile lies inside the operands, the caller's promise.
                    unsafe { self.kernels.get(rows.len(), nr)(&tile) };
                }
            }
        }
    }
}
