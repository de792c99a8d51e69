//! Expressions as CUDA C++: one function an expression, one variable a node.
//!
//! Arithmetic that C++ leaves undefined (integers that overflow, division by 0) and minima that must see NaN are
//! functions of `map.cuh`; all else is operators and the precise functions of the device library. Constants are exact:
//! short ones in decimal, the others as their bits, with the number in a comment.

use std::fmt::Write as _;

use bullet_ops::expr::{Binary, Expr, Id, Node, Unary};
use bullet_ops::{DType, Element};

use super::gpu::device_type;

/// The function `name` that computes `expr` in the type `compute` (i64, u64, f32 or f64). Its parameters are `x0`, `x1`, ..:
/// the inputs that the expression uses, numbered as it numbers them.
pub(super) fn print(name: &str, expr: &Expr, compute: DType) -> String {
    let c = device_type(compute);
    let params: Vec<String> =
        (0..expr.inputs()).filter(|&i| expr.uses(i)).map(|i| format!("{c} x{i}")).collect();
    let mut text = format!("DEVICE {c} {name}({}) {{\n", params.join(", "));
    let nodes = expr.nodes();
    // Writing to a string cannot fail.
    for (i, &node) in nodes.iter().enumerate() {
        let value = |id: Id| match nodes[id as usize] {
            Node::Input(n) => format!("x{n}"),
            Node::Const(_) | Node::Unary(..) | Node::Binary(..) | Node::Select(..) => format!("v{id}"),
        };
        let line = match node {
            Node::Input(_) => continue,
            Node::Const(x) => {
                let (literal, comment) = constant(x, compute);
                let _ = writeln!(text, "    const {c} v{i} = {literal};{comment}");
                continue;
            }
            Node::Unary(op, a) => unary(op, compute, &value(a)),
            Node::Binary(op, a, b) => binary(op, compute, &value(a), &value(b)),
            Node::Select(cond, a, b) => {
                format!("{} != {} ? {} : {}", value(cond), zero(compute), value(a), value(b))
            }
        };
        let _ = writeln!(text, "    const {c} v{i} = {line};");
    }
    let last = nodes.len() - 1;
    let result = if let Node::Input(n) = nodes[last] { format!("x{n}") } else { format!("v{last}") };
    let _ = writeln!(text, "    return {result};\n}}");
    text
}

/// The literal of a constant, converted to the compute type, and what to remark on it.
fn constant(x: f64, compute: DType) -> (String, String) {
    if compute == DType::U64 {
        return (format!("{}ULL", u64::from_f64(x)), String::new());
    }
    if compute == DType::I64 {
        let n = i64::from_f64(x);
        let literal = if n == i64::MIN { "(i64)0x8000000000000000ULL".into() } else { format!("{n}LL") };
        return (literal, String::new());
    }
    let single = compute == DType::F32;
    let x = if single { f64::from(x as f32) } else { x };
    // Few bits on either side of the point: any reader of decimals gets them right.
    let short = x.abs() < 65536.0 && (x * 1024.0).fract() == 0.0;
    match (short, single) {
        (true, true) => (format!("{x:?}f"), String::new()),
        (true, false) => (format!("{x:?}"), String::new()),
        (false, true) => {
            let x = x as f32;
            (format!("__int_as_float({:#010x})", x.to_bits()), format!(" // {x:?}"))
        }
        (false, false) => (format!("__longlong_as_double({:#018x}LL)", x.to_bits()), format!(" // {x:?}")),
    }
}

fn zero(compute: DType) -> &'static str {
    literals(compute).0
}

/// 0 and 1 in the compute type.
fn literals(compute: DType) -> (&'static str, &'static str) {
    if compute == DType::I64 {
        ("0LL", "1LL")
    } else if compute == DType::U64 {
        ("0ULL", "1ULL")
    } else if compute == DType::F32 {
        ("0.0f", "1.0f")
    } else {
        ("0.0", "1.0")
    }
}

