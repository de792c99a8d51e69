//! Blocking for caches and threads.

use std::ops::Range;

use bullet_ops::{Activation, Compute, Float};

use super::micro::{Init, Kernels, Tile};
use super::{Bias, Problem, Scratch, pack};
use crate::cpu::par::{self, SharedMut};

/// Steps of K between two visits of a tile: a B panel of 32 columns is then 32 KiB, an A tile 12 KiB.
const KC: usize = 256;
/// Columns of a task: its B block stays in L2.
const NC: usize = 1024;
/// Rows of a task.
const MC: usize = 384;
/// Elements of packed B at a time; more columns than fit are taken in turns.
const PACKED: usize = 4 << 20;
/// Multiply-adds below which a problem stays on the caller, and below which a task is not divided.
const SERIAL_WORK: usize = 256 * 1024;
const TASK_WORK: usize = 512 * 1024;

/// Computes a problem.
///
/// # Safety
/// The operands reach what the sizes say, and nobody else accesses C meanwhile.
pub(super) unsafe fn gemm<T: Float>(p: &Problem<T>) {
    let kernels = Kernels::<T::Compute>::of(p.isa);
    let bias = Scratched::bias(p, kernels.nr());
    let job = Job { p, kernels, bias: bias.as_ref().map(|b| b.0.as_ptr()) };
    // Matrices to go round: one a task needs no waiting between packing and multiplying.
    let alone = p.work() < TASK_WORK || p.batch >= 4 * par::threads();
    if p.batch > 1 && alone {
        let grain = (TASK_WORK / p.work().max(1)).max(1);
        // SAFETY: the caller's promise; matrices of the batch are disjoint in C.
        let run = |range: Range<usize>| range.for_each(|matrix| unsafe { job.matrix(matrix, false) });
        // More ranges than threads, so that a slow thread holds up little.
        let parts = (p.batch / grain).clamp(1, 8 * par::threads());
        if parts == 1 {
            run(0..p.batch);
        } else {
            par::for_tasks(parts, |i| run(par::range(p.batch, parts, i)));
        }
    } else {
        for matrix in 0..p.batch {
            // SAFETY: the caller's promise.
            unsafe { job.matrix(matrix, p.work() >= SERIAL_WORK) };
        }
    }
}

/// The bias widened and padded to whole registers.
struct Scratched<C: Compute>(Scratch<C>);

impl<C: Compute> Scratched<C> {
    fn bias<T: Float<Compute = C>>(p: &Problem<T>, pad: usize) -> Option<Scratched<C>> {
        let Some(Bias { ptr, by_row: false }) = p.bias else { return None };
        let mut row = Scratch::take(p.n + pad);
        row[p.n..].fill(C::ZERO);
        // SAFETY: the bias has one element a column.
        unsafe { pack::widen(ptr, row.as_mut_ptr(), p.n) };
        Some(Scratched(row))
    }
}

/// What the tasks of a call share.
struct Job<'a, T: Float> {
    p: &'a Problem<T>,
    kernels: Kernels<T::Compute>,
    bias: Option<*const T::Compute>,
}

// SAFETY: tasks only read through the pointer.
unsafe impl<T: Float> Sync for Job<'_, T> {}

/// A block of C with the operands it needs.
struct Task<'a, C> {
    matrix: usize,
    rows: Range<usize>,
    /// Columns of C; starts at a multiple of the panel width.
    cols: Range<usize>,
    /// Packed panels of the columns from `first_col` on.
    packed: &'a [C],
    first_col: usize,
}

