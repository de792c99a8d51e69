//! Operators: of numbers, and of vectors, matrices and quaternions element by element or as algebra has it.

use bullet_ops::DType;

use super::value::{Data, Form, Literal, Val};
use super::{Lower, Reported, Result};
use crate::diag::Span;
use crate::ir::{Binary, Compare, Unary, Value, Values};
use crate::syntax::ast::{BinaryOp, CompareOp, Expr, UnaryOp};

const BY_ZERO: &str = "this divides an integer by 0";

impl<'a> Lower<'a> {
    pub(super) fn unary_operator(&mut self, span: Span, op: UnaryOp, value: Val) -> Result<Val> {
        match (op, value) {
            (UnaryOp::Neg, Val::Literal(Literal::Int(n))) => Ok(Val::Literal(Literal::Int(-n))),
            (UnaryOp::Neg, Val::Literal(Literal::Float(x))) => Ok(Val::Literal(Literal::Float(-x))),
            (UnaryOp::Pos, value @ (Val::Literal(Literal::Int(_) | Literal::Float(_)) | Val::Data(..))) => {
                Ok(value)
            }
            (UnaryOp::Invert, Val::Literal(Literal::Int(n))) => Ok(Val::Literal(Literal::Int(!n))),
            (UnaryOp::Neg, Val::Data(data, parts)) if Unary::Neg.takes(data.dtype) => {
                Ok(self.each(data, &parts, Unary::Neg))
            }
            (UnaryOp::Invert, Val::Data(data, parts)) if Unary::Invert.takes(data.dtype) => {
                Ok(self.each(data, &parts, Unary::Invert))
            }
            (op, value) => {
                let found = self.type_name(&value);
                let op = match op {
                    UnaryOp::Neg => "-",
                    UnaryOp::Invert => "~",
                    UnaryOp::Pos | UnaryOp::Not => "+",
                };
                self.error(span, format!("`{op}` cannot be applied to {found}"))
            }
        }
    }

    /// A function of each scalar.
    pub(super) fn each(&mut self, data: Data, parts: &[Value], op: Unary) -> Val {
        Val::Data(data, parts.iter().map(|&part| self.b.unary(op, part)).collect())
    }

    /// Two operands of one scalar type, if one is a literal; others as they are.
    pub(super) fn unify(&mut self, span: Span, a: Val, b: Val) -> Result<(Val, Val)> {
        match (&a, &b) {
            (Val::Literal(_), Val::Data(data, _)) => {
                let part = self.literal(span, &a, data.dtype)?;
                Ok((Val::scalar(data.dtype, part), b))
            }
            (Val::Data(data, _), Val::Literal(_)) => {
                let part = self.literal(span, &b, data.dtype)?;
                Ok((a.clone(), Val::scalar(data.dtype, part)))
            }
            (Val::Literal(Literal::Float(_)), Val::Literal(Literal::Int(n))) => {
                let b = Val::Literal(Literal::Float(*n as f64));
                Ok((a, b))
            }
            (Val::Literal(Literal::Int(n)), Val::Literal(Literal::Float(_))) => {
                Ok((Val::Literal(Literal::Float(*n as f64)), b))
            }
            _ => Ok((a, b)),
        }
    }

    /// `a op b`.
    pub(super) fn binary(&mut self, span: Span, op: BinaryOp, a: Val, b: Val) -> Result<Val> {
        let (a, b) = self.unify(span, a, b)?;
        match (&a, &b) {
            (Val::Literal(Literal::Int(x)), Val::Literal(Literal::Int(y))) => {
                self.integers(span, op, *x, *y).map(|value| Val::Literal(Literal::Int(value)))
            }
            (Val::Literal(x), Val::Literal(y)) => match literal_binary(op, *x, *y) {
                Some(value) => Ok(Val::Literal(value)),
                None => self.mismatch(span, op.text(), &a, &b),
            },
            (Val::Data(x, left), Val::Data(y, right)) if x.dtype == y.dtype => {
                let (x, y) = (*x, *y);
                if x.form == Form::Scalar && y.form == Form::Scalar {
                    let value = self.scalar_binary(span, op, x.dtype, left[0], right[0])?;
                    return Ok(Val::scalar(x.dtype, value));
                }
                match self.algebra(span, op, (x, left), (y, right))? {
                    Some(value) => Ok(value),
                    None => self.mismatch(span, op.text(), &a, &b),
                }
            }
            _ => self.mismatch(span, op.text(), &a, &b),
        }
    }

