//! Branches and loops: SSA values for what they assign.

use bullet_ops::DType;
use smallvec::smallvec;

use super::expr::is_harmless;
use super::flow::assigned;
use super::value::Val;
use super::{Env, Lower, Result};
use crate::diag::{Diagnostic, Span};
use crate::ir::{Binary, Block, Compare, Const, Op, Type, Value, Values};
use crate::syntax::ast::{Expr, Stmt, StmtKind, Symbol};

/// How deep blocks of the IR may nest, so that passes, which recurse, end in a diagnostic and not in a crash.
const MAX_BLOCKS: usize = 400;

/// Whether control comes to the end of statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    Next,
    /// It never does: all ways leave by `return`, `break` or `continue`.
    Exit,
}

/// One side of a branch, lowered.
struct Side {
    block: Block,
    env: Env,
    flow: Flow,
}

/// The variables that a loop carries.
pub(super) struct Carried {
    names: Vec<Symbol>,
    pub(super) initial: Values,
}

impl<'a> Lower<'a> {
    /// Lowers statements one after the other.
    pub(super) fn block(&mut self, stmts: &'a [Stmt]) -> Flow {
        self.depth += 1;
        let flow = if self.depth > MAX_BLOCKS {
            let span = stmts.first().map_or(self.b.span, |stmt| stmt.span);
            let message = format!("more than {MAX_BLOCKS} blocks within each other");
            let hint = "an early `return`, `break` or `continue` puts all behind it into a block of its own";
            let _: Result<()> = self.error_hint(span, message, hint);
            Flow::Exit
        } else {
            self.statements(stmts)
        };
        self.depth -= 1;
        flow
    }

    fn statements(&mut self, stmts: &'a [Stmt]) -> Flow {
        for (i, stmt) in stmts.iter().enumerate() {
            let pending = self.pending();
            match self.b.kernel.as_const(pending) {
                Some(known) if known.is(1) => return Flow::Exit,
                Some(_) => {}
                None => return self.guarded(pending, &stmts[i..]),
            }
            if let StmtKind::If { test, body, orelse } = &stmt.kind {
                match self.branch(test, body, orelse, &stmts[i + 1..]) {
                    Some(flow) => return flow,
                    None => continue,
                }
            }
            self.b.span = stmt.span;
            if self.stmt(stmt) == Flow::Exit {
                return Flow::Exit;
            }
        }
        Flow::Next
    }

    /// Whether a flag is set that skips what follows.
    fn pending(&mut self) -> Value {
        let hidden = self.program.hidden;
        let mut any = self.b.bool(false);
        for flag in [hidden.returned, hidden.broke, hidden.continued] {
            if let Some(flag) = self.flag(flag) {
                any = self.b.binary(Binary::Or, any, flag);
            }
        }
        any
    }

    /// The value of a hidden variable, if it is one here.
    fn flag(&self, name: Symbol) -> Option<Value> {
        match self.env.get(name) {
            Some(Val::Data(_, parts)) => parts.first().copied(),
            _ => None,
        }
    }

    fn set_flag(&mut self, name: Symbol, value: bool) {
        let value = self.b.bool(value);
        self.env.set(name, Val::scalar(DType::Bool, value));
    }

    /// Sets the flag of a statement that leaves.
    pub(super) fn leave(&mut self, name: Symbol) -> Flow {
        self.set_flag(name, true);
        Flow::Exit
    }

    /// Lowers into a block of its own, starting from an environment.
    fn side(&mut self, env: Env, build: impl FnOnce(&mut Self) -> Flow) -> Side {
        let block = self.b.kernel.new_block();
        let outer = std::mem::replace(&mut self.b.block, block);
        let outer_env = std::mem::replace(&mut self.env, env);
        let flow = build(self);
        self.b.block = outer;
        let env = std::mem::replace(&mut self.env, outer_env);
        Side { block, env, flow }
    }

    /// Goes on in the block of a side.
    fn resume(&mut self, side: Side, build: impl FnOnce(&mut Self) -> Flow) -> Side {
        let outer = std::mem::replace(&mut self.b.block, side.block);
        let outer_env = std::mem::replace(&mut self.env, side.env);
        let flow = build(self);
        self.b.block = outer;
        let env = std::mem::replace(&mut self.env, outer_env);
        Side { block: side.block, env, flow }
    }

