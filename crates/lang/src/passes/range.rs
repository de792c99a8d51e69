//! Between which numbers an integer lies, as far as its operations, the loops around and the branches taken say. What it
//! proves spares the check of an index, and the choice between an index and one from the end.

use rustc_hash::FxHashMap;

use bullet_ops::DType;

use crate::ir::{Binary, Compare, Const, Def, Inst, Kernel, Op, Unary, Value};

/// The least and the largest that a value can be.
type Range = (i64, i64);

/// How many operations back it looks.
const DEPTH: u32 = 6;

/// What is known of values besides what computes them.
#[derive(Default)]
pub(super) struct Ranges {
    /// Of the indices of loops.
    indices: FxHashMap<Value, Range>,
    /// What the indices of loops that count up stay below.
    below: FxHashMap<Value, Value>,
    /// Of the branches that are open, the innermost last.
    facts: Vec<(Value, Range)>,
}

impl Ranges {
    /// Between which numbers a value lies; `None` if it is no integer of up to 32 bits.
    pub(super) fn of(&self, kernel: &Kernel, value: Value) -> Option<Range> {
        self.look(kernel, value, DEPTH)
    }

    /// What a comparison comes to, if that is known.
    pub(super) fn compare(&self, kernel: &Kernel, op: Compare, a: Value, b: Value) -> Option<bool> {
        let bound = kernel.as_const(b)?.as_int()?;
        let (low, high) = self.of(kernel, a)?;
        let (all, none) = match op {
            Compare::Lt => (high < bound, low >= bound),
            Compare::Le => (high <= bound, low > bound),
            Compare::Gt => (low > bound, high <= bound),
            Compare::Ge => (low >= bound, high < bound),
            Compare::Eq => (low == high && low == bound, bound < low || bound > high),
            Compare::Ne => (bound < low || bound > high, low == high && low == bound),
        };
        (all || none).then_some(all)
    }

    /// Whether `low <= index < high` for sure.
    pub(super) fn within(&self, kernel: &Kernel, index: Value, low: Value, high: Value) -> bool {
        let (Some(at), Some(low)) = (self.of(kernel, index), self.of(kernel, low)) else { return false };
        let below = self.below.get(&index) == Some(&high);
        at.0 >= low.1 && (below || self.of(kernel, high).is_some_and(|high| at.1 < high.0))
    }

    /// What the index of a loop that counts up stays below.
    pub(super) fn below(&self, index: Value) -> Option<Value> {
        self.below.get(&index).copied()
    }

    /// Learns the index of a loop, as far as its bounds are known.
    pub(super) fn enter_loop(&mut self, kernel: &Kernel, inst: Inst) {
        let data = kernel.inst(inst);
        let index = kernel.block(data.blocks[0]).args[0];
        if kernel.as_const(data.args[2]).and_then(Const::as_int).is_some_and(|step| step > 0) {
            self.below.insert(index, data.args[1]);
        }
        let (Some(low), Some(high)) = (self.of(kernel, data.args[0]), self.of(kernel, data.args[1])) else {
            return;
        };
        let range = match kernel.as_const(data.args[2]).and_then(Const::as_int) {
            Some(1..) => (low.0, high.1.saturating_sub(1)),
            Some(..=-1) => (high.0.saturating_add(1), low.1),
            _ => return,
        };
        self.indices.insert(index, range);
    }

    /// Learns what holds where a condition is this; how much to [`forget`](Self::forget) behind it.
    pub(super) fn assume(&mut self, kernel: &Kernel, test: Value, is: bool) -> usize {
        let before = self.facts.len();
        self.learn(kernel, test, is, DEPTH);
        before
    }

    pub(super) fn forget(&mut self, before: usize) {
        self.facts.truncate(before);
    }

    fn learn(&mut self, kernel: &Kernel, test: Value, is: bool, depth: u32) {
        let Def::Inst(inst, _) = kernel.value(test).def else { return };
        let data = kernel.inst(inst);
        match data.op {
            Op::Unary(Unary::Not) if depth > 0 => self.learn(kernel, data.args[0], !is, depth - 1),
            Op::Binary(Binary::And) if is && depth > 0 => {
                data.args.iter().for_each(|&part| self.learn(kernel, part, true, depth - 1));
            }
            Op::Binary(Binary::Or) if !is && depth > 0 => {
                data.args.iter().for_each(|&part| self.learn(kernel, part, false, depth - 1));
            }
            Op::Compare(op) => {
                self.bound(kernel, op, data.args[0], data.args[1], is);
                self.bound(kernel, swapped(op), data.args[1], data.args[0], is);
            }
            _ => {}
        }
    }

