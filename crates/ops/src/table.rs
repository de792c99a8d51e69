// tidy: table
//! The op table: one row an op.
//!
//! A row is the single source of an op's name, signature, documentation, adjoint rule, test inputs and tolerance.
//! Elementwise rows carry the op itself, as an expression of scalar primitives: `x[i]` are the operands, and an adjoint
//! names `y` (the result) and `g` (its gradient) besides. What an adjoint does not name is not kept for backward.
//!
//! **Kinks.** Where a function has no derivative the rows choose: relu, abs, sign, copysign, hypot and atan2 have 0 at 0;
//! maximum and minimum give each of two equal operands half of the gradient; clip has 1 at its bounds.

use std::sync::OnceLock;

use crate::expr::{Expr, V};
use crate::op::{Map, Op};

/// One op.
pub struct Row {
    /// Its name, in snake case.
    pub name: &'static str,
    /// Its operands and, after the arrow, its results.
    pub signature: &'static str,
    /// What it computes, in a sentence.
    pub doc: &'static str,
    /// Whether and how it is differentiated.
    pub adjoint: Adjoint,
    /// Interval that test inputs are drawn from, so that the function is defined and smooth there.
    pub domain: (f64, f64),
    /// Largest error allowed, in units of the epsilon of the type that is computed in ([`DType::compute`]) times the
    /// magnitude of the result (see [`Row::tolerance`]); one rounding to a narrower result comes on top. 0 is exact.
    ///
    /// [`DType::compute`]: crate::DType::compute
    pub ulps: f64,
    /// What it computes, where that is elementwise.
    pub body: Body,
}

/// How an op is computed.
pub enum Body {
    /// By this expression of its operands.
    Map(Map, fn(&[V]) -> V),
    /// By a kernel of its own in every backend.
    Kernel,
}

/// How an op is differentiated. There is no third way: an op without a rule refuses a gradient.
pub enum Adjoint {
    /// Elementwise: `rule(x, y, g)` gives the gradient of each operand.
    Map(fn(&[V], V, V) -> Vec<V>),
    /// By a rule in terms of other ops, in the tensor crate's `adjoint` module.
    Rule,
    /// It has no gradient: its result is discrete, or it is itself an adjoint. A gradient stops here.
    NotDifferentiable,
}

impl Row {
    /// Absolute error allowed for a result of this magnitude, computed in a type of this epsilon.
    pub fn tolerance(&self, epsilon: f64, magnitude: f64) -> f64 {
        self.ulps * epsilon * magnitude.max(1.0)
    }
}

const fn map(
    name: &'static str,
    doc: &'static str,
    map: Map,
    domain: (f64, f64),
    ulps: f64,
    expr: fn(&[V]) -> V,
    adjoint: fn(&[V], V, V) -> Vec<V>,
) -> Row {
    Row { name, signature: "", doc, adjoint: Adjoint::Map(adjoint), domain, ulps, body: Body::Map(map, expr) }
}

const fn step(name: &'static str, doc: &'static str, map: Map, expr: fn(&[V]) -> V) -> Row {
    let adjoint = Adjoint::NotDifferentiable;
    Row { name, signature: "", doc, adjoint, domain: (-3.0, 3.0), ulps: 0.0, body: Body::Map(map, expr) }
}

const fn kernel(
    name: &'static str,
    signature: &'static str,
    doc: &'static str,
    ulps: f64,
    adjoint: Adjoint,
) -> Row {
    Row { name, signature, doc, adjoint, domain: (-2.0, 2.0), ulps, body: Body::Kernel }
}

const REAL: (f64, f64) = (-3.0, 3.0);
const POSITIVE: (f64, f64) = (0.1, 4.0);
const UNIT: (f64, f64) = (-0.9, 0.9);
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
const CUBIC: f64 = 0.044_715;

fn gelu_tanh_inner(x: V) -> V {
    (SQRT_2_OVER_PI * (x + CUBIC * x * x * x)).tanh()
}

fn gelu_tanh_adjoint(x: V, g: V) -> V {
    let t = gelu_tanh_inner(x);
    let slope = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
    g * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope)
}

fn gelu_adjoint(x: V, g: V) -> V {
    let cdf = 0.5 * (1.0 + (x * std::f64::consts::FRAC_1_SQRT_2).erf());
    g * (cdf + x * FRAC_1_SQRT_2PI * (-0.5 * x * x).exp())
}

/// The function of two operands by its two gradients, with 0 where `at` is 0: there they have no limit.
fn unless_zero(at: V, a: V, b: V) -> Vec<V> {
    vec![at.eq(0.0).select(0.0, a), at.eq(0.0).select(0.0, b)]
}

