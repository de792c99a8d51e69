//! The text form of a kernel, which [`Kernel::parse`](super::Kernel::parse) reads back.
//!
//! ```text
//! kernel @scale(%x.0: array<f32, 1>, %s.1: f32) grid 1 {
//!   %i.2: i32 = tid 0
//!   %3: f32 = load %x.0, %i.2
//!   %4: f32 = mul %3, %s.1
//!   store %x.0, %i.2, %4
//! }
//! ```
//!
//! Values are numbered in the order in which they appear; the word before the number is the source's name. Constants are
//! written where they are used, with their type behind: `1.5f32`, `-3i32`, `true`. The yields of a block stand in its last
//! line. `array<f32x3of8, 2>` has 2 dimensions of elements of 3 scalars, 8 scalars apart.

use std::fmt::{self, Write};

use bullet_ops::DType;

use super::{ArrayType, Block, Const, Def, Inst, Kernel, Op, Space, Type, Value};

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(dtype) => f.write_str(dtype.name()),
            Type::Array(array) => array.fmt(f),
        }
    }
}

impl fmt::Display for ArrayType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Global => "array",
            Space::Shared => "shared",
            Space::Local => "local",
        };
        let (dtype, ndim) = (self.dtype.name(), self.ndim);
        match (self.lanes, self.pitch) {
            (1, 1) => write!(f, "{space}<{dtype}, {ndim}>"),
            (lanes, pitch) if pitch == lanes => write!(f, "{space}<{dtype}x{lanes}, {ndim}>"),
            (lanes, pitch) => write!(f, "{space}<{dtype}x{lanes}of{pitch}, {ndim}>"),
        }
    }
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_float(), self.as_int()) {
            (Some(x), _) => write!(f, "{x:?}{}", self.dtype().name()),
            (_, Some(x)) if self.dtype() == DType::Bool => write!(f, "{}", x != 0),
            (_, Some(x)) if self.dtype() == DType::U64 => write!(f, "{}u64", x as u64),
            (_, x) => write!(f, "{}{}", x.unwrap_or(0), self.dtype().name()),
        }
    }
}

struct Printer<'a> {
    kernel: &'a Kernel,
    numbers: Vec<Option<u32>>,
    next: u32,
    out: String,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer =
            Printer { kernel: self, numbers: vec![None; self.values.len()], next: 0, out: String::new() };
        printer.kernel().map_err(|_| fmt::Error)?;
        f.write_str(&printer.out)
    }
}

