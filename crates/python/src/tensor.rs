//! `bullet_core.Tensor`.

use std::sync::{PoisonError, RwLock};

use bullet_tensor::{DeviceKind, Index, Result, Tensor};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::device::{AnyDevice, PyDevice};
use crate::dtype::{AnyDType, PyDType, numpy_name};
use crate::functions::reduce::{Axes, over};
use crate::functions::shape::squeezed;
use crate::index::Slices;
use crate::operand::Operand;
use crate::{creation, dlpack, error, index, interop, interrupt};

/// An n-dimensional array on a device, with its place on the tape of gradients.
///
/// Made by `array`, `asarray`, `zeros` and others; `Tensor(obj)` is `array(obj)`.
#[pyclass(name = "Tensor", module = "bullet_core", frozen, weakref)]
pub(crate) struct PyTensor {
    /// Behind a lock, as `requires_grad` makes a leaf of it.
    tensor: RwLock<Tensor>,
}

/// Runs what computes without the interpreter's lock, until Ctrl-C.
pub(crate) fn unlocked(py: Python<'_>, f: impl FnOnce() -> Result<Tensor> + Send) -> PyResult<PyTensor> {
    interrupt::detached(py, f)?.map(PyTensor::new).map_err(error::exception)
}

/// As [`unlocked`], of an op that goes once through these tensors and overwrites none: if they are small it is over before
/// the lock could be given back.
///
/// Whoever holds the lock must not wait for a guard that a long call holds, which may be asking for the lock to see to
/// signals. Of memory that is small as a whole no such call holds a guard that readers wait for.
pub(crate) fn once(
    py: Python<'_>,
    tensors: &[&Tensor],
    f: impl FnOnce() -> Result<Tensor> + Send,
) -> PyResult<PyTensor> {
    const SMALL: usize = 2048;
    let small = |t: &&Tensor| {
        t.numel() <= SMALL
            && t.storage_bytes() <= SMALL * size_of::<f64>()
            && t.device().kind() == DeviceKind::Cpu
    };
    // Of broadcast ones the result may be large.
    let largest = tensors.iter().map(|t| t.numel()).max();
    let alike = |t: &&Tensor| t.numel() == 1 || Some(t.numel()) == largest;
    if tensors.iter().all(|t| small(t) && alike(t)) {
        return f().map(PyTensor::new).map_err(error::exception);
    }
    unlocked(py, f)
}

impl Drop for PyTensor {
    /// Memory of small tensors is kept for others. A large one that Python has dropped is what its user wants to see gone.
    fn drop(&mut self) {
        const LARGE: usize = 16 << 20;
        const KEPT: usize = 256 << 20;
        let slot = self.tensor.get_mut().unwrap_or_else(PoisonError::into_inner);
        if slot.storage_bytes() < LARGE || slot.device().kind() != DeviceKind::Cpu {
            return;
        }
        let device = slot.device().clone();
        let Ok(nothing) = Tensor::scalar(false, &device) else { return };
        let before = device.memory_stats().cached;
        drop(std::mem::replace(slot, nothing));
        let after = device.memory_stats().cached;
        if after > before && after > KEPT {
            device.trim_by(after - before);
        }
    }
}

impl PyTensor {
    pub(crate) fn new(tensor: Tensor) -> PyTensor {
        PyTensor { tensor: RwLock::new(tensor) }
    }

    pub(crate) fn tensor(&self) -> Tensor {
        self.tensor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds another tensor from now on.
    pub(crate) fn set(&self, tensor: Tensor) {
        *self.tensor.write().unwrap_or_else(PoisonError::into_inner) = tensor;
    }

    pub(crate) fn map(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Tensor) -> Result<Tensor> + Send,
    ) -> PyResult<PyTensor> {
        let tensor = self.tensor();
        unlocked(py, || f(&tensor))
    }
}

/// Sizes of `reshape` and `permute`: several arguments, or one sequence.
pub(crate) fn sizes(args: &Bound<'_, PyTuple>) -> PyResult<Vec<isize>> {
    match args.len() {
        1 => match args.get_item(0)?.extract::<isize>() {
            Ok(one) => Ok(vec![one]),
            Err(_) => args.get_item(0)?.extract(),
        },
        _ => args.extract(),
    }
}

#[pymethods]
impl PyTensor {
    #[new]
    #[pyo3(signature = (obj, *, dtype = None, device = None, requires_grad = false))]
    fn py_new(
        obj: &Bound<'_, PyAny>,
        dtype: Option<AnyDType>,
        device: Option<AnyDevice>,
        requires_grad: bool,
    ) -> PyResult<PyTensor> {
        let made = crate::creation::array(obj, dtype, device)?;
        made.set_requires_grad(requires_grad)?;
        Ok(made)
    }

