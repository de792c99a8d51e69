//! [`Device`] and [`Buffer`]: what the layers above hold of a driver and its pool.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock};

use crate::driver::{DeviceKind, DevicePtr, Driver, ModuleId, Priority, StreamId};
use crate::error::{Error, Result};
use crate::graph::{Arena, Held};
use crate::host::HostDriver;
use crate::jit::{GpuInfo, Program};
use crate::options::DeviceOptions;
use crate::pool::{Block, MemoryStats, Pool, PoolOptions};
use crate::staging::Staging;
use crate::stream::{Event, Stream};

/// A handle to a device; clones are the same device, and equality is identity.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    kind: DeviceKind,
    host_memory: bool,
    /// A setting that was wrong; every allocation reports it, so that the way to a device cannot fail.
    misconfigured: Option<Error>,
    /// Streams without a handle that could not be waited for yet.
    orphans: Mutex<Vec<StreamId>>,
    /// Made at the first use.
    staging: Mutex<Option<Staging>>,
    /// See [`Device::extension`]; one of a type.
    extensions: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    // Before the driver: dropping the pool gives its memory back.
    pool: Pool,
    driver: Arc<dyn Driver>,
}

impl Device {
    /// The CPU. Its settings come from the environment (see [`DeviceOptions::from_env`]) at the first call; if they
    /// are wrong, allocations report that.
    pub fn cpu() -> Device {
        static CPU: OnceLock<Device> = OnceLock::new();
        let make = || {
            let driver = Arc::new(HostDriver::new());
            match DeviceOptions::from_env(DeviceKind::Cpu) {
                Ok(options) => Device::build(driver, options, None),
                Err(e) => Device::build(driver, DeviceOptions::default(), Some(e)),
            }
        };
        CPU.get_or_init(make).clone()
    }

    /// A device over this driver, with a pool of its own and no limit.
    pub fn with_driver(driver: Arc<dyn Driver>) -> Device {
        Device::with_options(driver, DeviceOptions::default())
    }

    /// A device over this driver, with a pool of its own.
    pub fn with_options(driver: Arc<dyn Driver>, options: DeviceOptions) -> Device {
        Device::build(driver, options, None)
    }

    fn build(driver: Arc<dyn Driver>, options: DeviceOptions, misconfigured: Option<Error>) -> Device {
        let info = driver.info();
        // A host that runs out of memory does not refuse, it kills; so a cache does not grow into the last fifth.
        let total = driver.memory().map_or(0, |m| m.total);
        let trim_above = (info.host_memory && total > 0).then(|| total / 5 * 4);
        let poison = options.poison.then_some(0xFF);
        let pool_options = PoolOptions { limit: options.memory_limit, trim_above, poison };
        Device(Arc::new(Inner {
            kind: info.kind,
            host_memory: info.host_memory,
            misconfigured,
            orphans: Mutex::new(Vec::new()),
            staging: Mutex::new(None),
            extensions: Mutex::new(Vec::new()),
            pool: Pool::new(Arc::clone(&driver), pool_options),
            driver,
        }))
    }

    /// The device of this name: `cpu`, `cuda` (the first GPU), `cuda:1`, or `auto` for the first GPU that can be used,
    /// else the CPU.
    ///
    /// # Errors
    /// If there is no such device, the name is none of these, or the settings in the environment are wrong.
    pub fn parse(name: &str) -> Result<Device> {
        let device = match name.trim() {
            "cpu" => Device::cpu(),
            "auto" => Device::auto()?.0,
            "cuda" => Device::cuda(0)?,
            other => match other.strip_prefix("cuda:").map(str::parse::<usize>) {
                Some(Ok(ordinal)) => Device::cuda(ordinal)?,
                Some(Err(_)) => {
                    return Err(Error::invalid(format!(
                        "'{name}' is not a device; after 'cuda:' expected the number of a GPU, such as cuda:0"
                    )));
                }
                None => {
                    return Err(Error::invalid(format!(
                        "'{name}' is not a device; expected cpu, cuda, cuda:N or auto"
                    )));
                }
            },
        };
        match &device.0.misconfigured {
            Some(e) => Err(e.clone()),
            None => Ok(device),
        }
    }

