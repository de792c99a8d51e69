//! Lines of PTX: registers, operands, and the text of one function.

use std::fmt::{self, Write};

use bullet_ops::DType;

use crate::ir::Const;

/// What a register holds. They are untyped; instructions say what the bits are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Class {
    /// A truth.
    Truth,
    /// 16 bits on their way from or to memory.
    Half,
    /// 32 bits: integers up to that width, extended as their type says, and floats up to that width, as f32.
    Word,
    /// 64 bits.
    Long,
}

impl Class {
    const ALL: [Class; 4] = [Class::Truth, Class::Half, Class::Word, Class::Long];

    /// That of a value of a dtype.
    pub(super) fn of(dtype: DType) -> Class {
        match dtype {
            DType::Bool => Class::Truth,
            DType::F64 | DType::I64 | DType::U64 => Class::Long,
            _ => Class::Word,
        }
    }

    fn letter(self) -> char {
        ['p', 'h', 'r', 'd'][self as usize]
    }

    fn ty(self) -> &'static str {
        ["pred", "b16", "b32", "b64"][self as usize]
    }
}

/// What an instruction reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Operand {
    Reg(Class, u32),
    Int(i64),
    /// An f32, by its bits.
    Single(u32),
    /// An f64, by its bits.
    Double(u64),
    /// A name of ours, which no name of Python meets: a letter or word and a number.
    Name(&'static str, u32),
    /// The thread's place in its warp.
    Lane,
    /// An argument of a function of ours.
    Arg(u32),
    /// The result of a function of ours.
    Result,
}

impl Operand {
    /// The operand that a constant is; a truth is none, and lies in a register.
    pub(super) fn of(constant: Const) -> Operand {
        match (constant.dtype(), constant.as_float()) {
            (DType::F64, Some(x)) => Operand::double(x),
            (_, Some(x)) => Operand::single(x as f32),
            _ => Operand::Int(constant.as_int().unwrap_or(0)),
        }
    }

    pub(super) fn single(x: f32) -> Operand {
        Operand::Single(if x.is_nan() { 0x7fff_ffff } else { x.to_bits() })
    }

    pub(super) fn double(x: f64) -> Operand {
        Operand::Double(if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() })
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Operand::Reg(class, number) => write!(f, "{}{number}", class.letter()),
            Operand::Int(n) => write!(f, "{n}"),
            Operand::Single(bits) => write!(f, "0f{bits:08X}"),
            Operand::Double(bits) => write!(f, "0d{bits:016X}"),
            Operand::Name(stem, number) => write!(f, "${stem}{number}"),
            Operand::Lane => f.write_str("%laneid"),
            Operand::Arg(number) => write!(f, "x{number}"),
            Operand::Result => f.write_str("y"),
        }
    }
}

/// A place in memory: an address, and bytes behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) base: Operand,
    pub(super) offset: i64,
}

impl Place {
    pub(super) fn at(base: Operand) -> Place {
        Place { base, offset: 0 }
    }

    pub(super) fn plus(self, bytes: usize) -> Place {
        Place { offset: self.offset + bytes as i64, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            0 => write!(f, "[{}]", self.base),
            offset => write!(f, "[{}{offset:+}]", self.base),
        }
    }
}

/// A place in the text that branches go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(u32);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$L{}", self.0)
    }
}

/// Writes a line of PTX.
macro_rules! put {
    ($asm:expr, $($text:tt)*) => {
        $asm.line(format_args!($($text)*))
    };
}
pub(super) use put;

/// The text of one function, and the registers that it has so far.
pub(super) struct Asm {
    pub(super) text: String,
    counts: [u32; 4],
    labels: u32,
    /// Whether mathematical functions of some length stand where they are used.
    pub(super) in_place: bool,
    /// The functions of ours that it calls.
    pub(super) calls: Vec<super::math::Function>,
}

