//! Drops what nobody sees: instructions without effect whose results are unused, results of branches, variables that loops
//! carry for themselves only, what is put on the tape but never used, and what is stored in a thread's own array that nothing
//! loads.

use rustc_hash::FxHashMap;

use crate::ir::{Block, Def, Inst, Kernel, Op, Space, Value};

struct Marker<'a> {
    kernel: &'a Kernel,
    live: Vec<bool>,
    kept: Vec<bool>,
    /// The block an instruction is in, and the instruction that owns a block.
    inside: Vec<Option<Block>>,
    owner: Vec<Option<Inst>>,
    /// The pushes of each slot of the tape.
    pushes: Vec<Vec<Inst>>,
    /// The stores to each array that only this thread sees.
    stores: FxHashMap<Value, Vec<Inst>>,
    work: Vec<Value>,
}

/// Drops dead code in place.
pub(crate) fn eliminate(kernel: &mut Kernel) {
    let mut marker = Marker {
        kernel,
        live: vec![false; kernel.value_count()],
        kept: vec![false; kernel.insts.len()],
        inside: vec![None; kernel.insts.len()],
        owner: vec![None; kernel.blocks.len()],
        pushes: vec![],
        stores: FxHashMap::default(),
        work: vec![],
    };
    let mut roots = vec![];
    marker.scan(kernel.body, &mut roots);
    for inst in roots {
        marker.keep(inst);
        marker.work.extend(&kernel.inst(inst).args);
    }
    marker.run();
    let (live, kept) = (marker.live, marker.kept);
    sweep(kernel, kernel.body, &live, &kept);
}

impl Marker<'_> {
    /// Where everything is; the instructions with effects.
    fn scan(&mut self, block: Block, roots: &mut Vec<Inst>) {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            self.inside[inst.index()] = Some(block);
            match data.op {
                Op::Push(slot) => {
                    let slot = slot as usize;
                    if self.pushes.len() <= slot {
                        self.pushes.resize(slot + 1, vec![]);
                    }
                    self.pushes[slot].push(inst);
                }
                Op::Store if is_local(kernel, data.args[0]) => {
                    self.stores.entry(data.args[0]).or_default().push(inst);
                }
                op if op.has_effect() => roots.push(inst),
                _ => {}
            }
            for &inner in &data.blocks {
                self.owner[inner.index()] = Some(inst);
                self.scan(inner, roots);
            }
        }
    }

    /// An instruction stays, and with it those around it, with what decides how often they run.
    fn keep(&mut self, inst: Inst) {
        let mut next = Some(inst);
        while let Some(inst) = next {
            if std::mem::replace(&mut self.kept[inst.index()], true) {
                return;
            }
            let data = self.kernel.inst(inst);
            match data.op {
                Op::If => self.work.push(data.args[0]),
                Op::For => self.work.extend(&data.args[..3]),
                // All of it, for the adjoint.
                Op::Custom(_) => {
                    self.work.extend(&data.args);
                    data.blocks.iter().for_each(|&block| self.work.extend(&self.kernel.block(block).yields));
                }
                Op::While => {
                    self.work.push(data.args[0]);
                    self.work.push(self.kernel.block(data.blocks[0]).yields[0]);
                }
                _ => {}
            }
            next = self.inside[inst.index()].and_then(|block| self.owner[block.index()]);
        }
    }

    fn run(&mut self) {
        while let Some(value) = self.work.pop() {
            if std::mem::replace(&mut self.live[value.index()], true) {
                continue;
            }
            match self.kernel.value(value).def {
                Def::Const(_) | Def::Param(_) => {}
                Def::Inst(inst, number) => self.result(inst, number as usize),
                Def::Arg(block, number) => {
                    let Some(owner) = self.owner[block.index()] else { continue };
                    self.keep(owner);
                    if matches!(self.kernel.inst(owner).op, Op::Custom(_)) {
                        continue;
                    }
                    let counted = self.kernel.inst(owner).op == Op::For;
                    // The index of a `for` is its own.
                    if let Some(carried) = (number as usize).checked_sub(usize::from(counted)) {
                        self.carried(owner, carried);
                    }
                }
            }
        }
    }

    fn result(&mut self, inst: Inst, number: usize) {
        self.keep(inst);
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        match data.op {
            Op::If => {
                for &block in &data.blocks {
                    self.work.push(kernel.block(block).yields[number]);
                }
            }
            Op::For | Op::While => self.carried(inst, number),
            Op::Custom(_) => {}
            Op::Pop(slot) => {
                for push in self.pushes.get(slot as usize).cloned().unwrap_or_default() {
                    self.keep(push);
                    self.work.extend(&kernel.inst(push).args);
                }
            }
            Op::Load => {
                for store in self.stores.remove(&data.args[0]).unwrap_or_default() {
                    self.keep(store);
                    self.work.extend(&kernel.inst(store).args);
                }
                self.work.extend(&data.args);
            }
            _ => self.work.extend(&data.args),
        }
    }

    /// A variable of a loop lives as a whole: where it starts, what it is in the body and behind it.
    fn carried(&mut self, inst: Inst, number: usize) {
        let data = self.kernel.inst(inst);
        let body = self.kernel.block(data.blocks[0]);
        let counted = data.op == Op::For;
        self.work.push(data.args[number + if counted { 3 } else { 1 }]);
        self.work.push(body.args[number + usize::from(counted)]);
        self.work.push(body.yields[number + usize::from(!counted)]);
        self.work.push(data.results[number]);
    }
}

