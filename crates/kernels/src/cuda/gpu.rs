//! [`Gpu`]: loaded kernels of a device, launches, scratch memory.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bullet_ops::{DType, Layout};
use bullet_runtime::jit::{GpuInfo, Program, Tier};
use bullet_runtime::{
    Buffer, Device, DevicePtr, FunctionId, KernelArgs, Launch, LaunchConfig, ModuleId, Result, StreamId,
};

use super::fault::{Explain, Faults};

/// What the sources begin with.
const PRELUDE: &str = include_str!("../../cuda/prelude.cuh");

/// A definition that turns a source into one unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Define {
    /// `typedef <device type> NAME;`
    Type(&'static str, DType),
    /// `#define NAME value`
    Int(&'static str, i64),
}

/// A source with its definitions: what is compiled to one module.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The source's name, without extension: `rows`.
    pub name: &'static str,
    /// Its text, by `include_str!`.
    pub source: &'static str,
    /// What it is specialised by, in a fixed order.
    pub defines: Vec<Define>,
    /// The lowest tier whose code it uses.
    pub since: Tier,
}

impl PartialEq for Unit {
    /// Sources are constants: the same text at another address is only compiled once more.
    fn eq(&self, other: &Unit) -> bool {
        std::ptr::eq(self.source, other.source) && self.defines == other.defines
    }
}

impl Eq for Unit {}

impl Unit {
    /// Its whole text for a tier, as NVRTC gets it.
    pub fn text(&self, tier: Tier) -> String {
        assemble(tier, &self.defines, self.name, self.source)
    }

    /// A hash for the lookup at every launch, which must not read the source: FNV-1a over words.
    fn key(&self, entry: &'static str) -> u64 {
        let mix = |h: u64, word: u64| (h ^ word).wrapping_mul(0x0100_0000_01b3);
        let start = mix(self.source.as_ptr() as u64, entry.as_ptr() as u64);
        self.defines.iter().fold(start, |h, define| match *define {
            Define::Type(name, dtype) => mix(mix(h, name.as_ptr() as u64), dtype as u64),
            Define::Int(name, value) => mix(mix(h, name.as_ptr() as u64), value as u64),
        })
    }
}

/// The device type of a dtype.
pub(crate) fn device_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "boolean",
        DType::U8 => "u8",
        DType::U16 => "u16",
        DType::U32 => "u32",
        DType::U64 => "u64",
        DType::I8 => "i8",
        DType::I16 => "i16",
        DType::I32 => "i32",
        DType::I64 => "i64",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F32 => "float",
        DType::F64 => "double",
    }
}

/// The whole text of a translation unit: tier, prelude, definitions, source.
pub(crate) fn assemble(tier: Tier, defines: &[Define], name: &str, source: &str) -> String {
    let mut text = format!("#define TIER {}\n{PRELUDE}\n", tier.number());
    for define in defines {
        // Writing to a string cannot fail.
        let _ = match *define {
            Define::Type(name, dtype) => writeln!(text, "typedef {} {name};", device_type(dtype)),
            Define::Int(name, value) => writeln!(text, "#define {name} ({value})"),
        };
    }
    let _ = writeln!(text, "#line 1 \"{name}.cu\"");
    text + source
}

/// An entry point that was asked for before.
struct Loaded {
    unit: Unit,
    entry: &'static str,
    function: FunctionId,
}

/// A module, once it is loaded; locked while it is compiled.
type ModuleCell = Arc<Mutex<Option<ModuleId>>>;

/// The loaded kernels of one device.
pub struct Gpu {
    device: Device,
    info: GpuInfo,
    modules: Mutex<Vec<(Unit, ModuleCell)>>,
    functions: RwLock<HashMap<u64, Vec<Loaded>>>,
    generated: RwLock<HashMap<Box<[u8]>, FunctionId>>,
    faults: Faults,
    /// Kernels wait for the one before by themselves (`begin_kernel` of the prelude), so launches may overlap.
    overlaps: bool,
}

impl Gpu {
    /// The kernels of `device`, which is a GPU.
    ///
    /// # Errors
    /// Out of memory.
    ///
    /// # Panics
    /// If the device is not a GPU.
    pub fn of(device: &Device) -> Result<Arc<Gpu>> {
        let cell = device.extension(|| Mutex::new(None::<Arc<Gpu>>));
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = &*cell {
            return Ok(gpu.clone());
        }
        let info = *device.gpu().expect("only a GPU has CUDA kernels");
        let faults = Faults::new(device.driver())?;
        let gpu = Arc::new(Gpu {
            device: device.clone(),
            info,
            modules: Mutex::default(),
            functions: RwLock::default(),
            generated: RwLock::default(),
            faults,
            overlaps: info.tier >= Tier::Sm90a,
        });
        *cell = Some(gpu.clone());
        Ok(gpu)
    }

    /// Facts for choosing code and launch shapes.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// The device itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where kernels report values that make no sense.
    pub(crate) fn fault(&self) -> DevicePtr {
        self.faults.ptr()
    }

    /// Where kernels of others report faults, and the first of so many codes for them; they are known as long as anybody else
    /// has `explain`.
    ///
    /// # Errors
    /// There are no more codes.
    pub fn report_faults(&self, count: u32, explain: Arc<dyn Explain>) -> Result<(DevicePtr, u32)> {
        Ok((self.faults.ptr(), self.faults.register(count, explain)?))
    }