impl Asm {
    /// Of an empty function, with or without other functions' text in it.
    pub(super) fn new(in_place: bool) -> Asm {
        Asm { text: String::new(), counts: [0; 4], labels: 0, in_place, calls: vec![] }
    }

    /// A line.
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.text.write_fmt(text);
        self.text.push('\n');
    }

    /// A register that nothing else uses.
    pub(super) fn reg(&mut self, class: Class) -> Operand {
        let count = &mut self.counts[class as usize];
        *count += 1;
        Operand::Reg(class, *count - 1)
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    pub(super) fn place(&mut self, label: Label) {
        put!(self, "{label}:");
    }

    /// What an instruction gives, in a new register.
    pub(super) fn make(&mut self, class: Class, op: &str, args: &[Operand]) -> Operand {
        let result = self.reg(class);
        self.set(result, op, args);
        result
    }

    /// An instruction with this result.
    pub(super) fn set(&mut self, result: Operand, op: &str, args: &[Operand]) {
        let _ = write!(self.text, "{op} {result}");
        for arg in args {
            let _ = write!(self.text, ",{arg}");
        }
        self.text.push_str(";\n");
    }

    /// What memory holds, in a new register.
    pub(super) fn load(&mut self, class: Class, op: &str, place: Place) -> Operand {
        let result = self.reg(class);
        put!(self, "{op} {result},{place};");
        result
    }

    /// The low and the high half of 64 bits.
    pub(super) fn split(&mut self, x: Operand) -> [Operand; 2] {
        let [low, high] = [(); 2].map(|()| self.reg(Class::Word));
        put!(self, "mov.b64 {{{low},{high}}},{x};");
        [low, high]
    }

    /// 64 bits of two halves.
    pub(super) fn join(&mut self, low: Operand, high: Operand) -> Operand {
        let result = self.reg(Class::Long);
        put!(self, "mov.b64 {result},{{{low},{high}}};");
        result
    }

    /// A truth: what a comparison gives.
    pub(super) fn test(&mut self, op: &str, a: Operand, b: Operand) -> Operand {
        let result = self.reg(Class::Truth);
        put!(self, "setp.{op} {result},{a},{b};");
        result
    }

    /// Goes on elsewhere if a truth is `when`.
    pub(super) fn branch(&mut self, when: bool, truth: Operand, to: Label) {
        put!(self, "@{}{truth} bra {to};", if when { "" } else { "!" });
    }

    /// A value in a register, for instructions that take nothing else.
    pub(super) fn in_reg(&mut self, dtype: DType, x: Operand) -> Operand {
        match x {
            Operand::Reg(..) | Operand::Arg(_) => x,
            _ => self.make(Class::of(dtype), moves(dtype), &[x]),
        }
    }

    /// The declarations of its registers.
    pub(super) fn registers(&self) -> String {
        let mut out = String::new();
        for class in Class::ALL {
            let count = self.counts[class as usize];
            if count > 0 {
                let _ = writeln!(out, ".reg .{} {}<{count}>;", class.ty(), class.letter());
            }
        }
        out
    }
}

/// The instruction that copies a value of a dtype.
pub(super) fn moves(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "mov.pred",
        _ if dtype.is_float() && dtype != DType::F64 => "mov.f32",
        DType::F64 => "mov.f64",
        DType::I64 | DType::U64 => "mov.b64",
        _ => "mov.b32",
    }
}

/// How arithmetic names the type of a value: narrow integers are computed with in 32 bits, 16-bit floats in f32.
pub(super) fn arithmetic(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::I64 => "s64",
        DType::U64 => "u64",
        DType::Bool => "pred",
        DType::U8 | DType::U16 | DType::U32 => "u32",
        DType::I8 | DType::I16 | DType::I32 => "s32",
        DType::F16 | DType::BF16 | DType::F32 => "f32",
    }
}

/// The same without a sign.
pub(super) fn bits(dtype: DType) -> &'static str {
    if Class::of(dtype) == Class::Long { "b64" } else { "b32" }
}