    /// Which device it is.
    pub fn kind(&self) -> DeviceKind {
        self.0.kind
    }

    /// The product's name.
    pub fn name(&self) -> &str {
        &self.0.driver.info().name
    }

    /// The driver below.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.0.driver
    }

    /// Memory for work on the default stream. The contents are unspecified, but initialised.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) if the device or the limit has no room, even with an empty cache.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.alloc_on(None, bytes)
    }

    pub(crate) fn alloc_on(&self, stream: Option<Stream>, bytes: usize) -> Result<Buffer> {
        if let Some(e) = &self.0.misconfigured {
            return Err(e.clone());
        }
        let id = stream.as_ref().map_or(StreamId::DEFAULT, Stream::id);
        let arena = Arena::current(self);
        let own = arena.as_ref().filter(|_| stream.is_none() && bytes > 0);
        let free = own.and_then(|arena| arena.take(bytes));
        let (block, counted) = match free {
            _ if bytes == 0 => (None, 0),
            Some((block, counted)) => (Some(Memory::Pool(block)), counted),
            None => (Some(Memory::Pool(self.0.pool.alloc(id, bytes)?)), bytes),
        };
        let others = Mutex::new(Vec::new());
        Ok(Buffer { block, len: bytes, counted, device: self.clone(), arena, stream, others })
    }

    /// Memory of someone else as a buffer of the default stream, which keeps `owner` until nothing uses the memory any
    /// more. It counts for no limit.
    ///
    /// # Safety
    /// Until `owner` is dropped, the `len` bytes at `ptr` are initialised memory that this device reaches, as the host
    /// does if the device is one with host memory. Whoever else uses them is ordered before and after the uses of this
    /// buffer.
    pub unsafe fn adopt(&self, ptr: DevicePtr, len: usize, owner: Box<dyn Send + Sync>) -> Buffer {
        let others = Mutex::new(Vec::new());
        let block = (len > 0).then_some(Memory::Adopted(Adopted { ptr, _owner: owner }));
        Buffer { block, len, counted: 0, device: self.clone(), arena: None, stream: None, others }
    }

    /// Returns a block to the pool.
    pub(crate) fn give_back(&self, Held { block, counted, stream, others }: Held) {
        let home = stream.as_ref().map_or(StreamId::DEFAULT, Stream::id);
        let ids = if others.is_empty() { None } else { Some(others.iter().map(Stream::id).collect()) };
        // The stream handles live until after this, so the pool never sees a destroyed stream.
        self.0.pool.free(block, counted, home, ids);
    }

    /// Facts about the GPU; `None` for a CPU.
    pub fn gpu(&self) -> Option<&GpuInfo> {
        self.0.driver.gpu()
    }

    /// Compiles a program for this GPU, or finds it in the disk cache, and loads it.
    ///
    /// # Errors
    /// There is no NVRTC, the source has errors (the message holds NVRTC's log), or this is not a GPU.
    pub fn load(&self, program: &Program<'_>) -> Result<ModuleId> {
        let image = self.0.driver.compile(program)?;
        self.0.driver.load_module(&image)
    }

    /// Loads PTX, which the driver compiles; it keeps what it made in a cache of its own.
    ///
    /// # Errors
    /// The driver refuses the text (the message holds its log), or this is not a GPU.
    pub fn load_ptx(&self, text: &str) -> Result<ModuleId> {
        let mut image = text.as_bytes().to_vec();
        image.push(0);
        self.0.driver.load_module(&image)
    }

    /// What another layer keeps for this device (its loaded kernels): made at the first call with this type.
    pub fn extension<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.extensions.lock().unwrap_or_else(|e| e.into_inner());
        let found = all.iter().find_map(|any| Arc::clone(any).downcast::<T>().ok());
        found.unwrap_or_else(|| {
            let new = Arc::new(make());
            all.push(new.clone());
            new
        })
    }

    /// A new stream.
    pub fn stream(&self, priority: Priority) -> Result<Stream> {
        self.0.bury_orphans();
        Stream::new(self, priority)
    }

    /// A new event; `timing` lets it measure.
    pub fn event(&self, timing: bool) -> Result<Event> {
        Event::new(self, timing)
    }

    /// Puts the event behind the work that is on the default stream now.
    ///
    /// # Errors
    /// The device refuses.
    pub fn record(&self, event: &Event) -> Result<()> {
        self.0.driver.record(event.id(), StreamId::DEFAULT)
    }

    /// Waits for all work on the default stream.
    ///
    /// # Errors
    /// Whatever went wrong in that work.
    pub fn synchronize(&self) -> Result<()> {
        self.0.driver.synchronize(StreamId::DEFAULT)
    }

    /// Waits for all work on the device, that of other libraries in this process too.
    ///
    /// # Errors
    /// Whatever went wrong in that work; the default stream is being captured.
    pub fn synchronize_all(&self) -> Result<()> {
        self.0.driver.synchronize_all()
    }

    /// Milliseconds that the device takes for what `f` enqueues on the default stream, by its own clock.
    ///
    /// # Errors
    /// Those of `f`; the work failed.
    pub fn time<E: From<Error>>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
        let (start, end) = (self.event(true)?, self.event(true)?);
        self.record(&start)?;
        f()?;
        self.record(&end)?;
        end.synchronize()?;
        Ok(end.elapsed_since(&start)?.as_secs_f64() * 1e3)
    }

    /// What its memory is used for.
    pub fn memory_stats(&self) -> MemoryStats {
        self.0.pool.stats()
    }

    /// Starts the peaks of [`memory_stats`](Device::memory_stats) anew from what is used now.
    pub fn reset_peak(&self) {
        self.0.pool.reset_peak();
    }

    /// Gives cached memory back to the system or driver; returns how many bytes. Waits for the work that used it.
    pub fn trim(&self) -> usize {
        self.trim_by(usize::MAX)
    }

    /// As [`Device::trim`], of at least so many bytes, if there are as many.
    pub fn trim_by(&self, bytes: usize) -> usize {
        self.0.pool.trim(bytes)
    }

    /// Destroys a stream that has no handle any more, after its work is done.
    pub(crate) fn bury(&self, stream: StreamId) {
        if !self.0.bury(stream) {
            self.0.orphans.lock().unwrap_or_else(|e| e.into_inner()).push(stream);
        }
    }
}

