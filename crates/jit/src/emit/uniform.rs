//! What threads side by side share: which values are the same in all of them, and which count up by one.
//!
//! Side by side are threads that differ in the last dimension of the grid only. A value is uniform if it follows from uniform values
//! where control flow is uniform; a loop that lanes leave at different times makes all that it carries varying.

use bullet_lang::ir::{Atomic, Binary, Block, Inst, Kernel, Op, Unary, Value};
use bullet_ops::DType;

use super::lanes::LANES;
use crate::program::Lanes;

/// What a value is over lanes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Shape {
    /// One for all.
    Uniform,
    /// An i32 that is one more in the next lane.
    Consecutive,
    /// One each.
    Varying,
}

struct Analysis<'a> {
    kernel: &'a Kernel,
    shapes: Vec<Shape>,
    changed: bool,
    uses: Vec<u32>,
    /// Whether this is inside of a `while` loop.
    waiting: bool,
    /// Whether something cannot be done side by side.
    refused: bool,
}

/// The shapes of all values, if threads can run side by side and that is wanted. With `records` each has its own of an update.
pub(super) fn choose(kernel: &Kernel, lanes: Lanes, records: bool) -> Option<Vec<Shape>> {
    let shapes = if lanes == Lanes::Off { None } else { analyze(kernel) }?;
    if lanes == Lanes::Always {
        return Some(shapes);
    }
    let mut cost = Cost { kernel, shapes: &shapes, records, alone: 0.0, beside: 0.0, insts: 0 };
    cost.block(kernel.body, 1.0, true);
    // Code for lanes is code beside that for one thread, and takes its time to be made.
    (cost.insts <= MOST_INSTS && cost.beside * 2.0 < cost.alone).then_some(shapes)
}

/// Larger kernels run one thread after the other: their vectors would not fit registers, and compiling takes longer.
const MOST_INSTS: usize = 300;
/// How often loops are taken to run.
const RUNS: f64 = 8.0;

/// About the cycles of as many threads as there are lanes.
struct Cost<'a> {
    kernel: &'a Kernel,
    shapes: &'a [Shape],
    records: bool,
    /// One after the other.
    alone: f64,
    /// Side by side.
    beside: f64,
    insts: usize,
}