/// Whether an array is the thread's own.
fn is_local(kernel: &Kernel, array: Value) -> bool {
    kernel.ty(array).array().is_some_and(|array| array.space == Space::Local)
}

/// Takes out what is not live.
fn sweep(kernel: &mut Kernel, block: Block, live: &[bool], kept: &[bool]) {
    let mut insts = std::mem::take(&mut kernel.blocks[block.index()].insts);
    insts.retain(|inst| kept[inst.index()]);
    for &inst in &insts {
        if !kernel.inst(inst).op.has_blocks() {
            continue;
        }
        let data = kernel.inst(inst).clone();
        let keep: Vec<bool> = data.results.iter().map(|value| live[value.index()]).collect();
        if keep.contains(&false) && !matches!(data.op, Op::Custom(_)) {
            narrow(kernel, inst, &keep);
        }
        for inner in data.blocks {
            sweep(kernel, inner, live, kept);
        }
    }
    kernel.blocks[block.index()].insts = insts;
}

/// Drops results of a branch, or variables of a loop.
fn narrow(kernel: &mut Kernel, inst: Inst, keep: &[bool]) {
    let data = kernel.inst(inst).clone();
    let (bounds, fixed_args, fixed_yields) = match data.op {
        Op::For => (3, 1, 0),
        Op::While => (1, 0, 1),
        _ => (1, 0, 0),
    };
    let pick = |values: &[Value], fixed: usize| -> Vec<Value> {
        let rest = values[fixed..].iter().zip(keep).filter(|pair| *pair.1).map(|pair| *pair.0);
        values[..fixed].iter().copied().chain(rest).collect()
    };
    let results = pick(&data.results, 0);
    for (number, &result) in results.iter().enumerate() {
        kernel.values[result.index()].def = Def::Inst(inst, number as u32);
    }
    kernel.insts[inst.index()].results = results.into();
    if data.op != Op::If {
        kernel.insts[inst.index()].args = pick(&data.args, bounds).into();
    }
    for block in data.blocks {
        let old = kernel.block(block).clone();
        kernel.blocks[block.index()].yields = pick(&old.yields, fixed_yields);
        if data.op != Op::If {
            let args = pick(&old.args, fixed_args);
            for (number, &arg) in args.iter().enumerate() {
                kernel.values[arg.index()].def = Def::Arg(block, number as u32);
            }
            kernel.blocks[block.index()].args = args;
        }
    }
}
