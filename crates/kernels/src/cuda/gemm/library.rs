//! Large products by cuBLASLt, where it is installed and faster than our own kernels. It is never needed.
//!
//! **Which products.** Those of [`WORTH`] operations and more, so that small models never load it; floating-point types;
//! operands that are row- or column-major, with one batch axis at most, at addresses of 16 bytes. A bias goes along. An
//! activation, which the library computes otherwise than we do, is done by a kernel of ours from sums in f32.
//!
//! **Which is faster** is measured once, when such a product first comes outside of a capture: our kernel against the
//! algorithms that the library thinks best. The decision is kept beside the compiled kernels, and whoever uses this folder
//! with this GPU, driver and library goes by it from then on: results are the same bits from run to run, and the first run
//! decides which. Where it cannot be kept (`BULLET_CACHE=0`, a read-only folder), and for a product that is first met in a
//! capture, our own kernels are used.
//!
//! **What goes wrong** with the library costs one warning, and what it was to do is done by our own kernels, as is what lacks
//! the memory for its workspace.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bullet_ops::{Activation, DType};
use bullet_runtime::cuda::cublaslt::{ALIGNMENT, Algorithm, Cublaslt, Element, Matmul, Operation, Places};
use bullet_runtime::jit::Tier;
use bullet_runtime::jit::cache::Cache;
use bullet_runtime::{DevicePtr, Result, StreamId};

use super::choose::{Precision, acc_bytes, debugging, is_forced, precision};
use super::launch::{self, Product, Side, finish};
use crate::cuda::gpu::Gpu;

/// Operations from which on loading the library and measuring is worth it: a square of 2048 has as many.
const WORTH: f64 = (1u64 << 34) as f64;
/// Bytes that an algorithm may use: what NVIDIA advises for its largest GPUs.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are measured.
const CANDIDATES: usize = 8;
/// The library must take less than this share of our time.
const FASTER: f64 = 0.97;

/// When products are computed by cuBLASLt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Library {
    /// Never.
    Off,
    /// Where it is installed and faster.
    Faster,
    /// Wherever it is able to, of any size and without measuring: for tests.
    Always,
}

static LIBRARY: AtomicU8 = AtomicU8::new(Library::Faster as u8);

/// Says when products are computed by cuBLASLt from now on; `Faster` if never called.
pub fn set_library(when: Library) {
    LIBRARY.store(when as u8, Relaxed);
}

fn library() -> Library {
    match LIBRARY.load(Relaxed) {
        0 => Library::Off,
        1 => Library::Faster,
        _ => Library::Always,
    }
}

/// The library that products of this device use, loaded now: its path and version; `None` if there is none.
pub fn loaded(gpu: &Gpu) -> Option<(std::path::PathBuf, usize)> {
    let state = gpu.device().extension(State::default);
    state.library(gpu).map(|library| (library.path().to_path_buf(), library.version()))
}

/// Products computed by the library so far, in this process.
pub fn computed() -> u64 {
    COMPUTED.load(Relaxed)
}

static COMPUTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// What a decision is about, the machine apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Case {
    dtype: DType,
    operation: Operation,
    /// What is left to a kernel of ours: activation, whether the values before it are wanted, whether there is a bias.
    finish: Option<(Activation, bool, bool)>,
    /// Chosen without measuring.
    always: bool,
}

/// Whether lines are rows of k, and how far apart they are; `None` if they are neither.
fn lines(side: &Side, k: usize) -> Option<(bool, usize)> {
    let far = |stride: isize, least: usize| usize::try_from(stride).ok().filter(|&s| s >= least);
    let along_k = side.k == 1 || k == 1;
    if along_k && let Some(line) = if side.rows == 1 { Some(k) } else { far(side.row, k) } {
        return Some((true, line));
    }
    let along_rows = side.row == 1 || side.rows == 1;
    far(side.k, side.rows).filter(|_| along_rows).map(|line| (false, line))
}

