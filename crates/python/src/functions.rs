//! Functions of tensors: thin, one line an op.

use bullet_tensor::{Activation, Result, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;
use crate::operand::Operand;
use crate::tensor::{Axes, PyTensor, unlocked};

/// Defines functions of one tensor, and `add_unary`, which adds them to the module.
macro_rules! unary {
    ($($name:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x, /))]
            fn $name(py: Python<'_>, x: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
                let x = x.get().tensor();
                unlocked(py, || x.$name())
            }
        )*
        fn add_unary(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
unary! {
    exp: "e to the power of each element.",
    log: "Natural logarithm of each element.",
    sqrt: "Square root of each element.",
    rsqrt: "1 / sqrt(x) of each element.",
    sin: "Sine of each element, in radians.",
    cos: "Cosine of each element, in radians.",
    tanh: "Hyperbolic tangent of each element.",
    erf: "Error function of each element.",
    sigmoid: "1 / (1 + exp(-x)) of each element.",
    relu: "max(x, 0) of each element.",
    silu: "x * sigmoid(x) of each element.",
    floor: "Largest integer not above each element.",
    ceil: "Smallest integer not below each element.",
    round: "Nearest integer of each element, ties to even.",
    abs: "Absolute value of each element.",
    sign: "-1, 0 or 1 by the sign of each element.",
    square: "x * x of each element.",
    reciprocal: "1 / x of each element.",
    logical_not: "Whether each element is zero.",
}

/// Defines functions of two operands, one of which may be a number, and `add_binary`.
macro_rules! binary {
    ($($name:ident = $method:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x1, x2, /))]
            fn $name(py: Python<'_>, x1: Operand, x2: Operand) -> PyResult<PyTensor> {
                let (a, b) = pair(x1, x2)?;
                unlocked(py, || a.$method(&b))
            }
        )*
        fn add_binary(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
binary! {
    add = add: "Sum of elements.",
    subtract = sub: "Difference of elements.",
    multiply = mul: "Product of elements.",
    divide = div: "Quotient of elements; integers give floats.",
    pow = pow: "Elements of the first to the power of those of the second.",
    maximum = maximum: "The larger of two elements; NaN if either is.",
    minimum = minimum: "The smaller of two elements; NaN if either is.",
    equal = eq: "Whether elements are equal.",
    not_equal = ne: "Whether elements differ.",
    less = lt: "Whether elements of the first are smaller.",
    less_equal = le: "Whether elements of the first are not larger.",
    greater = gt: "Whether elements of the first are larger.",
    greater_equal = ge: "Whether elements of the first are not smaller.",
    logical_and = logical_and: "Whether both elements are not zero.",
    logical_or = logical_or: "Whether either element is not zero.",
}

/// Two operands as tensors: a number takes the dtype of the tensor beside it.
fn pair(a: Operand, b: Operand) -> PyResult<(Tensor, Tensor)> {
    match (a, b) {
        (Operand::Tensor(a), b) => {
            let b = b.beside(&a)?;
            Ok((a, b))
        }
        (a, Operand::Tensor(b)) => Ok((a.beside(&b)?, b)),
        _ => Err(pyo3::exceptions::PyTypeError::new_err("expected a tensor, got two numbers")),
    }
}

fn of(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    f: impl FnOnce(&Tensor) -> Result<Tensor> + Send,
) -> PyResult<PyTensor> {
    let x = x.get().tensor();
    unlocked(py, || f(&x))
}

/// GELU: x * Phi(x), Phi the normal distribution; with `approximate="tanh"` as GPT-2 computes it.
#[pyfunction]
#[pyo3(signature = (x, /, *, approximate = "none"))]
fn gelu(py: Python<'_>, x: &Bound<'_, PyTensor>, approximate: &str) -> PyResult<PyTensor> {
    match approximate {
        "none" => of(py, x, Tensor::gelu),
        "tanh" => of(py, x, Tensor::gelu_tanh),
        other => Err(PyValueError::new_err(format!("approximate='{other}': expected 'none' or 'tanh'"))),
    }
}

/// Softmax along an axis.
#[pyfunction]
#[pyo3(signature = (x, axis = -1))]
fn softmax(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: isize) -> PyResult<PyTensor> {
    of(py, x, |x| x.softmax(axis))
}

/// Logarithm of the softmax along an axis.
#[pyfunction]
#[pyo3(signature = (x, axis = -1))]
fn log_softmax(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: isize) -> PyResult<PyTensor> {
    of(py, x, |x| x.log_softmax(axis))
}

fn optional(x: Option<&Bound<'_, PyTensor>>) -> Option<Tensor> {
    x.map(|x| x.get().tensor())
}

/// Layer normalisation along the last axis (Ba et al. 2016), then times `weight` plus `bias`.
#[pyfunction]
#[pyo3(signature = (x, weight = None, bias = None, eps = 1e-5))]
fn layernorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    bias: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<PyTensor> {
    let (weight, bias) = (optional(weight), optional(bias));
    of(py, x, |x| x.layer_norm(weight.as_ref(), bias.as_ref(), eps))
}

/// Root-mean-square normalisation along the last axis (Zhang and Sennrich 2019), then times `weight`.
#[pyfunction]
#[pyo3(signature = (x, weight = None, eps = 1e-5))]
fn rmsnorm(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: Option<&Bound<'_, PyTensor>>,
    eps: f64,
) -> PyResult<PyTensor> {
    let weight = optional(weight);
    of(py, x, |x| x.rms_norm(weight.as_ref(), eps))
}

/// Rows of `weight` at `indices`.
#[pyfunction]
fn embedding(
    py: Python<'_>,
    weight: &Bound<'_, PyTensor>,
    indices: &Bound<'_, PyTensor>,
) -> PyResult<PyTensor> {
    let indices = indices.get().tensor();
    of(py, weight, |weight| weight.embedding(&indices))
}

/// Matrix product of the last two axes; leading axes broadcast.
#[pyfunction]
#[pyo3(signature = (x1, x2, /))]
fn matmul(py: Python<'_>, x1: &Bound<'_, PyTensor>, x2: &Bound<'_, PyTensor>) -> PyResult<PyTensor> {
    let x2 = x2.get().tensor();
    of(py, x1, |x1| x1.matmul(&x2))
}

/// activation(x W^T + b), in one pass; `activation` is None, "relu", "gelu", "gelu_tanh" or "silu".
#[pyfunction]
#[pyo3(signature = (x, weight, bias = None, *, activation = None))]
fn linear(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    weight: &Bound<'_, PyTensor>,
    bias: Option<&Bound<'_, PyTensor>>,
    activation: Option<&str>,
) -> PyResult<PyTensor> {
    let activation = match activation {
        None => Activation::Identity,
        Some("relu") => Activation::Relu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_tanh") => Activation::GeluTanh,
        Some("silu") => Activation::Silu,
        Some(other) => {
            return Err(PyValueError::new_err(format!(
                "activation='{other}': expected None, 'relu', 'gelu', 'gelu_tanh' or 'silu'"
            )));
        }
    };
    let (weight, bias) = (weight.get().tensor(), optional(bias));
    of(py, x, |x| x.linear(&weight, bias.as_ref(), activation))
}

/// Mean cross-entropy of logits (.., classes) against class indices (..), those equal to `ignore_index` left out.
#[pyfunction]
#[pyo3(signature = (logits, targets, *, ignore_index = -100, label_smoothing = 0.0))]
fn cross_entropy(
    py: Python<'_>,
    logits: &Bound<'_, PyTensor>,
    targets: &Bound<'_, PyTensor>,
    ignore_index: i64,
    label_smoothing: f64,
) -> PyResult<PyTensor> {
    let targets = targets.get().tensor();
    of(py, logits, |logits| logits.cross_entropy(&targets, ignore_index, label_smoothing))
}

/// Elements of `x1` where the condition is true, else of `x2`.
#[pyfunction]
#[pyo3(name = "where", signature = (condition, x1, x2, /))]
fn select(py: Python<'_>, condition: &Bound<'_, PyTensor>, x1: Operand, x2: Operand) -> PyResult<PyTensor> {
    let condition = condition.get().tensor();
    let (a, b) = match (x1, x2) {
        (a @ Operand::Tensor(_), b) | (a, b @ Operand::Tensor(_)) => pair(a, b)?,
        (a, b) => {
            let like = |x: &Operand| matches!(x, Operand::Float(_));
            let dtype =
                if like(&a) || like(&b) { bullet_tensor::DType::F32 } else { bullet_tensor::DType::I64 };
            let beside = Tensor::zeros(&[], dtype, condition.device()).map_err(error::exception)?;
            (a.beside(&beside)?, b.beside(&beside)?)
        }
    };
    unlocked(py, || condition.where_(&a, &b))
}

/// Tensors side by side along an axis.
#[pyfunction]
#[pyo3(signature = (tensors, /, *, axis = Some(0)))]
fn concat(py: Python<'_>, tensors: Vec<Bound<'_, PyTensor>>, axis: Option<isize>) -> PyResult<PyTensor> {
    let tensors: Vec<Tensor> = tensors.iter().map(|t| t.get().tensor()).collect();
    unlocked(py, || match axis {
        Some(axis) => Tensor::concat(&tensors.iter().collect::<Vec<_>>(), axis),
        None => {
            let flat = tensors.iter().map(|t| t.reshape(&[-1])).collect::<Result<Vec<_>>>()?;
            Tensor::concat(&flat.iter().collect::<Vec<_>>(), 0)
        }
    })
}

/// Variance over axes, with `correction` degrees of freedom less than elements.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = None, correction = 0.0, keepdims = false))]
fn var(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<Axes>,
    correction: f64,
    keepdims: bool,
) -> PyResult<PyTensor> {
    let tensor = x.get().tensor();
    let Some(axes) = Axes::list(axis, tensor.rank()) else {
        return Err(PyValueError::new_err("var: expected an axis, or None for all, got no axes"));
    };
    unlocked(py, || tensor.var(&axes, correction, keepdims))
}

/// Defines reductions over axes, and `add_reductions`.
macro_rules! reductions {
    ($($name:ident: $doc:literal),* $(,)?) => {
        $(
            #[doc = $doc]
            #[pyfunction]
            #[pyo3(signature = (x, /, *, axis = None, keepdims = false))]
            fn $name(py: Python<'_>, x: &Bound<'_, PyTensor>, axis: Option<Axes>, keepdims: bool) -> PyResult<PyTensor> {
                x.get().reduce(py, axis, keepdims, Tensor::$name)
            }
        )*
        fn add_reductions(module: &Bound<'_, PyModule>) -> PyResult<()> {
            $(module.add_function(wrap_pyfunction!($name, module)?)?;)*
            Ok(())
        }
    };
}
reductions! {
    sum: "Sum over axes; over all without `axis`.",
    mean: "Mean over axes; over all without `axis`.",
    max: "Largest element over axes; over all without `axis`.",
    min: "Smallest element over axes; over all without `axis`.",
}

/// Index of the largest element along an axis; in the flattened tensor without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = None, keepdims = false))]
fn argmax(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    keepdims: bool,
) -> PyResult<PyTensor> {
    of(py, x, |x| x.argmax(axis, keepdims))
}

/// Index of the smallest element along an axis; in the flattened tensor without `axis`.
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = None, keepdims = false))]
fn argmin(
    py: Python<'_>,
    x: &Bound<'_, PyTensor>,
    axis: Option<isize>,
    keepdims: bool,
) -> PyResult<PyTensor> {
    of(py, x, |x| x.argmin(axis, keepdims))
}

/// Adds all functions to the module.
pub(crate) fn add_all(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_unary(module)?;
    add_binary(module)?;
    add_reductions(module)?;
    module.add_function(wrap_pyfunction!(gelu, module)?)?;
    module.add_function(wrap_pyfunction!(softmax, module)?)?;
    module.add_function(wrap_pyfunction!(log_softmax, module)?)?;
    module.add_function(wrap_pyfunction!(layernorm, module)?)?;
    module.add_function(wrap_pyfunction!(rmsnorm, module)?)?;
    module.add_function(wrap_pyfunction!(embedding, module)?)?;
    module.add_function(wrap_pyfunction!(matmul, module)?)?;
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(select, module)?)?;
    module.add_function(wrap_pyfunction!(concat, module)?)?;
    module.add_function(wrap_pyfunction!(var, module)?)?;
    module.add_function(wrap_pyfunction!(argmax, module)?)?;
    module.add_function(wrap_pyfunction!(argmin, module)?)
}