impl Printer<'_> {
    fn kernel(&mut self) -> fmt::Result {
        write!(self.out, "kernel @{}(", self.kernel.name)?;
        for (i, &param) in self.kernel.params.iter().enumerate() {
            self.comma(i);
            self.define(param)?;
        }
        let noalias = if self.kernel.noalias { " noalias" } else { "" };
        writeln!(self.out, ") grid {}{noalias} {{", self.kernel.grid)?;
        self.block(self.kernel.body, 1)?;
        self.out.push_str("}\n");
        Ok(())
    }

    fn comma(&mut self, i: usize) {
        if i > 0 {
            self.out.push_str(", ");
        }
    }

    /// A value where it comes to be, with its type.
    fn define(&mut self, value: Value) -> fmt::Result {
        self.numbers[value.index()] = Some(self.next);
        self.next += 1;
        self.usage(value)?;
        write!(self.out, ": {}", self.kernel.ty(value))
    }

    /// A value where it is used.
    fn usage(&mut self, value: Value) -> fmt::Result {
        if let Def::Const(constant) = self.kernel.value(value).def {
            return write!(self.out, "{constant}");
        }
        // A value that is used before it comes to be: `verify` refuses it, but it can be printed.
        let Some(number) = self.numbers[value.index()] else { return write!(self.out, "%?{}", value.0) };
        match self.kernel.name_of(value) {
            Some(name) => write!(self.out, "%{name}.{number}"),
            None => write!(self.out, "%{number}"),
        }
    }

    fn usages(&mut self, values: &[Value]) -> fmt::Result {
        for (i, &value) in values.iter().enumerate() {
            self.comma(i);
            self.usage(value)?;
        }
        Ok(())
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.out.push_str("  ");
        }
    }

    fn block(&mut self, block: Block, depth: usize) -> fmt::Result {
        for &inst in &self.kernel.block(block).insts {
            self.indent(depth);
            self.inst(inst, depth)?;
        }
        let yields = &self.kernel.block(block).yields;
        if !yields.is_empty() {
            self.indent(depth);
            self.out.push_str("yield ");
            self.usages(yields)?;
            self.out.push('\n');
        }
        Ok(())
    }

    fn inst(&mut self, inst: Inst, depth: usize) -> fmt::Result {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        // Results of regions are visible behind them only, but stand in front.
        let start = self.out.len();
        for (i, &result) in data.results.iter().enumerate() {
            self.comma(i);
            self.define(result)?;
        }
        if self.out.len() > start {
            self.out.push_str(" = ");
        }
        match data.op {
            Op::If => {
                self.out.push_str("if ");
                self.usage(data.args[0])?;
                self.out.push_str(" {\n");
                self.block(data.blocks[0], depth + 1)?;
                if !kernel.block(data.blocks[1]).insts.is_empty() || !data.results.is_empty() {
                    self.indent(depth);
                    self.out.push_str("} else {\n");
                    self.block(data.blocks[1], depth + 1)?;
                }
                self.indent(depth);
                self.out.push_str("}\n");
            }
            Op::For | Op::While => {
                let args = &kernel.block(data.blocks[0]).args;
                let (bounds, carried) = if data.op == Op::For { (3, &args[1..]) } else { (1, &args[..]) };
                if data.op == Op::For {
                    self.out.push_str("for ");
                    self.define(args[0])?;
                    self.out.push_str(" in ");
                } else {
                    self.out.push_str("while ");
                }
                self.usages(&data.args[..bounds])?;
                self.carry(carried, &data.args[bounds..])?;
                self.out.push_str(" {\n");
                self.block(data.blocks[0], depth + 1)?;
                self.indent(depth);
                self.out.push_str("}\n");
            }
            Op::Custom(_) => {
                self.out.push_str(&mnemonic(data.op));
                self.out.push(' ');
                self.usages(&data.args)?;
                self.out.push_str(" {\n");
                for (at, &block) in data.blocks.iter().enumerate() {
                    if at > 0 {
                        self.indent(depth);
                        self.out.push_str("} also (");
                        for (i, &arg) in kernel.block(block).args.iter().enumerate() {
                            self.comma(i);
                            self.define(arg)?;
                        }
                        self.out.push_str(") {\n");
                    }
                    self.block(block, depth + 1)?;
                }
                self.indent(depth);
                self.out.push_str("}\n");
            }
            op => {
                self.out.push_str(&mnemonic(op));
                if let Op::Print(text) | Op::Assert(text) | Op::Within(text) = op {
                    write!(self.out, " {:?}", kernel.text(text))?;
                }
                if !data.args.is_empty() {
                    self.out.push(' ');
                    self.usages(&data.args)?;
                }
                self.out.push('\n');
            }
        }
        Ok(())
    }

    fn carry(&mut self, args: &[Value], initial: &[Value]) -> fmt::Result {
        if args.is_empty() {
            return Ok(());
        }
        self.out.push_str(" carry (");
        for (i, (&arg, &from)) in args.iter().zip(initial).enumerate() {
            self.comma(i);
            self.define(arg)?;
            self.out.push_str(" = ");
            self.usage(from)?;
        }
        self.out.push(')');
        Ok(())
    }
}

/// The word of an op, with its number; texts are printed by the caller.
pub(super) fn mnemonic(op: Op) -> String {
    match op {
        Op::Tid(axis) => format!("tid {axis}"),
        Op::Dim(axis) => format!("dim {axis}"),
        Op::Alloc(count) => format!("alloc {count}"),
        Op::Push(slot) => format!("push {slot}"),
        Op::Pop(slot) => format!("pop {slot}"),
        Op::Unary(op) => op.name().into(),
        Op::Binary(op) => op.name().into(),
        Op::Compare(op) => op.name().into(),
        Op::Atomic(op) => op.name().into(),
        Op::Shuffle(op) => op.name().into(),
        Op::Select => "select".into(),
        Op::Cast => "cast".into(),
        Op::Bitcast => "bitcast".into(),
        Op::Load => "load".into(),
        Op::Store => "store".into(),
        Op::CompareExchange => "atomic_cas".into(),
        Op::If => "if".into(),
        Op::For => "for".into(),
        Op::While => "while".into(),
        Op::Turn => "turn".into(),
        Op::Custom(number) => format!("custom {number}"),
        Op::Barrier => "barrier".into(),
        Op::Print(_) => "print".into(),
        Op::Assert(_) => "assert".into(),
        Op::Within(_) => "within".into(),
    }
}