impl Case {
    /// `None` for what the library is not asked.
    fn of(p: &Product, always: bool) -> Option<Case> {
        let element = match p.dtype {
            DType::F16 => Element::F16,
            DType::BF16 => Element::BF16,
            DType::F32 => Element::F32,
            DType::F64 => Element::F64,
            DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 => return None,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => return None,
        };
        let (m, n, k, batch) = (p.a.rows, p.b.rows, p.k, p.batch());
        let places = [Some(p.a.at), Some(p.b.at), Some(p.c), p.pre, p.bias];
        let aligned = places.into_iter().flatten().all(|at| at.0.is_multiple_of(ALIGNMENT as u64));
        let fits = [m, n, k, batch].iter().all(|&x| (1..=i32::MAX as usize).contains(&x));
        if !aligned || !fits || p.lead_rank > 1 {
            return None;
        }
        // The library's first operand is our second: its result is ours, transposed.
        let (first, second) = (lines(&p.b, k)?, lines(&p.a, k)?);
        let apart = |side: &Side| if batch > 1 { usize::try_from(side.lead[0]).ok() } else { Some(0) };
        // For lines that are not whole vectors the library rounds to 16 bits before it adds a bias. It has none in f64.
        let size = p.dtype.size();
        let vectors = [n, first.1, second.1].iter().all(|x| (x * size).is_multiple_of(ALIGNMENT));
        let bias = p.bias.is_none() || element == Element::F32 || size == 2 && vectors;
        let direct = p.activation == Activation::Identity && p.pre.is_none() && bias;
        let sums = if element == Element::F64 { Element::F64 } else { Element::F32 };
        let operation = Operation {
            element,
            result: if direct { element } else { sums },
            tf32: element == Element::F32 && precision() == Precision::Tf32,
            size: (n, m),
            k,
            transposed: [first.0, !second.0],
            lines: [first.1, second.1],
            batch,
            apart: [apart(&p.b)?, apart(&p.a)?, m * n],
            bias: direct && p.bias.is_some(),
        };
        let finish = (!direct).then_some((p.activation, p.pre.is_some(), p.bias.is_some()));
        Some(Case { dtype: p.dtype, operation, finish, always })
    }

    fn flops(&self) -> f64 {
        let Operation { size: (n, m), k, batch, .. } = self.operation;
        2.0 * m as f64 * n as f64 * k as f64 * batch as f64
    }
}

impl fmt::Display for Case {
    /// All that tells it from others, in our order of the operands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { size: (n, m), k, transposed: [bt, at], lines: [lb, la], batch, apart, .. } =
            self.operation;
        let dtype = if self.operation.tf32 { "tf32".to_string() } else { self.dtype.to_string() };
        write!(f, "{dtype} {m} x {n} x {k}")?;
        if batch > 1 {
            write!(f, ", {batch} of them {}, {} apart", apart[1], apart[0])?;
        }
        let along = |k: bool| if k { "k" } else { "rows" };
        write!(f, ", a along {} {la}, b along {} {lb}", along(!at), along(bt))?;
        if self.operation.bias || self.finish.is_some_and(|(.., bias)| bias) {
            write!(f, ", bias")?;
        }
        match self.finish {
            Some((activation, pre, _)) => write!(f, ", {activation:?}{}", if pre { ", before" } else { "" }),
            None => Ok(()),
        }
    }
}

/// A decision as it is kept. Times in microseconds, the library's that of its best algorithm, if it has any.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Decision {
    algorithm: Option<Algorithm>,
    own: f64,
    library: Option<f64>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm {
            Some(algorithm) => write!(f, "cublaslt {algorithm}")?,
            None => write!(f, "own")?,
        }
        write!(f, " {:.2}", self.own)?;
        self.library.map_or(Ok(()), |t| write!(f, " {t:.2}"))
    }
}

impl Decision {
    fn parse(text: &str) -> Option<Decision> {
        let mut words = text.split(' ');
        let algorithm = match words.next()? {
            "own" => None,
            "cublaslt" => Some(words.next()?.parse().ok()?),
            _ => return None,
        };
        let own = words.next()?.parse().ok()?;
        let library = words.next().map(str::parse).transpose().ok()?;
        words.next().is_none().then_some(Decision { algorithm, own, library })
    }
}

