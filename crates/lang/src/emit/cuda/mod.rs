//! CUDA C++ that a person can read and that needs no header, for NVRTC 11.2 and later and sm_35 and up.
//!
//! One IR kernel becomes one `extern "C" __global__` function. Its arguments are the extents of the launch (`dim0` ..), then
//! the kernel's parameters: scalars as they are, arrays as an [`Array`](self#arrays) by value, and at last the tape, if it
//! has one that does not fit the thread's own memory. A thread takes its place from its linear index, the last dimension
//! fastest; threads behind the last return at once. A kernel with barriers or shuffles must therefore be launched with whole
//! blocks and warps: its grid is a multiple of the block's threads.
//!
//! # Arrays
//! `ArrayN<T>` holds a pointer, N lengths, and with [`Layout::Strided`] N strides, in scalars; C++ lays it out as a pointer,
//! `int[N]` and `long long[N]`. An element of several lanes is that many scalars side by side. Arrays and parameters of f16 and
//! bf16 hold their 16 bits; the text computes with floats, and rounds them behind each operation.
//!
//! # Tape
//! Three arguments: `unsigned* tape_words, unsigned tape_size, unsigned* tape_need`. Word w of thread t is at
//! `w * threads + t`. A launch with null `tape_words` only raises `*tape_need` to the words of the thread that needs most,
//! and writes nothing but scratch; the next has that many words a thread, its `tape_size`. A thread that needs more than
//! it has writes no gradient, and says so in `*tape_need`, which a launch therefore looks at again.
//!
//! # Faults
//! A kernel that may stop a thread (`assert`, indices that are checked) has one argument more, behind its own: `faults.rs` says
//! which, and what a thread does that goes wrong.
//!
//! # Records
//! With [`CudaOptions::records`] sums of floats whose order matters are put down as records: `records.rs` says how, and
//! [`order`] what for.
//!
//! Pure operations that are used once become part of the expression that uses them; everything else is a `const` variable
//! with the source's name, where it has one. What loops carry and branches give are variables that are assigned.

use std::fmt::Write;

use bullet_ops::DType;
use rustc_hash::FxHashSet;

use crate::adjoint::Tape;
use crate::fault::Sites;
use crate::ir::{ArrayType, Block, Kernel, Op, Type, Value};
use crate::order;

mod expr;
mod faults;
mod half;
mod names;
mod prelude;
mod records;
mod standalone;
mod stmt;
mod warp;

pub use faults::sites;
pub(crate) use faults::{recorded, sites_of};
pub use names::symbol;
pub(crate) use records::number as record_number;
pub use records::{CHUNK, FOLD, fold_source};
pub use standalone::standalone;
pub(crate) use warp::summed as warp_sums;

/// How arrays lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Layout {
    /// In C order without gaps, at addresses that are multiples of their [`alignment`], with at most `i32::MAX` scalars each,
    /// launched over at most as many threads: places are of 32 bits, and scalars of an element are read several at once.
    #[default]
    Contiguous,
    /// With a stride for each dimension, anywhere, of any size.
    Strided,
}

/// What the text depends on beside the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CudaOptions {
    /// Of every array.
    pub layout: Layout,
    /// Whether sums whose order matters are recorded, of kernels whose [order](crate::order::order) is `Records`.
    pub records: Option<Sharing>,
    /// Which indices of arrays are checked.
    pub checks: Checks,
}

/// Which indices of arrays are checked that are not in range for sure. Those of components and slices always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checks {
    /// None: one that is out of range reads or writes memory that is not the array's.
    #[default]
    Off,
    /// All.
    All,
    /// All but those of sums that are recorded, of a kernel that only counts them.
    Unrecorded,
}

/// What is known of the memory of arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// No two elements lie at one place.
    Distinct,
    /// Some may.
    Any,
}

/// Bytes of text for each value, more or less.
const TYPICAL_LINE: usize = 24;

