//! A kernel as a program of its own: one file that nvcc compiles as it is, and that needs nothing but a GPU.
//!
//! It fills the arguments with simple numbers, launches the kernel, then its adjoint with gradients of 1, and compares the
//! sum of each array with what the [interpreter](crate::interp) found for the same numbers. A thread that stops (`assert`, an index
//! that is checked) ends the program with what went wrong, and exit code 1.

use std::fmt::Write;

use super::half::{host, storage};
use super::{CudaOptions, sites, source, symbol, takes_tape};
use crate::adjoint::Adjoint;
use crate::fault::{Place, Site};
use crate::interp::{Arg, Array, Cells, Options as Run, run};
use crate::ir::{ArrayType, Kernel, Type, Value};

/// How many instructions the interpreter may run for the expected sums; without them the program only prints.
const FUEL: u64 = 20_000_000;

/// The value of each float parameter.
const SCALAR: f64 = 0.5;

/// How a number becomes a value on the host, and the other way round.
const CONVERSIONS: &str = "
template <class T> T made(double x) { return (T)x; }
template <class T> double read(T x) { return (double)x; }
";

const HELPERS: &str = r#"
#define CHECK(call)                                                                         \
    do {                                                                                    \
        const cudaError_t status = (call);                                                  \
        if (status != cudaSuccess) {                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status));          \
            return 1;                                                                       \
        }                                                                                   \
    } while (0)

// Numbers of [0.25, 1.25) for floats, places within a dimension for integers.
template <class T>
T number(size_t i, unsigned seed, bool is_float, int dim) {
    const unsigned mixed = ((unsigned)i + 17u * seed) * 2654435761u >> 8;
    return made<T>(is_float ? (mixed & 0xffff) / 65536.0 + 0.25 : (double)(mixed % dim));
}

// Device memory with such numbers, or with ones.
template <class T>
T* filled(size_t count, unsigned seed, bool is_float, int dim, bool ones = false) {
    T* host = (T*)malloc(count * sizeof(T));
    for (size_t i = 0; i < count; ++i) host[i] = ones ? made<T>(1) : number<T>(i, seed, is_float, dim);
    T* device = nullptr;
    if (cudaMalloc(&device, count * sizeof(T)) == cudaSuccess) {
        cudaMemcpy(device, host, count * sizeof(T), cudaMemcpyHostToDevice);
    }
    free(host);
    return device;
}

// Prints the sum of the first `lanes` of every `pitch` numbers; whether it is as expected. An expected size below 0 is unknown.
template <class T>
bool compare(const char* name, const T* device, size_t count, size_t lanes, size_t pitch, double sum, double size) {
    T* host = (T*)malloc(count * sizeof(T));
    cudaMemcpy(host, device, count * sizeof(T), cudaMemcpyDeviceToHost);
    double found = 0.0;
    for (size_t i = 0; i < count; ++i) found += i % pitch < lanes ? read(host[i]) : 0.0;
    free(host);
    if (size < 0) {
        printf("%-20s sum %.6g\n", name, found);
        return true;
    }
    const double error = found > sum ? found - sum : sum - found;
    const bool good = error <= 1e-3 * (1.0 + size);
    printf("%-20s sum %.6g, expected %.6g: %s\n", name, found, sum, good ? "ok" : "WRONG");
    return good;
}
"#;

const FAILED: &str = r#"
// What a thread may stop at: what to print of it, and which dimension of an array the index is of.
struct Site {
    const char* text;
    int axis;
};

// Prints the first fault of a kernel's threads; whether there was one.
bool failed(const Fault* cell, const char* kernel, const Site* sites) {
    Fault fault;
    if (cudaMemcpy(&fault, cell, sizeof fault, cudaMemcpyDeviceToHost) != cudaSuccess || fault.code == 0) return false;
    const Site site = sites[fault.code - 1];
    printf("kernel %s, thread %lld: ", kernel, fault.thread);
    printf(site.text, fault.index, fault.shape[site.axis]);
    printf("\n");
    return true;
}
"#;

