//! Matrix products on a GPU against sums in f64 on the CPU, by our own kernels and by cuBLASLt; passes without a check where
//! there is no GPU, or no library.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::common::Rng;
use crate::gpu;
use bullet_kernels::cuda::{Gpu, gemm};
use bullet_kernels::{View, ViewMut};
use bullet_ops::{Activation, DType, Layout, Shape};
use bullet_runtime::Buffer;
use bullet_runtime::jit::cache::Cache;
use half::{bf16, f16};

/// The precision is that of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn encode(dtype: DType, v: f64) -> Vec<u8> {
    match dtype {
        DType::F16 => f16::from_f64(v).to_ne_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(v).to_ne_bytes().to_vec(),
        DType::F32 => (v as f32).to_ne_bytes().to_vec(),
        DType::F64 => v.to_ne_bytes().to_vec(),
        DType::Bool => vec![u8::from(v > 0.0)],
        DType::U8 => vec![v as i64 as u8],
        DType::U16 => (v as i64 as u16).to_ne_bytes().to_vec(),
        DType::U32 => (v as i64 as u32).to_ne_bytes().to_vec(),
        DType::U64 => (v as i64 as u64).to_ne_bytes().to_vec(),
        DType::I8 => vec![v as i64 as u8],
        DType::I16 => (v as i64 as i16).to_ne_bytes().to_vec(),
        DType::I32 => (v as i64 as i32).to_ne_bytes().to_vec(),
        DType::I64 => (v as i64).to_ne_bytes().to_vec(),
    }
}

fn decode(dtype: DType, b: &[u8]) -> f64 {
    match dtype {
        DType::F16 => f16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        DType::BF16 => bf16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        DType::F32 => f64::from(f32::from_ne_bytes(b.try_into().unwrap())),
        DType::F64 => f64::from_ne_bytes(b.try_into().unwrap()),
        DType::Bool | DType::U8 => f64::from(b[0]),
        DType::U16 => f64::from(u16::from_ne_bytes(b.try_into().unwrap())),
        DType::U32 => f64::from(u32::from_ne_bytes(b.try_into().unwrap())),
        DType::U64 => u64::from_ne_bytes(b.try_into().unwrap()) as f64,
        DType::I8 => f64::from(b[0] as i8),
        DType::I16 => f64::from(i16::from_ne_bytes(b.try_into().unwrap())),
        DType::I32 => f64::from(i32::from_ne_bytes(b.try_into().unwrap())),
        DType::I64 => i64::from_ne_bytes(b.try_into().unwrap()) as f64,
    }
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    RowMajor,
    ColumnMajor,
    /// Row-major, each row followed by 8 elements that are not its own.
    Padded,
    /// Row-major, one element after an aligned address.
    Shifted,
    /// Neither rows nor columns are neighbours.
    Scattered,
}

const LIES: [Lie; 5] = [Lie::RowMajor, Lie::ColumnMajor, Lie::Padded, Lie::Shifted, Lie::Scattered];

/// A batch of matrices on the device, and their values; what lies between them is NaN, or -1.
struct Operand {
    values: Vec<f64>,
    buffer: Buffer,
    layout: Layout,
    dtype: DType,
}

