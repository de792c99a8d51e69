//! Conformance: every op of the table, on every dtype, device and memory layout, against the f64 oracle, and every
//! gradient against finite differences. The cases come from the table (`bullet_ops::reference::cases`), so that a new
//! row is tested when it is written. And the tape, and kernels that do several ops' work, on the same devices.

mod autograd;
mod forward;
mod fused;
mod gradients;
mod harness;
mod index;
mod numpy;
mod order;
mod semantics;
mod stops;
