//! The buffer protocol (PEP 3118): memory of a tensor on the host, for `memoryview`, `bytes` and whoever asks.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use bullet_tensor::DType;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::interop;
use crate::tensor::PyTensor;

/// The format of an element as the module `struct` has it; bfloat16 has none.
fn format(dtype: DType) -> Option<&'static CStr> {
    Some(match dtype {
        DType::Bool => c"?",
        DType::U8 => c"B",
        DType::U16 => c"H",
        DType::U32 => c"I",
        DType::U64 => c"Q",
        DType::I8 => c"b",
        DType::I16 => c"h",
        DType::I32 => c"i",
        DType::I64 => c"q",
        DType::F16 => c"e",
        DType::F32 => c"f",
        DType::F64 => c"d",
        DType::BF16 => return None,
    })
}

/// Lengths and strides (bytes) that a view points to for as long as it lives.
struct Dims {
    shape: Vec<ffi::Py_ssize_t>,
    strides: Vec<ffi::Py_ssize_t>,
}

/// Describes the tensor's memory in `view`, which keeps the tensor.
///
/// # Errors
/// `BufferError`: memory on a GPU, or of a tensor that requires gradients; a dtype without a format; a request that does not
/// allow for the strides, or is to write where that is not allowed.
///
/// # Safety
/// `view` is a buffer to be filled; `release` is called with it before it is forgotten.
pub(crate) unsafe fn fill(slf: Bound<'_, PyTensor>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
    // SAFETY: a buffer to be filled.
    let view = unsafe { &mut *view };
    view.obj = ptr::null_mut();
    let tensor = slf.get().tensor();
    let refuse = |words: String| Err(PyBufferError::new_err(words));
    let at =
        interop::host_address(&tensor).map_err(|e| PyBufferError::new_err(e.value(slf.py()).to_string()))?;
    let dtype = tensor.dtype();
    let Some(format) = format(dtype) else {
        return refuse("bfloat16 has no buffer format; convert first, with t.to(bullet_core.float32)".into());
    };
    let asks = |flag: c_int| flags & flag == flag;
    if asks(ffi::PyBUF_WRITABLE) && tensor.is_read_only() {
        return refuse("the memory belongs to an array that may not be written".into());
    }
    let rows = tensor.is_contiguous();
    if !rows && (!asks(ffi::PyBUF_STRIDES) || asks(ffi::PyBUF_C_CONTIGUOUS)) {
        return refuse(
            "the elements do not lie one after the other; copy the tensor first, with t.contiguous()".into(),
        );
    }
    if asks(ffi::PyBUF_F_CONTIGUOUS) && !(rows && tensor.rank() <= 1) {
        return refuse("the elements do not lie in column-major order".into());
    }
    let size = dtype.size() as ffi::Py_ssize_t;
    let mut dims = Box::new(Dims {
        shape: tensor.shape().iter().map(|&d| d as ffi::Py_ssize_t).collect(),
        strides: tensor.layout().strides().iter().map(|&s| s * size).collect(),
    });
    view.buf = ptr::with_exposed_provenance_mut::<c_void>(at as usize);
    view.len = tensor.numel() as ffi::Py_ssize_t * size;
    view.readonly = tensor.is_read_only().into();
    view.itemsize = size;
    view.format = if asks(ffi::PyBUF_FORMAT) { format.as_ptr().cast_mut() } else { ptr::null_mut() };
    view.ndim = tensor.rank() as c_int;
    view.shape = if asks(ffi::PyBUF_ND) { dims.shape.as_mut_ptr() } else { ptr::null_mut() };
    view.strides = if asks(ffi::PyBUF_STRIDES) { dims.strides.as_mut_ptr() } else { ptr::null_mut() };
    view.suboffsets = ptr::null_mut();
    view.internal = Box::into_raw(dims).cast();
    view.obj = slf.into_ptr();
    Ok(())
}

/// Frees what `fill` has made for a view.
///
/// # Safety
/// `fill` has filled the view, and this is called once for it.
pub(crate) unsafe fn release(view: *mut ffi::Py_buffer) {
    // SAFETY: the box that `fill` has made; Python drops the reference to the tensor by itself.
    drop(unsafe { Box::from_raw((*view).internal.cast::<Dims>()) });
}
