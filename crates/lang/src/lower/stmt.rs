//! Statements other than branches: assignments, loops' headers, returns, assertions.

use bullet_ops::DType;

use super::control::Flow;
use super::memory::Place;
use super::value::{Array, Data, Element, Form, Literal, Ty, Val};
use super::{Lower, Reported, Result};
use crate::diag::Span;
use crate::ir::{Atomic, Op, Value, Values};
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, Stmt, StmtKind, Symbol};

impl<'a> Lower<'a> {
    /// One statement that is no branch. What is wrong in it was recorded.
    pub(super) fn stmt(&mut self, stmt: &'a Stmt) -> Flow {
        let hidden = self.program.hidden;
        match &stmt.kind {
            StmtKind::Assign { target, value } => self.assignment(target, value, None),
            StmtKind::Declare { target, annotation, value } => {
                self.assignment(target, value, Some(annotation))
            }
            StmtKind::Update { target, op, value } => {
                let _ = self.update(stmt.span, target, *op, value);
            }
            StmtKind::For { target, iter, body } => return self.for_statement(stmt.span, target, iter, body),
            StmtKind::While { test, body } => return self.while_loop(stmt.span, test, body),
            StmtKind::Break => return self.leave(hidden.broke),
            StmtKind::Continue => return self.leave(hidden.continued),
            StmtKind::Return(value) => return self.return_statement(stmt.span, value.as_ref()),
            StmtKind::Assert { test, message } => {
                let _ = self.assert(stmt.span, test, message.as_ref());
            }
            StmtKind::Expr(expr) => match expr.kind {
                // A docstring.
                ExprKind::Str(_) => {}
                ExprKind::Call { .. } => {
                    let _ = self.expr(expr);
                }
                _ => {
                    let _: Result<()> = self.error_hint(
                        expr.span,
                        "this statement does nothing",
                        "assign the value, or remove it",
                    );
                }
            },
            // Branches are lowered with what follows them, by `block`.
            StmtKind::If { .. } | StmtKind::Pass => {}
        }
        Flow::Next
    }

    fn assignment(&mut self, target: &'a Expr, value: &'a Expr, annotation: Option<&'a Expr>) {
        let value = self.assigned_value(target, value, annotation);
        let _ = match value {
            Ok(value) => self.assign(target, value).or_else(|_| self.poison(target)),
            Err(Reported) => self.poison(target),
        };
    }

    fn assigned_value(&mut self, target: &Expr, value: &'a Expr, annotation: Option<&Expr>) -> Result<Val> {
        // How many places `tid` gives is how many are asked for.
        if let (ExprKind::Tuple(items), ExprKind::Call { func, args, .. }) = (&target.kind, &value.kind)
            && args.is_empty()
            && self.builtin_name(func) == Some("tid")
        {
            return self.tid(value.span, items.len());
        }
        let value_span = value.span;
        let value = self.expr(value)?;
        let Some(annotation) = annotation else { return Ok(value) };
        let ty = self.resolve_type(annotation)?;
        self.convert(value_span, value, ty)
    }

    /// The thread's place in a grid of this many dimensions.
    pub(super) fn tid(&mut self, span: Span, dims: usize) -> Result<Val> {
        if !(1..=4).contains(&dims) {
            return self.error(span, format!("a grid has 1 to 4 dimensions, not {dims}"));
        }
        if self.grid != 0 && usize::from(self.grid) != dims {
            let message =
                format!("`tid` gives {dims} places here and {} elsewhere in this kernel", self.grid);
            return self.error_hint(
                span,
                message,
                "a kernel has one grid: ask for all its dimensions everywhere",
            );
        }
        self.grid = dims as u8;
        let items: Vec<Val> = (0..dims as u8).map(|axis| Val::scalar(DType::I32, self.b.tid(axis))).collect();
        Ok(match items.len() {
            1 => items[0].clone(),
            _ => Val::Tuple(items),
        })
    }

