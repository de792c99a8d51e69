//! What threads put aside: values for the way back, and records of sums.

use std::fmt::Write;

use bullet_ops::DType;
use rustc_hash::FxHashMap;

use super::Emitter;
use super::asm::{Class, Operand, Place, moves, put};
use crate::emit::cuda::{TapePlace, record_number};
use crate::ir::{Block, Kernel, Op, Value};

/// The tape of a thread.
pub(super) struct Tape {
    pub(super) place: TapePlace,
    /// Of pushes that happen once in a thread, by their number: such a value stays in a register.
    once: FxHashMap<u32, Operand>,
    is_once: FxHashMap<u32, bool>,
    /// The address of the next word.
    next: Operand,
    /// How many words there are on it.
    top: Operand,
    /// How many there is room for.
    size: Operand,
    /// Bytes from one word to the next.
    stride: Operand,
}

/// Which pushes of a kernel happen at most once in a thread: those outside of loops, if no other has their number.
fn once(kernel: &Kernel, block: Block, in_loop: bool, found: &mut FxHashMap<u32, bool>) {
    for &inst in &kernel.block(block).insts {
        let data = kernel.inst(inst);
        if let Op::Push(number) = data.op {
            let other = found.contains_key(&number);
            found.insert(number, !in_loop && !other);
        }
        let in_loop = in_loop || matches!(data.op, Op::For | Op::While);
        data.blocks.iter().for_each(|&block| once(kernel, block, in_loop, found));
    }
}

impl Tape {
    pub(super) fn new(kernel: &Kernel, place: TapePlace) -> Tape {
        let mut is_once = FxHashMap::default();
        if place != TapePlace::None {
            once(kernel, kernel.body, false, &mut is_once);
        }
        let nothing = Operand::Int(0);
        let (next, top, size, stride) = (nothing, nothing, nothing, nothing);
        Tape { place, once: FxHashMap::default(), is_once, next, top, size, stride }
    }
}

