//! Tensors of other libraries, and for them, without a copy: DLPack 1.0 (<https://dmlc.github.io/dlpack>), in its versioned
//! form and the one before, in memory of the host and of GPUs.
//!
//! A capsule owns a `Managed` until someone consumes it, which shows in its name; from then on the consumer does, and
//! calls the deleter. Both directions keep to that: what we consume lives as long as the tensor over it.
//!
//! **Streams.** A consumer names the stream that it works on, and the producer makes that stream wait for its own work, on
//! the device. The other way round nothing is said of when a consumer's work ends: before memory that we gave away is used
//! again our stream waits for the consumer's, and before memory that we were given is freed the host waits for our stream.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use bullet_runtime::DeviceKind;
use bullet_tensor::{DType, Device, Tensor};
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use crate::error;
use crate::interop;
use crate::tensor::{PyTensor, unlocked};

const CPU: i32 = 1;
const CUDA: i32 = 2;
/// Pinned memory of a GPU's driver, which the host reads as any other.
const CUDA_HOST: i32 = 3;
/// Memory that GPUs and the host read alike.
const CUDA_MANAGED: i32 = 13;
/// Where a consumer works, if it does not say: on CUDA's legacy default stream.
const DEFAULT_STREAM: i64 = 1;
/// Up to this, streams are default streams, which are never destroyed.
const LAST_DEFAULT_STREAM: i64 = 2;
/// A consumer that does without waiting.
const NO_STREAM: i64 = -1;
const READ_ONLY: u64 = 1;
const COPIED: u64 = 2;
const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Element {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Description {
    data: *mut c_void,
    device: (i32, i32),
    ndim: i32,
    dtype: Element,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Plain {
    tensor: Description,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Plain)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: (u32, u32),
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Description,
}

fn element(dtype: DType) -> Element {
    let code = match dtype {
        DType::Bool => 6,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => 1,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::F16 | DType::F32 | DType::F64 => 2,
        DType::BF16 => 4,
    };
    Element { code, bits: 8 * dtype.size() as u8, lanes: 1 }
}

/// Type and number of the device, as DLPack counts them.
pub(crate) fn device_of(tensor: &Tensor) -> (i32, i32) {
    match tensor.device().kind() {
        DeviceKind::Cpu => (CPU, 0),
        DeviceKind::Cuda(ordinal) => (CUDA, ordinal as i32),
    }
}

/// What a capsule of ours owns besides the structure that C sees: what that points to.
struct Kept {
    tensor: Option<Tensor>,
    shape: Vec<i64>,
    strides: Vec<i64>,
    /// Where the consumer works with memory of a GPU.
    stream: Option<i64>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (Some(stream), Some(tensor)) = (self.stream, self.tensor.take()) else { return };
        let device = tensor.device();
        let ordered = match u64::try_from(stream) {
            // SAFETY: a default stream.
            Ok(native) if stream <= LAST_DEFAULT_STREAM => unsafe { device.follow(native) },
            // The stream may have been destroyed by now.
            _ => device.synchronize_all(),
        };
        if ordered.is_err() {
            // Memory that someone may still use is better lost than used by two.
            std::mem::forget(tensor);
        }
    }
}

unsafe extern "C" fn delete_plain(managed: *mut Plain) {
    // SAFETY: made by `export` from boxes, and a consumer deletes once.
    unsafe {
        drop(Box::from_raw((*managed).context.cast::<Kept>()));
        drop(Box::from_raw(managed));
    }
}

unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    // SAFETY: as above.
    unsafe {
        drop(Box::from_raw((*managed).context.cast::<Kept>()));
        drop(Box::from_raw(managed));
    }
}

/// Deletes what a capsule owns if no one has consumed it, which would have changed its name.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with a capsule that it is about to free; its name tells what it points to.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, PLAIN.as_ptr()) == 1 {
            delete_plain(ffi::PyCapsule_GetPointer(capsule, PLAIN.as_ptr()).cast());
        } else if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        }
    }
}

/// What the consumer of a capsule asks for.
pub(crate) struct Wanted {
    pub(crate) stream: Option<i64>,
    pub(crate) max_version: Option<(u32, u32)>,
    pub(crate) dl_device: Option<(i32, i32)>,
    pub(crate) copy: Option<bool>,
}

impl Wanted {
    /// The tensor to give away, where it is wanted, and whether it is a copy.
    fn source(&self, py: Python<'_>, tensor: &Tensor) -> PyResult<(Tensor, bool)> {
        let device = device_of(tensor);
        let elsewhere = self.dl_device.filter(|&asked| asked != device);
        if let Some(asked) = elsewhere
            && (asked.0 != CPU || self.copy == Some(false))
        {
            return Err(PyBufferError::new_err(format!(
                "the tensor is on {}, not on DLPack's device {asked:?}; move it first, with `to`",
                tensor.device()
            )));
        }
        if elsewhere.is_some() {
            return Ok((interop::moved(py, tensor, &Device::cpu())?, true));
        }
        if self.copy == Some(true) {
            return Ok((py.detach(|| tensor.copy()).map_err(error::exception)?, true));
        }
        Ok((tensor.clone(), false))
    }