fn clip_adjoint(x: &[V], g: V) -> Vec<V> {
    let (over, under) = (x[2].lt(x[0].max(x[1])), x[0].lt(x[1]));
    vec![over.select(0.0, under.select(0.0, g)), over.select(0.0, under.select(g, 0.0)), over.select(g, 0.0)]
}

/// log(e^a + e^b), of equal infinities too.
fn logaddexp(a: V, b: V) -> V {
    let (larger, gap) = (a.max(b), (a - b).abs());
    a.eq(b).select(a + std::f64::consts::LN_2, larger + (-gap).exp().log1p())
}

/// The gradient of a maximum or minimum: to the winner, half to each of two equals.
fn pick(wins: V, equal: V, g: V) -> V {
    wins.select(g, equal.select(0.5 * g, 0.0))
}

/// Every op. Elementwise ops come first, in the order of [`Map`].
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    // Elementwise.                                              operands  ulps  expression                         adjoint
    map("add", "Sum.", Map::Add,                                    REAL, 1.0, |x| x[0] + x[1],                   |_, _, g| vec![g, g]),
    map("sub", "Difference.", Map::Sub,                             REAL, 1.0, |x| x[0] - x[1],                   |_, _, g| vec![g, -g]),
    map("mul", "Product.", Map::Mul,                                REAL, 1.0, |x| x[0] * x[1],                   |x, _, g| vec![g * x[1], g * x[0]]),
    map("div", "True quotient; integers give floats.", Map::Div,    POSITIVE, 2.0, |x| x[0] / x[1],               |x, y, g| vec![g / x[1], -g * y / x[1]]),
    map("pow", "First operand to the power of the second.", Map::Pow, POSITIVE, 32.0, |x| x[0].pow(x[1]),
        |x, y, g| vec![
            // x^(b-1) is taken of b alone, so that the slope of x^2 at 0 is 0; at b = 0 it is 0 whatever x is.
            x[1].eq(0.0).select(0.0, g * x[1] * x[0].pow(x[1] - 1.0)),
            // 0^b is flat in b where it is defined.
            x[0].eq(0.0).select(0.0, g * y * x[0].log()),
        ]),
    map("maximum", "The larger; NaN if either is.", Map::Maximum,   REAL, 0.0, |x| x[0].max(x[1]),
        |x, _, g| vec![pick(x[1].lt(x[0]), x[0].eq(x[1]), g), pick(x[0].lt(x[1]), x[0].eq(x[1]), g)]),
    map("minimum", "The smaller; NaN if either is.", Map::Minimum,  REAL, 0.0, |x| x[0].min(x[1]),
        |x, _, g| vec![pick(x[0].lt(x[1]), x[0].eq(x[1]), g), pick(x[1].lt(x[0]), x[0].eq(x[1]), g)]),
    map("neg", "Negative.", Map::Neg,                               REAL, 0.0, |x| -x[0],                         |_, _, g| vec![-g]),
    map("abs", "Absolute value.", Map::Abs,                         REAL, 0.0, |x| x[0].abs(),
        |x, _, g| vec![x[0].lt(0.0).select(-g, V::from(0.0).lt(x[0]).select(g, 0.0))]),
    map("sign", "-1, 0 or 1; NaN stays NaN.", Map::Sign,            REAL, 0.0,
        |x| x[0].eq(x[0]).select(V::from(0.0).lt(x[0]) - x[0].lt(0.0), x[0]),                                     |_, _, _| vec![0.0.into()]),
    map("square", "x * x.", Map::Square,                            REAL, 1.0, |x| x[0] * x[0],                   |x, _, g| vec![2.0 * g * x[0]]),
    map("reciprocal", "1 / x.", Map::Reciprocal,                    POSITIVE, 2.0, |x| 1.0 / x[0],                |_, y, g| vec![-g * y * y]),
    map("exp", "e to the power x.", Map::Exp,                       REAL, 4.0, |x| x[0].exp(),                    |_, y, g| vec![g * y]),
    map("log", "Natural logarithm.", Map::Log,                      POSITIVE, 4.0, |x| x[0].log(),                |x, _, g| vec![g / x[0]]),
    map("sqrt", "Square root.", Map::Sqrt,                          POSITIVE, 2.0, |x| x[0].sqrt(),               |_, y, g| vec![0.5 * g / y]),
    map("rsqrt", "1 / sqrt(x).", Map::Rsqrt,                        POSITIVE, 4.0, |x| x[0].rsqrt(),              |_, y, g| vec![-0.5 * g * y * y * y]),
    map("sin", "Sine, of radians.", Map::Sin,                       (-20.0, 20.0), 8.0, |x| x[0].sin(),           |x, _, g| vec![g * x[0].cos()]),
    map("cos", "Cosine, of radians.", Map::Cos,                     (-20.0, 20.0), 8.0, |x| x[0].cos(),           |x, _, g| vec![-g * x[0].sin()]),
    map("tanh", "Hyperbolic tangent.", Map::Tanh,                   REAL, 8.0, |x| x[0].tanh(),                   |_, y, g| vec![g * (1.0 - y * y)]),
    map("erf", "Error function.", Map::Erf,                         REAL, 8.0, |x| x[0].erf(),
        |x, _, g| vec![g * std::f64::consts::FRAC_2_SQRT_PI * (-(x[0] * x[0])).exp()]),
    map("sigmoid", "1 / (1 + e^-x).", Map::Sigmoid,                 REAL, 4.0, |x| x[0].sigmoid(),                |_, y, g| vec![g * y * (1.0 - y)]),
    map("relu", "max(x, 0); NaN stays NaN.", Map::Relu,             REAL, 0.0, |x| x[0].max(0.0),                 |x, _, g| vec![V::from(0.0).lt(x[0]).select(g, 0.0)]),
    map("gelu", "x * Phi(x), Phi the normal distribution (Hendrycks and Gimpel 2016).", Map::Gelu, REAL, 8.0,
        |x| 0.5 * x[0] * (1.0 + (x[0] * std::f64::consts::FRAC_1_SQRT_2).erf()),                                  |x, _, g| vec![gelu_adjoint(x[0], g)]),
    map("gelu_tanh", "GELU by its tanh approximation, as GPT-2 has it.", Map::GeluTanh, REAL, 8.0,
        |x| 0.5 * x[0] * (1.0 + gelu_tanh_inner(x[0])),                                                           |x, _, g| vec![gelu_tanh_adjoint(x[0], g)]),
    map("silu", "x * sigmoid(x).", Map::Silu,                       REAL, 4.0, |x| x[0] * x[0].sigmoid(),
        |x, _, g| { let s = x[0].sigmoid(); vec![g * s * (1.0 + x[0] * (1.0 - s))] }),
    map("floor", "Largest integer not above x.", Map::Floor,        REAL, 0.0, |x| x[0].floor(),                  |_, _, _| vec![0.0.into()]),
    map("ceil", "Smallest integer not below x.", Map::Ceil,         REAL, 0.0, |x| x[0].ceil(),                   |_, _, _| vec![0.0.into()]),
    map("round", "Nearest integer, ties to even.", Map::Round,      REAL, 0.0, |x| x[0].round(),                  |_, _, _| vec![0.0.into()]),
    step("eq", "x == y.", Map::Eq, |x| x[0].eq(x[1])),
    step("ne", "x != y.", Map::Ne, |x| !x[0].eq(x[1])),
    step("lt", "x < y.", Map::Lt, |x| x[0].lt(x[1])),
    step("le", "x <= y.", Map::Le, |x| x[0].le(x[1])),
    step("gt", "x > y.", Map::Gt, |x| x[1].lt(x[0])),
    step("ge", "x >= y.", Map::Ge, |x| x[1].le(x[0])),
    step("logical_and", "Both non-zero.", Map::LogicalAnd, |x| x[0].and(x[1])),
    step("logical_or", "Either non-zero.", Map::LogicalOr, |x| x[0].or(x[1])),
    step("logical_not", "Zero.", Map::LogicalNot, |x| !x[0]),
    map("where", "Second operand where the first is true, else the third.", Map::Where, REAL, 0.0, |x| x[0].select(x[1], x[2]),
        |x, _, g| vec![0.0.into(), x[0].select(g, 0.0), x[0].select(0.0, g)]),
    map("masked_fill", "First operand, but the third where the second is true.", Map::MaskedFill, REAL, 0.0, |x| x[1].select(x[2], x[0]),
        |x, _, g| vec![x[1].select(0.0, g), 0.0.into(), x[1].select(g, 0.0)]),
    map("floor_divide", "Largest whole number not above the quotient; of integers 0 by 0.", Map::FloorDivide, (0.6, 5.0), 2.0,
        |x| x[0].floor_divide(x[1]),                                                                              |_, _, _| vec![0.0.into(), 0.0.into()]),
    map("remainder", "What floor_divide leaves, with the divisor's sign; of integers 0 by 0.", Map::Remainder, (0.6, 5.0), 2.0,
        |x| x[0].remainder(x[1]),                                                                                 |x, _, g| vec![g, -g * x[0].floor_divide(x[1])]),
    step("bitwise_and", "Bits that both integers have; both, of bools.", Map::BitwiseAnd, |x| x[0].bit_and(x[1])),
    step("bitwise_or", "Bits that either integer has; either, of bools.", Map::BitwiseOr, |x| x[0].bit_or(x[1])),
    step("bitwise_xor", "Bits that one integer has; one of them, of bools.", Map::BitwiseXor, |x| x[0].bit_xor(x[1])),
    step("bitwise_invert", "Every bit of an integer inverted.", Map::BitwiseInvert, |x| x[0].invert()),
    step("bitwise_left_shift", "x * 2^y; 0 if y is negative or no less than the width.", Map::BitwiseLeftShift, |x| x[0].shift_left(x[1])),
    step("bitwise_right_shift", "x / 2^y, rounded down; 0 or -1 if y is negative or no less than the width.", Map::BitwiseRightShift, |x| x[0].shift_right(x[1])),
    step("logical_xor", "One of them non-zero.", Map::LogicalXor, |x| !(!x[0]).eq(!x[1])),
    map("tan", "Tangent, of radians.", Map::Tan,                    (-1.3, 1.3), 8.0, |x| x[0].tan(),             |_, y, g| vec![g * (1.0 + y * y)]),
    map("asin", "Inverse sine, in radians.", Map::Asin,             UNIT, 8.0, |x| x[0].asin(),                   |x, _, g| vec![g * ((1.0 - x[0]) * (1.0 + x[0])).rsqrt()]),
    map("acos", "Inverse cosine, in radians.", Map::Acos,           UNIT, 8.0, |x| x[0].acos(),                   |x, _, g| vec![-g * ((1.0 - x[0]) * (1.0 + x[0])).rsqrt()]),
    map("atan", "Inverse tangent, in radians.", Map::Atan,          REAL, 8.0, |x| x[0].atan(),                   |x, _, g| vec![g / (1.0 + x[0] * x[0])]),
    map("atan2", "Angle of the point whose ordinate is the first operand and whose abscissa is the second.", Map::Atan2, POSITIVE, 8.0,
        |x| x[0].atan2(x[1]),
        // By the root's inverse: two divisions a lane spill registers on old GPUs.
        |x, _, g| { let r = x[0] * x[0] + x[1] * x[1]; let s = r.rsqrt(); unless_zero(r, g * (x[1] * s) * s, -g * (x[0] * s) * s) }),
    map("sinh", "Hyperbolic sine.", Map::Sinh,                      REAL, 8.0, |x| x[0].sinh(),                   |x, _, g| vec![g * x[0].cosh()]),
    map("cosh", "Hyperbolic cosine.", Map::Cosh,                    REAL, 8.0, |x| x[0].cosh(),                   |x, _, g| vec![g * x[0].sinh()]),
    map("asinh", "Inverse hyperbolic sine.", Map::Asinh,            REAL, 8.0, |x| x[0].asinh(),                  |x, _, g| vec![g * (x[0] * x[0] + 1.0).rsqrt()]),
    map("acosh", "Inverse hyperbolic cosine.", Map::Acosh,          (1.2, 4.0), 8.0, |x| x[0].acosh(),            |x, _, g| vec![g * ((x[0] - 1.0) * (x[0] + 1.0)).rsqrt()]),
    map("atanh", "Inverse hyperbolic tangent.", Map::Atanh,         UNIT, 8.0, |x| x[0].atanh(),                  |x, _, g| vec![g / ((1.0 - x[0]) * (1.0 + x[0]))]),
    map("expm1", "e^x - 1, with all its digits near 0.", Map::Expm1, REAL, 4.0, |x| x[0].expm1(),                 |_, y, g| vec![g * (y + 1.0)]),
    map("log1p", "log(1 + x), with all its digits near 0.", Map::Log1p, (-0.8, 4.0), 8.0, |x| x[0].log1p(),       |x, _, g| vec![g / (1.0 + x[0])]),
    map("log2", "Logarithm to base 2.", Map::Log2,                  POSITIVE, 4.0, |x| x[0].log2(),               |x, _, g| vec![g * std::f64::consts::LOG2_E / x[0]]),
    map("log10", "Logarithm to base 10.", Map::Log10,               POSITIVE, 4.0, |x| x[0].log10(),              |x, _, g| vec![g * std::f64::consts::LOG10_E / x[0]]),
    map("hypot", "sqrt(x^2 + y^2), without overflow.", Map::Hypot,  POSITIVE, 4.0, |x| x[0].hypot(x[1]),          |x, y, g| unless_zero(y, g * x[0] / y, g * x[1] / y)),
    map("copysign", "Magnitude of the first operand, sign of the second.", Map::Copysign, REAL, 0.0, |x| x[0].copysign(x[1]),
        |x, _, g| vec![x[0].eq(0.0).select(0.0, g * V::from(1.0).copysign(x[0]) * V::from(1.0).copysign(x[1])), 0.0.into()]),
    step("nextafter", "Next number of its dtype from the first operand towards the second.", Map::Nextafter, |x| x[0].next_after(x[1])),
    map("logaddexp", "log(e^x + e^y), without overflow.", Map::Logaddexp, REAL, 8.0, |x| logaddexp(x[0], x[1]),
        |x, _, g| vec![g * (x[0] - x[1]).sigmoid(), g * (x[1] - x[0]).sigmoid()]),
    step("signbit", "Negative, -0 and -NaN too.", Map::Signbit, |x| V::from(1.0).copysign(x[0]).lt(0.0)),
    map("trunc", "Integer part.", Map::Trunc,                       REAL, 0.0, |x| x[0].trunc(),                  |_, _, _| vec![0.0.into()]),
    step("isnan", "Not a number.", Map::Isnan, |x| !x[0].eq(x[0])),
    step("isinf", "Infinite.", Map::Isinf, |x| x[0].abs().eq(f64::INFINITY)),
    step("isfinite", "Neither infinite nor NaN.", Map::Isfinite, |x| x[0].abs().lt(f64::INFINITY)),
    map("clip", "First operand, but no less than the second and no more than the third, which goes first.", Map::Clip, REAL, 0.0,
        |x| x[0].max(x[1]).min(x[2]),                                                                             |x, _, g| clip_adjoint(x, g)),
    // Element type and memory.
    kernel("cast", "x -> y", "Elements as another dtype.", 0.0, Adjoint::Rule),
    kernel("copy", "x -> y", "A row-major copy of a strided operand.", 0.0, Adjoint::Rule),
    // Reductions.
    kernel("sum", "x -> y", "Sum over axes.", 16.0, Adjoint::Rule),
    kernel("mean", "x -> y", "Mean over axes.", 16.0, Adjoint::Rule),
    kernel("max", "x -> y", "Largest over axes; the gradient is shared by equals.", 0.0, Adjoint::Rule),
    kernel("min", "x -> y", "Smallest over axes; the gradient is shared by equals.", 0.0, Adjoint::Rule),
    kernel("prod", "x -> y", "Product over axes.", 32.0, Adjoint::Rule),
    kernel("all", "x -> y", "Whether none is zero, over axes; NaN is not zero.", 0.0, Adjoint::NotDifferentiable),
    kernel("any", "x -> y", "Whether any is not zero, over axes.", 0.0, Adjoint::NotDifferentiable),
    kernel("var", "x -> y", "Variance over axes.", 32.0, Adjoint::Rule),
    kernel("argmax", "x -> i", "Index (i64) of the largest along an axis.", 0.0, Adjoint::NotDifferentiable),
    kernel("argmin", "x -> i", "Index (i64) of the smallest along an axis.", 0.0, Adjoint::NotDifferentiable),
    // Scans. Added up in order, equal terms may all be rounded the same way: half an ulp for each of the 300 there are in tests.
    kernel("cumsum", "x -> y", "Running sums along an axis, from either end, with or without the element itself.", 160.0, Adjoint::Rule),
    kernel("cumprod", "x -> y", "Running products along an axis, from either end, with or without the element itself.", 160.0, Adjoint::Rule),
    kernel("cumprod_grad", "x, g -> dx", "Adjoint of cumprod from the start: dx[i] is the sum over k >= i of g[k] times the product of x[..=k] without x[i].", 160.0, Adjoint::NotDifferentiable),
    // Order.
    kernel("sort", "x[.., n] -> y[.., n], i[.., n]", "Elements along the last axis in order, and where they were (i64); equals keep their order, NaN is last.", 0.0, Adjoint::Rule),
    kernel("nonzero", "x -> i[numel], count", "Row-major positions (i64) of elements that are not zero, then zeros; and how many there are.", 0.0, Adjoint::NotDifferentiable),
    kernel("searchsorted", "s[n], v -> i (shape of v)", "How many elements of a sorted vector come before each value (i64): those below it, or (right) not above it.", 0.0, Adjoint::NotDifferentiable),
    // Products.
    kernel("matmul", "a[.., m, k], b[.., k, n] -> c[.., m, n]", "Matrix product; leading axes broadcast.", 64.0, Adjoint::Rule),
    kernel("linear_bias_grad", "g[.., n].. -> db[n]..", "Sums over all axes but the last: the gradients of the biases of several linear ops.", 16.0, Adjoint::NotDifferentiable),
    kernel("linear_weight_grad", "(g[.., n], x[.., k]).. -> dw[n, k]..", "Sums over rows of g x^T: the gradients of the weights of several linear ops.", 64.0, Adjoint::NotDifferentiable),
    kernel("linear", "x[.., k], w[n, k], b[n]? -> y[.., n], pre[.., n]?",
        "activation(x W^T + b); `pre`, the value before the activation, is a result where there is one.", 64.0, Adjoint::Rule),
    // Rows.
    kernel("softmax", "x[.., n] -> y[.., n]", "e^x over its sum, along the last axis.", 16.0, Adjoint::Rule),
    kernel("softmax_grad", "y, g -> dx", "y * (g - sum(g * y)).", 32.0, Adjoint::NotDifferentiable),
    kernel("log_softmax", "x[.., n] -> y[.., n]", "x - log(sum(e^x)), along the last axis.", 16.0, Adjoint::Rule),
    kernel("log_softmax_grad", "y, g -> dx", "g - e^y * sum(g).", 32.0, Adjoint::NotDifferentiable),
    kernel("layer_norm", "x[.., n], w[n]?, b[n]? -> y, mean[..], rstd[..]", "(x - mean) * rstd * w + b along the last axis.", 64.0, Adjoint::Rule),
    kernel("layer_norm_grad", "x, mean, rstd, g, w? -> dx, dw[n]?, db[n]?", "Adjoint of layer_norm; dw and db where w is given.", 256.0, Adjoint::NotDifferentiable),
    kernel("rms_norm", "x[.., n], w[n]? -> y, rstd[..]", "x * rstd * w along the last axis.", 64.0, Adjoint::Rule),
    kernel("rms_norm_grad", "x, rstd, g, w? -> dx, dw[n]?", "Adjoint of rms_norm; dw where w is given.", 256.0, Adjoint::NotDifferentiable),
    kernel("add_layer_norm", "x[.., n], r[.., n], w[n]?, b[n]? -> y, s, mean[..], rstd[..]", "s = x + r, and layer_norm of s as it is stored.", 64.0, Adjoint::Rule),
    kernel("add_layer_norm_grad", "s, mean, rstd, g, gs, w? -> ds, dw[n]?, db[n]?", "layer_norm_grad of s and g, with gs added to ds.", 256.0, Adjoint::NotDifferentiable),
    kernel("add_rms_norm", "x[.., n], r[.., n], w[n]? -> y, s, rstd[..]", "s = x + r, and rms_norm of s as it is stored.", 64.0, Adjoint::Rule),
    kernel("add_rms_norm_grad", "s, rstd, g, gs, w? -> ds, dw[n]?", "rms_norm_grad of s and g, with gs added to ds.", 256.0, Adjoint::NotDifferentiable),
    // Indexing.
    kernel("embedding", "table[v, n], i[..] -> y[.., n]", "Rows of a table.", 0.0, Adjoint::Rule),
    kernel("embedding_grad", "i[..], g[.., n] -> dtable[v, n]", "Gradient rows summed by index.", 32.0, Adjoint::NotDifferentiable),
    kernel("gather", "x, i -> y (shape of i)", "y[.., j, ..] = x[.., i[.., j, ..], ..] along an axis.", 0.0, Adjoint::Rule),
    kernel("scatter_add", "x, i, s -> y (shape of x)", "x with s[.., j, ..] added at i[.., j, ..] along an axis.", 32.0, Adjoint::Rule),
    kernel("index_select", "x, i[m] -> y", "Whole slices along an axis.", 0.0, Adjoint::Rule),
    kernel("index_add", "x, i[m], s -> y (shape of x)", "x with whole slices of s added along an axis.", 32.0, Adjoint::Rule),
    kernel("concat", "x.. -> y", "Tensors joined along an axis.", 0.0, Adjoint::Rule),
    kernel("pad", "x -> y", "A constant border.", 0.0, Adjoint::Rule),
    // Models.
    kernel("dropout", "x, rng[2] -> y", "Zeros with probability p; rng (i64) is the seed and the step.", 2.0, Adjoint::Rule),
    kernel("cross_entropy", "logits[n, c], target[n] -> loss, lse[n], count", "Mean of -log softmax at the target; lse is the log of the sum of e^logits (0 where the target is ignored), count the targets that counted.", 64.0, Adjoint::Rule),
    kernel("cross_entropy_grad", "logits, target, lse, count, g -> dlogits", "(softmax - target) * g / count.", 64.0, Adjoint::NotDifferentiable),
    kernel("attention", "q[b, h, s, d], k[b, hk, t, d], v[b, hk, t, d], mask[b?, h?, s?, t]?, rng[2]? -> o[b, s, h, d], lse[b, h, s]",
        "softmax(scale * q k^T + mask) v; a bool mask keeps where it is true, a float one is added. A query that sees no key gives 0. With dropout, rng is as in dropout.", 128.0, Adjoint::Rule),
    kernel("attention_grad", "q, k, v, o, lse, g, mask?, rng? -> dq, dk, dv", "Adjoint of attention.", 512.0, Adjoint::NotDifferentiable),
    kernel("attention_packed", "qkv[b, s, (h + 2 hk) d], rng[2]? -> o[b, s, h, d], lse[b, h, s]", "attention on packed operands.", 128.0, Adjoint::Rule),
    kernel("attention_packed_grad", "qkv, o, lse, g, rng? -> dqkv", "Adjoint of attention_packed.", 512.0, Adjoint::NotDifferentiable),
    kernel("rope", "x[b, s, h, d] -> y", "Pairs of each head rotated by an angle that grows with the position.", 16.0, Adjoint::Rule),
    kernel("conv1d", "x[n, ci, l], w[co, ci/groups, k], b[co]? -> y[n, co, lo]", "One-dimensional convolution.", 64.0, Adjoint::Rule),
    kernel("conv1d_grad_input", "w, g -> dx", "Adjoint of conv1d in x.", 64.0, Adjoint::NotDifferentiable),
    kernel("conv1d_grad_weight", "x, g -> dw", "Adjoint of conv1d in w.", 128.0, Adjoint::NotDifferentiable),
];

