//! Long loops without a long tape: a loop becomes segments of about the root of its length. The tape keeps what the loop
//! carries where each segment begins; the way back runs a segment again, with a tape for it alone, before it goes through it
//! backwards. So a loop of n runs takes some 2 sqrt(n) times the words of one run, and its primal sweep is done twice.
//!
//! Loops are cut whose bounds are known at the top level, so that the room for a segment is known before the way back begins,
//! and that touch no array whose stores are done again, as running a segment again would change it.

use bullet_ops::DType;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::array_of;
use super::custom::inside;
use super::memory::Memory;
use crate::ir::{Binary, Block, Builder, Compare, Def, Inst, Kernel, Op, Type, Unary, Value, Values};

/// The fewest known runs that are cut.
const MIN_RUNS: u64 = 64;

/// The loops over the runs of a segment, each with the length of a segment, an i32 or i64 at the top level.
pub(super) type Segments = FxHashMap<Inst, Value>;

/// Cuts the outermost loops that can be.
pub(super) fn cut(kernel: &mut Kernel, memory: &Memory) -> Segments {
    let mut segments = Segments::default();
    let mut place = 0;
    while let Some(&top) = kernel.block(kernel.body).insts.get(place) {
        let mut found = vec![];
        candidates(kernel, top, place, memory, &mut found);
        for inst in found {
            place += cut_one(kernel, inst, place, &mut segments);
        }
        place += 1;
    }
    segments
}

/// The loops in an instruction of the top level that can be cut, outermost only.
fn candidates(kernel: &Kernel, inst: Inst, place: usize, memory: &Memory, found: &mut Vec<Inst>) {
    let data = kernel.inst(inst);
    if data.op == Op::For && is_cut(kernel, inst, place, memory) {
        return found.push(inst);
    }
    for &block in &data.blocks {
        for &inner in &kernel.block(block).insts {
            candidates(kernel, inner, place, memory, found);
        }
    }
}

fn is_cut(kernel: &Kernel, inst: Inst, place: usize, memory: &Memory) -> bool {
    let data = kernel.inst(inst);
    let before = &kernel.block(kernel.body).insts[..place];
    let known = |&value: &Value| match kernel.value(value).def {
        Def::Const(_) | Def::Param(_) => true,
        Def::Inst(inst, _) => before.contains(&inst),
        Def::Arg(..) => false,
    };
    let is_short = kernel.trips(&data.args).is_some_and(|runs| runs < MIN_RUNS);
    !is_short
        && data.args.len() > 3
        && data.args[..3].iter().all(known)
        && inside(kernel, data.blocks[0])
            .into_iter()
            .filter_map(|inner| array_of(kernel, inner))
            .all(|array| !memory.is_replayed(array))
}

/// Makes a loop one over segments, of a loop over the runs of each; how many instructions went before `place`.
fn cut_one(kernel: &mut Kernel, inst: Inst, place: usize, segments: &mut Segments) -> usize {
    let data = kernel.inst(inst).clone();
    let [low, high, step] = [data.args[0], data.args[1], data.args[2]];
    let dtype = kernel.dtype(low);
    let ty = Type::Scalar(dtype);
    let mut b = Builder::new(std::mem::replace(kernel, Kernel::new("", 1)));
    b.span = data.span;
    // How many runs there are, how long a segment is, and how many of these there are.
    b.block = b.kernel.new_block();
    let (zero, one) = (b.int(dtype, 0), b.int(dtype, 1));
    let up = b.compare(Compare::Gt, step, zero);
    let (forth, back) = (b.sub(high, low), b.sub(low, high));
    let way = b.select(up, forth, back);
    let size = b.unary(Unary::Abs, step);
    let size = b.binary(Binary::Max, size, one);
    let runs = divide_up(&mut b, way, size);
    let runs = b.binary(Binary::Max, runs, zero);
    let float = b.cast(DType::F32, runs);
    let root = b.unary(Unary::Sqrt, float);
    let root = b.cast(dtype, root);
    let length = b.add(root, one);
    let count = divide_up(&mut b, runs, length);
    let stride = b.mul(length, step);
    let head = std::mem::take(&mut b.kernel.blocks[b.block.index()].insts);
    // One segment.
    let outer = b.kernel.new_block();
    b.block = outer;
    let number = b.kernel.block_arg(outer, ty);
    let carried: Values = data.args[3..]
        .iter()
        .map(|&value| {
            let ty = b.kernel.ty(value);
            b.kernel.block_arg(outer, ty)
        })
        .collect();
    let moved = b.mul(number, stride);
    let first = b.add(low, moved);
    let behind = b.add(first, stride);
    let (less, more) = (b.binary(Binary::Min, behind, high), b.binary(Binary::Max, behind, high));
    let last = b.select(up, less, more);
    let mut args: Values = smallvec![first, last, step];
    args.extend_from_slice(&carried);
    let inner = b.region(Op::For, args, &data.blocks);
    let results: Vec<Value> = carried
        .iter()
        .map(|&value| {
            let ty = b.kernel.ty(value);
            b.kernel.inst_result(inner, ty)
        })
        .collect();
    b.kernel.blocks[outer.index()].yields = results;
    let mut args: Values = smallvec![zero, count, one];
    args.extend_from_slice(&data.args[3..]);
    b.kernel.insts[inst.index()].args = args;
    b.kernel.insts[inst.index()].blocks = SmallVec::from_slice(&[outer]);
    segments.insert(inner, length);
    let added = head.len();
    let body = b.kernel.body;
    b.kernel.blocks[body.index()].insts.splice(place..place, head);
    *kernel = b.kernel;
    added
}

/// `a / b`, rounded up.
fn divide_up(b: &mut Builder, a: Value, by: Value) -> Value {
    let one = b.int(b.kernel.dtype(a), 1);
    let rest = b.sub(by, one);
    let sum = b.add(a, rest);
    b.div(sum, by)
}

/// The words that a block puts on the tape at most, computed where `known` says what is there; `None` if that cannot be known
/// there.
pub(super) fn room(b: &mut Builder, block: Block, known: &impl Fn(&Kernel, Value) -> bool) -> Option<Value> {
    let mut total = b.int(DType::I64, 0);
    for inst in b.kernel.block(block).insts.clone() {
        let data = b.kernel.inst(inst).clone();
        let mut most = b.int(DType::I64, 0);
        for &inner in &data.blocks {
            let one = room(b, inner, known)?;
            most = b.binary(Binary::Max, most, one);
        }
        let is_none = b.kernel.as_const(most).is_some_and(|words| words.is(0));
        let own = match data.op {
            Op::Push(_) => b.int(DType::I64, super::tape::width(&b.kernel, data.args[0]) as i64),
            Op::For if !is_none => {
                if !data.args[..3].iter().all(|&value| known(&b.kernel, value)) {
                    return None;
                }
                let [low, high, step] = [0, 1, 2].map(|i| b.cast(DType::I64, data.args[i]));
                let (zero, one) = (b.int(DType::I64, 0), b.int(DType::I64, 1));
                let up = b.compare(Compare::Gt, step, zero);
                let (forth, back) = (b.sub(high, low), b.sub(low, high));
                let way = b.select(up, forth, back);
                let size = b.unary(Unary::Abs, step);
                let size = b.binary(Binary::Max, size, one);
                let runs = divide_up(b, way, size);
                let runs = b.binary(Binary::Max, runs, zero);
                b.mul(runs, most)
            }
            Op::While if !is_none => return None,
            _ => most,
        };
        total = b.add(total, own);
    }
    Some(total)
}
