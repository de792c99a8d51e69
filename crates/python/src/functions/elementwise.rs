//! Elementwise functions: one line an op.

use bullet_tensor::{DType, Tensor};
use pyo3::prelude::*;

use crate::operand::{Operand, compared, divided, pair};
use crate::tensor::{PyTensor, once, unlocked};

/// Defines functions of one tensor, and `add_unary`, which adds them to the module.
macro_rules! unary {
    ($($name:ident = $method:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x, /))]
            fn $name(py: Python<'_>, x: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
                let x = x.get().tensor();
                once(py, &[&x], || x.$method())
            }
        )*
        fn add_unary(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
unary! {
    abs = abs: "Absolute value of each element.",
    acos = acos: "Inverse cosine of each element, in radians.",
    acosh = acosh: "Inverse hyperbolic cosine of each element.",
    asin = asin: "Inverse sine of each element, in radians.",
    asinh = asinh: "Inverse hyperbolic sine of each element.",
    atan = atan: "Inverse tangent of each element, in radians.",
    atanh = atanh: "Inverse hyperbolic tangent of each element.",
    bitwise_invert = bitwise_invert: "Every bit of each integer inverted; bools negated.",
    ceil = ceil: "Smallest integer not below each element.",
    cos = cos: "Cosine of each element, in radians.",
    cosh = cosh: "Hyperbolic cosine of each element.",
    erf = erf: "Error function of each element.",
    exp = exp: "e to the power of each element.",
    expm1 = expm1: "e to the power of each element, minus 1, with all its digits near 0.",
    floor = floor: "Largest integer not above each element.",
    isfinite = isfinite: "Whether each element is neither infinite nor NaN.",
    isinf = isinf: "Whether each element is infinite.",
    isnan = isnan: "Whether each element is NaN.",
    log = log: "Natural logarithm of each element.",
    log1p = log1p: "Natural logarithm of 1 plus each element, with all its digits near 0.",
    log2 = log2: "Logarithm to base 2 of each element.",
    log10 = log10: "Logarithm to base 10 of each element.",
    logical_not = logical_not: "Whether each element is zero.",
    negative = neg: "Negative of each element.",
    reciprocal = reciprocal: "1 / x of each element.",
    relu = relu: "max(x, 0) of each element.",
    rsqrt = rsqrt: "1 / sqrt(x) of each element.",
    sigmoid = sigmoid: "1 / (1 + exp(-x)) of each element.",
    sign = sign: "-1, 0 or 1 by the sign of each element.",
    signbit = signbit: "Whether the sign bit of each element is set.",
    silu = silu: "x * sigmoid(x) of each element.",
    sin = sin: "Sine of each element, in radians.",
    sinh = sinh: "Hyperbolic sine of each element.",
    sqrt = sqrt: "Square root of each element.",
    square = square: "x * x of each element.",
    tan = tan: "Tangent of each element, in radians.",
    tanh = tanh: "Hyperbolic tangent of each element.",
    trunc = trunc: "Integer part of each element.",
    positive = copy: "A copy.",
    conj = copy: "The complex conjugate of each element: a copy, as there are no complex numbers.",
    real = copy: "The real part of each element: a copy, as there are no complex numbers.",
    imag = zeros_like: "The imaginary part of each element: zeros, as there are no complex numbers.",
}

/// Defines functions of two operands, one of which may be a number, and a function that adds them to the module.
macro_rules! binary {
    ($pair:ident, $add:ident; $($name:ident = $method:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x1, x2, /))]
            fn $name(py: Python<'_>, x1: Operand, x2: Operand) -> PyResult<PyTensor> {
                let (a, b) = $pair(x1, x2)?;
                once(py, &[&a, &b], || a.$method(&b))
            }
        )*
        fn $add(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
binary! {
    pair, add_binary;
    add = add: "Sum of elements.",
    atan2 = atan2: "Angle of the points whose ordinates are the first and whose abscissas are the second elements.",
    bitwise_and = bitwise_and: "Bits that both integers have.",
    bitwise_left_shift = bitwise_left_shift: "Bits of the first moved up by as many places as the second says.",
    bitwise_or = bitwise_or: "Bits that either integer has.",
    bitwise_right_shift = bitwise_right_shift: "Bits of the first moved down by as many places as the second says.",
    bitwise_xor = bitwise_xor: "Bits that one of the integers has.",
    copysign = copysign: "Magnitudes of the first with signs of the second.",
    floor_divide = floor_divide: "Largest integer not above the quotient.",
    hypot = hypot: "sqrt(x1^2 + x2^2), without overflow in between.",
    logaddexp = logaddexp: "log(exp(x1) + exp(x2)), without overflow in between.",
    logical_and = logical_and: "Whether both elements are not zero.",
    logical_or = logical_or: "Whether either element is not zero.",
    logical_xor = logical_xor: "Whether one of the elements is not zero, and the other is.",
    maximum = maximum: "The larger of two elements; NaN if either is.",
    minimum = minimum: "The smaller of two elements; NaN if either is.",
    multiply = mul: "Product of elements.",
    nextafter = nextafter: "The number next to the first, towards the second.",
    pow = pow: "Elements of the first to the power of those of the second.",
    remainder = remainder: "What the floor of the quotient leaves, with the sign of the second.",
    subtract = sub: "Difference of elements.",
}
binary! {
    divided, add_divided;
    divide = div: "Quotient of elements; integers give floats.",
}
binary! {
    compared, add_compared;
    equal = eq: "Whether elements are equal.",
    not_equal = ne: "Whether elements differ.",
    less = lt: "Whether elements of the first are smaller.",
    less_equal = le: "Whether elements of the first are not larger.",
    greater = gt: "Whether elements of the first are larger.",
    greater_equal = ge: "Whether elements of the first are not smaller.",
}

/// Elements no less than `min` and no more than `max`, which goes first; either may be None.
#[pyfunction]
#[pyo3(signature = (x, /, min = None, max = None))]
pub(crate) fn clip(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    min: Option<Operand>,
    max: Option<Operand>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let bound = |bound: Option<Operand>| bound.map(|b| b.beside_bounded(&x)).transpose();
    let (min, max) = (bound(min)?, bound(max)?);
    unlocked(py, || match (&min, &max) {
        (None, None) => x.copy(),
        (Some(min), None) => x.maximum(min),
        (None, Some(max)) => x.minimum(max),
        (Some(min), Some(max)) => x.clip(min, max),
    })
}

/// Elements of `x1` where the condition is true, else of `x2`.
#[pyfunction]
#[pyo3(name = "where", signature = (condition, x1, x2, /))]
fn select(py: Python<'_>, condition: &Bound<'_, PyTensor>, x1: Operand, x2: Operand) -> PyResult<PyTensor> {
    let condition = condition.get().tensor();
    let (a, b) = match (x1, x2) {
        (a @ Operand::Tensor(_), b) | (a, b @ Operand::Tensor(_)) => pair(a, b)?,
        (a, b) => {
            let joint = b.dtype_beside(a.own_dtype());
            // Beside the dtype that both have alone, unless that is an integer beside a float.
            let joint = if joint == DType::F64 { DType::F32 } else { joint };
            (a.like(joint, condition.device())?, b.like(joint, condition.device())?)
        }
    };
    unlocked(py, || condition.where_(&a, &b))
}

/// The elements as another dtype: a copy, unless `copy` is False and nothing changes.
#[pyfunction]
#[pyo3(signature = (x, dtype, /, *, copy = true, device = None))]
fn astype(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    dtype: crate::dtype::AnyDType,
    copy: bool,
    device: Option<crate::device::AnyDevice>,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    let device = device.map_or_else(|| x.device().clone(), |d| d.0);
    let there = crate::interop::moved(py, &x, &device)?;
    unlocked(py, || {
        if copy && dtype.0 == x.dtype() && x.device() == &device { there.copy() } else { there.cast(dtype.0) }
    })
}

/// Each element rounded to so many decimals (tens if negative), ties to even, as NumPy does it: scaled, rounded and scaled back.
#[pyfunction]
#[pyo3(signature = (x, /, decimals = 0))]
pub(crate) fn round(py: Python<'_>, x: &Bound<'_, PyTensor>, decimals: i32) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    once(py, &[&x], || {
        if decimals == 0 || (decimals > 0 && !x.dtype().is_float()) {
            return x.round();
        }
        let factor = 10f64.powi(decimals.abs());
        let scaled = if decimals > 0 {
            x.mul_scalar(factor)?
        } else {
            x.div(&Tensor::constant(factor, x.dtype(), x.device())?)?
        };
        let rounded = scaled.round()?;
        let factor = Tensor::constant(factor, rounded.dtype(), x.device())?;
        if decimals > 0 { rounded.div(&factor) } else { rounded.mul(&factor)?.cast(x.dtype()) }
    })
}

/// GELU: x * Phi(x), Phi the normal distribution; with `approximate="tanh"` as GPT-2 computes it.
#[pyfunction]
#[pyo3(signature = (x, /, *, approximate = "none"))]
fn gelu(py: Python<'_>, x: &Bound<'_, PyTensor>, approximate: &str) -> PyResult<PyTensor> {
    match approximate {
        "none" => x.get().map(py, Tensor::gelu),
        "tanh" => x.get().map(py, Tensor::gelu_tanh),
        other => Err(pyo3::exceptions::PyValueError::new_err(format!(
            "approximate='{other}': expected 'none' or 'tanh'"
        ))),
    }
}

/// Adds these functions to the module.
pub(super) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_unary(module)?;
    add_binary(module)?;
    add_compared(module)?;
    add_divided(module)?;
    module.add_function(wrap_pyfunction!(clip, module)?)?;
    module.add_function(wrap_pyfunction!(select, module)?)?;
    module.add_function(wrap_pyfunction!(astype, module)?)?;
    module.add_function(wrap_pyfunction!(round, module)?)?;
    module.add_function(wrap_pyfunction!(gelu, module)?)
}
