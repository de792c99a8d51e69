//! What compiled code and this crate know of each other: the layout of arguments, of a worker's context, and the table of
//! functions that code calls.

use crate::host;

/// Threads that run side by side, where a kernel can.
pub(crate) const LANES: usize = 8;

/// One argument of a launch, laid out as compiled code reads it.
///
/// Of an array, an element with indices `i` begins at `data + sum(i[axis] * strides[axis])`; its lanes are side by side. Strides
/// are in bytes, may be negative or 0, and keep scalars aligned to their size. Unused dimensions are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Arg {
    /// Of an array the address of its first element, of a scalar its bits, in the low end.
    bits: u64,
    shape: [i32; 4],
    strides: [i64; 4],
}

impl Arg {
    /// A scalar by its bits: `x.to_bits().into()` of a float, `x as u64` of an integer or bool. Bits above the width of its type
    /// are not looked at.
    pub const fn scalar(bits: u64) -> Arg {
        Arg { bits, shape: [0; 4], strides: [0; 4] }
    }

    /// An array; `strides` in bytes.
    pub fn array(data: *mut u8, shape: [i32; 4], strides: [i64; 4]) -> Arg {
        Arg { bits: data as u64, shape, strides }
    }

    /// Of an array.
    pub fn shape(&self) -> [i32; 4] {
        self.shape
    }

    pub(crate) const BITS: i32 = std::mem::offset_of!(Arg, bits) as i32;
    pub(crate) const SHAPE: i32 = std::mem::offset_of!(Arg, shape) as i32;
    pub(crate) const STRIDES: i32 = std::mem::offset_of!(Arg, strides) as i32;
}

/// What a worker hands to compiled code. Code reads the first fields; functions of [`host`] use the rest.
#[repr(C)]
pub(crate) struct Context {
    pub(crate) table: *const Table,
    pub(crate) args: *const Arg,
    /// The first word of the tape, and one past the last.
    pub(crate) tape: *mut u8,
    pub(crate) tape_end: *mut u8,
    /// Local arrays that do not fit the stack.
    pub(crate) scratch: *mut u8,
    /// Where the next record of an update goes, and where there is no more room.
    pub(crate) records: *mut u8,
    pub(crate) records_end: *mut u8,
    pub(crate) grid: [i32; 4],
    /// Not 0 once the launch was told to stop.
    pub(crate) stopped: i32,
    pub(crate) call: host::Call,
}

impl Context {
    pub(crate) const TABLE: i32 = std::mem::offset_of!(Context, table) as i32;
    pub(crate) const ARGS: i32 = std::mem::offset_of!(Context, args) as i32;
    pub(crate) const TAPE: i32 = std::mem::offset_of!(Context, tape) as i32;
    pub(crate) const TAPE_END: i32 = std::mem::offset_of!(Context, tape_end) as i32;
    pub(crate) const SCRATCH: i32 = std::mem::offset_of!(Context, scratch) as i32;
    pub(crate) const RECORDS: i32 = std::mem::offset_of!(Context, records) as i32;
    pub(crate) const RECORDS_END: i32 = std::mem::offset_of!(Context, records_end) as i32;
    pub(crate) const GRID: i32 = std::mem::offset_of!(Context, grid) as i32;
    pub(crate) const STOPPED: i32 = std::mem::offset_of!(Context, stopped) as i32;
}

/// Compiled code: runs the threads `start..end` of the grid, in order; 0, or 1 behind a fault, or [`STOPPED`].
pub(crate) type Entry = unsafe extern "C" fn(context: *mut Context, start: i64, end: i64) -> i32;

/// The status of code that was told to stop.
pub(crate) const STOPPED: i32 = 2;

/// Addresses of functions, by [`Slot`].
pub(crate) type Table = [usize; Function::COUNT + Function::NUMBERS];

/// A place in the [`Table`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(pub(crate) usize);

impl From<Function> for Slot {
    fn from(function: Function) -> Slot {
        Slot(function as usize)
    }
}

macro_rules! functions {
    ($($name:ident,)*) => {
        /// What compiled code calls.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Function { $($name,)* }

        impl Function {
            pub(crate) const ALL: &[Function] = &[$(Function::$name,)*];
            pub(crate) const COUNT: usize = Function::ALL.len();
            /// Those of numbers alone, which stand last.
            pub(crate) const NUMBERS: usize = Function::COUNT - Function::Cbrt32 as usize;

            /// The same function of [`LANES`] numbers: it takes where the results go, then the operands in registers of 128 bits.
            pub(crate) fn of_lanes(self) -> Slot {
                Slot(Function::COUNT + self as usize - Function::Cbrt32 as usize)
            }
        }
    };
}

functions! {
    Fault, Grow, Print, Ask, Records,
    RoundF16, RoundBF16, RoundF16Wide, RoundBF16Wide, FromF16, ToF16,
    Cbrt32, Exp32, Log32, Log2_32, Log10_32, Sin32, Cos32, Tan32, Asin32, Acos32, Atan32, Sinh32, Cosh32, Tanh32, Erf32,
    Erfc32, Erfinv32,
    Cbrt64, Exp64, Log64, Log2_64, Log10_64, Sin64, Cos64, Tan64, Asin64, Acos64, Atan64, Sinh64, Cosh64, Tanh64, Erf64,
    Erfc64, Erfinv64,
    Mod32, Pow32, Atan2_32, Mod64, Pow64, Atan2_64,
}
