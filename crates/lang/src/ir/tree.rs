//! Walking and copying the tree of blocks.

use smallvec::SmallVec;

use super::{Block, Const, Def, Inst, Kernel, Op, Value, Values, eval};

/// What values of one kernel are in another.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueMap(Vec<Option<Value>>);

impl ValueMap {
    /// An empty map for the values of a kernel.
    pub(crate) fn new(from: &Kernel) -> ValueMap {
        ValueMap(vec![None; from.value_count()])
    }

    pub(crate) fn get(&self, value: Value) -> Option<Value> {
        self.0.get(value.index()).copied().flatten()
    }

    pub(crate) fn remove(&mut self, value: Value) {
        if let Some(entry) = self.0.get_mut(value.index()) {
            *entry = None;
        }
    }

    pub(crate) fn insert(&mut self, value: Value, to: Value) {
        if self.0.len() <= value.index() {
            self.0.resize(value.index() + 1, None);
        }
        self.0[value.index()] = Some(to);
    }
}

impl Kernel {
    /// How often a loop of these bounds (`low, high, step, ..`) runs, if they are constants.
    pub(crate) fn trips(&self, bounds: &[Value]) -> Option<u64> {
        let int = |i: usize| self.as_const(bounds[i]).and_then(Const::as_int);
        Some(eval::trips(int(0)?, int(1)?, int(2)?))
    }

    /// The most that one run of a block comes to, where `of` says what each instruction itself does and loops are counted; `None`
    /// if it is not known, as where a loop that does any runs as often as the arguments say.
    pub(crate) fn most(&self, block: Block, of: &impl Fn(Inst) -> Option<u64>) -> Option<u64> {
        let mut total: u64 = 0;
        for &inst in &self.block(block).insts {
            let data = self.inst(inst);
            let mut inner = 0;
            for &block in &data.blocks {
                inner = self.most(block, of)?.max(inner);
            }
            let inner = match data.op {
                Op::For if inner > 0 => inner.checked_mul(self.trips(&data.args)?)?,
                Op::While if inner > 0 => return None,
                _ => inner,
            };
            total = total.checked_add(of(inst)?)?.checked_add(inner)?;
        }
        Some(total)
    }

    /// Every instruction in program order, each before those of the blocks it owns.
    pub fn instructions(&self) -> Vec<Inst> {
        let mut out = vec![];
        self.collect(self.body, &mut out);
        out
    }

    /// Every instruction of a block in program order.
    pub(crate) fn collect(&self, block: Block, out: &mut Vec<Inst>) {
        for &inst in &self.block(block).insts {
            out.push(inst);
            for &inner in &self.inst(inst).blocks {
                self.collect(inner, out);
            }
        }
    }

    /// Appends a copy of the instructions of a block of `from` to `to`. `map` says what values of `from` are here, and
    /// learns the copies; constants need not be in it. The values that the block yields are returned, not yielded.
    pub(crate) fn copy_block(
        &mut self,
        from: &Kernel,
        block: Block,
        to: Block,
        map: &mut ValueMap,
    ) -> Values {
        for &inst in &from.block(block).insts {
            self.copy_inst(from, inst, to, map);
        }
        from.block(block).yields.iter().map(|&value| self.mapped(from, value, map)).collect()
    }

    /// What a value of `from` is here.
    pub(crate) fn mapped(&mut self, from: &Kernel, value: Value, map: &ValueMap) -> Value {
        match from.value(value).def {
            Def::Const(constant) => self.constant(constant),
            // Only a kernel that `verify` refuses uses a value before it is there.
            _ => map.get(value).unwrap_or(value),
        }
    }

    /// Appends a copy of an instruction with its blocks.
    pub(crate) fn copy_inst(&mut self, from: &Kernel, inst: Inst, to: Block, map: &mut ValueMap) -> Inst {
        let data = from.inst(inst);
        let args: Values = data.args.iter().map(|&value| self.mapped(from, value, map)).collect();
        let types: SmallVec<[_; 4]> = data.results.iter().map(|&value| from.ty(value)).collect();
        let op = match data.op {
            Op::Print(text) => Op::Print(self.add_text(from.text(text))),
            Op::Assert(text) => Op::Assert(self.add_text(from.text(text))),
            Op::Within(text) => Op::Within(self.add_text(from.text(text))),
            op => op,
        };
        let copy = self.new_inst(op, args, &types, data.span);
        self.blocks[to.index()].insts.push(copy);
        for (i, &result) in data.results.iter().enumerate() {
            let new = self.insts[copy.index()].results[i];
            map.insert(result, new);
            self.copy_name(from, result, new);
        }
        for &block in &data.blocks {
            let inner = self.new_block();
            self.insts[copy.index()].blocks.push(inner);
            for &arg in &from.block(block).args {
                let new = self.block_arg(inner, from.ty(arg));
                map.insert(arg, new);
                self.copy_name(from, arg, new);
            }
            let yields = self.copy_block(from, block, inner, map);
            self.blocks[inner.index()].yields = yields.into_vec();
        }
        copy
    }

