//! Which values have a gradient: floats that depend on an active parameter, and that something active depends on.

use super::array_of;
use crate::ir::{Block, Inst, Kernel, Op, Value};

/// Whether each value has a gradient.
pub(super) struct Activity(Vec<bool>);

impl Activity {
    pub(super) fn is_active(&self, value: Value) -> bool {
        self.0.get(value.index()).copied().unwrap_or(false)
    }
}

struct Marks<'a> {
    kernel: &'a Kernel,
    marked: Vec<bool>,
    changed: bool,
}

/// Walks the kernel until nothing more becomes active.
pub(super) fn analyze(kernel: &Kernel, active: &[Value]) -> Activity {
    let mut varied = Marks { kernel, marked: vec![false; kernel.value_count()], changed: true };
    let mut useful = Marks { kernel, marked: vec![false; kernel.value_count()], changed: true };
    for &param in active {
        varied.mark(param);
    }
    while std::mem::take(&mut varied.changed) {
        varied.forward(kernel.body, active);
    }
    while std::mem::take(&mut useful.changed) {
        useful.backward(kernel.body, active);
    }
    let both = varied.marked.iter().zip(&useful.marked).enumerate();
    Activity(both.map(|(i, (a, b))| *a && *b && kernel.ty(Value(i as u32)).is_float()).collect())
}

impl Marks<'_> {
    fn mark(&mut self, value: Value) {
        if !std::mem::replace(&mut self.marked[value.index()], true) {
            self.changed = true;
        }
    }

    fn link(&mut self, from: Value, to: Value) {
        if self.marked[from.index()] && self.kernel.ty(to).is_float() {
            self.mark(to);
        }
    }

    /// The pairs of values that a region hands on: from, to.
    fn handed(&self, inst: Inst) -> Vec<(Value, Value)> {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let mut pairs = vec![];
        if matches!(data.op, Op::Custom(_)) {
            let each = |&from: &Value| data.results.iter().map(move |&to| (from, to));
            return data.args.iter().flat_map(each).collect();
        }
        for &block in &data.blocks {
            let body = kernel.block(block);
            let (bounds, first_arg, first_yield) = match data.op {
                Op::For => (3, 1, 0),
                Op::While => (1, 0, 1),
                _ => (1, 0, 0),
            };
            for (i, &result) in data.results.iter().enumerate() {
                let next = body.yields[first_yield + i];
                pairs.push((next, result));
                if data.op != Op::If {
                    let (arg, initial) = (body.args[first_arg + i], data.args[bounds + i]);
                    pairs.extend([(initial, arg), (next, arg), (initial, result)]);
                }
            }
        }
        pairs
    }

    fn forward(&mut self, block: Block, active: &[Value]) {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            let data = kernel.inst(inst);
            match data.op {
                Op::Load if active.contains(&data.args[0]) => {
                    data.results.iter().for_each(|&result| self.mark(result));
                }
                op if op.is_pure() => {
                    for &arg in &data.args {
                        self.link(arg, data.results[0]);
                    }
                }
                _ => {}
            }
            for &inner in &data.blocks {
                self.forward(inner, active);
            }
            for (from, to) in self.handed(inst) {
                self.link(from, to);
            }
        }
    }

    fn backward(&mut self, block: Block, active: &[Value]) {
        let kernel = self.kernel;
        for &inst in kernel.block(block).insts.iter().rev() {
            let data = kernel.inst(inst);
            for (from, to) in self.handed(inst) {
                self.link(to, from);
            }
            for &inner in &data.blocks {
                self.backward(inner, active);
            }
            if let (Some(array), Op::Store | Op::Atomic(_)) = (array_of(kernel, inst), data.op)
                && active.contains(&array)
            {
                let ndim = kernel.ty(array).array().map_or(0, |ty| usize::from(ty.ndim));
                data.args[1 + ndim..].iter().for_each(|&lane| self.mark(lane));
            } else if data.op.is_pure() {
                for &arg in &data.args {
                    self.link(data.results[0], arg);
                }
            }
        }
    }
}