impl Cost<'_> {
    fn block(&mut self, block: Block, weight: f64, together: bool) {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            self.insts += 1 + data.args.len().max(data.results.len()) / 2;
            let uniform = |value: &Value| self.shapes[value.index()] == Shape::Uniform;
            let all_uniform = data.args.iter().all(uniform);
            let (one, lanes) = self.inst(inst, together);
            let lanes =
                if all_uniform && !matches!(data.op, Op::Store | Op::Atomic(_)) { one } else { lanes };
            self.alone += weight * one * LANES as f64;
            self.beside += weight * lanes;
            let (runs, inner) = match data.op {
                Op::For => (RUNS, data.args[..3].iter().all(uniform)),
                Op::While => {
                    let go_on = kernel.block(data.blocks[0]).yields.first().is_some_and(uniform);
                    (RUNS, go_on && uniform(&data.args[0]))
                }
                Op::If => (1.0, uniform(&data.args[0])),
                _ => (1.0, true),
            };
            for &inner_block in &data.blocks {
                self.block(inner_block, weight * runs, together && inner);
            }
        }
    }

    /// Of one thread, and of all lanes together.
    fn inst(&self, inst: bullet_lang::ir::Inst, together: bool) -> (f64, f64) {
        let data = self.kernel.inst(inst);
        let lanes = LANES as f64;
        let dtype = data.args.first().map_or(DType::I32, |&arg| self.kernel.dtype(arg));
        let vectors = if dtype.size() == 8 { lanes / 2.0 } else { lanes / 4.0 };
        let single = |cost: f64| (cost, lanes * (cost + 3.0) + 8.0);
        match data.op {
            Op::Unary(op) if super::scalar::function(op, false).is_some() => {
                if dtype == DType::F32
                    && !matches!(op, Unary::Cbrt | Unary::Log10 | Unary::Erfc | Unary::Erfinv)
                {
                    (20.0, 40.0)
                } else {
                    single(30.0)
                }
            }
            Op::Unary(Unary::Sqrt) | Op::Binary(Binary::Div) if dtype.is_float() => (4.0, 4.0 * vectors),
            Op::Binary(Binary::Pow | Binary::Atan2) => single(40.0),
            Op::Binary(Binary::Mod) if dtype.is_float() => single(20.0),
            Op::Binary(Binary::Div | Binary::Mod) => single(8.0),
            Op::Binary(Binary::Shl | Binary::Shr) => {
                if self.shapes[data.args[1].index()] == Shape::Uniform {
                    (1.0, vectors)
                } else {
                    single(1.0)
                }
            }
            Op::Cast if self.kernel.dtype(data.results[0]).size() != dtype.size() => single(1.0),
            op if op.is_pure() => match dtype {
                DType::F16 | DType::BF16 => single(8.0),
                _ => (1.0, vectors),
            },
            Op::Load | Op::Store => self.memory(inst, together),
            // To one element it is one update for all.
            Op::Atomic(Atomic::Add)
                if !self.records
                    && data.args[1..]
                        .iter()
                        .rev()
                        .skip(1)
                        .all(|arg| self.shapes[arg.index()] == Shape::Uniform) =>
            {
                (20.0, 40.0)
            }
            Op::Atomic(_) | Op::CompareExchange => single(20.0),
            Op::If => (1.0, 8.0),
            Op::For | Op::While => (2.0, if together { 4.0 } else { 12.0 }),
            _ => (2.0, 2.0 * vectors),
        }
    }

    fn memory(&self, inst: bullet_lang::ir::Inst, together: bool) -> (f64, f64) {
        let data = self.kernel.inst(inst);
        let Some(ty) = self.kernel.ty(data.args[0]).array() else { return (0.0, 0.0) };
        let lanes = f64::from(ty.lanes);
        let indices = &data.args[1..=usize::from(ty.ndim)];
        let varying: Vec<usize> =
            (0..indices.len()).filter(|&i| self.shapes[indices[i].index()] != Shape::Uniform).collect();
        let run = match varying[..] {
            [axis] => {
                ty.dtype.size() >= 4 && together && self.shapes[indices[axis].index()] == Shape::Consecutive
            }
            _ => false,
        };
        let one = 2.0 + lanes;
        match run {
            true if ty.lanes == 1 && varying[0] + 1 == indices.len() => (one, 4.0),
            true => (one, LANES as f64 * (1.0 + 1.5 * lanes)),
            false => (one, LANES as f64 * (4.0 + 3.0 * lanes) + 8.0),
        }
    }
}

/// The shapes of all values, or none if threads cannot run side by side.
fn analyze(kernel: &Kernel) -> Option<Vec<Shape>> {
    let shapes = vec![Shape::Uniform; kernel.value_count()];
    let uses = kernel.use_counts();
    let mut analysis = Analysis { kernel, shapes, changed: true, uses, waiting: false, refused: false };
    while analysis.changed && !analysis.refused {
        analysis.changed = false;
        analysis.block(kernel.body, true);
    }
    let varying = analysis.shapes.iter().any(|&shape| shape != Shape::Uniform);
    (varying && !analysis.refused).then_some(analysis.shapes)
}

