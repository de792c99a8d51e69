//! Derivatives that the source gives: `@wp.func_grad`, `@wp.func_replay`, and `wp.grad`, which asks for one.

use super::value::{Data, Form, Literal, Ty, Val};
use super::{Env, Lower, Reported, Result};
use crate::adjoint::{AdjointOptions, Tape, adjoint};
use crate::diag::Span;
use crate::ir::{ArrayType, Block, Builder, Const, Inst, Kernel, Op, Space, Type, Value, ValueMap, Values};
use crate::syntax::ast::{Expr, ExprKind, Function, Symbol};

/// What a function has instead of what follows from it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Custom<'a> {
    /// Takes the function's arguments, then the adjoint of each result, and adds to `wp.adjoint[argument]`.
    pub(crate) gradient: Option<&'a Function>,
    /// Gives the function's results anew on the way back.
    pub(crate) replay: Option<&'a Function>,
}

/// The gradient function that is being lowered.
#[derive(Clone)]
pub(super) struct Adjoints {
    /// The variable that holds the adjoints of all parameters: what `wp.adjoint` begins with.
    variable: Symbol,
    params: Vec<Symbol>,
}

impl<'a> Lower<'a> {
    /// A call of a function that has derivatives of its own.
    pub(super) fn inline_custom(
        &mut self,
        span: Span,
        function: &'a Function,
        env: Env,
        custom: Custom<'a>,
    ) -> Result<Val> {
        let args: Vec<Val> =
            function.params.iter().map(|param| env.get(param.name).cloned().unwrap_or(Val::Bad)).collect();
        let outer = self.b.block;
        let forward = self.b.kernel.new_block();
        self.b.block = forward;
        let result = self.inline(span, function, env);
        self.b.block = outer;
        let result = result?;
        let mut results = Values::new();
        result.parts(&mut results);
        self.b.kernel.blocks[forward.index()].yields = results.to_vec();
        let operands = self.float_parts(&args);
        let mut blocks = vec![forward];
        if let Some(gradient) = custom.gradient {
            blocks.push(self.gradient_block(span, function, gradient, &args, &result)?);
        }
        if let Some(replay) = custom.replay {
            blocks.push(self.replay_block(span, function, replay, &args, &result)?);
        }
        let number = u8::from(custom.gradient.is_some()) + 2 * u8::from(custom.replay.is_some());
        self.b.span = span;
        let inst = self.b.region(Op::Custom(number), operands, &blocks);
        let given: Values = results
            .iter()
            .map(|&part| {
                let ty = self.b.kernel.ty(part);
                self.b.kernel.inst_result(inst, ty)
            })
            .collect();
        Ok(result.with_parts(&mut given.into_iter()))
    }

    fn float_parts(&self, args: &[Val]) -> Values {
        let mut operands = Values::new();
        args.iter().filter(|arg| !matches!(arg, Val::Array(_))).for_each(|arg| arg.parts(&mut operands));
        operands.retain(|part| self.b.kernel.ty(*part).is_float());
        operands
    }