    /// Statements that run only if no flag is set.
    fn guarded(&mut self, pending: Value, stmts: &'a [Stmt]) -> Flow {
        let go = self.b.not(pending);
        let then = self.side(self.env.clone(), |lower| {
            let hidden = lower.program.hidden;
            for flag in [hidden.returned, hidden.broke, hidden.continued] {
                if lower.flag(flag).is_some() {
                    lower.set_flag(flag, false);
                }
            }
            lower.block(stmts)
        });
        let orelse = self.side(self.env.clone(), |_| Flow::Exit);
        let flow = then.flow;
        self.join(go, then, orelse);
        flow
    }

    /// An `if`, and perhaps the rest of its block: then the flow at the end of that.
    fn branch(
        &mut self,
        test: &'a Expr,
        body: &'a [Stmt],
        orelse: &'a [Stmt],
        rest: &'a [Stmt],
    ) -> Option<Flow> {
        self.b.span = test.span;
        let Ok(test) = self.truth(test) else {
            // Both sides are still looked at, for further mistakes.
            let _ = self.side(self.env.clone(), |lower| lower.block(body));
            let _ = self.side(self.env.clone(), |lower| lower.block(orelse));
            self.forget(&[body, orelse]);
            return None;
        };
        if let Some(known) = self.b.kernel.as_const(test) {
            let flow = self.block(if known.is(1) { body } else { orelse });
            return (flow == Flow::Exit).then_some(Flow::Exit);
        }
        let span = self.b.span;
        let mut then = self.side(self.env.clone(), |lower| lower.block(body));
        let mut other = self.side(self.env.clone(), |lower| lower.block(orelse));
        let takes_rest = then.flow != other.flow;
        if takes_rest {
            let side = if then.flow == Flow::Next { &mut then } else { &mut other };
            let open = Side { block: side.block, env: std::mem::take(&mut side.env), flow: side.flow };
            *side = self.resume(open, |lower| lower.block(rest));
        }
        self.b.span = span;
        let both_exit = then.flow == Flow::Exit && other.flow == Flow::Exit;
        self.join(test, then, other);
        match (both_exit, takes_rest) {
            (true, _) => Some(Flow::Exit),
            (false, true) => Some(Flow::Next),
            (false, false) => None,
        }
    }

    /// Ends a branch: what its sides left in different states becomes results of the `if`.
    fn join(&mut self, test: Value, then: Side, orelse: Side) {
        let inst = self.b.region(Op::If, smallvec![test], &[then.block, orelse.block]);
        let mut env = Env::default();
        for (name, value) in &then.env.0 {
            let merged = match orelse.env.get(*name) {
                Some(other) => self.merge(inst, (then.block, value), (orelse.block, other)),
                None => self.merge_one(inst, then.block, orelse.block, value),
            };
            self.name_parts(*name, &merged);
            env.0.push((*name, merged));
        }
        for (name, value) in &orelse.env.0 {
            if then.env.get(*name).is_none() {
                let merged = self.merge_one(inst, orelse.block, then.block, value);
                env.0.push((*name, merged));
            }
        }
        self.env = env;
    }

    /// A variable that both sides know.
    fn merge(&mut self, inst: crate::ir::Inst, a: (Block, &Val), b: (Block, &Val)) -> Val {
        if a.1 == b.1 {
            return a.1.clone();
        }
        if matches!(a.1, Val::Bad) || matches!(b.1, Val::Bad) {
            return Val::Bad;
        }
        if !a.1.same_type(b.1) {
            return Val::Conflict(self.type_name(a.1), self.type_name(b.1));
        }
        let (mut left, mut right) = (Values::new(), Values::new());
        a.1.parts(&mut left);
        b.1.parts(&mut right);
        let merged: Values =
            left.iter().zip(&right).map(|(&x, &y)| self.merge_value(inst, (a.0, x), (b.0, y))).collect();
        a.1.with_parts(&mut merged.into_iter())
    }

