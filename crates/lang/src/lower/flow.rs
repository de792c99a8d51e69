//! Definite assignment: each read of a variable must lie behind an assignment on every way there.
//!
//! Lowering gives what is not assigned a zero, so that merging is total; this check, on the tree and before lowering, is
//! what makes sure that nobody sees it.

use rustc_hash::FxHashMap;

use super::Lower;
use crate::diag::{Diagnostic, Span};
use crate::library;
use crate::syntax::ast::{Expr, ExprKind, Function, Names, Stmt, StmtKind, Symbol};

/// Which variables are assigned; `None` where control does not come.
type State = Option<Vec<bool>>;

struct Checker<'a, 'b> {
    lower: &'b mut Lower<'a>,
    variables: FxHashMap<Symbol, usize>,
    /// What is assigned at the `break`s of each loop around, and at the ends of runs of its body.
    loops: Vec<(State, State)>,
}

impl<'a> Lower<'a> {
    /// Checks a function once, however often it is lowered; whether control may come to its end.
    pub(super) fn check_variables(&mut self, function: &'a Function) -> bool {
        let address: *const Function = function;
        if let Some(known) = self.checked.iter().find(|known| known.0 == address) {
            return known.1;
        }
        let mut variables = FxHashMap::default();
        let namespaces = &self.program.scope(function.scope).namespaces;
        let mut add = |name: Symbol| {
            // `wp.adjoint[x]` is assigned, and `wp` is no variable.
            if namespaces.contains_key(&name) {
                return;
            }
            let next = variables.len();
            variables.entry(name).or_insert(next);
        };
        function.params.iter().for_each(|param| add(param.name));
        let count = function.params.len();
        assigned(self.program.names, &function.body, &mut add);
        let mut state = vec![false; variables.len()];
        state[..count.min(variables.len())].fill(true);
        let end = Checker { lower: self, variables, loops: vec![] }.block(&function.body, Some(state));
        self.checked.push((address, end.is_some()));
        end.is_some()
    }
}

/// The variables that statements assign.
pub(super) fn assigned(names: &Names, stmts: &[Stmt], add: &mut impl FnMut(Symbol)) {
    for stmt in stmts {
        match &stmt.kind {
            StmtKind::Assign { target, value } | StmtKind::Declare { target, value, .. } => {
                advanced(names, value, add);
                targets(target, add);
            }
            StmtKind::Update { target, value, .. } => {
                advanced(names, value, add);
                targets(target, add);
            }
            StmtKind::If { test, body, orelse } => {
                advanced(names, test, add);
                assigned(names, body, add);
                assigned(names, orelse, add);
            }
            StmtKind::For { target, body, .. } => {
                targets(target, add);
                assigned(names, body, add);
            }
            StmtKind::While { test, body } => {
                advanced(names, test, add);
                assigned(names, body, add);
            }
            StmtKind::Return(Some(value)) | StmtKind::Expr(value) => advanced(names, value, add),
            _ => {}
        }
    }
}

/// The random states that an expression draws from, which changes them.
fn advanced(names: &Names, expr: &Expr, add: &mut impl FnMut(Symbol)) {
    let mut each = |inner: &Expr| advanced(names, inner, add);
    match &expr.kind {
        ExprKind::Unary(_, a) | ExprKind::Attribute(a, _) => each(a),
        ExprKind::Binary(_, a, b) => {
            each(a);
            each(b);
        }
        ExprKind::Compare(a, rest) => {
            each(a);
            rest.iter().for_each(|item| each(&item.1));
        }
        ExprKind::Logic(_, items) | ExprKind::Tuple(items) => items.iter().for_each(each),
        ExprKind::Slice(bounds) => bounds.iter().flatten().for_each(each),
        ExprKind::Ternary { test, body, orelse } => {
            each(test);
            each(body);
            each(orelse);
        }
        ExprKind::Subscript(a, items) => {
            each(a);
            items.iter().for_each(each);
        }
        ExprKind::Call { func, args, keywords } => {
            args.iter().for_each(&mut each);
            keywords.iter().for_each(|keyword| each(&keyword.1));
            let (ExprKind::Name(callee) | ExprKind::Attribute(_, callee)) = &func.kind else { return };
            let callee = names.text(*callee);
            let draws =
                matches!(callee, "randf" | "randi" | "randu" | "randn") || super::spatial::draws(callee) > 0;
            if let (true, Some(ExprKind::Name(state))) = (draws, args.first().map(|arg| &arg.kind)) {
                add(*state);
            }
            if library::fills(callee) {
                for arg in args.iter().skip(1) {
                    targets(arg, add);
                }
            }
        }
        _ => {}
    }
}

/// The variables of a target: `v[i]` and `v.x` change `v` if that is a vector or struct.
fn targets(target: &Expr, add: &mut impl FnMut(Symbol)) {
    match &target.kind {
        ExprKind::Name(name) => add(*name),
        ExprKind::Tuple(items) => items.iter().for_each(|item| targets(item, add)),
        ExprKind::Subscript(base, _) | ExprKind::Attribute(base, _) => targets(base, add),
        _ => {}
    }
}

