//! Expressions other than calls.

use bullet_ops::DType;

use super::value::{Data, Form, Literal, Val};
use super::{Lower, Named, Result};
use crate::diag::Span;
use crate::ir::{Const, Value};
use crate::syntax::ast::{Expr, ExprKind, Symbol, UnaryOp};

impl<'a> Lower<'a> {
    /// The value of an expression.
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<Val> {
        let value = match &expr.kind {
            ExprKind::Name(name) => self.name(expr.span, *name)?,
            ExprKind::Int(n) => Val::Literal(Literal::Int((*n).into())),
            ExprKind::Float(x) => Val::Literal(Literal::Float(*x)),
            ExprKind::Bool(x) => Val::Literal(Literal::Bool(*x)),
            ExprKind::Str(text) => Val::Str(text.clone()),
            ExprKind::None => Val::None,
            ExprKind::Unary(UnaryOp::Not, operand) => {
                let operand = self.truth(operand)?;
                let value = self.b.not(operand);
                self.val(value)
            }
            ExprKind::Unary(op, operand) => {
                let value = self.expr(operand)?;
                self.unary_operator(expr.span, *op, value)?
            }
            ExprKind::Binary(op, a, b) => {
                // Both sides are looked at, so that both can be wrong.
                let (left, right) = (self.expr(a), self.expr(b));
                self.b.span = expr.span;
                self.binary(expr.span, *op, left?, right?)?
            }
            ExprKind::Compare(first, rest) => self.comparison(expr.span, first, rest)?,
            ExprKind::Logic(is_and, items) => {
                let value = self.logic(expr.span, *is_and, items)?;
                self.val(value)
            }
            ExprKind::Ternary { test, body, orelse } => {
                let test = self.truth(test)?;
                match self.b.kernel.as_const(test) {
                    Some(known) if known.is(1) => self.expr(body)?,
                    Some(_) => self.expr(orelse)?,
                    None => self.choose(expr.span, test, |l| l.expr(body), |l| l.expr(orelse))?,
                }
            }
            ExprKind::Call { func, args, keywords } => self.call(expr.span, func, args, keywords)?,
            ExprKind::Attribute(base, name) => match self.builtin_name(expr) {
                Some(name) => self.named_constant(expr.span, name)?,
                None if self.element_type_of(expr).is_some() => match self.element_place(expr)? {
                    Some((array, indices)) => {
                        self.b.span = expr.span;
                        self.load_element(&array, &indices)?
                    }
                    None => return Err(super::Reported),
                },
                None if self.is_path(expr, base) => {
                    let name = self.program.path(self.scope, expr).ok_or(super::Reported)?;
                    self.name(expr.span, name)?
                }
                None => {
                    let base = self.expr(base)?;
                    self.attribute(expr.span, base, *name)?
                }
            },
            ExprKind::Subscript(base, indices) => {
                if let Some(place) = self.adjoint_place(base, indices) {
                    let (variable, at) = place?;
                    return match self.env.get(variable) {
                        Some(Val::Tuple(items)) => Ok(items[at].clone()),
                        _ => Err(super::Reported),
                    };
                }
                let base = self.expr(base)?;
                self.b.span = expr.span;
                self.subscript(expr.span, base, indices)?
            }
            ExprKind::Slice(_) => return self.error(expr.span, "a slice stands among indices only"),
            ExprKind::Tuple(items) => {
                Val::Tuple(items.iter().map(|item| self.expr(item)).collect::<Result<_>>()?)
            }
        };
        match value {
            Val::Bad => Err(super::Reported),
            value => Ok(value),
        }
    }

    /// Whether `a.b` is a name of this scope, and `a` no variable.
    fn is_path(&self, expr: &Expr, base: &Expr) -> bool {
        let mut root = base;
        while let ExprKind::Attribute(inner, _) = &root.kind {
            root = inner;
        }
        matches!(root.kind, ExprKind::Name(name) if self.env.get(name).is_none())
            && self.program.path(self.scope, expr).is_some_and(|name| self.scope.knows(name))
    }

