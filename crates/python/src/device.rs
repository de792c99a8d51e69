//! `bullet_core.Device`, and the device that new tensors are made on.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use bullet_tensor::Device;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error;

/// Where tensors lie: `cpu`, `cuda:0`, .. .
#[pyclass(name = "Device", module = "bullet_core", frozen, eq, hash)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PyDevice(pub(crate) Device);

#[pymethods]
impl PyDevice {
    #[new]
    fn new(name: AnyDevice) -> PyDevice {
        PyDevice(name.0)
    }

    /// `cpu` or `cuda`.
    #[getter]
    fn r#type(&self) -> String {
        let name = self.0.to_string();
        name.split(':').next().unwrap_or_default().to_string()
    }

    /// The product's name.
    #[getter]
    fn name(&self) -> String {
        self.0.name().to_string()
    }

    /// Waits for all work on this device, and raises what its kernels found wrong.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        crate::interrupt::wait(py, &self.0)?;
        py.detach(|| bullet_tensor::synchronize(&self.0)).map_err(error::exception)
    }

    fn __repr__(&self) -> String {
        format!("Device('{}')", self.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (String,)) {
        (py.get_type::<PyDevice>(), (self.0.to_string(),))
    }
}

/// What is taken for a device: one of ours, or its name.
pub(crate) struct AnyDevice(pub(crate) Device);

impl<'a, 'py> FromPyObject<'a, 'py> for AnyDevice {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<AnyDevice> {
        if let Ok(device) = object.cast::<PyDevice>() {
            return Ok(AnyDevice(device.get().0.clone()));
        }
        let name: String = object.extract().map_err(|_| {
            pyo3::exceptions::PyTypeError::new_err(format!(
                "expected a device or its name, such as 'cpu' or 'cuda:0', got {}",
                object.get_type()
            ))
        })?;
        Device::parse(&name).map(AnyDevice).map_err(error::runtime)
    }
}

static DEFAULT: RwLock<Option<Device>> = RwLock::new(None);

/// This device, or the default one.
pub(crate) fn chosen(device: Option<AnyDevice>) -> PyResult<Device> {
    if let Some(AnyDevice(device)) = device {
        return Ok(device);
    }
    if let Some(device) = &*DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(device.clone());
    }
    let first = match std::env::var("BULLET_DEVICE") {
        Ok(name) if !name.is_empty() => Device::parse(&name).map_err(error::runtime)?,
        // Arrays that NumPy can share, as a program expects that says nothing.
        Ok(_) | Err(_) => Device::cpu(),
    };
    Ok(DEFAULT.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(first).clone())
}

/// The device that tensors are made on where none is named: as `BULLET_DEVICE` says (`cpu`, `cuda:0`, or `auto` for a GPU if
/// there is one), the CPU without that.
#[pyfunction]
pub(crate) fn default_device() -> PyResult<PyDevice> {
    chosen(None).map(PyDevice)
}

/// Says on which device tensors are made where none is named; returns the one before.
#[pyfunction]
pub(crate) fn set_default_device(device: AnyDevice) -> PyResult<PyDevice> {
    let before = default_device()?;
    *DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = Some(device.0);
    Ok(before)
}

/// Whether there is a GPU that can be used.
#[pyfunction]
pub(crate) fn cuda_is_available(py: Python<'_>) -> bool {
    py.detach(|| Device::auto().is_ok_and(|(device, _)| device.gpu().is_some()))
}

/// What the memory of a device is used for, in bytes: `used` by tensors, `cached` for the next ones, `peak` of the first.
#[pyfunction]
#[pyo3(signature = (device = None))]
pub(crate) fn memory_stats(device: Option<AnyDevice>) -> PyResult<HashMap<&'static str, usize>> {
    let stats = chosen(device)?.memory_stats();
    Ok(HashMap::from([("used", stats.used), ("cached", stats.cached), ("peak", stats.peak)]))
}
