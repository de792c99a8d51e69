//! The functions that compiled code calls: faults, the tape, printing, mathematics.

use std::io::Write;

use bullet_kernels::cpu::stop;
use bullet_ops::DType;
use half::{bf16, f16};

use crate::abi::{Context, Function, Table};
use crate::print;

/// What went wrong in a thread, before it has words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawFault {
    /// Index into the program's sites.
    pub(crate) site: u32,
    /// The index that was out of range.
    pub(crate) value: i32,
    /// In the order of the grid.
    pub(crate) thread: i64,
}

/// The site of a tape that may not grow further.
pub(crate) const TAPE_SITE: u32 = u32::MAX;
/// The site of records of updates that memory has no room for.
pub(crate) const RECORDS_SITE: u32 = u32::MAX - 1;

/// What functions here know of the launch; compiled code does not look at it.
pub(crate) struct Call {
    pub(crate) fault: Option<RawFault>,
    pub(crate) memory: *mut Vec<u64>,
    pub(crate) tape_limit: usize,
    pub(crate) prints: *const [Print],
    pub(crate) records: *mut Vec<u64>,
}

/// A statement that prints.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Print {
    pub(crate) format: String,
    pub(crate) dtypes: Vec<DType>,
}

unsafe extern "C" fn fault(context: *mut Context, site: u32, value: i32, thread: i64) {
    // SAFETY: compiled code hands on the context it was given, which nobody else uses meanwhile.
    let call = unsafe { &mut (*context).call };
    call.fault.get_or_insert(RawFault { site, value, thread });
}

/// Makes the tape larger; the new place of `top`, or null if it may not grow.
unsafe extern "C" fn grow(context: *mut Context, top: *mut u8) -> *mut u8 {
    // SAFETY: as in `fault`; `memory` is the worker's own.
    let (context, memory) = unsafe { (&mut *context, &mut *(*context).call.memory) };
    let used = top as usize - context.tape as usize;
    let wanted = (memory.len() * 2).max(512);
    if wanted * 8 > context.call.tape_limit || memory.try_reserve_exact(wanted - memory.len()).is_err() {
        return std::ptr::null_mut();
    }
    memory.resize(wanted, 0);
    let tape = memory.as_mut_ptr().cast::<u8>();
    context.tape = tape;
    context.tape_end = tape.wrapping_add(memory.len() * 8);
    tape.wrapping_add(used)
}

/// Makes room for more records; where the next goes, or null if there is no memory.
unsafe extern "C" fn more_records(context: *mut Context) -> *mut u8 {
    // SAFETY: as in `fault`; the records are this part's own.
    let (context, records) = unsafe { (&mut *context, &mut *(*context).call.records) };
    let used = records.len();
    let wanted = (used * 2).max(1 << 10);
    if records.try_reserve_exact(wanted - used).is_err() {
        return std::ptr::null_mut();
    }
    records.resize(wanted, 0);
    let first = records.as_mut_ptr().cast::<u8>();
    context.records_end = first.wrapping_add(wanted * 8);
    first.wrapping_add(used * 8)
}

/// Notes whether a loop has to stop, which its code then does: nothing unwinds through it.
unsafe extern "sysv64" fn note_stop(context: *mut Context) {
    // SAFETY: as in `fault`.
    unsafe { (*context).stopped = stop::is_told().into() };
}

/// As [`note_stop`], and keeps every register that compiled code may use, so that a loop that asks now and then keeps its values in
/// registers all the time.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "sysv64" fn ask(context: *mut Context) {
    // Nine registers, of which the first keeps the stack aligned, and 16 vectors of 128 bits, all that Cranelift uses.
    std::arch::naked_asm!(
        "push rax", "push rcx", "push rdx", "push rsi", "push rdi", "push r8", "push r9", "push r10", "push r11",
        "sub rsp, 256",
        "movups [rsp], xmm0", "movups [rsp + 16], xmm1", "movups [rsp + 32], xmm2", "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5", "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
        "movups [rsp + 128], xmm8", "movups [rsp + 144], xmm9", "movups [rsp + 160], xmm10", "movups [rsp + 176], xmm11",
        "movups [rsp + 192], xmm12", "movups [rsp + 208], xmm13", "movups [rsp + 224], xmm14", "movups [rsp + 240], xmm15",
        "call {note}",
        "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]", "movups xmm2, [rsp + 32]", "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]", "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
        "movups xmm8, [rsp + 128]", "movups xmm9, [rsp + 144]", "movups xmm10, [rsp + 160]", "movups xmm11, [rsp + 176]",
        "movups xmm12, [rsp + 192]", "movups xmm13, [rsp + 208]", "movups xmm14, [rsp + 224]", "movups xmm15, [rsp + 240]",
        "add rsp, 256",
        "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
        "ret",
        note = sym note_stop,
    )
}