fn meet(a: State, b: State) -> State {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a && *b).collect()),
        (a, b) => a.or(b),
    }
}

impl Checker<'_, '_> {
    fn block(&mut self, stmts: &[Stmt], mut state: State) -> State {
        for stmt in stmts {
            state = self.stmt(stmt, state);
        }
        state
    }

    fn stmt(&mut self, stmt: &Stmt, mut state: State) -> State {
        match &stmt.kind {
            StmtKind::Assign { target, value } | StmtKind::Declare { target, value, .. } => {
                self.read(value, &state);
                self.assign(target, &mut state);
            }
            StmtKind::Update { target, value, .. } => {
                self.read(target, &state);
                self.read(value, &state);
            }
            StmtKind::If { test, body, orelse } => {
                self.read(test, &state);
                let then = self.block(body, state.clone());
                return meet(then, self.block(orelse, state));
            }
            StmtKind::For { target, iter, body } => {
                self.read(iter, &state);
                let before = state.clone();
                self.assign(target, &mut state);
                let (breaks, ends) = self.repeat(body, state);
                return if runs(iter) { meet(ends, breaks) } else { before };
            }
            StmtKind::While { test, body } => {
                self.read(test, &state);
                let before = state.clone();
                let (breaks, _) = self.repeat(body, state);
                return if matches!(test.kind, ExprKind::Bool(true)) { breaks } else { before };
            }
            StmtKind::Break | StmtKind::Continue => {
                if let Some(inner) = self.loops.last_mut() {
                    let place =
                        if matches!(stmt.kind, StmtKind::Break) { &mut inner.0 } else { &mut inner.1 };
                    *place = meet(place.take(), state);
                }
                return None;
            }
            StmtKind::Return(value) => {
                value.iter().for_each(|value| self.read(value, &state));
                return None;
            }
            StmtKind::Assert { test, .. } => self.read(test, &state),
            StmtKind::Expr(value) => self.read(value, &state),
            StmtKind::Pass => {}
        }
        state
    }

    /// What is assigned where a loop is left by `break`, and where a run of its body ends.
    fn repeat(&mut self, body: &[Stmt], state: State) -> (State, State) {
        self.loops.push((None, None));
        let end = self.block(body, state);
        let (breaks, continues) = self.loops.pop().unwrap_or_default();
        (breaks, meet(end, continues))
    }

    fn assign(&mut self, target: &Expr, state: &mut State) {
        match &target.kind {
            ExprKind::Name(name) => {
                if let (Some(state), Some(&index)) = (state, self.variables.get(name)) {
                    state[index] = true;
                }
            }
            ExprKind::Tuple(items) => items.iter().for_each(|item| self.assign(item, state)),
            ExprKind::Subscript(base, indices) => {
                self.read(base, state);
                indices.iter().for_each(|index| self.read(index, state));
            }
            _ => self.read(target, state),
        }
    }

    fn read(&mut self, expr: &Expr, state: &State) {
        match &expr.kind {
            ExprKind::Name(name) => {
                if let (Some(state), Some(&index)) = (state, self.variables.get(name))
                    && !state[index]
                {
                    self.report(*name, expr.span);
                }
            }
            ExprKind::Unary(_, a) | ExprKind::Attribute(a, _) => self.read(a, state),
            ExprKind::Binary(_, a, b) => {
                self.read(a, state);
                self.read(b, state);
            }
            ExprKind::Compare(first, rest) => {
                self.read(first, state);
                rest.iter().for_each(|(_, item)| self.read(item, state));
            }
            ExprKind::Logic(_, items) | ExprKind::Tuple(items) => {
                items.iter().for_each(|item| self.read(item, state));
            }
            ExprKind::Slice(bounds) => bounds.iter().flatten().for_each(|bound| self.read(bound, state)),
            ExprKind::Ternary { test, body, orelse } => {
                [test, body, orelse].into_iter().for_each(|part| self.read(part, state));
            }
            ExprKind::Call { func, args, keywords } => {
                self.read(func, state);
                args.iter().for_each(|arg| self.read(arg, state));
                keywords.iter().for_each(|(_, arg)| self.read(arg, state));
            }
            ExprKind::Subscript(base, items) => {
                self.read(base, state);
                items.iter().for_each(|item| self.read(item, state));
            }
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::Str(_) | ExprKind::None => {
            }
        }
    }

    fn report(&mut self, name: Symbol, span: Span) {
        let name = self.lower.text(name);
        self.lower.errors.push(
            Diagnostic::new(span, format!("`{name}` may be read before it is assigned"))
                .hint("assign it before the branch or loop that may be passed by"),
        );
    }
}

/// Whether a `range` of literals runs at least once.
fn runs(iter: &Expr) -> bool {
    let ExprKind::Call { args, .. } = &iter.kind else { return false };
    let literal = |expr: &Expr| match expr.kind {
        ExprKind::Int(n) => Some(n),
        _ => None,
    };
    match args.iter().map(literal).collect::<Option<Vec<_>>>().as_deref() {
        Some([high]) => *high > 0,
        Some([low, high]) => low < high,
        Some([low, high, step]) => *step > 0 && low < high,
        _ => false,
    }
}
