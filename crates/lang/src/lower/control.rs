//! Branches: SSA values for what they assign, flags for what leaves.

use bullet_ops::DType;
use smallvec::smallvec;

use super::flow::assigned;
use super::value::Val;
use super::{Env, Lower, Result};
use crate::diag::Span;
use crate::ir::{Binary, Block, Const, Op, Value, Values};
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
    pub(super) fn flag(&self, name: Symbol) -> Option<Value> {
        match self.env.get(name) {
            Some(Val::Data(_, parts)) => parts.first().copied(),
            _ => None,
        }
    }

    pub(super) fn set_flag(&mut self, name: Symbol, value: bool) {
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
            let (mut left, mut right) = (self.type_name(a.1), self.type_name(b.1));
            if left == right {
                (left, right) = ("one array".into(), "another".into());
            }
            return Val::Conflict(left, right);
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

    pub(super) fn zero_like(&mut self, value: Value) -> Value {
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

    /// After a mistake in a header, what its blocks assign is unknown, which is silent.
    pub(super) fn forget(&mut self, blocks: &[&[Stmt]]) {
        let mut names = vec![];
        let all = &self.program.names;
        blocks.iter().for_each(|block| assigned(all, block, &mut |name| names.push(name)));
        for name in names {
            if !matches!(self.env.get(name), Some(Val::Array(..))) {
                self.env.set(name, Val::Bad);
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
