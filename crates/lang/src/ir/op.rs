//! What instructions do, and the operands each takes.

use bullet_ops::DType;

/// What an instruction does. Operands are listed as `[a, b..]`, results as `-> c`.
///
/// Arithmetic of f16 and bf16 is done in f32, and the result of each op is rounded to the type, to nearest even. A float64
/// or 64-bit integer becomes an f32 on its way to a 16-bit float.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// `[] -> i32`: this thread's place in a dimension of the grid.
    Tid(u8),
    /// `[array] -> i32`: the length of a dimension.
    Dim(u8),
    /// `[x] -> y` of one type, or bool for the tests.
    Unary(Unary),
    /// `[x, y] -> z`, all of one type.
    Binary(Binary),
    /// `[x, y] -> bool`, operands of one type.
    Compare(Compare),
    /// `[bool, x, y] -> z`: x if true, else y; both are there in any case.
    Select,
    /// `[x] -> y`: between scalar types as C++ converts; to bool it is `x != 0`; floats out of an integer's range
    /// saturate, NaN is 0.
    Cast,
    /// `[x] -> y`: the same bits as another type of the same width.
    Bitcast,
    /// `[array, index..] -> lane..`
    Load,
    /// `[array, index.., lane..]`
    Store,
    /// `[array, index.., lane..] -> old lane..`; lane by lane.
    Atomic(Atomic),
    /// `[array, index.., expected, new] -> old`: stores `new` if the cell holds `expected`; one lane.
    CompareExchange,
    /// `[] -> array`: uninitialised memory of this many elements, of a shared or local space, for the time the kernel runs.
    Alloc(u32),
    /// `[bool]`, with the blocks `then` and `else`, which have no arguments; `-> what they yield`.
    If,
    /// `[low, high, step, initial..]`, with the block `body(i, carried..)`, which yields the next `carried`;
    /// `-> last carried`. It runs for `low, low + step, ..` below `high`, or above it if `step` is negative; not at all if
    /// `step` is 0.
    For,
    /// `[bool, initial..]`, with the block `body(carried..)`, which yields whether to go on and the next `carried`;
    /// `-> last carried`.
    While,
    /// `[a..]`, with the block `forward`, whose yields are the results; if bit 0 of the number is set the block
    /// `gradient(adjoint of each result..)`, which yields the adjoint of each `a`; if bit 1 is set the block `replay`, which
    /// yields the results as they are computed anew on the way back. `-> what forward yields`. It is what the call of a function
    /// with a derivative of its own becomes, and means what `forward` does; the other blocks are for the adjoint. Emitters do
    /// not see it: [`Kernel::plain`](super::Kernel::plain) takes it out.
    Custom(u8),
    /// `[x]`: puts a value on this thread's tape; the number pairs it with its pops.
    Push(u32),
    /// `[] -> x`: takes the value that was put on the tape last.
    Pop(u32),
    /// `[]` or `[i64]`, in the body: what an adjoint computes anew of its kernel ends here, and the way back begins. A launch that
    /// only measures the tape ends here, too. The operand says how many words the way back puts on the tape above what is on it
    /// here; a thread needs that room, too.
    Turn,
    /// `[]`: all threads of the block arrive here before one goes on, and see what the others wrote.
    Barrier,
    /// `[x, i32] -> y`: the `x` of another lane of the warp.
    Shuffle(Shuffle),
    /// `[x..]`: C's printf, with the format of this index.
    Print(u32),
    /// `[bool]`: a [fault](crate::fault) with the message of this index if false: the thread stops.
    Assert(u32),
    /// `[index, low, high]`, of i32: a fault, as of an index outside of an array, unless `low <= index < high`. The text of this
    /// index says of what.
    Within(u32),
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
        }

        impl $name {
            /// Every one, in declaration order.
            pub const ALL: &[$name] = &[$($name::$item,)*];

            /// As the text form spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$item => $text,)*
                }
            }
        }
    };
}

named! {
    /// Functions of one number. Of floats, but for `neg`, `abs`, `sign`, `step`, `nonzero`, which integers have too, and for
    /// `not` of bools and `invert` of integers.
    Unary {
        /// -x; integers wrap.
        Neg = "neg",
        /// Of a bool.
        Not = "not",
        /// All bits of an integer.
        Invert = "invert",
        /// |x|; the least integer is its own.
        Abs = "abs",
        /// -1 below 0, else 1.
        Sign = "sign",
        /// 1 below 0, else 0.
        Step = "step",
        /// 0 of 0, else 1.
        Nonzero = "nonzero",
        /// Square root.
        Sqrt = "sqrt",
        /// Cube root.
        Cbrt = "cbrt",
        /// e^x.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Logarithm to base 2.
        Log2 = "log2",
        /// Logarithm to base 10.
        Log10 = "log10",
        /// Of radians.
        Sin = "sin",
        /// Of radians.
        Cos = "cos",
        /// Of radians.
        Tan = "tan",
        /// In radians.
        Asin = "asin",
        /// In radians.
        Acos = "acos",
        /// In radians.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// The error function.
        Erf = "erf",
        /// 1 - erf(x).
        Erfc = "erfc",
        /// The inverse of the error function.
        Erfinv = "erfinv",
        /// The largest whole number not above x.
        Floor = "floor",
        /// The smallest whole number not below x.
        Ceil = "ceil",
        /// The nearest whole number, halves away from 0.
        Round = "round",
        /// The nearest whole number, halves to even.
        Rint = "rint",
        /// The nearest whole number towards 0.
        Trunc = "trunc",
        /// `-> bool`
        IsNan = "isnan",
        /// `-> bool`
        IsInf = "isinf",
        /// `-> bool`
        IsFinite = "isfinite",
    }
}

