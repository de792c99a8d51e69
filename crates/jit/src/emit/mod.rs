//! From the IR to Cranelift's: one function for the threads `start..end` of a grid, with a loop over them.
//!
//! Blocks of the IR are regions with one entry and one exit, so that each value is a value here, and what branches give and loops
//! carry are arguments of blocks. Memory is checked and addressed by [`frame`]; [`scalar`] has single operations.

use bullet_lang::adjoint::Tape;
use bullet_lang::fault::Site;
use bullet_lang::ir::{self, Inst, Kernel, Op, Space};
use bullet_lang::order;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Function as Clif, InstBuilder, Signature, Type, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use crate::abi::{Context, Function};
use crate::host::Print;
use crate::program::{Error, Options};
use frame::Frame;
use lanes::LANES;
use scalar::{Ops, trusted};
use wide::Wide;

mod control;
mod frame;
mod lanes;
mod polls;
mod scalar;
mod sums;
mod uniform;
mod wide;

/// A function, and what its calls into this crate mean.
pub(crate) struct Emitted {
    pub(crate) function: Clif,
    pub(crate) sites: Vec<Site>,
    pub(crate) prints: Vec<Print>,
    /// Bytes of local arrays beside the stack.
    pub(crate) scratch: usize,
    /// Bytes of tape that a thread needs, where that is known.
    pub(crate) tape: usize,
}

/// Why a kernel has no code here.
fn refuse(kernel: &Kernel) -> Result<(), Error> {
    for inst in kernel.instructions() {
        let data = kernel.inst(inst);
        let what = match data.op {
            Op::Barrier => "a barrier",
            Op::Shuffle(_) => "a shuffle",
            Op::Alloc(_)
                if kernel.ty(data.results[0]).array().is_some_and(|array| array.space == Space::Shared) =>
            {
                "a shared array"
            }
            Op::Custom(_) => {
                return Err(Error::new(format!(
                    "kernel `{}` was not made plain before its code",
                    kernel.name
                )));
            }
            Op::Tid(_)
            | Op::Dim(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Cast
            | Op::Bitcast
            | Op::Load
            | Op::Store
            | Op::Atomic(_)
            | Op::CompareExchange
            | Op::Alloc(_)
            | Op::If
            | Op::For
            | Op::While
            | Op::Push(_)
            | Op::Pop(_)
            | Op::Turn
            | Op::Print(_)
            | Op::Assert(_)
            | Op::Within(_) => continue,
        };
        return Err(Error::new(format!(
            "kernel `{}` has {what}, which needs threads side by side; the CPU runs them one after the other: launch it on a GPU",
            kernel.name
        )));
    }
    Ok(())
}

/// The function of a kernel.
pub(crate) fn emit(kernel: &Kernel, options: Options, isa: &dyn TargetIsa) -> Result<Emitted, Error> {
    // Derivatives of one's own are the adjoint's business.
    let plain = kernel.plain();
    let kernel = &*plain;
    refuse(kernel)?;
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.extend([AbiParam::new(I64); 3]);
    signature.returns.push(AbiParam::new(I32));
    let mut function = Clif::with_name_signature(UserFuncName::testcase(kernel.name.as_bytes()), signature);
    let mut builder_context = FunctionBuilderContext::new();
    let builder = FunctionBuilder::new(&mut function, &mut builder_context);
    let mut emitter = Emitter::new(kernel, options, Ops::new(builder, isa.default_call_conv()));
    emitter.function();
    let Emitter { mut ops, sites, prints, frame, tape, lanes, .. } = emitter;
    ops.b.seal_all_blocks();
    ops.b.finalize(isa.frontend_config());
    let tape = match tape {
        TapeUse::Bytes(bytes) => bytes * lanes,
        TapeUse::None | TapeUse::Grows => 0,
    };
    Ok(Emitted { function, sites, prints, scratch: frame.scratch, tape })
}

/// What a kernel needs of a tape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TapeUse {
    None,
    /// At most so many bytes a thread, which are there.
    Bytes(usize),
    /// It is grown where it is full.
    Grows,
}

