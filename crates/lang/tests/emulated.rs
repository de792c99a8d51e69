//! Random kernels and their adjoints as CUDA C++, compiled for the CPU by the C++ compiler that is here and run thread by thread: what
//! they leave in memory is what the interpreter says, but for functions' last bits. Without a compiler (`CXX`, or `c++`) nothing is tested.

#[path = "random/arguments.rs"]
mod arguments;
#[path = "random/generate.rs"]
mod generate;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use arguments::Given;
use bullet_lang::adjoint::{Tape, Use};
use bullet_lang::emit::cuda::{Checks, CudaOptions, Layout, sites, source, takes_tape};
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Kernel, Type};
use bullet_lang::{Options as Compile, compile};
use bullet_ops::DType;

/// How many threads run each kernel.
const THREADS: usize = 7;
/// What CUDA has and C++ has not, for one thread after the other.
const DEVICE: &str = r#"
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#define __device__
#define __global__
#define __forceinline__ inline
#define __restrict__
#define __CUDA_ARCH__ 900
using std::isnan;
using std::isinf;
using std::isfinite;
struct Place { unsigned x, y, z; };
static Place blockIdx, blockDim = {32, 1, 1}, threadIdx;
template <class T> T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> T atomicSub(T* p, T v) { T old = *p; *p = old - v; return old; }
template <class T> T atomicMax(T* p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> T atomicExch(T* p, T v) { T old = *p; *p = v; return old; }
template <class T> T atomicCAS(T* p, T e, T v) { T old = *p; if (old == e) *p = v; return old; }
template <class A, class B> static B bits_as(A x) { B y; memcpy(&y, &x, sizeof y); return y; }
static unsigned __float_as_uint(float x) { return bits_as<float, unsigned>(x); }
static float __uint_as_float(unsigned x) { return bits_as<unsigned, float>(x); }
static long long __double_as_longlong(double x) { return bits_as<double, long long>(x); }
static double __longlong_as_double(long long x) { return bits_as<long long, double>(x); }
template <class T> T __ldg(const T* p) { return *p; }
// Threads run one by one, so that no other is with one.
static unsigned __activemask() { return 1u << threadIdx.x % 32; }
static bool __all_sync(unsigned, bool test) { return test; }
template <class T> T __shfl_sync(unsigned, T x, int) { return x; }
template <class T> T __shfl_down_sync(unsigned, T x, int) { return x; }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a > b ? a : b; }
static long long llmin(long long a, long long b) { return a < b ? a : b; }
static long long llmax(long long a, long long b) { return a > b ? a : b; }
const int THREADS = 7;
static double erfinv(double y) {
    const double l = log1p(-y * y), t = 4.33 + l / 2;
    double x = copysign(sqrt(sqrt(t * t - l / 0.147) - t), y);
    for (int k = 0; k < 5; ++k) x -= (erf(x) - y) * exp(x * x) * 0.886226925452758;
    return x;
}
static std::vector<double> data;
static size_t next_in;
static double number() { return data[next_in++]; }
template <class T> std::vector<T> array(size_t n) {
    std::vector<T> cells(n);
    for (T& cell : cells) cell = (T)number();
    return cells;
}
template <class T> void put(const std::vector<T>& cells) {
    for (T cell : cells) { double x = (double)cell; fwrite(&x, sizeof x, 1, stdout); }
}
template <class F> void launch(F kernel) {
    for (unsigned t = 0; t < 32; ++t) { threadIdx.x = t; kernel(); }
}
"#;

/// A kernel and what it is given.
struct Case {
    kernel: Kernel,
    scratch: Vec<usize>,
    args: Vec<Arg<f64>>,
    before: Vec<Array<f64>>,
    seed: u64,
}

/// A kernel of this seed and its adjoint.
fn cases(seed: u64) -> [Case; 2] {
    let given = Given::new(seed, THREADS);
    let (args, args_adjoint) = (given.args().to_vec(), given.args_adjoint().to_vec());
    let uses = &given.adjoint.uses;
    let scratch = (0..uses.len()).filter(|&i| uses[i] == Use::Scratch).collect();
    let kernel = given.adjoint.kernel;
    [
        Case { kernel: given.kernel, scratch: vec![], args, before: given.before, seed },
        Case { kernel, scratch, args: args_adjoint, before: given.before_adjoint, seed },
    ]
}

