//! What the array API says of dtypes and of this library: `finfo`, `iinfo`, `isdtype`, `can_cast`, `result_type`,
//! `__array_namespace_info__`.

use bullet_ops::Kind;
use bullet_tensor::{DType, Device};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::device::{AnyDevice, PyDevice, chosen};
use crate::dtype::{AnyDType, PyDType, numpy_name};
use crate::operand::{Operand, range};
use crate::tensor::PyTensor;

/// The dtypes of the standard, in its order; float16 and bfloat16 come on top.
const STANDARD: &[DType] = &[
    DType::Bool,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::F32,
    DType::F64,
];

/// A dtype, or a tensor for its dtype.
pub(crate) struct DTypeOf(DType);

impl<'a, 'py> FromPyObject<'a, 'py> for DTypeOf {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<DTypeOf> {
        match object.cast::<PyTensor>() {
            Ok(tensor) => Ok(DTypeOf(tensor.get().tensor().dtype())),
            Err(_) => Ok(DTypeOf(object.extract::<AnyDType>()?.0)),
        }
    }
}

/// Limits of a floating-point dtype.
#[pyclass(name = "finfo", module = "bullet_core", frozen, get_all)]
pub(crate) struct FloatInfo {
    /// Bits of an element.
    bits: usize,
    /// The gap between 1 and the next larger number.
    eps: f64,
    /// The largest number.
    max: f64,
    /// The smallest number.
    min: f64,
    /// The smallest positive number of full precision.
    smallest_normal: f64,
    /// The dtype itself.
    dtype: PyDType,
}

#[pymethods]
impl FloatInfo {
    #[new]
    #[pyo3(signature = (r#type, /))]
    fn new(r#type: DTypeOf) -> PyResult<FloatInfo> {
        let (eps, max, smallest_normal) = match r#type.0 {
            DType::F16 => (f64::exp2(-10.0), 65504.0, f64::exp2(-14.0)),
            DType::BF16 => (f64::exp2(-7.0), (2.0 - f64::exp2(-7.0)) * f64::exp2(127.0), f64::exp2(-126.0)),
            DType::F32 => (f64::from(f32::EPSILON), f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE)),
            DType::F64 => (f64::EPSILON, f64::MAX, f64::MIN_POSITIVE),
            other => {
                return Err(PyTypeError::new_err(format!(
                    "finfo of {}: expected a floating-point dtype",
                    numpy_name(other)
                )));
            }
        };
        let (bits, dtype) = (8 * r#type.0.size(), PyDType(r#type.0));
        Ok(FloatInfo { bits, eps, max, min: -max, smallest_normal, dtype })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (PyDType,)) {
        (py.get_type::<FloatInfo>(), (self.dtype,))
    }

    fn __repr__(&self) -> String {
        format!(
            "finfo(min={:e}, max={:e}, eps={:e}, dtype={})",
            self.min,
            self.max,
            self.eps,
            numpy_name(self.dtype.0)
        )
    }
}

/// Limits of an integer dtype.
#[pyclass(name = "iinfo", module = "bullet_core", frozen, get_all)]
pub(crate) struct IntInfo {
    /// Bits of an element.
    bits: usize,
    /// The largest number.
    max: i128,
    /// The smallest number.
    min: i128,
    /// The dtype itself.
    dtype: PyDType,
}

#[pymethods]
impl IntInfo {
    #[new]
    #[pyo3(signature = (r#type, /))]
    fn new(r#type: DTypeOf) -> PyResult<IntInfo> {
        let dtype = r#type.0;
        if dtype.kind() != Kind::Int {
            return Err(PyTypeError::new_err(format!(
                "iinfo of {}: expected an integer dtype",
                numpy_name(dtype)
            )));
        }
        let (min, max) = range(dtype).into_inner();
        Ok(IntInfo { bits: 8 * dtype.size(), max, min, dtype: PyDType(dtype) })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (PyDType,)) {
        (py.get_type::<IntInfo>(), (self.dtype,))
    }

    fn __repr__(&self) -> String {
        format!("iinfo(min={}, max={}, dtype={})", self.min, self.max, numpy_name(self.dtype.0))
    }
}