fn unary(op: Unary, compute: DType, a: &str) -> String {
    let (zero, one) = literals(compute);
    if !compute.is_float() {
        let real = |f: &str| format!("convert<{}>({f}((double){a}))", device_type(compute));
        return match op {
            Unary::Neg => format!("negative({a})"),
            Unary::Abs => format!("absolute({a})"),
            Unary::Not => format!("{a} == {zero} ? {one} : {zero}"),
            Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => a.to_owned(),
            Unary::Invert => format!("~{a}"),
            // The table gives these no integer form; should one come, it is the real function, truncated.
            Unary::Exp => real("exp"),
            Unary::Log => real("log"),
            Unary::Sqrt => real("sqrt"),
            Unary::Rsqrt => real("1.0 / sqrt"),
            Unary::Sin => real("sin"),
            Unary::Cos => real("cos"),
            Unary::Tanh => real("tanh"),
            Unary::Erf => real("erf"),
            Unary::Tan => real("tan"),
            Unary::Asin => real("asin"),
            Unary::Acos => real("acos"),
            Unary::Atan => real("atan"),
            Unary::Sinh => real("sinh"),
            Unary::Cosh => real("cosh"),
            Unary::Asinh => real("asinh"),
            Unary::Acosh => real("acosh"),
            Unary::Atanh => real("atanh"),
            Unary::Expm1 => real("expm1"),
            Unary::Log1p => real("log1p"),
            Unary::Log2 => real("log2"),
            Unary::Log10 => real("log10"),
        };
    }
    let suffix = if compute == DType::F32 { "f" } else { "" };
    let call = |f: &str| format!("{f}{suffix}({a})");
    match op {
        Unary::Neg => format!("-{a}"),
        Unary::Abs => call("fabs"),
        Unary::Exp => call("exp"),
        Unary::Log => call("log"),
        Unary::Sqrt => call("sqrt"),
        Unary::Rsqrt => call("rsqrt"),
        Unary::Sin => call("sin"),
        Unary::Cos => call("cos"),
        Unary::Tanh => call("tanh"),
        Unary::Erf => call("erf"),
        Unary::Floor => call("floor"),
        Unary::Ceil => call("ceil"),
        Unary::Round => call("rint"),
        Unary::Tan => call("tan"),
        Unary::Asin => call("asin"),
        Unary::Acos => call("acos"),
        Unary::Atan => call("atan"),
        Unary::Sinh => call("sinh"),
        Unary::Cosh => call("cosh"),
        Unary::Asinh => call("asinh"),
        Unary::Acosh => call("acosh"),
        Unary::Atanh => call("atanh"),
        Unary::Expm1 => call("expm1"),
        Unary::Log1p => call("log1p"),
        Unary::Log2 => call("log2"),
        Unary::Log10 => call("log10"),
        Unary::Trunc => call("trunc"),
        // The table gives bits of integers only.
        Unary::Invert => format!("({})~convert<i64>({a})", device_type(compute)),
        Unary::Not => format!("{a} == {zero} ? {one} : {zero}"),
    }
}

fn binary(op: Binary, compute: DType, a: &str, b: &str) -> String {
    let (zero, one) = literals(compute);
    let truth = |condition: String| format!("{condition} ? {one} : {zero}");
    let arithmetic = |function: &str, operator: &str| {
        if !compute.is_float() { format!("{function}({a}, {b})") } else { format!("{a} {operator} {b}") }
    };
    // The table gives bits of integers, and the others of floats, only; should one come, it is converted.
    let integer = |function: &str, operator: &str| {
        let call = |a: &str, b: &str| match function {
            "" => format!("{a} {operator} {b}"),
            _ => format!("{function}({a}, {b})"),
        };
        if !compute.is_float() {
            return call(a, b);
        }
        let of = |x: &str| format!("convert<i64>({x})");
        format!("({})({})", device_type(compute), call(&of(a), &of(b)))
    };
    let real = |function: &str| match compute {
        DType::I64 | DType::U64 => {
            format!("convert<{}>({function}((double){a}, (double){b}))", device_type(compute))
        }
        DType::F32 => format!("{function}f({a}, {b})"),
        _ => format!("{function}({a}, {b})"),
    };
    match op {
        Binary::Add => arithmetic("add", "+"),
        Binary::Sub => arithmetic("subtract", "-"),
        Binary::Mul => arithmetic("multiply", "*"),
        Binary::Div => arithmetic("quotient", "/"),
        Binary::Pow => format!("power({a}, {b})"),
        Binary::Max => format!("larger({a}, {b})"),
        Binary::Min => format!("smaller({a}, {b})"),
        Binary::Lt => truth(format!("{a} < {b}")),
        Binary::Le => truth(format!("{a} <= {b}")),
        Binary::Eq => truth(format!("{a} == {b}")),
        Binary::And => truth(format!("{a} != {zero} && {b} != {zero}")),
        Binary::Or => truth(format!("{a} != {zero} || {b} != {zero}")),
        Binary::FloorDiv => format!("floor_divide({a}, {b})"),
        Binary::Rem => format!("modulo({a}, {b})"),
        Binary::Atan2 => real("atan2"),
        Binary::Hypot => real("hypot"),
        Binary::CopySign => real("copysign"),
        Binary::NextAfter => real("nextafter"),
        Binary::BitAnd => integer("", "&"),
        Binary::BitOr => integer("", "|"),
        Binary::BitXor => integer("", "^"),
        Binary::Shl => integer("shift_left", ""),
        Binary::Shr => integer("shift_right", ""),
    }
}

