//! Kernels of the kernel language on the CPU: machine code by Cranelift, run over a grid on all cores.
//!
//! ```text
//! ir::Kernel
//!   emit      the IR -> Cranelift's: one function for the threads start..end of a grid
//!   compile   Cranelift -> bytes that may lie anywhere -> executable memory
//!   program   launches: the grid in parts over the pool of bullet-kernels; faults in words
//!   in_order  launches that are as if threads ran one after the other
//!   host      what code calls: mathematics, faults, the tape, printing
//!   image     programs as bytes, kept on disk
//!   abi       what code and host know of each other
//! ```
//!
//! **Code** is one function, `(context, start, end) -> status`, that loops over threads. It calls through a table of addresses in
//! its context and has no relocations, so its bytes can be kept and loaded by another process of the
//! same sources (`build.rs`) and CPU.
//!
//! **Lanes.** Where a kernel can and that pays ([`Lanes`]), 8 threads of a row run side by side in vectors, under masks where they
//! disagree (`emit::wide`); the same function has code for one thread, for what is left of a row and for arrays with gaps. What a
//! thread computes is the same bit by bit either way.
//!
//! **Arguments** are read from the caller's [`Arg`]s as they are: a launch allocates nothing and copies nothing. Small grids run on
//! the calling thread; of larger ones the first threads are timed, and the rest is shared out if that pays.
//!
//! **Worker memory.** A thread of the pool keeps one tape and one scratch area between launches. A kernel's tape grows where it is
//! full, within [`Options::tape_limit`]; nothing is measured beforehand. A thread of the grid starts with an empty tape.
//!
//! **Faults** end a launch: an index out of range, a failed assertion, a full tape. Code tells its host the site and leaves; other
//! parts that were not begun are left out. Nothing unwinds through compiled code. An integer division by 0 gives all ones.
//!
//! **Numbers** are what `ir::eval` says of each type, rounded behind each operation; f64 functions are the standard library's, f32 ones
//! those of bullet-kernels, within 2 units in the last place.
//!
//! **Not there**: barriers, shuffles and shared arrays, which are errors; machines other than x86-64, too.
//!
//! **Trust.** `tests/` compares launches with `bullet_lang::interp`, value by value.

mod abi;
mod compile;
mod emit;
mod host;
mod image;
mod in_order;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod print;
mod program;

pub use abi::Arg;
pub use bullet_lang::fault::FaultKind;
pub use compile::{asm, clif};
pub use program::{Error, Fault, Lanes, Options, Program};