named! {
    /// Functions of two numbers of one type. Integers wrap.
    Binary {
        /// a + b
        Add = "add",
        /// a - b
        Sub = "sub",
        /// a * b
        Mul = "mul",
        /// a * b, but 0 where a is 0, whatever b: an adjoint that was masked to 0 stays 0 behind infinite derivatives.
        MulMasked = "mulm",
        /// a / b; integers are cut towards 0, and by 0 it is unspecified.
        Div = "div",
        /// What is left of the division that cuts towards 0, with the sign of a: C's `%` and `fmod`.
        Mod = "mod",
        /// a^b, of floats.
        Pow = "pow",
        /// The smaller; of floats the one that is a number.
        Min = "min",
        /// The larger; of floats the one that is a number.
        Max = "max",
        /// The angle of the point (b, a), of floats.
        Atan2 = "atan2",
        /// |a| with the sign of b, of floats.
        Copysign = "copysign",
        /// Of integers bit by bit, or of bools.
        And = "and",
        /// Of integers bit by bit, or of bools.
        Or = "or",
        /// Of integers bit by bit, or of bools.
        Xor = "xor",
        /// a * 2^b, of integers; unspecified unless b is at least 0 and below the width.
        Shl = "shl",
        /// a / 2^b rounded down, of integers; unspecified unless b is at least 0 and below the width.
        Shr = "shr",
    }
}

named! {
    /// Comparisons; NaN is unequal to all. Bools have `eq` and `ne`.
    Compare {
        /// a == b
        Eq = "eq",
        /// a != b
        Ne = "ne",
        /// a < b
        Lt = "lt",
        /// a <= b
        Le = "le",
        /// a > b
        Gt = "gt",
        /// a >= b
        Ge = "ge",
    }
}

named! {
    /// Updates of a cell that no other thread comes between; they give the old value.
    Atomic {
        /// cell + x
        Add = "atomic_add",
        /// min(cell, x)
        Min = "atomic_min",
        /// max(cell, x)
        Max = "atomic_max",
        /// cell & x
        And = "atomic_and",
        /// cell | x
        Or = "atomic_or",
        /// cell ^ x
        Xor = "atomic_xor",
        /// x
        Exchange = "atomic_exch",
    }
}

named! {
    /// Which lane of the warp a shuffle reads, by its second operand n.
    Shuffle {
        /// Lane n.
        Index = "shuffle",
        /// This lane - n.
        Up = "shuffle_up",
        /// This lane + n.
        Down = "shuffle_down",
        /// This lane ^ n.
        Xor = "shuffle_xor",
    }
}

impl Unary {
    /// Whether it takes this dtype.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Unary::Not => dtype == DType::Bool,
            Unary::Invert => dtype != DType::Bool && !dtype.is_float(),
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Step | Unary::Nonzero => dtype != DType::Bool,
            _ => dtype.is_float(),
        }
    }

    /// The type of the result.
    pub fn result(self, dtype: DType) -> DType {
        match self {
            Unary::IsNan | Unary::IsInf | Unary::IsFinite => DType::Bool,
            _ => dtype,
        }
    }
}

impl Binary {
    /// Whether it takes this dtype.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::Mod
            | Binary::Min
            | Binary::Max => dtype != DType::Bool,
            Binary::Pow | Binary::Atan2 | Binary::Copysign | Binary::MulMasked => dtype.is_float(),
            Binary::And | Binary::Or | Binary::Xor => !dtype.is_float(),
            Binary::Shl | Binary::Shr => !dtype.is_float() && dtype != DType::Bool,
        }
    }

    /// Whether the operands may be exchanged.
    pub fn commutes(self) -> bool {
        matches!(self, Binary::Add | Binary::Mul | Binary::And | Binary::Or | Binary::Xor)
    }
}

impl Compare {
    /// Whether it takes this dtype.
    pub fn takes(self, dtype: DType) -> bool {
        dtype != DType::Bool || matches!(self, Compare::Eq | Compare::Ne)
    }
}

impl Atomic {
    /// Whether it takes this dtype: 32 and 64 bits; of 16-bit floats there are sums and extremes.
    pub fn takes(self, dtype: DType) -> bool {
        let wide = dtype.size() >= 4 && dtype != DType::Bool;
        match self {
            Atomic::And | Atomic::Or | Atomic::Xor => wide && !dtype.is_float(),
            Atomic::Add | Atomic::Min | Atomic::Max => wide || dtype.is_float(),
            Atomic::Exchange => wide,
        }
    }
}

impl Op {
    /// Whether the instruction does nothing but give results that depend on its operands alone, so that equal ones are one,
    /// unused ones go, and all can be computed anew elsewhere.
    pub fn is_pure(self) -> bool {
        matches!(
            self,
            Op::Tid(_)
                | Op::Dim(_)
                | Op::Unary(_)
                | Op::Binary(_)
                | Op::Compare(_)
                | Op::Select
                | Op::Cast
                | Op::Bitcast
        )
    }

    /// Whether it owns blocks.
    pub fn has_blocks(self) -> bool {
        matches!(self, Op::If | Op::For | Op::While | Op::Custom(_))
    }

    /// Whether it does something that others can see, whatever becomes of its results. Of those with blocks the blocks tell.
    pub fn has_effect(self) -> bool {
        matches!(
            self,
            Op::Store
                | Op::Atomic(_)
                | Op::CompareExchange
                | Op::Push(_)
                | Op::Turn
                | Op::Barrier
                | Op::Print(_)
                | Op::Assert(_)
                | Op::Within(_)
        )
    }

    /// Whether memory may differ behind it. Of those with blocks the blocks tell.
    pub fn may_write(self) -> bool {
        self.has_effect() && !matches!(self, Op::Assert(_) | Op::Within(_) | Op::Print(_))
    }
}