#[cfg(test)]
mod tests {
    use bullet_ops::Map;

    use super::*;

    /// Every primitive in the three types, special constants, and some rows of the table.
    fn gallery() -> String {
        let primitives = Expr::build(3, |x| {
            let unary = [
                -x[0],
                x[0].abs(),
                x[0].exp(),
                x[0].log(),
                x[0].sqrt(),
                x[0].rsqrt(),
                x[0].sin(),
                x[0].cos(),
                x[0].tanh(),
                x[0].erf(),
                x[0].floor(),
                x[0].ceil(),
                x[0].round(),
                !x[0],
                x[0].tan(),
                x[0].asin(),
                x[0].acos(),
                x[0].atan(),
                x[0].sinh(),
                x[0].cosh(),
                x[0].asinh(),
                x[0].acosh(),
                x[0].atanh(),
                x[0].expm1(),
                x[0].log1p(),
                x[0].log2(),
                x[0].log10(),
                x[0].trunc(),
                x[0].invert(),
            ];
            let binary = [
                x[0] + x[2],
                x[0] - x[2],
                x[0] * x[2],
                x[0] / x[2],
                x[0].pow(x[2]),
                x[0].max(x[2]),
                x[0].min(x[2]),
                x[0].lt(x[2]),
                x[0].le(x[2]),
                x[0].eq(x[2]),
                x[0].and(x[2]),
                x[0].or(x[2]),
                x[0].floor_divide(x[2]),
                x[0].remainder(x[2]),
                x[0].atan2(x[2]),
                x[0].hypot(x[2]),
                x[0].copysign(x[2]),
                x[0].next_after(x[2]),
                x[0].bit_and(x[2]),
                x[0].bit_or(x[2]),
                x[0].bit_xor(x[2]),
                x[0].shift_left(x[2]),
                x[0].shift_right(x[2]),
            ];
            unary.into_iter().chain(binary).fold(x[0].select(x[2], x[0]), |sum, v| sum + v)
        });
        let constants = Expr::build(1, |x| {
            let some = [0.5, -3.0, -0.0, 0.1, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5e-324];
            some.into_iter().fold(x[0], |sum, c| sum + c)
        });
        let gelu = Map::Gelu.exprs();
        let gelu_adjoint = &gelu.adjoint.as_ref().expect("gelu has an adjoint")[0];
        let mut text = String::from(
            "// Printed expressions; a test of print.rs writes this file when run with BLESS=1.\n",
        );
        for compute in [DType::I64, DType::U64, DType::F32, DType::F64] {
            for (name, expr) in [("primitives", &primitives), ("constants", &constants)] {
                text += &format!("\n{}", print(&format!("{name}_{compute}"), expr, compute));
            }
        }
        text += &format!("\n{}", print("gelu", &gelu.forward, DType::F32));
        text += &format!("\n{}", print("gelu_adjoint", gelu_adjoint, DType::F32));
        text += &format!("\n{}", print("identity", &Expr::build(1, |x| x[0]), DType::F32));
        text
    }

    #[test]
    fn printed_text_is_as_agreed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/print.cu");
        let text = gallery();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(golden == text, "the text differs from {path}: run with BLESS=1 and read the difference");
    }

    #[test]
    fn constants_read_back_as_they_were() {
        for x in [0.1, 1.0 / 3.0, 1e-30, 3.5, -2.0, 65536.5, 1e30] {
            let (f32_text, _) = constant(x, DType::F32);
            let got = match f32_text.strip_prefix("__int_as_float(0x") {
                Some(hex) => f32::from_bits(u32::from_str_radix(hex.trim_end_matches(')'), 16).unwrap()),
                None => f32_text.trim_end_matches('f').parse().unwrap(),
            };
            assert_eq!(got, x as f32);
            let (f64_text, _) = constant(x, DType::F64);
            let got = match f64_text.strip_prefix("__longlong_as_double(0x") {
                Some(hex) => f64::from_bits(u64::from_str_radix(hex.trim_end_matches("LL)"), 16).unwrap()),
                None => f64_text.parse().unwrap(),
            };
            assert_eq!(got, x);
        }
        assert_eq!(constant(-0.0, DType::F32).0, "-0.0f");
        assert_eq!(constant(1e300, DType::I64).0, "9223372036854775807LL");
        assert_eq!(constant(-1e300, DType::I64).0, "(i64)0x8000000000000000ULL");
    }
}