    /// The block of a gradient function: from the adjoints of the results to those of the operands.
    fn gradient_block(
        &mut self,
        span: Span,
        function: &'a Function,
        gradient: &'a Function,
        args: &[Val],
        result: &Val,
    ) -> Result<Block> {
        let results = match result {
            Val::Tuple(items) => items.clone(),
            Val::None => vec![],
            one => vec![one.clone()],
        };
        let (text, count) = (self.text(gradient.name), args.len() + results.len());
        if gradient.params.len() != count {
            let message = format!(
                "`{text}` takes {} arguments, expected {count}: those of `{}`, then the adjoint of each result",
                gradient.params.len(),
                self.text(function.name)
            );
            return self.error(gradient.span, message);
        }
        let block = self.b.kernel.new_block();
        let mut values = args.to_vec();
        for result in &results {
            let mut parts = Values::new();
            result.parts(&mut parts);
            let given: Values = parts
                .iter()
                .map(|&part| {
                    let ty = self.b.kernel.ty(part);
                    self.b.kernel.block_arg(block, ty)
                })
                .collect();
            values.push(result.with_parts(&mut given.into_iter()));
        }
        let mut env = self.bind_values(span, gradient, values)?;
        let mut assigned = vec![];
        super::flow::assigned(self.program.names, &gradient.body, &mut |name| assigned.push(name));
        let scope = self.program.scope(gradient.scope);
        let variable = assigned.into_iter().find(|name| scope.namespaces.contains_key(name));
        let zeros: Vec<Val> = args.iter().map(|arg| self.zeros_like(arg)).collect();
        if let Some(variable) = variable {
            env.set(variable, Val::Tuple(zeros.clone()));
        }
        let params = gradient.params[..args.len()].iter().map(|param| param.name).collect();
        let adjoints = variable.map(|variable| Adjoints { variable, params });
        let outer = std::mem::replace(&mut self.b.block, block);
        let outer_adjoints = std::mem::replace(&mut self.adjoints, adjoints);
        let ended = self.inline_keeping(span, gradient, env);
        self.adjoints = outer_adjoints;
        self.b.block = outer;
        let (value, env) = ended?;
        if !matches!(value, Val::None) {
            return self.error_hint(
                gradient.span,
                format!("`{text}` returns a value"),
                "a gradient function adds to wp.adjoint[x] of each argument x",
            );
        }
        let sums = match variable.and_then(|variable| env.get(variable)) {
            Some(Val::Tuple(sums)) => sums.clone(),
            _ => zeros,
        };
        self.b.kernel.blocks[block.index()].yields = self.float_parts(&sums).to_vec();
        Ok(block)
    }

    fn zeros_like(&mut self, value: &Val) -> Val {
        if matches!(value, Val::Array(_)) {
            return Val::None;
        }
        let mut parts = Values::new();
        value.parts(&mut parts);
        let zeros: Values = parts.iter().map(|&part| self.zero_like(part)).collect();
        value.with_parts(&mut zeros.into_iter())
    }

    /// The block of a replay function, which gives the results anew.
    fn replay_block(
        &mut self,
        span: Span,
        function: &'a Function,
        replay: &'a Function,
        args: &[Val],
        result: &Val,
    ) -> Result<Block> {
        let block = self.b.kernel.new_block();
        let env = self.bind_values(span, replay, args.to_vec())?;
        let outer = std::mem::replace(&mut self.b.block, block);
        let value = self.inline(span, replay, env);
        self.b.block = outer;
        let value = value?;
        if !value.same_type(result) {
            let (name, other) = (self.text(function.name), self.text(replay.name));
            let (expected, found) = (self.type_name(result), self.type_name(&value));
            let message = format!("`{other}` gives {found}, but `{name}` {expected}");
            return self.error_hint(replay.span, message, "a replay function gives what the function gave");
        }
        let mut parts = Values::new();
        value.parts(&mut parts);
        self.b.kernel.blocks[block.index()].yields = parts.to_vec();
        Ok(block)
    }

    /// A function's parameters with these values.
    fn bind_values(&mut self, span: Span, function: &'a Function, values: Vec<Val>) -> Result<Env> {
        let values: Vec<_> = values.into_iter().map(|value| (None, span, value)).collect();
        self.bind_arguments(span, function, &values)
    }

    /// Which parameter's adjoint `wp.adjoint[x]` is: the variable that holds all, and its place there.
    pub(super) fn adjoint_place(&mut self, base: &Expr, indices: &[Expr]) -> Option<Result<(Symbol, usize)>> {
        if self.builtin_name(base) != Some("adjoint") {
            return None;
        }
        let known = match (&self.adjoints, indices) {
            (Some(adjoints), [Expr { kind: ExprKind::Name(name), .. }]) => {
                adjoints.params.iter().position(|param| param == name).map(|at| (adjoints.variable, at))
            }
            _ => None,
        };
        Some(match known {
            Some(known) => match self.env.get(known.0) {
                Some(Val::Tuple(items)) if matches!(items.get(known.1), Some(Val::None)) => self.error_hint(
                    base.span,
                    "there is no adjoint of an array here",
                    "a gradient function adds to the adjoints of numbers, vectors, matrices and structs",
                ),
                _ => Ok(known),
            },
            None => self.error_hint(
                base.span,
                "`adjoint` is of a parameter of a gradient function",
                "write `wp.adjoint[x] += ..` in a function with @wp.func_grad, where x is one of its arguments",
            ),
        })
    }

    // wp.grad

