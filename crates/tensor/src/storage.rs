//! [`Storage`]: the memory that tensors share, who may touch it, and how often it was overwritten.
//!
//! Tensors are views, and several threads may hold views of one storage. A kernel therefore takes a guard of every
//! storage it reads or writes: shared for operands, exclusive for the target of an in-place op. Guards are taken in
//! address order and once a storage, so that no two kernels wait for each other; results of ordinary ops are fresh
//! storages that no one else can name yet.
//!
//! Guards are taken on the calling thread, around the kernel, and never by what the kernel hands to the workers of the
//! pool ([`par`](bullet_kernels::cpu::par)): whoever waits for a guard waits for a kernel that can end without it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bullet_kernels::{ViewMut, cpu};
use bullet_ops::{DType, Layout, Meta};
use bullet_runtime::{Buffer, Device, DeviceKind};
use smallvec::SmallVec;

use crate::capture;
use crate::error::Result;

/// Memory of one allocation, shared by the tensors that view it.
#[derive(Debug)]
pub(crate) struct Storage {
    buffer: Buffer,
    access: RwLock<()>,
    version: AtomicU64,
    /// It belongs to someone who allows no writes.
    read_only: bool,
}

impl Storage {
    /// Memory for a tensor on `device`, with unspecified contents; they are valid elements.
    pub(crate) fn new(device: &Device, meta: Meta) -> Result<Arc<Storage>> {
        let buffer = device.alloc(meta.shape.numel() * meta.dtype.size())?;
        if let (DType::Bool, Some(base)) = (meta.dtype, buffer.host_ptr()) {
            // Memory comes from the pool with any bytes, but only 0 and 1 are bools, and kernels see results as slices
            // of them. 1, since a result that no one wrote is then more likely to be noticed.
            // SAFETY: the buffer is as long, and no one else knows it yet; bytes have no alignment.
            let mut bytes = unsafe { ViewMut::new(base, DType::U8, Layout::contiguous(meta.shape)) };
            cpu::copy::fill(&mut bytes, 1.0);
            if device.is_capturing() {
                // A replay finds there what used the memory before.
                let fill = move || {
                    cpu::copy::fill(&mut bytes, 1.0);
                    Ok(())
                };
                // SAFETY: the view is of this storage's memory.
                unsafe { capture::record(device, fill)? };
            }
        }
        Ok(Storage::around(buffer, false))
    }

    /// The storage of a buffer.
    pub(crate) fn around(buffer: Buffer, read_only: bool) -> Arc<Storage> {
        Arc::new(Storage { buffer, access: RwLock::new(()), version: AtomicU64::new(0), read_only })
    }

    /// Whether nothing may be written to it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// A storage that holds `data`.
    pub(crate) fn of(device: &Device, data: &[u8]) -> Result<Arc<Storage>> {
        let mut buffer = device.alloc(data.len())?;
        match buffer.host_ptr() {
            Some(base) if device.kind() == DeviceKind::Cpu && !device.is_capturing() => {
                // SAFETY: the buffer is as long, and no one else knows it yet.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), base, data.len()) };
            }
            _ => buffer.write(0, data)?,
        }
        Ok(Storage::around(buffer, false))
    }

    pub(crate) fn device(&self) -> &Device {
        self.buffer.device()
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Base address in the device's memory, which only kernels of that device may follow.
    pub(crate) fn base(&self) -> *mut u8 {
        // A host driver exposed the address of its allocation as a number; this is that pointer again.
        self.buffer.host_ptr().unwrap_or(std::ptr::without_provenance_mut(self.buffer.ptr().0 as usize))
    }

    /// How often the contents were overwritten since they were first computed.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, ()> {
        // A panic while holding a guard leaves numbers half-written, not memory unsafe.
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ()> {
        let guard = self.access.write().unwrap_or_else(PoisonError::into_inner);
        // Under the guard, so that whoever holds it knows which version the contents are.
        self.version.fetch_add(1, Ordering::AcqRel);
        guard
    }
}

#[expect(dead_code, reason = "guards act by being held")]
enum Guard<'a> {
    Read(RwLockReadGuard<'a, ()>),
    Write(RwLockWriteGuard<'a, ()>),
}

/// Guards of all storages that one kernel touches.
pub(crate) struct Guards<'a>(
    #[expect(dead_code, reason = "guards act by being held")] SmallVec<[Guard<'a>; 4]>,
);

impl<'a> Guards<'a> {
    /// Shared access to `reads`, and exclusive access to `writes`, whose versions grow by one.
    pub(crate) fn take(reads: &[&'a Storage], writes: &[&'a Storage]) -> Guards<'a> {
        let mut all: SmallVec<[(*const Storage, &'a Storage, bool); 4]> = SmallVec::new();
        all.extend(writes.iter().map(|&s| (std::ptr::from_ref(s), s, true)));
        all.extend(reads.iter().map(|&s| (std::ptr::from_ref(s), s, false)));
        // Stable, so that of a storage both read and written the exclusive guard comes first and is the one kept.
        all.sort_by_key(|&(address, ..)| address);
        all.dedup_by_key(|&mut (address, ..)| address);
        let guard = |(_, storage, write): (_, &'a Storage, bool)| {
            if write { Guard::Write(storage.write()) } else { Guard::Read(storage.read()) }
        };
        Guards(all.into_iter().map(guard).collect())
    }
}

#[cfg(test)]
mod tests {
    use bullet_ops::Shape;
    use bullet_runtime::DeviceOptions;

    use super::*;

    #[test]
    fn bools_are_valid_before_anyone_wrote_them() -> Result<()> {
        let options = DeviceOptions { poison: true, ..DeviceOptions::default() };
        let device = Device::with_options(Device::cpu().driver().clone(), options);
        for len in [0, 1, 1000, 300_000] {
            let storage = Storage::new(&device, Meta::new(Shape::new(&[len])?, DType::Bool))?;
            let mut bytes = vec![0xFF; len];
            storage.buffer().read(0, &mut bytes)?;
            assert!(bytes.iter().all(|&b| b <= 1));
        }
        Ok(())
    }
}
