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
use bullet_lang::emit::cuda::{CudaOptions, Layout, source, takes_tape};
use bullet_lang::interp::{Arg, Array, Cells, Options as Run, run};
use bullet_lang::ir::{Kernel, Type};
use bullet_ops::DType;

/// How many threads run each kernel.
const THREADS: usize = 7;
/// What CUDA has and C++ has not, for one thread after the other.
const DEVICE: &str = r#"
#include <cmath>
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
static void __trap() { abort(); }
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
        let text = source(&[kernel], CudaOptions { layout: Layout::Strided, ..CudaOptions::default() });
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
        let call = |args: &[String], tape: &str| {
            format!("    launch([&] {{ {}({THREADS}, {}{tape}); }});\n", kernel.name, args.join(", "))
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
            "namespace k{number} {{\n{text}\nvoid run() {{\n{reads}{copies}{launches}    {}\n}}\n}}\n",
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

/// Compiles and runs the cases; all that they wrote.
fn run_all(cases: &[Case], compiler: &str, folder: &Path) -> Vec<f64> {
    let mut text = String::from(DEVICE);
    cases.iter().enumerate().for_each(|(i, case)| text += &case.text(i));
    text +=
        "int main() {\n    double x;\n    while (fread(&x, sizeof x, 1, stdin) == 1) data.push_back(x);\n";
    (0..cases.len()).for_each(|i| _ = writeln!(text, "    k{i}::run();"));
    text += "}\n";
    let (file, program) = (folder.join("kernels.cpp"), folder.join("kernels"));
    fs::write(&file, text).unwrap();
    // Products and sums stay two operations, as the interpreter has them.
    let flags = ["-std=c++17", "-O0", "-w", "-ffp-contract=off", "-o"];
    let done = Command::new(compiler).args(flags).arg(&program).arg(&file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let input = folder.join("input");
    let bytes: Vec<u8> = cases.iter().flat_map(Case::input).flat_map(f64::to_ne_bytes).collect();
    fs::write(&input, bytes).unwrap();
    let stdin = Stdio::from(fs::File::open(&input).unwrap());
    let ran = Command::new(&program).stdin(stdin).output().unwrap();
    assert!(ran.status.success(), "{}: {}", file.display(), ran.status);
    ran.stdout.chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().unwrap())).collect()
}

#[test]
fn cuda_on_the_cpu_does_what_the_interpreter_says() {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("there is no {compiler}");
        return;
    }
    let number =
        |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count): (u64, u64) = (number("BULLET_LANG_SEED", 1), number("BULLET_LANG_KERNELS", 40));
    let (cases, expected): (Vec<Case>, Vec<_>) = (first..first + count)
        .flat_map(cases)
        .filter_map(|case| case.expected().map(|expected| (case, expected)))
        .unzip();
    let folder = env::temp_dir().join(format!("bullet-emulated-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let found = run_all(&cases, &compiler, &folder);
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