/// The most words of a tape that a thread holds itself.
const OWN_TAPE: u64 = 64;

/// Where a kernel's tape is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TapePlace {
    None,
    /// So many words in the thread's own memory.
    Own(u64),
    /// In an argument.
    Argument,
}

/// Where a kernel's tape is, and so whether it takes arguments for it.
pub(crate) fn tape_place(kernel: &Kernel) -> TapePlace {
    match Tape::of(kernel) {
        Tape::Words(0) => TapePlace::None,
        Tape::Words(words) if words <= OWN_TAPE => TapePlace::Own(words),
        _ => TapePlace::Argument,
    }
}

/// Whether the function of a kernel takes the three arguments of a tape: of the size that [`Tape::Words`] says, or that a
/// launch has to measure.
pub fn takes_tape(kernel: &Kernel) -> bool {
    tape_place(kernel) == TapePlace::Argument
}

/// A source file with these kernels, which must have different names.
pub fn source(kernels: &[&Kernel], options: CudaOptions) -> String {
    let mut functions = String::new();
    let mut needs = prelude::Needs::default();
    for kernel in kernels {
        functions.push('\n');
        let kernel = &*kernel.plain();
        let emitter = Emitter::new(kernel, options, &mut needs);
        functions += &emitter.function();
    }
    let mut out = String::from("// Generated by Bullet's kernel language.\n");
    prelude::write(&mut out, &needs, options.layout);
    out + &functions
}

/// The C++ type of a value of a dtype.
pub(crate) fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::U8 => "unsigned char",
        DType::U16 => "unsigned short",
        DType::U32 => "unsigned",
        DType::U64 => "unsigned long long",
        DType::I8 => "signed char",
        DType::I16 => "short",
        DType::I32 => "int",
        DType::I64 => "long long",
        // Values are computed with as floats; `half::storage` is what memory holds.
        DType::F16 | DType::BF16 | DType::F32 => "float",
        DType::F64 => "double",
    }
}

/// The bytes that the address of a [contiguous](Layout::Contiguous) array is a multiple of.
pub fn alignment(array: ArrayType) -> usize {
    at_once(array) * array.dtype.size()
}

/// How many scalars of a contiguous array's elements are read or written at once: 4, 2 or 1, in at most 16 bytes.
pub(crate) fn at_once(array: ArrayType) -> usize {
    let fits = |width: u16| {
        array.pitch == array.lanes
            && array.lanes.is_multiple_of(width)
            && usize::from(width) * array.dtype.size() <= 16
    };
    [4, 2].into_iter().find(|&width| fits(width)).map_or(1, usize::from)
}

struct Emitter<'a> {
    kernel: &'a Kernel,
    layout: Layout,
    needs: &'a mut prelude::Needs,
    tape: TapePlace,
    /// The instructions that put down records, and by its number what each array is called whose elements these are of.
    recorded: Vec<bool>,
    record_keys: Vec<Option<String>>,
    sites: Sites,
    /// The instructions that add what a warp sums first, and the arrays that nothing writes meanwhile.
    warp_sums: Vec<bool>,
    constant: FxHashSet<Value>,
    names: names::Names,
    /// The text of each value: a variable, a literal or an expression.
    texts: Vec<Option<expr::Text>>,
    uses: Vec<u32>,
    /// The block that each value is used in, if it is one.
    user: Vec<Option<Block>>,
    out: String,
    depth: usize,
}

