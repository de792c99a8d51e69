//! One walk in program order that folds constants and identities, drops what was computed before, takes branches whose
//! condition is known, and carries through loops only what changes.

use rustc_hash::FxHashMap;

use bullet_ops::DType;

use super::range::Ranges;
use crate::ir::{Binary, Block, Const, Inst, InstData, Kernel, Op, Type, Unary, Value, Values, build};

/// What makes two pure instructions the same.
type Key = (Op, Values, Type);

struct Simplifier<'a> {
    kernel: &'a mut Kernel,
    /// What each value was replaced by.
    replaced: Vec<Value>,
    known: FxHashMap<Key, Value>,
    /// What became known in the blocks that are open, to forget it at their ends.
    scope: Vec<Key>,
    /// Loads that were done, by array and indices, each with how many writes came before it.
    loads: FxHashMap<Values, (Inst, u32)>,
    load_scope: Vec<Values>,
    /// How many instructions came that may write to memory.
    writes: u32,
    ranges: Ranges,
    /// Indices that were checked, with their bounds.
    checked: Vec<Values>,
}

/// Simplifies a kernel in place.
pub(super) fn simplify(kernel: &mut Kernel) {
    let replaced = (0..kernel.value_count() as u32).map(Value).collect();
    let body = kernel.body;
    let (known, loads) = (FxHashMap::default(), FxHashMap::default());
    let (ranges, checked) = (Ranges::default(), vec![]);
    let mut simplifier = Simplifier {
        kernel,
        replaced,
        known,
        scope: vec![],
        loads,
        load_scope: vec![],
        writes: 0,
        ranges,
        checked,
    };
    simplifier.block(body);
}

