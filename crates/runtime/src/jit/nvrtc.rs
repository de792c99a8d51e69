//! NVRTC, NVIDIA's run-time compiler: one loaded library, what it can compile for, and compiling.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use libloading::Library;

use super::{Program, Tier};
use crate::error::{Error, ErrorKind, Result};
use crate::search;

/// What a program is compiled to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Machine code for this architecture, such as `sm_90a`.
    Cubin(String),
    /// PTX for this virtual architecture, such as `compute_90`, which the driver compiles on.
    Ptx(String),
}

impl Target {
    /// The best that a compiler for these architectures (90 for `sm_90`) can do for a GPU; `None` if it knows none that
    /// runs there.
    ///
    /// Machine code runs on later minor versions of its capability, PTX on any later device. `version` is the
    /// compiler's: `sm_90a` came with 12.0.
    pub fn choose(capability: (u32, u32), tier: Tier, archs: &[u32], version: (u32, u32)) -> Option<Target> {
        let own = capability.0 * 10 + capability.1;
        let older = archs.iter().copied().filter(|&arch| arch <= own).max()?;
        match () {
            () if tier == Tier::Sm90a => {
                (older == own && version >= (12, 0)).then(|| Target::Cubin("sm_90a".into()))
            }
            () if older / 10 == capability.0 => Some(Target::Cubin(format!("sm_{older}"))),
            () => Some(Target::Ptx(format!("compute_{older}"))),
        }
    }

    /// The architecture as NVRTC is told it.
    pub fn arch(&self) -> &str {
        match self {
            Target::Cubin(arch) | Target::Ptx(arch) => arch,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.arch())
    }
}

/// The first version that is known to take `-minimal`.
const MINIMAL: (u32, u32) = (12, 9);

type NvrtcProgram = *mut c_void;

