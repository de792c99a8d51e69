//! Calls: of the module's functions, which are lowered into the caller, of types, and of built-in functions.

use super::value::{Data, Element, Form, Literal, Open, Ty, Val};
use super::{Env, Lower, Result};
use crate::diag::Span;
use crate::library;
use crate::syntax::ast::{Expr, ExprKind, Function, Symbol};
use bullet_ops::DType;

/// What kernels can call.
const CALLS: &str = "call functions with @wp.func, or wp's own";

/// How deep calls may nest, so that a chain of functions ends in a diagnostic and not in a crash.
const MAX_CALLS: usize = 32;

/// How many calls a kernel may hold, each lowered anew, and how many instructions; so that functions that call others twice
/// over and over end in a diagnostic.
const MAX_INLINED: usize = 5_000;
const MAX_INSTRUCTIONS: usize = 200_000;

impl<'a> Lower<'a> {
    /// The value of a call.
    pub(super) fn call(
        &mut self,
        span: Span,
        func: &Expr,
        args: &[Expr],
        keywords: &[(Symbol, Expr)],
    ) -> Result<Val> {
        if let ExprKind::Call { args: function, .. } = &func.kind
            && self.is_gradient(func)
        {
            if let Some((_, keyword)) = keywords.first() {
                return self.error(keyword.span, "a gradient takes its arguments by position");
            }
            return self.grad_call(span, &function[0], args);
        }
        if let Some(overloads) = self.functions_of(func) {
            if self.program.is_library(overloads[0]) {
                return self.call_library(span, overloads, args, keywords);
            }
            return self.call_function(span, overloads, args, keywords);
        }
        let path = self.program.path(self.scope, func);
        if let Some(ty) = self.find_type(func)? {
            return self.construct(span, ty, args, keywords);
        }
        if let Some(what) = path.and_then(|name| self.scope.others.get(&name)) {
            let name = path.map_or("", |name| self.text(name));
            let (what, hint) = what.split_once('\n').unwrap_or((what, CALLS));
            return self.error_hint(
                func.span,
                format!("`{name}` is {what}, which kernels cannot call"),
                hint,
            );
        }
        let name = match (self.builtin_name(func), &func.kind) {
            (Some(name), _) => name,
            (None, ExprKind::Name(name)) if self.env.get(*name).is_none() => {
                let name = self.text(*name);
                let python = ["abs", "min", "max", "len", "pow", "round", "print", "range"];
                if !python.contains(&name) {
                    return self.error_hint(
                        func.span,
                        format!("`{name}` is no function that kernels know"),
                        CALLS,
                    );
                }
                name
            }
            (None, ExprKind::Attribute(_, name)) => {
                return self.error_hint(
                    func.span,
                    format!("`{}` is no function that kernels know", self.text(*name)),
                    "kernels call functions of this module, and wp's own as wp.name",
                );
            }
            _ => return self.error(func.span, "this cannot be called"),
        };
        if let Some(made) = self.made_by_name(span, name, args, keywords)? {
            return Ok(made);
        }
        if let (true, Some((_, keyword))) = (name != "zeros", keywords.first()) {
            return self.error(keyword.span, format!("`{name}` takes its arguments by position"));
        }
        match (name, args) {
            ("static", [arg]) => return self.static_value(arg),
            ("constant", [arg]) => return self.expr(arg),
            ("zeros", _) => return self.zeros(span, args, keywords),
            ("tid", []) => return self.tid(span, 1),
            ("cast", [value, ty]) => return self.reinterpret(span, value, ty),
            ("where", [_, _, _]) => return self.where_call(span, args),
            ("address_of" | "ref", _) => return self.error(span, format!("`{name}` is not supported")),
            _ => {}
        }
        let values: Result<Vec<Val>> = args.iter().map(|arg| self.expr(arg)).collect();
        let values = values?;
        self.b.span = span;
        self.builtin(span, name, args, values)
    }