impl Operand {
    fn new(gpu: &Gpu, rng: &mut Rng, dtype: DType, dims: &[usize], lie: Lie) -> Operand {
        let (rows, cols) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        let (row, col, offset) = match lie {
            Lie::RowMajor => (cols, 1, 0),
            Lie::ColumnMajor => (1, rows, 0),
            Lie::Padded => (cols + 8, 1, 0),
            Lie::Shifted => (cols, 1, 1),
            Lie::Scattered => (2 * cols + 1, 2, 3),
        };
        let one = (rows * row).max(cols * col) + 8;
        let batches: usize = dims[..dims.len() - 2].iter().product();
        let mut strides = vec![row as isize, col as isize];
        let mut stride = one;
        for &d in dims[..dims.len() - 2].iter().rev() {
            strides.insert(0, stride as isize);
            stride *= d;
        }
        let layout = Layout::strided(Shape::new(dims).unwrap(), &strides, offset);
        let size = dtype.size();
        let mut bytes = vec![0xffu8; (one * batches + offset) * size];
        let mut values = Vec::new();
        for b in 0..batches {
            for i in 0..rows {
                for j in 0..cols {
                    let v = if dtype.is_float() { rng.unit() } else { rng.below(9) as f64 - 4.0 };
                    let at = (offset + b * one + i * row + j * col) * size;
                    bytes[at..at + size].copy_from_slice(&encode(dtype, v));
                    values.push(decode(dtype, &bytes[at..at + size]));
                }
            }
        }
        let mut buffer = gpu.device().alloc(bytes.len()).unwrap();
        buffer.write(0, &bytes).unwrap();
        Operand { values, buffer, layout, dtype }
    }

    fn view(&self) -> View<'_> {
        // SAFETY: the buffer holds the layout's elements, and is not written while the view lives; the address is the
        // device's, and is only passed on.
        unsafe { View::new(self.buffer.ptr().0 as *const u8, self.dtype, self.layout) }
    }
}

/// A poisoned result of `n` elements, with as many behind it that must stay poisoned.
struct Target {
    buffer: Buffer,
    shape: Shape,
    dtype: DType,
}

impl Target {
    fn new(gpu: &Gpu, dtype: DType, dims: &[usize]) -> Target {
        let shape = Shape::new(dims).unwrap();
        let bytes = vec![0xffu8; (shape.numel() + 64) * dtype.size()];
        let mut buffer = gpu.device().alloc(bytes.len()).unwrap();
        buffer.write(0, &bytes).unwrap();
        Target { buffer, shape, dtype }
    }

    fn view(&mut self) -> ViewMut<'_> {
        // SAFETY: as in `Operand::view`; nothing else uses the buffer.
        unsafe { ViewMut::new(self.buffer.ptr().0 as *mut u8, self.dtype, Layout::contiguous(self.shape)) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.shape.numel() + 64) * self.dtype.size()];
        self.buffer.read(0, &mut bytes).unwrap();
        let behind = &bytes[self.shape.numel() * self.dtype.size()..];
        assert!(behind.iter().all(|&b| b == 0xff), "written behind the result");
        bytes.truncate(self.shape.numel() * self.dtype.size());
        bytes
    }
}

/// The largest error of a sum whose terms' magnitudes add up to `magnitude`.
fn tolerance(dtype: DType, want: f64, magnitude: f64) -> f64 {
    let sum = 64.0 * f64::from(f32::EPSILON) * (1.0 + magnitude);
    match dtype {
        DType::F16 => sum + f16::EPSILON.to_f64() * want.abs() + 1e-7,
        DType::BF16 => sum + bf16::EPSILON.to_f64() * want.abs(),
        DType::F32 if gemm::precision() == gemm::Precision::Tf32 => sum + magnitude * 2.0f64.powi(-10),
        DType::F32 => sum,
        DType::F64 => 64.0 * f64::EPSILON * (1.0 + magnitude),
        DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 => 0.0,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0.0,
    }
}

/// `want` as an integer type would hold it.
fn wrapped(dtype: DType, want: f64) -> f64 {
    if dtype.is_float() {
        return want;
    }
    let want = if dtype == DType::Bool { f64::from(want != 0.0) } else { want };
    decode(dtype, &encode(dtype, want))
}

struct Check {
    dtype: DType,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    shared_b: bool,
    lies: (Lie, Lie),
}