/// Prints what a statement says, of values of 8 bytes each, in one piece.
unsafe extern "C" fn print_values(context: *mut Context, index: u32, values: *const u64) {
    // SAFETY: as in `fault`; the prints are the program's, and outlive the launch.
    let prints = unsafe { &*(*context).call.prints };
    let Some(print) = prints.get(index as usize) else { return };
    // SAFETY: compiled code put as many values there as the statement has.
    let values = unsafe { std::slice::from_raw_parts(values, print.dtypes.len()) };
    let text = print::format(&print.format, &print.dtypes, values);
    let mut out = std::io::stdout().lock();
    // A closed stdout is no reason to stop a kernel.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

extern "C" fn round_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

extern "C" fn round_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

extern "C" fn round_f16_wide(x: f64) -> f32 {
    f16::from_f32(x as f32).to_f32()
}

extern "C" fn round_bf16_wide(x: f64) -> f32 {
    bf16::from_f32(x as f32).to_f32()
}

extern "C" fn from_f16(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

extern "C" fn to_f16(x: f32) -> u32 {
    f16::from_f32(x).to_bits().into()
}

macro_rules! wrap {
    ($($name:ident($($x:ident),+): $ty:ty = $body:expr;)*) => {$(
        extern "C" fn $name($($x: $ty),+) -> $ty {
            $body
        }
    )*};
}

wrap! {
    cbrt32(x): f32 = x.cbrt();
    exp32(x): f32 = x.exp();
    log32(x): f32 = x.ln();
    log2_32(x): f32 = x.log2();
    log10_32(x): f32 = x.log10();
    sin32(x): f32 = x.sin();
    cos32(x): f32 = x.cos();
    tan32(x): f32 = x.tan();
    asin32(x): f32 = x.asin();
    acos32(x): f32 = x.acos();
    atan32(x): f32 = x.atan();
    sinh32(x): f32 = x.sinh();
    cosh32(x): f32 = x.cosh();
    tanh32(x): f32 = x.tanh();
    erf32(x): f32 = bullet_ops::scalar::erf(x.into()) as f32;
    erfc32(x): f32 = bullet_ops::scalar::erfc(x.into()) as f32;
    erfinv32(x): f32 = bullet_ops::scalar::erfinv(x.into()) as f32;
    cbrt64(x): f64 = x.cbrt();
    exp64(x): f64 = x.exp();
    log64(x): f64 = x.ln();
    log2_64(x): f64 = x.log2();
    log10_64(x): f64 = x.log10();
    sin64(x): f64 = x.sin();
    cos64(x): f64 = x.cos();
    tan64(x): f64 = x.tan();
    asin64(x): f64 = x.asin();
    acos64(x): f64 = x.acos();
    atan64(x): f64 = x.atan();
    sinh64(x): f64 = x.sinh();
    cosh64(x): f64 = x.cosh();
    tanh64(x): f64 = x.tanh();
    erf64(x): f64 = bullet_ops::scalar::erf(x);
    erfc64(x): f64 = bullet_ops::scalar::erfc(x);
    erfinv64(x): f64 = bullet_ops::scalar::erfinv(x);
    mod32(a, b): f32 = a % b;
    pow32(a, b): f32 = a.powf(b);
    atan2_32(a, b): f32 = a.atan2(b);
    mod64(a, b): f64 = a % b;
    pow64(a, b): f64 = a.powf(b);
    atan2_64(a, b): f64 = a.atan2(b);
}

fn address(function: Function) -> usize {
    match function {
        Function::Fault => fault as *const () as usize,
        Function::Grow => grow as *const () as usize,
        Function::Print => print_values as *const () as usize,
        Function::Records => more_records as *const () as usize,
        #[cfg(target_arch = "x86_64")]
        Function::Ask => ask as *const () as usize,
        // Never called: there is no code.
        #[cfg(not(target_arch = "x86_64"))]
        Function::Ask => 0,
        Function::RoundF16 => round_f16 as *const () as usize,
        Function::RoundBF16 => round_bf16 as *const () as usize,
        Function::RoundF16Wide => round_f16_wide as *const () as usize,
        Function::RoundBF16Wide => round_bf16_wide as *const () as usize,
        Function::FromF16 => from_f16 as *const () as usize,
        Function::ToF16 => to_f16 as *const () as usize,
        Function::Cbrt32 => cbrt32 as *const () as usize,
        Function::Exp32 => exp32 as *const () as usize,
        Function::Log32 => log32 as *const () as usize,
        Function::Log2_32 => log2_32 as *const () as usize,
        Function::Log10_32 => log10_32 as *const () as usize,
        Function::Sin32 => sin32 as *const () as usize,
        Function::Cos32 => cos32 as *const () as usize,
        Function::Tan32 => tan32 as *const () as usize,
        Function::Asin32 => asin32 as *const () as usize,
        Function::Acos32 => acos32 as *const () as usize,
        Function::Atan32 => atan32 as *const () as usize,
        Function::Sinh32 => sinh32 as *const () as usize,
        Function::Cosh32 => cosh32 as *const () as usize,
        Function::Tanh32 => tanh32 as *const () as usize,
        Function::Erf32 => erf32 as *const () as usize,
        Function::Erfc32 => erfc32 as *const () as usize,
        Function::Erfinv32 => erfinv32 as *const () as usize,
        Function::Cbrt64 => cbrt64 as *const () as usize,
        Function::Exp64 => exp64 as *const () as usize,
        Function::Log64 => log64 as *const () as usize,
        Function::Log2_64 => log2_64 as *const () as usize,
        Function::Log10_64 => log10_64 as *const () as usize,
        Function::Sin64 => sin64 as *const () as usize,
        Function::Cos64 => cos64 as *const () as usize,
        Function::Tan64 => tan64 as *const () as usize,
        Function::Asin64 => asin64 as *const () as usize,
        Function::Acos64 => acos64 as *const () as usize,
        Function::Atan64 => atan64 as *const () as usize,
        Function::Sinh64 => sinh64 as *const () as usize,
        Function::Cosh64 => cosh64 as *const () as usize,
        Function::Tanh64 => tanh64 as *const () as usize,
        Function::Erf64 => erf64 as *const () as usize,
        Function::Erfc64 => erfc64 as *const () as usize,
        Function::Erfinv64 => erfinv64 as *const () as usize,
        Function::Mod32 => mod32 as *const () as usize,
        Function::Pow32 => pow32 as *const () as usize,
        Function::Atan2_32 => atan2_32 as *const () as usize,
        Function::Mod64 => mod64 as *const () as usize,
        Function::Pow64 => pow64 as *const () as usize,
        Function::Atan2_64 => atan2_64 as *const () as usize,
    }
}

/// The address of a function of as many numbers as threads run side by side.
fn of_lanes(function: Function) -> usize {
    #[cfg(target_arch = "x86_64")]
    let address = crate::lanes::address(function);
    // Never called: there is no code.
    #[cfg(not(target_arch = "x86_64"))]
    let address = address(function);
    address
}

/// The address of a function of single numbers; those of f32 give what lanes give.
fn single(function: Function) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(address) = crate::lanes::single(function) {
        return address;
    }
    address(function)
}

/// The table of this process.
pub(crate) fn table() -> &'static Table {
    static TABLE: std::sync::OnceLock<Table> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let first = Function::COUNT - Function::NUMBERS;
        std::array::from_fn(|i| match Function::ALL.get(i) {
            Some(&function) => single(function),
            None => of_lanes(Function::ALL[first + i - Function::COUNT]),
        })
    })
}
