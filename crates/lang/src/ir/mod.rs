//! The typed IR at the waist: what every front lowers to, every pass rewrites and every emitter reads.
//!
//! **Shape.** A [`Kernel`] is what one thread of a grid does. Control flow is structured: a block holds instructions and
//! ends in the values that it yields; `if`, `for` and `while` are instructions that own blocks. There are no jumps:
//! `break`, `continue` and early `return` were lowered to conditions, so that a region has one entry and one exit, and
//! running it backwards is again a region. Values are SSA: loop-carried variables are block arguments, what a branch
//! assigns is a result of its `if`.
//!
//! **Values** are scalars or references to arrays. Vectors, matrices, quaternions and structs do not exist here: the front
//! takes them apart, so that passes, adjoint and emitters know scalars only. What is left of them is the number of lanes
//! of an array's elements: one `load` gives all scalars of an element, and may become a vector load. An array of structs is one
//! array for each field, whose elements lie a struct apart: [`ArrayType::pitch`].
//!
//! **Ownership.** A kernel owns three arenas (instructions, blocks, values), named by small integers; nothing is counted
//! or shared. Constants are values without an instruction, each held once, and can be used anywhere. What a pass drops
//! stays in the arena until the kernel is copied.
//!
//! **Memory.** An array is a place in one of three address [spaces](Space). Loads and stores are in program order within a
//! thread; between threads there is no order but by [`Op::Barrier`] and atomics. Matrix-multiply-accumulate will be an op
//! over local arrays beside [`Op::Shuffle`]; nothing lowers to it yet, so it is not there.
//!
//! **Invariants** are stated and checked in [`verify`](Kernel::verify).

use rustc_hash::FxHashMap;

use bullet_ops::DType;
use smallvec::SmallVec;

use crate::diag::Span;

pub(crate) mod build;
mod effects;
pub(crate) mod eval;
mod op;
mod parse;
mod print;
mod tree;
mod verify;

pub(crate) use build::Builder;
pub use effects::Effect;
pub use op::{Atomic, Binary, Compare, Op, Shuffle, Unary};
pub use parse::ParseError;
pub(crate) use tree::ValueMap;
pub use verify::VerifyError;

macro_rules! index {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// Its place in the kernel's arena.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

index! {
    /// A value of a kernel.
    Value
    /// An instruction of a kernel.
    Inst
    /// A block of a kernel.
    Block
}

/// A short list of values.
pub type Values = SmallVec<[Value; 4]>;

/// Where an array lies, and who sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Space {
    /// The device's memory: a parameter, seen by all threads.
    Global,
    /// Seen by the threads of one block; allocated by [`Op::Alloc`].
    Shared,
    /// A thread's own; allocated by [`Op::Alloc`].
    Local,
}

/// What an array holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ArrayType {
    /// Of the scalars.
    pub dtype: DType,
    /// Scalars an element, side by side: 3 for a vec3, 16 for a mat44.
    pub lanes: u16,
    /// Scalars from one element to the next where elements lie in C order: as many as lanes, or more where the element is a
    /// field of a struct, of which the array holds many. The data then begins at the field of the first struct.
    pub pitch: u16,
    /// How many indices an element has, 1 to 4.
    pub ndim: u8,
    /// Where it lies.
    pub space: Space,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Type {
    /// A number or truth.
    Scalar(DType),
    /// A reference to an array; never stored, carried or yielded.
    Array(ArrayType),
}

impl Type {
    /// The dtype of a scalar.
    pub fn scalar(self) -> Option<DType> {
        match self {
            Type::Scalar(dtype) => Some(dtype),
            Type::Array(_) => None,
        }
    }

    /// The type of an array.
    pub fn array(self) -> Option<ArrayType> {
        match self {
            Type::Scalar(_) => None,
            Type::Array(array) => Some(array),
        }
    }

    /// Whether it is a floating-point scalar.
    pub fn is_float(self) -> bool {
        self.scalar().is_some_and(DType::is_float)
    }
}