    /// Of two integers of the source. What is silently another number than in Python is a mistake.
    fn integers(&mut self, span: Span, op: BinaryOp, a: i128, b: i128) -> Result<i128> {
        let divides = matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod);
        if divides && b == 0 {
            return self.error(span, BY_ZERO);
        }
        if op == BinaryOp::Div && a.checked_rem(b).is_some_and(|rest| rest != 0) {
            return self.error_hint(
                span,
                format!("`{a} / {b}` of integers is {}, as they divide by cutting towards 0", a / b),
                format!("write `{a}.0 / {b}.0` for the fraction, or `{a} // {b}` for the integer"),
            );
        }
        if let Some(value) = integer_binary(op, a, b) {
            return Ok(value);
        }
        match op {
            BinaryOp::Pow if b < 0 => self.error_hint(
                span,
                "an integer to a negative power is a fraction",
                format!("write `{a}.0 ** {b}.0`"),
            ),
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Pow | BinaryOp::Shl => self.error_hint(
                span,
                "the integer that this gives is too large: integers have up to 64 bits",
                "compute with floats: write a decimal point",
            ),
            _ => {
                self.mismatch(span, op.text(), &Val::Literal(Literal::Int(a)), &Val::Literal(Literal::Int(b)))
            }
        }
    }

    fn mismatch<T>(&mut self, span: Span, op: &str, a: &Val, b: &Val) -> Result<T> {
        if matches!(a, Val::Bad) || matches!(b, Val::Bad) {
            return Err(Reported);
        }
        let message = format!("`{op}` cannot be applied to {} and {}", self.type_name(a), self.type_name(b));
        let hint = match (a, b) {
            (Val::Data(x, _), Val::Data(y, _)) if x.dtype != y.dtype => {
                "types are not converted unasked: write float(x), int(x), wp.float64(x) and so on; a variable that \
                 starts at 0 is an int32, one that starts at 0.0 a float32"
            }
            _ => "operators take numbers, vectors, matrices and quaternions that fit",
        };
        self.error_hint(span, message, hint)
    }

    fn scalar_binary(&mut self, span: Span, op: BinaryOp, dtype: DType, a: Value, b: Value) -> Result<Value> {
        let float = dtype.is_float();
        let op = match op {
            BinaryOp::Add => Binary::Add,
            BinaryOp::Sub => Binary::Sub,
            BinaryOp::Mul => Binary::Mul,
            BinaryOp::Div => Binary::Div,
            BinaryOp::FloorDiv if float => {
                let quotient = self.b.div(a, b);
                return Ok(self.b.unary(Unary::Floor, quotient));
            }
            BinaryOp::FloorDiv => {
                let by_zero = self.b.kernel.as_const(b).is_some_and(|b| b.is(0));
                return if by_zero { self.error(span, BY_ZERO) } else { Ok(self.floor_div(a, b)) };
            }
            BinaryOp::Mod => Binary::Mod,
            BinaryOp::Pow if float => Binary::Pow,
            BinaryOp::Pow => {
                return self.error_hint(span, "integers have no `**`", "multiply, or convert to float");
            }
            BinaryOp::MatMul => {
                return self.error_hint(span, "`@` takes matrices and vectors", "multiply numbers with `*`");
            }
            BinaryOp::And => Binary::And,
            BinaryOp::Or => Binary::Or,
            BinaryOp::Xor => Binary::Xor,
            BinaryOp::Shl => Binary::Shl,
            BinaryOp::Shr => Binary::Shr,
        };
        if !op.takes(dtype) {
            let name = super::value::dtype_name(dtype);
            return self.error(span, format!("{name} has no `{}`", op.name()));
        }
        let zero = self.b.kernel.as_const(b).is_some_and(|b| b.is(0));
        if matches!(op, Binary::Div | Binary::Mod) && !float && zero {
            return self.error(span, BY_ZERO);
        }
        Ok(self.b.binary(op, a, b))
    }

    /// The quotient of integers, rounded down: one less than what division gives if that cut a negative fraction.
    pub(super) fn floor_div(&mut self, a: Value, b: Value) -> Value {
        let dtype = self.b.kernel.dtype(a);
        let quotient = self.b.div(a, b);
        if dtype.is_unsigned() {
            return quotient;
        }
        let (zero, one) = (self.b.zero(dtype), self.b.int(dtype, 1));
        let negative = self.b.compare(Compare::Lt, a, zero);
        let divisor = self.b.compare(Compare::Lt, b, zero);
        let opposite = match self.b.kernel.as_const(divisor) {
            Some(known) if known.is(0) => negative,
            _ => self.b.compare(Compare::Ne, negative, divisor),
        };
        let product = self.b.mul(quotient, b);
        let inexact = self.b.compare(Compare::Ne, product, a);
        let cut = self.b.binary(Binary::And, opposite, inexact);
        let below = self.b.binary(Binary::Sub, quotient, one);
        self.b.select(cut, below, quotient)
    }

    /// A function of pairs of scalars.
    pub(super) fn pairs(&mut self, data: Data, a: &[Value], b: &[Value], op: Binary) -> Val {
        Val::Data(data, a.iter().zip(b).map(|(&a, &b)| self.b.binary(op, a, b)).collect())
    }

    /// Operators with a vector, matrix or quaternion.
    fn algebra(
        &mut self,
        span: Span,
        op: BinaryOp,
        (x, a): (Data, &Values),
        (y, b): (Data, &Values),
    ) -> Result<Option<Val>> {
        let scaled = |lower: &mut Self, data: Data, parts: &Values, by: Value, op: Binary| {
            let parts = parts.iter().map(|&part| lower.b.binary(op, part, by)).collect();
            Some(Val::Data(data, parts))
        };
        let bits = matches!(
            op,
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr | BinaryOp::Mod
        );
        let both = x.form == y.form;
        Ok(match op {
            BinaryOp::Add if both => Some(self.pairs(x, a, b, Binary::Add)),
            BinaryOp::Sub if both => Some(self.pairs(x, a, b, Binary::Sub)),
            BinaryOp::Mul if y.form == Form::Scalar && x.form != Form::Transform => {
                scaled(self, x, a, b[0], Binary::Mul)
            }
            BinaryOp::Mul if x.form == Form::Scalar && y.form != Form::Transform => {
                scaled(self, y, b, a[0], Binary::Mul)
            }
            BinaryOp::Div if y.form == Form::Scalar && x.form != Form::Transform => {
                scaled(self, x, a, b[0], Binary::Div)
            }
            BinaryOp::Mul | BinaryOp::MatMul => self.product(op, (x, a), (y, b)),
            _ if bits && both && matches!(x.form, Form::Vec(_)) => {
                let parts: Result<Values> =
                    a.iter().zip(b).map(|(&a, &b)| self.scalar_binary(span, op, x.dtype, a, b)).collect();
                Some(Val::Data(x, parts?))
            }
            _ => None,
        })
    }

    pub(super) fn comparison(&mut self, span: Span, first: &Expr, rest: &[(CompareOp, Expr)]) -> Result<Val> {
        let mut left = self.expr(first)?;
        let mut all = self.b.bool(true);
        for (op, right) in rest {
            let right = self.expr(right)?;
            self.b.span = span;
            let one = self.compare(span, *op, left, right.clone())?;
            all = self.b.binary(Binary::And, all, one);
            left = right;
        }
        Ok(self.val(all))
    }

    fn compare(&mut self, span: Span, op: CompareOp, a: Val, b: Val) -> Result<Value> {
        let (text, op) = match op {
            CompareOp::Eq => ("==", Compare::Eq),
            CompareOp::Ne => ("!=", Compare::Ne),
            CompareOp::Lt => ("<", Compare::Lt),
            CompareOp::Le => ("<=", Compare::Le),
            CompareOp::Gt => (">", Compare::Gt),
            CompareOp::Ge => (">=", Compare::Ge),
        };
        let (a, b) = self.unify(span, a, b)?;
        let (a, b) = (self.materialize(a), self.materialize(b));
        match (&a, &b) {
            (Val::Data(x, left), Val::Data(y, right))
                if x == y && x.form == Form::Scalar && op.takes(x.dtype) =>
            {
                Ok(self.b.compare(op, left[0], right[0]))
            }
            (Val::Data(x, left), Val::Data(y, right))
                if x == y && matches!(op, Compare::Eq | Compare::Ne) =>
            {
                let join = if op == Compare::Eq { Binary::And } else { Binary::Or };
                let mut all = self.b.bool(op == Compare::Eq);
                for (&left, &right) in left.iter().zip(right) {
                    let one = self.b.compare(op, left, right);
                    all = self.b.binary(join, all, one);
                }
                Ok(all)
            }
            _ => self.mismatch(span, text, &a, &b),
        }
    }
}

