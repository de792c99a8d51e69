//! The two sweeps. See the module's header for what is kept how.
//!
//! `f` is the kernel being differentiated, `b` builds its adjoint. A [`Frame`] is a block of `f` on the way back: it knows
//! what values of `f` are there, and the gradients that its instructions have been given so far. Values are asked for while
//! the way back is written, so the primal sweep, already written, grows results of branches and pushes as they are needed.

use rustc_hash::FxHashMap;

use bullet_ops::DType;
use smallvec::smallvec;

use super::activity::Activity;
use super::checkpoint::{self, Segments};
use super::custom::inside;
use super::memory::Memory;
use super::{I32, array_of, is_local};
use crate::diag::Diagnostic;
use crate::ir::{
    Atomic, Binary, Block, Builder, Compare, Const, Def, Inst, Kernel, Op, Type, Unary, Value, ValueMap,
    Values,
};

/// A block of the kernel, on the way back.
pub(super) struct Frame {
    /// The block of the kernel.
    pub(super) of: Block,
    /// The block of the adjoint that mirrors it.
    pub(super) to: Block,
    /// The branch or loop that owns `of`; `None` for the body.
    pub(super) owner: Option<Inst>,
    /// Of a `while` loop, the number of this run, counted from 0.
    pub(super) run: Option<Value>,
    /// What takes values from the tape where the block begins, in the order of their pushes.
    pub(super) pops: Vec<Inst>,
    /// What computes values anew where the block begins.
    pub(super) prologue: Vec<Inst>,
    /// Values of the kernel that are there.
    pub(super) have: ValueMap,
    /// The gradients of values of the kernel, and of which there are some.
    gradients: ValueMap,
    touched: Vec<Value>,
}

/// The making of an adjoint.
pub(super) struct Reverse<'a> {
    pub(super) f: Kernel,
    pub(super) b: Builder,
    activity: Activity,
    pub(super) memory: &'a Memory,
    /// The gradient of each active parameter.
    params: Vec<(Value, Value)>,
    /// Values of the kernel in the primal sweep.
    pub(super) primal: ValueMap,
    /// Its blocks and instructions with blocks in the primal sweep.
    pub(super) blocks: FxHashMap<Block, Block>,
    pub(super) regions: FxHashMap<Inst, Inst>,
    /// The block that each instruction of the kernel is in.
    pub(super) inside: Vec<Block>,
    pub(super) frames: Vec<Frame>,
    pub(super) slots: u32,
    /// Gradients that may be 0 because something was not taken.
    masked: Vec<bool>,
    overlapping: bool,
    pub(super) errors: Vec<Diagnostic>,
    /// Loops over the runs of a segment, which the way back runs again.
    segments: Segments,
    /// Those that it ran again: the copy of the loop, and the length of a segment.
    replays: Vec<(Inst, Value)>,
}

/// The name of the count of a `while` loop's runs, which is its last carried value.
const RUNS: &str = "runs";

/// Lets every `while` loop count its runs.
pub(super) fn count_runs(kernel: &mut Kernel) {
    for inst in kernel.instructions() {
        if kernel.inst(inst).op != Op::While {
            continue;
        }
        let block = kernel.inst(inst).blocks[0];
        let (zero, one) =
            (kernel.constant(Const::int(DType::I32, 0)), kernel.constant(Const::int(DType::I32, 1)));
        let arg = kernel.block_arg(block, I32);
        kernel.set_name(arg, RUNS);
        let span = kernel.inst(inst).span;
        let next = kernel.new_inst(Op::Binary(Binary::Add), smallvec![arg, one], &[I32], span);
        let sum = kernel.inst(next).results[0];
        kernel.blocks[block.index()].insts.push(next);
        kernel.blocks[block.index()].yields.push(sum);
        kernel.insts[inst.index()].args.push(zero);
        let result = kernel.inst_result(inst, I32);
        kernel.set_name(result, RUNS);
    }
}