    /// `wp.grad(f)(args)`: the derivative of a function's result by each float argument.
    pub(super) fn grad_call(&mut self, span: Span, function: &Expr, args: &[Expr]) -> Result<Val> {
        let mut values = vec![];
        for arg in args {
            values.push(self.expr(arg)?);
        }
        self.type_literals(span, function, &mut values)?;
        if values.iter().any(|value| !matches!(value, Val::Data(..) | Val::Struct(..))) {
            return self
                .error(span, "`grad` differentiates functions of numbers, vectors, matrices and structs");
        }
        // The function by itself, as a kernel of its float arguments that stores its result.
        let kernel = Kernel::new("gradient", 4);
        let outer = std::mem::replace(&mut self.b, Builder::new(kernel));
        let outer_allocs = std::mem::take(&mut self.allocs);
        let outer_adjoints = self.adjoints.take();
        let made = self.gradient_kernel(span, function, &values, &outer.kernel);
        self.allocs = outer_allocs;
        self.adjoints = outer_adjoints;
        let mut kernel = std::mem::replace(&mut self.b, outer).kernel;
        let active: Vec<usize> = made?;
        crate::passes::optimize(&mut kernel);
        let options =
            AdjointOptions { active: Some(&active), overlapping: true, ..AdjointOptions::default() };
        let made = match adjoint(&kernel, options) {
            Ok(made) => made,
            Err(found) => {
                self.errors.extend(found);
                return Err(Reported);
            }
        };
        if made.tape != Tape::Words(0) {
            return self.error_hint(
                span,
                "the gradient of this function needs a tape, which `grad` has not",
                "its loops must be short and of known length, or linear in what they carry",
            );
        }
        self.b.span = span;
        let gradients = self.insert_gradient(&made.kernel, &values, active.len() - 1);
        let mut given = gradients.into_iter();
        let mut results = vec![];
        for value in &values {
            let mut parts = Values::new();
            value.parts(&mut parts);
            let floats = parts.iter().any(|&part| self.b.kernel.ty(part).is_float());
            let parts: Values = parts
                .iter()
                .map(|&part| match self.b.kernel.ty(part).is_float() {
                    true => given.next().unwrap_or(part),
                    false => self.zero_like(part),
                })
                .collect();
            let result = value.with_parts(&mut parts.into_iter());
            results.extend(floats.then_some(result));
        }
        match results.len() {
            0 => self.error(span, "this function has no float argument"),
            1 => Ok(results.remove(0)),
            _ => Ok(Val::Tuple(results)),
        }
    }

    /// Gives numbers of the source the type of the parameter that they are for, else that of the first float beside them.
    fn type_literals(&mut self, span: Span, function: &Expr, values: &mut [Val]) -> Result<()> {
        let params = match self.functions_of(function) {
            Some(&[only]) => Some(only),
            _ => None,
        };
        let typed = values.iter().find_map(|value| match value {
            Val::Data(data, _) if data.dtype.is_float() => Some(data.dtype),
            _ => None,
        });
        for (number, value) in values.iter_mut().enumerate() {
            let declared = params.and_then(|function| {
                let annotation = self.annotation(function.params.get(number)?)?;
                match self.in_scope(function.scope, |lower| lower.find_type(annotation)) {
                    Ok(Some(Ty::Data(Data { form: Form::Scalar, dtype }))) => Some(dtype),
                    _ => None,
                }
            });
            let is_float = matches!(value, Val::Literal(Literal::Float(_)));
            let dtype = declared.or(typed.filter(|_| is_float));
            if let (Some(dtype), Val::Literal(_)) = (dtype, &value) {
                let part = self.literal(span, value, dtype)?;
                *value = Val::scalar(dtype, part);
            }
            *value = self.materialize(value.clone());
        }
        Ok(())
    }

