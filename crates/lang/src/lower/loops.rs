//! Loops: their variables become arguments of the body's block, and their results.

use bullet_ops::DType;
use smallvec::smallvec;

use super::control::Flow;
use super::expr::is_harmless;
use super::flow::assigned;
use super::value::Val;
use super::{Env, Lower, Result};
use crate::diag::{Diagnostic, Span};
use crate::ir::{Binary, Block, Compare, Const, Op, Type, Value, Values};
use crate::syntax::ast::{Expr, Stmt, StmtKind, Symbol};

/// The variables that a loop carries.
pub(super) struct Carried {
    names: Vec<Symbol>,
    pub(super) initial: Values,
}

impl<'a> Lower<'a> {
    /// Begins a loop over `body`: its variables become arguments of the block.
    pub(super) fn carry(&mut self, block: Block, body: &[Stmt], target: Option<Symbol>) -> Carried {
        let mut names: Vec<Symbol> = vec![];
        let mut add = |name: Symbol| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        target.into_iter().for_each(&mut add);
        assigned(self.program.names, body, &mut add);
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
            if !value.is_carried() && !matches!(value, Val::Array(_) | Val::Struct(..)) {
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
        let (mut first, mut last) = (self.type_name(first), self.type_name(last));
        if first == last {
            (first, last) = ("one array".into(), "another".into());
        }
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
        self.finish_while(span, (first, None, block), carried, before, end, flags)
    }

    /// Ends a `while`: whether it begins, and the first index of one that counts, which it carries before the variables.
    fn finish_while(
        &mut self,
        span: Span,
        (first, index, block): (Value, Option<Value>, Block),
        carried: Carried,
        before: Env,
        end: Env,
        flags: [Option<Val>; 2],
    ) -> Flow {
        let mut args: Values = smallvec![first];
        args.extend(index);
        args.extend_from_slice(&carried.initial);
        self.b.span = span;
        let inst = self.b.region(Op::While, args, &[block]);
        if let Some(index) = index {
            let ty = self.b.kernel.ty(index);
            self.b.kernel.inst_result(inst, ty);
        }
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

    /// `for target in range(low, high, step): body`; with items the target is the one of that number.
    pub(super) fn for_loop(
        &mut self,
        span: Span,
        target: Symbol,
        bounds: [Value; 3],
        items: Option<Vec<Val>>,
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
        let begin = |lower: &mut Self| {
            if let Some(items) = items.filter(|items| !items.is_empty()) {
                let item = lower.chosen(&items, index);
                lower.env.set(target, item);
            }
        };
        if !leaves {
            let end = self.in_loop(block, |lower| {
                begin(lower);
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
            begin(lower);
            lower.block(body);
            let next = lower.b.add(index, step);
            let go = lower.go_on(span, true, |lower| Ok(lower.below(next, high, step)));
            lower.b.kernel.blocks[lower.b.block.index()].yields.extend([go, next]);
        });
        self.finish_while(span, (first, Some(low), block), carried, before, end, flags)
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