/// A decision about a product, as `bullet devices --cache` shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The product, and what it was measured with: GPU, driver, versions.
    pub about: String,
    /// Whether cuBLASLt computes it.
    pub library: bool,
    /// Microseconds of our own kernel.
    pub own_us: f64,
    /// Microseconds of the library, if it can do it.
    pub library_us: Option<f64>,
}

/// All decisions that are kept.
pub fn choices(cache: &Cache) -> Vec<Choice> {
    let choice = |(about, decision): (String, String)| {
        let Decision { algorithm, own, library } = Decision::parse(&decision)?;
        Some(Choice { about, library: algorithm.is_some(), own_us: own, library_us: library })
    };
    cache.decisions().into_iter().filter_map(choice).collect()
}

/// How a product is computed.
enum Way {
    Unknown,
    Own,
    Library(Matmul, Algorithm),
}

#[derive(Default)]
struct State {
    library: Mutex<Option<Option<Arc<Cublaslt>>>>,
    ways: Mutex<HashMap<Case, Arc<Mutex<Way>>>>,
}

impl State {
    /// The library, loaded at the first call.
    fn library(&self, gpu: &Gpu) -> Option<Arc<Cublaslt>> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || match Cublaslt::load(&**gpu.device().driver()) {
            Ok(found) => found.map(Arc::new),
            Err(e) => {
                warn(&e);
                None
            }
        };
        library.get_or_insert_with(load).clone()
    }

    fn way(&self, case: &Case) -> Arc<Mutex<Way>> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.entry(*case).or_insert_with(|| Arc::new(Mutex::new(Way::Unknown))).clone()
    }
}

fn warn(e: &bullet_runtime::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Relaxed) {
        eprintln!(
            "warning: {e}. Products are computed by our own kernels; BULLET_CUBLASLT=0 does without the library"
        );
    }
}

/// Computes a product by the library, if that is how it is to be done. False if it is not, or the library fails.
///
/// # Errors
/// Our own kernel failed while it was measured.
pub(super) fn run(gpu: &Gpu, p: &Product) -> Result<bool> {
    let when = library();
    let always = when == Library::Always;
    let lower_tier = Tier::of(gpu.info().capability).is_some_and(|own| gpu.info().tier < own);
    if when == Library::Off || !always && (is_forced() || lower_tier) {
        return Ok(false);
    }
    let Some(case) = Case::of(p, always).filter(|case| always || case.flops() >= WORTH) else {
        return Ok(false);
    };
    let state = gpu.device().extension(State::default);
    let way = state.way(&case);
    let mut way = way.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*way, Way::Unknown) {
        if gpu.device().driver().is_capturing(StreamId::DEFAULT) {
            return Ok(false);
        }
        *way = find(gpu, &state, p, &case)?;
    }
    let Way::Library(matmul, algorithm) = &mut *way else { return Ok(false) };
    match compute(gpu, p, &case, matmul, algorithm) {
        Ok(()) => {
            COMPUTED.fetch_add(1, Relaxed);
            Ok(true)
        }
        Err(e) if e.is_out_of_memory() => Ok(false),
        Err(e) => {
            warn(&e);
            *way = Way::Own;
            Ok(false)
        }
    }
}

/// How a product is to be computed: as was decided, else as measured now.
fn find(gpu: &Gpu, state: &State, p: &Product, case: &Case) -> Result<Way> {
    let Some(library) = state.library(gpu) else { return Ok(Way::Own) };
    if case.always {
        return Ok(first(&library, case));
    }
    let Ok(Some(cache)) = Cache::shared() else { return Ok(Way::Own) };
    let about = about(gpu, &library, case);
    let kept = match cache.decision(&about) {
        Some(kept) => kept,
        None => {
            let measured = measure(gpu, &library, p, case)?;
            if debugging() {
                eprintln!("gemm {case}: {measured}");
            }
            // Not kept, it would be another one in the next process, and so would the results be.
            match cache.decide(&about, &measured.to_string()) {
                Ok(kept) => kept,
                Err(_) => return Ok(Way::Own),
            }
        }
    };
    let Some(algorithm) = Decision::parse(&kept).and_then(|d| d.algorithm) else { return Ok(Way::Own) };
    Ok(match library.operation(case.operation) {
        Ok(matmul) if matmul.accepts(&algorithm) => Way::Library(matmul, algorithm),
        Ok(_) => Way::Own,
        Err(e) => {
            warn(&e);
            Way::Own
        }
    })
}