impl Emitter<'_> {
    /// The parameter of this place behind the kernel's own.
    fn behind(&self, place: u32) -> u32 {
        self.faults_param() + u32::from(!self.sites.all.is_empty()) + place
    }

    /// The registers of the tape, if there is one in memory.
    pub(super) fn open_tape(&mut self, thread: Operand, threads: Operand) {
        let in_memory = self.tape.is_once.values().any(|once| !once);
        match self.tape.place {
            TapePlace::Own(words) if in_memory => {
                let _ = writeln!(self.declarations, ".local .align 8 .b8 $tape0[{}];", 4 * words);
                self.tape.next = self.asm.make(Class::Long, "mov.u64", &[Operand::Name("tape", 0)]);
                self.tape.stride = Operand::Int(4);
            }
            TapePlace::Argument => {
                let words = self.param(self.behind(0), 0, "u64", Class::Long);
                let size = self.param(self.behind(1), 0, "u32", Class::Word);
                let none = self.asm.test("eq.s64", words, Operand::Int(0));
                self.tape.size = self.asm.make(Class::Word, "selp.b32", &[Operand::Int(0), size, none]);
                let words = self.asm.make(Class::Long, "cvta.to.global.u64", &[words]);
                let wide = |this: &mut Self, x: Operand| match x {
                    Operand::Reg(Class::Word, _) => this.asm.make(Class::Long, "cvt.u64.u32", &[x]),
                    _ => x,
                };
                let (thread, threads) = (wide(self, thread), wide(self, threads));
                let four = Operand::Int(4);
                self.tape.next = self.asm.make(Class::Long, "mad.lo.s64", &[thread, four, words]);
                self.tape.stride = self.asm.make(Class::Long, "mul.lo.s64", &[threads, four]);
                self.tape.top = self.asm.make(Class::Word, "mov.b32", &[Operand::Int(0)]);
            }
            _ => {}
        }
    }

    /// The words of a value.
    fn words(&mut self, value: Value) -> Vec<Operand> {
        let x = self.bits_of(value);
        if Class::of(self.kernel.dtype(value)) == Class::Long { self.asm.split(x).to_vec() } else { vec![x] }
    }

    pub(super) fn push(&mut self, number: u32, value: Value) {
        let dtype = self.kernel.dtype(value);
        if self.tape.is_once.get(&number) == Some(&true) {
            let x = self.get(value);
            let kept = self.asm.make(Class::of(dtype), moves(dtype), &[x]);
            self.tape.once.insert(number, kept);
            return;
        }
        for word in self.words(value) {
            let (next, stride, top, size) = (self.tape.next, self.tape.stride, self.tape.top, self.tape.size);
            if let TapePlace::Own(_) = self.tape.place {
                put!(self.asm, "st.local.b32 [{next}],{word};");
            } else {
                let fits = self.asm.test("lt.u32", top, size);
                put!(self.asm, "@{fits} st.global.b32 [{next}],{word};");
                self.asm.set(top, "add.u32", &[top, Operand::Int(1)]);
            }
            self.asm.set(next, "add.s64", &[next, stride]);
        }
    }

    pub(super) fn pop(&mut self, number: u32, result: Value) {
        let dtype = self.kernel.dtype(result);
        if self.tape.is_once.get(&number) == Some(&true) {
            let Some(&kept) = self.tape.once.get(&number) else { return self.fail("a pop before its push") };
            self.values[result.index()] = Some(kept);
            return;
        }
        let own = matches!(self.tape.place, TapePlace::Own(_));
        let mut word = || {
            let (next, stride, top) = (self.tape.next, self.tape.stride, self.tape.top);
            self.asm.set(next, "sub.s64", &[next, stride]);
            if !own {
                self.asm.set(top, "sub.u32", &[top, Operand::Int(1)]);
            }
            let space = if own { "local" } else { "global" };
            self.asm.load(Class::Word, &format!("ld.{space}.b32"), Place::at(next))
        };
        let value = if Class::of(dtype) == Class::Long {
            let (high, low) = (word(), word());
            self.asm.join(low, high)
        } else {
            word()
        };
        let value = self.of_bits(dtype, value);
        self.values[result.index()] = Some(value);
    }

    /// Where the way back begins: a thread that only measures, or has too little room, ends here and says what it needs.
    pub(super) fn turn(&mut self, room: Option<Value>) {
        if self.tape.place != TapePlace::Argument {
            return;
        }
        let mut need = self.tape.top;
        if let Some(room) = room {
            let room = self.get(room);
            let room = match room {
                Operand::Int(_) => room,
                _ => self.asm.make(Class::Word, "cvt.u32.u64", &[room]),
            };
            need = self.asm.make(Class::Word, "add.u32", &[need, room]);
        }
        let words = self.param(self.behind(0), 0, "u64", Class::Long);
        let size = self.param(self.behind(1), 0, "u32", Class::Word);
        let at = self.param(self.behind(2), 0, "u64", Class::Long);
        let none = self.asm.test("eq.s64", words, Operand::Int(0));
        let leaves = self.asm.reg(Class::Truth);
        put!(self.asm, "setp.gt.or.u32 {leaves},{need},{size},{none};");
        let on = self.asm.label();
        self.asm.branch(false, leaves, on);
        put!(self.asm, "red.max.u32 [{at}],{need};\nret;");
        self.asm.place(on);
    }

    /// The first of the parameters of records.
    fn record_param(&self) -> u32 {
        self.behind(if self.tape.place == TapePlace::Argument { 3 } else { 0 })
    }

    /// The thread's place among those that record, and in the grid.
    pub(super) fn record_slot(&mut self, slot: Operand) -> [Operand; 3] {
        let first = self.param(self.record_param(), 0, "u64", Class::Long);
        let stride = self.param(self.record_param() + 1, 0, "u64", Class::Long);
        let thread = self.asm.make(Class::Long, "add.s64", &[first, slot]);
        [slot, stride, thread]
    }

    /// The registers of what is recorded: where the next goes, and how many there are.
    pub(super) fn open_records(&mut self, slot: Operand, stride: Operand) {
        let eight = Operand::Int(8);
        let parameter = self.record_param();
        for (i, number) in [4, 5, 6].into_iter().enumerate() {
            let list = self.param(parameter + number, 0, "u64", Class::Long);
            let list = self.asm.make(Class::Long, "cvta.to.global.u64", &[list]);
            self.records.lists[i] = self.asm.make(Class::Long, "mad.lo.s64", &[slot, eight, list]);
        }
        self.records.stride = self.asm.make(Class::Long, "mul.lo.s64", &[stride, eight]);
        self.records.count = self.asm.make(Class::Word, "mov.b32", &[Operand::Int(0)]);
    }

    /// Puts down a record of a sum.
    pub(super) fn record(&mut self, array: Value, place: Place, value: Operand) {
        let size = self.param(self.record_param() + 2, 0, "u32", Class::Word);
        let dtype = self.kernel.dtype(array);
        let own = self.record_param() + 7 + self.records.place_of(self.kernel, array);
        let key = self.param(own, 0, "u64", Class::Long);
        let cell = self.asm.make(Class::Long, "add.s64", &[place.base, Operand::Int(place.offset)]);
        let key = self.asm.make(Class::Long, "add.s64", &[cell, key]);
        let kind = Operand::Int(i64::from(record_number(dtype)) << 60);
        let cell = self.asm.make(Class::Long, "or.b64", &[cell, kind]);
        let x = match dtype {
            DType::F64 => value,
            _ => {
                let value = self.asm.in_reg(dtype, value);
                self.asm.make(Class::Long, "cvt.f64.f32", &[value])
            }
        };
        let (lists, stride, count) = (self.records.lists, self.records.stride, self.records.count);
        let fits = self.asm.test("lt.u32", count, size);
        for (list, x) in lists.into_iter().zip([key, cell, x]) {
            put!(self.asm, "@{fits} st.global.b64 [{list}],{x};");
            self.asm.set(list, "add.s64", &[list, stride]);
        }
        self.asm.set(count, "add.u32", &[count, Operand::Int(1)]);
    }

    /// Says how many records there are, if that is more than there was room for.
    pub(super) fn close_records(&mut self) {
        let size = self.param(self.record_param() + 2, 0, "u32", Class::Word);
        let need = self.param(self.record_param() + 3, 0, "u64", Class::Long);
        let count = self.records.count;
        let more = self.asm.test("gt.u32", count, size);
        put!(self.asm, "@{more} red.max.u32 [{need}],{count};");
    }
}

/// What a thread records.
pub(super) struct Records {
    /// The parameters that it is of, by their number.
    pub(super) arrays: Vec<usize>,
    lists: [Operand; 3],
    stride: Operand,
    count: Operand,
}

impl Records {
    pub(super) fn of(arrays: Vec<usize>) -> Records {
        let nothing = Operand::Int(0);
        Records { arrays, lists: [nothing; 3], stride: nothing, count: nothing }
    }

    fn place_of(&self, kernel: &Kernel, array: Value) -> u32 {
        let is_it = |&number: &usize| kernel.params[number] == array;
        self.arrays.iter().position(is_it).unwrap_or_default() as u32
    }
}