/// A program that runs a kernel, and its adjoint if there is one.
pub fn standalone(kernel: &Kernel, adjoint: Option<&Adjoint>, options: CudaOptions) -> String {
    let kernels: Vec<&Kernel> =
        [Some(kernel), adjoint.map(|adjoint| &adjoint.kernel)].into_iter().flatten().collect();
    let mut out = String::from("#include <cstdio>\n#include <cstdlib>\n\n");
    out += &source(&kernels, options);
    out += CONVERSIONS;
    host(&mut out, &kernel.params.iter().map(|&param| kernel.dtype(param)).collect());
    out += HELPERS;
    if kernels.iter().any(|kernel| !sites(kernel, options).is_empty()) {
        out += FAILED;
    }
    let dim = if kernel.grid == 1 { 64 } else { 8 };
    let size = dim.to_string();
    let mut main = Main { kernel, dim, options, text: String::new() };
    main.line("bool good = true;");
    main.launch(kernel, "_1", kernel.params.len());
    if let Some(adjoint) = adjoint {
        main.text.push('\n');
        main.line("// The adjoint, from what the arrays held before.");
        main.launch(&adjoint.kernel, "_2", kernel.params.len());
    }
    let _ = write!(
        out,
        "\nint main() {{\n    // The length of every dimension of arrays and grid.\n    const int dim = {size};\n{}    return good ? 0 : \
         1;\n}}\n",
        main.text
    );
    out
}

struct Main<'a> {
    kernel: &'a Kernel,
    dim: usize,
    options: CudaOptions,
    text: String,
}

