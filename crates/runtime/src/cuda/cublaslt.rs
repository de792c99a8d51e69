//! cuBLASLt, NVIDIA's library of matrix products: found as NVRTC is, and loaded by who has a product that is worth it.
//!
//! Loading it takes a tenth of a second and hundreds of megabytes, so [`Cublaslt::locate`] only looks at files. The few
//! functions that are needed are bound here: cudarc's bindings search by names of their own and panic where there is no
//! library. Their signatures and the numbers below are the same in cuBLASLt 11 to 13.
//!
//! The library sees column-major matrices. A row-major result is the transposed result of the operands exchanged.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::str::FromStr;
use std::sync::Arc;

use libloading::Library;

use super::library;
use crate::driver::{DevicePtr, Driver, StreamId};
use crate::error::{Error, ErrorKind, Result};
use crate::search;

/// The type of elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Element {
    F16,
    BF16,
    F32,
    F64,
}

/// `d = op(a) op(b) + bias`, for each of a batch; everything column-major, sizes and distances in elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    /// Of both operands.
    pub element: Element,
    /// Of the result and the bias. Sums are in f32, of f64 in f64.
    pub result: Element,
    /// Whether f32 operands may be rounded to tf32.
    pub tf32: bool,
    /// Rows and columns of the result.
    pub size: (usize, usize),
    /// What is summed over.
    pub k: usize,
    /// Whether `op` transposes a, b.
    pub transposed: [bool; 2],
    /// From column to column of a, b; columns of d follow each other.
    pub lines: [usize; 2],
    /// Number of products.
    pub batch: usize,
    /// From product to product, of a, b, d.
    pub apart: [usize; 3],
    /// Whether a vector with an element for each row is added.
    pub bias: bool,
}

/// One of the library's ways to compute an operation; of use to the same version only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Algorithm {
    words: [u64; 8],
    /// Bytes of memory that it needs.
    pub workspace: usize,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.workspace)?;
        self.words.iter().try_for_each(|word| write!(f, ".{word:x}"))
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Algorithm, ()> {
        let mut parts = text.split('.');
        let workspace = parts.next().and_then(|w| w.parse().ok()).ok_or(())?;
        let mut words = [0; 8];
        for word in &mut words {
            *word = parts.next().and_then(|w| u64::from_str_radix(w, 16).ok()).ok_or(())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Algorithm { words, workspace }) }
    }
}

type Handle = *mut c_void;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heuristic {
    algorithm: [u64; 8],
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

const NO_HEURISTIC: Heuristic =
    Heuristic { algorithm: [0; 8], workspace: 0, state: -1, waves: 0.0, reserved: [0; 4] };

type Set = unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;

/// The library's functions; each but `version` returns 0 for success.
#[derive(Clone, Copy)]
struct Api {
    version: unsafe extern "C" fn() -> usize,
    create: unsafe extern "C" fn(*mut Handle) -> c_int,
    operation_create: unsafe extern "C" fn(*mut Handle, c_int, c_int) -> c_int,
    operation_set: Set,
    operation_destroy: Destroy,
    layout_create: unsafe extern "C" fn(*mut Handle, c_int, u64, u64, i64) -> c_int,
    layout_set: Set,
    layout_destroy: Destroy,
    preference_create: unsafe extern "C" fn(*mut Handle) -> c_int,
    preference_set: Set,
    preference_destroy: Destroy,
    #[allow(clippy::type_complexity)]
    heuristic: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        c_int,
        *mut Heuristic,
        *mut c_int,
    ) -> c_int,
    #[allow(clippy::type_complexity)]
    check: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        *const [u64; 8],
        *mut Heuristic,
    ) -> c_int,
    #[allow(clippy::type_complexity)]
    matmul: unsafe extern "C" fn(
        Handle,
        Handle,
        *const c_void,
        u64,
        Handle,
        u64,
        Handle,
        *const c_void,
        u64,
        Handle,
        u64,
        Handle,
        *const [u64; 8],
        u64,
        usize,
        *mut c_void,
    ) -> c_int,
}

impl Api {
    fn load(library: &Library) -> std::result::Result<Api, libloading::Error> {
        macro_rules! get {
            ($name:literal) => {
                // SAFETY: the documented signature of this function is the field's type; device addresses are numbers here.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        Ok(Api {
            version: get!("cublasLtGetVersion"),
            create: get!("cublasLtCreate"),
            operation_create: get!("cublasLtMatmulDescCreate"),
            operation_set: get!("cublasLtMatmulDescSetAttribute"),
            operation_destroy: get!("cublasLtMatmulDescDestroy"),
            layout_create: get!("cublasLtMatrixLayoutCreate"),
            layout_set: get!("cublasLtMatrixLayoutSetAttribute"),
            layout_destroy: get!("cublasLtMatrixLayoutDestroy"),
            preference_create: get!("cublasLtMatmulPreferenceCreate"),
            preference_set: get!("cublasLtMatmulPreferenceSetAttribute"),
            preference_destroy: get!("cublasLtMatmulPreferenceDestroy"),
            heuristic: get!("cublasLtMatmulAlgoGetHeuristic"),
            check: get!("cublasLtMatmulAlgoCheck"),
            matmul: get!("cublasLtMatmul"),
        })
    }
}