    fn merge_value(&mut self, inst: crate::ir::Inst, a: (Block, Value), b: (Block, Value)) -> Value {
        if a.1 == b.1 {
            return a.1;
        }
        // The same pair again, such as a flag and its double.
        let yields = |block: Block| &self.b.kernel.block(block).yields;
        let pairs = yields(a.0).iter().zip(yields(b.0));
        if let Some(at) = pairs.into_iter().position(|(&x, &y)| (x, y) == (a.1, b.1)) {
            return self.b.kernel.inst(inst).results[at];
        }
        self.b.kernel.blocks[a.0.index()].yields.push(a.1);
        self.b.kernel.blocks[b.0.index()].yields.push(b.1);
        let ty = self.b.kernel.ty(a.1);
        self.b.kernel.inst_result(inst, ty)
    }

    /// A variable that one side knows; nothing reads it where the other was taken.
    fn merge_one(&mut self, inst: crate::ir::Inst, known: Block, other: Block, value: &Val) -> Val {
        let mut parts = Values::new();
        value.parts(&mut parts);
        let merged: Values = parts
            .iter()
            .map(|&part| {
                let zero = self.zero_like(part);
                self.merge_value(inst, (known, part), (other, zero))
            })
            .collect();
        value.with_parts(&mut merged.into_iter())
    }

    fn zero_like(&mut self, value: Value) -> Value {
        let dtype = self.b.kernel.dtype(value);
        self.b.kernel.constant(Const::zero(dtype))
    }

    /// Gives the scalars of a variable its name, for people.
    pub(super) fn name_parts(&mut self, name: Symbol, value: &Val) {
        let text = self.text(name);
        let mut parts = Values::new();
        value.parts(&mut parts);
        let single = parts.len() == 1;
        for (i, part) in parts.into_iter().enumerate() {
            if self.b.kernel.name_of(part).is_none() && self.b.kernel.as_const(part).is_none() {
                let text = text.trim_start_matches('$');
                let full = if single { text.into() } else { format!("{text}_{}", component(value, i)) };
                self.b.kernel.set_name(part, &full);
            }
        }
    }

    /// An expression that is evaluated only on one way, with two values for the two ways.
    pub(super) fn choose(
        &mut self,
        span: Span,
        test: Value,
        a: impl FnOnce(&mut Self) -> Result<Val>,
        b: impl FnOnce(&mut Self) -> Result<Val>,
    ) -> Result<Val> {
        let env = self.env.clone();
        let (mut left, mut right) = (Ok(Val::Bad), Ok(Val::Bad));
        let then = self.side(env.clone(), |lower| {
            left = a(lower);
            Flow::Next
        });
        let orelse = self.side(env, |lower| {
            right = b(lower);
            Flow::Next
        });
        let changed = |env: &Env| env.0.iter().any(|(name, value)| self.env.get(*name) != Some(value));
        if changed(&then.env) || changed(&orelse.env) {
            return self.error_hint(
                span,
                "a part of an expression that is not always evaluated cannot draw random numbers",
                "draw into a variable first",
            );
        }
        let (left, right) = self.unify(span, left?, right?)?;
        let (left, right) = (self.materialize(left), self.materialize(right));
        if !left.same_type(&right) {
            let (a, b) = (self.type_name(&left), self.type_name(&right));
            return self.error(span, format!("this is {a} on one way and {b} on the other"));
        }
        let empty = |block: Block| self.b.kernel.block(block).insts.is_empty();
        if empty(then.block) && empty(orelse.block) {
            return Ok(self.select_val(test, &left, &right));
        }
        let inst = self.b.region(Op::If, smallvec![test], &[then.block, orelse.block]);
        Ok(self.merge(inst, (then.block, &left), (orelse.block, &right)))
    }

    /// One of two values of one type, both of which are there.
    pub(super) fn select_val(&mut self, test: Value, a: &Val, b: &Val) -> Val {
        let (mut left, mut right) = (Values::new(), Values::new());
        a.parts(&mut left);
        b.parts(&mut right);
        let chosen: Values = left.iter().zip(&right).map(|(&x, &y)| self.b.select(test, x, y)).collect();
        a.with_parts(&mut chosen.into_iter())
    }

