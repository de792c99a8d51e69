//! NumPy's arrays as tensors and back, without a copy.
//!
//! An array describes its memory by `__array_interface__` (version 3 of that protocol); the tensor over it keeps the array.
//! The other way a tensor has the same attribute, and the array that NumPy makes of it keeps the tensor. Memory on a GPU
//! is described by `__cuda_array_interface__` in the same words; copying it to the host is asked for by name (`to`), and
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bullet_runtime::cuda::ordinal_of;
use bullet_tensor::{DType, Device, Tensor};
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error;
use crate::interrupt;
use crate::tensor::PyTensor;

static HOST_COPIES: AtomicU64 = AtomicU64::new(0);

/// How often tensors were copied from a GPU to the host since the process began.
#[pyfunction]
pub(crate) fn host_copies() -> u64 {
    HOST_COPIES.load(Ordering::Relaxed)
}

/// Goes before elements are copied to the host: of a GPU's, that is counted, and waited for while Python sees to signals.
pub(crate) fn before_copy(py: Python<'_>, tensor: &Tensor) -> PyResult<()> {
    if tensor.device().gpu().is_some() {
        HOST_COPIES.fetch_add(1, Ordering::Relaxed);
    }
    interrupt::wait(py, tensor.device())
}

/// The tensor on this device: itself if it is there, else a copy, which goes by way of the host.
pub(crate) fn moved(py: Python<'_>, tensor: &Tensor, device: &Device) -> PyResult<Tensor> {
    if tensor.device() != device {
        before_copy(py, tensor)?;
    }
    interrupt::detached(py, || tensor.to_device(device))?.map_err(error::exception)
}

/// The type string of a dtype; bfloat16 has none.
fn typestr(dtype: DType) -> PyResult<&'static str> {
    Ok(match dtype {
        DType::Bool => "|b1",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::BF16 => {
            return Err(PyTypeError::new_err(
                "NumPy has no bfloat16; convert first, with t.to(bullet_core.float32)",
            ));
        }
    })
}

fn dtype_of(typestr: &str) -> PyResult<DType> {
    let known = DType::ALL.into_iter().find(|&d| self::typestr(d).is_ok_and(|t| t[1..] == typestr[1..]));
    match known {
        Some(dtype) if !typestr.starts_with('>') => Ok(dtype),
        Some(_) => Err(PyTypeError::new_err(
            "the array is big-endian; convert first, with array.astype(array.dtype.newbyteorder('='))",
        )),
        None => Err(PyTypeError::new_err(format!(
            "arrays of '{typestr}' cannot be tensors; expected bool, uint8, int8 to int64 or float16 to float64"
        ))),
    }
}

/// A tensor over the memory of a NumPy array.
///
/// Others that have the attribute may describe memory that lives no longer than the description: NumPy's scalars do.
pub(crate) fn adopt(array: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
    if !array.is_instance(&array.py().import("numpy")?.getattr("ndarray")?)? {
        return Err(PyTypeError::new_err(format!("expected a NumPy array, got {}", array.get_type())));
    }
    let interface = array.getattr("__array_interface__")?;
    described(array, &interface, &Device::cpu()).map(PyTensor::new)
}

/// A tensor over the memory of an array that has `__cuda_array_interface__`.
pub(crate) fn adopt_cuda(array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let interface = array.getattr("__cuda_array_interface__")?;
    let (at, _): (u64, bool) = interface.get_item("data")?.extract()?;
    // An empty array has no address, and so no device.
    let ordinal = if at == 0 { 0 } else { ordinal_of(at).map_err(error::runtime)? };
    let device = Device::parse(&format!("cuda:{ordinal}")).map_err(error::runtime)?;
    let stream: Option<u64> = interface.call_method1("get", ("stream",))?.extract()?;
    if let Some(stream) = stream {
        // SAFETY: by the protocol, a stream of the array's device.
        unsafe { device.follow(stream) }.map_err(error::runtime)?;
    }
    if !interface.call_method1("get", ("mask",))?.is_none() {
        return Err(PyTypeError::new_err(
            "arrays with a mask cannot be tensors; fill in what is masked first",
        ));
    }
    described(array, &interface, &device)
}

/// The memory that an array interface describes.
fn described(array: &Bound<'_, PyAny>, interface: &Bound<'_, PyAny>, device: &Device) -> PyResult<Tensor> {
    let field = |name: &str| interface.get_item(name);
    let dtype = dtype_of(&field("typestr")?.extract::<String>()?)?;
    let shape: Vec<usize> = field("shape")?.extract()?;
    let (at, read_only): (u64, bool) = field("data")?.extract()?;
    let bytes: Option<Vec<isize>> = interface.call_method1("get", ("strides",))?.extract()?;
    let size = dtype.size() as isize;
    let strides = match bytes {
        Some(bytes) if bytes.iter().all(|s| s % size == 0) && at.is_multiple_of(size as u64) => {
            bytes.iter().map(|s| s / size).collect()
        }
        None if at.is_multiple_of(size as u64) => row_major(&shape),
        _ => {
            return Err(PyValueError::new_err(
                "the array's elements do not lie on multiples of their size; copy it first, with array.copy()",
            ));
        }
    };
    let owner = Box::new(array.clone().unbind());
    // SAFETY: the array vouches for the description of its memory, and the owner keeps it.
    unsafe { adopt_from(at, (&shape, &strides), dtype, device, owner, read_only) }
}