impl Main<'_> {
    fn line(&mut self, text: &str) {
        self.text.push_str("    ");
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// How many scalars an array takes.
    fn count(&self, ty: ArrayType) -> usize {
        self.dim.pow(ty.ndim.into()) * usize::from(ty.pitch)
    }

    /// Fills, launches and compares; parameters from `ones` on are gradients.
    fn launch(&mut self, kernel: &Kernel, suffix: &str, ones: usize) {
        let expected = self.expected(kernel, ones);
        let mut args: Vec<String> = vec!["dim".into(); kernel.grid.into()];
        let name = |value: Value| {
            let name = kernel.name_of(value).unwrap_or("arg");
            if name.is_ascii() { name.to_string() } else { symbol(name).into_owned() }
        };
        for (number, &param) in kernel.params.iter().enumerate() {
            let (name, dtype) = (format!("{}{suffix}", name(param)), storage(kernel.dtype(param)));
            let is_float = kernel.dtype(param).is_float();
            match kernel.ty(param) {
                Type::Scalar(_) if is_float => args.push(format!("made<{dtype}>({SCALAR})")),
                Type::Scalar(_) => args.push(format!("({dtype})dim")),
                Type::Array(ty) => {
                    let shape = vec!["dim"; ty.ndim.into()].join(", ");
                    let last = if number < ones { "" } else { ", true" };
                    self.line(&format!(
                        "Array{}<{dtype}> {name} = {{filled<{dtype}>({}, {number}, {is_float}, dim{last}), {{{shape}}}}};",
                        ty.ndim,
                        self.count(ty)
                    ));
                    args.push(name);
                }
            }
        }
        let threads = self.dim.pow(kernel.grid.into());
        let blocks = threads.div_ceil(128);
        let function = symbol(&kernel.name);
        // Parameters' names end in the suffix.
        let (sites, number) = (sites(kernel, self.options), suffix.trim_start_matches('_'));
        if !sites.is_empty() {
            self.faults(kernel, number, &sites);
            args.push(format!("faults{number}"));
        }
        if takes_tape(kernel) {
            self.line("unsigned need = 0, *tape_words = nullptr, *tape_need = nullptr;");
            self.line("CHECK(cudaMalloc(&tape_need, sizeof need));");
            self.line("CHECK(cudaMemset(tape_need, 0, sizeof need));");
            let list = args.join(", ");
            self.line("// Without a tape the launch only measures it. It may write to what it takes a copy of, as below.");
            self.line(&format!("{function}<<<{blocks}, 128>>>({list}, tape_words, 0, tape_need);"));
            self.line("CHECK(cudaMemcpy(&need, tape_need, sizeof need, cudaMemcpyDeviceToHost));");
            self.line(&format!("CHECK(cudaMalloc(&tape_words, {threads} * sizeof need * (need + 1)));"));
            for (number, &param) in kernel.params.iter().enumerate().take(ones) {
                let name = format!("{}{suffix}", name(param));
                if let Type::Array(ty) = kernel.ty(param) {
                    let (dtype, is_float) = (storage(ty.dtype), ty.dtype.is_float());
                    let count = self.count(ty);
                    self.line(&format!("{name}.data = filled<{dtype}>({count}, {number}, {is_float}, dim);"));
                }
            }
            args.extend(["tape_words", "need", "tape_need"].map(String::from));
        }
        self.line(&format!("{function}<<<{blocks}, 128>>>({});", args.join(", ")));
        self.line("CHECK(cudaGetLastError());");
        self.line("CHECK(cudaDeviceSynchronize());");
        if !sites.is_empty() {
            self.line(&format!(
                "if (failed(faults{number}.cell, {:?}, sites{number})) return 1;",
                kernel.name
            ));
        }
        let mut next = 0;
        for (number, &param) in kernel.params.iter().enumerate() {
            let Type::Array(ty) = kernel.ty(param) else { continue };
            let (sum, size) = expected.as_ref().map_or((0.0, -1.0), |sums| sums[next]);
            next += 1;
            // What an adjoint leaves in its arguments is no result.
            let is_result = std::ptr::eq(kernel, self.kernel) || number >= ones;
            if is_result {
                let (label, count) = (name(param), self.count(ty));
                self.line(&format!(
                    "good &= compare(\"{label}\", {label}{suffix}.data, {count}, {}, {}, {sum:?}, {size:?});",
                    ty.lanes, ty.pitch
                ));
            }
        }
    }

    /// The argument for faults, and what to print of each.
    fn faults(&mut self, kernel: &Kernel, number: &str, sites: &[Site]) {
        let rows: Vec<String> = sites.iter().map(row).collect();
        self.line(&format!("const Site sites{number}[] = {{"));
        rows.iter().for_each(|row| self.line(&format!("    {row},")));
        self.line("};");
        let mut grid = [1; 4].map(|length| length.to_string());
        grid[..kernel.grid.into()].fill("dim".into());
        self.line(&format!("Faults faults{number} = {{nullptr, 0, 1, {{{}}}}};", grid.join(", ")));
        self.line(&format!("CHECK(cudaMalloc(&faults{number}.cell, sizeof(Fault)));"));
        self.line(&format!("CHECK(cudaMemset(faults{number}.cell, 0, sizeof(Fault)));"));
    }

    /// The sum of each array behind a launch, and the sum of magnitudes; `None` if the interpreter finds a fault.
    fn expected(&self, kernel: &Kernel, ones: usize) -> Option<Vec<(f64, f64)>> {
        let mut arrays: Vec<Array<f64>> = vec![];
        let mut args = vec![];
        for (number, &param) in kernel.params.iter().enumerate() {
            args.push(match kernel.ty(param) {
                Type::Scalar(dtype) if dtype.is_float() => Arg::Float(SCALAR),
                Type::Scalar(_) => Arg::Int(self.dim as i64),
                Type::Array(ty) => {
                    let (lanes, pitch) = (usize::from(ty.lanes), usize::from(ty.pitch));
                    let numbers = (0..self.dim.pow(ty.ndim.into()) * lanes).map(|i| {
                        let i = i / lanes * pitch + i % lanes;
                        let mixed =
                            (i as u32).wrapping_add(17 * number as u32).wrapping_mul(2_654_435_761) >> 8;
                        (f64::from(mixed & 0xffff) / 65536.0 + 0.25, i64::from(mixed) % self.dim as i64)
                    });
                    let cells = match ty.dtype.is_float() {
                        true => Cells::Float(
                            numbers.map(|pair| if number < ones { pair.0 } else { 1.0 }).collect(),
                        ),
                        false => {
                            Cells::Int(numbers.map(|pair| crate::ir::eval::wrap(ty.dtype, pair.1)).collect())
                        }
                    };
                    arrays.push(Array { dtype: ty.dtype, shape: vec![self.dim; ty.ndim.into()], cells });
                    Arg::Array(arrays.len() - 1)
                }
            });
        }
        let grid = vec![self.dim; kernel.grid.into()];
        run(kernel, &grid, &args, &mut arrays, Run { rounded: true, fuel: FUEL }).ok()?;
        let sums = arrays.iter().map(|array| {
            let values: Vec<f64> = match &array.cells {
                Cells::Float(cells) => cells.clone(),
                Cells::Int(cells) => cells.iter().map(|&x| x as f64).collect(),
            };
            (values.iter().sum(), values.iter().map(|x| x.abs()).sum())
        });
        let sums: Vec<(f64, f64)> = sums.collect();
        sums.iter().all(|(sum, _): &(f64, f64)| sum.is_finite()).then_some(sums)
    }
}

/// What to print at a site, of the index and the length of its dimension.
fn row(site: &Site) -> String {
    let plain = |text: &str| text.replace('%', "%%");
    let (format, axis) = match site {
        Site::Assert { text, .. } => (plain(text), 0),
        Site::Within { text, .. } => (format!("index %lld is outside of {}", plain(text)), 0),
        Site::Index { name, place, axis, .. } => {
            let length = match place {
                Place::Param(_) => "%d".into(),
                Place::Local(count) => count.to_string(),
            };
            (format!("index %lld of {} is outside 0 to {length} in dimension {axis}", plain(name)), *axis)
        }
    };
    format!("{{{format:?}, {axis}}}")
}