/// Whether a dtype is of a kind: a dtype, 'bool', 'signed integer', 'unsigned integer', 'integral', 'real floating',
/// 'complex floating', 'numeric', or a tuple of such, one of which suffices.
#[pyfunction]
pub(crate) fn isdtype(dtype: AnyDType, kind: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(kinds) = kind.cast::<PyTuple>() {
        for kind in kinds {
            if isdtype(dtype, &kind)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    let Ok(name) = kind.extract::<String>() else {
        return Ok(kind.extract::<AnyDType>()?.0 == dtype.0);
    };
    is_kind(dtype.0, &name)
}

fn is_kind(dtype: DType, name: &str) -> PyResult<bool> {
    Ok(match name {
        "bool" => dtype == DType::Bool,
        "signed integer" => dtype.kind() == Kind::Int && !dtype.is_unsigned(),
        "unsigned integer" => dtype.is_unsigned(),
        "integral" => dtype.kind() == Kind::Int,
        "real floating" => dtype.is_float(),
        // There are no complex numbers.
        "complex floating" => false,
        "numeric" => dtype != DType::Bool,
        other => {
            return Err(PyValueError::new_err(format!(
                "unrecognized data type kind '{other}'; expected 'bool', 'signed integer', 'unsigned integer', 'integral', \
                 'real floating', 'complex floating' or 'numeric'"
            )));
        }
    })
}

/// Whether a dtype, or that of a tensor, becomes another one by promotion.
#[pyfunction]
#[pyo3(signature = (from_, to, /))]
pub(crate) fn can_cast(from_: DTypeOf, to: AnyDType) -> bool {
    from_.0.promote(to.0) == to.0
}

/// The dtype of a result of these tensors, dtypes and Python numbers together.
#[pyfunction]
#[pyo3(signature = (*arrays_and_dtypes))]
pub(crate) fn result_type(arrays_and_dtypes: &Bound<'_, PyTuple>) -> PyResult<PyDType> {
    let (mut joint, mut numbers) = (None, Vec::new());
    for object in arrays_and_dtypes {
        let dtype = match object.extract::<Operand>() {
            Ok(Operand::Tensor(tensor)) => tensor.dtype(),
            Ok(number) => {
                numbers.push(number);
                continue;
            }
            Err(_) => object.extract::<AnyDType>()?.0,
        };
        joint = Some(joint.map_or(dtype, |joint: DType| joint.promote(dtype)));
    }
    let joint =
        joint.ok_or_else(|| PyValueError::new_err("result_type: expected at least one array or dtype"))?;
    Ok(PyDType(numbers.iter().fold(joint, |dtype, number| number.dtype_beside(dtype))))
}

/// What this library can do, for programs that use any array library.
#[pyclass(name = "__array_namespace_info__", module = "bullet_core", frozen)]
pub(crate) struct NamespaceInfo;

#[pymethods]
impl NamespaceInfo {
    #[new]
    fn new() -> NamespaceInfo {
        NamespaceInfo
    }

    /// Which optional parts of the standard there are.
    fn capabilities<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("boolean indexing", true)?;
        dict.set_item("data-dependent shapes", true)?;
        dict.set_item("max dimensions", bullet_ops::MAX_DIMS)?;
        Ok(dict)
    }

    /// The device of new tensors.
    fn default_device(&self) -> PyResult<PyDevice> {
        chosen(None).map(PyDevice)
    }

    /// The devices that tensors can be on.
    fn devices(&self, py: Python<'_>) -> Vec<PyDevice> {
        py.detach(|| {
            let gpus = (0..).map_while(|i| Device::parse(&format!("cuda:{i}")).ok());
            std::iter::once(Device::cpu()).chain(gpus).map(PyDevice).collect()
        })
    }

    /// The dtypes of new tensors, by kind.
    #[pyo3(signature = (*, device = None))]
    fn default_dtypes<'py>(
        &self,
        py: Python<'py>,
        device: Option<AnyDevice>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let _ = device;
        let dict = PyDict::new(py);
        dict.set_item("real floating", PyDType(DType::F32))?;
        dict.set_item("integral", PyDType(DType::I64))?;
        dict.set_item("indexing", PyDType(DType::I64))?;
        Ok(dict)
    }

    /// The dtypes of the standard that there are, of a kind or of one of several; there are no complex ones.
    #[pyo3(signature = (*, device = None, kind = None))]
    fn dtypes<'py>(
        &self,
        py: Python<'py>,
        device: Option<AnyDevice>,
        kind: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let _ = device;
        let dict = PyDict::new(py);
        for &dtype in STANDARD {
            if kind.map_or(Ok(true), |kind| isdtype(AnyDType(dtype), kind))? {
                dict.set_item(numpy_name(dtype), PyDType(dtype))?;
            }
        }
        Ok(dict)
    }
}