/// Attributes of operations, layouts and preferences, by the library's numbers.
mod attribute {
    use std::ffi::c_int;

    pub(super) const TRANSPOSE: [c_int; 2] = [3, 4];
    pub(super) const EPILOGUE: c_int = 7;
    pub(super) const BIAS: c_int = 8;
    pub(super) const BATCH: c_int = 5;
    pub(super) const APART: c_int = 6;
    pub(super) const WORKSPACE: c_int = 1;
    pub(super) const REDUCTIONS: c_int = 3;
    pub(super) const ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];
}

/// Partial sums in the type of sums alone: not in that of the result, which has fewer bits.
const REDUCTIONS: u32 = 2;
const EPILOGUE_BIAS: u32 = 4;

impl Element {
    /// `cudaDataType`.
    fn number(self) -> c_int {
        match self {
            Element::F16 => 2,
            Element::BF16 => 14,
            Element::F32 => 0,
            Element::F64 => 1,
        }
    }
}

/// The loaded library, with its state for one device. It stays loaded until the process ends.
pub struct Cublaslt {
    api: Api,
    handle: Handle,
    path: PathBuf,
    version: usize,
    driver: (u32, u32),
}

// SAFETY: the library may be called from any thread with any handle; nothing here is written after it is made.
unsafe impl Send for Cublaslt {}
// SAFETY: as above.
unsafe impl Sync for Cublaslt {}

impl fmt::Debug for Cublaslt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cublaslt({} at {})", self.version, self.path.display())
    }
}

impl Cublaslt {
    /// The libraries that would be tried, best first: those of the CUDA major version of the driver or of older ones. None
    /// if there are none, or `BULLET_CUBLASLT` is 0.
    ///
    /// # Errors
    /// There is no CUDA driver, or `BULLET_CUBLASLT` names no library.
    pub fn locate() -> Result<Vec<PathBuf>> {
        let driver = library()?.version;
        let mut found = search::cublaslt()?;
        found.retain(|path| search::major_version(path).is_none_or(|major| major <= driver.0));
        Ok(found)
    }

