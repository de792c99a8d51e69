//! What each scalar op computes: the one definition that constant folding and the interpreter share.
//!
//! Integers are held as i64 and wrapped to their width behind each op; floats as f64 and rounded behind each op. For f32 the
//! four operations and the square root rounded so are exactly f32's own, as f64 has more than twice the digits.
//!
//! 16-bit floats are computed with in f32, and rounded to their type behind each op ([`rounds`] says which can need it):
//! what f64 holds becomes an f32 first. For the four operations and the square root that is exactly the type's own
//! arithmetic, as f32 has more than twice the digits.

use bullet_ops::DType;
use half::{bf16, f16};

use super::op::{Binary, Compare, Op, Unary};

/// An integer cut to the width of its type; a bool is 0 or 1.
pub(crate) fn wrap(dtype: DType, value: i64) -> i64 {
    match dtype {
        DType::Bool => (value != 0).into(),
        DType::U8 => (value as u8).into(),
        DType::U16 => (value as u16).into(),
        DType::U32 => (value as u32).into(),
        DType::I8 => (value as i8).into(),
        DType::I16 => (value as i16).into(),
        DType::I32 => (value as i32).into(),
        _ => value,
    }
}

/// A number rounded to a float type.
pub(crate) fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f32(value as f32).to_f64(),
        DType::BF16 => bf16::from_f32(value as f32).to_f64(),
        DType::F32 => (value as f32).into(),
        _ => value,
    }
}

/// Whether what an op gives of 16-bit floats may have more digits than they; else it need not be rounded.
pub(crate) fn rounds(op: Op) -> bool {
    match op {
        Op::Unary(op) => !matches!(
            op,
            Unary::Neg
                | Unary::Abs
                | Unary::Sign
                | Unary::Step
                | Unary::Nonzero
                | Unary::Floor
                | Unary::Ceil
                | Unary::Round
                | Unary::Rint
                | Unary::Trunc
        ),
        Op::Binary(op) => !matches!(op, Binary::Min | Binary::Max | Binary::Copysign | Binary::Mod),
        _ => false,
    }
}

/// The bits of a float, in an integer of its width.
pub(crate) fn to_bits(dtype: DType, value: f64) -> i64 {
    match dtype {
        DType::F16 => f16::from_f32(value as f32).to_bits().into(),
        DType::BF16 => bf16::from_f32(value as f32).to_bits().into(),
        DType::F32 => (value as f32).to_bits().into(),
        _ => value.to_bits() as i64,
    }
}

/// The float of these bits.
pub(crate) fn from_bits(dtype: DType, bits: i64) -> f64 {
    match dtype {
        DType::F16 => f16::from_bits(bits as u16).to_f64(),
        DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
        DType::F32 => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits as u64),
    }
}

/// A float as an integer: cut towards 0, saturated; NaN is 0.
pub(crate) fn to_int(dtype: DType, value: f64) -> i64 {
    match dtype {
        DType::Bool => (value != 0.0).into(),
        DType::U8 => (value as u8).into(),
        DType::U16 => (value as u16).into(),
        DType::U32 => (value as u32).into(),
        DType::U64 => value as u64 as i64,
        DType::I8 => (value as i8).into(),
        DType::I16 => (value as i16).into(),
        DType::I32 => (value as i32).into(),
        _ => value as i64,
    }
}

/// An integer as a float, before rounding to it.
pub(crate) fn to_float(dtype: DType, value: i64) -> f64 {
    if dtype == DType::U64 { value as u64 as f64 } else { value as f64 }
}

/// A function of a bool or integer; `None` if it has no such.
pub(crate) fn unary_int(op: Unary, dtype: DType, x: i64) -> Option<i64> {
    let negative = x < 0 && !dtype.is_unsigned();
    let result = match op {
        Unary::Neg => x.wrapping_neg(),
        Unary::Not => (x == 0).into(),
        Unary::Invert => !x,
        Unary::Abs if negative => x.wrapping_neg(),
        Unary::Abs => x,
        Unary::Sign => {
            if negative {
                -1
            } else {
                1
            }
        }
        Unary::Step => negative.into(),
        Unary::Nonzero => (x != 0).into(),
        _ => return None,
    };
    Some(wrap(dtype, result))
}

