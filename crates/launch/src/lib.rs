//! Kernels of the kernel language on tensors: compiled for the device their arguments are on, launched over a grid, and
//! differentiated by a tape over launches.
//!
//! ```text
//! Linked (source, IR, signature)  ->  Kernel  --launch(grid, [Arg])-->  Code of the device  --> CPU cores, or a stream
//!                                       |                                   ^
//!                                       '-- adjoint of the active arrays ---'     Tape: launches, and what they read
//! ```
//!
//! **Ownership.** A [`Kernel`] owns its IR and, for each device that it ran on, its code; the adjoints for the sets of
//! arrays that gradients were asked of are kernels of that kind, too. All of it is made at the first launch that needs it,
//! behind a lock for each, and shared by threads. A [`Tape`] owns what it recorded: kernels, tensors, and copies of those
//! that later launches overwrote.
//!
//! **Memory.** A launch goes through [`access`](bullet_tensor::access), so that it is ordered among the ops of other threads
//! as an op is, and every tensor it writes gets a new version. On a GPU it is enqueued on the device's default stream.
//!
//! **Deterministic launches** leave the same bits at every run; [`order`](bullet_lang::order) says what that takes. On a CPU they are
//! those of the grid's threads one after the other; on a GPU `records.rs` adds up behind the threads.
//!
//! **Trust.** A launch checks dtype, rank, element shape and device of every argument against the kernel's signature, which
//! is what makes it safe: the code itself follows addresses. On a CPU it checks indices, too, and a launch that finds one out of range
//! stops with an error; on a GPU it does with [`LaunchOptions::debug`], and threads that stop report it to the device (`faults.rs`): whoever
//! next reads a tensor there, or waits, gets the error.

mod code;
mod compiler;
mod cpu;
mod cuda;
mod error;
mod faults;
mod kernel;
mod reach;
mod records;
mod tape;
#[cfg(test)]
mod tests;

pub use bullet_jit::FaultKind;
pub use compiler::{KernelCompiler, set_kernel_compiler};
pub use error::{Error, Result};
pub use kernel::{Arg, Kernel, LaunchOptions, Param};
pub use tape::{Gradient, Tape};