    /// Loads the first that works, for this device; `None` if [`locate`](Cublaslt::locate) finds none.
    ///
    /// # Errors
    /// As `locate`; none of them can be loaded, or works on this device.
    pub fn load(device: &dyn Driver) -> Result<Option<Cublaslt>> {
        let mut failed = None;
        for path in Cublaslt::locate()? {
            match Cublaslt::open(&path, device) {
                Ok(library) => return Ok(Some(library)),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn open(path: &Path, device: &dyn Driver) -> Result<Cublaslt> {
        let wrong =
            |why: String| Error::new(ErrorKind::Driver, format!("cuBLASLt at {}: {why}", path.display()));
        // Its state belongs to the context that is current.
        device.native_stream(StreamId::DEFAULT)?;
        // SAFETY: loading NVIDIA's library runs its initialisers.
        let library = unsafe { Library::new(path) }.map_err(|e| wrong(e.to_string()))?;
        let library = ManuallyDrop::new(library);
        let api = Api::load(&library).map_err(|e| wrong(e.to_string()))?;
        // SAFETY: it takes nothing.
        let version = unsafe { (api.version)() };
        let mut handle = null_mut();
        // SAFETY: the pointer is to a live variable.
        match unsafe { (api.create)(&mut handle) } {
            0 => {}
            code => return Err(wrong(words("cublasLtCreate", code))),
        }
        let driver = super::library()?.version;
        Ok(Cublaslt { api, handle, path: path.to_path_buf(), version, driver })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, as one number: 130200.
    pub fn version(&self) -> usize {
        self.version
    }

    /// The CUDA version of the driver below it, major and minor.
    pub fn driver(&self) -> (u32, u32) {
        self.driver
    }

    /// Describes an operation to the library.
    ///
    /// # Errors
    /// The library refuses it.
    pub fn operation(self: &Arc<Self>, operation: Operation) -> Result<Matmul> {
        let Operation { element, result, tf32, size: (rows, cols), k, .. } = operation;
        let double = element == Element::F64;
        let compute = if double {
            70
        } else if tf32 {
            77
        } else {
            68
        };
        let mut matmul =
            Matmul { library: self.clone(), operation, description: null_mut(), layouts: [null_mut(); 3] };
        let scale = if double { Element::F64 } else { Element::F32 };
        // SAFETY: pointers are to live variables, here and below.
        let made = unsafe { (self.api.operation_create)(&mut matmul.description, compute, scale.number()) };
        check("cublasLtMatmulDescCreate", made)?;
        for (attribute, transposed) in attribute::TRANSPOSE.into_iter().zip(operation.transposed) {
            matmul.set(attribute, &i32::from(transposed))?;
        }
        if operation.bias {
            matmul.set(attribute::EPILOGUE, &EPILOGUE_BIAS)?;
            // An address to choose algorithms with; a launch sets its own.
            matmul.set(attribute::BIAS, &(1u64 << 20))?;
        }
        let turned = |t: bool, (a, b): (usize, usize)| if t { (b, a) } else { (a, b) };
        let [ta, tb] = operation.transposed;
        let sizes = [turned(ta, (rows, k)), turned(tb, (k, cols)), (rows, cols)];
        let lines = [operation.lines[0], operation.lines[1], rows];
        let elements = [element, element, result];
        for i in 0..3 {
            let (rows, cols) = sizes[i];
            let layout = &mut matmul.layouts[i];
            let number = elements[i].number();
            // SAFETY: as above.
            let made = unsafe {
                (self.api.layout_create)(layout, number, rows as u64, cols as u64, lines[i] as i64)
            };
            check("cublasLtMatrixLayoutCreate", made)?;
            let layout = *layout;
            if operation.batch > 1 {
                // SAFETY: the layout was made just now.
                unsafe {
                    set(self.api.layout_set, layout, attribute::BATCH, &(operation.batch as i32))?;
                    set(self.api.layout_set, layout, attribute::APART, &(operation.apart[i] as i64))?;
                }
            }
        }
        Ok(matmul)
    }
}

/// An operation that the library knows.
pub struct Matmul {
    library: Arc<Cublaslt>,
    operation: Operation,
    description: Handle,
    /// Of a, b, d.
    layouts: [Handle; 3],
}

/// The addresses of one launch, each a multiple of [`ALIGNMENT`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Places {
    pub a: DevicePtr,
    pub b: DevicePtr,
    pub d: DevicePtr,
    pub bias: Option<DevicePtr>,
    pub workspace: DevicePtr,
}

/// What addresses must be a multiple of, in bytes.
pub const ALIGNMENT: usize = 16;

impl Matmul {
    fn set<T>(&self, attribute: c_int, value: &T) -> Result<()> {
        // SAFETY: the description lives as long as this.
        unsafe { set(self.library.api.operation_set, self.description, attribute, value) }
    }

    /// Up to `most` algorithms that need no more than these bytes of memory, the one first that the library thinks fastest.
    ///
    /// # Errors
    /// The library fails. That it has none is an empty list.
    pub fn candidates(&self, most: usize, workspace: usize) -> Result<Vec<Algorithm>> {
        let api = &self.library.api;
        let mut preference = null_mut();
        // SAFETY: the pointer is to a live variable.
        check("cublasLtMatmulPreferenceCreate", unsafe { (api.preference_create)(&mut preference) })?;
        let mut results = vec![NO_HEURISTIC; most];
        let mut count = 0;
        // SAFETY: the preference was made just now.
        let set = |attribute, value: &[u8]| unsafe {
            (api.preference_set)(preference, attribute, value.as_ptr().cast(), value.len())
        };
        set(attribute::WORKSPACE, &(workspace as u64).to_ne_bytes());
        set(attribute::REDUCTIONS, &REDUCTIONS.to_ne_bytes());
        for attribute in attribute::ALIGNMENTS {
            set(attribute, &(ALIGNMENT as u32).to_ne_bytes());
        }
        let [a, b, d] = self.layouts;
        // SAFETY: everything lives; the library writes `most` results at most.
        let found = unsafe {
            let found = (api.heuristic)(
                self.library.handle,
                self.description,
                a,
                b,
                d,
                d,
                preference,
                most as c_int,
                results.as_mut_ptr(),
                &mut count,
            );
            (api.preference_destroy)(preference);
            found
        };
        if found == NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        check("cublasLtMatmulAlgoGetHeuristic", found)?;
        results.truncate(count.max(0) as usize);
        let fits = |r: &&Heuristic| r.state == 0 && r.workspace <= workspace;
        let algorithm = |r: &Heuristic| Algorithm { words: r.algorithm, workspace: r.workspace };
        Ok(results.iter().filter(fits).map(algorithm).collect())
    }

    /// Whether an algorithm that was kept computes this operation, with the memory that it says.
    pub fn accepts(&self, algorithm: &Algorithm) -> bool {
        let [a, b, d] = self.layouts;
        let mut result = NO_HEURISTIC;
        let library = &self.library;
        // SAFETY: everything lives; the library checks what the words say.
        let checked = unsafe {
            (library.api.check)(library.handle, self.description, a, b, d, d, &algorithm.words, &mut result)
        };
        checked == 0 && result.workspace <= algorithm.workspace
    }

    /// Enqueues the operation. One thread at a time: the bias is told to the description that all share.
    ///
    /// # Safety
    /// As [`Driver::launch`], for operands and results of the operation's sizes at these places, and the algorithm's
    /// workspace.
    ///
    /// # Errors
    /// The library refuses; the operation has a bias and there is none.
    pub unsafe fn launch(
        &mut self,
        device: &dyn Driver,
        stream: StreamId,
        algorithm: &Algorithm,
        at: &Places,
    ) -> Result<()> {
        let stream = device.native_stream(stream)?;
        match (self.operation.bias, at.bias) {
            (true, Some(bias)) => self.set(attribute::BIAS, &bias.0)?,
            (false, None) => {}
            _ => return Err(Error::invalid("cuBLASLt: the operation and its places disagree on a bias")),
        }
        let (single, double) = ([1f32, 0.0], [1f64, 0.0]);
        let [alpha, beta]: [*const c_void; 2] = match self.operation.element {
            Element::F64 => [0, 1].map(|i| (&raw const double[i]).cast()),
            Element::F16 | Element::BF16 | Element::F32 => [0, 1].map(|i| (&raw const single[i]).cast()),
        };
        let [a, b, d] = self.layouts;
        // SAFETY: by the caller's promise; factors are on the host and read before the call returns.
        let done = unsafe {
            (self.library.api.matmul)(
                self.library.handle,
                self.description,
                alpha,
                at.a.0,
                a,
                at.b.0,
                b,
                beta,
                at.d.0,
                d,
                at.d.0,
                d,
                &algorithm.words,
                if algorithm.workspace > 0 { at.workspace.0 } else { 0 },
                algorithm.workspace,
                std::ptr::with_exposed_provenance_mut(stream as usize),
            )
        };
        check("cublasLtMatmul", done)
    }
}

// SAFETY: descriptions are plain memory, written only through `&mut`.
unsafe impl Send for Matmul {}

impl Drop for Matmul {
    fn drop(&mut self) {
        let api = &self.library.api;
        // SAFETY: made by the library and destroyed once; null where making it failed.
        unsafe {
            for &layout in self.layouts.iter().filter(|layout| !layout.is_null()) {
                (api.layout_destroy)(layout);
            }
            if !self.description.is_null() {
                (api.operation_destroy)(self.description);
            }
        }
    }
}

const NOT_SUPPORTED: c_int = 15;

/// Sets an attribute.
///
/// # Safety
/// The handle is alive and of the kind that `set` takes.
unsafe fn set<T>(set: Set, handle: Handle, attribute: c_int, value: &T) -> Result<()> {
    // SAFETY: by the caller's promise; the value is as long as is said, which the library checks.
    check("setting an attribute", unsafe {
        set(handle, attribute, (&raw const *value).cast(), size_of::<T>())
    })
}

fn check(call: &str, code: c_int) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Driver, format!("cuBLASLt: {}", words(call, code))))
    }
}