/// NVRTC's functions; each returns 0 for success.
#[derive(Clone, Copy)]
struct Api {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    arch_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut NvrtcProgram,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut NvrtcProgram) -> c_int,
    compile: unsafe extern "C" fn(NvrtcProgram, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(NvrtcProgram, *mut usize) -> c_int,
    log: unsafe extern "C" fn(NvrtcProgram, *mut c_char) -> c_int,
    ptx_size: unsafe extern "C" fn(NvrtcProgram, *mut usize) -> c_int,
    ptx: unsafe extern "C" fn(NvrtcProgram, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(NvrtcProgram, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(NvrtcProgram, *mut c_char) -> c_int,
}

impl Api {
    fn load(library: &Library) -> std::result::Result<Api, libloading::Error> {
        macro_rules! get {
            ($name:literal) => {
                // SAFETY: NVRTC's documented signature of this function is the field's type.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        Ok(Api {
            version: get!("nvrtcVersion"),
            arch_count: get!("nvrtcGetNumSupportedArchs"),
            archs: get!("nvrtcGetSupportedArchs"),
            error_string: get!("nvrtcGetErrorString"),
            create: get!("nvrtcCreateProgram"),
            destroy: get!("nvrtcDestroyProgram"),
            compile: get!("nvrtcCompileProgram"),
            log_size: get!("nvrtcGetProgramLogSize"),
            log: get!("nvrtcGetProgramLog"),
            ptx_size: get!("nvrtcGetPTXSize"),
            ptx: get!("nvrtcGetPTX"),
            cubin_size: get!("nvrtcGetCUBINSize"),
            cubin: get!("nvrtcGetCUBIN"),
        })
    }
}

/// A loaded NVRTC. It stays loaded until the process ends.
pub struct Nvrtc {
    api: Api,
    path: PathBuf,
    version: (u32, u32),
    archs: Vec<u32>,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nvrtc({}.{} at {})", self.version.0, self.version.1, self.path.display())
    }
}

impl Nvrtc {
    /// Loads the library at `path`, or of this name wherever the system finds it.
    ///
    /// # Errors
    /// [`JitMissing`](ErrorKind::JitMissing) if it cannot be loaded or is older than 11.2.
    pub fn open(path: &Path) -> Result<Nvrtc> {
        let wrong = |why: String| Error::jit_missing(format!("{}: {why}", path.display()));
        // It looks for its builtins by their name alone, and finds what is loaded already.
        for builtins in search::builtins(path) {
            // SAFETY: loading NVIDIA's library runs its initialisers. Without it NVRTC says itself what it lacks.
            if let Ok(library) = unsafe { Library::new(builtins) } {
                let _ = ManuallyDrop::new(library);
            }
        }
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.map_err(|e| wrong(e.to_string()))?;
        let library = ManuallyDrop::new(library);
        let api =
            Api::load(&library).map_err(|e| wrong(format!("this is no NVRTC of 11.2 or later: {e}")))?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the pointers are to live integers.
        let failed =
            unsafe { (api.version)(&mut major, &mut minor) != 0 || (api.arch_count)(&mut count) != 0 };
        let mut archs = vec![0 as c_int; count.max(0) as usize];
        // SAFETY: NVRTC writes as many as it has just said.
        if failed || unsafe { (api.archs)(archs.as_mut_ptr()) } != 0 {
            return Err(wrong("it does not say what it can compile for".into()));
        }
        let archs = archs.into_iter().map(|arch| arch.max(0) as u32).collect();
        Ok(Nvrtc { api, path: path.to_path_buf(), version: (major as u32, minor as u32), archs })
    }

    /// All that can be loaded, the best place first: `BULLET_NVRTC` alone if it is set (paths of libraries or folders,
    /// separated as in `PATH`), else Python's wheels and the system's.
    ///
    /// # Errors
    /// `BULLET_NVRTC` names none.
    pub fn installed() -> Result<Vec<Nvrtc>> {
        let candidates = search::nvrtc()?;
        Ok(candidates.iter().filter_map(|path| Nvrtc::open(path).ok()).collect())
    }

    /// Where it was found: a path, or a name that the system resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The architectures it can compile for: 90 for `sm_90`.
    pub fn archs(&self) -> &[u32] {
        &self.archs
    }

    /// The options that a program is compiled with for a target. Never fast mathematics: results must agree with the
    /// CPU's.
    pub fn options(&self, program: &Program<'_>, target: &Target) -> Vec<String> {
        let arch = format!("--gpu-architecture={target}");
        let mut options =
            [arch.as_str(), "-std=c++14", "-default-device", "--fmad=true"].map(String::from).to_vec();
        if program.minimal && self.version >= MINIMAL {
            options.push("-minimal".into());
        }
        options
    }

    /// Compiles a program: a cubin, or PTX ending in a 0 byte.
    ///
    /// # Errors
    /// [`CompileFailed`](ErrorKind::CompileFailed) with NVRTC's log, which has line numbers.
    pub fn compile(&self, program: &Program<'_>, target: &Target) -> Result<Vec<u8>> {
        let wrong = |what: &str| {
            Error::new(
                ErrorKind::CompileFailed,
                format!("cannot compile '{}' for {target}: {what}", program.name),
            )
        };
        let text =
            |text: &str| CString::new(text).map_err(|_| wrong("there is a 0 byte in its name or source"));
        let (name, source) = (text(&format!("{}.cu", program.name))?, text(program.source)?);
        let mut handle = null_mut();
        // SAFETY: both strings end in 0 and are copied; there are no headers.
        let created = unsafe {
            (self.api.create)(&mut handle, source.as_ptr(), name.as_ptr(), 0, null_mut(), null_mut())
        };
        if created != 0 {
            return Err(wrong(&self.words(created)));
        }
        let job = Job { nvrtc: self, handle };
        let options: Vec<CString> =
            self.options(program, target).iter().map(|o| text(o)).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program was created just now; the options live until after the call.
        let compiled = unsafe { (self.api.compile)(handle, pointers.len() as c_int, pointers.as_ptr()) };
        if compiled != 0 {
            let log = job.bytes(self.api.log_size, self.api.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches(['\0', '\n', ' ']);
            return Err(wrong(&format!("{}\n{log}", self.words(compiled))));
        }
        let image = match target {
            Target::Cubin(_) => job.bytes(self.api.cubin_size, self.api.cubin),
            Target::Ptx(_) => job.bytes(self.api.ptx_size, self.api.ptx),
        };
        image.map_err(|code| wrong(&self.words(code)))
    }

    fn words(&self, code: c_int) -> String {
        // SAFETY: NVRTC returns a constant string for any number.
        let text = unsafe { (self.api.error_string)(code) };
        if text.is_null() {
            return format!("NVRTC error {code}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// A program that NVRTC holds.
struct Job<'a> {
    nvrtc: &'a Nvrtc,
    handle: NvrtcProgram,
}

impl Job<'_> {
    /// What a pair of functions gives: how long it is, and the bytes.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(NvrtcProgram, *mut usize) -> c_int,
        get: unsafe extern "C" fn(NvrtcProgram, *mut c_char) -> c_int,
    ) -> std::result::Result<Vec<u8>, c_int> {
        let mut len = 0;
        // SAFETY: the program lives as long as this; the pointer is to a live integer.
        match unsafe { size(self.handle, &mut len) } {
            0 => {}
            code => return Err(code),
        }
        let mut bytes = vec![0u8; len];
        // SAFETY: NVRTC writes as many bytes as it has just said.
        match unsafe { get(self.handle, bytes.as_mut_ptr().cast()) } {
            0 => Ok(bytes),
            code => Err(code),
        }
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        // SAFETY: created by NVRTC and destroyed once.
        unsafe { (self.nvrtc.api.destroy)(&mut self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA_11: &[u32] = &[35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90];
    const CUDA_13: &[u32] = &[75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];

    #[test]
    fn the_target_runs_on_the_device() {
        let choose = |capability, archs: &[u32], version| {
            Target::choose(capability, Tier::of(capability).unwrap(), archs, version).map(|t| t.to_string())
        };
        let some = |arch: &str| Some(arch.to_string());
        assert_eq!(choose((3, 5), CUDA_11, (11, 8)), some("sm_35"));
        assert_eq!(choose((3, 5), CUDA_13, (13, 0)), None);
        assert_eq!(choose((8, 9), &CUDA_11[..12], (11, 2)), some("sm_80"));
        assert_eq!(choose((9, 0), CUDA_13, (13, 0)), some("sm_90a"));
        assert_eq!(choose((9, 0), CUDA_11, (11, 8)), None);
        assert_eq!(Target::choose((9, 0), Tier::Sm80, CUDA_11, (11, 8)), Some(Target::Cubin("sm_90".into())));
        assert_eq!(choose((12, 0), CUDA_13, (13, 0)), some("sm_120"));
        assert_eq!(
            Target::choose((12, 0), Tier::Sm80, CUDA_11, (11, 8)),
            Some(Target::Ptx("compute_90".into()))
        );
    }
}
