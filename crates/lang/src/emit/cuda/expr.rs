//! Expressions, with as few brackets as C++ needs.

use std::borrow::Cow;

use bullet_ops::DType;

use super::{Emitter, half, type_name};
use crate::ir::{Binary, Compare, Const, Inst, Op, Unary, Value, eval};

/// How tight an expression binds; an operand must bind as tight as its operator asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    Ternary,
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    Equality,
    Order,
    Shift,
    Sum,
    Product,
    Prefix,
    Atom,
}

/// An expression.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    level: Level,
}

impl Text {
    pub(super) fn variable(name: String) -> Text {
        Text { text: name, level: Level::Atom }
    }

    fn new(text: String, level: Level) -> Text {
        Text { text, level }
    }

    fn call(name: &str, args: &[&Text]) -> Text {
        let args: Vec<&str> = args.iter().map(|arg| &*arg.text).collect();
        Text::new(format!("{name}({})", args.join(", ")), Level::Atom)
    }

    /// The opposite of a condition.
    pub(super) fn negated(&self) -> String {
        format!("!{}", self.at(Level::Prefix))
    }

    /// Whether it is a variable, a number or the like.
    pub(super) fn is_atom(&self) -> bool {
        self.level == Level::Atom
    }

    /// As an operand of a comparison or assignment.
    pub(super) fn operand(&self) -> String {
        self.at(Level::Sum).into_owned()
    }

    /// As an operand that must bind at least so tight.
    fn at(&self, level: Level) -> Cow<'_, str> {
        if self.level < level { format!("({})", self.text).into() } else { Cow::Borrowed(&self.text) }
    }
}

/// The level above: what the right operand of a left-associative operator must bind like.
fn above(level: Level) -> Level {
    match level {
        Level::Ternary => Level::Or,
        Level::Or => Level::And,
        Level::And => Level::BitOr,
        Level::BitOr => Level::BitXor,
        Level::BitXor => Level::BitAnd,
        Level::BitAnd => Level::Equality,
        Level::Equality => Level::Order,
        Level::Order => Level::Shift,
        Level::Shift => Level::Sum,
        Level::Sum => Level::Product,
        Level::Product => Level::Prefix,
        Level::Prefix | Level::Atom => Level::Atom,
    }
}

fn infix(a: &Text, op: &str, b: &Text, level: Level) -> Text {
    // Compilers warn about mixed bit operators without brackets, and readers stumble over them.
    let strict =
        matches!(level, Level::BitOr | Level::BitXor | Level::BitAnd | Level::Shift | Level::Equality);
    let (left, right) = if strict { (Level::Prefix, Level::Prefix) } else { (level, above(level)) };
    let (left, right) = (a.at(left), b.at(right));
    let mut text = String::with_capacity(left.len() + op.len() + right.len() + 2);
    for part in [&*left, " ", op, " ", &*right] {
        text.push_str(part);
    }
    Text::new(text, level)
}

fn ternary(test: &Text, a: &Text, b: &Text) -> Text {
    let text = format!("{} ? {} : {}", test.at(Level::Or), a.at(Level::Or), b.at(Level::Or));
    Text::new(text, Level::Ternary)
}

/// A constant as C++ spells it.
pub(super) fn literal(constant: Const) -> Text {
    let dtype = constant.dtype();
    let text = match (constant.as_float(), constant.as_int().unwrap_or(0)) {
        (Some(x), _) if x.is_nan() && dtype == DType::F64 => {
            "__longlong_as_double(0x7ff8000000000000ll)".into()
        }
        (Some(x), _) if x.is_nan() => "__int_as_float(0x7fc00000)".into(),
        (Some(x), _) if x.is_infinite() => {
            let sign = if x < 0.0 { "-" } else { "" };
            match dtype {
                DType::F64 => format!("{sign}__longlong_as_double(0x7ff0000000000000ll)"),
                _ => format!("{sign}__int_as_float(0x7f800000)"),
            }
        }
        // The shortest digits that give the float back are fewer than those of the double it is held as.
        (Some(x), _) if dtype != DType::F64 => format!("{:?}f", x as f32),
        (Some(x), _) => format!("{x:?}"),
        (_, x) => match dtype {
            DType::Bool => {
                if x != 0 {
                    "true".into()
                } else {
                    "false".into()
                }
            }
            DType::U32 => format!("{x}u"),
            DType::U64 => format!("{}ull", x as u64),
            DType::I64 if x == i64::MIN => "(-9223372036854775807ll - 1)".into(),
            DType::I64 => format!("{x}ll"),
            DType::I32 if x == i64::from(i32::MIN) => "(-2147483647 - 1)".into(),
            _ => format!("{x}"),
        },
    };
    let level = if text.starts_with('-') { Level::Prefix } else { Level::Atom };
    Text::new(text, level)
}

