//! `bullet_core.lang.Tape`'s better half.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bullet_launch::{Arg, Gradient, Kernel, LaunchOptions, Tape};
use bullet_tensor::{Device, Tensor};
use pyo3::prelude::*;

use super::args::PyArray;
use super::exception;
use crate::interrupt;
use crate::tensor::PyTensor;

/// Launches in the order they were made.
#[pyclass(name = "Tape", module = "bullet_core._core._lang", frozen)]
#[derive(Default)]
pub(super) struct PyTape(Mutex<Tape>);

impl PyTape {
    fn lock(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::too_many_arguments, reason = "those of a launch")]
    pub(super) fn launch(
        &self,
        py: Python<'_>,
        kernel: &Arc<Kernel>,
        device: &Device,
        grid: &[i32],
        args: Vec<Arg>,
        gradients: &[Option<Gradient>],
        foreign: &[bool],
        options: LaunchOptions,
    ) -> PyResult<()> {
        let launch = || self.lock().launch(kernel, device, grid, args, gradients, foreign, options);
        interrupt::detached(py, launch)?.map_err(exception)
    }
}

#[pymethods]
impl PyTape {
    #[new]
    fn new() -> PyTape {
        PyTape::default()
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().len())
    }

    /// Goes back from these arrays, with the gradient of each.
    fn backward(
        &self,
        py: Python<'_>,
        seeds: Vec<(Bound<'_, PyArray>, Bound<'_, PyTensor>)>,
    ) -> PyResult<()> {
        let seeds: Vec<(Tensor, Tensor)> = seeds
            .iter()
            .map(|(array, gradient)| (array.get().tensor.clone(), gradient.get().tensor().detach()))
            .collect();
        interrupt::detached(py, || self.lock().backward(&seeds))?.map_err(exception)
    }

    /// Whether gradients flow in an array.
    fn follows(&self, py: Python<'_>, array: &Bound<'_, PyArray>) -> bool {
        let tensor = &array.get().tensor;
        py.detach(|| self.lock().follows(tensor))
    }

    /// Makes the gradients that were asked for zero.
    fn zero(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.lock().zero()).map_err(exception)
    }

    /// Forgets the launches.
    fn reset(&self, py: Python<'_>) {
        py.detach(|| self.lock().clear());
    }
}
