//! What a float is to the interpreter: a number, or a number with a derivative.
//!
//! The derivatives here are written down on their own and not taken from the adjoint's rules, so that one checks the
//! other.

use bullet_ops::DType;

use crate::ir::{Binary, Unary, eval};

/// A float of the interpreter.
pub trait Real: Copy + std::fmt::Debug {
    /// A constant.
    fn from_f64(value: f64) -> Self;
    /// The number itself.
    fn value(self) -> f64;
    /// Rounded to a type.
    fn round(self, dtype: DType) -> Self;
    /// A function; `None` if floats have no such.
    fn unary(self, op: Unary) -> Option<Self>;
    /// A function of two; `None` if floats have no such.
    fn binary(self, op: Binary, other: Self) -> Option<Self>;
}

impl Real for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn round(self, dtype: DType) -> f64 {
        eval::round(dtype, self)
    }

    fn unary(self, op: Unary) -> Option<f64> {
        eval::unary_float(op, self)
    }

    fn binary(self, op: Binary, other: f64) -> Option<f64> {
        eval::binary_float(op, self, other)
    }
}

/// A number, and its derivative in one direction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dual {
    /// The number.
    pub value: f64,
    /// Its derivative.
    pub slope: f64,
}

impl Dual {
    /// A number with a derivative.
    pub fn new(value: f64, slope: f64) -> Dual {
        Dual { value, slope }
    }
}

/// A term of the chain rule: what does not move gives none, whatever the derivative.
fn term(slope: f64, derivative: f64) -> f64 {
    if slope == 0.0 { 0.0 } else { slope * derivative }
}

impl Real for Dual {
    fn from_f64(value: f64) -> Dual {
        Dual { value, slope: 0.0 }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn round(self, dtype: DType) -> Dual {
        Dual { value: eval::round(dtype, self.value), slope: self.slope }
    }

    fn unary(self, op: Unary) -> Option<Dual> {
        let x = self.value;
        let y = eval::unary_float(op, x)?;
        let ln10 = std::f64::consts::LN_10;
        let derivative = match op {
            Unary::Neg => -1.0,
            Unary::Abs => {
                if x < 0.0 {
                    -1.0
                } else {
                    1.0
                }
            }
            Unary::Sqrt => 1.0 / (2.0 * x.sqrt()),
            Unary::Cbrt => 1.0 / (3.0 * x.cbrt().powi(2)),
            Unary::Exp => x.exp(),
            Unary::Log => x.recip(),
            Unary::Log2 => (x * std::f64::consts::LN_2).recip(),
            Unary::Log10 => (x * ln10).recip(),
            Unary::Sin => x.cos(),
            Unary::Cos => -x.sin(),
            Unary::Tan => x.cos().powi(-2),
            Unary::Asin => ((1.0 - x) * (1.0 + x)).sqrt().recip(),
            Unary::Acos => -((1.0 - x) * (1.0 + x)).sqrt().recip(),
            Unary::Atan => (1.0 + x * x).recip(),
            Unary::Sinh => x.cosh(),
            Unary::Cosh => x.sinh(),
            Unary::Tanh => x.cosh().powi(-2),
            Unary::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Unary::Erfc => -std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Unary::Erfinv => (y * y).exp() / std::f64::consts::FRAC_2_SQRT_PI,
            Unary::Sign
            | Unary::Step
            | Unary::Nonzero
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Rint => 0.0,
            Unary::Trunc => 0.0,
            Unary::Not | Unary::Invert | Unary::IsNan | Unary::IsInf | Unary::IsFinite => return None,
        };
        Some(Dual { value: y, slope: term(self.slope, derivative) })
    }

    fn binary(self, op: Binary, other: Dual) -> Option<Dual> {
        let (a, b) = (self.value, other.value);
        let value = eval::binary_float(op, a, b)?;
        let (da, db) = (self.slope, other.slope);
        let slope = match op {
            Binary::Add => da + db,
            Binary::Sub => da - db,
            Binary::Mul => term(da, b) + term(db, a),
            Binary::Div => term(da, b.recip()) - term(db, a / (b * b)),
            Binary::Mod => da - term(db, (a / b).trunc()),
            Binary::Pow => {
                let base = term(da, b * a.powf(b - 1.0));
                base + term(db, a.ln() * a.powf(b))
            }
            // At a tie the second.
            Binary::Min => {
                if b.is_nan() || a < b {
                    da
                } else {
                    db
                }
            }
            Binary::Max => {
                if b.is_nan() || a > b {
                    da
                } else {
                    db
                }
            }
            Binary::Atan2 => {
                let square = a * a + b * b;
                term(da, b / square) - term(db, a / square)
            }
            Binary::Copysign => {
                if a.is_sign_negative() == b.is_sign_negative() {
                    da
                } else {
                    -da
                }
            }
            Binary::MulMasked => {
                if a == 0.0 {
                    term(da, b)
                } else {
                    term(da, b) + term(db, a)
                }
            }
            Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => return None,
        };
        Some(Dual { value, slope })
    }
}
