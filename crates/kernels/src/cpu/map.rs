//! Elementwise ops: an [`Expr`] evaluated over strided operands.
//!
//! The expression becomes a program of a register machine whose registers are blocks of `BLOCK` elements that stay in
//! the first-level cache; each instruction is one vectorised loop. Contiguous operands of the compute type are read, and
//! such results written, in place. An expression that is just an operand is a strided [`copy`].
//!
//! Values are i64, u64, f32 or f64, as the caller says: operands are converted to that type as they are loaded, the result
//! to its dtype as it is stored (a float to an integer truncates, an integer wraps, anything to bool is `!= 0`).

use bullet_ops::expr::{Binary, Expr, Node, Unary};
use bullet_ops::scalar::{Division, Fraction, Integer};
use bullet_ops::{DType, Element};
use smallvec::SmallVec;

use super::convert::{BlockElement, Lane, load_block, store_block};
use super::copy;
use super::math::Real;
use super::par;
use super::simd::{Isa, SimdOp, Target, dispatch_on, isa};
use super::space::Space;
use crate::view::{View, ViewMut};

/// Elements of a register: few enough that some twenty stay in 48 KiB, many enough to hide the dispatch.
const BLOCK: usize = 512;

/// Evaluates `expr` for each element of `out`, in the type `compute` (i64, u64, f32 or f64).
///
/// `inputs` are as many as the expression's and have `out`'s shape (broadcast axes have stride 0). `out` may be strided,
/// and may be the same memory as an input of the same layout.
///
/// # Panics
/// If a shape differs, inputs are missing, or `compute` is no compute type.
pub fn map(expr: &Expr, compute: DType, inputs: &[View<'_>], out: &mut ViewMut<'_>) {
    map_on(isa(), expr, compute, inputs, out);
}

/// As [`map`], on this instruction set.
pub fn map_on(isa: Isa, expr: &Expr, compute: DType, inputs: &[View<'_>], out: &mut ViewMut<'_>) {
    assert_eq!(inputs.len(), expr.inputs(), "operands of the expression");
    let shape = out.layout().shape;
    assert!(inputs.iter().all(|x| x.layout().shape == shape), "operands are broadcast to the result's shape");
    if shape.numel() == 0 {
        return;
    }
    if let Some(c) = expr.as_const() {
        return copy::fill(out, c);
    }
    if let Some(i) = expr.as_input().filter(|&i| inputs[i].dtype() == out.dtype()) {
        return copy::copy_same(&inputs[i], out);
    }
    // An operand that lies across the result's order is brought into it first, tile by tile.
    let dense = out.layout().is_contiguous();
    let across = |i: usize| dense && expr.uses(i) && copy::lies_across(inputs[i].layout());
    if !(0..inputs.len()).any(across) {
        return evaluate(isa, expr, compute, inputs, out);
    }
    let copies: Vec<Option<copy::Owned>> =
        (0..inputs.len()).map(|i| across(i).then(|| copy::Owned::contiguous(&inputs[i]))).collect();
    let inputs: Vec<View<'_>> =
        inputs.iter().zip(&copies).map(|(x, own)| own.as_ref().map_or(*x, copy::Owned::view)).collect();
    evaluate(isa, expr, compute, &inputs, out);
}

fn evaluate(isa: Isa, expr: &Expr, compute: DType, inputs: &[View<'_>], out: &mut ViewMut<'_>) {
    match compute {
        DType::I64 => Task::<i64>::new(isa, expr, inputs, out).run(),
        DType::U64 => Task::<u64>::new(isa, expr, inputs, out).run(),
        DType::F32 => Task::<f32>::new(isa, expr, inputs, out).run(),
        DType::F64 => Task::<f64>::new(isa, expr, inputs, out).run(),
        other => panic!("{other} is not a compute type; use its DType::compute()"),
    }
}

/// An instruction: `slot[dst] = op(slot[args])`.
#[derive(Clone, Copy, Debug)]
struct Instr {
    op: Node,
    dst: u16,
    args: [u16; 3],
}

/// The program of an expression. Slots are the inputs, then constants, then registers.
struct Program {
    instrs: SmallVec<[Instr; 8]>,
    consts: SmallVec<[f64; 8]>,
    slots: u16,
    result: u16,
}

impl Program {
    /// Assigns registers; one is free again after the last instruction that reads it, but never the same
    /// instruction's result, so that no loop reads what it writes.
    fn new(expr: &Expr) -> Program {
        let nodes = expr.nodes();
        // The op table's expressions are short: programs of most allocate nothing.
        let mut last_use: SmallVec<[usize; 16]> = SmallVec::from_elem(usize::MAX, nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            node.args().for_each(|a| last_use[a as usize] = i);
        }
        let mut program = Program { instrs: SmallVec::new(), consts: SmallVec::new(), slots: 0, result: 0 };
        program
            .consts
            .extend(nodes.iter().filter_map(|n| if let Node::Const(c) = n { Some(*c) } else { None }));
        let first_register = (expr.inputs() + program.consts.len()) as u16;
        program.slots = first_register;
        let mut place: SmallVec<[u16; 16]> = SmallVec::from_elem(0, nodes.len());
        let mut free: SmallVec<[u16; 8]> = SmallVec::new();
        let mut next_const = expr.inputs() as u16;
        for (i, &node) in nodes.iter().enumerate() {
            place[i] = match node {
                Node::Input(n) => u16::from(n),
                Node::Const(_) => {
                    next_const += 1;
                    next_const - 1
                }
                Node::Unary(..) | Node::Binary(..) | Node::Select(..) => {
                    let dst = free.pop().unwrap_or_else(|| {
                        program.slots += 1;
                        program.slots - 1
                    });
                    let mut args = [0; 3];
                    node.args().zip(&mut args).for_each(|(id, arg)| *arg = place[id as usize]);
                    program.instrs.push(Instr { op: node, dst, args });
                    let mut dead: SmallVec<[u16; 3]> = node
                        .args()
                        .map(|a| a as usize)
                        .filter(|&a| last_use[a] == i)
                        .map(|a| place[a])
                        .collect();
                    dead.sort_unstable();
                    dead.dedup();
                    free.extend(dead.into_iter().filter(|&slot| slot >= first_register));
                    dst
                }
            };
        }
        program.result = place[nodes.len() - 1];
        program
    }

    /// A rough cost an element in bytes of memory traffic, for deciding on threads.
    fn cost(&self) -> usize {
        let weight = |instr: &Instr| match instr.op {
            Node::Unary(op, _) if op.is_cheap() => 1,
            Node::Binary(op, ..) if op.is_cheap() => 1,
            Node::Unary(..) | Node::Binary(..) => 8,
            Node::Input(_) | Node::Const(_) | Node::Select(..) => 1,
        };
        self.instrs.iter().map(weight).sum()
    }
}

/// How the machine gets at an input.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// The program doesn't read it.
    Unused,
    /// Every block sees the same values: loaded once.
    Once,
    /// A block of the compute type, without gaps: read in place.
    Direct,
    /// Converted or gathered into its slot.
    Load,
}

struct Operand {
    ptr: *const u8,
    dtype: DType,
    access: Access,
}

struct Task<L> {
    isa: Isa,
    program: Program,
    /// Operand 0 is the result, operand i + 1 input i.
    space: Space,
    inputs: SmallVec<[Operand; 4]>,
    out: *mut u8,
    out_dtype: DType,
    /// The last instruction writes the result in place.
    direct: bool,
    _lane: std::marker::PhantomData<L>,
}

// SAFETY: the pointers are those of views, whose elements threads read together and write in disjoint blocks.
unsafe impl<L> Sync for Task<L> {}

impl<L: Machine> Task<L> {
    fn new(isa: Isa, expr: &Expr, inputs: &[View<'_>], out: &mut ViewMut<'_>) -> Task<L> {
        let (out_dtype, bytes, layout) = (out.dtype(), out.bytes(), out.layout());
        let mut strides: SmallVec<[&[isize]; 5]> = SmallVec::new();
        strides.push(layout.strides());
        strides.extend(inputs.iter().map(|x| x.layout().strides()));
        let space = Space::sorted(&layout.shape, &strides);
        let operands = inputs.iter().enumerate().map(|(i, x)| Operand {
            ptr: x.bytes(),
            dtype: x.dtype(),
            access: if expr.uses(i) { access::<L>(&space, i + 1, x.dtype()) } else { Access::Unused },
        });
        let operands: SmallVec<[Operand; 4]> = operands.collect();
        let program = Program::new(expr);
        // Two slices over one block would be undefined behaviour: a result that is also read goes by a register.
        let aliased = operands.iter().any(|x| x.access != Access::Unused && x.ptr == bytes.cast_const());
        let direct = !aliased
            && out_dtype == L::DTYPE
            && !program.instrs.is_empty()
            && one_stretch(&space, 0)
            && space.strides(0).last() == Some(&1);
        Task {
            isa,
            program,
            space,
            inputs: operands,
            out: bytes,
            out_dtype,
            direct,
            _lane: std::marker::PhantomData,
        }
    }

    fn run(&self) {
        let bytes: usize =
            self.inputs.iter().filter(|x| x.access != Access::Unused).map(|x| x.dtype.size()).sum();
        let per_block = BLOCK.min(self.space.len()) * (bytes + self.out_dtype.size() + self.program.cost());
        let grain = (par::SERIAL_BELOW / per_block.max(1)).max(1);
        par::for_ranges(self.blocks(), grain, |blocks| {
            dispatch_on(self.isa, Blocks { task: self, blocks });
        });
    }

    /// Blocks do not cross rows that are longer than one, and hold whole rows otherwise.
    fn blocks(&self) -> usize {
        let inner = self.space.inner();
        let rows = self.space.len() / inner;
        if inner >= BLOCK { rows * inner.div_ceil(BLOCK) } else { rows.div_ceil(BLOCK / inner) }
    }

    /// First point and number of points of a block.
    fn block(&self, b: usize) -> (usize, usize) {
        let inner = self.space.inner();
        if inner >= BLOCK {
            let chunks = inner.div_ceil(BLOCK);
            let (row, at) = (b / chunks, b % chunks * BLOCK);
            (row * inner + at, BLOCK.min(inner - at))
        } else {
            let whole = BLOCK / inner * inner;
            (b * whole, whole.min(self.space.len() - b * whole))
        }
    }
}

/// Whether each block of an operand is one stretch.
fn one_stretch(space: &Space, operand: usize) -> bool {
    space.inner() >= BLOCK || space.linear(operand).is_some()
}

fn access<L: Element>(space: &Space, operand: usize, dtype: DType) -> Access {
    let s = space.strides(operand);
    let (last, outer) = (s[s.len() - 1], &s[..s.len() - 1]);
    if outer.iter().all(|&s| s == 0) && (last == 0 || (space.inner() < BLOCK && !outer.is_empty())) {
        Access::Once
    } else if dtype == L::DTYPE && last == 1 && one_stretch(space, operand) {
        Access::Direct
    } else {
        Access::Load
    }
}

struct Blocks<'a, L> {
    task: &'a Task<L>,
    blocks: std::ops::Range<usize>,
}

impl<L: Machine> SimdOp for Blocks<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<T: Target>(self) {
        let task = self.task;
        let program = &task.program;
        let slots = program.slots as usize;
        let block = BLOCK.min(task.space.len());
        let mut memory: SmallVec<[L; 64]> = SmallVec::from_elem(L::default(), slots * block);
        let base = memory.as_mut_ptr();
        // SAFETY: each slot is a block of `memory`.
        let mut slots: SmallVec<[*mut L; 16]> = (0..slots).map(|i| unsafe { base.add(i * block) }).collect();
        for (i, &c) in program.consts.iter().enumerate() {
            let at = task.inputs.len() + i;
            memory[at * block..(at + 1) * block].fill(L::from_f64(c));
        }
        for (i, input) in task.inputs.iter().enumerate() {
            if input.access == Access::Once {
                let n = task.block(0).1;
                // SAFETY: the first block of the input exists; the slot has room for a block.
                unsafe { load::<L>(task, i, 0, std::slice::from_raw_parts_mut(slots[i], n)) };
            }
        }
        for b in self.blocks {
            let (start, len) = task.block(b);
            for (i, input) in task.inputs.iter().enumerate() {
                match input.access {
                    Access::Unused | Access::Once => {}
                    Access::Direct => {
                        let at = task.space.offset(i + 1, start);
                        // SAFETY: within the input's view. The slot is only read: no instruction writes inputs.
                        slots[i] = unsafe { input.ptr.cast::<L>().offset(at).cast_mut() };
                    }
                    // SAFETY: the points of the block exist; the slot has room for them.
                    Access::Load => unsafe {
                        load::<L>(task, i, start, std::slice::from_raw_parts_mut(slots[i], len));
                    },
                }
            }
            // SAFETY: blocks are disjoint, and the views valid; see `step` and `store`.
            unsafe {
                if task.direct {
                    slots[program.result as usize] = task.out.cast::<L>().offset(task.space.offset(0, start));
                }
                for instr in &program.instrs {
                    step::<L, T>(instr, &slots, len);
                }
                if !task.direct {
                    let result = std::slice::from_raw_parts(slots[program.result as usize].cast_const(), len);
                    store::<L>(task, start, result);
                }
            }
        }
    }
}

/// Runs one instruction over `len` elements.
///
/// # Safety
/// The slots named hold `len` elements, and the destination is none of the arguments.
#[inline(always)]
unsafe fn step<L: Machine, T: Target>(instr: &Instr, slots: &[*mut L], len: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        let arg = |i: usize| std::slice::from_raw_parts(slots[instr.args[i] as usize].cast_const(), len);
        let out = std::slice::from_raw_parts_mut(slots[instr.dst as usize], len);
        match instr.op {
            Node::Unary(op, _) => L::unary::<T>(op, arg(0), out),
            Node::Binary(op, ..) => L::binary::<T>(op, arg(0), arg(1), out),
            Node::Select(..) => {
                let (c, a, b) = (arg(0), arg(1), arg(2));
                let zero = L::default();
                for i in 0..len {
                    out[i] = if c[i] != zero { a[i] } else { b[i] };
                }
            }
            Node::Input(_) | Node::Const(_) => unreachable!("not instructions"),
        }
    }
}