/// The expressions of an elementwise op, built once.
pub struct MapExprs {
    /// The op itself, over its operands.
    pub forward: Expr,
    /// The gradient of each operand, over operands, result and gradient (in this order); `None` if not
    /// differentiable.
    pub adjoint: Option<Vec<Expr>>,
}

impl Map {
    /// Number of operands.
    pub const fn arity(self) -> usize {
        use Map::*;
        match self {
            Add | Sub | Mul | Div | Pow | Maximum | Minimum | Eq | Ne | Lt | Le | Gt | Ge | LogicalAnd
            | LogicalOr | LogicalXor | FloorDivide | Remainder | BitwiseAnd | BitwiseOr | BitwiseXor
            | BitwiseLeftShift | BitwiseRightShift | Atan2 | Hypot | Copysign | Nextafter | Logaddexp => 2,
            Neg | Abs | Sign | Square | Reciprocal | Exp | Log | Sqrt | Rsqrt | Sin | Cos | Tanh | Erf
            | Sigmoid | Relu | Gelu | GeluTanh | Silu | Floor | Ceil | Round | LogicalNot | BitwiseInvert
            | Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh | Expm1 | Log1p | Log2
            | Log10 | Signbit | Trunc | Isnan | Isinf | Isfinite => 1,
            Where | MaskedFill | Clip => 3,
        }
    }