/// A scalar known at compile time. Equal constants are equal bit by bit, so that 0 is not -0 and NaN is NaN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Const {
    dtype: DType,
    bits: u64,
}

impl Const {
    /// A bool or integer, wrapped to its width.
    pub fn int(dtype: DType, value: i64) -> Const {
        Const { dtype, bits: eval::wrap(dtype, value) as u64 }
    }

    /// A float, rounded to its type.
    pub fn float(dtype: DType, value: f64) -> Const {
        let value = eval::round(dtype, value);
        Const { dtype, bits: if value.is_nan() { f64::NAN } else { value }.to_bits() }
    }

    /// `true` or `false`.
    pub fn bool(value: bool) -> Const {
        Const::int(DType::Bool, value.into())
    }

    /// 0 of any type.
    pub fn zero(dtype: DType) -> Const {
        Const { dtype, bits: 0 }
    }

    /// Its type.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// Of a bool or integer; u64 as the i64 of the same bits.
    pub fn as_int(self) -> Option<i64> {
        (!self.dtype.is_float()).then_some(self.bits as i64)
    }

    /// Of a float.
    pub fn as_float(self) -> Option<f64> {
        self.dtype.is_float().then(|| f64::from_bits(self.bits))
    }

    /// Whether it is this number, in whatever type.
    pub fn is(self, value: i32) -> bool {
        match self.as_int() {
            Some(int) => int == value.into(),
            None => f64::from_bits(self.bits) == value.into(),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// Known at compile time.
    Const(Const),
    /// The kernel's parameter of this number.
    Param(u32),
    /// The argument of this number of a block.
    Arg(Block, u32),
    /// The result of this number of an instruction.
    Inst(Inst, u32),
}

/// A value: its type, where it comes from, and the name that the source gave it.
#[derive(Clone, Debug)]
pub struct ValueData {
    /// What it is.
    pub ty: Type,
    /// Where it comes from.
    pub def: Def,
    /// An index into the kernel's names.
    pub(crate) name: Option<u32>,
}

/// An instruction: what it does, to what.
#[derive(Clone, Debug)]
pub struct InstData {
    /// What it does.
    pub op: Op,
    /// The operands, as [`Op`] says.
    pub args: Values,
    /// What it gives.
    pub results: SmallVec<[Value; 2]>,
    /// The blocks it owns.
    pub blocks: SmallVec<[Block; 2]>,
    /// The source it was lowered from.
    pub span: Span,
}

/// A list of instructions with one entry and one exit.
#[derive(Clone, Debug, Default)]
pub struct BlockData {
    /// What changes from one run of the block to the next.
    pub args: Vec<Value>,
    /// In order.
    pub insts: Vec<Inst>,
    /// What the block gives to the instruction that owns it.
    pub yields: Vec<Value>,
}

/// What one thread of a grid does.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// An identifier of Python; [`symbol`](crate::emit::cuda::symbol) is that of CUDA C++.
    pub name: String,
    /// How many dimensions the grid has, 1 to 4.
    pub grid: u8,
    /// Whether who launches it promises that no array that it writes shares memory with another array. Adjoints are made so.
    pub noalias: bool,
    /// In the order of the launch's arguments.
    pub params: Vec<Value>,
    /// What runs.
    pub body: Block,
    pub(crate) insts: Vec<InstData>,
    pub(crate) blocks: Vec<BlockData>,
    pub(crate) values: Vec<ValueData>,
    pub(crate) names: Vec<Box<str>>,
    name_index: FxHashMap<Box<str>, u32>,
    constants: FxHashMap<Const, Value>,
}

impl Kernel {
    /// An empty kernel.
    pub fn new(name: &str, grid: u8) -> Kernel {
        Kernel {
            name: name.into(),
            grid,
            noalias: false,
            params: vec![],
            body: Block(0),
            insts: vec![],
            blocks: vec![BlockData::default()],
            values: vec![],
            names: vec![],
            name_index: FxHashMap::default(),
            constants: FxHashMap::default(),
        }
    }