    /// What kernels found wrong in the values they were given, since the last call. Only complete after a wait for the
    /// device.
    ///
    /// # Errors
    /// An index out of range, in NumPy's words; logits that no token can be drawn from; what a kernel of others reported.
    pub fn check_faults(&self) -> Result<()> {
        self.faults.take(&self.device).map_or(Ok(()), Err)
    }

    /// The entry point of a unit; compiled and loaded at the first call.
    pub(crate) fn function(&self, unit: &Unit, entry: &'static str) -> Result<FunctionId> {
        let key = unit.key(entry);
        let of = |l: &Loaded| (l.unit == *unit && l.entry == entry).then_some(l.function);
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(f) = functions.get(&key).and_then(|all| all.iter().find_map(of)) {
            return Ok(f);
        }
        drop(functions);
        let function = self.device.driver().function(self.module(unit)?, entry)?;
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.entry(key).or_default().push(Loaded { unit: unit.clone(), entry, function });
        Ok(function)
    }

    /// The module of a unit. Other units are compiled meanwhile, if other threads ask for them.
    fn module(&self, unit: &Unit) -> Result<ModuleId> {
        let cell = {
            let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
            match modules.iter().find(|(of, _)| of == unit) {
                Some((_, cell)) => cell.clone(),
                None => {
                    modules.push((unit.clone(), Arc::default()));
                    modules[modules.len() - 1].1.clone()
                }
            }
        };
        let mut module = cell.lock().unwrap_or_else(PoisonError::into_inner);
        match *module {
            Some(id) => Ok(id),
            None => {
                let text = unit.text(self.info.tier);
                let id = self.device.load(&Program { name: unit.name, source: &text, minimal: false })?;
                Ok(*module.insert(id))
            }
        }
    }

    /// The entry point `name` of a source that is written at run time; `key` tells such sources apart.
    pub(crate) fn generated(
        &self,
        key: &[u8],
        name: &str,
        write: impl FnOnce() -> String,
    ) -> Result<FunctionId> {
        if let Some(&f) = self.generated.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(f);
        }
        let text = assemble(self.info.tier, &[], name, &write());
        let module = self.device.load(&Program { name, source: &text, minimal: false })?;
        let f = self.device.driver().function(module, name)?;
        self.generated.write().unwrap_or_else(PoisonError::into_inner).insert(key.into(), f);
        Ok(f)
    }

    /// Launches with `shared` bytes of dynamic shared memory; nothing happens if the grid is empty.
    ///
    /// # Safety
    /// The arguments are those of the entry point, and what they point to has the elements that it uses.
    pub(crate) unsafe fn launch(
        &self,
        function: FunctionId,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        args: &KernelArgs,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let config = LaunchConfig {
            grid,
            block: [block, 1, 1],
            shared_bytes: shared,
            overlaps: self.overlaps,
            ..LaunchConfig::default()
        };
        // SAFETY: by the caller's promise.
        unsafe { self.launch_shaped(function, config, args) }
    }

    /// As [`Gpu::launch`], for a cooperative launch or one of clusters. The grid is not empty.
    ///
    /// # Safety
    /// As [`Gpu::launch`].
    pub(crate) unsafe fn launch_shaped(
        &self,
        function: FunctionId,
        config: LaunchConfig,
        args: &KernelArgs,
    ) -> Result<()> {
        let launch = Launch::Kernel { function, config, args };
        // SAFETY: by the caller's promise; operands live in pool memory that is reused in stream order.
        unsafe { self.device.driver().launch(StreamId::DEFAULT, launch) }
    }

    /// Memory for use by launches from now on; drop it after the last of them.
    pub(crate) fn scratch(&self, bytes: usize) -> Result<Buffer> {
        self.device.alloc(bytes)
    }

    /// Sets bytes of device memory, in stream order.
    ///
    /// # Safety
    /// The range is memory of this device that nothing uses outside the default stream.
    pub(crate) unsafe fn fill(&self, at: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        unsafe { self.device.driver().fill(StreamId::DEFAULT, at, value, bytes) }
    }
}

/// Blocks for `n` items of `each` a block, not more than `most`: kernels walk the rest in a grid-stride loop.
pub(crate) fn blocks(n: usize, each: usize, most: usize) -> u32 {
    n.div_ceil(each).min(most) as u32
}

/// Appends `struct Layout` of the prelude.
pub(crate) fn push_layout(args: &mut KernelArgs, layout: &Layout) {
    let mut bytes = [0u8; 136];
    bytes[..4].copy_from_slice(&(layout.shape.rank() as i32).to_ne_bytes());
    for (d, (&len, &stride)) in layout.shape.iter().zip(layout.strides()).enumerate() {
        bytes[8 + 8 * d..16 + 8 * d].copy_from_slice(&(len as i64).to_ne_bytes());
        bytes[72 + 8 * d..80 + 8 * d].copy_from_slice(&(stride as i64).to_ne_bytes());
    }
    args.push_bytes(&bytes, 8);
}

/// The arguments of a launch, in order: numbers, [`DevicePtr`]s.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {{
        let mut args = bullet_runtime::KernelArgs::new();
        $(args.push($arg);)*
        args
    }};
}
pub(crate) use args;
