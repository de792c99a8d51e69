//! What threads side by side share: which values are the same in all of them, and which count up by one.
//!
//! Side by side are threads that differ in the last dimension of the grid only. A value is uniform if it follows from uniform values
//! where control flow is uniform; a loop that lanes leave at different times makes all that it carries varying.

use bullet_lang::ir::{Binary, Block, Kernel, Op, Value};
use bullet_ops::DType;

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
    /// Whether something cannot be done side by side.
    refused: bool,
}

/// The shapes of all values, or none if the kernel is to run one thread after the other.
pub(super) fn analyze(kernel: &Kernel) -> Option<Vec<Shape>> {
    let shapes = vec![Shape::Uniform; kernel.value_count()];
    let mut analysis = Analysis { kernel, shapes, changed: true, refused: false };
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
                Op::Tid(_) | Op::Dim(_) | Op::Store | Op::Assert(_) => {}
                Op::Binary(op) if self.counts(op, args) => self.raise(data.results[0], Shape::Consecutive),
                op if op.is_pure() || op == Op::Load => {
                    if args.iter().any(|&arg| !self.is_uniform(arg)) {
                        data.results.iter().for_each(|&result| self.raise(result, Shape::Varying));
                    }
                }
                Op::Atomic(_) | Op::CompareExchange => {
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
        self.block(data.blocks[0], together && uniform);
        for (i, &result) in data.results.iter().enumerate() {
            self.merge(result, initial[i], uniform);
            self.merge(result, yields[i], uniform);
        }
    }
}