    /// The functions that an expression names, of the module or of wp, unless those are built in.
    pub(super) fn functions_of(&self, func: &Expr) -> Option<&'a [&'a Function]> {
        let path = self.program.path(self.scope, func);
        if let Some(known) = path.and_then(|name| self.scope.functions.get(&name)) {
            return Some(known);
        }
        self.program.library(self.builtin_name(func)?)
    }

    /// A call of a function of wp, which may be given variables for its results.
    fn call_library(
        &mut self,
        span: Span,
        overloads: &[&'a Function],
        args: &[Expr],
        keywords: &[(Symbol, Expr)],
    ) -> Result<Val> {
        let function = overloads[0];
        let name = self.text(function.name);
        let count = function.params.len();
        if args.len() <= count || !library::fills(name) {
            return self.call_function(span, overloads, args, keywords);
        }
        let (args, targets) = args.split_at(count);
        let Val::Tuple(results) = self.call_function(span, overloads, args, keywords)? else {
            return Err(super::Reported);
        };
        if results.len() != targets.len() {
            return self
                .error(span, format!("`{name}` gives {} results, not {}", results.len(), targets.len()));
        }
        for (target, result) in targets.iter().zip(results) {
            let ExprKind::Name(variable) = target.kind else {
                return self.error_hint(
                    target.span,
                    format!("`{name}` puts its results into variables"),
                    "put it into a variable, and that where it belongs",
                );
            };
            let Some(old) = self.env.get(variable) else {
                return self.error(target.span, format!("`{}` is no variable", self.text(variable)));
            };
            if !old.same_type(&result) {
                let (old, new) = (self.type_name(old), self.type_name(&result));
                return self.error(target.span, format!("this is {old}, and the result {new}"));
            }
            self.name_parts(variable, &result);
            self.env.set(variable, result);
        }
        Ok(Val::None)
    }

    fn static_value(&mut self, arg: &Expr) -> Result<Val> {
        let value = match self.scope.statics.get(&arg.span.start) {
            Some(found) => self.expr(found)?,
            None => self.expr(arg)?,
        };
        let known = match &value {
            Val::Literal(_) | Val::Str(_) => true,
            Val::Data(_, parts) => parts.iter().all(|&part| self.b.kernel.as_const(part).is_some()),
            _ => false,
        };
        if known { Ok(value) } else { self.error(arg.span, "this is not known at compile time") }
    }

    /// `wp.where(test, a, b)`: both are evaluated.
    fn where_call(&mut self, span: Span, args: &[Expr]) -> Result<Val> {
        let test = self.truth(&args[0])?;
        let (a, b) = (self.expr(&args[1])?, self.expr(&args[2])?);
        let (a, b) = self.unify(span, a, b)?;
        let (a, b) = (self.materialize(a), self.materialize(b));
        if !a.same_type(&b) {
            let (a, b) = (self.type_name(&a), self.type_name(&b));
            return self.error(span, format!("`where` takes two values of one type, not {a} and {b}"));
        }
        self.b.span = span;
        Ok(self.select_val(test, &a, &b))
    }

    fn reinterpret(&mut self, span: Span, value: &Expr, ty: &Expr) -> Result<Val> {
        let value = self.expr(value)?;
        let value = self.materialize(value);
        let ty = self.resolve_type(ty)?;
        match (&value, ty) {
            (Val::Data(from, parts), Ty::Data(to))
                if from.form == to.form
                    && from.dtype.size() == to.dtype.size()
                    && from.dtype != DType::Bool
                    && to.dtype != DType::Bool =>
            {
                let parts = parts.iter().map(|&part| self.b.bitcast(to.dtype, part)).collect();
                Ok(Val::Data(to, parts))
            }
            _ => {
                let (from, to) = (self.type_name(&value), self.ty_name(ty));
                self.error(span, format!("the bits of {from} are no {to}"))
            }
        }
    }

    fn call_function(
        &mut self,
        span: Span,
        overloads: &[&'a Function],
        args: &[Expr],
        keywords: &[(Symbol, Expr)],
    ) -> Result<Val> {
        self.may_call(span, overloads)?;
        let mut values = vec![];
        for arg in args {
            values.push((None, arg.span, self.expr(arg)?));
        }
        for (key, arg) in keywords {
            values.push((Some(*key), arg.span, self.expr(arg)?));
        }
        self.call_values(span, overloads, values)
    }

    /// Refuses what would not end.
    fn may_call(&mut self, span: Span, overloads: &[&'a Function]) -> Result<()> {
        let text = overloads.first().map_or("", |function| self.text(function.name));
        if overloads.iter().all(|&function| self.is_being_lowered(function)) {
            return self.recursion(span, text);
        }
        if self.stack.len() > MAX_CALLS {
            return self.error(span, format!("calls nest deeper than {MAX_CALLS} levels"));
        }
        self.calls += 1;
        if self.calls > MAX_INLINED || self.b.kernel.insts.len() > MAX_INSTRUCTIONS {
            if self.too_large {
                return Err(super::Reported);
            }
            self.too_large = true;
            let message =
                format!("this kernel holds more than {MAX_INLINED} calls or {MAX_INSTRUCTIONS} instructions");
            return self.error_hint(
                span,
                message,
                "every call is lowered anew: call less often, or in a loop",
            );
        }
        Ok(())
    }

    /// A call of one of these functions with values, some by name.
    pub(super) fn call_values(
        &mut self,
        span: Span,
        overloads: &[&'a Function],
        values: Vec<(Option<Symbol>, Span, Val)>,
    ) -> Result<Val> {
        self.may_call(span, overloads)?;
        let text = overloads.first().map_or("", |function| self.text(function.name));
        if overloads.len() == 1 {
            let env = self.bind_arguments(span, overloads[0], &values)?;
            return self.inline_or_custom(span, overloads[0], env);
        }
        // The first of those that fit best.
        let mut best: Option<(u32, &'a Function, Env)> = None;
        for function in overloads {
            let known = self.errors.len();
            match self.bind_arguments(span, function, &values) {
                Ok(env) => {
                    let distance = self.distance(function, &values);
                    if best.as_ref().is_none_or(|best| distance < best.0) {
                        best = Some((distance, function, env));
                    }
                }
                Err(_) => self.errors.truncate(known),
            }
        }
        if let Some((_, function, env)) = best {
            if self.is_being_lowered(function) {
                return self.recursion(span, text);
            }
            return self.inline_or_custom(span, function, env);
        }
        let types: Vec<String> = values.iter().map(|value| self.type_name(&value.2)).collect();
        self.error(span, format!("no `{text}` takes {}", types.join(", ")))
    }

    /// How far the types of a function's parameters are from those of values that it takes: exact types come before a number of the
    /// source in another type than it has by itself, then types that leave something open, then any.
    fn distance(&mut self, function: &'a Function, values: &[(Option<Symbol>, Span, Val)]) -> u32 {
        let mut sum = 0;
        for (number, (name, _, value)) in values.iter().enumerate() {
            let param = match name {
                Some(name) => function.params.iter().find(|param| param.name == *name),
                None => function.params.get(number),
            };
            let Some(param) = param else { continue };
            let ty = self.in_scope(function.scope, |lower| match lower.annotation(param) {
                Some(annotation) => lower.resolve_type(annotation),
                None => Ok(Ty::Any),
            });
            sum += match (value, ty) {
                (Val::Literal(literal), Ok(Ty::Data(data))) => {
                    let own = match literal {
                        Literal::Int(_) => DType::I32,
                        Literal::Float(_) => DType::F32,
                        Literal::Bool(_) => DType::Bool,
                    };
                    let is_whole = matches!(literal, Literal::Int(_)) != data.dtype.is_float();
                    u32::from(data.dtype != own) + u32::from(!is_whole)
                }
                (Val::Literal(Literal::Int(_)), Ok(Ty::Open(open))) => {
                    3 + u32::from(!open.takes(Data::scalar(DType::I32)))
                }
                (_, Ok(Ty::Open(_) | Ty::Array(Element::Any, _))) => 3,
                (_, Ok(Ty::Any)) => 5,
                _ => 0,
            };
        }
        sum
    }

    fn is_being_lowered(&self, function: &'a Function) -> bool {
        self.stack.iter().any(|&known| std::ptr::eq(known, function))
    }

    fn recursion<T>(&mut self, span: Span, name: &str) -> Result<T> {
        self.error_hint(span, format!("`{name}` calls itself"), "kernels cannot recurse: use a loop")
    }

    fn inline_or_custom(&mut self, span: Span, function: &'a Function, env: Env) -> Result<Val> {
        match self.program.custom(function) {
            // What a gradient function calls is not differentiated, and may be what it is the gradient of.
            Some(custom) if self.adjoints.is_none() => self.inline_custom(span, function, env, custom),
            _ => self.inline(span, function, env),
        }
    }

    /// The parameters of a function with their arguments.
    pub(super) fn bind_arguments(
        &mut self,
        span: Span,
        function: &'a Function,
        values: &[(Option<Symbol>, Span, Val)],
    ) -> Result<Env> {
        let text = self.text(function.name);
        let mut env = Env::default();
        let positional = values.iter().filter(|value| value.0.is_none()).count();
        let places = function.params.iter().filter(|param| !param.by_name).count();
        if positional > places {
            let (message, by_name) = match places == function.params.len() {
                true => (format!("`{text}` takes {places} arguments, not {positional}"), ""),
                false => (
                    format!("`{text}` takes {places} arguments by position, not {positional}"),
                    "those behind `*` are given by name",
                ),
            };
            return if by_name.is_empty() {
                self.error(span, message)
            } else {
                self.error_hint(span, message, by_name)
            };
        }
        for key in values.iter().filter_map(|value| value.0) {
            let at = function.params.iter().position(|param| param.name == key);
            if at.is_none_or(|at| at < positional) {
                let key = self.text(key);
                return self.error(span, format!("`{text}` has no parameter `{key}` left"));
            }
        }
        for (i, param) in function.params.iter().enumerate() {
            let given = values.iter().filter(|value| value.0.is_none() && !param.by_name).nth(i);
            let given = given.or_else(|| values.iter().find(|value| value.0 == Some(param.name)));
            let (span, value) = match (given, &param.default) {
                (Some((_, span, value)), _) => (*span, value.clone()),
                (None, Some(default)) => {
                    (default.span, self.in_scope(function.scope, |lower| lower.expr(default))?)
                }
                (None, None) => {
                    let name = self.text(param.name);
                    return self.error(span, format!("`{text}` needs an argument for `{name}`"));
                }
            };
            let ty = self.in_scope(function.scope, |lower| match lower.annotation(param) {
                Some(annotation) => lower.resolve_type(annotation),
                None => Ok(Ty::Any),
            })?;
            let ty = match (ty, &value) {
                (Ty::Open(open), Val::Literal(_)) => literal_type(open, values).unwrap_or(ty),
                _ => ty,
            };
            let value = self.convert(span, value, ty)?;
            env.set(param.name, value);
        }
        Ok(env)
    }

    /// Lowers a function's body here.
    pub(super) fn inline(&mut self, span: Span, function: &'a Function, env: Env) -> Result<Val> {
        Ok(self.inline_keeping(span, function, env)?.0)
    }

    /// Lowers a function's body here; what it returns, and what its variables are at its end.
    pub(super) fn inline_keeping(
        &mut self,
        span: Span,
        function: &'a Function,
        mut env: Env,
    ) -> Result<(Val, Env)> {
        let falls_through = self.check_variables(function);
        let hidden = self.program.hidden;
        let off = self.b.bool(false);
        env.set(hidden.returned, Val::scalar(DType::Bool, off));
        let returns = match &function.returns {
            Some(annotation) if !matches!(annotation.kind, ExprKind::None) => {
                // Where it names no type, as `tuple[..]` does not, what is returned says it.
                self.in_scope(function.scope, |lower| lower.find_type(annotation))?
            }
            _ => None,
        };
        let outer_scope = std::mem::replace(&mut self.scope, self.program.scope(function.scope));
        let outer_env = std::mem::replace(&mut self.env, env);
        let outer_returns = std::mem::replace(&mut self.returns, returns);
        let outer_kernel = std::mem::replace(&mut self.in_kernel, false);
        self.stack.push(function);
        let (known, first) = (self.errors.len(), self.b.kernel.insts.len());
        self.block(&function.body);
        self.stack.pop();
        if self.program.is_library(function) {
            // Its source is not the user's; the call is.
            self.errors[known..].iter_mut().for_each(|error| error.span = span);
            self.b.kernel.insts[first..].iter_mut().for_each(|inst| inst.span = span);
        }
        self.scope = outer_scope;
        self.in_kernel = outer_kernel;
        self.returns = outer_returns;
        let mut env = std::mem::replace(&mut self.env, outer_env);
        self.b.span = span;
        let value = env.remove(hidden.value);
        if self.errors.len() > known {
            return Err(super::Reported);
        }
        match value {
            None => Ok((Val::None, env)),
            Some(Val::Conflict(a, b)) => {
                let text = self.text(function.name);
                self.error(function.span, format!("`{text}` returns {a} on one way and {b} on another"))
            }
            Some(value) => {
                if falls_through {
                    let text = self.text(function.name);
                    return self.error_hint(
                        function.span,
                        format!("`{text}` returns a value on some ways only"),
                        "end it with a `return` of a value",
                    );
                }
                Ok((value, env))
            }
        }
    }

    /// A type called: a conversion or a constructor.
    fn construct(&mut self, span: Span, ty: Ty, args: &[Expr], keywords: &[(Symbol, Expr)]) -> Result<Val> {
        match ty {
            Ty::Struct(id) => {
                let fields = self.struct_fields(id)?;
                if !args.is_empty() || !keywords.is_empty() {
                    return self.error_hint(
                        span,
                        "a struct is made without arguments",
                        "assign its fields behind",
                    );
                }
                let fields = fields.iter().map(|&(_, ty)| self.zero_of(span, ty)).collect::<Result<_>>()?;
                Ok(Val::Struct(id, fields))
            }
            Ty::Data(data) => {
                if let Some((_, value)) = keywords.first() {
                    return self.error(value.span, "arguments are given by position here");
                }
                let mut values = vec![];
                for arg in args {
                    values.push(self.expr(arg)?);
                }
                if let [Val::Tuple(items)] = &values[..] {
                    values = items.clone();
                }
                self.b.span = span;
                self.construct_data(span, data, values)
            }
            Ty::Array(..) | Ty::Open(_) | Ty::Any => self.error(span, "this type cannot be made in a kernel"),
        }
    }

    fn zero_of(&mut self, span: Span, ty: Ty) -> Result<Val> {
        match ty {
            Ty::Data(data) => {
                let zero = self.b.zero(data.dtype);
                Ok(Val::Data(data, std::iter::repeat_n(zero, data.form.lanes()).collect()))
            }
            Ty::Struct(id) => {
                let fields = self.struct_fields(id)?;
                let fields = fields.iter().map(|&(_, ty)| self.zero_of(span, ty)).collect::<Result<_>>()?;
                Ok(Val::Struct(id, fields))
            }
            Ty::Array(..) | Ty::Open(_) | Ty::Any => {
                self.error(span, "a struct with arrays cannot be made in a kernel")
            }
        }
    }

    /// A scalar of any type as a scalar of this one.
    pub(super) fn cast_scalar(&mut self, span: Span, value: Val, dtype: DType) -> Result<crate::ir::Value> {
        match self.materialize_wide(span, value, dtype)? {
            Val::Data(Data { form: Form::Scalar, .. }, parts) => Ok(self.b.cast(dtype, parts[0])),
            other => {
                let found = self.type_name(&other);
                self.error(span, format!("{found} is no number"))
            }
        }
    }

    /// A literal in the type it is converted to, so that `wp.float64(0.1)` has all digits and `int(2.7)` is 2.
    fn materialize_wide(&mut self, span: Span, value: Val, dtype: DType) -> Result<Val> {
        use crate::ir::Const;
        let Val::Literal(literal) = value else { return Ok(value) };
        // As bits of either sign.
        let bits = 8 * dtype.size() as u32;
        if let Literal::Int(n) = literal
            && !dtype.is_float()
            && dtype != DType::Bool
            && !(-(1i128 << (bits - 1))..1i128 << bits).contains(&n)
        {
            return self.too_large(span, n, dtype);
        }
        let constant = match literal {
            Literal::Int(n) if dtype.is_float() => Const::float(dtype, n as f64),
            Literal::Int(n) => Const::int(dtype, n as i64),
            Literal::Float(x) if dtype.is_float() => Const::float(dtype, x),
            Literal::Float(x) => Const::int(dtype, crate::ir::eval::to_int(dtype, x)),
            Literal::Bool(x) => Const::bool(x),
        };
        let part = self.b.kernel.constant(constant);
        Ok(self.val(part))
    }
}

/// What a number of the source becomes where a parameter leaves its type open: that of the first number beside it that fits.
fn literal_type(open: Open, values: &[(Option<Symbol>, Span, Val)]) -> Option<Ty> {
    let beside = values.iter().find_map(|value| match value.2 {
        Val::Data(data, _) if open.takes(Data::scalar(data.dtype)) => Some(data.dtype),
        _ => None,
    });
    let alone = || [DType::F32, DType::I32].into_iter().find(|&dtype| open.takes(Data::scalar(dtype)));
    beside.or_else(alone).map(Ty::scalar)
}