impl Case {
    /// What the interpreter leaves; none if it runs too long.
    fn expected(&self) -> Option<Vec<Array<f64>>> {
        let mut after = self.before.clone();
        let options = Run { rounded: true, fuel: 1_000_000 };
        match run(&self.kernel, &[THREADS], &self.args, &mut after, options) {
            Ok(_) => Some(after),
            Err(fault) if fault.to_string().contains("too long") => None,
            Err(fault) => panic!("seed {}: {fault}", self.seed),
        }
    }

    /// A function of C++ that reads the arguments, launches, and writes the arrays, in a namespace with the kernel.
    fn text(&self, number: usize) -> String {
        let kernel = &self.kernel;
        // Indices are in range, and checks of them do nothing.
        let checks = if self.seed.is_multiple_of(2) { Checks::All } else { Checks::Off };
        let options = CudaOptions { layout: Layout::Strided, checks, ..CudaOptions::default() };
        let text = source(&[kernel], options);
        let text = text.replace("extern \"C\" ", "");
        let (mut reads, mut copies, mut given, mut measured) = (String::new(), String::new(), vec![], vec![]);
        let mut arrays = vec![];
        for (i, (&param, arg)) in kernel.params.iter().zip(&self.args).enumerate() {
            let name = format!("a{i}");
            given.push(name.clone());
            match (kernel.ty(param), arg) {
                (Type::Array(ty), &Arg::Array(array)) => {
                    let (cpp, array) = (cpp(ty.dtype), &self.before[array]);
                    let count = array.as_floats().len() + array.as_ints().len();
                    let mut stride = usize::from(ty.lanes);
                    let mut strides = vec![];
                    for &length in array.shape.iter().rev() {
                        strides.insert(0, stride.to_string());
                        stride *= length;
                    }
                    let shape: Vec<String> = array.shape.iter().map(usize::to_string).collect();
                    let made = |data: &str| {
                        let (shape, strides) = (shape.join(", "), strides.join(", "));
                        format!("Array{}<{cpp}>{{{data}.data(), {{{shape}}}, {{{strides}}}}}", ty.ndim)
                    };
                    let _ = writeln!(
                        reads,
                        "    auto d{i} = array<{cpp}>({count}); auto {name} = {};",
                        made(&format!("d{i}"))
                    );
                    if self.scratch.contains(&i) {
                        let _ =
                            writeln!(copies, "    auto e{i} = d{i}; auto c{i} = {};", made(&format!("e{i}")));
                        measured.push(format!("c{i}"));
                    } else {
                        measured.push(name);
                    }
                    arrays.push(format!("put(d{i});"));
                }
                (Type::Scalar(dtype), _) => {
                    let _ = writeln!(reads, "    auto {name} = ({})number();", cpp(dtype));
                    measured.push(name);
                }
                _ => unreachable!("arguments fit"),
            }
        }
        let (mut cell, mut fault, mut good) = ("", "", "");
        if !sites(kernel, options).is_empty() {
            cell = "    Fault cell = {};\n    const Faults faults = {&cell, 0, 1, {THREADS, 1, 1, 1}};\n";
            fault = ", faults";
            good = "    if (cell.code) abort();\n";
        }
        let call = |args: &[String], tape: &str| {
            format!("    launch([&] {{ {}({THREADS}, {}{fault}{tape}); }});\n", kernel.name, args.join(", "))
        };
        let launches = if takes_tape(kernel) {
            let words = match Tape::of(kernel) {
                Tape::Words(words) => format!("    need = {words};\n"),
                Tape::Measured => call(&measured, ", nullptr, 0u, &need"),
            };
            let room = format!(
                "    std::vector<unsigned> tape((need + 1) * {THREADS});\n    const unsigned size = need;\n"
            );
            let check = "    if (need > size) abort();\n";
            ["    unsigned need = 0;\n", &words, &room, &call(&given, ", tape.data(), size, &need"), check]
                .concat()
        } else {
            call(&given, "")
        };
        format!(
            "namespace k{number} {{\n{text}\nvoid run() {{\n{reads}{copies}{cell}{launches}{good}    {}\n}}\n}}\n",
            arrays.join(" ")
        )
    }

    /// What it reads: all arguments as numbers.
    fn input(&self) -> Vec<f64> {
        let numbers = |arg: &Arg<f64>| match *arg {
            Arg::Array(array) => floats(&self.before[array]),
            Arg::Float(x) => vec![x],
            Arg::Int(n) => vec![n as f64],
        };
        self.args.iter().flat_map(numbers).collect()
    }
}

fn cpp(dtype: DType) -> &'static str {
    match dtype {
        DType::I32 => "int",
        DType::F64 => "double",
        other => unreachable!("random kernels have no {other}"),
    }
}