impl Simplifier<'_> {
    fn find(&self, value: Value) -> Value {
        // What is replaced was final when it was: one step is enough, and new values are their own.
        self.replaced.get(value.index()).copied().unwrap_or(value)
    }

    fn replace(&mut self, value: Value, by: Value) {
        if self.replaced.len() <= value.index() {
            self.replaced.extend((self.replaced.len() as u32..=value.0).map(Value));
        }
        self.replaced[value.index()] = by;
    }

    fn block(&mut self, block: Block) {
        let (outer, outer_loads, outer_checked) =
            (self.scope.len(), self.load_scope.len(), self.checked.len());
        let insts = std::mem::take(&mut self.kernel.blocks[block.index()].insts);
        let mut kept = Vec::with_capacity(insts.len());
        self.insts(&insts, &mut kept);
        self.kernel.blocks[block.index()].insts = kept;
        let yields = std::mem::take(&mut self.kernel.blocks[block.index()].yields);
        self.kernel.blocks[block.index()].yields = yields.into_iter().map(|value| self.find(value)).collect();
        for key in self.scope.drain(outer..) {
            self.known.remove(&key);
        }
        for key in self.load_scope.drain(outer_loads..) {
            self.loads.remove(&key);
        }
        self.checked.truncate(outer_checked);
    }

    fn insts(&mut self, insts: &[Inst], kept: &mut Vec<Inst>) {
        for &inst in insts {
            let args: Values = self.kernel.inst(inst).args.iter().map(|&value| self.find(value)).collect();
            self.kernel.insts[inst.index()].args = args;
            let keep = match self.kernel.inst(inst).op {
                Op::If => self.branch(inst, kept),
                Op::For | Op::While => self.repeat(inst),
                Op::Custom(_) => {
                    for block in self.kernel.inst(inst).blocks.clone() {
                        self.writes += u32::from(self.has_writes(block));
                        self.block(block);
                    }
                    true
                }
                Op::Load => self.load(inst),
                Op::Within(_) => self.within(inst),
                Op::Assert(_) => {
                    !self.kernel.as_const(self.kernel.inst(inst).args[0]).is_some_and(|test| test.is(1))
                }
                op if op.is_pure() => self.pure(inst),
                op => {
                    self.writes += u32::from(op.may_write());
                    true
                }
            };
            if keep {
                kept.push(inst);
            }
        }
    }

    fn pure(&mut self, inst: Inst) -> bool {
        let data = self.kernel.inst(inst);
        let (op, result) = (data.op, data.results[0]);
        let mut args = data.args.clone();
        let dtype = self.kernel.dtype(result);
        // Strength reductions, which keep every bit.
        let known = |value: Value| self.kernel.as_const(value);
        match op {
            Op::Select
                if known(args[1]).is_some_and(|c| c.is(0))
                    && known(args[2]).is_some_and(|c| c.is(1))
                    && dtype == DType::Bool =>
            {
                self.kernel.insts[inst.index()].op = Op::Unary(Unary::Not);
                self.kernel.insts[inst.index()].args.truncate(1);
                return self.pure(inst);
            }
            Op::Binary(Binary::Pow) if known(args[1]).is_some_and(|c| c.is(2)) => {
                let x = args[0];
                self.kernel.insts[inst.index()].op = Op::Binary(Binary::Mul);
                self.kernel.insts[inst.index()].args = [x, x].into_iter().collect();
                return self.pure(inst);
            }
            _ => {}
        }
        if let Some(value) = build::fold(self.kernel, op, &args, dtype) {
            self.replace(result, value);
            return false;
        }
        if let Op::Compare(compare) = op
            && let Some(known) = self.ranges.compare(self.kernel, compare, args[0], args[1])
        {
            let known = self.kernel.constant(Const::bool(known));
            self.replace(result, known);
            return false;
        }
        if let Op::Binary(binary) = op
            && binary.commutes()
        {
            args.sort();
        }
        let key = (op, args, self.kernel.ty(result));
        if let Some(&value) = self.known.get(&key) {
            self.replace(result, value);
            return false;
        }
        self.known.insert(key.clone(), result);
        self.scope.push(key);
        true
    }

    /// An index that is within its bounds, or was checked before, needs no check.
    fn within(&mut self, inst: Inst) -> bool {
        let args = self.kernel.inst(inst).args.clone();
        if self.ranges.within(self.kernel, args[0], args[1], args[2]) || self.checked.contains(&args) {
            return false;
        }
        self.checked.push(args);
        true
    }

    /// A load sees what one before it saw, if nothing was written between: not by this thread, and what others write without
    /// a barrier is a race.
    fn load(&mut self, inst: Inst) -> bool {
        let key = self.kernel.inst(inst).args.clone();
        if let Some(&(before, writes)) = self.loads.get(&key)
            && writes == self.writes
        {
            for i in 0..self.kernel.inst(inst).results.len() {
                let (result, known) =
                    (self.kernel.inst(inst).results[i], self.kernel.inst(before).results[i]);
                self.replace(result, known);
            }
            return false;
        }
        // An older load of a block around comes back into view with a wrong count, and is done again: never the reverse.
        self.loads.insert(key.clone(), (inst, self.writes));
        self.load_scope.push(key);
        true
    }

    /// Whether anything in a block may write to memory.
    fn has_writes(&self, block: Block) -> bool {
        let mut insts = vec![];
        self.kernel.collect(block, &mut insts);
        insts.iter().any(|&inst| self.kernel.inst(inst).op.may_write())
    }

    fn branch(&mut self, inst: Inst, kept: &mut Vec<Inst>) -> bool {
        let data = self.kernel.inst(inst).clone();
        if let Some(known) = self.kernel.as_const(data.args[0]) {
            let taken = data.blocks[usize::from(!known.is(1))];
            let insts = std::mem::take(&mut self.kernel.blocks[taken.index()].insts);
            self.insts(&insts, kept);
            for (i, &result) in data.results.iter().enumerate() {
                let value = self.find(self.kernel.block(taken).yields[i]);
                self.replace(result, value);
            }
            return false;
        }
        for (block, is) in data.blocks.iter().zip([true, false]) {
            // Inside a branch its condition is known.
            let known = self.kernel.constant(Const::bool(is));
            let facts = self.ranges.assume(self.kernel, data.args[0], is);
            self.replace(data.args[0], known);
            self.block(*block);
            self.replace(data.args[0], data.args[0]);
            self.ranges.forget(facts);
        }
        for (i, &result) in data.results.iter().enumerate() {
            let (a, b) =
                (self.kernel.block(data.blocks[0]).yields[i], self.kernel.block(data.blocks[1]).yields[i]);
            if a == b {
                self.replace(result, a);
            } else if let (Some(a), Some(b)) = (self.kernel.as_const(a), self.kernel.as_const(b))
                && (a.dtype(), a.as_int(), b.as_int()) == (DType::Bool, Some(1), Some(0))
            {
                self.replace(result, data.args[0]);
            }
        }
        let is_empty = data.blocks.iter().all(|&block| self.kernel.block(block).insts.is_empty());
        if is_empty {
            self.choices(&data, kept);
        }
        !is_empty
    }

    /// A branch that does nothing chooses between values that are there.
    fn choices(&mut self, data: &InstData, kept: &mut Vec<Inst>) {
        for (i, &result) in data.results.iter().enumerate() {
            if self.find(result) != result {
                continue;
            }
            let [a, b] = [0, 1].map(|side: usize| self.kernel.block(data.blocks[side]).yields[i]);
            let args = [data.args[0], a, b].into_iter().collect();
            let inst = self.kernel.new_inst(Op::Select, args, &[self.kernel.ty(result)], data.span);
            let chosen = self.kernel.inst(inst).results[0];
            self.kernel.values[chosen.index()].name = self.kernel.values[result.index()].name;
            self.replace(result, chosen);
            if self.pure(inst) {
                kept.push(inst);
            } else {
                let known = self.find(chosen);
                self.replace(result, known);
            }
        }
    }

    fn repeat(&mut self, inst: Inst) -> bool {
        let data = self.kernel.inst(inst).clone();
        let counted = data.op == Op::For;
        let (bounds, block) = (if counted { 3 } else { 1 }, data.blocks[0]);
        if self.never_runs(&data.args, counted) {
            for (&result, &initial) in data.results.iter().zip(&data.args[bounds..]) {
                self.replace(result, initial);
            }
            return false;
        }
        let body = self.kernel.block(block).clone();
        let carried = body.args.iter().skip(usize::from(counted));
        let yields = body.yields.iter().skip(usize::from(!counted));
        for (i, (&arg, &next)) in carried.zip(yields).enumerate() {
            // What the body hands on as it came never changes.
            if arg == next || self.find(next) == data.args[bounds + i] {
                self.replace(arg, data.args[bounds + i]);
                self.replace(data.results[i], data.args[bounds + i]);
            }
        }
        // What one run writes, the next one reads.
        let writes = u32::from(self.has_writes(block));
        self.writes += writes;
        if counted {
            self.ranges.enter_loop(self.kernel, inst);
        }
        self.block(block);
        self.writes += writes;
        true
    }

    fn never_runs(&self, args: &[Value], counted: bool) -> bool {
        if !counted {
            return self.kernel.as_const(args[0]).and_then(Const::as_int) == Some(0);
        }
        self.kernel.trips(args) == Some(0)
    }
}