/// Fills `dst` with input `i` at the points from `start` on.
///
/// # Safety
/// The points exist.
unsafe fn load<L: Machine>(task: &Task<L>, i: usize, start: usize, dst: &mut [L]) {
    let input = &task.inputs[i];
    let stride = *task.space.strides(i + 1).last().expect("at least one axis");
    let size = input.dtype.size() as isize;
    task.space.stretches(i + 1, start, dst.len(), |at, n, offset| {
        // SAFETY: the points are those of the view.
        unsafe {
            let src = input.ptr.offset(offset * size);
            load_block(task.isa, input.dtype, src, stride, &mut dst[at..at + n]);
        }
    });
}

/// Writes `src` to the result at the points from `start` on.
///
/// # Safety
/// The points exist and no other thread touches them.
unsafe fn store<L: Machine>(task: &Task<L>, start: usize, src: &[L]) {
    let stride = *task.space.strides(0).last().expect("at least one axis");
    let size = task.out_dtype.size() as isize;
    task.space.stretches(0, start, src.len(), |at, n, offset| {
        // SAFETY: the points are those of the view, and this thread's.
        unsafe {
            store_block(task.isa, &src[at..at + n], task.out_dtype, task.out.offset(offset * size), stride)
        }
    });
}

/// The primitives over blocks.
trait Machine: Lane + BlockElement {
    fn unary<T: Target>(op: Unary, a: &[Self], out: &mut [Self]);
    fn binary<T: Target>(op: Binary, a: &[Self], b: &[Self], out: &mut [Self]);
}