impl Inner {
    /// Waits for the stream and destroys it. False if it could not be waited for: this is one of its own closures
    /// dropping the last handle, say.
    fn bury(&self, stream: StreamId) -> bool {
        let driver = &self.driver;
        // Blocks that the stream used go to others only once it is idle. Its errors stay unread: nobody is left to ask.
        let idle = driver.create_event(false).and_then(|event| {
            let idle = driver.record(event, stream).and_then(|()| driver.synchronize_event(event));
            // SAFETY: made here and not used again. Failing to destroy it leaks it, which harms nobody.
            let _ = unsafe { driver.destroy_event(event) };
            idle
        });
        if idle.is_ok() {
            self.pool.retire(stream);
            // SAFETY: there is no handle: buffers hold one, and the pool has just forgotten the stream.
            let _ = unsafe { driver.destroy_stream(stream) };
        }
        idle.is_ok()
    }

    fn bury_orphans(&self) {
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap_or_else(|e| e.into_inner()));
        let left: Vec<StreamId> = orphans.into_iter().filter(|&stream| !self.bury(stream)).collect();
        self.orphans.lock().unwrap_or_else(|e| e.into_inner()).extend(left);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.bury_orphans();
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// Where a buffer's memory is from.
enum Memory {
    Pool(Block),
    Adopted(Adopted),
}

/// Memory that is someone else's.
struct Adopted {
    ptr: DevicePtr,
    _owner: Box<dyn Send + Sync>,
}

impl Memory {
    fn ptr(&self) -> DevicePtr {
        match self {
            Memory::Pool(block) => block.ptr,
            Memory::Adopted(adopted) => adopted.ptr,
        }
    }
}

/// Memory of a device; goes back to the device's pool when dropped.
///
/// **Streams.** It belongs to the stream it was allocated for. Work on another stream that uses it must be ordered by
/// events, and [`record_use`](Buffer::record_use) must be told, so that the memory is not reused too early.
pub struct Buffer {
    /// `None` if the length is 0, and after drop took it.
    block: Option<Memory>,
    len: usize,
    /// The bytes that the pool counts for the block.
    counted: usize,
    device: Device,
    /// The graph under whose capture it was allocated.
    arena: Option<Arc<Arena>>,
    /// The stream it was allocated for; `None` for the default one.
    stream: Option<Stream>,
    /// Other streams that use it.
    others: Mutex<Vec<Stream>>,
}

/// Where buffers of no bytes point to.
const NOWHERE: DevicePtr = DevicePtr(256);

impl Buffer {
    /// The bytes asked for; more than that must not be used.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The address of the first byte; aligned, and never null.
    pub fn ptr(&self) -> DevicePtr {
        self.block.as_ref().map_or(NOWHERE, Memory::ptr)
    }

