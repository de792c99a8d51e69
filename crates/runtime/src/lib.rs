//! Devices, memory and streams: the driver trait and what runs over it.
//!
//! A [`Driver`] is a device as CUDA sees one: raw memory, copies, streams, events, launches. A [`Device`] owns one and a
//! caching pool of its memory, and hands out [`Buffer`]s and [`Stream`]s. `docs/runtime.md` explains how they fit.
//!
//! ```
//! use bullet_runtime::Device;
//! let device = Device::cpu();
//! let mut buffer = device.alloc(1000)?;
//! buffer.write(0, b"hello")?;
//! let mut out = [0; 5];
//! buffer.read(0, &mut out)?;
//! assert_eq!(&out, b"hello");
//! # Ok::<(), bullet_runtime::Error>(())
//! ```

pub mod cuda;
pub mod driver;
pub mod fault;
pub mod fork;
pub mod hardware;
pub mod host;
pub mod jit;

mod capture;
mod device;
mod discover;
mod error;
mod foreign;
mod graph;
mod options;
mod pool;
mod search;
mod staging;
mod stream;

pub use cuda::CudaDriver;

pub use device::{Buffer, Device};
pub use discover::{CudaReport, GpuReport, JitReport, gpus};
pub use driver::{
    DeviceKind, DevicePtr, Driver, DriverInfo, EventId, FunctionId, GraphId, HostFn, KernelArg, KernelArgs,
    Launch, LaunchConfig, MemoryInfo, ModuleId, Priority, StreamId,
};
pub use error::{Bytes, Error, ErrorKind, OutOfMemory, Result};
pub use fault::{Call, Counts, FaultDriver, Faults};
pub use graph::{Capture, Graph};
pub use host::HostDriver;
pub use options::{DeviceOptions, parse_bytes};
pub use pool::MemoryStats;
pub use stream::{Event, Stream};