macro_rules! each {
    ($out:ident; $x:ident in $a:ident => $e:expr) => {{
        let a = &$a[..$out.len()];
        for i in 0..$out.len() {
            let $x = a[i];
            $out[i] = $e;
        }
    }};
    ($out:ident; $x:ident in $a:ident, $y:ident in $b:ident => $e:expr) => {{
        let (a, b) = (&$a[..$out.len()], &$b[..$out.len()]);
        for i in 0..$out.len() {
            let ($x, $y) = (a[i], b[i]);
            $out[i] = $e;
        }
    }};
}

macro_rules! float_machine {
    ($($ty:ident),*) => {$(
        impl Machine for $ty {
            #[inline(always)]
            fn unary<T: Target>(op: Unary, a: &[$ty], out: &mut [$ty]) {
                match op {
                    Unary::Neg => each!(out; x in a => -x),
                    Unary::Abs => each!(out; x in a => x.abs()),
                    Unary::Exp => each!(out; x in a => Real::exp::<T>(x)),
                    Unary::Log => each!(out; x in a => Real::log::<T>(x)),
                    Unary::Sqrt => each!(out; x in a => x.sqrt()),
                    Unary::Rsqrt => each!(out; x in a => 1.0 / x.sqrt()),
                    Unary::Sin if small(a) => each!(out; x in a => Real::sin::<T>(x)),
                    Unary::Sin => each!(out; x in a => x.sin_any()),
                    Unary::Cos if small(a) => each!(out; x in a => Real::cos::<T>(x)),
                    Unary::Cos => each!(out; x in a => x.cos_any()),
                    Unary::Tanh => each!(out; x in a => Real::tanh::<T>(x)),
                    Unary::Erf => each!(out; x in a => Real::erf::<T>(x)),
                    Unary::Floor => each!(out; x in a => Real::floor(x)),
                    Unary::Ceil => each!(out; x in a => Real::ceil(x)),
                    Unary::Round => each!(out; x in a => Real::round(x)),
                    Unary::Not => each!(out; x in a => if x == 0.0 { 1.0 } else { 0.0 }),
                    Unary::Tan if small(a) => each!(out; x in a => Real::tan::<T>(x)),
                    Unary::Tan => each!(out; x in a => x.tan_any()),
                    Unary::Asin => each!(out; x in a => Real::asin::<T>(x)),
                    Unary::Acos => each!(out; x in a => Real::acos::<T>(x)),
                    Unary::Atan => each!(out; x in a => Real::atan::<T>(x)),
                    Unary::Sinh => each!(out; x in a => Real::sinh::<T>(x)),
                    Unary::Cosh => each!(out; x in a => Real::cosh::<T>(x)),
                    Unary::Asinh => each!(out; x in a => Real::asinh::<T>(x)),
                    Unary::Acosh => each!(out; x in a => Real::acosh::<T>(x)),
                    Unary::Atanh => each!(out; x in a => Real::atanh::<T>(x)),
                    Unary::Expm1 => each!(out; x in a => Real::expm1::<T>(x)),
                    Unary::Log1p => each!(out; x in a => Real::log1p::<T>(x)),
                    Unary::Log2 => each!(out; x in a => Real::log2::<T>(x)),
                    Unary::Log10 => each!(out; x in a => Real::log10(x)),
                    Unary::Trunc => each!(out; x in a => Real::trunc(x)),
                    // The table gives bits of integers only.
                    Unary::Invert => each!(out; x in a => !(x as i64) as $ty),
                }
            }

            #[inline(always)]
            fn binary<T: Target>(op: Binary, a: &[$ty], b: &[$ty], out: &mut [$ty]) {
                let truth = |t: bool| if t { 1.0 } else { 0.0 };
                match op {
                    Binary::Add => each!(out; x in a, y in b => x + y),
                    Binary::Sub => each!(out; x in a, y in b => x - y),
                    Binary::Mul => each!(out; x in a, y in b => x * y),
                    Binary::Div => each!(out; x in a, y in b => x / y),
                    // Squares are by far the commonest powers.
                    Binary::Pow if b.iter().all(|&y| y == 2.0) => each!(out; x in a => x * x),
                    Binary::Pow => each!(out; x in a, y in b => Real::pow(x, y)),
                    // The comparison is false for NaN in either: the first keeps one in x, the second in y.
                    Binary::Max => each!(out; x in a, y in b => {
                        let m = if x > y { x } else { y };
                        if x.is_nan() { x } else { m }
                    }),
                    Binary::Min => each!(out; x in a, y in b => {
                        let m = if x < y { x } else { y };
                        if x.is_nan() { x } else { m }
                    }),
                    Binary::Lt => each!(out; x in a, y in b => truth(x < y)),
                    Binary::Le => each!(out; x in a, y in b => truth(x <= y)),
                    Binary::Eq => each!(out; x in a, y in b => truth(x == y)),
                    Binary::And => each!(out; x in a, y in b => truth((x != 0.0) & (y != 0.0))),
                    Binary::Or => each!(out; x in a, y in b => truth((x != 0.0) | (y != 0.0))),
                    Binary::FloorDiv => each!(out; x in a, y in b => x.floor_divide(y)),
                    Binary::Rem => each!(out; x in a, y in b => x.remainder(y)),
                    Binary::Atan2 => each!(out; x in a, y in b => Real::atan2(x, y)),
                    Binary::Hypot => each!(out; x in a, y in b => Real::hypot(x, y)),
                    Binary::CopySign => each!(out; x in a, y in b => Real::copysign(x, y)),
                    Binary::NextAfter => each!(out; x in a, y in b => x.next_after(y)),
                    // The table gives bits of integers only.
                    Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::Shl | Binary::Shr => {
                        each!(out; x in a, y in b => op.eval(x.wide(), y.wide()) as $ty)
                    }
                }
            }
        }
    )*};
}
float_machine!(f32, f64);