    /// The address as a pointer, if the host can read and write it; aligned, and never null.
    pub fn host_ptr(&self) -> Option<*mut u8> {
        // The driver exposed the address of its allocation as a number; this is that pointer again.
        self.device.0.host_memory.then(|| std::ptr::with_exposed_provenance_mut(self.ptr().0 as usize))
    }

    /// Declares that work on `stream` uses this buffer.
    pub fn record_use(&self, stream: &Stream) {
        if self.stream.as_ref().map(Stream::id) == Some(stream.id()) {
            return;
        }
        let mut others = self.others.lock().unwrap_or_else(|e| e.into_inner());
        if !others.iter().any(|other| other.id() == stream.id()) {
            others.push(stream.clone());
        }
    }

    /// Copies `data` in at `offset`, after all work that uses the buffer, and waits for that.
    ///
    /// # Errors
    /// If it does not fit, or earlier work failed.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        self.put(offset, data)
    }

    /// As [`write`](Buffer::write), by who orders the users of the buffer by other means than holding it alone.
    ///
    /// # Errors
    /// As [`write`](Buffer::write).
    pub fn put(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.check(offset, data.len(), "write")?;
        if data.is_empty() {
            return Ok(());
        }
        self.wait_for_users()?;
        let (driver, stream) = (&self.device.0.driver, self.home());
        // SAFETY: in bounds by the check; other streams have finished with the buffer, and we wait before `data` can go.
        unsafe { driver.copy_to_device(stream, self.ptr().offset(offset), data.as_ptr(), data.len())? };
        driver.synchronize(stream)
    }

    /// Copies `data` in at `offset` in the order of the default stream, to which this buffer belongs, without waiting:
    /// `data` may be changed at once.
    ///
    /// # Errors
    /// If it does not fit, the buffer belongs to another stream, or earlier work failed.
    pub fn send(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.check(offset, data.len(), "write")?;
        if self.stream.is_some() {
            return Err(Error::invalid("only buffers of the default stream can be sent to; use write"));
        }
        if self.device.0.driver.is_capturing(StreamId::DEFAULT) {
            return Err(Error::invalid(
                "host data cannot be sent in a capture: a replay would send what lies in its place by then",
            ));
        }
        let mut staging = self.device.0.staging.lock().unwrap_or_else(|e| e.into_inner());
        let staging = match &mut *staging {
            Some(staging) => staging,
            empty => empty.insert(Staging::new(&self.device.0.driver)?),
        };
        for (i, piece) in data.chunks(Staging::MOST).enumerate() {
            // SAFETY: in bounds by the check; the buffer is one of the default stream.
            unsafe { staging.send(self.ptr().offset(offset + i * Staging::MOST), piece)? };
        }
        Ok(())
    }