/// Whether arithmetic of C++ widens it to int.
pub(super) fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::U16 | DType::I8 | DType::I16)
}

fn cast(dtype: DType, x: &Text) -> Text {
    Text::new(format!("({}){}", type_name(dtype), x.at(Level::Prefix)), Level::Prefix)
}

impl Emitter<'_> {
    /// A value where it is used. What folds into the one expression that uses it is moved there.
    pub(super) fn text(&mut self, value: Value) -> Text {
        if let Some(constant) = self.kernel.as_const(value) {
            return literal(constant);
        }
        let slot = &mut self.texts[value.index()];
        if slot.as_ref().is_some_and(|text| text.level != Level::Atom) {
            return slot.take().unwrap_or_else(|| Text::variable(String::new()));
        }
        // Only a kernel that `verify` refuses lacks one.
        self.texts[value.index()].clone().unwrap_or_else(|| Text::variable(format!("undefined_{}", value.0)))
    }

    /// The expression of a pure instruction.
    pub(super) fn expression(&mut self, inst: Inst) -> Text {
        let data = self.kernel.inst(inst);
        let args: Vec<Text> = data.args.iter().map(|&arg| self.text(arg)).collect();
        let result = self.kernel.dtype(data.results[0]);
        let text = match data.op {
            Op::Tid(axis) => Text::new(self.tid(axis), Level::Prefix),
            Op::Dim(axis) => Text::new(format!("{}.shape[{axis}]", args[0].text), Level::Atom),
            Op::Unary(op) => self.unary(op, self.kernel.dtype(data.args[0]), &args[0]),
            Op::Binary(op) => self.binary(op, result, &args[0], &args[1]),
            Op::Compare(op) => {
                let (text, level) = match op {
                    Compare::Eq => ("==", Level::Equality),
                    Compare::Ne => ("!=", Level::Equality),
                    Compare::Lt => ("<", Level::Order),
                    Compare::Le => ("<=", Level::Order),
                    Compare::Gt => (">", Level::Order),
                    Compare::Ge => (">=", Level::Order),
                };
                infix(&args[0], text, &args[1], level)
            }
            Op::Select => ternary(&args[0], &args[1], &args[2]),
            Op::Cast => self.cast(self.kernel.dtype(data.args[0]), result, &args[0]),
            Op::Bitcast => self.bitcast(self.kernel.dtype(data.args[0]), result, &args[0]),
            _ => Text::variable("0".into()),
        };
        if eval::rounds(data.op) { self.rounded(result, text) } else { text }
    }

    /// Rounded to a 16-bit float, if it is to be one.
    fn rounded(&mut self, dtype: DType, x: Text) -> Text {
        let name = match dtype {
            DType::F16 => "round_half",
            DType::BF16 => "round_bfloat",
            _ => return x,
        };
        self.storage(dtype);
        Text::call(name, &[&x])
    }

    fn cast(&mut self, from: DType, to: DType, x: &Text) -> Text {
        match to {
            DType::F16 | DType::BF16 => {
                let float = if half::is_half(from) || from == DType::F32 { x.clone() } else { cast(to, x) };
                self.rounded(to, float)
            }
            DType::F32 if half::is_half(from) => x.clone(),
            DType::Bool => {
                let zero = literal(Const::zero(from));
                infix(x, "!=", &zero, Level::Equality)
            }
            // C++ leaves open what is out of a narrow range.
            _ if from.is_float() && is_narrow(to) => {
                let (low, high) = match to {
                    DType::U8 => (0, 255),
                    DType::U16 => (0, 65535),
                    DType::I8 => (-128, 127),
                    _ => (-32768, 32767),
                };
                let text =
                    format!("({})max({low}, min({high}, (int){}))", type_name(to), x.at(Level::Prefix));
                Text::new(text, Level::Prefix)
            }
            _ => cast(to, x),
        }
    }

    fn unary(&mut self, op: Unary, dtype: DType, x: &Text) -> Text {
        let zero = || literal(Const::zero(dtype));
        let number =
            |n: i64| if dtype.is_float() { Const::float(dtype, n as f64) } else { Const::int(dtype, n) };
        let choose = |test: Text, a: i64, b: i64| ternary(&test, &literal(number(a)), &literal(number(b)));
        let prefix = |op: &str| {
            // `--x` would be another operator.
            let operand =
                if x.text.starts_with(op) { Cow::from(format!("({})", x.text)) } else { x.at(Level::Prefix) };
            Text::new(format!("{op}{operand}"), Level::Prefix)
        };
        let result = match op {
            Unary::Neg => prefix("-"),
            Unary::Not => prefix("!"),
            Unary::Invert => prefix("~"),
            Unary::Abs if dtype.is_unsigned() => x.clone(),
            Unary::Abs if dtype == DType::I64 => Text::call("llabs", &[x]),
            Unary::Abs if !dtype.is_float() => Text::call("abs", &[x]),
            Unary::Sign if dtype.is_unsigned() => literal(number(1)),
            Unary::Step if dtype.is_unsigned() => literal(number(0)),
            Unary::Sign => choose(infix(x, "<", &zero(), Level::Order), -1, 1),
            Unary::Step => choose(infix(x, "<", &zero(), Level::Order), 1, 0),
            Unary::Nonzero => choose(infix(x, "==", &zero(), Level::Equality), 0, 1),
            Unary::IsNan | Unary::IsInf | Unary::IsFinite => Text::call(op.name(), &[x]),
            _ => {
                let name = if op == Unary::Abs { "fabs" } else { op.name() };
                Text::call(&function(name, dtype), &[x])
            }
        };
        self.narrowed(dtype, op.result(dtype), result)
    }

    /// Back to a narrow type, from which C++ went to int.
    fn narrowed(&self, dtype: DType, result: DType, text: Text) -> Text {
        if is_narrow(dtype) && result == dtype { cast(dtype, &text) } else { text }
    }

    fn binary(&mut self, op: Binary, dtype: DType, a: &Text, b: &Text) -> Text {
        let float = dtype.is_float();
        let is_bool = dtype == DType::Bool;
        let result = match op {
            Binary::Add => infix(a, "+", b, Level::Sum),
            Binary::Sub => infix(a, "-", b, Level::Sum),
            Binary::Mul => infix(a, "*", b, Level::Product),
            Binary::Div => infix(a, "/", b, Level::Product),
            Binary::MulMasked => {
                self.needs.masked = true;
                Text::call("mul_masked", &[a, b])
            }
            Binary::Mod if float => Text::call(&function("fmod", dtype), &[a, b]),
            Binary::Mod => infix(a, "%", b, Level::Product),
            Binary::Pow | Binary::Atan2 | Binary::Copysign => {
                Text::call(&function(op.name(), dtype), &[a, b])
            }
            Binary::Min if float => Text::call(&function("fmin", dtype), &[a, b]),
            Binary::Max if float => Text::call(&function("fmax", dtype), &[a, b]),
            Binary::Min => Text::call("min", &[a, b]),
            Binary::Max => Text::call("max", &[a, b]),
            Binary::And if is_bool => infix(a, "&&", b, Level::And),
            // Brackets around `&&` within `||`, which compilers ask for.
            Binary::Or if is_bool => {
                let wrap = |x: &Text| {
                    if x.level == Level::And {
                        Text::new(x.at(Level::Atom).into_owned(), Level::Atom)
                    } else {
                        x.clone()
                    }
                };
                infix(&wrap(a), "||", &wrap(b), Level::Or)
            }
            Binary::Xor if is_bool => infix(a, "!=", b, Level::Equality),
            Binary::And => infix(a, "&", b, Level::BitAnd),
            Binary::Or => infix(a, "|", b, Level::BitOr),
            Binary::Xor => infix(a, "^", b, Level::BitXor),
            Binary::Shl => infix(a, "<<", b, Level::Shift),
            Binary::Shr => infix(a, ">>", b, Level::Shift),
        };
        self.narrowed(dtype, dtype, result)
    }
}