fn check_matmul(gpu: &Gpu, rng: &mut Rng, c: &Check, variant: &str) {
    let Check { dtype, batch, m, n, k, .. } = *c;
    let a = Operand::new(gpu, rng, dtype, &[batch, m, k], c.lies.0);
    let b_dims: &[usize] = if c.shared_b { &[k, n] } else { &[batch, k, n] };
    let b = Operand::new(gpu, rng, dtype, b_dims, c.lies.1);
    let mut out = [Target::new(gpu, dtype, &[batch, m, n]), Target::new(gpu, dtype, &[batch, m, n])];
    for target in &mut out {
        gemm::matmul(gpu, &[a.view(), b.view()], &mut [target.view()]).unwrap();
    }
    let got = out[0].bytes();
    let what = format!("{variant} {dtype} {batch}x{m}x{n}x{k} {:?} shared {}", c.lies, c.shared_b);
    assert_eq!(got, out[1].bytes(), "{what}: not the same bits twice");
    for q in 0..batch {
        let (va, vb) = (&a.values[q * m * k..], &b.values[if c.shared_b { 0 } else { q * k * n }..]);
        for i in 0..m {
            for j in 0..n {
                let term = |p: usize| va[i * k + p] * vb[p * n + j];
                let want: f64 = (0..k).map(term).sum();
                let magnitude: f64 = (0..k).map(|p| term(p).abs()).sum();
                let at = ((q * m + i) * n + j) * dtype.size();
                let got = decode(dtype, &got[at..at + dtype.size()]);
                let error = (got - wrapped(dtype, want)).abs();
                assert!(
                    error <= tolerance(dtype, want, magnitude),
                    "{what} at {q},{i},{j}: {got}, not {want}"
                );
            }
        }
    }
}

const DTYPES: [DType; 10] = [
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::Bool,
    DType::U8,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
];

/// Rows, columns, k.
const SHAPES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (3, 5, 7),
    (2, 3, 0),
    (0, 3, 4),
    (16, 70, 33),
    (17, 129, 65),
    (64, 64, 128),
    (130, 65, 257),
    (1, 384, 128),
    (200, 3, 40),
    (40, 136, 1024),
];

/// What is computed with what, precision and variant apart.
type Work<'a> = Box<dyn Fn(&Gpu, &mut Rng) + Sync + 'a>;

/// Does all of it on several threads: nearly all of the time goes into compiling. `BULLET_TEST_SLICE=I/N` does the I-th of N
/// parts, from 0 on, in one thread: compute-sanitizer does not get on where many threads compile and launch.
fn share(gpu: &Gpu, work: &[Work<'_>]) {
    let slice = std::env::var("BULLET_TEST_SLICE").unwrap_or_else(|_| "0/1".into());
    let (first, step) = slice.split_once('/').expect("BULLET_TEST_SLICE is I/N");
    let (first, step): (usize, usize) = (first.parse().unwrap(), step.parse().unwrap());
    assert!(first < step, "BULLET_TEST_SLICE is I/N with I below N");
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let i = first + step * next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = work.get(i) else { break };
            job(gpu, &mut Rng(i as u64 + 1));
            gemm::force(None);
        }
    };
    let threads = if step == 1 { 12 } else { 1 };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
}

#[test]
fn products_match_sums_in_f64() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut work: Vec<Work<'_>> = Vec::new();
    for dtype in DTYPES {
        for (m, n, k) in SHAPES {
            work.push(Box::new(move |gpu, rng| {
                for _ in 0..3 {
                    let lies = (rng.pick(&LIES), rng.pick(&LIES));
                    let (batch, shared_b) = rng.pick(&[(1, false), (1, false), (3, false), (3, true)]);
                    let check = Check { dtype, batch, m, n, k, shared_b, lies };
                    check_matmul(gpu, rng, &check, "automatic");
                }
            }));
        }
    }
    share(&gpu, &work);
}