/// A tensor over memory of someone else, whose bools are bools.
///
/// # Safety
/// As for [`Tensor::adopt`].
pub(crate) unsafe fn adopt_from(
    at: u64,
    layout: (&[usize], &[isize]),
    dtype: DType,
    device: &Device,
    owner: Box<dyn Send + Sync>,
    read_only: bool,
) -> PyResult<Tensor> {
    let adopt = |dtype, owner| {
        // SAFETY: by the caller's promise; every byte is a valid u8.
        unsafe { Tensor::adopt(at, layout, dtype, device, owner, read_only) }.map_err(error::exception)
    };
    if dtype != DType::Bool {
        return adopt(dtype, owner);
    }
    let owner: Arc<dyn Send + Sync> = Arc::from(owner);
    let bytes = adopt(DType::U8, Box::new(owner.clone()))?;
    interrupt::attached(|py| check_bools(py, &bytes))?;
    adopt(DType::Bool, Box::new(owner))
}

/// Of a byte that is neither 0 nor 1 nothing can be computed.
fn check_bools(py: Python<'_>, bytes: &Tensor) -> PyResult<()> {
    if bytes.numel() == 0 {
        return Ok(());
    }
    let largest = interrupt::detached(py, || bytes.max(&[], false)?.item())?.map_err(error::exception)?;
    if largest <= 1.0 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("the array of bools has a byte of {largest}; expected 0 or 1 only")))
}

pub(crate) fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d] as isize;
    }
    strides
}

/// What a tensor on the host says of its memory, for NumPy.
pub(crate) fn interface<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyDict>> {
    description(py, tensor, host_address(tensor)?)
}

/// What a tensor on a GPU says of its memory: `__cuda_array_interface__`, version 3
/// (<https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html>). Who uses it waits for the stream it names.
pub(crate) fn cuda_interface<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyDict>> {
    if tensor.device().gpu().is_none() {
        // By the protocol: of what has no memory on a GPU, the attribute is not there.
        return Err(PyAttributeError::new_err("the tensor is on the CPU; move it first, with t.to('cuda')"));
    }
    let dict = description(py, tensor, address(tensor)?)?;
    dict.set_item("stream", tensor.device().native_stream().map_err(error::runtime)?)?;
    Ok(dict)
}

fn description<'py>(py: Python<'py>, tensor: &Tensor, at: u64) -> PyResult<Bound<'py, PyDict>> {
    let size = tensor.dtype().size() as isize;
    let dict = PyDict::new(py);
    dict.set_item("version", 3)?;
    dict.set_item("typestr", typestr(tensor.dtype())?)?;
    dict.set_item("shape", PyTuple::new(py, &tensor.shape()[..])?)?;
    dict.set_item("strides", PyTuple::new(py, tensor.layout().strides().iter().map(|s| s * size))?)?;
    dict.set_item("data", (at, tensor.is_read_only()))?;
    Ok(dict)
}

/// Refuses to give away the memory of what is on the tape.
fn check_untracked(tensor: &Tensor) -> PyResult<()> {
    if tensor.is_tracked() {
        return Err(pyo3::exceptions::PyRuntimeError::new_err(
            "the memory of a tensor that requires gradients is not given away, as changes would go unseen; use \
             t.detach().numpy()",
        ));
    }
    Ok(())
}

/// Where the first element lies, on the tensor's device.
pub(crate) fn address(tensor: &Tensor) -> PyResult<u64> {
    check_untracked(tensor)?;
    Ok(tensor.address())
}

/// Where the first element lies in the host's memory.
pub(crate) fn host_address(tensor: &Tensor) -> PyResult<u64> {
    check_untracked(tensor)?;
    tensor.host_address().ok_or_else(|| {
        PyTypeError::new_err(format!(
            "cannot share the memory of a tensor on {} with NumPy; copy it first, with t.to('cpu').numpy()",
            tensor.device()
        ))
    })
}

/// The array of a tensor: of the same memory if that is the host's.
pub(crate) fn numpy<'py>(tensor: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyAny>> {
    let numpy = tensor.py().import("numpy")?;
    interface(tensor.py(), &tensor.get().tensor())?;
    numpy.call_method1("asarray", (tensor,))
}

/// The array of a tensor on any device, copied to the host where it has to be; bfloat16 as float32.
pub(crate) fn host_array<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    numpy(&Bound::new(py, PyTensor::new(host_tensor(py, tensor)?))?)
}

/// As [`host_array`], the tensor.
pub(crate) fn host_tensor(py: Python<'_>, tensor: &Tensor) -> PyResult<Tensor> {
    let host = moved(py, &tensor.detach(), &Device::cpu())?;
    if host.dtype() != DType::BF16 {
        return Ok(host);
    }
    interrupt::detached(py, || host.cast(DType::F32))?.map_err(error::exception)
}

/// Text as NumPy writes it, of at most its threshold of elements.
pub(crate) fn text(tensor: &Tensor, py: Python<'_>, prefix: &str) -> PyResult<String> {
    let array = host_array(py, tensor)?;
    let options = PyDict::new(py);
    options.set_item("separator", ", ")?;
    options.set_item("prefix", prefix)?;
    py.import("numpy")?.call_method("array2string", (array,), Some(&options))?.extract()
}
