//! Writes out `for` loops of a few known runs: what they carry becomes plain values, and their adjoint needs no tape.

use smallvec::SmallVec;

use crate::ir::{Block, Const, Inst, Kernel, Op, ValueMap, Values, eval};

/// The most runs; Warp's.
const MAX_TRIPS: u64 = 16;

/// The most instructions that one loop may become.
const MAX_SIZE: u64 = 512;

/// Whether there is a loop to write out.
pub(super) fn has_short_loops(kernel: &Kernel) -> bool {
    kernel.instructions().into_iter().any(|inst| runs(kernel, inst).is_some())
}

/// The kernel with short loops written out, innermost first.
pub(super) fn unroll(kernel: &Kernel) -> Kernel {
    let (mut new, mut map) = kernel.emptied();
    let body = new.body;
    copy(kernel, kernel.body, &mut new, body, &mut map);
    new
}

/// Appends the instructions of a block; the copies of what it yields.
fn copy(from: &Kernel, block: Block, new: &mut Kernel, to: Block, map: &mut ValueMap) -> Values {
    for &inst in &from.block(block).insts {
        if let Some(trips) = runs(from, inst) {
            expand(from, inst, trips, new, to, map);
        } else if from.inst(inst).op.has_blocks() {
            copy_region(from, inst, new, to, map);
        } else {
            new.copy_inst(from, inst, to, map);
        }
    }
    from.block(block).yields.iter().map(|&value| new.mapped(from, value, map)).collect()
}

fn copy_region(from: &Kernel, inst: Inst, new: &mut Kernel, to: Block, map: &mut ValueMap) {
    let data = from.inst(inst);
    let args: Values = data.args.iter().map(|&value| new.mapped(from, value, map)).collect();
    let types: Vec<_> = data.results.iter().map(|&value| from.ty(value)).collect();
    let region = new.new_inst(data.op, args, &types, data.span);
    new.blocks[to.index()].insts.push(region);
    let mut blocks = SmallVec::new();
    for &block in &data.blocks {
        let inner = new.new_block();
        blocks.push(inner);
        for &arg in &from.block(block).args {
            let copy = new.block_arg(inner, from.ty(arg));
            new.copy_name(from, arg, copy);
            map.insert(arg, copy);
        }
        let yields = copy(from, block, new, inner, map);
        new.blocks[inner.index()].yields = yields.into_vec();
    }
    new.insts[region.index()].blocks = blocks;
    for (i, &result) in data.results.iter().enumerate() {
        let copy = new.inst(region).results[i];
        new.copy_name(from, result, copy);
        map.insert(result, copy);
    }
}

/// The first index, step and number of runs of a loop that has few, all known.
fn few_runs(from: &Kernel, inst: Inst) -> Option<(i64, i64, u64)> {
    let data = from.inst(inst);
    if data.op != Op::For {
        return None;
    }
    let int = |i: usize| from.as_const(data.args[i]).and_then(Const::as_int);
    let (low, high, step) = (int(0)?, int(1)?, int(2)?);
    let trips = eval::trips(low, high, step);
    (trips <= MAX_TRIPS).then_some((low, step, trips))
}

/// The index of each run of a loop that is written out.
fn runs(from: &Kernel, inst: Inst) -> Option<Vec<i64>> {
    let (low, step, trips) = few_runs(from, inst)?;
    let fits = trips.saturating_mul(size(from, from.inst(inst).blocks[0])) <= MAX_SIZE;
    fits.then(|| (0..trips as i64).map(|run| low + run * step).collect())
}

/// How many instructions a block becomes when the loops in it are written out.
fn size(from: &Kernel, block: Block) -> u64 {
    let insts = from.block(block).insts.iter();
    insts.fold(0, |total: u64, &inst| {
        let inner =
            from.inst(inst).blocks.iter().fold(0, |sum: u64, &inner| sum.saturating_add(size(from, inner)));
        let written_out =
            few_runs(from, inst).map(|found| found.2.saturating_mul(inner)).filter(|&all| all <= MAX_SIZE);
        total.saturating_add(1).saturating_add(written_out.unwrap_or(inner))
    })
}

fn expand(from: &Kernel, inst: Inst, indices: Vec<i64>, new: &mut Kernel, to: Block, map: &mut ValueMap) {
    let data = from.inst(inst);
    let block = from.block(data.blocks[0]);
    let mut carried: Values = data.args[3..].iter().map(|&value| new.mapped(from, value, map)).collect();
    let dtype = from.dtype(block.args[0]);
    for index in indices {
        let index = new.constant(Const::int(dtype, index));
        map.insert(block.args[0], index);
        for (&arg, &value) in block.args[1..].iter().zip(&carried) {
            map.insert(arg, value);
        }
        carried = copy(from, data.blocks[0], new, to, map);
    }
    for (&result, &value) in data.results.iter().zip(&carried) {
        map.insert(result, value);
    }
}
