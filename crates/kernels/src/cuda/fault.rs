//! What kernels find wrong in the values they are given: a cell for each device, which they write and the host reads.
//!
//! The first fault since the host last looked is kept. A code says what it is: of this crate's kernels an index out of range or logits
//! that no token can be drawn from, with a value and a bound. Other codes are [registered](Faults::register) for kernels that
//! others make, with who has the words for them.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bullet_runtime::{DevicePtr, Driver, Error, ErrorKind, Result};

/// The cell's memory: `struct Fault` of the prelude, and what follows it for kernels of others.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Fault {
    code: u32,
    unused: u32,
    value: i64,
    bound: i64,
    thread: i64,
    grid: [i32; 4],
    shape: [i32; 4],
}

/// The code of logits that no token can be drawn from.
const LOGIT: u32 = 2;
/// The first code that is registered.
const FIRST: u32 = 16;

/// What a kernel of others put into the cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which of its codes it was, from 0 on.
    pub site: u32,
    /// The index that was out of range.
    pub index: i64,
    /// The thread, in the order of the grid.
    pub thread: i64,
    /// The lengths of the grid's dimensions.
    pub grid: [i32; 4],
    /// Of the array that the index was to be within; unspecified behind its dimensions.
    pub shape: [i32; 4],
}

/// Who has the words for faults of a kernel.
pub trait Explain: Send + Sync {
    /// What went wrong.
    fn explain(&self, report: &Report) -> Error;
}

/// The codes of one kernel, from `first` on.
struct Codes {
    first: u32,
    count: u32,
    explain: Arc<dyn Explain>,
}

impl Codes {
    fn has(&self, code: u32) -> bool {
        code.checked_sub(self.first).is_some_and(|site| site < self.count)
    }
}

/// A [`Fault`] in pinned memory, which kernels write under its own address and the host reads without a copy.
pub(super) struct Faults {
    cell: NonNull<Fault>,
    driver: Arc<dyn Driver>,
    codes: Mutex<(u32, Vec<Codes>)>,
}

// SAFETY: the cell is owned memory; the host touches it only with volatile accesses between waits for the device.
unsafe impl Send for Faults {}
// SAFETY: as above.
unsafe impl Sync for Faults {}

impl Faults {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Faults> {
        let cell = driver.alloc_pinned(size_of::<Fault>())?.cast::<Fault>();
        // SAFETY: pinned memory of this size and of more than this alignment, which nobody else knows.
        unsafe { cell.write(Fault::default()) };
        Ok(Faults { cell, driver: Arc::clone(driver), codes: Mutex::new((FIRST, vec![])) })
    }

    /// Where kernels report.
    pub(super) fn ptr(&self) -> DevicePtr {
        // Pinned memory has one address for host and device.
        DevicePtr(self.cell.as_ptr() as u64)
    }

    /// The first of so many codes of a kernel, for as long as anybody else has `explain`.
    pub(super) fn register(&self, count: u32, explain: Arc<dyn Explain>) -> Result<u32> {
        // SAFETY: valid as long as this struct.
        let pending = unsafe { (&raw const (*self.cell.as_ptr()).code).read_volatile() };
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, known) = &mut *codes;
        // A kernel that is gone may have left a fault that nobody has read yet.
        known.retain(|codes| Arc::strong_count(&codes.explain) > 1 || codes.has(pending));
        let first = *next;
        *next = first.checked_add(count).ok_or_else(|| {
            Error::unsupported(
                "this process has compiled more places where kernels may fail than it can count",
            )
        })?;
        known.push(Codes { first, count, explain });
        Ok(first)
    }

    /// What kernels have reported, if anything; cleared for the next.
    pub(super) fn take(&self, device: &dyn std::fmt::Display) -> Option<Error> {
        // SAFETY: valid as long as this struct; kernels that write it have been waited for, or report later ones. Who reports
        // writes all that is read of its kind, so that the code is all that has to be cleared.
        let fault = unsafe {
            let fault = self.cell.read_volatile();
            if fault.code == 0 {
                return None;
            }
            (&raw mut (*self.cell.as_ptr()).code).write_volatile(0);
            fault
        };
        let Fault { code, value, bound, thread, grid, shape, .. } = fault;
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Codes { first, explain, .. }) = codes.1.iter().find(|codes| codes.has(code)) {
            return Some(explain.explain(&Report { site: code - first, index: value, thread, grid, shape }));
        }
        let (kind, what) = match (code, value) {
            (LOGIT, 0..) => {
                (ErrorKind::InvalidArgument, format!("the logit of token {value} of {bound} is NaN or +inf"))
            }
            (LOGIT, _) => {
                (ErrorKind::InvalidArgument, format!("none of the {bound} tokens has a logit above -inf"))
            }
            _ => (ErrorKind::Index, format!("index {value} is out of bounds for axis with size {bound}")),
        };
        let found =
            format!("{what}; found on {device} by an earlier operation, whose result is not to be used");
        Some(Error::new(kind, found))
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`. A device that still runs kernels is not dropped: its handle is held by `Gpu`.
        let _ = unsafe { self.driver.free_pinned(self.cell.cast(), size_of::<Fault>()) };
    }
}

#[cfg(test)]
mod tests {
    use bullet_runtime::HostDriver;

    use super::*;

    struct Words(&'static str);

    impl Explain for Words {
        fn explain(&self, report: &Report) -> Error {
            Error::new(ErrorKind::Assert, format!("{} {} {}", self.0, report.site, report.index))
        }
    }

    /// As a kernel does.
    fn report(faults: &Faults, code: u32, value: i64) {
        // SAFETY: the cell's own memory, on one thread.
        unsafe { faults.cell.write(Fault { code, value, bound: 5, ..Fault::default() }) };
    }

    #[test]
    fn each_fault_is_told_once_in_the_words_of_its_kernel() {
        let driver: Arc<dyn Driver> = Arc::new(HostDriver::new());
        let faults = Faults::new(&driver).unwrap();
        assert_eq!((size_of::<Fault>(), std::mem::offset_of!(Fault, thread)), (64, 24));
        assert!(faults.take(&"cuda:0").is_none());
        let (a, b): (Arc<dyn Explain>, Arc<dyn Explain>) = (Arc::new(Words("a")), Arc::new(Words("b")));
        let first = faults.register(3, a.clone()).unwrap();
        let second = faults.register(2, b.clone()).unwrap();
        report(&faults, first + 2, 7);
        assert_eq!(faults.take(&"cuda:0").unwrap().message, "a 2 7");
        assert!(faults.take(&"cuda:0").is_none());
        report(&faults, second, -1);
        // The kernel is gone, its fault is not.
        drop(b);
        let third = faults.register(1, a.clone()).unwrap();
        assert_eq!(faults.take(&"cuda:0").unwrap(), Error::new(ErrorKind::Assert, "b 0 -1"));
        faults.register(1, a).unwrap();
        assert_eq!(faults.codes.lock().unwrap().1.len(), 3);
        assert_eq!(third, second + 2);
        report(&faults, 1, 9);
        let error = faults.take(&"cuda:0").unwrap();
        assert_eq!(error.kind, ErrorKind::Index);
        assert!(error.message.starts_with("index 9 is out of bounds for axis with size 5; found on cuda:0"));
    }
}