/// Larger tapes are grown as they are needed.
const MOST_TAPE: u64 = 1 << 20;

impl TapeUse {
    fn of(kernel: &Kernel) -> TapeUse {
        match Tape::of(kernel) {
            Tape::Words(0) => TapeUse::None,
            Tape::Words(words) if words <= MOST_TAPE / 4 => TapeUse::Bytes(4 * words as usize),
            Tape::Words(_) | Tape::Measured => TapeUse::Grows,
        }
    }
}

struct Emitter<'a> {
    kernel: &'a Kernel,
    options: Options,
    ops: Ops<'a>,
    /// What each scalar of the kernel is here.
    values: Vec<Option<Value>>,
    frame: Frame,
    context: Value,
    /// This thread's place in the order of the grid, and in each dimension.
    thread: Value,
    place: [Value; 4],
    /// Where faults go: takes the site, the index, the first thread of a round, and bits of its lanes.
    fault: Block,
    /// When to ask whether to go on, in kernels with loops.
    polls: Option<polls::Polls>,
    /// Sums that are not added yet.
    waiting: Vec<sums::Waiting>,
    sites: Vec<Site>,
    prints: Vec<Print>,
    tape: TapeUse,
    /// The end of the tape.
    top: Variable,
    /// The instructions that put down a record of an update.
    recorded: Vec<bool>,
    /// How many threads run at once, at most.
    lanes: usize,
    /// What is known of threads side by side, while their code is made.
    wide: Option<Wide>,
}