    /// `value op other` is true, or false.
    fn bound(&mut self, kernel: &Kernel, op: Compare, value: Value, other: Value, is: bool) {
        if kernel.as_const(value).is_some() {
            return;
        }
        let Some((low, high)) = self.of(kernel, other) else { return };
        let range = match (op, is) {
            (Compare::Lt, true) | (Compare::Ge, false) => (i64::MIN, high - 1),
            (Compare::Le, true) | (Compare::Gt, false) => (i64::MIN, high),
            (Compare::Gt, true) | (Compare::Le, false) => (low + 1, i64::MAX),
            (Compare::Ge, true) | (Compare::Lt, false) => (low, i64::MAX),
            (Compare::Eq, true) | (Compare::Ne, false) => (low, high),
            (Compare::Ne, true) | (Compare::Eq, false) => return,
        };
        self.facts.push((value, range));
    }

    fn look(&self, kernel: &Kernel, value: Value, depth: u32) -> Option<Range> {
        let all = range_of(kernel.ty(value).scalar()?)?;
        let computed = match kernel.value(value).def {
            Def::Const(known) => known.as_int().map(|known| (known, known)),
            Def::Inst(inst, 0) if depth > 0 => self.computed(kernel, inst, depth - 1),
            _ => self.indices.get(&value).copied(),
        };
        // What does not fit wrapped.
        let computed = computed.filter(|range| all.0 <= range.0 && range.1 <= all.1).unwrap_or(all);
        let known = self.facts.iter().filter(|fact| fact.0 == value);
        let range = known.fold(computed, |range, (_, fact)| (range.0.max(fact.0), range.1.min(fact.1)));
        // Contradictions are code that never runs.
        (range.0 <= range.1).then_some(range)
    }

    fn computed(&self, kernel: &Kernel, inst: Inst, depth: u32) -> Option<Range> {
        let data = kernel.inst(inst);
        let arg = |number: usize| self.look(kernel, data.args[number], depth);
        match data.op {
            Op::Tid(_) | Op::Dim(_) => Some((0, i32::MAX.into())),
            Op::Binary(op) => binary(op, arg(0)?, arg(1)?),
            Op::Select => {
                let (a, b) = (arg(1)?, arg(2)?);
                Some((a.0.min(b.0), a.1.max(b.1)))
            }
            // From a type that this one holds.
            Op::Cast => arg(0),
            _ => None,
        }
    }
}

fn binary(op: Binary, a: Range, b: Range) -> Option<Range> {
    match op {
        Binary::Add => Some((a.0 + b.0, a.1 + b.1)),
        Binary::Sub => Some((a.0 - b.1, a.1 - b.0)),
        Binary::Mul => {
            let products =
                [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)].map(|(x, y): Range| x.saturating_mul(y));
            Some((products.into_iter().min()?, products.into_iter().max()?))
        }
        Binary::Min => Some((a.0.min(b.0), a.1.min(b.1))),
        Binary::Max => Some((a.0.max(b.0), a.1.max(b.1))),
        Binary::Div if b.0 > 0 => Some(((a.0 / b.0).min(a.0 / b.1), (a.1 / b.0).max(a.1 / b.1))),
        // With the sign of the left.
        Binary::Mod if b.0 > 0 => {
            Some((if a.0 < 0 { a.0.max(1 - b.1) } else { 0 }, if a.1 > 0 { a.1.min(b.1 - 1) } else { 0 }))
        }
        Binary::And if a.0 >= 0 || b.0 >= 0 => {
            let bound = |range: Range| if range.0 >= 0 { range.1 } else { i64::MAX };
            Some((0, bound(a).min(bound(b))))
        }
        Binary::Shr if a.0 >= 0 && b.0 >= 0 => Some((0, a.1)),
        _ => None,
    }
}

/// What fits a type.
fn range_of(dtype: DType) -> Option<Range> {
    match dtype {
        DType::Bool => Some((0, 1)),
        DType::I8 => Some((i8::MIN.into(), i8::MAX.into())),
        DType::I16 => Some((i16::MIN.into(), i16::MAX.into())),
        DType::I32 => Some((i32::MIN.into(), i32::MAX.into())),
        DType::U8 => Some((0, u8::MAX.into())),
        DType::U16 => Some((0, u16::MAX.into())),
        DType::U32 => Some((0, u32::MAX.into())),
        _ => None,
    }
}

/// The comparison of the operands the other way round.
fn swapped(op: Compare) -> Compare {
    match op {
        Compare::Lt => Compare::Gt,
        Compare::Le => Compare::Ge,
        Compare::Gt => Compare::Lt,
        Compare::Ge => Compare::Le,
        Compare::Eq | Compare::Ne => op,
    }
}