    /// Lengths of the axes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.tensor().shape()[..])
    }

    /// Number of axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.tensor().rank()
    }

    /// Number of elements.
    #[getter]
    fn size(&self) -> usize {
        self.tensor().numel()
    }

    /// Bytes of all elements.
    #[getter]
    fn nbytes(&self) -> usize {
        let tensor = self.tensor();
        tensor.numel() * tensor.dtype().size()
    }

    /// Bytes of an element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.tensor().dtype().size()
    }

    /// Type of the elements.
    #[getter]
    fn dtype(&self) -> PyDType {
        PyDType(self.tensor().dtype())
    }

    /// Where the tensor lies.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice(self.tensor().device().clone())
    }

    /// Elements from one to the next along each axis.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.tensor().layout().strides())
    }

    /// Whether the elements lie one after the other in row-major order.
    fn is_contiguous(&self) -> bool {
        self.tensor().is_contiguous()
    }

    /// The tensor with its axes in reverse order.
    #[getter(T)]
    fn reversed_axes(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, |t| t.permute(&(0..t.rank() as isize).rev().collect::<Vec<_>>()))
    }

    /// The tensor with its last two axes exchanged.
    #[getter(mT)]
    fn matrix_transpose(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, |t| t.transpose(-1, -2))
    }

    /// Whether ops on it are recorded, and `backward` fills its `grad`.
    #[getter]
    fn requires_grad(&self) -> bool {
        self.tensor().is_tracked()
    }

    #[setter]
    fn set_requires_grad(&self, requires_grad: bool) -> PyResult<()> {
        let mut tensor = self.tensor.write().unwrap_or_else(PoisonError::into_inner);
        match (requires_grad, tensor.is_tracked()) {
            (true, false) => *tensor = tensor.requires_grad().map_err(error::exception)?,
            (false, true) => *tensor = tensor.detach(),
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// The gradient that `backward` has added up, or None. Set to None to begin anew.
    #[getter]
    fn grad(&self) -> Option<PyTensor> {
        self.tensor().grad().map(PyTensor::new)
    }

    #[setter]
    fn set_grad(&self, grad: Option<&Bound<'_, PyTensor>>) -> PyResult<()> {
        let tensor = self.tensor();
        let grad = grad.map(|g| g.get().tensor());
        if let Some(grad) = grad.as_ref().filter(|g| g.shape() != tensor.shape()) {
            return Err(PyValueError::new_err(format!(
                "the gradient has shape {}, expected that of the tensor, {}",
                grad.shape(),
                tensor.shape()
            )));
        }
        tensor.set_grad(grad);
        Ok(())
    }

    /// Adds the gradient of this scalar to the `grad` of every tensor it was computed from that requires one; of a tensor
    /// that is no scalar, with `gradient` as the gradient of it.
    #[pyo3(signature = (gradient = None))]
    fn backward(&self, py: Python<'_>, gradient: Option<&Bound<'_, PyTensor>>) -> PyResult<()> {
        crate::nn::step::check_outside_of_loss()?;
        let (tensor, gradient) = (self.tensor(), gradient.map(|g| g.get().tensor()));
        if gradient.is_none() && tensor.numel() != 1 && tensor.is_tracked() {
            return Err(PyRuntimeError::new_err(format!(
                "backward() without a gradient is of a scalar, this has shape {}; take its sum() or mean(), or pass its \
                 gradient: t.backward(gradient)",
                tensor.shape()
            )));
        }
        interrupt::detached(py, || match &gradient {
            None => tensor.backward(),
            Some(gradient) => tensor.backward_with(gradient),
        })?
        .map_err(error::exception)
    }

    /// The same memory, cut off the tape.
    fn detach(&self) -> PyTensor {
        PyTensor::new(self.tensor().detach())
    }

    /// A copy, row-major.
    fn copy(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::copy)
    }

    /// Itself if it is row-major, else a copy that is.
    fn contiguous(&self, py: Python<'_>) -> PyResult<PyTensor> {
        self.map(py, Tensor::contiguous)
    }

    /// Its elements as another dtype: a copy, unless `copy` is False and nothing changes.
    #[pyo3(signature = (dtype, /, *, copy = true))]
    fn astype(&self, py: Python<'_>, dtype: AnyDType, copy: bool) -> PyResult<PyTensor> {
        self.map(py, |t| if copy && t.dtype() == dtype.0 { t.copy() } else { t.cast(dtype.0) })
    }

    /// On another device, or as another dtype, or both; itself if nothing changes.
    #[pyo3(signature = (*args))]
    fn to(&self, py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let mut tensor = self.tensor();
        for arg in args {
            tensor = match arg.extract::<AnyDType>() {
                Ok(dtype) => interrupt::detached(py, || tensor.cast(dtype.0))?.map_err(error::exception)?,
                Err(not_dtype) => {
                    let device = arg.extract::<AnyDevice>().map_err(|not_device| {
                        // A name of neither: the words about devices, unless it was meant as a dtype.
                        if arg.extract::<String>().is_ok() { not_device } else { not_dtype }
                    })?;
                    interop::moved(py, &tensor, &device.0)?
                }
            };
        }
        Ok(PyTensor::new(tensor))
    }

    /// On another device.
    #[pyo3(signature = (device, /, *, stream = None))]
    fn to_device(&self, py: Python<'_>, device: AnyDevice, stream: Option<Py<PyAny>>) -> PyResult<PyTensor> {
        if stream.is_some() {
            return Err(PyValueError::new_err("streams of others are not supported; pass stream=None"));
        }
        interop::moved(py, &self.tensor(), &device.0).map(PyTensor::new)
    }

    /// The value of the one element, or of the one at these indices, as a Python number.
    #[pyo3(signature = (*args))]
    fn item<'py>(&self, py: Python<'py>, args: &Bound<'_, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.tensor();
        if args.is_empty() {
            return index::item(py, &tensor);
        }
        let places = sizes(args)?;
        let error = error::exception;
        let flat = if places.len() == 1 && tensor.rank() != 1 {
            tensor.reshape(&[-1]).map_err(error)?
        } else {
            tensor
        };
        let at: Vec<Index> = places.into_iter().map(Index::At).collect();
        let one = flat.index(&at).map_err(error)?;
        if one.rank() > 0 {
            return Err(PyValueError::new_err(format!(
                "item() takes one index, or {}, got {}",
                flat.rank(),
                at.len()
            )));
        }
        index::item(py, &one)
    }

    /// The elements as nested lists of Python numbers.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        index::to_list(py, &self.tensor())
    }

    /// The NumPy array of the same memory; the tensor is on the CPU, and does not require gradients.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        interop::numpy(slf)
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interop::interface(py, &self.tensor())
    }

    /// The functions of the array API for tensors: this package.
    #[pyo3(signature = (*, api_version = None))]
    fn __array_namespace__<'py>(
        &self,
        py: Python<'py>,
        api_version: Option<&str>,
    ) -> PyResult<Bound<'py, PyModule>> {
        const VERSIONS: [&str; 4] = ["2021.12", "2022.12", "2023.12", "2024.12"];
        match api_version {
            Some(other) if !VERSIONS.contains(&other) => Err(PyValueError::new_err(format!(
                "array API version '{other}' is not known; expected one of {}",
                VERSIONS.join(", ")
            ))),
            _ => py.import("bullet_core"),
        }
    }

    /// The NumPy array of the same memory, or of a copy if `copy` is True or the dtype is another one.
    #[pyo3(signature = (dtype = None, *, copy = None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, array) = (slf.py(), interop::numpy(slf)?);
        let options = PyDict::new(py);
        options.set_item("dtype", dtype)?;
        options.set_item("copy", copy)?;
        py.import("numpy")?.call_method("array", (array,), Some(&options))
    }

    /// What other libraries need to know of memory on a GPU.
    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interop::cuda_interface(py, &self.tensor())
    }

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<i64>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        dlpack::export(py, &self.tensor(), &dlpack::Wanted { stream, max_version, dl_device, copy })
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::device_of(&self.tensor())
    }

    fn __getitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        index::get(slf.py(), &slf.get().tensor(), key)
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        index::set(py, &self.tensor(), key, value)
    }

    fn __len__(&self) -> PyResult<usize> {
        let tensor = self.tensor();
        tensor.shape().first().copied().ok_or_else(|| PyTypeError::new_err("len() of unsized object"))
    }

    fn __iter__(&self) -> PyResult<Slices> {
        Slices::of(self.tensor())
    }

    fn __hash__(slf: &Bound<'_, Self>) -> isize {
        slf.as_ptr() as isize >> 4
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let tensor = self.tensor();
        let mut text = format!(
            "Tensor({}, {}dtype={}",
            interop::text(&tensor, py, "Tensor(")?,
            // As NumPy writes it, since no brackets tell of the axes.
            if tensor.numel() == 0 && tensor.rank() > 1 {
                format!("shape={}, ", PyTuple::new(py, &tensor.shape()[..])?.repr()?)
            } else {
                String::new()
            },
            numpy_name(tensor.dtype())
        );
        if tensor.device().gpu().is_some() {
            text += &format!(", device='{}'", tensor.device());
        }
        if tensor.is_tracked() {
            text += ", requires_grad=True";
        }
        Ok(text + ")")
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<String> {
        interop::text(&self.tensor(), py, "")
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, tensor) = (slf.py(), slf.get().tensor());
        let bytes = interrupt::detached(py, || tensor.to_bytes())?.map_err(error::exception)?;
        let state = (
            pyo3::types::PyBytes::new(py, &bytes),
            slf.get().dtype(),
            slf.get().shape(py)?,
            slf.get().device(),
            tensor.is_tracked(),
        );
        Ok((py.get_type::<PyTensor>().getattr("_restore")?, state.into_pyobject(py)?))
    }

    /// The tensor that was pickled.
    #[classmethod]
    fn _restore(
        _: &Bound<'_, PyType>,
        py: Python<'_>,
        bytes: &[u8],
        dtype: &PyDType,
        shape: Vec<usize>,
        device: &PyDevice,
        requires_grad: bool,
    ) -> PyResult<PyTensor> {
        let (dtype, device) = (dtype.0, &device.0);
        let made = unlocked(py, || Tensor::from_bytes(bytes, dtype, &shape, device))?;
        made.set_requires_grad(requires_grad)?;
        Ok(made)
    }

    /// The same elements under another shape, one length of which may be -1: a view where that is possible.
    #[pyo3(signature = (*shape))]
    fn reshape(&self, py: Python<'_>, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let shape = sizes(shape)?;
        self.map(py, |t| t.reshape(&shape))
    }

    /// A view with the axes in this order; in reverse order without arguments.
    #[pyo3(signature = (*axes))]
    fn permute(&self, py: Python<'_>, axes: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let axes = sizes(axes)?;
        self.map(py, |t| t.permute(&axes))
    }

    /// A view with two axes exchanged, for two numbers; with the axes in this order, for one sequence or more numbers; in
    /// reverse order without arguments.
    #[pyo3(signature = (*axes))]
    fn transpose(&self, py: Python<'_>, axes: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        if let Ok((a, b)) = axes.extract::<(isize, isize)>() {
            return self.map(py, |t| t.transpose(a, b));
        }
        if axes.is_empty() || axes.get_item(0)?.is_none() {
            self.reversed_axes(py)
        } else {
            self.permute(py, axes)
        }
    }

    /// Overwrites every element with a number.
    pub(crate) fn fill_(slf: Bound<'_, Self>, value: Operand) -> PyResult<Bound<'_, Self>> {
        let tensor = slf.get().tensor();
        value.check_fits(tensor.dtype())?;
        let value = match value {
            Operand::Int(_) => index::assigned(value, &tensor)?,
            other => Tensor::constant(other.number()?, tensor.dtype(), tensor.device())
                .map_err(error::exception)?,
        };
        interrupt::detached(slf.py(), || tensor.copy_(&value))?.map_err(error::exception)?;
        Ok(slf)
    }

    /// Overwrites the elements with those of another tensor, or of an array or lists, which are broadcast.
    fn copy_<'py>(slf: Bound<'py, Self>, source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let tensor = slf.get().tensor();
        let source = creation::assignable(source, &tensor)?;
        source.check_fits(tensor.dtype())?;
        let source = index::assigned(source, &tensor)?;
        interrupt::detached(slf.py(), || tensor.copy_(&source))?.map_err(error::exception)?;
        Ok(slf)
    }

    /// Without axes of length 1: these, or all of them.
    #[pyo3(signature = (axis = None))]
    pub(crate) fn squeeze(&self, py: Python<'_>, axis: Option<Axes>) -> PyResult<PyTensor> {
        self.map(py, |t| match axis {
            Some(axis) => squeezed(t, &axis.list()),
            None => {
                let ones: Vec<isize> = (0..t.rank()).filter(|&a| t.dim(a) == 1).map(|a| a as isize).collect();
                squeezed(t, &ones)
            }
        })
    }
}

impl PyTensor {
    /// A reduction over axes.
    pub(crate) fn reduce(
        &self,
        py: Python<'_>,
        axes: Option<Axes>,
        keepdims: bool,
        f: impl Fn(&Tensor, &[isize], bool) -> Result<Tensor> + Send,
    ) -> PyResult<PyTensor> {
        self.map(py, |t| over(t, axes, keepdims, f))
    }
}
