//! PTX of our own, straight from the IR: for machines without NVRTC, and for those who do not want to wait for it.
//!
//! The functions have the names, parameters and tapes of those that [`cuda`](super::cuda) emits, so that a launch does not see
//! who compiled them. All that the language lowers to is covered; IR from elsewhere may hold what is not, which is [`Unsupported`] by
//! name (a compare-and-exchange of 16 bits, say), and for NVRTC.
//!
//! # Target
//! The text asks for the oldest architecture that has its instructions, and the first version of PTX that knows that one: a
//! driver takes PTX of older architectures, and an old driver knows no new version. Four sets of instructions differ
//! ([`Target`]): atomic sums of f64 are a loop below sm_60, shuffles say whom they wait for from sm_70 on, and bf16 is rounded
//! by an instruction from sm_80 on.
//!
//! # Text
//! Registers are as many as there are values: `ptxas`, or the driver, allocates them, schedules, and unrolls. They have no type but a
//! width (`asm::Class`), so that a bitcast is nothing. Integers of 8 and 16 bits lie extended in 32; floats of 16 bits are
//! computed with as f32 and rounded behind each operation. A loop's and a branch's results are registers that several places assign
//! to, which is all that is left of SSA. A product that is used once, in a sum, is one instruction with it, as NVRTC has it; the others
//! say no rounding, so that `ptxas` may do the same with differences. Mathematical functions say `.rn` everywhere and mean it.
//!
//! Parameters and what follows from them alone (addresses of arrays, strides in bytes, the thread's place) are read and computed at the
//! head of the function, where all of it sees them. Addresses of elements are computed once in a block and those within.
//!
//! A value that goes on the tape outside of every loop does so once: it stays in a register.
//!
//! Names of a module begin with `$`, which no identifier of Python does; a kernel may be called as a register, which belongs to its
//! function alone.
//!
//! ```text
//! asm      registers, operands, lines
//! arith    arithmetic and conversions           math, power, trig, errors   mathematical functions
//! memory   parameters, arrays, loads, stores    atomic, warp         updates, sums of warps, shuffles
//! control  branches and loops                   tape, print, faults  what threads put aside, say, and stop at
//! ```

use std::fmt::{self, Write};

use bullet_ops::DType;
use rustc_hash::{FxHashMap, FxHashSet};

use super::cuda::{
    CudaOptions, Layout, TapePlace, constant, recorded, sites_of, symbol, tape_place, warp_sums,
};
use crate::fault::Sites;
use crate::ir::{Def, Inst, Kernel, Op, Type, Value, Values};
use crate::order;

mod arith;
mod asm;
mod atomic;
mod control;
mod errors;
mod faults;
mod math;
mod memory;
mod power;
mod print;
mod tape;
mod trig;
mod warp;

use asm::{Asm, Class, Operand, put};
use math::{FEW, Function, Stands};

/// A set of instructions: the architectures from one on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// Kepler and Maxwell.
    Sm35,
    /// Pascal: atomic sums of f64.
    Sm60,
    /// Volta and Turing: shuffles that synchronise.
    Sm70,
    /// Ampere and everything later: conversions to bf16.
    Sm80,
}

impl Target {
    /// What a GPU of this compute capability has, from 3.5 on.
    pub fn of((major, minor): (u32, u32)) -> Option<Target> {
        match major {
            8.. => Some(Target::Sm80),
            7 => Some(Target::Sm70),
            6 => Some(Target::Sm60),
            5 => Some(Target::Sm35),
            3 if minor >= 5 => Some(Target::Sm35),
            _ => None,
        }
    }

    /// The architecture, and the first version of PTX that has its instructions.
    fn directives(self) -> (&'static str, &'static str) {
        match self {
            Target::Sm35 => ("sm_35", "4.3"),
            Target::Sm60 => ("sm_60", "5.0"),
            Target::Sm70 => ("sm_70", "6.2"),
            Target::Sm80 => ("sm_80", "7.0"),
        }
    }

    fn has_atomic_doubles(self) -> bool {
        self >= Target::Sm60
    }

    fn has_sync(self) -> bool {
        self >= Target::Sm70
    }

    fn has_bfloat(self) -> bool {
        self >= Target::Sm80
    }
}