fn words(call: &str, code: c_int) -> String {
    let what = match code {
        1 => "not initialized",
        3 => "out of resources",
        7 => "invalid value",
        8 => "not for this GPU",
        11 => "mapping error",
        13 => "execution failed",
        14 => "internal error",
        NOT_SUPPORTED => "not supported",
        16 => "license error",
        _ => "unknown status",
    };
    format!("{call} failed: {what} ({code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_survive_being_written_down() {
        let algorithm = Algorithm { words: [0, 1, u64::MAX, 3, 4, 5, 6, 0xdead_beef], workspace: 1 << 20 };
        let text = algorithm.to_string();
        assert_eq!(text.parse(), Ok(algorithm));
        for bad in ["", "5", "x.1.2.3.4.5.6.7.8", &text[..text.len() - 9], &format!("{text}.1")] {
            assert_eq!(bad.parse::<Algorithm>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn the_functions_are_in_an_installed_library() {
        let Some(path) = search::cublaslt().unwrap_or_default().into_iter().next() else {
            eprintln!("skipped: no cuBLASLt is installed");
            return;
        };
        // SAFETY: NVIDIA's library; it needs no GPU to be loaded.
        let library = unsafe { Library::new(&path) }.unwrap();
        let api = Api::load(&ManuallyDrop::new(library)).unwrap();
        // SAFETY: it takes nothing.
        assert!(unsafe { (api.version)() } > 11000);
    }
}