/// Whether the vectorised sine and cosine hold for all of these.
#[inline(always)]
fn small<R: Real>(a: &[R]) -> bool {
    // No early exit, so that it vectorises.
    a.iter().fold(true, |ok, x| ok & (x.abs() <= R::TRIG_LIMIT))
}

macro_rules! int_machine {
    ($($ty:ident abs $abs:expr),*) => {$(
        impl Machine for $ty {
            #[inline(always)]
            fn unary<T: Target>(op: Unary, a: &[$ty], out: &mut [$ty]) {
                match op {
                    Unary::Neg => each!(out; x in a => x.wrapping_neg()),
                    Unary::Abs => each!(out; x in a => $abs(x)),
                    Unary::Not => each!(out; x in a => $ty::from(x == 0)),
                    Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => out.copy_from_slice(a),
                    Unary::Invert => each!(out; x in a => !x),
                    // The table gives these no integer form; should one come, it is the real function, truncated.
                    Unary::Exp
                    | Unary::Log
                    | Unary::Sqrt
                    | Unary::Rsqrt
                    | Unary::Sin
                    | Unary::Cos
                    | Unary::Tanh
                    | Unary::Erf
                    | Unary::Tan
                    | Unary::Asin
                    | Unary::Acos
                    | Unary::Atan
                    | Unary::Sinh
                    | Unary::Cosh
                    | Unary::Asinh
                    | Unary::Acosh
                    | Unary::Atanh
                    | Unary::Expm1
                    | Unary::Log1p
                    | Unary::Log2
                    | Unary::Log10 => each!(out; x in a => op.eval(x as f64) as $ty),
                }
            }

            #[inline(always)]
            fn binary<T: Target>(op: Binary, a: &[$ty], b: &[$ty], out: &mut [$ty]) {
                match op {
                    Binary::Add => each!(out; x in a, y in b => x.wrapping_add(y)),
                    Binary::Sub => each!(out; x in a, y in b => x.wrapping_sub(y)),
                    Binary::Mul => each!(out; x in a, y in b => x.wrapping_mul(y)),
                    Binary::Div => each!(out; x in a, y in b => if y == 0 { 0 } else { x.wrapping_div(y) }),
                    Binary::Pow => each!(out; x in a, y in b => x.power(y)),
                    Binary::Max => each!(out; x in a, y in b => x.max(y)),
                    Binary::Min => each!(out; x in a, y in b => x.min(y)),
                    Binary::Lt => each!(out; x in a, y in b => $ty::from(x < y)),
                    Binary::Le => each!(out; x in a, y in b => $ty::from(x <= y)),
                    Binary::Eq => each!(out; x in a, y in b => $ty::from(x == y)),
                    Binary::And => each!(out; x in a, y in b => $ty::from((x != 0) & (y != 0))),
                    Binary::Or => each!(out; x in a, y in b => $ty::from((x != 0) | (y != 0))),
                    Binary::FloorDiv => each!(out; x in a, y in b => x.floor_divide(y)),
                    Binary::Rem => each!(out; x in a, y in b => x.remainder(y)),
                    Binary::BitAnd => each!(out; x in a, y in b => x & y),
                    Binary::BitOr => each!(out; x in a, y in b => x | y),
                    Binary::BitXor => each!(out; x in a, y in b => x ^ y),
                    Binary::Shl => each!(out; x in a, y in b => x.shift_left(y)),
                    Binary::Shr => each!(out; x in a, y in b => x.shift_right(y)),
                    Binary::Atan2 | Binary::Hypot | Binary::CopySign | Binary::NextAfter => {
                        each!(out; x in a, y in b => op.eval(x as f64, y as f64) as $ty)
                    }
                }
            }
        }
    )*};
}
int_machine!(i64 abs i64::wrapping_abs, u64 abs std::convert::identity);