    /// Puts a value where a target says.
    fn assign(&mut self, target: &'a Expr, value: Val) -> Result<()> {
        match &target.kind {
            ExprKind::Name(name) => self.bind(target.span, *name, value),
            ExprKind::Tuple(items) => self.unpack(target.span, items, value),
            ExprKind::Attribute(..) | ExprKind::Subscript(..) if self.element_type_of(target).is_some() => {
                let Some((array, indices)) = self.element_place(target)? else { return Err(Reported) };
                self.b.span = target.span;
                self.store_element(target.span, &array, &indices, value)
            }
            ExprKind::Attribute(base, name) => {
                self.refuse_calls(base)?;
                let old = self.expr(base)?;
                let new = self.replace_attribute(target.span, old, *name, value)?;
                self.assign(base, new)
            }
            ExprKind::Subscript(base, indices) => {
                if let Some(place) = self.adjoint_place(base, indices) {
                    let (variable, at) = place?;
                    let Some(Val::Tuple(mut items)) = self.env.get(variable).cloned() else {
                        return Err(Reported);
                    };
                    let ty = items[at].clone();
                    let value = match (&ty, value) {
                        (Val::Data(data, _), value) => self.convert(target.span, value, Ty::Data(*data))?,
                        (Val::Struct(id, _), value) => self.convert(target.span, value, Ty::Struct(*id))?,
                        (_, value) => value,
                    };
                    items[at] = value;
                    self.env.set(variable, Val::Tuple(items));
                    return Ok(());
                }
                let old = self.expr(base)?;
                if let Val::Array(array) = old {
                    return match self.place_in(target.span, &array, indices)? {
                        Place::Element(indices) => self.store_element(target.span, &array, &indices, value),
                        Place::Part(_) => self.error_hint(
                            target.span,
                            "a part of an array cannot be assigned",
                            "assign its elements in a loop",
                        ),
                    };
                }
                indices.iter().chain([&**base]).try_for_each(|index| self.refuse_calls(index))?;
                let new = self.replace_component(target.span, old, indices, value)?;
                self.assign(base, new)
            }
            _ => self.error(target.span, "this cannot be assigned"),
        }
    }

    /// What is assigned a component is evaluated twice.
    fn refuse_calls(&mut self, expr: &Expr) -> Result<()> {
        if !has_call(expr) {
            return Ok(());
        }
        self.error_hint(
            expr.span,
            "the index of a component that is assigned cannot hold a call",
            "put the index into a variable first",
        )
    }

    fn bind(&mut self, span: Span, name: Symbol, value: Val) -> Result<()> {
        let value = match value {
            Val::Tuple(_) => {
                return self.error_hint(
                    span,
                    "a variable cannot hold a tuple",
                    "assign each item to a variable",
                );
            }
            Val::Str(_) => return self.error(span, "a variable cannot hold a string"),
            Val::None => return self.error(span, "there is no value to assign: the function returns none"),
            value => self.materialize_at(span, value)?,
        };
        self.name_parts(name, &value);
        if let Val::Array(array) = &value {
            self.name_local(name, array);
        }
        self.env.set(name, value);
        Ok(())
    }

    fn unpack(&mut self, span: Span, items: &'a [Expr], value: Val) -> Result<()> {
        let values = match value {
            Val::Tuple(values) => values,
            Val::Data(Data { form: Form::Vec(_) | Form::Quat, dtype }, parts) => {
                parts.into_iter().map(|part| Val::scalar(dtype, part)).collect()
            }
            Val::Bad => vec![Val::Bad; items.len()],
            other => {
                let found = self.type_name(&other);
                return self.error(span, format!("{found} cannot be unpacked"));
            }
        };
        if values.len() != items.len() {
            return self.error(span, format!("{} values for {} targets", values.len(), items.len()));
        }
        for (item, value) in items.iter().zip(values) {
            self.assign(item, value)?;
        }
        Ok(())
    }

