//! Atomic updates: instructions where there are such, else loops that compare and exchange.

use bullet_ops::DType;

use super::Emitter;
use super::asm::{Class, Operand, Place, arithmetic, bits, moves, put};
use super::memory::space;
use crate::ir::{Atomic, Inst, Space};

/// The name of an update, but for `atomic_`.
fn name(op: Atomic) -> &'static str {
    match op {
        Atomic::Add => "add",
        Atomic::Min => "min",
        Atomic::Max => "max",
        Atomic::And => "and",
        Atomic::Or => "or",
        Atomic::Xor => "xor",
        Atomic::Exchange => "exch",
    }
}

impl Emitter<'_> {
    pub(super) fn atomic(&mut self, inst: Inst, op: Atomic) {
        let place = self.element(inst);
        let data = self.kernel.inst(inst);
        let ty = self.array(data.args[0]);
        let first = 1 + usize::from(ty.ndim);
        for (lane, &result) in data.results.iter().enumerate() {
            let place = place.plus(lane * ty.dtype.size());
            let value = self.get(data.args[first + lane]);
            if self.is_recorded(inst) {
                self.record(data.args[0], place, value);
                continue;
            }
            let used = self.uses[result.index()] > 0;
            if !used && self.warp_sums[inst.index()] {
                let (sum, done) = self.warp_sum(ty.dtype, place, value);
                self.update(op, ty.dtype, ty.space, place, sum, false);
                self.asm.place(done);
                continue;
            }
            let old = self.update(op, ty.dtype, ty.space, place, value, used);
            if used {
                self.values[result.index()] = Some(old);
            }
        }
    }

    /// What a cell holds after an update.
    fn updated(&mut self, op: Atomic, dtype: DType, old: Operand, value: Operand) -> Operand {
        let name = name(op);
        let result = match op {
            Atomic::Exchange => return value,
            Atomic::And | Atomic::Or | Atomic::Xor => {
                return self.asm.make(Class::of(dtype), &format!("{name}.{}", bits(dtype)), &[old, value]);
            }
            _ => self.op(name, dtype, &[old, value]),
        };
        if op == Atomic::Add { self.rounded(dtype, result) } else { result }
    }

    /// The instruction's type, if there is one for this update.
    fn native(&self, op: Atomic, dtype: DType) -> Option<&'static str> {
        match (op, dtype) {
            (Atomic::Add, DType::F32) => Some("f32"),
            (Atomic::Add, DType::F64) => self.target.has_atomic_doubles().then_some("f64"),
            (Atomic::Exchange | Atomic::And | Atomic::Or | Atomic::Xor, _) => Some(bits(dtype)),
            (_, dtype) if dtype.is_float() => None,
            // Of either sign the sum has the same bits.
            (Atomic::Add, DType::I64) => Some("u64"),
            _ => Some(arithmetic(dtype)),
        }
    }

    fn update(
        &mut self,
        op: Atomic,
        dtype: DType,
        from: Space,
        place: Place,
        value: Operand,
        used: bool,
    ) -> Operand {
        let (name, kind) = (name(op), space(from));
        if from == Space::Local {
            return self.update_own(op, dtype, place, value);
        }
        if dtype.size() == 2 {
            return self.update_narrow(op, dtype, kind, place, value);
        }
        match self.native(op, dtype) {
            Some(ty) if used || op == Atomic::Exchange => {
                let old = self.asm.reg(Class::of(dtype));
                put!(self.asm, "atom.{kind}.{name}.{ty} {old},{place},{value};");
                old
            }
            Some(ty) => {
                put!(self.asm, "red.{kind}.{name}.{ty} {place},{value};");
                value
            }
            None => {
                let [seen, old] = [(); 2].map(|()| self.asm.reg(Class::of(dtype)));
                let (again, ty) = (self.asm.label(), bits(dtype));
                put!(self.asm, "ld.volatile.{kind}.{ty} {seen},{place};");
                self.asm.place(again);
                self.asm.set(old, &format!("mov.{ty}"), &[seen]);
                let next = self.updated(op, dtype, old, value);
                put!(self.asm, "atom.{kind}.cas.{ty} {seen},{place},{old},{next};");
                let other = self.asm.test(&format!("ne.{ty}"), seen, old);
                self.asm.branch(true, other, again);
                old
            }
        }
    }

    /// Of an array that no other thread sees.
    fn update_own(&mut self, op: Atomic, dtype: DType, place: Place, value: Operand) -> Operand {
        let ty = if dtype.size() == 2 { "b16" } else { bits(dtype) };
        if dtype.size() != 2 {
            let old = self.asm.reg(Class::of(dtype));
            put!(self.asm, "ld.local.{ty} {old},{place};");
            let next = self.updated(op, dtype, old, value);
            put!(self.asm, "st.local.{ty} {place},{next};");
            return old;
        }
        let (ld, class) = if dtype == DType::F16 { ("b16", Class::Half) } else { ("u16", Class::Word) };
        let raw = self.asm.reg(class);
        put!(self.asm, "ld.local.{ld} {raw},{place};");
        let old = self.unpacked(dtype, raw);
        let next = self.updated(op, dtype, old, value);
        let next = self.packed(dtype, next);
        put!(self.asm, "st.local.{ld} {place},{next};");
        old
    }

    /// Of 16 bits, by way of the 32 around them, which no allocation cuts.
    fn update_narrow(
        &mut self,
        op: Atomic,
        dtype: DType,
        kind: &str,
        place: Place,
        value: Operand,
    ) -> Operand {
        let address = match place.base {
            Operand::Name(..) => self.asm.make(Class::Long, "mov.u64", &[place.base]),
            base => base,
        };
        let cell = self.asm.make(Class::Long, "add.s64", &[address, Operand::Int(place.offset)]);
        let word = Place::at(self.asm.make(Class::Long, "and.b64", &[cell, Operand::Int(-4)]));
        let low = self.asm.make(Class::Word, "cvt.u32.u64", &[cell]);
        let low = self.asm.make(Class::Word, "and.b32", &[low, Operand::Int(2)]);
        let shift = self.asm.make(Class::Word, "shl.b32", &[low, Operand::Int(3)]);
        let mask = self.asm.make(Class::Word, "shl.b32", &[Operand::Int(0xffff), shift]);
        let keep = self.asm.make(Class::Word, "not.b32", &[mask]);
        let [seen, whole] = [(); 2].map(|()| self.asm.reg(Class::Word));
        let again = self.asm.label();
        put!(self.asm, "ld.volatile.{kind}.b32 {seen},{word};");
        self.asm.place(again);
        self.asm.set(whole, moves(DType::U32), &[seen]);
        let raw = self.asm.make(Class::Word, "shr.u32", &[whole, shift]);
        let raw = match dtype {
            DType::F16 => self.asm.make(Class::Half, "cvt.u16.u32", &[raw]),
            _ => raw,
        };
        let old = self.unpacked(dtype, raw);
        let next = self.updated(op, dtype, old, value);
        let next = match (dtype, self.packed(dtype, next)) {
            (DType::F16, half) => self.asm.make(Class::Word, "cvt.u32.u16", &[half]),
            (_, word) => word,
        };
        let next = self.asm.make(Class::Word, "shl.b32", &[next, shift]);
        let rest = self.asm.make(Class::Word, "and.b32", &[whole, keep]);
        let next = self.asm.make(Class::Word, "or.b32", &[rest, next]);
        put!(self.asm, "atom.{kind}.cas.b32 {seen},{word},{whole},{next};");
        let other = self.asm.test("ne.b32", seen, whole);
        self.asm.branch(true, other, again);
        old
    }

    pub(super) fn exchange(&mut self, inst: Inst) {
        let place = self.element(inst);
        let data = self.kernel.inst(inst);
        let ty = self.array(data.args[0]);
        let first = 1 + usize::from(ty.ndim);
        let (expected, new) = (self.get(data.args[first]), self.get(data.args[first + 1]));
        if ty.dtype.size() < 4 {
            return self.fail("a compare-and-exchange of fewer than 32 bits");
        }
        let (kind, width) = (space(ty.space), bits(ty.dtype));
        let old = self.asm.reg(Class::of(ty.dtype));
        if ty.space == Space::Local {
            put!(self.asm, "ld.local.{width} {old},{place};");
            let same = self.asm.test(&format!("eq.{width}"), old, expected);
            put!(self.asm, "@{same} st.local.{width} {place},{new};");
        } else {
            let [expected, new] = [expected, new].map(|x| self.asm.in_reg(ty.dtype, x));
            put!(self.asm, "atom.{kind}.cas.{width} {old},{place},{expected},{new};");
        }
        self.values[data.results[0].index()] = Some(old);
    }
}
