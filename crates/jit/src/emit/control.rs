//! Instructions one by one, branches and loops.

use bullet_lang::ir::{self, Const, Inst, Op};
use bullet_ops::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value};

use super::Emitter;
use super::scalar::{register, trusted};
use crate::abi::Function;
use crate::host::Print;

impl Emitter<'_> {
    /// The instructions of a block.
    pub(super) fn block(&mut self, block: ir::Block) {
        let kernel = self.kernel;
        for &inst in &kernel.block(block).insts {
            self.inst(inst);
        }
    }

    fn inst(&mut self, inst: Inst) {
        if self.inst_of_lanes(inst) {
            return;
        }
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let args = &data.args;
        match data.op {
            Op::Tid(axis) => self.set(inst, self.place[usize::from(axis)]),
            Op::Dim(axis) => {
                let length = self.dim(args[0], axis.into());
                self.set(inst, length);
            }
            op if op.is_pure() => {
                let value = self.pure(inst);
                self.set(inst, value);
            }
            Op::Load => {
                let (address, _) = self.element(inst);
                let (dtype, mut offset) = (kernel.dtype(args[0]), 0);
                for &result in &data.results {
                    self.values[result.index()] = Some(self.ops.load(dtype, address, offset));
                    offset += dtype.size() as i32;
                }
            }
            Op::Store => {
                let (address, first) = self.element(inst);
                let (dtype, mut offset) = (kernel.dtype(args[0]), 0);
                for &value in &args[first..] {
                    let value = self.value(value);
                    self.ops.store(dtype, value, address, offset);
                    offset += dtype.size() as i32;
                }
            }
            Op::Atomic(op) => {
                let (address, first) = self.element(inst);
                let dtype = kernel.dtype(args[0]);
                for (lane, &value) in args[first..].iter().enumerate() {
                    let value = self.value(value);
                    let at = self.ops.b.ins().iadd_imm_s(address, (lane * dtype.size()) as i64);
                    let old = if self.recorded.get(inst.index()) == Some(&true) {
                        self.record(op, dtype, at, value)
                    } else if self.add_later(inst, lane, at, value) {
                        value
                    } else {
                        self.ops.atomic(op, dtype, at, value)
                    };
                    self.values[data.results[lane].index()] = Some(old);
                }
            }
            Op::CompareExchange => {
                let (address, first) = self.element(inst);
                let (expected, new) = (self.value(args[first]), self.value(args[first + 1]));
                let old = self.ops.compare_exchange(kernel.dtype(args[0]), address, expected, new);
                self.set(inst, old);
            }
            Op::Alloc(count) => self.alloc(inst, count),
            Op::If => self.branch(inst),
            Op::For => self.counted(inst),
            Op::While => self.conditional(inst),
            Op::Push(_) => self.push(args[0]),
            Op::Pop(_) => self.pop(inst),
            Op::Print(text) => self.print(inst, text),
            Op::Assert(_) => {
                let good = self.value(args[0]);
                let (site, zero) = (self.site(inst), self.ops.int(I32, 0));
                self.unless_fault(good, site, zero);
            }
            Op::Within(_) => self.within(inst),
            // `refuse` names every op: what is left does nothing here.
            _ => {}
        }
    }

    /// An operation of values alone.
    fn pure(&mut self, inst: Inst) -> Value {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let args: Vec<Value> = data.args.iter().map(|&arg| self.value(arg)).collect();
        let (from, to) = (data.args.first().map(|&arg| kernel.dtype(arg)), kernel.dtype(data.results[0]));
        let from = from.unwrap_or(to);
        match data.op {
            Op::Unary(op) => self.ops.unary(op, from, args[0]),
            Op::Binary(op) => self.ops.binary(op, from, args[0], args[1]),
            Op::Compare(op) => self.ops.compare(op, from, args[0], args[1]),
            Op::Select => self.ops.b.ins().select(args[0], args[1], args[2]),
            Op::Cast => self.ops.cast(from, to, args[0]),
            _ => self.ops.bitcast(from, to, args[0]),
        }
    }

    fn branch(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let test = self.value(data.args[0]);
        let (then, other, end) =
            (self.ops.b.create_block(), self.ops.b.create_block(), self.ops.b.create_block());
        self.ops.b.ins().brif(test, then, &[], other, &[]);
        for (at, block) in [(then, data.blocks[0]), (other, data.blocks[1])] {
            self.ops.b.switch_to_block(at);
            self.block(block);
            let args = self.mixed(&kernel.block(block).yields, &data.results);
            self.ops.b.ins().jump(end, &args);
        }
        self.mixed_parameters(end, &data.results);
        self.ops.b.switch_to_block(end);
    }

    fn conditional(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let block = kernel.block(data.blocks[0]);
        let (body, exit) = (self.ops.b.create_block(), self.ops.b.create_block());
        let go = self.value(data.args[0]);
        let args = self.mixed(&data.args[1..], &data.results);
        self.ops.b.ins().brif(go, body, &args, exit, &args);
        self.mixed_parameters(body, &block.args);
        self.ops.b.switch_to_block(body);
        self.block(data.blocks[0]);
        self.poll_by_test(inst);
        let go = self.value(block.yields[0]);
        let args = self.mixed(&block.yields[1..], &data.results);
        self.ops.b.ins().brif(go, body, &args, exit, &args);
        self.mixed_parameters(exit, &data.results);
        self.ops.b.switch_to_block(exit);
    }

    /// A loop with a count: by steps of 1 the index is compared, else runs are counted, as the index may wrap behind the last.
    fn counted(&mut self, inst: Inst) {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let step = kernel.as_const(data.args[2]).and_then(Const::as_int);
        let bounds: Vec<Value> = data.args[..3].iter().map(|&arg| self.value(arg)).collect();
        let block = kernel.block(data.blocks[0]);
        let (body, exit) = (self.ops.b.create_block(), self.ops.b.create_block());
        let unit = match step {
            Some(1) => Some(IntCC::SignedLessThan),
            Some(-1) => Some(IntCC::SignedGreaterThan),
            _ => None,
        };
        let mut carried = self.mixed(&data.args[3..], &data.results);
        let runs = unit.is_none().then(|| self.runs(kernel.dtype(data.args[0]), &bounds));
        let go = match (unit, runs) {
            (Some(code), _) => self.ops.b.ins().icmp(code, bounds[0], bounds[1]),
            (None, Some(runs)) => self.ops.b.ins().icmp_imm_s(IntCC::NotEqual, runs, 0),
            (None, None) => return,
        };
        let mut first = vec![BlockArg::Value(bounds[0])];
        first.append(&mut carried.clone());
        first.extend(runs.map(BlockArg::Value));
        self.ops.b.ins().brif(go, body, &first, exit, &carried);
        self.mixed_parameters(body, &block.args);
        let left = runs.map(|_| self.ops.b.append_block_param(body, I64));
        self.ops.b.switch_to_block(body);
        self.block(data.blocks[0]);
        let index = self.value(block.args[0]);
        let next = self.ops.b.ins().iadd(index, bounds[2]);
        self.poll_by_count(inst, left.unwrap_or(next));
        carried = self.mixed(&block.yields, &data.results);
        let mut again = vec![BlockArg::Value(next)];
        again.append(&mut carried.clone());
        let go = match (unit, left) {
            (Some(code), _) => self.ops.b.ins().icmp(code, next, bounds[1]),
            (None, Some(left)) => {
                let left = self.ops.b.ins().iadd_imm_s(left, -1);
                again.push(BlockArg::Value(left));
                self.ops.b.ins().icmp_imm_s(IntCC::NotEqual, left, 0)
            }
            (None, None) => return,
        };
        self.ops.b.ins().brif(go, body, &again, exit, &carried);
        self.mixed_parameters(exit, &data.results);
        self.ops.b.switch_to_block(exit);
    }

    /// How often a loop runs.
    pub(super) fn runs(&mut self, dtype: DType, bounds: &[Value]) -> Value {
        let wide: Vec<Value> = bounds.iter().map(|&x| self.ops.cast(dtype, DType::I64, x)).collect();
        let (low, high, step) = (wide[0], wide[1], wide[2]);
        let b = &mut self.ops.b;
        let (zero, one) = (b.ins().iconst(I64, 0), b.ins().iconst(I64, 1));
        let up = b.ins().icmp(IntCC::SignedGreaterThan, step, zero);
        let (first, last) = (b.ins().select(up, low, high), b.ins().select(up, high, low));
        let negative = b.ins().ineg(step);
        let size = b.ins().select(up, step, negative);
        // Distances of 64-bit integers fit 64 bits without a sign.
        let distance = b.ins().isub(last, first);
        let some = b.ins().icmp(IntCC::SignedLessThan, first, last);
        let stays = b.ins().icmp(IntCC::Equal, step, zero);
        let size = b.ins().select(stays, one, size);
        let last = b.ins().iadd_imm_s(distance, -1);
        let whole = b.ins().udiv(last, size);
        let runs = b.ins().iadd_imm_s(whole, 1);
        let runs = b.ins().select(some, runs, zero);
        b.ins().select(stays, zero, runs)
    }

    /// Puts the values side by side, in 8 bytes each, and has them printed.
    fn print(&mut self, inst: Inst, text: u32) {
        let kernel = self.kernel;
        let args = &kernel.inst(inst).args;
        let dtypes: Vec<DType> = args.iter().map(|&arg| kernel.dtype(arg)).collect();
        let slot = self.slot(8 * args.len().max(1));
        let address = self.ops.b.ins().stack_addr(I64, slot, 0);
        for (i, (&arg, &dtype)) in args.iter().zip(&dtypes).enumerate() {
            let x = self.value(arg);
            let wide = match dtype {
                _ if register(dtype) == F32 => self.ops.cast(DType::F32, DType::F64, x),
                DType::F64 => x,
                _ => self.ops.cast(dtype, DType::I64, x),
            };
            self.ops.b.ins().store(trusted(), wide, address, 8 * i as i32);
        }
        let index = self.ops.int(I32, self.prints.len() as i64);
        self.prints.push(Print { format: kernel.text(text).into(), dtypes });
        self.ops.call(Function::Print, &[self.context, index, address], None);
    }
}