impl<'a> Emitter<'a> {
    fn new(kernel: &'a Kernel, options: CudaOptions, needs: &'a mut prelude::Needs) -> Emitter<'a> {
        let layout = options.layout;
        let mut user = vec![None; kernel.value_count()];
        let mut shared = FxHashSet::default();
        users(kernel, kernel.body, &mut user, &mut shared);
        for value in shared {
            user[value] = None;
        }
        let recorded = faults::recorded(kernel, options);
        Emitter {
            kernel,
            layout,
            needs,
            tape: tape_place(kernel),
            sites: faults::sites_of(kernel, options, &recorded),
            recorded,
            record_keys: vec![None; kernel.params.len()],
            warp_sums: warp::summed(kernel),
            constant: constant(kernel),
            names: names::Names::new(),
            texts: vec![None; kernel.value_count()],
            uses: kernel.use_counts(),
            user,
            out: String::with_capacity(TYPICAL_LINE * kernel.value_count()),
            depth: 1,
        }
    }

    fn function(mut self) -> String {
        let kernel = self.kernel;
        let mut halves = vec![];
        let mut params: Vec<String> = (0..kernel.grid).map(|axis| format!("int dim{axis}")).collect();
        for &param in &kernel.params {
            let name = self.names.unique(kernel.name_of(param).unwrap_or("arg"));
            params.push(match kernel.ty(param) {
                Type::Scalar(dtype) if half::is_half(dtype) => {
                    let bits = self.names.unique(&format!("{name}_bits"));
                    halves.push((name.clone(), bits.clone()));
                    format!("{} {bits}", self.storage(dtype))
                }
                Type::Scalar(dtype) => format!("{} {name}", type_name(dtype)),
                Type::Array(array) => {
                    self.needs.arrays.insert(array.ndim);
                    format!("Array{}<{}> {name}", array.ndim, self.storage(array.dtype))
                }
            });
            self.texts[param.index()] = Some(expr::Text::variable(name));
        }
        if !self.sites.all.is_empty() {
            self.needs.faults = true;
            params.push("Faults faults".into());
        }
        if self.tape == TapePlace::Argument {
            params.extend(
                ["unsigned* tape_words", "unsigned tape_size", "unsigned* tape_need"].map(String::from),
            );
        }
        self.record_parameters(&mut params);
        let name = symbol(&kernel.name);
        let params = wrap(&params, &format!("extern \"C\" __global__ void {name}("), ")");
        let _ = writeln!(self.out, "{params} {{");
        self.place();
        for (name, bits) in halves {
            self.line(&format!("const float {name} = {bits};"));
        }
        self.block(kernel.body);
        if self.records() {
            self.line("if (record_log.count > record_size) atomicMax(record_need, record_log.count);");
        }
        self.out.push_str("}\n");
        self.out
    }

    /// Whether threads put down records.
    fn records(&self) -> bool {
        self.recorded.contains(&true)
    }

    fn record_parameters(&mut self, params: &mut Vec<String>) {
        let kernel = self.kernel;
        if !self.records() {
            return;
        }
        self.needs.records = true;
        let own = [
            "long long record_first",
            "long long record_stride",
            "unsigned record_size",
            "unsigned* record_need",
            "long long* record_keys",
            "unsigned long long* record_cells",
            "double* record_values",
        ];
        params.extend(own.map(String::from));
        for number in order::arrays_of(kernel, &self.recorded) {
            let name = kernel.name_of(kernel.params[number]).unwrap_or("arg");
            let name = self.names.unique(&format!("{name}_key"));
            params.push(format!("long long {name}"));
            self.record_keys[number] = Some(name);
        }
    }

    /// The thread's place in the grid, and the end of those that have none.
    fn place(&mut self) {
        let grid = self.kernel.grid;
        let size: Vec<String> = (0..grid).map(|axis| format!("dim{axis}")).collect();
        let wide = self.has_wide_places();
        let size = format!("{}{}", if wide { "(long long)" } else { "(unsigned)" }, size.join(" * "));
        if self.records() {
            self.line("const long long record_slot = (long long)blockIdx.x * blockDim.x + threadIdx.x;");
            self.line("const long long thread = record_first + record_slot;");
            self.line(&format!("if (record_slot >= record_stride || thread >= {size}) return;"));
            self.line("Records record_log = {record_keys + record_slot, record_cells + record_slot,");
            self.line("                      record_values + record_slot, record_stride, record_size, 0};");
        } else {
            self.line(match wide {
                true => "const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;",
                false => "const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;",
            });
            self.line(&format!("if (thread >= {size}) return;"));
        }
        match self.tape {
            TapePlace::None => {}
            TapePlace::Own(words) => {
                self.needs.tape = true;
                self.line(&format!("unsigned tape_words[{words}];"));
                self.line(&format!("Tape tape = {{tape_words, 1, {words}, 0}};"));
            }
            TapePlace::Argument => {
                self.needs.tape = true;
                self.line(&format!(
                    "Tape tape = {{tape_words + thread, {size}, tape_words ? tape_size : 0, 0}};"
                ));
            }
        }
    }

    /// Whether there may be more threads than an int counts.
    fn has_wide_places(&self) -> bool {
        self.records() || (self.layout == Layout::Strided && self.kernel.grid > 1)
    }

    /// This thread's place in a dimension.
    fn tid(&self, axis: u8) -> String {
        let grid = self.kernel.grid;
        let behind: Vec<String> = (axis + 1..grid).map(|axis| format!("dim{axis}")).collect();
        let rest = match behind.len() {
            0 => "thread".into(),
            1 => format!("thread / {}", behind[0]),
            _ if self.has_wide_places() => format!("thread / ((long long){})", behind.join(" * ")),
            _ => format!("thread / ({})", behind.join(" * ")),
        };
        match axis {
            0 if grid == 1 => "(int)thread".into(),
            0 => format!("(int)({rest})"),
            _ => format!("(int)({rest} % dim{axis})"),
        }
    }

    fn line(&mut self, text: &str) {
        self.line_of(&[text]);
    }

    /// A line of these parts.
    fn line_of(&mut self, parts: &[&str]) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        parts.iter().for_each(|part| self.out.push_str(part));
        self.out.push('\n');
    }

    fn ty(&self, value: Value) -> &'static str {
        type_name(self.kernel.dtype(value))
    }

    /// The type of a dtype in memory.
    fn storage(&mut self, dtype: DType) -> &'static str {
        self.needs.halves.extend(half::is_half(dtype).then_some(dtype));
        half::storage(dtype)
    }
}