impl<'a> Reverse<'a> {
    pub(super) fn new(
        f: Kernel,
        b: Builder,
        activity: Activity,
        memory: &'a Memory,
        params: Vec<(Value, Value)>,
        primal: ValueMap,
        overlapping: bool,
    ) -> Reverse<'a> {
        let mut inside = vec![f.body; f.insts.len()];
        place(&f, f.body, &mut inside);
        Reverse {
            f,
            b,
            activity,
            memory,
            params,
            primal,
            blocks: FxHashMap::default(),
            regions: FxHashMap::default(),
            inside,
            frames: vec![],
            slots: 0,
            masked: vec![],
            overlapping,
            errors: vec![],
            segments: Segments::default(),
            replays: vec![],
        }
    }

    /// Both sweeps.
    pub(super) fn run(mut self, segments: Segments) -> Result<Option<Kernel>, Vec<Diagnostic>> {
        self.segments = segments;
        let (body, to) = (self.f.body, self.b.block);
        self.sweep(body, to);
        let turn = self.b.emit(Op::Turn, smallvec![], &[]);
        self.own_gradients(body);
        self.enter(body, to, None);
        self.way_back(body);
        for (param, gradient) in self.params.clone() {
            if self.f.ty(param).scalar().is_some()
                && let Some(g) = self.take(param)
            {
                let zero = self.b.int(DType::I32, 0);
                self.b.atomic(Atomic::Add, gradient, &[zero], &[g]);
            }
        }
        let has_room = self.make_room(turn);
        match self.errors.is_empty() {
            true => Ok(has_room.then_some(self.b.kernel)),
            false => Err(self.errors),
        }
    }

    /// A gradient of zeros for each array of floats that the thread has for itself.
    fn own_gradients(&mut self, body: Block) {
        for inst in self.f.block(body).insts.clone() {
            let data = self.f.inst(inst).clone();
            let (Op::Alloc(count), Some(ty)) = (data.op, data.results.first().map(|&array| self.f.ty(array)))
            else {
                continue;
            };
            let (array, Type::Array(array_ty)) = (data.results[0], ty) else { continue };
            if !array_ty.dtype.is_float() {
                continue;
            }
            let made = self.b.emit(data.op, smallvec![], &[ty]);
            let gradient = self.b.kernel.inst(made).results[0];
            let name = format!("adj_{}", self.f.name_of(array).unwrap_or("local"));
            self.b.kernel.set_name(gradient, &name);
            self.params.push((array, gradient));
            let (outer, block) = (self.b.block, self.b.kernel.new_block());
            let index = self.b.kernel.block_arg(block, I32);
            let zero = self.b.zero(array_ty.dtype);
            self.b.block = block;
            self.b.store(gradient, &[index], &Values::from_elem(zero, array_ty.lanes.into()));
            self.b.block = outer;
            let bounds = [0, count.into(), 1].map(|bound| self.b.int(DType::I32, bound));
            self.b.region(Op::For, bounds.into_iter().collect(), &[block]);
        }
    }

    /// Writes the primal sweep of a block: all but the stores that nothing reads.
    fn sweep(&mut self, block: Block, to: Block) {
        self.blocks.insert(block, to);
        for inst in self.f.block(block).insts.clone() {
            self.sweep_inst(inst, to);
        }
    }

    fn sweep_inst(&mut self, inst: Inst, to: Block) {
        let data = self.f.inst(inst).clone();
        match data.op {
            Op::Store if self.memory.is_replayed(data.args[0]) => {}
            Op::Store | Op::Atomic(_) | Op::CompareExchange => return,
            _ => {}
        }
        if let Op::Custom(_) = data.op {
            // Nobody asks for what is inside.
            self.sweep(data.blocks[0], to);
            for (i, &result) in data.results.iter().enumerate() {
                let yielded = self.f.block(data.blocks[0]).yields[i];
                let new = self.there(yielded);
                self.primal.insert(result, new);
            }
            return;
        }
        if !data.op.has_blocks() {
            self.b.kernel.copy_inst(&self.f, inst, to, &mut self.primal);
            return;
        }
        let args: Values = data.args.iter().map(|&value| self.there(value)).collect();
        let types: Vec<_> = data.results.iter().map(|&value| self.f.ty(value)).collect();
        let region = self.b.kernel.new_inst(data.op, args, &types, data.span);
        self.b.kernel.blocks[to.index()].insts.push(region);
        self.regions.insert(inst, region);
        for &inner in &data.blocks {
            let copy = self.b.kernel.new_block();
            self.b.kernel.insts[region.index()].blocks.push(copy);
            for arg in self.f.block(inner).args.clone() {
                let new = self.b.kernel.block_arg(copy, self.f.ty(arg));
                self.known(arg, new);
            }
            self.sweep(inner, copy);
            let yields = self.f.block(inner).yields.clone();
            self.b.kernel.blocks[copy.index()].yields =
                yields.into_iter().map(|value| self.there(value)).collect();
        }
        for (i, &result) in data.results.iter().enumerate() {
            let new = self.b.kernel.inst(region).results[i];
            self.known(result, new);
        }
    }

    fn known(&mut self, value: Value, new: Value) {
        self.primal.insert(value, new);
        self.b.kernel.copy_name(&self.f, value, new);
    }

    /// A value of the kernel in the primal sweep.
    pub(super) fn there(&mut self, value: Value) -> Value {
        self.b.kernel.mapped(&self.f, value, &self.primal)
    }

    fn enter(&mut self, of: Block, to: Block, owner: Option<Inst>) {
        let (have, gradients) = (ValueMap::default(), ValueMap::default());
        self.frames.push(Frame {
            of,
            to,
            owner,
            run: None,
            pops: vec![],
            prologue: vec![],
            have,
            gradients,
            touched: vec![],
        });
        self.b.block = to;
    }

    /// Ends a block of the way back: puts what was asked for in front of it. The gradients it leaves.
    fn leave(&mut self) -> Vec<(Value, Value)> {
        let Some(frame) = self.frames.pop() else { return vec![] };
        let body = std::mem::take(&mut self.b.kernel.blocks[frame.to.index()].insts);
        let pops = frame.pops.into_iter().rev();
        self.b.kernel.blocks[frame.to.index()].insts = pops.chain(frame.prologue).chain(body).collect();
        if let Some(outer) = self.frames.last() {
            self.b.block = outer.to;
        }
        let left = |value: Value| Some((value, frame.gradients.get(value)?));
        let mut touched = frame.touched;
        touched.sort();
        touched.dedup();
        touched.into_iter().filter_map(left).collect()
    }

    // Gradients.

    pub(super) fn is_active(&self, value: Value) -> bool {
        self.activity.is_active(value)
    }

    /// Whether a gradient may be 0 because something was not taken.
    pub(super) fn is_masked(&self, gradient: Value) -> bool {
        self.masked.get(gradient.index()).copied().unwrap_or(false)
    }

    pub(super) fn mask(&mut self, gradient: Value) -> Value {
        if self.masked.len() <= gradient.index() {
            self.masked.resize(gradient.index() + 1, false);
        }
        self.masked[gradient.index()] = true;
        gradient
    }

    /// Adds to the gradient of a value.
    pub(super) fn give(&mut self, value: Value, gradient: Value) {
        if !self.is_active(value) {
            return;
        }
        let Some(frame) = self.frames.last() else { return };
        let sum = match frame.gradients.get(value) {
            Some(before) => {
                let sum = self.b.add(before, gradient);
                if self.is_masked(before) || self.is_masked(gradient) {
                    self.mask(sum);
                }
                sum
            }
            None => gradient,
        };
        if self.b.kernel.name_of(sum).is_none() && self.b.kernel.as_const(sum).is_none() {
            let name = self.f.name_of(value).map(|name| format!("adj_{name}"));
            if let Some(name) = name {
                self.b.kernel.set_name(sum, &name);
            }
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.gradients.insert(value, sum);
            frame.touched.push(value);
        }
    }

    /// The gradient of a value, which is then no more: nothing before it adds to it.
    fn take(&mut self, value: Value) -> Option<Value> {
        let frame = self.frames.last_mut()?;
        let gradient = frame.gradients.get(value)?;
        frame.gradients.remove(value);
        Some(gradient)
    }

    // The reverse sweep.

    /// The instructions of a block, last first.
    fn way_back(&mut self, block: Block) {
        for inst in self.f.block(block).insts.clone().into_iter().rev() {
            let data = self.f.inst(inst).clone();
            self.b.span = data.span;
            match data.op {
                Op::Load => self.load(inst),
                Op::Store | Op::Atomic(Atomic::Add) => self.write(inst),
                Op::If => self.branch(inst),
                Op::For | Op::While => self.repeat(inst),
                Op::Custom(_) => self.custom(inst),
                op if op.is_pure() => {
                    if let Some(gradient) = self.take(data.results[0]) {
                        self.rule(op, &data.args, data.results[0], gradient);
                    }
                }
                _ => {}
            }
        }
    }

    /// What a gradient function says, in its place.
    fn custom(&mut self, inst: Inst) {
        let data = self.f.inst(inst).clone();
        let given: Vec<Option<Value>> = data.results.iter().map(|&result| self.take(result)).collect();
        if given.iter().all(Option::is_none) {
            return;
        }
        let block = data.blocks[1];
        let mut map = ValueMap::new(&self.f);
        for (i, given) in given.into_iter().enumerate() {
            let arg = self.f.block(block).args[i];
            let zero = self.b.zero(self.f.dtype(arg));
            map.insert(arg, given.unwrap_or(zero));
        }
        for value in free(&self.f, block) {
            let here = self.obtain(value);
            map.insert(value, here);
        }
        let to = self.b.block;
        let gradients = self.b.kernel.copy_block(&self.f, block, to, &mut map);
        for (&arg, gradient) in data.args.iter().zip(gradients) {
            let gradient = self.mask(gradient);
            self.give(arg, gradient);
        }
    }

    /// The gradient array of an array, if it has one, and the indices of an access to it.
    fn slot(&mut self, inst: Inst) -> Option<(Value, Values, Values)> {
        let array = array_of(&self.f, inst)?;
        let gradient = self.params.iter().find(|param| param.0 == array)?.1;
        let data = self.f.inst(inst).clone();
        let ndim = self.f.ty(array).array().map_or(0, |ty| usize::from(ty.ndim));
        let indices = data.args[1..=ndim].iter().map(|&index| self.obtain(index)).collect();
        Some((gradient, indices, data.args[1 + ndim..].into()))
    }

    /// `x = a[i]`: what x is given goes to the gradient of the element, to which other threads may add.
    fn load(&mut self, inst: Inst) {
        let results = self.f.inst(inst).results.clone();
        let lanes: Vec<Option<Value>> = results.iter().map(|&result| self.take(result)).collect();
        if lanes.iter().all(Option::is_none) {
            return;
        }
        let Some((gradient, indices, _)) = self.slot(inst) else { return };
        let zero = self.b.zero(self.f.dtype(results[0]));
        let lanes: Values = lanes.into_iter().map(|lane| lane.unwrap_or(zero)).collect();
        let array = self.f.inst(inst).args[0];
        if is_local(&self.f, array) || (self.memory.is_own(array) && !self.overlapping) {
            let before = self.b.load(gradient, &indices);
            let sums: Values = before.iter().zip(&lanes).map(|(&a, &b)| self.b.add(a, b)).collect();
            self.b.store(gradient, &indices, &sums);
        } else {
            self.b.atomic(Atomic::Add, gradient, &indices, &lanes);
        }
    }

    /// `a[i] = x` and `a[i] += x`: x is given the gradient of the element, which a store leaves at 0.
    fn write(&mut self, inst: Inst) {
        let Some((gradient, indices, lanes)) = self.slot(inst) else { return };
        let overwrites = self.f.inst(inst).op == Op::Store;
        let is_given = lanes.iter().any(|&lane| self.is_active(lane));
        if is_given {
            let given = self.b.load(gradient, &indices);
            let masked = self.memory.is_overwritten(self.f.inst(inst).args[0]);
            for (&lane, &g) in lanes.iter().zip(&given) {
                let g = if masked { self.mask(g) } else { g };
                self.give(lane, g);
            }
        }
        if overwrites {
            let zero = self.b.zero(self.f.dtype(self.f.inst(inst).args[0]));
            let zeros: Values = lanes.iter().map(|_| zero).collect();
            self.b.store(gradient, &indices, &zeros);
        }
    }

    /// Whether anything in a block has a gradient.
    fn matters(&self, block: Block) -> bool {
        let mut insts = vec![];
        self.f.collect(block, &mut insts);
        insts.iter().any(|&inst| {
            let data = self.f.inst(inst);
            let writes = matches!(data.op, Op::Store | Op::Atomic(_));
            (writes && self.params.iter().any(|param| param.0 == data.args[0]))
                || data.results.iter().any(|&result| self.is_active(result))
        })
    }

    fn branch(&mut self, inst: Inst) {
        let data = self.f.inst(inst).clone();
        let given: Vec<(usize, Value)> = (0..data.results.len())
            .filter_map(|number| Some((number, self.take(data.results[number])?)))
            .collect();
        if given.is_empty() && !data.blocks.iter().any(|&block| self.matters(block)) {
            return;
        }
        let test = self.obtain(data.args[0]);
        let mut sides = vec![];
        for &block in &data.blocks {
            let to = self.b.kernel.new_block();
            self.enter(block, to, Some(inst));
            for &(number, gradient) in &given {
                let yielded = self.f.block(block).yields[number];
                self.give(yielded, gradient);
            }
            self.way_back(block);
            sides.push((to, self.leave()));
        }
        self.b.span = data.span;
        let (then, orelse) = (&sides[0], &sides[1]);
        let mut values: Vec<Value> = then.1.iter().chain(&orelse.1).map(|left| left.0).collect();
        values.sort();
        values.dedup();
        let region = self.b.region(Op::If, smallvec![test], &[then.0, orelse.0]);
        for value in values {
            let zero = self.b.zero(self.f.dtype(value));
            for (to, left) in [then, orelse] {
                let gradient = left.iter().find(|left| left.0 == value).map_or(zero, |left| left.1);
                self.b.kernel.blocks[to.index()].yields.push(gradient);
            }
            let result = self.b.kernel.inst_result(region, self.f.ty(value));
            self.mask(result);
            self.give(value, result);
        }
    }

    fn repeat(&mut self, inst: Inst) {
        let data = self.f.inst(inst).clone();
        let counted = data.op == Op::For;
        let block = data.blocks[0];
        let body = self.f.block(block).clone();
        let (bounds, first_arg, first_yield) = if counted { (3, 1, 0) } else { (1, 0, 1) };
        // What the body never reads of a variable may still be what it leaves.
        let is_active = |number: &usize| {
            self.is_active(body.args[first_arg + number]) || self.is_active(data.results[*number])
        };
        let active: Vec<usize> = (0..data.results.len()).filter(is_active).collect();
        let seeds: Vec<Option<Value>> = data.results.iter().map(|&result| self.take(result)).collect();
        if active.is_empty() && !self.matters(block) {
            return;
        }
        if let Some(&length) = self.segments.get(&inst) {
            self.run_again(inst, length);
        }
        // What comes in as it is stays so, if nothing in the body can leave a 0.
        let is_plain = !self.has_choices(block);
        let stays = |number: &usize| is_plain && seeds[*number].is_some_and(|seed| !self.is_masked(seed));
        let unmasked: Vec<usize> = active.iter().copied().filter(stays).collect();
        let range = if counted { self.backwards(&data.args) } else { self.runs(&data.results) };
        let mut args: Values = range.into_iter().collect();
        let to = self.b.kernel.new_block();
        let index = self.b.kernel.block_arg(to, self.b.kernel.ty(range[0]));
        self.enter(block, to, Some(inst));
        if counted {
            self.b.kernel.copy_name(&self.f, body.args[0], index);
            if let Some(frame) = self.frames.last_mut() {
                frame.have.insert(body.args[0], index);
            }
        } else if let Some(frame) = self.frames.last_mut() {
            frame.run = Some(index);
        }
        for &number in &active {
            let carried = self.b.kernel.block_arg(to, self.f.ty(body.args[first_arg + number]));
            if !unmasked.contains(&number) {
                self.mask(carried);
            }
            let next = body.yields[first_yield + number];
            self.give(next, carried);
            let zero = self.b.zero(self.f.dtype(next));
            args.push(seeds[number].unwrap_or(zero));
        }
        self.way_back(block);
        self.b.span = data.span;
        let mut yields: Vec<Value> = vec![];
        for &number in &active {
            let arg = body.args[first_arg + number];
            let zero = self.b.zero(self.f.dtype(arg));
            let gradient = self.take(arg).unwrap_or(zero);
            yields.push(gradient);
        }
        // What flows to values around the loop is added up over its runs.
        let Some(frame) = self.frames.last() else { return };
        let mut outer: Vec<(Value, Value)> =
            frame.touched.iter().filter_map(|&value| Some((value, frame.gradients.get(value)?))).collect();
        outer.sort();
        outer.dedup();
        for &(value, gradient) in &outer {
            let sum = self.b.kernel.block_arg(to, self.f.ty(value));
            let next = self.b.add(sum, gradient);
            yields.push(next);
            args.push(self.b.zero(self.f.dtype(value)));
        }
        self.leave();
        self.b.kernel.blocks[to.index()].yields = yields;
        let region = self.b.region(Op::For, args, &[to]);
        let initial = active.iter().map(|&number| data.args[bounds + number]);
        let targets: Vec<Value> = initial.chain(outer.iter().map(|outer| outer.0)).collect();
        for value in targets {
            let result = self.b.kernel.inst_result(region, self.f.ty(value));
            let number = self.b.kernel.inst(region).results.len() - 1;
            if active.get(number).is_none_or(|number| !unmasked.contains(number)) {
                self.mask(result);
            }
            self.give(value, result);
        }
    }

    /// Runs a segment once more, for its own tape, from what it began with.
    fn run_again(&mut self, inst: Inst, length: Value) {
        let data = self.f.inst(inst).clone();
        let mut outside = free(&self.f, data.blocks[0]);
        outside.extend(data.args.iter().filter(|&&value| self.f.as_const(value).is_none()));
        outside.sort();
        outside.dedup();
        let here: Vec<Value> = outside.iter().map(|&value| self.obtain(value)).collect();
        let all: Vec<Value> = outside.iter().chain(&data.results).copied().collect();
        let before: Vec<Option<Value>> = all.iter().map(|&value| self.primal.get(value)).collect();
        for (&value, here) in outside.iter().zip(here) {
            self.primal.insert(value, here);
        }
        let to = self.b.block;
        self.sweep_inst(inst, to);
        self.replays.push((self.regions[&inst], length));
        for (value, before) in all.into_iter().zip(before) {
            match before {
                Some(before) => self.primal.insert(value, before),
                None => self.primal.remove(value),
            }
        }
    }

    /// Tells the turn how many words more than are on the tape there the way back needs; whether that can be known there.
    fn make_room(&mut self, turn: Inst) -> bool {
        let body = self.b.kernel.body;
        let insts = &self.b.kernel.block(body).insts;
        let Some(at) = insts.iter().position(|&inst| inst == turn) else { return false };
        let mut before = vec![false; self.b.kernel.insts.len()];
        insts[..at].iter().for_each(|inst| before[inst.index()] = true);
        let known = |kernel: &Kernel, value: Value| match kernel.value(value).def {
            Def::Const(_) | Def::Param(_) => true,
            Def::Inst(inst, _) => before.get(inst.index()).copied().unwrap_or(false),
            Def::Arg(..) => false,
        };
        self.b.block = self.b.kernel.new_block();
        let mut most = self.b.int(DType::I64, 0);
        for (region, length) in std::mem::take(&mut self.replays) {
            let block = self.b.kernel.inst(region).blocks[0];
            let Some(words) = checkpoint::room(&mut self.b, block, &known) else { return false };
            let length = self.there(length);
            let length = self.b.cast(DType::I64, length);
            let words = self.b.mul(length, words);
            most = self.b.binary(Binary::Max, most, words);
        }
        let added = std::mem::take(&mut self.b.kernel.blocks[self.b.block.index()].insts);
        self.b.kernel.blocks[body.index()].insts.splice(at..at, added);
        if !self.b.kernel.as_const(most).is_some_and(|words| words.is(0)) {
            self.b.kernel.insts[turn.index()].args.push(most);
        }
        true
    }

    /// Whether a block holds what may give one of its operands nothing.
    fn has_choices(&self, block: Block) -> bool {
        let mut insts = vec![];
        self.f.collect(block, &mut insts);
        insts.iter().any(|&inst| {
            let data = self.f.inst(inst);
            match data.op {
                Op::If
                | Op::For
                | Op::While
                | Op::Custom(_)
                | Op::Select
                | Op::Binary(Binary::Min | Binary::Max) => true,
                Op::Store => self.memory.is_overwritten(data.args[0]),
                _ => false,
            }
        })
    }

    /// The runs of a `while` loop, which it counted, in reverse order.
    fn runs(&mut self, results: &[Value]) -> [Value; 3] {
        let count = match results.last() {
            Some(&count) => self.obtain(count),
            None => self.b.int(DType::I32, 0),
        };
        let (one, end) = (self.b.int(DType::I32, 1), self.b.int(DType::I32, -1));
        [self.b.sub(count, one), end, end]
    }

    /// The range that has the indices of a range in reverse order.
    fn backwards(&mut self, bounds: &[Value]) -> [Value; 3] {
        let [low, high, step] = [bounds[0], bounds[1], bounds[2]].map(|value| self.obtain(value));
        let dtype = self.b.kernel.dtype(low);
        let (zero, one) = (self.b.int(dtype, 0), self.b.int(dtype, 1));
        let known = self.b.kernel.as_const(step).and_then(Const::as_int);
        if known == Some(1) {
            let (last, end) = (self.b.sub(high, one), self.b.sub(low, one));
            return [last, end, self.b.int(dtype, -1)];
        }
        // `last = low + (count - 1) step`, and where the count is 0 or less the range is empty.
        let up = self.b.compare(Compare::Gt, step, zero);
        let (forth, back) = (self.b.sub(high, low), self.b.sub(low, high));
        let length = self.b.select(up, forth, back);
        let size = self.b.unary(Unary::Abs, step);
        let size = self.b.binary(Binary::Max, size, one);
        let rest = self.b.sub(size, one);
        let round_up = self.b.add(length, rest);
        let count = self.b.div(round_up, size);
        let before = self.b.sub(count, one);
        let way = self.b.mul(before, step);
        let (last, end) = (self.b.add(low, way), self.b.sub(low, step));
        [last, end, self.b.neg(step)]
    }
}

/// What a block uses that comes from outside of it, but for constants.
fn free(kernel: &Kernel, block: Block) -> Vec<Value> {
    let insts = inside(kernel, block);
    let mut blocks = vec![block];
    insts.iter().for_each(|&inst| blocks.extend(&kernel.inst(inst).blocks));
    let (mut known, mut used) = (vec![], vec![]);
    for &block in &blocks {
        known.extend(&kernel.block(block).args);
        used.extend(&kernel.block(block).yields);
    }
    for &inst in &insts {
        known.extend(&kernel.inst(inst).results);
        used.extend(&kernel.inst(inst).args);
    }
    used.sort();
    used.dedup();
    known.sort();
    used.retain(|value| kernel.as_const(*value).is_none() && known.binary_search(value).is_err());
    used
}

/// Where each instruction is.
fn place(kernel: &Kernel, block: Block, inside: &mut [Block]) {
    for &inst in &kernel.block(block).insts {
        inside[inst.index()] = block;
        for &inner in &kernel.inst(inst).blocks {
            place(kernel, inner, inside);
        }
    }
}
