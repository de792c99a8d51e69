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

use bullet_runtime::{Buffer, Device};
use smallvec::SmallVec;

use crate::error::Result;

/// Memory of one allocation, shared by the tensors that view it.
#[derive(Debug)]
pub(crate) struct Storage {
    buffer: Buffer,
    access: RwLock<()>,
    version: AtomicU64,
}

impl Storage {
    /// `bytes` of memory on `device`, with unspecified contents.
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Arc<Storage>> {
        let buffer = device.alloc(bytes)?;
        Ok(Arc::new(Storage { buffer, access: RwLock::new(()), version: AtomicU64::new(0) }))
    }

    /// A storage that holds `data`.
    pub(crate) fn of(device: &Device, data: &[u8]) -> Result<Arc<Storage>> {
        let mut buffer = device.alloc(data.len())?;
        buffer.write(0, data)?;
        Ok(Arc::new(Storage { buffer, access: RwLock::new(()), version: AtomicU64::new(0) }))
    }

    pub(crate) fn device(&self) -> &Device {
        self.buffer.device()
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Base address in host memory.
    pub(crate) fn host_ptr(&self) -> *mut u8 {
        self.buffer.host_ptr().expect("CPU kernels run on host memory only: `dispatch` checked the device")
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
        self.version.fetch_add(1, Ordering::AcqRel);
        self.access.write().unwrap_or_else(PoisonError::into_inner)
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