    /// The same kernel as one that computes and does not say how to differentiate: with [`Op::Custom`] replaced by its first
    /// block.
    pub fn plain(&self) -> std::borrow::Cow<'_, Kernel> {
        if !self.insts.iter().any(|inst| matches!(inst.op, Op::Custom(_))) {
            return std::borrow::Cow::Borrowed(self);
        }
        let mut kernel = self.clone();
        kernel.inline_blocks(&|_| true);
        crate::passes::clean(&mut kernel);
        std::borrow::Cow::Owned(kernel)
    }

    /// Puts the first block of each `Op::Custom` that is wanted in its place.
    pub(crate) fn inline_blocks(&mut self, wanted: &impl Fn(&super::InstData) -> bool) {
        let mut replaced = ValueMap::new(self);
        self.inline_in(self.body, wanted, &mut replaced);
        let find = |mut value: Value| {
            while let Some(by) = replaced.get(value) {
                value = by;
            }
            value
        };
        self.insts.iter_mut().for_each(|inst| inst.args.iter_mut().for_each(|arg| *arg = find(*arg)));
        self.blocks.iter_mut().for_each(|block| block.yields.iter_mut().for_each(|arg| *arg = find(*arg)));
    }

    fn inline_in(
        &mut self,
        block: Block,
        wanted: &impl Fn(&super::InstData) -> bool,
        replaced: &mut ValueMap,
    ) {
        let mut kept = vec![];
        for inst in std::mem::take(&mut self.blocks[block.index()].insts) {
            let data = self.inst(inst).clone();
            data.blocks.iter().for_each(|&inner| self.inline_in(inner, wanted, replaced));
            if !matches!(data.op, Op::Custom(_)) || !wanted(&data) {
                kept.push(inst);
                continue;
            }
            let forward = &mut self.blocks[data.blocks[0].index()];
            kept.append(&mut forward.insts);
            for (&result, &value) in data.results.iter().zip(&forward.yields) {
                replaced.insert(result, value);
            }
        }
        self.blocks[block.index()].insts = kept;
    }

    /// A kernel of the same parameters that does nothing yet, and which are whose.
    pub(crate) fn emptied(&self) -> (Kernel, ValueMap) {
        let mut new = Kernel::new(&self.name, self.grid);
        new.noalias = self.noalias;
        let mut map = ValueMap::new(self);
        for &param in &self.params {
            let copy = new.param(self.name_of(param).unwrap_or(""), self.ty(param));
            map.insert(param, copy);
        }
        (new, map)
    }

    /// The same kernel without what passes dropped, its values numbered in program order.
    pub(crate) fn compact(&self) -> Kernel {
        let (mut new, mut map) = self.emptied();
        new.insts.reserve(self.insts.len());
        new.values.reserve(self.values.len());
        let body = new.body;
        new.copy_block(self, self.body, body, &mut map);
        new
    }

    /// Gives a value the name that one of another kernel has.
    pub(crate) fn copy_name(&mut self, from: &Kernel, old: Value, new: Value) {
        if let Some(name) = from.name_of(old) {
            self.set_name(new, name);
        }
    }

    /// The indices of an op that accesses memory.
    pub(crate) fn indices(&self, inst: Inst) -> &[Value] {
        let args = &self.inst(inst).args;
        let ndim = self.ty(args[0]).array().map_or(0, |array| usize::from(array.ndim));
        &args[1..=ndim]
    }

    /// How often each value is an operand or yielded, by its number.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.values.len()];
        self.count_uses(self.body, &mut counts);
        counts
    }

    fn count_uses(&self, block: Block, counts: &mut [u32]) {
        let data = self.block(block);
        for &inst in &data.insts {
            let data = self.inst(inst);
            for &arg in &data.args {
                counts[arg.index()] += 1;
            }
            for &inner in &data.blocks {
                self.count_uses(inner, counts);
            }
        }
        for &value in &data.yields {
            counts[value.index()] += 1;
        }
    }
}