    /// After a mistake the targets are unknown, which is silent.
    fn poison(&mut self, target: &Expr) -> Result<()> {
        match &target.kind {
            ExprKind::Name(name) => self.env.set(*name, Val::Bad),
            ExprKind::Tuple(items) => {
                for item in items {
                    self.poison(item)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn update(&mut self, span: Span, target: &'a Expr, op: BinaryOp, value: &'a Expr) -> Result<()> {
        if self.element_type_of(target).is_some() {
            let Some((array, indices)) = self.element_place(target)? else { return Err(Reported) };
            return self.update_element(span, &array, &indices, op, value);
        }
        let old = self.expr(target);
        let new = self.expr(value);
        match (old, new) {
            (Ok(old), Ok(new)) => {
                let result = self.binary(span, op, old, new);
                match result {
                    Ok(result) => self.assign(target, result),
                    Err(Reported) => self.poison(target),
                }
            }
            _ => self.poison(target),
        }
    }

    /// `a[i] += x` is an atomic update, as other threads may update the same element; operations that no atomic has read
    /// and write.
    fn update_element(
        &mut self,
        span: Span,
        array: &Array,
        indices: &[Value],
        op: BinaryOp,
        value: &'a Expr,
    ) -> Result<()> {
        let Element::Data(data) = array.element else {
            let found = self.ty_name(array.ty());
            let message = format!("`{}=` cannot be applied to an element of an {found}", op.text());
            return self.error_hint(span, message, "update its fields");
        };
        let atomic = match op {
            BinaryOp::Add | BinaryOp::Sub => Some(Atomic::Add),
            BinaryOp::And => Some(Atomic::And),
            BinaryOp::Or => Some(Atomic::Or),
            BinaryOp::Xor => Some(Atomic::Xor),
            _ => None,
        };
        let value = self.expr(value)?;
        if let Some(atomic) = atomic.filter(|atomic| atomic.takes(data.dtype)) {
            let mut lanes = self.element(span, data, value)?;
            if op == BinaryOp::Sub {
                lanes = lanes.iter().map(|&lane| self.b.neg(lane)).collect();
            }
            self.update_atomically(atomic, array, indices, &lanes);
            return Ok(());
        }
        let old = self.load_element(array, indices)?;
        let new = self.binary(span, op, old, value)?;
        self.store_element(span, array, indices, new)
    }

    fn for_statement(&mut self, span: Span, target: &'a Expr, iter: &'a Expr, body: &'a [Stmt]) -> Flow {
        let over = match self.is_range(iter) {
            true => self.range(iter).map(|bounds| (bounds, None)),
            false => self.loop_items(iter).map(|items| {
                let bounds = [0, items.len() as i64, 1].map(|bound| self.b.int(DType::I32, bound));
                (bounds, Some(items))
            }),
        };
        let name = match target.kind {
            ExprKind::Name(name) => Ok(name),
            _ => self.error_hint(
                target.span,
                "a loop has one variable",
                "loop over `range(n)`, and take what belongs to each index",
            ),
        };
        if let (Ok((bounds, items)), Ok(name)) = (over, name) {
            return self.for_loop(span, name, bounds, items, body);
        }
        // The body is still looked at, for further mistakes.
        let _ = self.poison(target);
        let block = self.b.kernel.new_block();
        let flags = self.hide_flags();
        let env = self.env.clone();
        self.in_loop(block, |lower| {
            lower.block(body);
        });
        self.env = env;
        self.restore_flags(flags);
        self.forget(&[body]);
        Flow::Next
    }

    fn is_range(&self, iter: &Expr) -> bool {
        let ExprKind::Call { func, .. } = &iter.kind else { return false };
        matches!(func.kind, ExprKind::Name(name) if self.text(name) == "range")
            || self.builtin_name(func) == Some("range")
    }

    /// What a loop goes over that is no range: the items of a tuple, the components of a vector.
    fn loop_items(&mut self, iter: &'a Expr) -> Result<Vec<Val>> {
        const MESSAGE: &str = "kernels loop over ranges, tuples and vectors only";
        if let ExprKind::Call { func, .. } = &iter.kind
            && let ExprKind::Name(name) = func.kind
            && matches!(self.text(name), "enumerate" | "zip" | "reversed" | "map" | "filter" | "sorted")
        {
            let hint = "loop over `range(n)`, and take what belongs to each index";
            return self.error_hint(iter.span, MESSAGE, hint);
        }
        let items = match self.expr(iter)? {
            Val::Tuple(items) => items,
            Val::Data(Data { form: Form::Vec(_), dtype }, parts) => {
                parts.into_iter().map(|part| Val::scalar(dtype, part)).collect()
            }
            Val::Array(_) => {
                return self.error_hint(iter.span, MESSAGE, "write `for i in range(len(a)):`, and `a[i]`");
            }
            _ => return self.error_hint(iter.span, MESSAGE, "write `for i in range(n):`"),
        };
        if items.is_empty() { Ok(items) } else { self.alike(iter.span, items) }
    }

    /// The bounds and step of a range.
    fn range(&mut self, iter: &'a Expr) -> Result<[Value; 3]> {
        let args = match &iter.kind {
            ExprKind::Call { args, keywords, .. } if keywords.is_empty() => args,
            _ => return self.error(iter.span, "range takes its arguments by position"),
        };
        if !(1..=3).contains(&args.len()) {
            return self.error(iter.span, format!("range takes 1 to 3 arguments, not {}", args.len()));
        }
        let mut values = vec![];
        for arg in args {
            let value = self.expr(arg)?;
            values.push((arg.span, value));
        }
        let typed = values.iter().find_map(|(_, value)| match value {
            Val::Data(data, _) => Some(data.dtype),
            _ => None,
        });
        let dtype = typed.unwrap_or(DType::I32);
        let mut bounds = vec![];
        for (span, value) in values {
            bounds.push(self.scalar_of(span, value, dtype)?);
        }
        if !matches!(dtype, DType::I32 | DType::I64) {
            let name = super::value::dtype_name(dtype);
            return self.error_hint(
                iter.span,
                format!("the bounds of a range are int32 or int64, not {name}"),
                "write int(n)",
            );
        }
        let (zero, one) = (self.b.int(dtype, 0), self.b.int(dtype, 1));
        let bounds = match bounds[..] {
            [high] => [zero, high, one],
            [low, high] => [low, high, one],
            [low, high, step] => [low, high, step],
            _ => return Err(Reported),
        };
        if self.b.kernel.as_const(bounds[2]).is_some_and(|step| step.is(0)) {
            return self.error(iter.span, "the step of a range cannot be 0");
        }
        Ok(bounds)
    }

    fn return_statement(&mut self, span: Span, value: Option<&'a Expr>) -> Flow {
        let hidden = self.program.hidden;
        if let Some(value) = value {
            let lowered = self.expr(value);
            match lowered {
                Ok(_) if self.in_kernel => {
                    let _: Result<()> = self.error_hint(
                        span,
                        "a kernel returns no value",
                        "store results in an array that is a parameter",
                    );
                }
                Ok(result) => {
                    let result = match self.returns {
                        Some(ty) => self.convert(value.span, result, ty).unwrap_or(Val::Bad),
                        None => self.materialize(result),
                    };
                    self.env.set(hidden.value, result);
                }
                Err(Reported) => self.env.set(hidden.value, Val::Bad),
            }
        }
        self.leave(hidden.returned)
    }

    fn assert(&mut self, span: Span, test: &'a Expr, message: Option<&'a Expr>) -> Result<()> {
        let test = self.truth(test)?;
        let text = match message.map(|message| &message.kind) {
            Some(ExprKind::Str(text)) => text.clone(),
            Some(_) => return self.error(span, "the message of an assertion is a string in the source"),
            None => "assertion failed".into(),
        };
        let text = self.b.kernel.add_text(&text);
        self.b.emit(Op::Assert(text), Values::from_slice(&[test]), &[]);
        Ok(())
    }

    /// A literal as a value of the type that a variable of it has: int32, float32 or bool.
    pub(super) fn materialize(&mut self, value: Val) -> Val {
        self.materialize_at(self.b.span, value).unwrap_or(Val::Bad)
    }

    pub(super) fn materialize_at(&mut self, span: Span, value: Val) -> Result<Val> {
        let dtype = match value {
            Val::Literal(Literal::Int(_)) => DType::I32,
            Val::Literal(Literal::Float(_)) => DType::F32,
            Val::Literal(Literal::Bool(_)) => DType::Bool,
            Val::Tuple(items) => {
                let items = items.into_iter().map(|item| self.materialize_at(span, item));
                return Ok(Val::Tuple(items.collect::<Result<_>>()?));
            }
            value => return Ok(value),
        };
        let part = self.literal(span, &value, dtype)?;
        Ok(Val::scalar(dtype, part))
    }

    /// A value of a type that is asked for; literals become it.
    pub(super) fn convert(&mut self, span: Span, value: Val, ty: Ty) -> Result<Val> {
        match (value, ty) {
            (Val::Bad, _) => Ok(Val::Bad),
            (value, Ty::Any) => Ok(self.materialize(value)),
            (Val::Data(data, parts), Ty::Open(open)) if open.takes(data) => Ok(Val::Data(data, parts)),
            (Val::Literal(literal), Ty::Data(Data { form: Form::Scalar, dtype })) => {
                let part = self.literal(span, &Val::Literal(literal), dtype)?;
                Ok(Val::scalar(dtype, part))
            }
            (Val::Data(found, parts), Ty::Data(data)) if found == data => Ok(Val::Data(data, parts)),
            (Val::Struct(found, fields), Ty::Struct(id)) if found == id => Ok(Val::Struct(id, fields)),
            (Val::Array(array), Ty::Array(element, ndim))
                if array.ndim() == usize::from(ndim)
                    && (array.element == element || element == Element::Any) =>
            {
                Ok(Val::Array(array))
            }
            (value, ty) => {
                let (found, expected) = (self.type_name(&value), self.ty_name(ty));
                self.error_hint(
                    span,
                    format!("expected {expected}, found {found}"),
                    "types are not converted unasked: write float(x), int(x), wp.float64(x) and so on",
                )
            }
        }
    }

    pub(super) fn ty_name(&self, ty: Ty) -> String {
        match ty {
            Ty::Data(data) => data.name(),
            Ty::Struct(id) => self.text(self.program.classes[id as usize].name).into(),
            Ty::Array(element, ndim) => {
                let element = match element {
                    Element::Data(data) => data.name(),
                    Element::Struct(id) => self.text(self.program.classes[id as usize].name).into(),
                    Element::Any => "anything".into(),
                };
                format!("array of {element} with {ndim} dimensions")
            }
            Ty::Open(open) => open.name(),
            Ty::Any => "anything".into(),
        }
    }
}

/// Whether an expression calls anything, which would then be done twice.
fn has_call(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call { .. } => true,
        ExprKind::Unary(_, a) | ExprKind::Attribute(a, _) => has_call(a),
        ExprKind::Binary(_, a, b) => has_call(a) || has_call(b),
        ExprKind::Compare(a, rest) => has_call(a) || rest.iter().any(|item| has_call(&item.1)),
        ExprKind::Logic(_, items) | ExprKind::Tuple(items) => items.iter().any(has_call),
        ExprKind::Subscript(a, items) => has_call(a) || items.iter().any(has_call),
        ExprKind::Slice(bounds) => bounds.iter().flatten().any(has_call),
        ExprKind::Ternary { test, body, orelse } => has_call(test) || has_call(body) || has_call(orelse),
        _ => false,
    }
}