/// A function of a float, before rounding; `None` if its result is no float.
pub(crate) fn unary_float(op: Unary, x: f64) -> Option<f64> {
    Some(match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x < 0.0 {
                -1.0
            } else {
                1.0
            }
        }
        Unary::Step => {
            if x < 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Unary::Nonzero => {
            if x == 0.0 {
                0.0
            } else {
                1.0
            }
        }
        Unary::Sqrt => x.sqrt(),
        Unary::Cbrt => x.cbrt(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Log2 => x.log2(),
        Unary::Log10 => x.log10(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => bullet_ops::scalar::erf(x),
        Unary::Erfc => bullet_ops::scalar::erfc(x),
        Unary::Erfinv => bullet_ops::scalar::erfinv(x),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        Unary::Rint => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
        Unary::Not | Unary::Invert | Unary::IsNan | Unary::IsInf | Unary::IsFinite => return None,
    })
}

/// A test of a float; `None` if the op is none.
pub(crate) fn test_float(op: Unary, x: f64) -> Option<bool> {
    Some(match op {
        Unary::IsNan => x.is_nan(),
        Unary::IsInf => x.is_infinite(),
        Unary::IsFinite => x.is_finite(),
        _ => return None,
    })
}

/// A function of two bools or integers; `None` where it is unspecified.
pub(crate) fn binary_int(op: Binary, dtype: DType, a: i64, b: i64) -> Option<i64> {
    let unsigned = dtype.is_unsigned();
    let width = 8 * dtype.size() as i64;
    let result = match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::Mod if b == 0 => return None,
        Binary::Div if unsigned => (a as u64 / b as u64) as i64,
        Binary::Div => a.wrapping_div(b),
        Binary::Mod if unsigned => (a as u64 % b as u64) as i64,
        Binary::Mod => a.wrapping_rem(b),
        Binary::Min if unsigned => (a as u64).min(b as u64) as i64,
        Binary::Min => a.min(b),
        Binary::Max if unsigned => (a as u64).max(b as u64) as i64,
        Binary::Max => a.max(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl | Binary::Shr if !(0..width).contains(&b) => return None,
        Binary::Shl => a << b,
        Binary::Shr if unsigned => ((a as u64) >> b) as i64,
        Binary::Shr => a >> b,
        Binary::Pow | Binary::Atan2 | Binary::Copysign | Binary::MulMasked => return None,
    };
    Some(wrap(dtype, result))
}

/// A function of two floats, before rounding; `None` if floats have no such.
pub(crate) fn binary_float(op: Binary, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::MulMasked => {
            if a == 0.0 {
                0.0
            } else {
                a * b
            }
        }
        Binary::Div => a / b,
        Binary::Mod => a % b,
        Binary::Pow => a.powf(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Atan2 => a.atan2(b),
        Binary::Copysign => a.copysign(b),
        Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => return None,
    })
}

/// Of numbers that can be ordered.
pub(crate) fn compare<T: PartialOrd>(op: Compare, a: T, b: T) -> bool {
    match op {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

/// Of integers.
pub(crate) fn compare_int(op: Compare, dtype: DType, a: i64, b: i64) -> bool {
    if dtype.is_unsigned() { compare(op, a as u64, b as u64) } else { compare(op, a, b) }
}

/// How often a `for` loop runs.
pub(crate) fn trips(low: i64, high: i64, step: i64) -> u64 {
    let (low, high, step) = (i128::from(low), i128::from(high), i128::from(step));
    let count = match step {
        0 => 0,
        1.. => (high - low + step - 1) / step,
        _ => (low - high - step - 1) / -step,
    };
    count.max(0) as u64
}