/// Forces each variant, with and without shares of k, on some of the shapes in some of the ways to lie in memory.
#[test]
fn every_variant_matches_when_forced() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for precision in [gemm::Precision::Full, gemm::Precision::Tf32] {
        gemm::set_precision(precision);
        let mut work: Vec<Work<'_>> = Vec::new();
        for variant in gemm::variants() {
            // What a variant can't do would be done, and tested, as without force.
            let dtypes: &[DType] = match (precision, variant.starts_with("mma")) {
                (gemm::Precision::Full, true) => &[DType::F16, DType::BF16],
                (gemm::Precision::Full, false) => &[DType::F16, DType::F32, DType::F64, DType::I64],
                (gemm::Precision::Tf32, true) => &[DType::F32],
                (gemm::Precision::Tf32, false) => &[],
            };
            for (&dtype, splits) in dtypes.iter().flat_map(|d| ["/1", "/3"].map(|s| (d, s))) {
                let forced = format!("{variant}{splits}");
                work.push(Box::new(move |gpu, rng| {
                    gemm::force(Some(&forced));
                    let lies = (rng.pick(&LIES), rng.pick(&LIES));
                    // One way to lie is one kernel to compile; the shapes cost little.
                    for (m, n, k) in [(17, 129, 65), (130, 65, 257), (40, 136, 1024), rng.pick(&SHAPES)] {
                        let check = Check { dtype, batch: 1 + rng.below(2), m, n, k, shared_b: false, lies };
                        check_matmul(gpu, rng, &check, &forced);
                    }
                }));
            }
        }
        share(&gpu, &work);
    }
    gemm::set_precision(gemm::Precision::Full);
}

#[test]
fn linear_adds_bias_activates_and_keeps_what_was_before() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    use Activation::{Gelu, GeluTanh, Identity, Relu, Silu};
    let mut work: Vec<Work<'_>> = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for activation in [Identity, Relu, Gelu, GeluTanh, Silu] {
            work.push(Box::new(move |gpu, rng| {
                for lie in [Lie::RowMajor, rng.pick(&[Lie::ColumnMajor, Lie::Shifted])] {
                    for shape in [(17, 129, 65), (40, 136, 1024), rng.pick(&SHAPES)] {
                        let bias = rng.below(2) == 0;
                        check_linear(gpu, rng, dtype, activation, shape, lie, bias);
                    }
                }
            }));
        }
    }
    share(&gpu, &work);
}

fn check_linear(
    gpu: &Gpu,
    rng: &mut Rng,
    dtype: DType,
    activation: Activation,
    (m, n, k): (usize, usize, usize),
    lie: Lie,
    with_bias: bool,
) {
    let x = Operand::new(gpu, rng, dtype, &[m, k], Lie::RowMajor);
    let w = Operand::new(gpu, rng, dtype, &[n, k], lie);
    let bias = Operand::new(gpu, rng, dtype, &[1, n], Lie::RowMajor);
    let (mut y, mut pre) = (Target::new(gpu, dtype, &[m, n]), Target::new(gpu, dtype, &[m, n]));
    let bias_layout = Layout::contiguous(Shape::new(&[n]).unwrap());
    let mut operands = vec![x.view(), w.view()];
    if with_bias {
        // SAFETY: the same elements, as a vector.
        operands.push(unsafe { bias.view().with_layout(bias_layout) });
    }
    let mut results = vec![y.view()];
    if activation != Activation::Identity {
        results.push(pre.view());
    }
    gemm::linear(activation, gpu, &operands, &mut results).unwrap();
    drop(results);
    let (y, pre) = (y.bytes(), pre.bytes());
    for i in 0..m {
        for j in 0..n {
            let term = |p: usize| x.values[i * k + p] * w.values[j * k + p];
            let add = if with_bias { bias.values[j] } else { 0.0 };
            let before = (0..k).map(term).sum::<f64>() + add;
            let magnitude = (0..k).map(|p| term(p).abs()).sum::<f64>() + add.abs();
            let at = (i * n + j) * dtype.size();
            let value = |bytes: &[u8]| decode(dtype, &bytes[at..at + dtype.size()]);
            let near = |got: f64, want: f64| (got - want).abs() <= 2.0 * tolerance(dtype, want, magnitude);
            let what = format!("{dtype} {activation:?} {m}x{n}x{k} {lie:?} bias {with_bias} at {i},{j}");
            let after = activation.map().map_or(before, |map| map.exprs().forward.eval(&[before]));
            assert!(near(value(&y), after), "{what}: {}, not {after}", value(&y));
            if activation != Activation::Identity {
                assert!(near(value(&pre), before), "{what}: before {}, not {before}", value(&pre));
            }
        }
    }
}