    /// Begins a loop over `body`: its variables become arguments of the block.
    pub(super) fn carry(&mut self, block: Block, body: &[Stmt], target: Option<Symbol>) -> Carried {
        let mut names: Vec<Symbol> = vec![];
        let mut add = |name: Symbol| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        target.into_iter().for_each(&mut add);
        assigned(&self.program.module.names, body, &mut add);
        let hidden = self.program.hidden;
        if leaves(body, true) {
            add(hidden.returned);
            add(hidden.value);
        }
        if leaves(body, false) {
            add(hidden.broke);
        }
        let mut initial = Values::new();
        let mut carried = vec![];
        for name in names {
            let Some(value) = self.env.get(name).cloned() else {
                carried.push(name);
                continue;
            };
            if !value.is_carried() {
                continue;
            }
            carried.push(name);
            let start = initial.len();
            value.parts(&mut initial);
            let args: Values = initial[start..]
                .iter()
                .map(|&part| {
                    let ty = self.b.kernel.ty(part);
                    self.b.kernel.block_arg(block, ty)
                })
                .collect();
            let value = value.with_parts(&mut args.into_iter());
            self.name_parts(name, &value);
            self.env.set(name, value);
        }
        Carried { names: carried, initial }
    }

    /// Ends a loop: yields what the variables are at the end of the body, and makes them the loop's results. `before` is the
    /// environment in front of it, `end` that at the end of the body.
    pub(super) fn close(
        &mut self,
        span: Span,
        (inst, block): (crate::ir::Inst, Block),
        carried: Carried,
        before: &Env,
        end: &Env,
    ) {
        // New variables were added behind the others' arguments.
        let (known, new): (Vec<_>, Vec<_>) =
            carried.names.into_iter().partition(|&name| before.get(name).is_some());
        for name in known.into_iter().chain(new) {
            let last = end.get(name).cloned();
            let after = match (before.get(name), last) {
                (Some(first), Some(last)) if first.same_type(&last) => self.close_one(inst, block, &last),
                (_, Some(Val::Bad)) | (Some(Val::Bad), _) => Val::Bad,
                (Some(first), Some(last)) => self.changed_type(span, name, first, &last),
                // First assigned in the loop: it has a value behind it, but none at its start.
                (None, Some(last)) if last.is_carried() => {
                    let mut parts = Values::new();
                    last.parts(&mut parts);
                    for &part in &parts {
                        let (ty, zero) = (self.b.kernel.ty(part), self.zero_like(part));
                        self.b.kernel.block_arg(block, ty);
                        self.b.kernel.insts[inst.index()].args.push(zero);
                    }
                    self.close_one(inst, block, &last)
                }
                (None, last) => match last {
                    Some(value) => value,
                    None => continue,
                },
                (Some(first), None) => first.clone(),
            };
            self.name_parts(name, &after);
            self.env.set(name, after);
        }
    }

    fn close_one(&mut self, inst: crate::ir::Inst, block: Block, last: &Val) -> Val {
        let mut parts = Values::new();
        last.parts(&mut parts);
        let results: Values = parts
            .iter()
            .map(|&part| {
                self.b.kernel.blocks[block.index()].yields.push(part);
                let ty = self.b.kernel.ty(part);
                self.b.kernel.inst_result(inst, ty)
            })
            .collect();
        last.with_parts(&mut results.into_iter())
    }

    fn changed_type(&mut self, span: Span, name: Symbol, first: &Val, last: &Val) -> Val {
        let (first, last) = (self.type_name(first), self.type_name(last));
        let name = self.text(name);
        self.errors.push(
            Diagnostic::new(
                span,
                format!("`{name}` is {first} in front of this loop and {last} at the end of its body"),
            )
            .hint("convert it, or use another name in the loop"),
        );
        Val::Bad
    }

    /// Runs `build` for a loop's body with fresh flags for `break` and `continue`, then puts back those around it.
    pub(super) fn in_loop(&mut self, block: Block, build: impl FnOnce(&mut Self)) -> Env {
        let hidden = self.program.hidden;
        let outer = std::mem::replace(&mut self.b.block, block);
        self.set_flag(hidden.continued, false);
        // The body runs only if the loop was not left.
        for flag in [hidden.returned, hidden.broke] {
            if self.flag(flag).is_some() {
                self.set_flag(flag, false);
            }
        }
        build(self);
        self.b.block = outer;
        self.env.clone()
    }