    /// An instruction.
    pub fn inst(&self, inst: Inst) -> &InstData {
        &self.insts[inst.index()]
    }

    /// A block.
    pub fn block(&self, block: Block) -> &BlockData {
        &self.blocks[block.index()]
    }

    /// A value.
    pub fn value(&self, value: Value) -> &ValueData {
        &self.values[value.index()]
    }

    /// How many values there are, dropped ones included.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// A value's type.
    pub fn ty(&self, value: Value) -> Type {
        self.values[value.index()].ty
    }

    /// The dtype of a scalar, or of an array's scalars.
    pub fn dtype(&self, value: Value) -> DType {
        match self.ty(value) {
            Type::Scalar(dtype) => dtype,
            Type::Array(array) => array.dtype,
        }
    }

    /// The constant that a value is.
    pub fn as_const(&self, value: Value) -> Option<Const> {
        match self.value(value).def {
            Def::Const(constant) => Some(constant),
            _ => None,
        }
    }

    /// The name that the source gave a value.
    pub fn name_of(&self, value: Value) -> Option<&str> {
        self.value(value).name.map(|name| &*self.names[name as usize])
    }

    /// The value of a constant.
    pub fn constant(&mut self, constant: Const) -> Value {
        if let Some(&value) = self.constants.get(&constant) {
            return value;
        }
        let value = self.new_value(Type::Scalar(constant.dtype), Def::Const(constant));
        self.constants.insert(constant, value);
        value
    }

    /// A further parameter.
    pub fn param(&mut self, name: &str, ty: Type) -> Value {
        let value = self.new_value(ty, Def::Param(self.params.len() as u32));
        self.params.push(value);
        self.set_name(value, name);
        value
    }

    /// Gives a value a name, for people.
    pub fn set_name(&mut self, value: Value, name: &str) {
        let index = match self.name_index.get(name) {
            Some(&index) => index,
            None => {
                let index = self.names.len() as u32;
                self.names.push(name.into());
                self.name_index.insert(name.into(), index);
                index
            }
        };
        self.values[value.index()].name = Some(index);
    }

    pub(crate) fn new_value(&mut self, ty: Type, def: Def) -> Value {
        let value = Value(self.values.len() as u32);
        self.values.push(ValueData { ty, def, name: None });
        value
    }

    pub(crate) fn new_block(&mut self) -> Block {
        let block = Block(self.blocks.len() as u32);
        self.blocks.push(BlockData::default());
        block
    }

    /// A further argument of a block.
    pub(crate) fn block_arg(&mut self, block: Block, ty: Type) -> Value {
        let number = self.blocks[block.index()].args.len() as u32;
        let value = self.new_value(ty, Def::Arg(block, number));
        self.blocks[block.index()].args.push(value);
        value
    }

    /// A further result of an instruction.
    pub(crate) fn inst_result(&mut self, inst: Inst, ty: Type) -> Value {
        let number = self.insts[inst.index()].results.len() as u32;
        let value = self.new_value(ty, Def::Inst(inst, number));
        self.insts[inst.index()].results.push(value);
        value
    }

    /// An instruction that is in no block yet.
    pub(crate) fn new_inst(&mut self, op: Op, args: Values, types: &[Type], span: Span) -> Inst {
        let inst = Inst(self.insts.len() as u32);
        let blocks = SmallVec::new();
        self.insts.push(InstData { op, args, results: SmallVec::new(), blocks, span });
        for &ty in types {
            self.inst_result(inst, ty);
        }
        inst
    }

    /// The text of a message that an instruction names.
    pub fn text(&self, index: u32) -> &str {
        &self.names[index as usize]
    }

    /// The index of a message's text.
    pub(crate) fn add_text(&mut self, text: &str) -> u32 {
        self.names.push(text.into());
        self.names.len() as u32 - 1
    }
}