    /// The stream that the consumer works on, once that waits for ours; none for memory of the host.
    fn consumer(&self, tensor: &Tensor) -> PyResult<Option<i64>> {
        if tensor.device().gpu().is_none() {
            return match self.stream {
                None | Some(NO_STREAM) => Ok(None),
                Some(stream) => Err(PyValueError::new_err(format!(
                    "memory of the host has no streams; expected stream=None, got {stream}"
                ))),
            };
        }
        let stream = self.stream.unwrap_or(DEFAULT_STREAM);
        match u64::try_from(stream) {
            Ok(native) if native != 0 => {
                // SAFETY: by the protocol, a stream of the device that the consumer works on.
                unsafe { tensor.device().precede(native) }.map_err(error::runtime)?
            }
            _ if stream == NO_STREAM => {}
            _ => {
                return Err(PyValueError::new_err(format!(
                    "stream {stream} is not one that DLPack knows; expected None, -1, 1 or 2 for a default stream, or the \
                     address of a stream"
                )));
            }
        }
        Ok(Some(stream))
    }
}

/// `__dlpack__`.
pub(crate) fn export<'py>(py: Python<'py>, tensor: &Tensor, wanted: &Wanted) -> PyResult<Bound<'py, PyAny>> {
    let (tensor, copied) = wanted.source(py, tensor)?;
    let stream = wanted.consumer(&tensor)?;
    let versioned = wanted.max_version.is_some_and(|(major, _)| major >= 1);
    if tensor.is_read_only() && !versioned {
        return Err(PyBufferError::new_err(
            "the tensor is read-only, which DLPack before 1.0 cannot say; copy() it first",
        ));
    }
    let at = interop::address(&tensor)?;
    let flags = if tensor.is_read_only() { READ_ONLY } else { 0 } | if copied { COPIED } else { 0 };
    let numbers = |of: &mut dyn Iterator<Item = i64>| of.collect::<Vec<i64>>();
    let mut kept = Box::new(Kept {
        shape: numbers(&mut tensor.shape().iter().map(|&d| d as i64)),
        strides: numbers(&mut tensor.layout().strides().iter().map(|&s| s as i64)),
        tensor: Some(tensor.clone()),
        stream,
    });
    let description = Description {
        data: std::ptr::with_exposed_provenance_mut(at as usize),
        device: device_of(&tensor),
        ndim: tensor.rank() as i32,
        dtype: element(tensor.dtype()),
        shape: kept.shape.as_mut_ptr(),
        strides: kept.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    let context = Box::into_raw(kept).cast();
    let (managed, name): (*mut c_void, _) = if versioned {
        let deleter = Some(delete_versioned as unsafe extern "C" fn(*mut Versioned));
        let managed = Versioned { version: (1, 0), context, deleter, flags, tensor: description };
        (Box::into_raw(Box::new(managed)).cast(), VERSIONED)
    } else {
        let deleter = Some(delete_plain as unsafe extern "C" fn(*mut Plain));
        (Box::into_raw(Box::new(Plain { tensor: description, context, deleter })).cast(), PLAIN)
    };
    // SAFETY: the pointer is not null, the name is static; the capsule owns what it points to.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyCapsule_New(managed, name.as_ptr(), Some(destroy))) }
}

/// What a consumed capsule pointed to; deleting it frees the memory, or tells its owner.
struct Consumed {
    managed: NonNull<c_void>,
    versioned: bool,
}

// SAFETY: DLPack lets consumers delete from any thread, and nothing else is done with the pointer.
unsafe impl Send for Consumed {}
// SAFETY: as above.
unsafe impl Sync for Consumed {}

impl Drop for Consumed {
    fn drop(&mut self) {
        // SAFETY: this is the consumer, and deletes once.
        unsafe {
            if self.versioned {
                let managed = self.managed.as_ptr().cast::<Versioned>();
                (*managed).deleter.into_iter().for_each(|delete| delete(managed));
            } else {
                let managed = self.managed.as_ptr().cast::<Plain>();
                (*managed).deleter.into_iter().for_each(|delete| delete(managed));
            }
        }
    }
}

/// A tensor that shares the memory of any object with `__dlpack__`, on the CPU or a GPU.
#[pyfunction]
#[pyo3(signature = (obj, /, *, device = None, copy = None))]
pub(crate) fn from_dlpack(
    obj: &Bound<'_, PyAny>,
    device: Option<crate::device::AnyDevice>,
    copy: Option<bool>,
) -> PyResult<PyTensor> {
    let (py, tensor) = (obj.py(), import(obj)?);
    if let Some(device) = device.filter(|d| d.0 != *tensor.device()) {
        if copy == Some(false) {
            return Err(PyValueError::new_err("copy=False, but to get to another device is to copy"));
        }
        return interop::moved(py, &tensor, &device.0).map(PyTensor::new);
    }
    unlocked(py, || if copy == Some(true) { tensor.copy() } else { Ok(tensor) })
}