    /// The flags of the loops around, for the time of an inner one.
    pub(super) fn hide_flags(&mut self) -> [Option<Val>; 2] {
        let hidden = self.program.hidden;
        let old = [self.env.remove(hidden.broke), self.env.remove(hidden.continued)];
        self.set_flag(hidden.broke, false);
        old
    }

    pub(super) fn restore_flags(&mut self, flags: [Option<Val>; 2]) {
        let hidden = self.program.hidden;
        for (name, flag) in [hidden.broke, hidden.continued].into_iter().zip(flags) {
            self.env.remove(name);
            if let Some(flag) = flag {
                self.env.set(name, flag);
            }
        }
    }

    /// Whether the loop was left by `break` or `return`.
    fn left(&mut self) -> Value {
        let hidden = self.program.hidden;
        let mut any = self.b.bool(false);
        for flag in [hidden.returned, hidden.broke] {
            if let Some(flag) = self.flag(flag) {
                any = self.b.binary(Binary::Or, any, flag);
            }
        }
        any
    }

    /// `while test: body`.
    pub(super) fn while_loop(&mut self, span: Span, test: &'a Expr, body: &'a [Stmt]) -> Flow {
        let Ok(first) = self.truth(test) else { return Flow::Next };
        let flags = self.hide_flags();
        let block = self.b.kernel.new_block();
        let before = self.env.clone();
        let carried = self.carry(block, body, None);
        let end = self.in_loop(block, |lower| {
            lower.block(body);
            lower.b.span = test.span;
            let next = lower.go_on(test.span, is_harmless(test), |lower| lower.truth(test));
            lower.b.kernel.blocks[lower.b.block.index()].yields.push(next);
        });
        self.finish_while(span, (first, block), carried, before, end, flags)
    }

    fn finish_while(
        &mut self,
        span: Span,
        (first, block): (Value, Block),
        carried: Carried,
        before: Env,
        end: Env,
        flags: [Option<Val>; 2],
    ) -> Flow {
        let mut args: Values = smallvec![first];
        args.extend_from_slice(&carried.initial);
        self.b.span = span;
        let inst = self.b.region(Op::While, args, &[block]);
        self.env = before.clone();
        self.close(span, (inst, block), carried, &before, &end);
        self.restore_flags(flags);
        Flow::Next
    }

    /// Whether a loop goes on: not if it was left, which spares the test unless that is harmless; else what it says.
    fn go_on(&mut self, span: Span, harmless: bool, test: impl FnOnce(&mut Self) -> Result<Value>) -> Value {
        let left = self.left();
        let off = self.b.bool(false);
        match self.b.kernel.as_const(left) {
            Some(known) if known.is(1) => return off,
            Some(_) => return test(self).unwrap_or(off),
            None if harmless => {
                let test = test(self).unwrap_or(off);
                let stays = self.b.not(left);
                return self.b.binary(Binary::And, stays, test);
            }
            None => {}
        }
        // What follows the test is not lowered any more, so what it might change is forgotten.
        let env = self.env.clone();
        let go = self.choose(
            span,
            left,
            |lower| Ok(Val::scalar(DType::Bool, lower.b.bool(false))),
            |lower| Ok(Val::scalar(DType::Bool, test(lower)?)),
        );
        self.env = env;
        match go {
            Ok(Val::Data(_, parts)) => parts[0],
            _ => off,
        }
    }