/// Rounding to tf32 must not turn NaN into a number: its bits, one more, are those of 0.
#[test]
fn tf32_keeps_nan_and_infinity() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    gemm::set_precision(gemm::Precision::Tf32);
    const N: usize = 64;
    let bits =
        [0x7fff_ffff_u32, 0xffff_ffff, 0x7fc0_0000, 0xffc0_0000, 0x7f80_0000, 0xff80_0000, 0x7f7f_e000];
    for (turned, variant) in [(false, "mma_64x64/1"), (true, "mma_128x256/1"), (true, "mma_64x64/3")] {
        let mut a = vec![0u8; N * N * 4];
        let mut one = vec![0u8; N * N * 4];
        for i in 0..N {
            a[(i * N + i) * 4..][..4].copy_from_slice(&bits[i % bits.len()].to_ne_bytes());
            one[(i * N + i) * 4..][..4].copy_from_slice(&1f32.to_ne_bytes());
        }
        let operand = |bytes: &[u8]| {
            let mut buffer = gpu.device().alloc(bytes.len()).unwrap();
            buffer.write(0, bytes).unwrap();
            let strides = if turned { [1, N as isize] } else { [N as isize, 1] };
            let layout = Layout::strided(Shape::new(&[N, N]).unwrap(), &strides, 0);
            Operand { values: Vec::new(), buffer, layout, dtype: DType::F32 }
        };
        let (a, one) = (operand(&a), operand(&one));
        let mut c = Target::new(&gpu, DType::F32, &[N, N]);
        gemm::force(Some(variant));
        gemm::matmul(&gpu, &[a.view(), one.view()], &mut [c.view()]).unwrap();
        gemm::force(None);
        let got = c.bytes();
        for i in 0..N {
            let want = f32::from_bits(bits[i % bits.len()]);
            let got = decode(DType::F32, &got[(i * N + i) * 4..][..4]) as f32;
            assert!(got == want || got.is_nan() && want.is_nan(), "{variant} at {i}: {got}, not {want}");
        }
    }
    gemm::set_precision(gemm::Precision::Full);
}

/// Uses the library for what it is able to do, of any size; `None`, and says so, where there is none.
fn library(gpu: &Gpu) -> Option<()> {
    if gemm::loaded(gpu).is_none() {
        eprintln!("skipped: cuBLASLt is not installed, or BULLET_CUBLASLT=0");
        return None;
    }
    gemm::set_library(gemm::Library::Always);
    Some(())
}

#[test]
fn the_library_matches_sums_in_f64() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(()) = library(&gpu) else { return };
    let kinds = [
        (DType::F16, gemm::Precision::Full),
        (DType::BF16, gemm::Precision::Full),
        (DType::F32, gemm::Precision::Full),
        (DType::F32, gemm::Precision::Tf32),
        (DType::F64, gemm::Precision::Full),
    ];
    let mut rng = Rng(11);
    for (dtype, precision) in kinds {
        gemm::set_precision(precision);
        for lies in LIES.into_iter().flat_map(|a| LIES.map(|b| (a, b))) {
            // Two launches each; what is shifted or scattered is for our own kernels.
            let able = [lies.0, lies.1].iter().all(|l| !matches!(l, Lie::Shifted | Lie::Scattered));
            for (m, n, k) in [(64, 128, 72), (17, 129, 65), (130, 65, 257), (40, 136, 512)] {
                for (batch, shared_b) in [(1, false), (3, false), (3, true)] {
                    let before = gemm::computed();
                    let check = Check { dtype, batch, m, n, k, shared_b, lies };
                    check_matmul(&gpu, &mut rng, &check, "library");
                    let whole = able && [m, n, k].iter().all(|x| x % 8 == 0);
                    let used = gemm::computed() - before;
                    assert!(!whole || used == 2, "not used for {dtype} {batch} x {m}x{n}x{k} {lies:?}");
                }
            }
        }
    }
    gemm::set_library(gemm::Library::Faster);
    gemm::set_precision(gemm::Precision::Full);
}