/// What this emitter does not do, in words: it has no PTX for such a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// The kernel.
    pub kernel: String,
    /// What it uses.
    pub what: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` uses {}: Bullet's own PTX does not have that, NVRTC does", self.kernel, self.what)
    }
}

impl std::error::Error for Unsupported {}

/// Bytes of text for each value, more or less.
const TYPICAL_LINE: usize = 32;

/// A module with these kernels, which must have different names.
///
/// # Errors
/// One of them uses what this emitter has not.
pub fn module(kernels: &[&Kernel], options: CudaOptions, target: Target) -> Result<String, Unsupported> {
    let (mut entries, mut functions, mut texts) = (String::new(), vec![], vec![]);
    for kernel in kernels {
        let plain = kernel.plain();
        let mut emitter = Emitter::new(&plain, options, target);
        emitter.first_text = texts.len();
        let mut entry = emitter.entry()?;
        entries += &entry.text;
        functions.append(&mut entry.calls);
        texts.append(&mut entry.prints);
    }
    let (arch, version) = target.directives();
    let mut out = format!(
        "// Generated by Bullet's kernel language.\n.version {version}\n.target {arch}\n.address_size 64\n"
    );
    if !texts.is_empty() {
        out += print::EXTERN;
    }
    texts.iter().enumerate().for_each(|(number, text)| out += &print::constant(number, text));
    math::write(&mut out, functions);
    out += &entries;
    Ok(out)
}

/// What was found out once, and need not be computed again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    /// What a parameter holds at a byte.
    Param(u32, usize),
    /// The value of a scalar parameter.
    Scalar(u32),
    /// The address of an array's first element.
    Base(Value),
    /// Bytes from one element to the next in a dimension.
    Stride(Value, usize),
    /// The address of an allocation.
    AddressOf(Operand),
    /// This thread's place in a dimension.
    Tid(u8),
    /// The address of an element.
    Element(Value, Values),
    /// Whether a number is 0.
    IsZero(Operand),
}

/// Whether the mathematical functions of a kernel are so few that they stand where they are used.
fn has_few_functions(kernel: &Kernel) -> bool {
    let is_long = |inst: &Inst| match kernel.inst(*inst).op {
        Op::Unary(op) => {
            let is_double = kernel.dtype(kernel.inst(*inst).args[0]) == DType::F64;
            Function::Unary(op, is_double).place() == Stands::InPlaceIfFew
        }
        _ => false,
    };
    kernel.instructions().iter().filter(|inst| is_long(inst)).count() <= FEW
}

struct Emitter<'a> {
    kernel: &'a Kernel,
    layout: Layout,
    target: Target,
    asm: Asm,
    /// What stands in front of the text: declarations, and what follows from parameters alone.
    head: String,
    declarations: String,
    /// The register or constant of each value.
    values: Vec<Option<Operand>>,
    uses: Vec<u32>,
    /// What is known here, and in which order it was learnt where that ends with a block.
    facts: FxHashMap<Key, Operand>,
    order: Vec<Key>,
    /// The 16 bits of floats that have no more digits.
    packed: FxHashMap<(DType, Operand), Operand>,
    /// Factors of products that wait for the sum that they are part of.
    products: FxHashMap<Value, [Operand; 2]>,
    /// The sums that a product used once is part of, in its own block.
    sums: FxHashSet<Value>,
    /// Arrays of the thread's or block's own: their names and lengths.
    own: FxHashMap<Value, (Operand, u32)>,
    /// The thread's linear place.
    thread: Operand,
    tape: tape::Tape,
    /// Which instructions put down records.
    recorded: Vec<bool>,
    records: tape::Records,
    /// The instructions that add what a warp sums first, and the arrays that nothing writes meanwhile.
    warp_sums: Vec<bool>,
    /// What may stop a thread, and where the text is that reports it.
    sites: Sites,
    fault: Option<faults::Report>,
    constant: FxHashSet<Value>,
    /// What it prints, the number of the first of these texts in the module, and the bytes of the longest list of arguments.
    texts: Vec<String>,
    first_text: usize,
    printed: usize,
    unsupported: Option<String>,
}

/// A kernel's text, what it calls, and what it prints.
struct Entry {
    text: String,
    calls: Vec<Function>,
    prints: Vec<String>,
}

impl<'a> Emitter<'a> {
    fn new(kernel: &'a Kernel, options: CudaOptions, target: Target) -> Emitter<'a> {
        let recorded = recorded(kernel, options);
        let arrays = if recorded.contains(&true) { order::arrays_of(kernel, &recorded) } else { vec![] };
        let mut asm = Asm::new(has_few_functions(kernel));
        asm.text.reserve(TYPICAL_LINE * kernel.value_count());
        Emitter {
            kernel,
            layout: options.layout,
            target,
            asm,
            head: String::new(),
            declarations: String::new(),
            values: vec![None; kernel.value_count()],
            uses: kernel.use_counts(),
            facts: FxHashMap::default(),
            order: vec![],
            packed: FxHashMap::default(),
            products: FxHashMap::default(),
            sums: FxHashSet::default(),
            own: FxHashMap::default(),
            thread: Operand::Int(0),
            tape: tape::Tape::new(kernel, tape_place(kernel)),
            records: tape::Records::of(arrays),
            warp_sums: warp_sums(kernel),
            sites: sites_of(kernel, options, &recorded),
            fault: None,
            constant: constant(kernel),
            recorded,
            texts: vec![],
            first_text: 0,
            printed: 0,
            unsupported: None,
        }
    }

    /// The text of the kernel, and what it calls.
    fn entry(mut self) -> Result<Entry, Unsupported> {
        self.begin();
        // What follows from parameters alone stands behind what says whether there is such a thread.
        let begin = std::mem::take(&mut self.asm.text);
        self.head += &begin;
        self.block(self.kernel.body);
        if self.records() {
            self.close_records();
        }
        if let Some(what) = self.unsupported {
            return Err(Unsupported { kernel: self.kernel.name.clone(), what });
        }
        let mut out = format!(".visible .entry {}({})\n{{\n", symbol(&self.kernel.name), self.parameters());
        self.declarations += &self.buffer();
        put!(self.asm, "ret;");
        self.report();
        for part in [&self.asm.registers(), &self.declarations, &self.head, &self.asm.text] {
            out += part;
        }
        out += "}\n";
        Ok(Entry { text: out, calls: self.asm.calls, prints: self.texts })
    }

    /// Notes that something is not covered; the first is told.
    fn fail(&mut self, what: &str) {
        self.unsupported.get_or_insert_with(|| what.into());
    }

    /// Whether threads put down records.
    fn records(&self) -> bool {
        !self.records.arrays.is_empty()
    }

    fn is_recorded(&self, inst: Inst) -> bool {
        self.recorded.get(inst.index()) == Some(&true)
    }

    /// The declarations of the parameters: as `cuda` has them, by number.
    fn parameters(&self) -> String {
        let kernel = self.kernel;
        let mut types: Vec<String> = vec![".u32".into(); kernel.grid.into()];
        for &param in &kernel.params {
            types.push(match kernel.ty(param) {
                Type::Scalar(dtype) => format!(".b{}", 8 * dtype.size()),
                array => format!(".align 8 .b8[{}]", memory::array_size(array, self.layout)),
            });
        }
        if !self.sites.all.is_empty() {
            types.push(format!(".align 8 .b8[{}]", faults::ARGUMENT));
        }
        if self.tape.place == TapePlace::Argument {
            types.extend([".u64", ".u32", ".u64"].map(String::from));
        }
        if self.records() {
            types.extend([".u64", ".u64", ".u32", ".u64", ".u64", ".u64", ".u64"].map(String::from));
            types.extend(self.records.arrays.iter().map(|_| String::from(".u64")));
        }
        let mut out = String::new();
        for (number, ty) in types.iter().enumerate() {
            let (ty, length) = ty.find('[').map_or((&**ty, ""), |at| ty.split_at(at));
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(out, "{comma}.param {ty} ${number}{length}");
        }
        out
    }

    /// The thread's place, the end of those that have none, and what they put aside.
    fn begin(&mut self) {
        let grid = u32::from(self.kernel.grid);
        let wide = self.is_wide();
        let [block, length, place] = self.special();
        let mut size = self.dim(0);
        if wide {
            let place = self.asm.make(Class::Long, "cvt.u64.u32", &[place]);
            self.thread = self.asm.make(Class::Long, "mad.wide.u32", &[block, length, place]);
            size = self.asm.make(Class::Long, "cvt.s64.s32", &[size]);
            for axis in 1..grid {
                let dim = self.dim(axis);
                let dim = self.asm.make(Class::Long, "cvt.s64.s32", &[dim]);
                size = self.asm.make(Class::Long, "mul.lo.s64", &[size, dim]);
            }
        } else {
            self.thread = self.asm.make(Class::Word, "mad.lo.s32", &[block, length, place]);
            for axis in 1..grid {
                let dim = self.dim(axis);
                size = self.asm.make(Class::Word, "mul.lo.s32", &[size, dim]);
            }
        }
        let mut slots = None;
        if self.records() {
            let [slot, stride, thread] = self.record_slot(self.thread);
            let out = self.asm.test("ge.s64", slot, stride);
            put!(self.asm, "@{out} ret;");
            self.thread = thread;
            slots = Some((slot, stride));
        }
        let out = self.asm.test(if wide { "ge.s64" } else { "ge.u32" }, self.thread, size);
        put!(self.asm, "@{out} ret;");
        self.open_tape(self.thread, size);
        if let Some((slot, stride)) = slots {
            self.open_records(slot, stride);
        }
    }

    /// The block's number, its threads, and the thread's place in it.
    fn special(&mut self) -> [Operand; 3] {
        ["%ctaid.x", "%ntid.x", "%tid.x"].map(|name| {
            let register = self.asm.reg(Class::Word);
            put!(self.asm, "mov.u32 {register},{name};");
            register
        })
    }

    /// Whether there may be more threads than an int counts.
    fn is_wide(&self) -> bool {
        self.records() || (self.layout == Layout::Strided && self.kernel.grid > 1)
    }

    /// An extent of the launch.
    fn dim(&mut self, axis: u32) -> Operand {
        self.param(axis, 0, "u32", Class::Word)
    }

    /// This thread's place in a dimension.
    fn tid(&mut self, axis: u8) -> Operand {
        let key = Key::Tid(axis);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let place = self.at_head(|this| this.place_in(axis.into()));
        self.facts.insert(key, place);
        place
    }

    fn place_in(&mut self, axis: u32) -> Operand {
        let grid = u32::from(self.kernel.grid);
        let (class, ty) = if self.is_wide() { (Class::Long, "u64") } else { (Class::Word, "u32") };
        let widened = |this: &mut Self, axis: u32| {
            let dim = this.dim(axis);
            if class == Class::Long { this.asm.make(class, "cvt.s64.s32", &[dim]) } else { dim }
        };
        let mut place = self.thread;
        if axis + 1 < grid {
            let mut behind = widened(self, axis + 1);
            for next in axis + 2..grid {
                let dim = widened(self, next);
                behind = self.asm.make(class, &format!("mul.lo.{ty}"), &[behind, dim]);
            }
            place = self.asm.make(class, &format!("div.{ty}"), &[place, behind]);
        }
        if axis > 0 {
            let dim = widened(self, axis);
            place = self.asm.make(class, &format!("rem.{ty}"), &[place, dim]);
        }
        if class == Class::Long { self.asm.make(Class::Word, "cvt.u32.u64", &[place]) } else { place }
    }

    /// Emits at the head of the function what follows from parameters alone.
    fn at_head<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let body = std::mem::replace(&mut self.asm.text, std::mem::take(&mut self.head));
        let made = work(self);
        self.head = std::mem::replace(&mut self.asm.text, body);
        made
    }

    /// The register or constant of a value.
    fn get(&mut self, value: Value) -> Operand {
        if let Some(known) = self.values[value.index()] {
            return known;
        }
        if let Some(factors) = self.products.remove(&value) {
            let product = self.op("mul", self.kernel.dtype(value), &factors);
            self.values[value.index()] = Some(product);
            return product;
        }
        match self.kernel.value(value).def {
            Def::Const(constant) if constant.dtype() == DType::Bool => {
                let bit = Operand::Int(if constant.is(0) { 0 } else { -1 });
                self.asm.make(Class::Truth, "mov.pred", &[bit])
            }
            Def::Const(constant) => Operand::of(constant),
            Def::Param(number) => self.scalar(number, self.kernel.dtype(value)),
            _ => {
                self.fail("a value that is not there");
                Operand::Int(0)
            }
        }
    }
}