impl<T: Float> Job<'_, T> {
    /// Computes one matrix of the batch.
    ///
    /// # Safety
    /// As [`gemm`].
    unsafe fn matrix(&self, matrix: usize, parallel: bool) {
        let (p, nr) = (self.p, self.kernels.nr());
        let turn = (PACKED / p.k.max(1)).max(nr) / nr * nr;
        for first in (0..p.n).step_by(turn) {
            let cols = first..p.n.min(first + turn);
            let panels = cols.len().div_ceil(nr);
            let mut packed = Scratch::take(panels * nr * p.k);
            let shared = SharedMut::new(&mut packed);
            let pack = |range: Range<usize>| {
                for panel in range {
                    // SAFETY: each panel is its own part; the caller's promise for the operand.
                    unsafe { self.pack_panel(matrix, first + panel * nr, shared.part(self.panel(panel))) };
                }
            };
            let (blocks_m, blocks_n) = self.blocks(cols.len(), parallel);
            let run = |i: usize| {
                let columns = par::range(panels, blocks_n, i % blocks_n);
                let task = Task {
                    matrix,
                    rows: par::range(p.m, blocks_m, i / blocks_n),
                    cols: first + columns.start * nr..cols.end.min(first + columns.end * nr),
                    // SAFETY: packing is over, and tasks only read.
                    packed: unsafe { shared.part(0..panels * nr * p.k) },
                    first_col: first,
                };
                // SAFETY: the blocks of C are disjoint; the caller's promise for the rest.
                unsafe { self.block(&task) };
            };
            if parallel {
                par::for_ranges(panels, (16 * 1024 / (nr * p.k).max(1)).max(1), pack);
                par::for_tasks(blocks_m * blocks_n, run);
            } else {
                pack(0..panels);
                (0..blocks_m * blocks_n).for_each(run);
            }
        }
    }

    /// Where the `i`-th panel lies in packed B.
    fn panel(&self, i: usize) -> Range<usize> {
        let size = self.kernels.nr() * self.p.k;
        i * size..(i + 1) * size
    }

    /// The width that a panel of `cols` columns is packed to.
    fn width(&self, cols: usize) -> usize {
        if cols <= self.kernels.lanes { self.kernels.lanes } else { self.kernels.nr() }
    }

    unsafe fn pack_panel(&self, matrix: usize, col: usize, dst: &mut [T::Compute]) {
        let p = self.p;
        let cols = self.kernels.nr().min(p.n - col);
        let b = p.matrix(matrix).1.wrapping_offset(col as isize * p.b.col);
        // SAFETY: the columns lie inside B, the caller's promise.
        unsafe { pack::panel(b, (p.b.row, p.b.col), p.k, cols, self.width(cols), dst) };
    }

    /// How many blocks of rows and of columns to make: enough for caches and threads, rows first.
    fn blocks(&self, cols: usize, parallel: bool) -> (usize, usize) {
        let (p, mr, nr) = (self.p, self.kernels.mr, self.kernels.nr());
        let (tiles, panels) = (p.m.div_ceil(mr), cols.div_ceil(nr));
        let (mut rows, mut columns) = (p.m.div_ceil(MC), cols.div_ceil(NC));
        if parallel {
            let want = (p.m * cols * p.k.max(1) / TASK_WORK).min(4 * par::threads());
            rows = rows.max(want / columns).min(tiles).max(1);
            columns = columns.max(want / rows).min(panels);
        }
        (rows.max(1), columns.max(1))
    }

    /// Whether reading A in place would cost more than a copy: conversions, or strides that waste or thrash cache
    /// lines, if enough panels of B share the copy.
    fn packs_a(&self, panels: usize) -> bool {
        let a = &self.p.a;
        let thrashes = (a.row.unsigned_abs() * size_of::<T>()).is_multiple_of(2048);
        !is_compute::<T>() || (panels >= 2 && a.col != 1) || (panels >= 4 && thrashes)
    }

    /// Whether tiles may be accumulated in C itself.
    fn is_direct(&self) -> bool {
        let p = self.p;
        let plain = p.bias.is_none() && p.activation == Activation::Identity && p.pre.is_none();
        is_compute::<T>() && p.c.col == 1 && p.bias.is_none_or(|b| !b.by_row) && (!p.accumulate || plain)
    }

    /// Computes a block of C.
    ///
    /// # Safety
    /// As [`gemm`]; nobody else accesses the block.
    unsafe fn block(&self, task: &Task<'_, T::Compute>) {
        let (p, nr, m) = (self.p, self.kernels.nr(), task.rows.len());
        let slices = p.k.div_ceil(KC).max(1);
        let panels = task.cols.len().div_ceil(nr);
        let pitch = if self.packs_a(panels) { p.k.div_ceil(slices) + 16 } else { 0 };
        let mut packed = Scratch::take(m * pitch);
        // Blocks that cannot be accumulated in C, each on its own if it is finished at once, else all of the task.
        let staged = if slices == 1 { self.kernels.mr * nr } else { panels * m * nr };
        let mut stage = Scratch::take(staged);
        let tiles = m.div_ceil(self.kernels.mr);
        for slice in 0..slices {
            let steps = par::range(p.k, slices, slice);
            let corner = p
                .matrix(task.matrix)
                .0
                .wrapping_offset(task.rows.start as isize * p.a.row + steps.start as isize * p.a.col);
            // SAFETY: rows and steps lie inside A, the caller's promise.
            let a = unsafe { self.a_block(corner, m, steps.len(), pitch, &mut packed) };
            for panel in 0..panels {
                for tile in 0..tiles {
                    let place = Place {
                        rows: par::range(m, tiles, tile),
                        panel,
                        stage: stage.as_mut_ptr(),
                        steps: steps.clone(),
                        slices,
                    };
                    // SAFETY: the tile lies inside the block.
                    unsafe { self.tile(task, &a, &place) };
                }
            }
        }
    }

    /// A as the tiles read it: in place if `pitch` is 0, else packed, `pitch` elements a row.
    unsafe fn a_block(
        &self,
        a: *const T,
        m: usize,
        k: usize,
        pitch: usize,
        packed: &mut [T::Compute],
    ) -> Block<T::Compute> {
        let from = (self.p.a.row, self.p.a.col);
        if pitch == 0 {
            return Block { ptr: a.cast(), row: from.0, step: from.1, by_tile: false };
        }
        let tiles = m.div_ceil(self.kernels.mr);
        let mut strides = (0, 0);
        for tile in 0..tiles {
            let rows = par::range(m, tiles, tile);
            let dst = &mut packed[rows.start * pitch..rows.end * pitch];
            // SAFETY: the caller's promise.
            strides = unsafe {
                pack::rows(a.wrapping_offset(rows.start as isize * from.0), from, rows.len(), k, pitch, dst)
            };
        }
        let by_tile = strides.0 == 1;
        Block {
            ptr: packed.as_ptr(),
            row: if by_tile { pitch as isize } else { strides.0 },
            step: strides.1,
            by_tile,
        }
    }

    /// Computes one tile, and finishes it after the last slice of K.
    unsafe fn tile(&self, task: &Task<'_, T::Compute>, a: &Block<T::Compute>, place: &Place<T::Compute>) {
        let (p, nr) = (self.p, self.kernels.nr());
        let col = task.cols.start + place.panel * nr;
        let cols = nr.min(task.cols.end - col);
        let width = self.width(cols);
        let rows = place.rows.clone();
        let direct = cols == width && self.is_direct();
        let (first, last) = (place.steps.start == 0, place.steps.end == p.k);
        let at = (task.rows.start + rows.start, col);
        let (c, c_row) = if direct {
            let c = p.c.ptr.wrapping_offset(
                task.matrix as isize * p.c.batch + at.0 as isize * p.c.row + at.1 as isize * p.c.col,
            );
            (c.cast::<T::Compute>(), p.c.row)
        } else {
            let offset =
                if place.slices == 1 { 0 } else { (place.panel * task.rows.len() + rows.start) * nr };
            (place.stage.wrapping_add(offset), nr as isize)
        };
        let init = match self.bias {
            _ if !first || (direct && p.accumulate) => Init::Accumulate,
            Some(bias) => Init::Row(bias.wrapping_add(col)),
            None => Init::Zero,
        };
        let packed = &task.packed[(col - task.first_col) * p.k + place.steps.start * width..];
        let (a_row, a_step) = if a.by_tile { (1, rows.len() as isize) } else { (a.row, a.step) };
        let tile = Tile {
            k: place.steps.len(),
            a: a.ptr.wrapping_offset(rows.start as isize * a.row),
            a_row,
            a_step,
            b: packed.as_ptr(),
            b_row: width as isize,
            c,
            c_row,
            init,
        };
        // SAFETY: the tile lies inside A, B and C or the stage; the kernels are of an available instruction set.
        unsafe {
            self.kernels.get(rows.len(), width)(&tile);
            if last && (!direct || p.activation != Activation::Identity || p.pre.is_some()) {
                p.finish(task.matrix, at, (rows.len(), cols), c, c_row);
            }
        }
    }
}

/// Where the rows of A are: `row` elements apart, with `step` between the steps of K; or, `by_tile`, each tile of
/// `r` rows starts at its first row times `row` and holds its steps one after the other, `r` elements each.
struct Block<C> {
    ptr: *const C,
    row: isize,
    step: isize,
    by_tile: bool,
}

/// Which tile of a block, in which slice of K.
struct Place<C> {
    rows: Range<usize>,
    panel: usize,
    stage: *mut C,
    steps: Range<usize>,
    slices: usize,
}

fn is_compute<T: Float>() -> bool {
    T::DTYPE == <T::Compute as bullet_ops::Element>::DTYPE
}