fn floats(array: &Array<f64>) -> Vec<f64> {
    match &array.cells {
        Cells::Float(cells) => cells.clone(),
        Cells::Int(cells) => cells.iter().map(|&n| n as f64).collect(),
    }
}

/// The C++ compiler, if there is one.
fn compiler() -> Option<String> {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("there is no {compiler}");
        return None;
    }
    Some(compiler)
}

/// Compiles functions `run` in the namespaces `k0`, `k1`, .. and runs them on numbers; all that they wrote.
fn run_all(texts: &[String], numbers: &[f64], compiler: &str, folder: &Path) -> Vec<u8> {
    fs::create_dir_all(folder).unwrap();
    let mut text = String::from(DEVICE) + &texts.concat();
    text +=
        "int main() {\n    double x;\n    while (fread(&x, sizeof x, 1, stdin) == 1) data.push_back(x);\n";
    (0..texts.len()).for_each(|i| _ = writeln!(text, "    k{i}::run();"));
    text += "}\n";
    let (file, program) = (folder.join("kernels.cpp"), folder.join("kernels"));
    fs::write(&file, text).unwrap();
    // Products and sums stay two operations, as the interpreter has them.
    let flags = ["-std=c++17", "-O0", "-w", "-ffp-contract=off", "-o"];
    let done = Command::new(compiler).args(flags).arg(&program).arg(&file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let input = folder.join("input");
    let bytes: Vec<u8> = numbers.iter().copied().flat_map(f64::to_ne_bytes).collect();
    fs::write(&input, bytes).unwrap();
    let stdin = Stdio::from(fs::File::open(&input).unwrap());
    let ran = Command::new(&program).stdin(stdin).output().unwrap();
    assert!(ran.status.success(), "{}: {}", file.display(), ran.status);
    ran.stdout
}

#[test]
fn cuda_on_the_cpu_does_what_the_interpreter_says() {
    let Some(compiler) = compiler() else { return };
    let number =
        |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count): (u64, u64) = (number("BULLET_LANG_SEED", 1), number("BULLET_LANG_KERNELS", 40));
    let (cases, expected): (Vec<Case>, Vec<_>) = (first..first + count)
        .flat_map(cases)
        .filter_map(|case| case.expected().map(|expected| (case, expected)))
        .unzip();
    let folder = env::temp_dir().join(format!("bullet-emulated-{}", std::process::id()));
    let texts: Vec<String> = cases.iter().enumerate().map(|(i, case)| case.text(i)).collect();
    let input: Vec<f64> = cases.iter().flat_map(Case::input).collect();
    let found = run_all(&texts, &input, &compiler, &folder);
    let found: Vec<f64> = found.chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().unwrap())).collect();
    let mut next = found.iter();
    for (case, expected) in cases.iter().zip(&expected) {
        for (i, array) in case
            .args
            .iter()
            .filter_map(|arg| if let Arg::Array(i) = arg { Some(*i) } else { None })
            .enumerate()
        {
            for (place, &b) in floats(&expected[array]).iter().enumerate() {
                let &a = next.next().expect("all was written");
                let near = (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-6 * (1.0 + b.abs());
                let adjoint = case.kernel.name.ends_with("_adjoint");
                assert!(
                    near,
                    "seed {}, adjoint {adjoint}, array {i}, place {place}: {a}, not {b}; {}",
                    case.seed,
                    folder.display()
                );
            }
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// A kernel of a matrix `x` of 3 rows of 5 floats, an array `out` of 6, and n = 2, in which `i` is the thread.
fn faulty(body: &str) -> Kernel {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array2d(dtype=wp.float64), out: wp.array(dtype=wp.float64), n: int):\n    \
         i = wp.tid()\n{}",
        lines.concat()
    );
    compile("test.py", &text, Compile::default()).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// The function of C++ that launches it, and writes the fault cell and `out`.
fn faulty_text(number: usize, kernel: &Kernel, options: CudaOptions) -> String {
    let (text, strides) = (source(&[kernel], options).replace("extern \"C\" ", ""), options.layout);
    let [wide, narrow] = if strides == Layout::Strided { [", {5, 1}", ", {1}"] } else { ["", ""] };
    format!(
        "namespace k{number} {{\n{text}\nstatic_assert(sizeof(Faults) == 40 && offsetof(Faults, first) == 16 && offsetof(Faults, grid) \
         == 20);\nvoid run() {{\n    double x[15], out[6] = {{}};\n    for (int i = 0; i < 15; ++i) x[i] = i;\n    \
         Fault cell = {{}};\n    const Faults faults = {{&cell, 0, 40, {{THREADS, 1, 1, 1}}}};\n    launch([&] {{ k(THREADS, \
         Array2<double>{{x, {{3, 5}}{wide}}}, Array1<double>{{out, {{6}}{narrow}}}, 2, faults); }});\n    fwrite(&cell, \
         sizeof cell, 1, stdout);\n    fwrite(out, sizeof out, 1, stdout);\n}}\n}}\n"
    )
}

/// Bodies that stop threads; whether indices of arrays must be checked for that; which elements of `out` other threads write.
const FAULTY: &[(&str, bool, &[usize])] = &[
    ("assert i != 3, \"not % 3\"\nout[i % 6] = 1.0", false, &[0, 1, 2, 4, 5]),
    ("v = wp.vec3(1.0, 2.0, 3.0)\nout[i % 6] = wp.float64(v[i - 1 + n])", false, &[0, 1]),
    ("row = x[1, 1:n + 1]\nout[i % 6] = row[i]", false, &[0, 1]),
    ("out[i] = 1.0", true, &[0, 1, 2, 3, 4, 5]),
    ("out[i % 6] = 1.0\nout[i % 6] = x[i % 3, i]", true, &[0, 1, 2, 3, 4, 5]),
    ("for k in range(x.shape[0]):\n    out[i % 6] += x[k, n] + x[k - i, n]", true, &[0]),
    ("t = wp.zeros(shape=4, dtype=wp.float64)\nt[i] = 2.0\nout[i % 6] = t[i]", true, &[0, 1, 2, 3]),
    ("wp.atomic_add(out, 9 - 2 * i, 1.0)", true, &[1, 3, 5]),
];

#[test]
fn faults_are_those_of_the_interpreter() {
    let Some(compiler) = compiler() else { return };
    let (mut texts, mut kernels) = (vec![], vec![]);
    for (i, &(body, needs_checks, _)) in FAULTY.iter().enumerate() {
        let kernel = faulty(body);
        let checks = if needs_checks || i % 2 == 0 { Checks::All } else { Checks::Off };
        let layout = if i % 2 == 0 { Layout::Contiguous } else { Layout::Strided };
        let options = CudaOptions { layout, checks, ..CudaOptions::default() };
        texts.push(faulty_text(i, &kernel, options));
        let off = CudaOptions { checks: Checks::Off, ..options };
        assert_eq!(sites(&kernel, off).is_empty(), needs_checks, "{body}");
        kernels.push((kernel, options));
    }
    let folder = env::temp_dir().join(format!("bullet-faults-{}", std::process::id()));
    let found = run_all(&texts, &[], &compiler, &folder);
    assert_eq!(found.len(), FAULTY.len() * (64 + 6 * 8));
    for ((found, (kernel, options)), (body, _, good)) in
        found.chunks_exact(64 + 6 * 8).zip(&kernels).zip(FAULTY)
    {
        let mut arrays: Vec<Array<f64>> = vec![
            Array {
                shape: vec![3, 5],
                ..Array::floats(DType::F64, &(0..15).map(f64::from).collect::<Vec<_>>())
            },
            Array::zeros(DType::F64, &[6], 1),
        ];
        let args = [Arg::Array(0), Arg::Array(1), Arg::Int(2)];
        let fault = run(kernel, &[THREADS], &args, &mut arrays, Run::default()).unwrap_err().to_string();
        let word = |at: usize| i32::from_ne_bytes(found[at..at + 4].try_into().unwrap());
        let long = |at: usize| i64::from_ne_bytes(found[at..at + 8].try_into().unwrap());
        let site = &sites(kernel, *options)[word(0) as usize - 40];
        let shape: Vec<i32> = (0..4).map(|axis| word(48 + 4 * axis)).filter(|&length| length > 0).collect();
        let said = format!("k, thread [{}]: {}", long(24), site.message(long(8), &shape));
        assert!(said.starts_with(&fault), "{said}, not {fault}: {body}");
        assert_eq!([32, 36, 40, 44].map(word), [THREADS as i32, 1, 1, 1]);
        let written =
            (0..6).filter(|i| f64::from_ne_bytes(found[64 + 8 * i..72 + 8 * i].try_into().unwrap()) != 0.0);
        assert_eq!(written.collect::<Vec<_>>(), *good, "{body}");
    }
    fs::remove_dir_all(&folder).unwrap();
}