impl<'a> Emitter<'a> {
    fn new(kernel: &'a Kernel, options: Options, mut ops: Ops<'a>) -> Emitter<'a> {
        let none = Value::from_u32(0);
        let fault = ops.b.create_block();
        let top = ops.b.declare_var(I64);
        Emitter {
            kernel,
            options,
            ops,
            values: vec![None; kernel.value_count()],
            frame: Frame::default(),
            context: none,
            thread: none,
            place: [none; 4],
            fault,
            polls: None,
            waiting: vec![],
            sites: vec![],
            prints: vec![],
            tape: TapeUse::of(kernel),
            top,
            recorded: if options.records { order::recorded(kernel, true) } else { vec![] },
            lanes: 1,
            wide: None,
        }
    }

    fn function(&mut self) {
        let entry = self.ops.b.create_block();
        self.ops.b.append_block_params_for_function_params(entry);
        self.ops.b.switch_to_block(entry);
        let &[context, start, end] = self.ops.b.block_params(entry) else { return };
        self.context = context;
        self.ops.table = self.of_context(I64, Context::TABLE);
        let args = self.of_context(I64, Context::ARGS);
        self.bind(args);
        self.start_polls();
        self.start_sums();
        let grid = usize::from(self.kernel.grid);
        let lengths: Vec<Value> =
            (0..grid).map(|axis| self.of_context(I32, Context::GRID + 4 * axis as i32)).collect();
        let first = self.first_place(start, &lengths);

        // A loop over threads, which knows their places without dividing.
        let (head, exit) = (self.ops.b.create_block(), self.ops.b.create_block());
        // Functions of lanes take them in registers, as this convention has it.
        let records = self.options.records;
        let can =
            self.ops.call_conv == CallConv::SystemV && (!records || order::updates_once(self.kernel, true));
        let shapes = can.then(|| uniform::choose(self.kernel, self.options.lanes, records)).flatten();
        self.lanes = if shapes.is_some() { LANES } else { 1 };
        let args = self.place_args(start, &first);
        let dense = shapes.as_ref().and_then(|shapes| self.is_dense(shapes));
        self.ops.b.ins().jump(head, &args);
        match shapes {
            Some(shapes) => {
                let wide = Wide::new(self.kernel, shapes);
                self.rounds_of_lanes((wide, dense), (head, exit), end, &lengths);
            }
            None => self.threads(head, exit, end, &lengths),
        }
        self.ops.b.switch_to_block(exit);
        self.end_sums();
        let done = self.ops.int(I32, 0);
        self.ops.b.ins().return_(&[done]);
        self.end_in_fault();
        self.end_stopped();
    }

    /// A thread's number and place as arguments of a block.
    fn place_args(&self, thread: Value, place: &[Value]) -> Vec<BlockArg> {
        let mut args = vec![BlockArg::Value(thread)];
        if self.kernel.grid > 1 {
            args.extend(place[..self.kernel.grid.into()].iter().map(|&place| BlockArg::Value(place)));
        }
        args
    }

    /// Starts a block with a thread's number and place as its parameters.
    fn at_place(&mut self, block: Block) {
        let grid = usize::from(self.kernel.grid);
        self.thread = self.ops.b.append_block_param(block, I64);
        for axis in 0..if grid > 1 { grid } else { 0 } {
            self.place[axis] = self.ops.b.append_block_param(block, I32);
        }
        self.ops.b.switch_to_block(block);
        if grid == 1 {
            self.place[0] = self.ops.b.ins().ireduce(I32, self.thread);
        }
    }

    /// Runs threads one after the other, up to `end`, from the place that `head` takes.
    fn threads(&mut self, head: Block, exit: Block, end: Value, lengths: &[Value]) {
        self.at_place(head);
        if self.lanes == 1 {
            self.poll_by_ticks();
        }
        self.start_tape();
        self.block(self.kernel.body);
        let one = self.ops.int(I32, 1);
        let next = self.ops.b.ins().iadd_imm_s(self.thread, 1);
        let place = self.next_place(one, lengths);
        let more = self.ops.b.ins().icmp(IntCC::SignedLessThan, next, end);
        let args = self.place_args(next, &place);
        self.ops.b.ins().brif(more, head, &args, exit, &[]);
    }

    /// Runs as many threads as there are lanes side by side, where a row has as many left and arrays have no gaps; else the threads of
    /// the round one after the other.
    fn rounds_of_lanes(
        &mut self,
        (wide, dense): (Wide, Option<Value>),
        (head, exit): (Block, Block),
        end: Value,
        lengths: &[Value],
    ) {
        self.at_place(head);
        let (thread, place) = (self.thread, self.place);
        let threads = self.threads_left(end, lengths);
        let all = self.ops.b.ins().icmp_imm_s(IntCC::Equal, threads, LANES as i64);
        let good = dense.map_or(all, |dense| self.ops.b.ins().band(all, dense));
        let (beside, single, next) =
            (self.ops.b.create_block(), self.ops.b.create_block(), self.ops.b.create_block());
        let args = self.place_args(thread, &place);
        let wide_threads = self.ops.b.ins().uextend(I64, threads);
        let last = self.ops.b.ins().iadd(thread, wide_threads);
        self.ops.b.ins().brif(good, beside, &[], single, &args);

        self.ops.b.switch_to_block(beside);
        self.wide = Some(wide);
        self.start_tape();
        self.block(self.kernel.body);
        self.wide = None;
        self.ops.b.ins().jump(next, &[]);
        self.threads(single, next, last, lengths);

        (self.thread, self.place) = (thread, place);
        self.ops.b.switch_to_block(next);
        self.poll_by_ticks();
        let place = self.next_place(threads, lengths);
        let more = self.ops.b.ins().icmp(IntCC::SignedLessThan, last, end);
        let args = self.place_args(last, &place);
        self.ops.b.ins().brif(more, head, &args, exit, &[]);
    }

    /// How many threads a round has: lanes, or fewer at the end of a row.
    fn threads_left(&mut self, end: Value, lengths: &[Value]) -> Value {
        let left = self.ops.b.ins().isub(end, self.thread);
        let most = self.ops.b.ins().iconst(I64, LANES as i64);
        let left = self.ops.b.ins().smin(left, most);
        let threads = self.ops.b.ins().ireduce(I32, left);
        let (Some(&length), true) = (lengths.last(), lengths.len() > 1) else { return threads };
        let row = self.ops.b.ins().isub(length, self.place[lengths.len() - 1]);
        self.ops.b.ins().smin(threads, row)
    }

    fn of_context(&mut self, ty: Type, offset: i32) -> Value {
        self.ops.b.ins().load(ty, trusted().with_readonly().with_aligned(), self.context, offset)
    }

    /// The place of the first thread.
    fn first_place(&mut self, start: Value, lengths: &[Value]) -> Vec<Value> {
        let mut places = vec![start; lengths.len()];
        let mut rest = start;
        for axis in (1..lengths.len()).rev() {
            let length = self.ops.b.ins().uextend(I64, lengths[axis]);
            let place = self.ops.b.ins().urem(rest, length);
            places[axis] = self.ops.b.ins().ireduce(I32, place);
            rest = self.ops.b.ins().udiv(rest, length);
        }
        if lengths.len() > 1 {
            places[0] = self.ops.b.ins().ireduce(I32, rest);
        }
        places
    }

    /// The place of the thread so many behind this one, in this row or the first of the next.
    fn next_place(&mut self, threads: Value, lengths: &[Value]) -> [Value; 4] {
        let mut places = self.place;
        let (zero, mut carry) = (self.ops.int(I32, 0), threads);
        for axis in (1..lengths.len()).rev() {
            let next = self.ops.b.ins().iadd(places[axis], carry);
            let over = self.ops.b.ins().icmp(IntCC::Equal, next, lengths[axis]);
            places[axis] = self.ops.b.ins().select(over, zero, next);
            carry = self.ops.b.ins().uextend(I32, over);
        }
        if lengths.len() > 1 {
            places[0] = self.ops.b.ins().iadd(places[0], carry);
        }
        places
    }

    /// The block that tells of a fault and ends.
    fn end_in_fault(&mut self) {
        self.ops.b.set_cold_block(self.fault);
        let site = self.ops.b.append_block_param(self.fault, I32);
        let value = self.ops.b.append_block_param(self.fault, I32);
        let first = self.ops.b.append_block_param(self.fault, I64);
        let bits = self.ops.b.append_block_param(self.fault, I32);
        self.ops.b.switch_to_block(self.fault);
        let lane = self.ops.b.ins().ctz(bits);
        let lane = self.ops.b.ins().uextend(I64, lane);
        let thread = self.ops.b.ins().iadd(first, lane);
        self.ops.call(Function::Fault, &[self.context, site, value, thread], None);
        self.end_sums();
        let failed = self.ops.int(I32, 1);
        self.ops.b.ins().return_(&[failed]);
    }

    /// Goes on only if `good`; else it is a fault of this site.
    fn unless_fault(&mut self, good: Value, site: u32, value: Value) {
        let bits = self.mask_bits();
        self.unless_fault_of(good, site, value, bits);
    }

    /// As [`unless_fault`](Self::unless_fault), of the first of these lanes.
    fn unless_fault_of(&mut self, good: Value, site: u32, value: Value, bits: Value) {
        let next = self.ops.b.create_block();
        let args = self.fault_args(site, value, bits);
        self.ops.b.ins().brif(good, next, &[], self.fault, &args);
        self.ops.b.switch_to_block(next);
    }

    /// Of the block of faults: of the first of these lanes.
    fn fault_args(&mut self, site: u32, value: Value, bits: Value) -> [BlockArg; 4] {
        let site = self.ops.int(I32, site.into());
        [site, value, self.thread, bits].map(BlockArg::Value)
    }

    /// What a scalar is here.
    fn value(&mut self, value: ir::Value) -> Value {
        if let Some(constant) = self.kernel.as_const(value) {
            return self.ops.constant(constant);
        }
        // Only a kernel that `verify` refuses lacks one.
        self.values[value.index()].unwrap_or(self.thread)
    }

    fn set(&mut self, inst: Inst, value: Value) {
        self.values[self.kernel.inst(inst).results[0].index()] = Some(value);
    }
}