    fn name(&mut self, span: Span, name: Symbol) -> Result<Val> {
        match self.env.get(name) {
            Some(Val::Conflict(a, b)) => {
                let message = format!("`{}` is {a} on one way to here and {b} on another", self.text(name));
                return self.error_hint(span, message, "give it one type, or use two names");
            }
            Some(value) => return Ok(value.clone()),
            None => {}
        }
        let text = self.text(name);
        if let Some(constant) = self.scope.constants.get(&name).map(Named::expr) {
            let address: *const () = std::ptr::from_ref(constant).cast();
            if self.looking_up.contains(&address) {
                return self.error(span, format!("`{text}` is defined by itself"));
            }
            self.looking_up.push(address);
            let env = std::mem::take(&mut self.env);
            let known = self.errors.len();
            let value = self.expr(constant);
            self.env = env;
            self.looking_up.pop();
            if value.is_err() && self.errors.len() > known {
                self.errors.truncate(known);
                return self.error(span, format!("`{text}` is no constant that kernels can use"));
            }
            return value;
        }
        if self.scope.functions.contains_key(&name) {
            return self.error(span, format!("`{text}` is a function: call it"));
        }
        if let Some(what) = self.scope.others.get(&name) {
            let hint =
                "pass it as an argument, or make it a number, a vector, a tuple of these or a @wp.func";
            let (what, hint) = what.split_once('\n').unwrap_or((what, hint));
            return self.error_hint(span, format!("`{text}` is {what}, which kernels cannot use"), hint);
        }
        let near = self.env.0.iter().map(|entry| self.text(entry.0)).find(|known| is_near(known, text));
        match near {
            Some(near) => self.error_hint(span, format!("`{text}` is not known here"), format!("did you mean `{near}`?")),
            None => self.error_hint(
                span,
                format!("`{text}` is not known here"),
                "kernels know their parameters and variables, constants of the module, @wp.func functions and wp's own",
            ),
        }
    }

    /// `wp.pi` and its like.
    fn named_constant(&mut self, span: Span, name: &str) -> Result<Val> {
        use std::f64::consts;
        let value = match name {
            "pi" | "PI" => consts::PI,
            "e" | "E" => consts::E,
            "tau" | "TAU" => consts::TAU,
            "half_pi" | "HALF_PI" => consts::FRAC_PI_2,
            "ln2" | "LN2" => consts::LN_2,
            "ln10" | "LN10" => consts::LN_10,
            "log2e" | "LOG2E" => consts::LOG2_E,
            "log10e" | "LOG10E" => consts::LOG10_E,
            "phi" | "PHI" => 1.618_033_988_749_895,
            "inf" | "INF" => f64::INFINITY,
            "nan" | "NAN" => f64::NAN,
            _ => return self.error(span, format!("`{name}` is no value that kernels know")),
        };
        Ok(Val::Literal(Literal::Float(value)))
    }

    /// A condition.
    pub(super) fn truth(&mut self, expr: &Expr) -> Result<Value> {
        let value = self.expr(expr)?;
        match value {
            Val::Literal(Literal::Bool(known)) => Ok(self.b.bool(known)),
            Val::Literal(Literal::Int(n)) => Ok(self.b.bool(n != 0)),
            Val::Literal(Literal::Float(x)) => Ok(self.b.bool(x != 0.0)),
            Val::Data(Data { form: Form::Scalar, .. }, parts) => Ok(self.b.cast(DType::Bool, parts[0])),
            other => {
                let found = self.type_name(&other);
                self.error(expr.span, format!("expected a condition, found {found}"))
            }
        }
    }

    /// `and` and `or`: what stands behind is not evaluated if the result is known.
    fn logic(&mut self, span: Span, is_and: bool, items: &[Expr]) -> Result<Value> {
        let (first, rest) = match items.split_first() {
            Some((first, [])) => return self.truth(first),
            Some(split) => split,
            None => return Ok(self.b.bool(is_and)),
        };
        let test = self.truth(first)?;
        let known = self.b.kernel.as_const(test).map(|known| known.is(1));
        if let Some(known) = known {
            return if known == is_and { self.logic(span, is_and, rest) } else { Ok(test) };
        }
        let op = if is_and { crate::ir::Binary::And } else { crate::ir::Binary::Or };
        // Cheap and harmless operands are evaluated in any case.
        if rest.iter().all(is_harmless) {
            let right = self.logic(span, is_and, rest)?;
            return Ok(self.b.binary(op, test, right));
        }
        let skip = self.b.bool(!is_and);
        let skipped = |_: &mut Self| Ok(Val::scalar(DType::Bool, skip));
        let right = |lower: &mut Self| {
            let value = lower.logic(span, is_and, rest)?;
            Ok(Val::scalar(DType::Bool, value))
        };
        let result = if is_and {
            self.choose(span, test, right, skipped)?
        } else {
            self.choose(span, test, skipped, right)?
        };
        match result {
            Val::Data(_, parts) => Ok(parts[0]),
            _ => Err(super::Reported),
        }
    }