#[test]
fn the_librarys_linear_adds_bias_activates_and_keeps_what_was_before() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(()) = library(&gpu) else { return };
    use Activation::{Gelu, GeluTanh, Identity, Relu, Silu};
    let mut rng = Rng(12);
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for activation in [Identity, Relu, Gelu, GeluTanh, Silu] {
            for (shape, bias) in [(64, 64, 128), (40, 136, 1024), (17, 129, 65)]
                .into_iter()
                .flat_map(|s| [(s, true), (s, false)])
            {
                for lie in [Lie::RowMajor, Lie::ColumnMajor] {
                    let before = gemm::computed();
                    check_linear(&gpu, &mut rng, dtype, activation, shape, lie, bias);
                    let used = gemm::computed() - before;
                    assert!(shape.0 == 17 || used == 1, "{dtype} {activation:?} {shape:?} {bias}: not used");
                }
            }
        }
    }
    gemm::set_library(gemm::Library::Faster);
}

/// A large product is measured once, outside of captures, and computed in captures as was decided.
#[test]
fn what_is_measured_once_is_kept() {
    let Some(gpu) = gpu() else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(()) = library(&gpu) else { return };
    let Ok(Some(cache)) = Cache::shared() else {
        eprintln!("skipped: there is no cache to keep decisions in");
        return;
    };
    let mut rng = Rng(13);
    let (m, n, k) = (2816, 3080, 1024);
    let a = Operand::new(&gpu, &mut rng, DType::F16, &[m, k], Lie::RowMajor);
    let b = Operand::new(&gpu, &mut rng, DType::F16, &[k, n], Lie::RowMajor);
    let mut out = [(); 4].map(|()| Target::new(&gpu, DType::F16, &[m, n]));
    let product = |out: &mut Target| {
        gemm::matmul(&gpu, &[a.view(), b.view()], &mut [out.view()]).unwrap();
    };
    let replay = |out: &mut Target| {
        let capture = gpu.device().capture().unwrap();
        product(out);
        let graph = capture.end().unwrap();
        // SAFETY: all that the graph uses lives.
        unsafe { graph.launch().unwrap() };
        gpu.device().synchronize().unwrap();
    };
    let of = |c: &gemm::Choice| c.about.starts_with("f16 2816 x 3080 x 1024,");
    // What is captured must be compiled before.
    gemm::set_library(gemm::Library::Off);
    product(&mut out[0]);
    gemm::set_library(gemm::Library::Faster);
    replay(&mut out[0]);
    product(&mut out[1]);
    let choice = gemm::choices(&cache).into_iter().find(of).expect("it was measured, and that is kept");
    eprintln!("{choice:?}");
    product(&mut out[2]);
    replay(&mut out[3]);
    let got = out.each_ref().map(Target::bytes);
    assert!(got[1] == got[2] && got[2] == got[3], "one way from the decision on");
    for (i, j) in [(0, 0), (m - 1, n - 1), (1234, 2345), (77, 3072)] {
        let term = |p: usize| a.values[i * k + p] * b.values[p * n + j];
        let want: f64 = (0..k).map(term).sum();
        let magnitude: f64 = (0..k).map(|p| term(p).abs()).sum();
        for got in &got {
            let got = decode(DType::F16, &got[(i * n + j) * 2..][..2]);
            assert!((got - want).abs() <= tolerance(DType::F16, want, magnitude), "{got}, not {want}");
        }
    }
}