/// The parameters that no thread of a launch writes to.
pub(crate) fn constant(kernel: &Kernel) -> FxHashSet<Value> {
    if !kernel.noalias {
        return FxHashSet::default();
    }
    let effects = kernel.effects();
    kernel.params.iter().zip(effects).filter(|(_, effect)| !effect.writes).map(|(&param, _)| param).collect()
}

/// The one block that uses each value; those that several use are `shared`.
fn users(kernel: &Kernel, block: Block, user: &mut [Option<Block>], shared: &mut FxHashSet<usize>) {
    let mut note = |value: Value| {
        match user[value.index()] {
            None => user[value.index()] = Some(block),
            Some(known) if known == block => {}
            Some(_) => {
                shared.insert(value.index());
            }
        };
    };
    for &inst in &kernel.block(block).insts {
        kernel.inst(inst).args.iter().for_each(|&arg| note(arg));
    }
    kernel.block(block).yields.iter().for_each(|&value| note(value));
    for &inst in &kernel.block(block).insts {
        for &inner in &kernel.inst(inst).blocks {
            users(kernel, inner, user, shared);
        }
    }
}

/// A list between brackets, with line breaks where it gets long.
fn wrap(items: &[String], open: &str, close: &str) -> String {
    let mut out = open.to_string();
    let indent = " ".repeat(open.len());
    let mut width = open.len();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
            if width + item.len() > 110 {
                out.push('\n');
                out.push_str(&indent);
                width = indent.len();
            } else {
                out.push(' ');
            }
        }
        out.push_str(item);
        width += item.len() + 2;
    }
    out + close
}

/// Whether an op's single use may hold its expression.
fn folds(op: Op) -> bool {
    op.is_pure() && !matches!(op, Op::Tid(_))
}