/// The memory of `obj` as a tensor.
pub(crate) fn import(obj: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let py = obj.py();
    if !obj.hasattr("__dlpack__")? {
        return Err(PyTypeError::new_err(format!(
            "expected an object with __dlpack__, got {}",
            obj.get_type()
        )));
    }
    let announced: (i32, i32) = obj.call_method0("__dlpack_device__")?.extract()?;
    let device = named_device(announced)?;
    let options = PyDict::new(py);
    if device.gpu().is_some() {
        options.set_item("stream", device.native_stream().map_err(error::runtime)?)?;
    }
    let of_old = options.copy()?;
    options.set_item("max_version", (1, 0))?;
    let capsule = match obj.call_method("__dlpack__", (), Some(&options)) {
        // Producers from before 1.0 do not know the argument.
        Err(e) if e.is_instance_of::<PyTypeError>(py) => obj.call_method("__dlpack__", (), Some(&of_old))?,
        capsule => capsule?,
    };
    let capsule = capsule.cast_into::<PyCapsule>()?;
    let name = |name: &CStr| -> *const c_char { name.as_ptr() };
    // SAFETY: calls on a live capsule with static names; a valid one of this name points to the structure of that name, and
    // renaming it makes us its consumer.
    let consumed = unsafe {
        let is = |n| ffi::PyCapsule_IsValid(capsule.as_ptr(), name(n)) == 1;
        let (own, used) = match (is(VERSIONED), is(PLAIN)) {
            (true, _) => (VERSIONED, c"used_dltensor_versioned"),
            (_, true) => (PLAIN, c"used_dltensor"),
            _ => return Err(PyValueError::new_err("the DLPack capsule has been consumed already")),
        };
        let managed = ffi::PyCapsule_GetPointer(capsule.as_ptr(), name(own));
        let managed = NonNull::new(managed).ok_or_else(|| PyErr::fetch(py))?;
        if ffi::PyCapsule_SetName(capsule.as_ptr(), name(used)) != 0 {
            return Err(PyErr::fetch(py));
        }
        Consumed { managed, versioned: own == VERSIONED }
    };
    over(consumed, announced, &device)
}

/// The device of DLPack's type and number.
fn named_device((kind, ordinal): (i32, i32)) -> PyResult<Device> {
    match kind {
        CPU | CUDA_HOST => Ok(Device::cpu()),
        CUDA | CUDA_MANAGED => Device::parse(&format!("cuda:{ordinal}")).map_err(error::runtime),
        other => Err(PyBufferError::new_err(format!(
            "memory of DLPack's device type {other} cannot be taken over; expected the host's (1, 3) or that of a CUDA \
             device (2, 13); copy it there first"
        ))),
    }
}

fn over(consumed: Consumed, announced: (i32, i32), device: &Device) -> PyResult<Tensor> {
    // SAFETY: the structure lives until it is deleted.
    let (tensor, flags) = unsafe {
        if consumed.versioned {
            let managed = consumed.managed.cast::<Versioned>().as_ref();
            if managed.version.0 > 1 {
                return Err(PyBufferError::new_err(format!(
                    "DLPack {}.{} is not known here; expected 1.x",
                    managed.version.0, managed.version.1
                )));
            }
            (&managed.tensor, managed.flags)
        } else {
            (&consumed.managed.cast::<Plain>().as_ref().tensor, 0)
        }
    };
    if tensor.device != announced && named_device(tensor.device)? != *device {
        return Err(PyBufferError::new_err(format!(
            "__dlpack_device__ says {announced:?}, but __dlpack__ gives memory of {:?}; both must be of one device",
            tensor.device
        )));
    }
    let dtype = DType::ALL
        .into_iter()
        .find(|&d| element(d) == tensor.dtype)
        .ok_or_else(|| PyTypeError::new_err(format!("no dtype for DLPack's {:?}", tensor.dtype)))?;
    let rank = usize::try_from(tensor.ndim).unwrap_or(0);
    let list = |at: *const i64| -> Vec<i64> {
        if rank == 0 || at.is_null() {
            return Vec::new();
        }
        // SAFETY: DLPack has one number an axis there.
        unsafe { std::slice::from_raw_parts(at, rank) }.to_vec()
    };
    let shape: Vec<usize> = list(tensor.shape).into_iter().map(|d| d as usize).collect();
    let strides = match list(tensor.strides) {
        given if given.len() == rank => given.into_iter().map(|s| s as isize).collect(),
        _ => interop::row_major(&shape),
    };
    let at = tensor.data.expose_provenance() as u64 + tensor.byte_offset;
    if !at.is_multiple_of(dtype.size() as u64) {
        return Err(PyBufferError::new_err(
            "the elements do not lie on multiples of their size; copy them first",
        ));
    }
    // SAFETY: the producer vouches for what it says of its memory, which lives until it is deleted.
    unsafe {
        interop::adopt_from(at, (&shape, &strides), dtype, device, Box::new(consumed), flags & READ_ONLY != 0)
    }
}
