//! Recording for backward, and functions whose backward Python wrote: `bullet_core.autograd` is made of these.

use std::cell::RefCell;

use bullet_tensor::{Backward, Error, Result, Tensor, custom};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error;
use crate::tensor::PyTensor;

/// Whether ops of this thread are recorded for backward.
#[pyfunction]
pub(crate) fn is_grad_enabled() -> bool {
    bullet_tensor::grad_enabled()
}

/// Says whether ops of this thread are recorded for backward; returns what was before.
#[pyfunction]
pub(crate) fn set_grad_enabled(enabled: bool) -> bool {
    bullet_tensor::set_grad_enabled(enabled)
}

thread_local! {
    /// The exception that a backward of Python's raised, on its way past the engine, and what the engine is told.
    static RAISED: RefCell<Option<(String, PyErr)>> = const { RefCell::new(None) };
}

/// The exception behind this error of the engine, if it is one of Python's.
pub(crate) fn raised(message: &str) -> Option<PyErr> {
    RAISED
        .with_borrow_mut(|raised| raised.take_if(|(told, _)| told == message))
        .map(|(_, exception)| exception)
}

/// A function of Python's, of the gradients of the outputs (or None) and what was saved, that gives those of the inputs.
struct PyBackward(Py<PyAny>);

impl PyBackward {
    fn call(
        &self,
        py: Python<'_>,
        grads: Vec<Option<Tensor>>,
        saved: Vec<Tensor>,
    ) -> PyResult<Vec<Option<Tensor>>> {
        let grads: Vec<Option<PyTensor>> = grads.into_iter().map(|g| g.map(PyTensor::new)).collect();
        let saved: Vec<PyTensor> = saved.into_iter().map(PyTensor::new).collect();
        let given = self.0.bind(py).call1((grads, saved))?;
        let tensor = |item: PyResult<Bound<'_, PyAny>>| {
            let item = item?;
            if item.is_none() {
                return Ok(None);
            }
            let tensor = item.cast::<PyTensor>().map_err(|_| {
                PyTypeError::new_err(format!("backward gave {}, expected a Tensor or None", item.get_type()))
            })?;
            Ok(Some(tensor.get().tensor()))
        };
        given.try_iter()?.map(tensor).collect()
    }
}

impl Backward for PyBackward {
    fn backward(&self, grads: Vec<Option<Tensor>>, saved: Vec<Tensor>) -> Result<Vec<Option<Tensor>>> {
        crate::interrupt::attached(|py| self.call(py, grads, saved)).map_err(|exception| {
            let told = format!("the backward of a custom function raised: {exception}");
            RAISED.set(Some((told.clone(), exception)));
            Error::Autograd(told)
        })
    }
}

/// `outputs`, which Python computed of `inputs` without recording, as results of one function whose backward is `backward`.
#[pyfunction]
pub(crate) fn _custom(
    py: Python<'_>,
    inputs: Vec<Bound<'_, PyTensor>>,
    outputs: Vec<Bound<'_, PyTensor>>,
    saved: Vec<Bound<'_, PyTensor>>,
    backward: Py<PyAny>,
) -> PyResult<Vec<PyTensor>> {
    let tensors = |list: Vec<Bound<'_, PyTensor>>| list.iter().map(|t| t.get().tensor()).collect::<Vec<_>>();
    let (inputs, outputs, saved) = (tensors(inputs), tensors(outputs), tensors(saved));
    let backward = Box::new(PyBackward(backward));
    let made = py.detach(|| {
        custom(&inputs.iter().collect::<Vec<_>>(), &outputs, &saved.iter().collect::<Vec<_>>(), backward)
    });
    Ok(made.map_err(error::exception)?.into_iter().map(PyTensor::new).collect())
}