/// A case with all that its times depend on.
fn about(gpu: &Gpu, library: &Cublaslt, case: &Case) -> String {
    let (info, (major, minor)) = (gpu.info(), library.driver());
    format!(
        "{case} | {} sm_{}{} with {} | driver {major}.{minor} | cuBLASLt {} | bullet {}",
        gpu.device().name(),
        info.capability.0,
        info.capability.1,
        info.multiprocessors,
        library.version(),
        env!("CARGO_PKG_VERSION")
    )
}

/// The algorithm that the library thinks best.
fn first(library: &Arc<Cublaslt>, case: &Case) -> Way {
    let found = library.operation(case.operation).and_then(|matmul| {
        let algorithm = matmul.candidates(1, WORKSPACE)?.first().copied();
        Ok(algorithm.map(|algorithm| Way::Library(matmul, algorithm)))
    });
    match found {
        Ok(way) => way.unwrap_or(Way::Own),
        Err(e) => {
            warn(&e);
            Way::Own
        }
    }
}

/// Times our kernel and the library's candidates; what they write is overwritten by whoever is chosen.
fn measure(gpu: &Gpu, library: &Arc<Cublaslt>, p: &Product, case: &Case) -> Result<Decision> {
    let own = time(gpu, || launch::own(gpu, p.clone()))?;
    let mut best: Option<(f64, Algorithm)> = None;
    let mut try_all = || -> Result<()> {
        let mut matmul = library.operation(case.operation)?;
        for algorithm in matmul.candidates(CANDIDATES, WORKSPACE)? {
            // One that fails, or lacks memory, is not the best.
            let Ok(t) = time(gpu, || compute(gpu, p, case, &mut matmul, &algorithm)) else { continue };
            if best.is_none_or(|(least, _)| t < least) {
                best = Some((t, algorithm));
            }
        }
        Ok(())
    };
    if let Err(e) = try_all() {
        warn(&e);
    }
    let algorithm = best.filter(|&(t, _)| t < FASTER * own).map(|(_, algorithm)| algorithm);
    Ok(Decision { algorithm, own, library: best.map(|(t, _)| t) })
}

/// Microseconds of a launch: the median of some, after as many milliseconds as clocks take to rise.
fn time(gpu: &Gpu, mut launch: impl FnMut() -> Result<()>) -> Result<f64> {
    let device = gpu.device();
    launch()?;
    let once = device.time(&mut launch)?.max(1e-3);
    let times = |ms: f64| (ms / once).clamp(1.0, 40.0) as usize;
    (0..times(3.0)).try_for_each(|_| launch())?;
    let (mut samples, each) = ([0.0; 5], times(1.0));
    for sample in &mut samples {
        *sample = device.time(|| (0..each).try_for_each(|_| launch()))? * 1e3 / each as f64;
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[2])
}