impl Analysis<'_> {
    fn shape(&self, value: Value) -> Shape {
        self.shapes[value.index()]
    }

    fn is_uniform(&self, value: Value) -> bool {
        self.shape(value) == Shape::Uniform
    }

    fn raise(&mut self, value: Value, shape: Shape) {
        let known = &mut self.shapes[value.index()];
        if shape > *known {
            *known = shape;
            self.changed = true;
        }
    }

    /// A value that several ways lead to; what counts up on one need not on the other.
    fn merge(&mut self, value: Value, from: Value, uniform: bool) {
        let shape = if uniform && self.is_uniform(from) { Shape::Uniform } else { Shape::Varying };
        self.raise(value, shape);
    }

    /// A block that lanes run all or none of, or not.
    fn block(&mut self, block: Block, together: bool) {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            let args = &data.args;
            match data.op {
                Op::Tid(axis) if axis + 1 == kernel.grid => self.raise(data.results[0], Shape::Consecutive),
                Op::Tid(_) | Op::Dim(_) | Op::Store | Op::Assert(_) | Op::Within(_) => {}
                Op::Binary(op) if self.counts(op, args) => self.raise(data.results[0], Shape::Consecutive),
                op if op.is_pure() || op == Op::Load => {
                    if args.iter().any(|&arg| !self.is_uniform(arg)) {
                        data.results.iter().for_each(|&result| self.raise(result, Shape::Varying));
                    }
                }
                Op::Atomic(_) | Op::CompareExchange => {
                    // Who waits in a loop for what a lane beside it does would wait for ever.
                    self.refused |= self.waits(inst);
                    data.results.iter().for_each(|&result| self.raise(result, Shape::Varying));
                }
                Op::Push(_) => self.refused |= !together,
                Op::Pop(_) => {
                    self.refused |= !together;
                    self.raise(data.results[0], Shape::Varying);
                }
                Op::If => {
                    let uniform = self.is_uniform(args[0]);
                    for &inner in &data.blocks {
                        self.block(inner, together && uniform);
                        for (&result, &from) in data.results.iter().zip(&kernel.block(inner).yields) {
                            self.merge(result, from, uniform);
                        }
                    }
                }
                Op::For | Op::While => self.repeat(inst, together),
                Op::Turn => {}
                // Printing goes lane by lane, and local arrays would have to be told apart.
                _ => self.refused = true,
            }
        }
    }

    /// Whether an update tells what was there, inside of a loop that may wait for another answer.
    fn waits(&self, inst: Inst) -> bool {
        let uses = |result: &Value| self.uses[result.index()] > 0;
        self.waiting && self.kernel.inst(inst).results.iter().any(uses)
    }

    /// Whether a sum or difference counts up.
    fn counts(&self, op: Binary, args: &[Value]) -> bool {
        let shapes = (self.shape(args[0]), self.shape(args[1]));
        let int = self.kernel.dtype(args[0]) == DType::I32;
        match (op, shapes) {
            (Binary::Add, (Shape::Consecutive, Shape::Uniform) | (Shape::Uniform, Shape::Consecutive)) => int,
            (Binary::Sub, (Shape::Consecutive, Shape::Uniform)) => int,
            _ => false,
        }
    }

    fn repeat(&mut self, inst: bullet_lang::ir::Inst, together: bool) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let counted = data.op == Op::For;
        let body = kernel.block(data.blocks[0]);
        let (head, initial) = data.args.split_at(if counted { 3 } else { 1 });
        let args = &body.args[usize::from(counted)..];
        let yields = &body.yields[usize::from(!counted)..];
        let go_on = if counted { None } else { body.yields.first() };
        let uniform = head.iter().chain(go_on).all(|&value| self.is_uniform(value));
        if counted && [head[0], head[2]].iter().any(|&value| !self.is_uniform(value)) {
            self.raise(body.args[0], Shape::Varying);
        }
        for (i, &arg) in args.iter().enumerate() {
            self.merge(arg, initial[i], uniform);
            self.merge(arg, yields[i], uniform);
        }
        let outer = self.waiting;
        self.waiting |= !counted;
        self.block(data.blocks[0], together && uniform);
        self.waiting = outer;
        for (i, &result) in data.results.iter().enumerate() {
            self.merge(result, initial[i], uniform);
            self.merge(result, yields[i], uniform);
        }
    }
}