/// Of two integers, as int32 has it: `/` and `%` cut towards 0, `//` rounds down.
fn integer_binary(op: BinaryOp, a: i128, b: i128) -> Option<i128> {
    Some(match op {
        BinaryOp::Add => a.checked_add(b)?,
        BinaryOp::Sub => a.checked_sub(b)?,
        BinaryOp::Mul => a.checked_mul(b)?,
        BinaryOp::Div => a.checked_div(b)?,
        BinaryOp::FloorDiv => {
            let cut = a.checked_rem(b)? != 0 && (a < 0) != (b < 0);
            a.checked_div(b)? - i128::from(cut)
        }
        BinaryOp::Mod => a.checked_rem(b)?,
        BinaryOp::Pow => a.checked_pow(u32::try_from(b).ok()?)?,
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::Shl if (0..64).contains(&b) => a.checked_mul(1 << b)?,
        BinaryOp::Shr if (0..64).contains(&b) => a >> b,
        BinaryOp::Shl | BinaryOp::Shr | BinaryOp::MatMul => return None,
    })
}

/// Of two literals of one kind that are no integers.
fn literal_binary(op: BinaryOp, a: Literal, b: Literal) -> Option<Literal> {
    match (a, b) {
        (Literal::Float(a), Literal::Float(b)) => Some(Literal::Float(match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::FloorDiv => (a / b).floor(),
            BinaryOp::Mod => a % b,
            BinaryOp::Pow => a.powf(b),
            _ => return None,
        })),
        _ => None,
    }
}