    /// The row of this op.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The expressions of this op and its adjoint.
    pub fn exprs(self) -> &'static MapExprs {
        static EXPRS: OnceLock<Vec<MapExprs>> = OnceLock::new();
        &EXPRS.get_or_init(|| TABLE.iter().map_while(build_exprs).collect())[self as usize]
    }
}

fn build_exprs(row: &Row) -> Option<MapExprs> {
    let Body::Map(map, expr) = row.body else { return None };
    let n = map.arity();
    let adjoint = match row.adjoint {
        Adjoint::Map(rule) => Some(Expr::build_many(n + 2, |v| rule(&v[..n], v[n], v[n + 1]))),
        Adjoint::Rule | Adjoint::NotDifferentiable => None,
    };
    Some(MapExprs { forward: Expr::build(n, expr), adjoint })
}

impl Op {
    /// The name of this op: that of its row.
    pub fn name(&self) -> &'static str {
        use crate::op::Reduce;
        match self {
            Op::Map(map) => map.row().name,
            Op::Cast(_) => "cast",
            Op::Copy => "copy",
            Op::Reduce { kind: Reduce::Sum, .. } => "sum",
            Op::Reduce { kind: Reduce::Mean, .. } => "mean",
            Op::Reduce { kind: Reduce::Max, .. } => "max",
            Op::Reduce { kind: Reduce::Min, .. } => "min",
            Op::Reduce { kind: Reduce::Prod, .. } => "prod",
            Op::Reduce { kind: Reduce::All, .. } => "all",
            Op::Reduce { kind: Reduce::Any, .. } => "any",
            Op::Reduce { kind: Reduce::Var { .. }, .. } => "var",
            Op::ArgReduce { max: true, .. } => "argmax",
            Op::ArgReduce { max: false, .. } => "argmin",
            Op::Scan { product: false, .. } => "cumsum",
            Op::Scan { product: true, .. } => "cumprod",
            Op::CumProdGrad { .. } => "cumprod_grad",
            Op::Sort { .. } => "sort",
            Op::NonZero => "nonzero",
            Op::SearchSorted { .. } => "searchsorted",
            Op::MatMul => "matmul",
            Op::Linear { .. } => "linear",
            Op::LinearBiasGrad => "linear_bias_grad",
            Op::LinearWeightGrad => "linear_weight_grad",
            Op::Softmax => "softmax",
            Op::SoftmaxGrad => "softmax_grad",
            Op::LogSoftmax => "log_softmax",
            Op::LogSoftmaxGrad => "log_softmax_grad",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormGrad => "layer_norm_grad",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGrad => "rms_norm_grad",
            Op::AddNorm { rms: false, .. } => "add_layer_norm",
            Op::AddNorm { rms: true, .. } => "add_rms_norm",
            Op::AddNormGrad { rms: false } => "add_layer_norm_grad",
            Op::AddNormGrad { rms: true } => "add_rms_norm_grad",
            Op::Embedding => "embedding",
            Op::EmbeddingGrad { .. } => "embedding_grad",
            Op::Gather { .. } => "gather",
            Op::ScatterAdd { .. } => "scatter_add",
            Op::IndexSelect { .. } => "index_select",
            Op::IndexAdd { .. } => "index_add",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            Op::Dropout(_) => "dropout",
            Op::CrossEntropy { .. } => "cross_entropy",
            Op::CrossEntropyGrad { .. } => "cross_entropy_grad",
            Op::Attention(_) => "attention",
            Op::AttentionGrad(_) => "attention_grad",
            Op::AttentionPacked { .. } => "attention_packed",
            Op::AttentionPackedGrad { .. } => "attention_packed_grad",
            Op::Rope(_) => "rope",
            Op::Conv1d(_) => "conv1d",
            Op::Conv1dGradInput { .. } => "conv1d_grad_input",
            Op::Conv1dGradWeight { .. } => "conv1d_grad_weight",
        }
    }

    /// The row of this op.
    pub fn row(&self) -> &'static Row {
        let name = self.name();
        TABLE.iter().find(|row| row.name == name).expect("every op has a row: tested below")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_map_and_names_are_unique() {
        for (i, row) in TABLE.iter().enumerate() {
            if let Body::Map(map, _) = row.body {
                assert_eq!(map as usize, i, "{}", row.name);
                assert_eq!(Op::Map(map).row().name, row.name);
            }
            assert!(TABLE[..i].iter().all(|r| r.name != row.name), "{} twice", row.name);
            assert!(row.doc.ends_with('.'), "{}", row.name);
        }
        assert!(matches!(TABLE[Map::Clip as usize + 1].body, Body::Kernel));
    }

    /// Every elementwise adjoint against central differences, in f64, where the row says the function is smooth.
    #[test]
    fn elementwise_adjoints_match_finite_differences() {
        for row in TABLE {
            let Body::Map(map, _) = row.body else { continue };
            let Some(adjoint) = &map.exprs().adjoint else { continue };
            let forward = &map.exprs().forward;
            for trial in 0..50 {
                let x: Vec<f64> = (0..map.arity()).map(|i| sample(row.domain, trial * 7 + i)).collect();
                let g = 1.3;
                let mut args = x.clone();
                args.extend([forward.eval(&x), g]);
                for i in 0..x.len() {
                    let boolean = matches!((map, i), (Map::Where, 0) | (Map::MaskedFill, 1));
                    if boolean {
                        assert_eq!(adjoint[i].as_const(), Some(0.0));
                        continue;
                    }
                    let h = 1e-6;
                    let at = |d: f64| {
                        let mut x = x.clone();
                        x[i] += d;
                        forward.eval(&x)
                    };
                    let want = g * (at(h) - at(-h)) / (2.0 * h);
                    let got = adjoint[i].eval(&args);
                    assert!(
                        (got - want).abs() <= 1e-7 * (1.0 + want.abs()),
                        "{} x={x:?}: {got} != {want}",
                        row.name
                    );
                }
            }
        }
    }

    /// A point of the interval, by a low-discrepancy sequence that misses the kinks.
    fn sample((lo, hi): (f64, f64), i: usize) -> f64 {
        lo + (hi - lo) * ((i as f64 + 0.37) * 0.618_033_988_749_894_9).fract()
    }

    #[test]
    fn kinks_have_the_documented_subgradients() {
        let slope = |map: Map, x: &[f64]| {
            let mut args = x.to_vec();
            args.extend([map.exprs().forward.eval(x), 1.0]);
            map.exprs().adjoint.as_ref().unwrap().iter().map(|e| e.eval(&args)).collect::<Vec<_>>()
        };
        assert_eq!(slope(Map::Relu, &[0.0]), [0.0]);
        assert_eq!(slope(Map::Abs, &[0.0]), [0.0]);
        assert_eq!(slope(Map::Maximum, &[2.0, 2.0]), [0.5, 0.5]);
        assert_eq!(slope(Map::Minimum, &[2.0, 2.0]), [0.5, 0.5]);
        assert_eq!(slope(Map::Pow, &[0.0, 2.0]), [0.0, 0.0]);
        assert_eq!(slope(Map::Pow, &[-2.0, 0.0])[0], 0.0);
    }
}
