//! Register tiles: the innermost loops of the matrix product.
//!
//! A tile of up to `mr` rows by one or two registers of columns is accumulated in registers over `k` steps: load a row
//! of the packed B panel, broadcast an element of A for each row of the tile, multiply and add (Goto and van de Geijn,
//! "Anatomy of high-performance matrix multiplication", 2008). A is read with two strides, so that it needs packing
//! only where its strides are unkind to the caches.

use bullet_ops::Compute;

use super::vector::{Lanes, Vector};
#[cfg(target_arch = "x86_64")]
use super::vector::{Ymm, Zmm};
use crate::cpu::simd::Isa;

/// What a tile starts from.
#[derive(Clone, Copy)]
pub(super) enum Init<C> {
    /// Zero.
    Zero,
    /// The same row (of full register width) for every row of the tile.
    Row(*const C),
    /// What C holds.
    Accumulate,
}

/// One tile: `c[i][j] = init + sum over p of a[i][p] * b[p][j]`.
#[derive(Clone, Copy)]
pub(super) struct Tile<C> {
    pub(super) k: usize,
    pub(super) a: *const C,
    pub(super) a_row: isize,
    pub(super) a_step: isize,
    /// `k` rows of the tile's width, `b_row` apart.
    pub(super) b: *const C,
    pub(super) b_row: isize,
    pub(super) c: *mut C,
    pub(super) c_row: isize,
    pub(super) init: Init<C>,
}

/// Computes one tile.
///
/// # Safety
/// The instruction set is available, and the pointers of the tile reach what its sizes say.
pub(super) type Micro<C> = unsafe fn(&Tile<C>);

/// The most rows any instruction set's tile has.
const MAX_ROWS: usize = 12;

/// Computes a tile of `MR` rows by `NV` registers.
///
/// # Safety
/// As [`Micro`].
#[inline(always)]
unsafe fn tile<C: Compute, V: Vector<C>, const MR: usize, const NV: usize>(t: &Tile<C>) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[V::splat(C::ZERO); NV]; MR];
        // C comes from memory while the tile is computed, and is there when the tile is stored or added to it.
        for i in 0..MR {
            for j in 0..NV {
                prefetch(t.c.wrapping_offset(i as isize * t.c_row).wrapping_add(j * V::LANES));
            }
        }
        if let Init::Row(row) = t.init {
            let row: [V; NV] = std::array::from_fn(|j| V::load(row.add(j * V::LANES)));
            acc = [row; MR];
        }
        // Unit steps are constants that fold into addresses; only packed or transposed A has others.
        if t.a_step == 1 {
            steps::<C, V, MR, NV>(t, 1, &mut acc)
        } else {
            steps::<C, V, MR, NV>(t, t.a_step, &mut acc)
        }
        let add = matches!(t.init, Init::Accumulate);
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                let c = t.c.offset(i as isize * t.c_row).add(j * V::LANES);
                let sum = if add { V::load(c).add(acc) } else { acc };
                sum.store(c);
            }
        }
    }
}

/// Asks for the cache line of an address, which need not be valid.
#[inline(always)]
fn prefetch<C>(at: *const C) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The multiply-adds of a tile.
#[inline(always)]
unsafe fn steps<C: Compute, V: Vector<C>, const MR: usize, const NV: usize>(
    t: &Tile<C>,
    a_step: isize,
    acc: &mut [[V; NV]; MR],
) {
    let (mut a, mut b) = (t.a, t.b);
    for _ in 0..t.k {
        // SAFETY: the caller's promise.
        unsafe {
            let row: [V; NV] = std::array::from_fn(|j| V::load(b.add(j * V::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(*a.offset(i as isize * t.a_row));
                for (acc, row) in acc.iter_mut().zip(row) {
                    *acc = x.fma(row, *acc);
                }
            }
        }
        a = a.wrapping_offset(a_step);
        b = b.wrapping_offset(t.b_row);
    }
}

macro_rules! compiled {
    ($($(#[$attr:meta])* $name:ident, $v:ident;)*) => {$(
        $(#[$attr])*
        unsafe fn $name<C: Compute, const MR: usize, const NV: usize>(t: &Tile<C>) {
            // SAFETY: the caller's promise.
            unsafe { tile::<C, $v<C>, MR, NV>(t) }
        }
    )*};
}
compiled! {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
    avx512, Zmm;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2, Ymm;
    portable, Lanes;
}

/// The table of one instruction set; rows beyond its largest tile repeat the last and are never asked for.
macro_rules! table {
    ($name:ident, $v:ty, 12) => { table!($name, $v, 12, [1 2 3 4 5 6 7 8 9 10 11 12]) };
    ($name:ident, $v:ty, 6) => { table!($name, $v, 6, [1 2 3 4 5 6 6 6 6 6 6 6]) };
    ($name:ident, $v:ty, 4) => { table!($name, $v, 4, [1 2 3 4 4 4 4 4 4 4 4 4]) };
    ($name:ident, $v:ty, $mr:literal, [$($rows:literal)*]) => {{
        const { assert!(2 * $mr <= <$v>::ACCUMULATORS) };
        Kernels {
            mr: $mr,
            lanes: <$v>::LANES,
            one: [$($name::<C, $rows, 1>),*],
            two: [$($name::<C, $rows, 2>),*],
        }
    }};
}

/// The tiles of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels<C: 'static> {
    /// Rows of the largest tile.
    pub(super) mr: usize,
    /// Elements in a register.
    pub(super) lanes: usize,
    one: [Micro<C>; MAX_ROWS],
    two: [Micro<C>; MAX_ROWS],
}

impl<C: Compute> Kernels<C> {
    /// Those of `isa`.
    pub(super) fn of(isa: Isa) -> Kernels<C> {
        #[cfg(target_arch = "x86_64")]
        match isa {
            Isa::Avx512 if isa.is_supported() => return table!(avx512, Zmm<C>, 12),
            Isa::Avx2 if isa.is_supported() => return table!(avx2, Ymm<C>, 6),
            Isa::Avx512 | Isa::Avx2 | Isa::Sse42 | Isa::Portable => {}
        }
        let _ = isa;
        table!(portable, Lanes<C>, 4)
    }

    /// Columns of the widest tile, which is the width of a full panel of packed B.
    pub(super) fn nr(&self) -> usize {
        2 * self.lanes
    }

    /// The kernel for a tile of `rows` rows whose panel is `width` wide ([`lanes`](Kernels::lanes) or twice that).
    pub(super) fn get(&self, rows: usize, width: usize) -> Micro<C> {
        if width == self.lanes { self.one[rows - 1] } else { self.two[rows - 1] }
    }
}
