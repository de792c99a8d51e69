//! Which indices of arrays may lie outside, as far as can be told from the text: those that code has to check that checks any.

use rustc_hash::FxHashSet;

use super::range::Ranges;
use crate::fault::length;
use crate::ir::{Block, Const, Def, Inst, Kernel, Op, Value};

struct Finder<'a> {
    kernel: &'a Kernel,
    checked: &'a dyn Fn(Inst) -> bool,
    ranges: Ranges,
    /// Arrays, axes and indices that are known to be within, as they were checked before; the newest last, too, to forget them.
    known: FxHashSet<(Value, u8, Value)>,
    scope: Vec<(Value, u8, Value)>,
    unsure: Vec<u8>,
}

/// By the number of each instruction a bit for each axis whose index may be outside of the array it accesses, of those that
/// are `checked` here and were not by an access before.
pub(crate) fn unsure(kernel: &Kernel, checked: &dyn Fn(Inst) -> bool) -> Vec<u8> {
    let unsure = vec![0; kernel.insts.len()];
    let (ranges, known) = (Ranges::default(), FxHashSet::default());
    let mut finder = Finder { kernel, checked, ranges, known, scope: vec![], unsure };
    finder.block(kernel.body);
    finder.unsure
}

impl Finder<'_> {
    fn block(&mut self, block: Block) {
        let outer = self.scope.len();
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            match data.op {
                Op::Load | Op::Store | Op::Atomic(_) | Op::CompareExchange => self.access(inst),
                Op::If => {
                    for (&block, is) in data.blocks.iter().zip([true, false]) {
                        let facts = self.ranges.assume(kernel, data.args[0], is);
                        self.block(block);
                        self.ranges.forget(facts);
                    }
                }
                Op::For => {
                    self.ranges.enter_loop(kernel, inst);
                    self.block(data.blocks[0]);
                }
                _ => data.blocks.iter().for_each(|&block| self.block(block)),
            }
        }
        for key in self.scope.drain(outer..) {
            self.known.remove(&key);
        }
    }

    fn access(&mut self, inst: Inst) {
        let data = self.kernel.inst(inst);
        let array = data.args[0];
        let Some(ty) = self.kernel.ty(array).array() else { return };
        if !(self.checked)(inst) {
            return;
        }
        for axis in 0..ty.ndim {
            let index = data.args[1 + usize::from(axis)];
            let key = (array, axis, index);
            if !self.is_within(array, axis, index) && self.known.insert(key) {
                self.scope.push(key);
                self.unsure[inst.index()] |= 1 << axis;
            }
        }
    }

    /// Whether an index is within its dimension for sure.
    fn is_within(&self, array: Value, axis: u8, index: Value) -> bool {
        let Some((low, high)) = self.ranges.of(self.kernel, index) else { return false };
        let fits = length(self.kernel, array).is_some_and(|count| high < count.into());
        low >= 0 && (fits || self.ranges.below(index).is_some_and(|bound| self.is_length(array, axis, bound)))
    }

    /// Whether a value is at most the length of this dimension.
    fn is_length(&self, array: Value, axis: u8, value: Value) -> bool {
        let known = self.kernel.as_const(value).and_then(Const::as_int);
        match (length(self.kernel, array), known, self.kernel.value(value).def) {
            (Some(count), Some(known), _) => known <= count.into(),
            (_, _, Def::Inst(inst, _)) => {
                let data = self.kernel.inst(inst);
                data.op == Op::Dim(axis) && data.args[0] == array
            }
            _ => false,
        }
    }
}
