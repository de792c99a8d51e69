//! What the threads of a warp do together: shuffles, and sums that one of them adds to memory for all.

use bullet_ops::DType;

use super::Emitter;
use super::asm::{Class, Label, Operand, Place, bits, put};
use crate::ir::{Inst, Shuffle};

impl Emitter<'_> {
    /// The word of another lane: by its number, or how far it is, with what ends a segment of lanes.
    fn shuffled_word(&mut self, mode: &str, x: Operand, lane: Operand, end: u32) -> Operand {
        let (name, all) = if self.target.has_sync() { ("shfl.sync", ",-1") } else { ("shfl", "") };
        let y = self.asm.reg(Class::Word);
        put!(self.asm, "{name}.{mode}.b32 {y},{x},{lane},{end}{all};");
        y
    }

    /// The same of a value in an untyped register.
    fn shuffled(&mut self, class: Class, mode: &str, x: Operand, lane: Operand, end: u32) -> Operand {
        if class != Class::Long {
            return self.shuffled_word(mode, x, lane, end);
        }
        let [low, high] = self.asm.split(x).map(|half| self.shuffled_word(mode, half, lane, end));
        self.asm.join(low, high)
    }

    pub(super) fn shuffle(&mut self, inst: Inst, op: Shuffle) {
        let data = self.kernel.inst(inst);
        let (mode, end) = match op {
            Shuffle::Index => ("idx", 31),
            Shuffle::Up => ("up", 0),
            Shuffle::Down => ("down", 31),
            Shuffle::Xor => ("bfly", 31),
        };
        let (x, lane) = (self.bits_of(data.args[0]), self.get(data.args[1]));
        let dtype = self.kernel.dtype(data.results[0]);
        let class = if bits(dtype) == "b64" { Class::Long } else { Class::Word };
        let raw = self.shuffled(class, mode, x, lane, end);
        let value = self.of_bits(dtype, raw);
        self.values[data.results[0].index()] = Some(value);
    }

    /// What this lane adds to a cell: where all lanes of the warp are here with one cell, their sum, by the first; the others go on
    /// behind the update, at the label.
    pub(super) fn warp_sum(&mut self, dtype: DType, place: Place, value: Operand) -> (Operand, Label) {
        let (class, int) = (Class::of(dtype), Operand::Int);
        let sum = self.asm.make(class, super::asm::moves(dtype), &[value]);
        let [alone, done] = [(); 2].map(|()| self.asm.label());
        let here = self.asm.reg(Class::Word);
        match self.target.has_sync() {
            true => put!(self.asm, "activemask.b32 {here};"),
            false => {
                let yes = self.asm.make(Class::Truth, "mov.pred", &[int(-1)]);
                put!(self.asm, "vote.ballot.b32 {here},{yes};");
            }
        }
        let missing = self.asm.test("ne.s32", here, int(-1));
        self.asm.branch(true, missing, alone);
        let base = self.place_in_reg(place.base);
        let first = self.shuffled(Class::Long, "idx", base, int(0), 31);
        let same = self.asm.test("eq.s64", base, first);
        let all = self.asm.reg(Class::Truth);
        match self.target.has_sync() {
            true => put!(self.asm, "vote.sync.all.pred {all},{same},-1;"),
            false => put!(self.asm, "vote.all.pred {all},{same};"),
        }
        self.asm.branch(false, all, alone);
        for step in [16, 8, 4, 2, 1] {
            let other = self.shuffled(class, "down", sum, int(step), 31);
            self.asm.set(sum, &format!("add.{}", super::asm::arithmetic(dtype)), &[sum, other]);
        }
        let lane = self.asm.make(Class::Word, "mov.u32", &[Operand::Lane]);
        let behind = self.asm.test("ne.s32", lane, int(0));
        self.asm.branch(true, behind, done);
        self.asm.place(alone);
        (sum, done)
    }

    fn place_in_reg(&mut self, base: Operand) -> Operand {
        match base {
            Operand::Name(..) => self.asm.make(Class::Long, "mov.u64", &[base]),
            base => base,
        }
    }
}
