//! What is emitted compiles: the kinds of kernels and random ones, with their adjoints, by NVRTC without a GPU. Needs the
//! folders of NVRTC in `BULLET_NVRTC`, as `cargo xtask test --stage cuda` sets it; a plain `cargo test` skips this.

#[path = "random/generate.rs"]
#[allow(dead_code)]
mod generate;
#[allow(dead_code)]
mod sources;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{Checks, CudaOptions, FOLD, Layout, Sharing, fold_source, source, symbol};
use bullet_lang::ir::Kernel;
use bullet_lang::order::{counting, summed};
use bullet_lang::{Options, compile};
use libloading::Library;

/// NVRTC's functions that compile.
struct Nvrtc {
    library: Library,
    version: c_int,
}

type Program = *mut c_void;

impl Nvrtc {
    /// The one in a folder or at a path.
    fn open(place: &Path) -> Option<Nvrtc> {
        let mut files = vec![];
        find(place, &mut files);
        let is = |path: &PathBuf, stem: &str| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem))
        };
        for builtins in files.iter().filter(|path| is(path, "libnvrtc-builtins.so")) {
            // SAFETY: loading NVIDIA's library runs its initialisers.
            std::mem::forget(unsafe { Library::new(builtins) });
        }
        let path = files.iter().find(|path| is(path, "libnvrtc.so"))?;
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.ok()?;
        let (mut version, mut minor) = (0, 0);
        // SAFETY: the documented signature, and pointers to live integers.
        unsafe {
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                library.get(b"nvrtcVersion\0").ok()?;
            get(&mut version, &mut minor);
        }
        Some(Nvrtc { library, version })
    }

    /// The machine code for an architecture, or the compiler's log.
    fn compile(&self, text: &str, arch: &str) -> Result<Vec<u8>, String> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        let text = CString::new(text).expect("no zero");
        // As the launcher has it compiled.
        let mut options =
            vec![format!("--gpu-architecture={arch}"), "-default-device".into(), "-std=c++14".into()];
        options.extend((self.version >= 12).then(|| "-minimal".into()));
        let options: Vec<CString> =
            options.into_iter().map(|option| CString::new(option).expect("no zero")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the documented signatures; strings end in zero, buffers have the sizes that NVRTC gave.
        unsafe {
            let library = &self.library;
            let create: libloading::Symbol<'_, Create> = library.get(b"nvrtcCreateProgram\0").expect("it");
            let compile: libloading::Symbol<'_, Compile> = library.get(b"nvrtcCompileProgram\0").expect("it");
            let read = |size: &[u8], get: &[u8], program: Program| {
                let size: libloading::Symbol<'_, Size> = library.get(size).expect("it");
                let get: libloading::Symbol<'_, Get> = library.get(get).expect("it");
                let mut bytes = 0;
                size(program, &mut bytes);
                let mut buffer = vec![0u8; bytes + 1];
                get(program, buffer.as_mut_ptr().cast());
                buffer
            };
            let mut program = null_mut();
            create(&mut program, text.as_ptr(), c"kernel.cu".as_ptr(), 0, null_mut(), null_mut());
            if compile(program, options.len() as c_int, pointers.as_ptr()) != 0 {
                let log = read(b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0", program);
                return Err(CStr::from_bytes_until_nul(&log).unwrap_or(c"").to_string_lossy().into_owned());
            }
            Ok(read(b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0", program))
        }
    }
}

fn find(place: &Path, out: &mut Vec<PathBuf>) {
    if place.is_file() {
        return out.push(place.into());
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        find(&entry.path(), out);
    }
}

/// A source file with every kernel of a module, and their adjoints.
fn emitted(name: &str, text: &str, options: CudaOptions) -> (String, Vec<String>) {
    let kernels = compile(name, text, Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut all: Vec<Kernel> = vec![];
    for kernel in kernels {
        for (checkpoints, suffix) in [(false, ""), (true, "_cut")] {
            let how = AdjointOptions { checkpoints, ..AdjointOptions::default() };
            if let Ok(mut made) = adjoint(&kernel, how) {
                made.kernel.name += suffix;
                all.push(made.kernel);
            }
        }
        all.push(kernel);
    }
    if let Some(sharing) = options.records {
        let distinct = sharing == Sharing::Distinct;
        let records = all.iter().filter(|kernel| !summed(kernel, distinct).is_empty());
        let counting: Vec<Kernel> = records.filter_map(|kernel| counting(kernel, distinct).ok()).collect();
        all.extend(counting);
    }
    let names = all.iter().map(|kernel| symbol(&kernel.name).into_owned()).collect();
    (source(&all.iter().collect::<Vec<_>>(), options), names)
}

/// What kernels, their parameters, variables and functions may be called in Python, and mean something else in CUDA C++.
const NAMES: &[&str] = &[
    "größe",
    "λ",
    "int",
    "double",
    "float4",
    "uchar2",
    "dim3",
    "char",
    "short",
    "unsigned",
    "threadIdx",
    "blockDim",
    "warpSize",
    "template",
    "namespace",
    "nullptr",
    "constexpr",
    "static_assert",
    "char16_t",
    "new",
    "delete",
    "this",
    "operator",
    "typeof",
    "restrict",
    "register",
    "half",
    "min",
    "max",
    "abs",
    "sin",
    "sinf",
    "fma",
    "fmaf",
    "rsqrt",
    "norm",
    "j0",
    "y1",
    "pow",
    "powf",
    "exp10",
    "saturate",
    "signbit",
    "atomicAdd",
    "atomicCAS",
    "make_float3",
    "printf",
    "malloc",
    "memcpy",
    "main",
    "time",
    "clock",
    "tape",
    "tape_words",
    "Array1",
    "Half",
    "mul_masked",
    "dim0",
    "thread",
    "NULL",
    "NAN",
    "INFINITY",
    "stdin",
    "errno",
    "linux",
    "unix",
    "good",
    "need",
    "failed",
    "std",
    "size_t",
    "__x",
    "__global__",
    "__launch_bounds__",
    "cudaMalloc",
    "isnan",
    "isfinite",
    "nan",
    "div",
    "round",
    "floorf",
    "ldexp",
    "modf",
    "erfcxf",
    "normcdf",
    "lgamma",
    "hypot",
    "step",
    "x",
    "out",
    "i",
    "f",
    "v",
    "_",
    "__",
    "add",
    "mov",
    "ld",
    "bar",
    "ret",
    "call",
    "exit",
    "entry",
    "reg",
    "tid",
    "mul",
];

/// A source file with kernels of all these names, in each of which everything is called so.
fn names() -> (String, Vec<String>) {
    let mut text = String::from("import warp as wp\n");
    for name in NAMES {
        text += &format!(
            "\n@wp.kernel\ndef {name}({name}: wp.array(dtype=float), {name}_: float, result0: wp.array(dtype=float)):\n    at = \
             wp.tid()\n    result0[at] = wp.max(wp.floor({name}[at]), {name}_) * wp.abs({name}_)\n    wp.atomic_add(result0, \
             0, {name}_)\n"
        );
        text += &format!(
            "\n@wp.kernel\ndef {name}_variable(at_: wp.array(dtype=float)):\n    {name} = at_[wp.tid()]\n    for k in \
             range(20):\n        {name} = wp.sqrt({name}) * wp.floor({name}) + wp.min({name}, 1.0)\n    at_[0] = {name}\n"
        );
    }
    let kernels = compile("names.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let names = kernels.iter().map(|kernel| symbol(&kernel.name).into_owned()).collect();
    (source(&kernels.iter().collect::<Vec<_>>(), CudaOptions::default()), names)
}

/// The architectures that each NVRTC is asked for.
fn architectures(version: c_int) -> &'static [&'static str] {
    match version {
        11 => &["sm_35", "sm_70"],
        12 => &["sm_61"],
        _ => &["sm_90a", "sm_120"],
    }
}

/// Compiles every source by every NVRTC there, and looks for its kernels.
fn compile_all(places: &std::ffi::OsStr, sources: &[(String, Vec<String>)]) {
    let mut compiled = 0;
    for place in std::env::split_paths(places) {
        let Some(nvrtc) = Nvrtc::open(&place) else { continue };
        for arch in architectures(nvrtc.version) {
            for (text, names) in sources {
                let image = nvrtc.compile(text, arch).unwrap_or_else(|log| panic!("{arch}:\n{log}\n{text}"));
                for name in names {
                    let section = format!(".text.{name}\0");
                    let has = image.windows(section.len()).any(|window| window == section.as_bytes());
                    assert!(has, "{arch}: `{name}` is not in the machine code");
                }
                compiled += 1;
            }
            println!("{arch} by NVRTC {}: {} units of the kernel language", nvrtc.version, sources.len());
        }
    }
    assert!(compiled > 0, "BULLET_NVRTC names no NVRTC");
}

#[test]
fn emitted_sources_compile() {
    let Some(places) = std::env::var_os("BULLET_NVRTC").filter(|places| !places.is_empty()) else {
        println!("skipped: BULLET_NVRTC is not set; run `cargo xtask test --stage cuda`");
        return;
    };
    let mut sources = vec![];
    for (name, text) in sources::kinds() {
        for (layout, sharing) in [(Layout::Contiguous, Sharing::Distinct), (Layout::Strided, Sharing::Any)] {
            for records in [None, Some(sharing)] {
                let options = CudaOptions { layout, records, ..CudaOptions::default() };
                sources.push(emitted(&name, &text, options));
            }
        }
    }
    sources.push(names());
    for seed in 1..=12 {
        // Of every width.
        let text = generate::module(seed);
        let text = match seed % 6 {
            0 | 2 => text.replace("wp.float64", "float"),
            1 => text.replace("wp.float64", "wp.float16"),
            3 => text.replace("wp.float64", "wp.bfloat16"),
            _ => text,
        };
        let records = if seed % 2 == 0 { Some(Sharing::Distinct) } else { None };
        sources.push(emitted("random.py", &text, CudaOptions { records, ..CudaOptions::default() }));
    }
    sources.push((fold_source(), vec![FOLD.into()]));
    compile_all(&places, &sources);
}

/// What may stop threads: every kind of site, of arrays of every number of dimensions, with names that checks use, too.
const FAULTS: &str = "import warp as wp

@wp.kernel
def failed(faults: wp.array4d(dtype=float), index: wp.array(dtype=int), Fault: wp.array2d(dtype=wp.vec3), Site: wp.array3d(dtype=float)):
    i, j = wp.tid()
    assert index[i] < 100, '100 % of all'
    shape = wp.zeros(shape=(3, 4), dtype=float)
    shape[j, index[i]] = faults[i, j, index[j], 2] + Site[i, i, j]
    row = Fault[i, 1:]
    Fault[i, j] = row[j] * shape[i, j] * Fault[j, i][index[i]]
    wp.atomic_add(Site, 0, i + j, 1, faults[0, 1, 2, 3])
";

#[test]
fn checks_compile() {
    let Some(places) = std::env::var_os("BULLET_NVRTC").filter(|places| !places.is_empty()) else {
        println!("skipped: BULLET_NVRTC is not set; run `cargo xtask test --stage cuda`");
        return;
    };
    let mut sources = vec![];
    for layout in [Layout::Contiguous, Layout::Strided] {
        for (checks, records) in [
            (Checks::Off, None),
            (Checks::All, None),
            (Checks::All, Some(Sharing::Distinct)),
            (Checks::Unrecorded, Some(Sharing::Any)),
        ] {
            let options = CudaOptions { layout, records, checks };
            sources.push(emitted("faults.py", FAULTS, options));
            sources.push(emitted("random.py", &generate::module(3), options));
        }
    }
    compile_all(&places, &sources);
}

#[test]
fn no_two_kernels_are_called_the_same() {
    let (text, mut names) = names();
    for name in &names {
        assert!(name.is_ascii() && text.contains(&format!("__global__ void {name}(")), "{name}");
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