/// A function of C's mathematics, which has an `f` for floats.
fn function(name: &str, dtype: DType) -> String {
    if dtype == DType::F64 { name.into() } else { format!("{name}f") }
}

impl Emitter<'_> {
    fn bitcast(&mut self, from: DType, to: DType, x: &Text) -> Text {
        if from.size() != 2 {
            return bitcast(from, to, x);
        }
        let bits = match half::is_half(from) {
            true => Text::new(format!("{}({}).bits", self.storage(from), x.text), Level::Atom),
            false => cast(DType::U16, x),
        };
        match half::is_half(to) {
            true => Text::call(&format!("{}::of", self.storage(to)), &[&bits]),
            false => cast(to, &bits),
        }
    }
}

fn bitcast(from: DType, to: DType, x: &Text) -> Text {
    let name = match (from, to) {
        (DType::F32, DType::U32) => "__float_as_uint",
        (DType::F32, _) => "__float_as_int",
        (DType::F64, _) => "__double_as_longlong",
        (DType::U32, DType::F32) => "__uint_as_float",
        (_, DType::F32) => "__int_as_float",
        (_, DType::F64) => "__longlong_as_double",
        _ => return cast(to, x),
    };
    let call = Text::call(name, &[x]);
    if from == DType::F64 && to == DType::U64 { cast(to, &call) } else { call }
}