    /// Lowers a function's call with parameters for its float arguments; the parameters to differentiate by, and at last
    /// that of the result.
    fn gradient_kernel(
        &mut self,
        span: Span,
        function: &Expr,
        values: &[Val],
        from: &Kernel,
    ) -> Result<Vec<usize>> {
        let mut active = vec![];
        let args: Vec<Val> = values
            .iter()
            .map(|value| {
                let mut parts = Values::new();
                value.parts(&mut parts);
                let mine: Values = parts
                    .iter()
                    .map(|&part| match from.as_const(part) {
                        Some(known) if !known.dtype().is_float() => self.b.kernel.constant(known),
                        _ => {
                            let ty = from.ty(part);
                            active.extend(ty.is_float().then_some(self.b.kernel.params.len()));
                            self.b.kernel.param("x", ty)
                        }
                    })
                    .collect();
                value.with_parts(&mut mine.into_iter())
            })
            .collect();
        let result = match (self.functions_of(function), self.builtin_name(function)) {
            (Some(overloads), _) => {
                let args = args.into_iter().map(|value| (None, span, value)).collect();
                self.call_values(span, overloads, args)?
            }
            (None, Some(name)) => self.builtin(span, name, &[], args)?,
            (None, None) => {
                return self.error(function.span, "`grad` takes a @wp.func or one of wp's functions");
            }
        };
        let Val::Data(Data { form: Form::Scalar, dtype }, parts) = &result else {
            let found = self.type_name(&result);
            return self
                .error(span, format!("`grad` differentiates functions that give a float, not {found}"));
        };
        if !dtype.is_float() {
            let found = self.type_name(&result);
            return self
                .error(span, format!("`grad` differentiates functions that give a float, not {found}"));
        }
        active.push(self.b.kernel.params.len());
        let ty = ArrayType { dtype: *dtype, lanes: 1, pitch: 1, ndim: 1, space: Space::Global };
        let out = self.b.kernel.param("out", Type::Array(ty));
        let zero = self.b.int(bullet_ops::DType::I32, 0);
        self.b.store(out, &[zero], parts);
        Ok(active)
    }

    /// Puts what an adjoint does here, with 1 as the gradient of the result; what it adds to the gradients of `count` numbers.
    fn insert_gradient(&mut self, from: &Kernel, values: &[Val], count: usize) -> Values {
        let mut parts = Values::new();
        values.iter().for_each(|value| value.parts(&mut parts));
        parts.retain(|part| self.b.kernel.ty(*part).is_float() || self.b.kernel.as_const(*part).is_none());
        let mut map = ValueMap::new(from);
        for (&param, &part) in from.params.iter().zip(&parts) {
            map.insert(param, part);
        }
        // The parameters end in the result's array, the gradients' arrays, and that of the result.
        let gradients = &from.params[from.params.len() - 1 - count..];
        let mut sums: Vec<Option<Value>> = vec![None; count];
        for &inst in &from.block(from.body).insts {
            let data = from.inst(inst);
            let slot = data.args.first().and_then(|array| gradients.iter().position(|known| known == array));
            match (slot, data.op) {
                (Some(at), Op::Load) if at == count => {
                    let dtype = from.dtype(data.results[0]);
                    let one = self.b.kernel.constant(Const::float(dtype, 1.0));
                    map.insert(data.results[0], one);
                }
                (Some(at), Op::Atomic(_)) if at < count => {
                    let lane = data.args.last().map(|&lane| self.b.kernel.mapped(from, lane, &map));
                    sums[at] = lane;
                }
                (Some(_), _) | (_, Op::Turn) => {}
                _ => self.insert(from, inst, &mut map),
            }
        }
        let zeros = parts.iter().filter(|part| self.b.kernel.ty(**part).is_float()).copied();
        let zeros: Vec<Value> = zeros.collect();
        sums.into_iter().zip(zeros).map(|(sum, part)| sum.unwrap_or_else(|| self.zero_like(part))).collect()
    }

    fn insert(&mut self, from: &Kernel, inst: Inst, map: &mut ValueMap) {
        let data = from.inst(inst);
        if !matches!(data.op, Op::Alloc(_)) {
            let block = self.b.block;
            self.b.kernel.copy_inst(from, inst, block, map);
            return;
        }
        // Where all arrays of the kernel's own are.
        let made = self.b.kernel.new_inst(data.op, Values::new(), &[from.ty(data.results[0])], data.span);
        let body = self.b.kernel.body;
        self.b.kernel.blocks[body.index()].insts.insert(self.allocs, made);
        self.allocs += 1;
        map.insert(data.results[0], self.b.kernel.inst(made).results[0]);
    }

    /// Whether an expression is `wp.grad(f)`.
    pub(super) fn is_gradient(&self, func: &Expr) -> bool {
        match &func.kind {
            ExprKind::Call { func, args, .. } => args.len() == 1 && self.builtin_name(func) == Some("grad"),
            _ => false,
        }
    }
}