    /// Copies bytes from `offset` on out, after all work that uses the buffer, and waits for that.
    ///
    /// # Errors
    /// If there are not as many, or earlier work failed.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        self.check(offset, out.len(), "read")?;
        if out.is_empty() {
            return Ok(());
        }
        self.wait_for_users()?;
        let (driver, stream) = (&self.device.0.driver, self.home());
        // SAFETY: in bounds by the check; other streams have finished with the buffer, and we wait before `out` can go.
        unsafe { driver.copy_to_host(stream, out.as_mut_ptr(), self.ptr().offset(offset), out.len())? };
        driver.synchronize(stream)
    }

    /// Copies all of `src` (which may be on another device) to the start of this buffer, and waits for that.
    ///
    /// # Errors
    /// If it does not fit, or earlier work failed.
    pub fn copy_from(&mut self, src: &Buffer) -> Result<()> {
        self.check(0, src.len, "write")?;
        if src.is_empty() {
            return Ok(());
        }
        if self.device != src.device {
            let mut bytes = vec![0; src.len];
            src.read(0, &mut bytes)?;
            return self.write(0, &bytes);
        }
        self.wait_for_users()?;
        src.wait_for_users()?;
        let driver = &self.device.0.driver;
        if src.home() != self.home() {
            driver.synchronize(src.home())?;
        }
        // SAFETY: both have the bytes, are different buffers because one is borrowed for writing, and their other
        // users have finished; we wait before either can go.
        unsafe { driver.copy(self.home(), self.ptr(), src.ptr(), src.len)? };
        driver.synchronize(self.home())
    }

    fn home(&self) -> StreamId {
        self.stream.as_ref().map_or(StreamId::DEFAULT, Stream::id)
    }

    /// Waits for other streams; where the host can read the memory, also for its own, so that a wait that cannot
    /// succeed fails before a copy from or to the caller's memory is under way.
    fn wait_for_users(&self) -> Result<()> {
        let others = self.others.lock().unwrap_or_else(|e| e.into_inner()).clone();
        others.iter().try_for_each(Stream::synchronize)?;
        if self.device.0.host_memory { self.device.0.driver.synchronize(self.home()) } else { Ok(()) }
    }

    fn check(&self, offset: usize, bytes: usize, verb: &str) -> Result<()> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "cannot {verb} {bytes} bytes at offset {offset} of a buffer of {} bytes",
            self.len
        )))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let block = match self.block.take() {
            None => return,
            Some(Memory::Pool(block)) => block,
            Some(Memory::Adopted(owned)) => {
                if Arena::current(&self.device).is_some() {
                    // What a capture may have used is used again at every replay.
                    std::mem::forget(owned);
                    return;
                }
                // Nobody says when its memory is used again. An error here is of work that someone else will ask for.
                let _ = self.wait_for_users().and_then(|()| self.device.synchronize());
                return;
            }
        };
        let others = std::mem::take(self.others.get_mut().unwrap_or_else(|e| e.into_inner()));
        let held = Held { block, counted: self.counted, stream: self.stream.take(), others };
        // What a capture may have used stays with it, though it was allocated before.
        let left = match self.arena.take().or_else(|| Arena::current(&self.device)) {
            Some(arena) => arena.put(held),
            None => Some(held),
        };
        if let Some(held) = left {
            self.device.give_back(held);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:?} on {})", self.len, self.ptr(), self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_fail_allocations_not_the_device() {
        let wrong = Error::invalid("a setting is wrong");
        let device =
            Device::build(Arc::new(HostDriver::new()), DeviceOptions::default(), Some(wrong.clone()));
        assert_eq!(device.alloc(8).unwrap_err(), wrong);
        assert_eq!(device.to_string(), "cpu");
    }

    #[test]
    fn names_parse() {
        assert_eq!(Device::parse("cpu").unwrap(), Device::cpu());
        assert_eq!(Device::parse("auto").unwrap(), Device::auto().unwrap().0);
        match crate::gpus() {
            Ok(_) => assert_eq!(Device::parse("cuda:0"), Device::parse("cuda")),
            Err(missing) => {
                assert!(
                    [crate::ErrorKind::DriverMissing, crate::ErrorKind::NoDevice].contains(&missing.kind)
                );
                for name in ["cuda", "cuda:3"] {
                    assert_eq!(Device::parse(name).unwrap_err(), missing);
                }
            }
        }
        for name in ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda0", "cpu:0"] {
            let e = Device::parse(name).unwrap_err();
            assert_eq!(e.kind, crate::ErrorKind::InvalidArgument, "{name}");
        }
    }
}