    /// `for target in range(low, high, step): body`.
    pub(super) fn for_loop(
        &mut self,
        span: Span,
        target: Symbol,
        bounds: [Value; 3],
        body: &'a [Stmt],
    ) -> Flow {
        let flags = self.hide_flags();
        let block = self.b.kernel.new_block();
        let before = self.env.clone();
        let leaves = leaves(body, true) || leaves(body, false);
        let dtype = self.b.kernel.dtype(bounds[0]);
        let index = self.b.kernel.block_arg(block, Type::Scalar(dtype));
        let text = self.text(target);
        self.b.kernel.set_name(index, text);
        let carried = self.carry(block, body, Some(target));
        self.env.set(target, Val::scalar(dtype, index));
        if !leaves {
            let end = self.in_loop(block, |lower| {
                lower.block(body);
            });
            let mut args: Values = bounds.into_iter().collect();
            args.extend_from_slice(&carried.initial);
            self.b.span = span;
            let inst = self.b.region(Op::For, args, &[block]);
            self.env = before.clone();
            self.close(span, (inst, block), carried, &before, &end);
            self.restore_flags(flags);
            return Flow::Next;
        }
        let [low, high, step] = bounds;
        let first = self.below(low, high, step);
        let end = self.in_loop(block, |lower| {
            lower.block(body);
            let next = lower.b.add(index, step);
            let go = lower.go_on(span, true, |lower| Ok(lower.below(next, high, step)));
            lower.b.kernel.blocks[lower.b.block.index()].yields.extend([go, next]);
        });
        let inst_args =
            Carried { names: carried.names, initial: [&[low], &carried.initial[..]].concat().into() };
        self.finish_counted(span, (first, block), inst_args, before, end, flags)
    }

    /// A `while` whose first carried value is the index, which is no variable.
    fn finish_counted(
        &mut self,
        span: Span,
        (first, block): (Value, Block),
        carried: Carried,
        before: Env,
        end: Env,
        flags: [Option<Val>; 2],
    ) -> Flow {
        let mut args: Values = smallvec![first];
        args.extend_from_slice(&carried.initial);
        self.b.span = span;
        let inst = self.b.region(Op::While, args, &[block]);
        let ty = self.b.kernel.ty(carried.initial[0]);
        self.b.kernel.inst_result(inst, ty);
        self.env = before.clone();
        self.close(span, (inst, block), carried, &before, &end);
        self.restore_flags(flags);
        Flow::Next
    }

    /// After a mistake in a header, what its blocks assign is unknown, which is silent.
    pub(super) fn forget(&mut self, blocks: &[&[Stmt]]) {
        let mut names = vec![];
        let all = &self.program.module.names;
        blocks.iter().for_each(|block| assigned(all, block, &mut |name| names.push(name)));
        for name in names {
            if !matches!(self.env.get(name), Some(Val::Array(..))) {
                self.env.set(name, Val::Bad);
            }
        }
    }

    /// Whether a range has `index` still before it.
    fn below(&mut self, index: Value, high: Value, step: Value) -> Value {
        match self.b.kernel.as_const(step).and_then(Const::as_int) {
            Some(0) => self.b.bool(false),
            Some(1..) => self.b.compare(Compare::Lt, index, high),
            Some(_) => self.b.compare(Compare::Gt, index, high),
            None => {
                let zero = self.zero_like(step);
                let up = self.b.compare(Compare::Gt, step, zero);
                let down = self.b.compare(Compare::Lt, step, zero);
                let (less, more) =
                    (self.b.compare(Compare::Lt, index, high), self.b.compare(Compare::Gt, index, high));
                let (a, b) = (self.b.binary(Binary::And, up, less), self.b.binary(Binary::And, down, more));
                self.b.binary(Binary::Or, a, b)
            }
        }
    }
}

/// The name of one scalar of a variable.
fn component(value: &Val, i: usize) -> String {
    use super::value::{Data, Form};
    match value {
        Val::Data(Data { form: Form::Vec(2..=4) | Form::Quat, .. }, _) => {
            ["x", "y", "z", "w"][i.min(3)].into()
        }
        Val::Data(Data { form: Form::Mat(_, columns), .. }, _) => {
            let columns = usize::from(*columns).max(1);
            format!("{}{}", i / columns, i % columns)
        }
        _ => i.to_string(),
    }
}

/// Whether statements hold a `return`, or a `break` of the loop whose body they are.
fn leaves(stmts: &[Stmt], by_return: bool) -> bool {
    stmts.iter().any(|stmt| match &stmt.kind {
        StmtKind::Return(_) => by_return,
        StmtKind::Break => !by_return,
        StmtKind::If { body, orelse, .. } => leaves(body, by_return) || leaves(orelse, by_return),
        StmtKind::For { body, .. } | StmtKind::While { body, .. } => by_return && leaves(body, true),
        _ => false,
    })
}
