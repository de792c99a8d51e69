//! Walking and copying the tree of blocks.

use smallvec::SmallVec;

use super::{Block, Def, Inst, Kernel, Op, Value, Values};

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

    /// The same kernel without what passes dropped, its values numbered in program order.
    pub(crate) fn compact(&self) -> Kernel {
        let mut new = Kernel::new(&self.name, self.grid);
        new.insts.reserve(self.insts.len());
        new.values.reserve(self.values.len());
        let mut map = ValueMap::new(self);
        for &param in &self.params {
            let copy = new.param(self.name_of(param).unwrap_or(""), self.ty(param));
            map.insert(param, copy);
        }
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

    /// How often each value is an operand or yielded.
    pub(crate) fn use_counts(&self) -> Vec<u32> {
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
