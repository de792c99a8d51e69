//! The error of this crate, in the words users know.

/// What went wrong, and so whose fault it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The device, or the share of it that this process may use, is full.
    OutOfMemory(Box<OutOfMemory>),
    /// No CUDA driver could be loaded.
    DriverMissing,
    /// A driver is there, but no such device.
    NoDevice,
    /// NVRTC could not be loaded, so nothing can be compiled for a GPU.
    JitMissing,
    /// NVRTC refuses a kernel's source; the message has its log.
    CompileFailed,
    /// A kernel or host closure could not be started, or failed while it ran.
    LaunchFailed,
    /// The caller's mistake: a range, name or setting that makes no sense.
    InvalidArgument,
    /// A kernel was given an index out of range, or made one.
    Index,
    /// An assertion of a kernel failed.
    Assert,
    /// This driver cannot do that at all (a kernel image on the host driver).
    Unsupported,
    /// The work was cancelled before it ran.
    Cancelled,
    /// The driver reported something else; the message has its words.
    Driver,
}

/// The memory of a device at the moment an allocation failed; all sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OutOfMemory {
    /// Name of the device, as `Device`'s `Display` writes it.
    pub device: String,
    /// What the caller asked for.
    pub requested: usize,
    /// What live buffers asked for.
    pub used: usize,
    /// Number of live buffers.
    pub buffers: usize,
    /// What size classes add to live buffers.
    pub padding: usize,
    /// Free blocks that the pool kept for reuse and could not give back.
    pub cached: usize,
    /// The quota, if one is set.
    pub limit: Option<usize>,
    /// What the device says is free, where it can say.
    pub device_free: Option<usize>,
    /// The largest single free block the pool held when the request came.
    pub largest_free: usize,
}

/// A failure of the runtime.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What sort of failure, with its numbers.
    pub kind: ErrorKind,
    /// A full sentence for the user.
    pub message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// An error of kind [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// An error of kind [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// An error of kind [`ErrorKind::LaunchFailed`].
    pub fn launch(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::LaunchFailed, message)
    }

    /// What a driver returns when it has no memory left; the pool adds the rest.
    pub fn driver_out_of_memory(requested: usize) -> Error {
        Error::out_of_memory(OutOfMemory { requested, ..OutOfMemory::default() })
    }

    /// The error of a machine without a CUDA driver.
    pub fn driver_missing() -> Error {
        Error::new(
            ErrorKind::DriverMissing,
            "CUDA driver not detected. Install the NVIDIA driver, or use the device 'cpu' (CPU simulation backend).",
        )
    }

    /// The error of a machine whose CUDA driver finds no GPU.
    pub fn no_device() -> Error {
        Error::new(
            ErrorKind::NoDevice,
            "No GPU devices found (cuDeviceGetCount == 0). Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use the device \
             'cpu' (CPU simulation backend).",
        )
    }

    /// The error of a machine without an NVRTC that can be used; `why` is a sentence.
    pub fn jit_missing(why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::JitMissing, format!("NVRTC JIT compiler not available: {why}"))
    }

    /// Whether this is [`ErrorKind::OutOfMemory`].
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.kind, ErrorKind::OutOfMemory(_))
    }

    pub(crate) fn out_of_memory(oom: OutOfMemory) -> Error {
        Error { message: oom.sentence(), kind: ErrorKind::OutOfMemory(Box::new(oom)) }
    }
}

impl OutOfMemory {
    fn sentence(&self) -> String {
        let device = if self.device.is_empty() { "the device" } else { &self.device };
        let mut s = format!(
            "out of memory on {device}: {} requested; {} in use by {} buffer{} (+ {} padding), {} cached",
            Bytes(self.requested),
            Bytes(self.used),
            self.buffers,
            if self.buffers == 1 { "" } else { "s" },
            Bytes(self.padding),
            Bytes(self.cached),
        );
        if self.largest_free > 0 {
            s += &format!(" (largest free block {})", Bytes(self.largest_free));
        }
        if let Some(free) = self.device_free {
            s += &format!(", {} free on the device", Bytes(free));
        }
        match self.limit {
            Some(limit) => {
                s += &format!(
                    ", limit {}. Raise BULLET_MEMORY_LIMIT, drop tensors you no longer need, or use a smaller batch.",
                    Bytes(limit)
                );
            }
            None => s += ". Drop tensors you no longer need, or use a smaller batch.",
        }
        s
    }
}

/// Prints a number of bytes for people: `512 B`, `1.5 KiB`, `2.0 GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub usize);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            (value, unit) = (value / 1024.0, unit + 1);
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (2 << 30, "2.0 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn out_of_memory_says_what_is_held_and_what_to_do() {
        let e = Error::out_of_memory(OutOfMemory {
            device: "cpu".into(),
            requested: 3 << 20,
            used: 5 << 20,
            buffers: 7,
            limit: Some(6 << 20),
            ..OutOfMemory::default()
        });
        for part in [
            "cpu",
            "3.0 MiB requested",
            "5.0 MiB in use by 7 buffers",
            "limit 6.0 MiB",
            "BULLET_MEMORY_LIMIT",
        ] {
            assert!(e.message.contains(part), "{part} is missing in: {e}");
        }
        assert!(e.is_out_of_memory());
    }
}