    /// A literal as a constant of a type.
    pub(super) fn literal(&mut self, span: Span, value: &Val, dtype: DType) -> Result<Value> {
        let Val::Literal(literal) = value else { return Err(super::Reported) };
        let constant = match *literal {
            Literal::Int(n) if dtype.is_float() => Const::float(dtype, n as f64),
            Literal::Int(n) => {
                let wide = n as i64;
                let fits = dtype != DType::Bool
                    && (i128::from(crate::ir::eval::wrap(dtype, wide)) == n
                        || (dtype == DType::U64 && u64::try_from(n).is_ok()));
                // `0xffffffff` names the bits of an int32, as C has it.
                let is_bits = dtype == DType::I32 && u32::try_from(n).is_ok();
                if !fits && !is_bits {
                    return self.too_large(span, n, dtype);
                }
                Const::int(dtype, wide)
            }
            Literal::Float(x) if dtype.is_float() => {
                let rounded = Const::float(dtype, x);
                if x.is_finite() && rounded.as_float().is_some_and(f64::is_infinite) {
                    let name = super::value::dtype_name(dtype);
                    return self.error_hint(
                        span,
                        format!("the number {x:e} is too large for {name}"),
                        "write wp.float64(..), or wp.inf",
                    );
                }
                rounded
            }
            Literal::Bool(x) if dtype == DType::Bool => Const::bool(x),
            Literal::Float(_) | Literal::Bool(_) => {
                let (found, name) = (self.type_name(value), super::value::dtype_name(dtype));
                return self.error_hint(
                    span,
                    format!("expected {name}, found {found}"),
                    "types are not converted unasked: write float(x) or int(x), or a number of the other type",
                );
            }
        };
        Ok(self.b.kernel.constant(constant))
    }

    /// Refuses an integer of the source.
    pub(super) fn too_large<T>(&mut self, span: Span, n: i128, dtype: DType) -> Result<T> {
        let name = super::value::dtype_name(dtype);
        let hint = match (i64::try_from(n), u64::try_from(n)) {
            (Ok(_), _) if dtype.is_unsigned() => "write wp.int64(..) for one below 0".to_string(),
            (Ok(_), _) => format!("write wp.int64({n})"),
            (_, Ok(_)) => format!("write wp.uint64({n})"),
            _ => "integers have up to 64 bits: write a float".to_string(),
        };
        self.error_hint(span, format!("the integer {n} does not fit {name}"), hint)
    }

    /// A scalar of a type that is asked for.
    pub(super) fn scalar_of(&mut self, span: Span, value: Val, dtype: DType) -> Result<Value> {
        match self.convert(span, value, super::Ty::scalar(dtype))? {
            Val::Data(_, parts) => Ok(parts[0]),
            _ => Err(super::Reported),
        }
    }
}

/// Whether an expression neither reads memory nor calls anything nor divides, so that evaluating it early is right.
pub(super) fn is_harmless(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Name(_) | ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) => true,
        ExprKind::Unary(_, a) => is_harmless(a),
        ExprKind::Binary(op, a, b) => {
            use crate::syntax::ast::BinaryOp::*;
            matches!(op, Add | Sub | Mul | And | Or | Xor) && is_harmless(a) && is_harmless(b)
        }
        ExprKind::Compare(a, rest) => is_harmless(a) && rest.iter().all(|item| is_harmless(&item.1)),
        ExprKind::Logic(_, items) => items.iter().all(is_harmless),
        _ => false,
    }
}

/// Whether two names differ in one letter, in case or in the order of letters only.
fn is_near(a: &str, b: &str) -> bool {
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let sorted = |letters: &[char]| {
        let mut letters = letters.to_vec();
        letters.sort();
        letters
    };
    if a.len() > 2 && sorted(&a) == sorted(&b) {
        return true;
    }
    if a.len().abs_diff(b.len()) > 1 || a.len().min(b.len()) < 3 {
        return false;
    }
    let same_front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let rest = a.len().max(b.len()) - same_front - 1;
    a[a.len() - rest.min(a.len())..] == b[b.len() - rest.min(b.len())..]
}