fn compute(gpu: &Gpu, p: &Product, case: &Case, matmul: &mut Matmul, algorithm: &Algorithm) -> Result<()> {
    let workspace = gpu.scratch(algorithm.workspace)?;
    let count = p.a.rows * p.b.rows * p.batch();
    let sums = case.finish.map(|_| gpu.scratch(count * acc_bytes(p.dtype))).transpose()?;
    let d = sums.as_ref().map_or(p.c, |sums| sums.ptr());
    let bias: Option<DevicePtr> = p.bias.filter(|_| case.operation.bias);
    let places = Places { a: p.b.at, b: p.a.at, d, bias, workspace: workspace.ptr() };
    let driver = gpu.device().driver();
    // SAFETY: the operation has the sizes and strides of the product, whose operands have the elements that these reach.
    unsafe { matmul.launch(&**driver, StreamId::DEFAULT, algorithm, &places)? };
    sums.map_or(Ok(()), |sums| finish(gpu, p, sums.ptr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rows: usize, row: isize, k: isize) -> Side {
        Side { at: DevicePtr(1 << 20), rows, row, k, lead: [0; launch::LEAD] }
    }

    fn product() -> Product {
        Product {
            dtype: DType::F16,
            k: 64,
            a: side(128, 64, 1),
            b: side(256, 1, 256),
            lead: [1; launch::LEAD],
            lead_rank: 0,
            c: DevicePtr(1 << 21),
            pre: None,
            bias: None,
            activation: Activation::Identity,
        }
    }

    #[test]
    fn operands_are_exchanged_and_transposed() {
        let case = Case::of(&product(), false).unwrap();
        let Operation { size, k, transposed, lines, result, .. } = case.operation;
        assert_eq!((size, k, transposed, lines), ((256, 128), 64, [false, false], [256, 64]));
        assert_eq!((result, case.finish), (Element::F16, None));
        let mut p = product();
        (p.a, p.b) = (side(128, 1, 130), side(256, 72, 1));
        let Operation { transposed, lines, .. } = Case::of(&p, false).unwrap().operation;
        assert_eq!((transposed, lines), ([true, true], [72, 130]));
    }

    #[test]
    fn what_the_library_cannot_do_is_not_asked() {
        let none = |change: &dyn Fn(&mut Product)| {
            let mut p = product();
            change(&mut p);
            assert!(Case::of(&p, true).is_none(), "{p:?}");
        };
        none(&|p| p.dtype = DType::I32);
        none(&|p| p.a.at = DevicePtr((1 << 20) + 8));
        none(&|p| p.a = side(128, 128, 2));
        none(&|p| p.a = side(128, 0, 1));
        none(&|p| p.b = side(256, -64, 1));
        none(&|p| p.lead_rank = 2);
        none(&|p| p.k = 0);
    }

    #[test]
    fn cases_differ_in_all_that_matters() {
        let mut seen = std::collections::HashSet::new();
        let mut new = |change: &dyn Fn(&mut Product)| {
            let mut p = product();
            change(&mut p);
            assert!(seen.insert(Case::of(&p, false).unwrap().to_string()), "{p:?}");
        };
        new(&|_| ());
        new(&|p| p.dtype = DType::BF16);
        new(&|p| p.a.rows = 120);
        new(&|p| p.b.rows = 248);
        new(&|p| p.k = 56);
        new(&|p| p.a.row = 72);
        new(&|p| p.a = side(128, 1, 128));
        new(&|p| p.b = side(256, 64, 1));
        new(&|p| p.bias = Some(DevicePtr(1 << 22)));
        new(&|p| p.activation = Activation::Gelu);
        new(&|p| p.activation = Activation::Relu);
        new(&|p| (p.activation, p.pre) = (Activation::Relu, Some(DevicePtr(1 << 22))));
        new(&|p| (p.activation, p.bias) = (Activation::Relu, Some(DevicePtr(1 << 22))));
        for (a, b) in [(8192, 16384), (8192, 0), (0, 16384)] {
            new(&|p| (p.lead_rank, p.lead[0], p.a.lead[0], p.b.lead[0]) = (1, 3, a, b));
        }
    }

    #[test]
    fn decisions_survive_being_written_down() {
        let algorithm = "4096.1.2.3.4.5.6.7.8".parse().ok();
        for decision in [
            Decision { algorithm, own: 812.25, library: Some(365.5) },
            Decision { algorithm: None, own: 1.5, library: Some(2.0) },
            Decision { algorithm: None, own: 1.5, library: None },
        ] {
            assert_eq!(Decision::parse(&decision.to_string()), Some(decision));
        }
        for bad in ["", "own", "own x", "cublaslt 5 1.0 2.0", "own 1.0 2.0 3.0", "other 1.0"] {
            assert_eq!(Decision::parse(bad), None, "{bad}");
        }
    }
}
