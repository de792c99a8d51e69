//! Kernels on the CPU: machine code by `bullet_jit`, on all cores.

use bullet_jit::{Fault, Options};
use bullet_lang::ir;
use bullet_tensor::Tensor;
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::kernel::Arg;

/// The code of a kernel.
#[derive(Debug)]
pub(crate) struct Program(bullet_jit::Program);

impl Program {
    pub(crate) fn new(kernel: &ir::Kernel, options: Options) -> Result<Program> {
        let program = bullet_jit::Program::cached(kernel, options);
        program.map(Program).map_err(|error| Error::Unsupported(error.to_string()))
    }

    /// Runs it; the caller has checked the arguments and holds their memory. In order it is as if threads ran one after the other;
    /// then arguments do not share memory if the program has records.
    pub(crate) fn launch(&self, grid: &[i32], args: &[Arg], in_order: bool) -> Result<(), Fault> {
        let args: SmallVec<[bullet_jit::Arg; 12]> = args.iter().map(argument).collect();
        let grid: SmallVec<[u32; 4]> = grid.iter().map(|&length| length as u32).collect();
        // SAFETY: the arguments were checked against the kernel's parameters, and the launch has access to their memory.
        // Indices are checked by the code.
        unsafe { if in_order { self.0.launch_in_order(&grid, &args) } else { self.0.launch(&grid, &args) } }
    }
}

fn argument(arg: &Arg) -> bullet_jit::Arg {
    match arg {
        Arg::Scalar(bits) => bullet_jit::Arg::scalar(*bits),
        Arg::Array(tensor) => array(tensor),
    }
}

fn array(tensor: &Tensor) -> bullet_jit::Arg {
    let (mut shape, mut strides) = ([0; 4], [0; 4]);
    // The scalars of an element lie side by side, so what is behind the array's own dimensions is not looked at.
    let axes = tensor.shape().iter().zip(tensor.layout().strides());
    for (axis, (&length, &stride)) in axes.take(4).enumerate() {
        shape[axis] = length as i32;
        strides[axis] = stride as i64 * tensor.dtype().size() as i64;
    }
    // The host's memory was allocated with its address exposed.
    let data = std::ptr::with_exposed_provenance_mut(tensor.address() as usize);
    bullet_jit::Arg::array(data, shape, strides)
}
