//! Small products on one thread, between blocks that a larger kernel keeps in cache (attention).

use bullet_ops::{Compute, Float};

use super::Scratch;
use super::micro::{Init, Kernels, Tile};
use super::pack;
use crate::cpu::par;
use crate::cpu::simd::Isa;

/// Steps of K between two visits of a tile.
const KC: usize = 256;

/// A right operand, packed once for several products.
pub(crate) struct Packed<C: Compute> {
    kernels: Kernels<C>,
    data: Scratch<C>,
    k: usize,
}

impl<C: Compute> Packed<C> {
    /// Packs `k` rows of `n` columns.
    ///
    /// # Safety
    /// `b` with its strides reaches `k` by `n` elements.
    pub(crate) unsafe fn new<T: Float<Compute = C>>(
        isa: Isa,
        b: *const T,
        (row_stride, col_stride): (isize, isize),
        (k, n): (usize, usize),
    ) -> Packed<C> {
        let kernels = Kernels::<C>::of(isa);
        let nr = kernels.nr();
        let mut data = Scratch::take(n.div_ceil(nr) * nr * k);
        for (i, dst) in data.chunks_mut((nr * k).max(1)).enumerate() {
            let from = b.wrapping_offset((i * nr) as isize * col_stride);
            // SAFETY: the caller's promise.
            unsafe { pack::panel(from, (row_stride, col_stride), k, nr.min(n - i * nr), nr, dst) };
        }
        Packed { kernels, data, k }
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
        debug_assert!(k <= self.k && n.div_ceil(nr) * nr * self.k <= self.data.len());
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
                        b: self.data[(panel * self.k + steps.start) * nr..].as_ptr(),
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
