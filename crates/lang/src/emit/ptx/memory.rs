//! Parameters, arrays, loads and stores.

use std::fmt::Write;

use bullet_ops::DType;

use super::asm::{Class, Operand, Place, arithmetic, put};
use super::{Emitter, Key};
use crate::emit::cuda::{Layout, at_once};
use crate::ir::{ArrayType, Const, Def, Inst, Space, Type, Value};

/// How `ld` and `st` name a type; what registers hold of 8 and 16 bits is extended on the way.
fn storage(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::U8 => "u8",
        DType::I8 => "s8",
        DType::U16 | DType::BF16 => "u16",
        DType::I16 => "s16",
        DType::F16 => "b16",
        _ => arithmetic(dtype),
    }
}

/// How instructions name a space.
pub(super) fn space(space: Space) -> &'static str {
    match space {
        Space::Global => "global",
        Space::Shared => "shared",
        Space::Local => "local",
    }
}

/// The bytes of an array as a parameter: a pointer, the lengths and, with gaps, the strides.
pub(super) fn array_size(ty: Type, layout: Layout) -> usize {
    let ndim = ty.array().map_or(0, |array| usize::from(array.ndim));
    let strides = if layout == Layout::Strided { 8 * ndim } else { 0 };
    (8 + 4 * ndim).next_multiple_of(8) + strides
}

impl Emitter<'_> {
    /// What a parameter holds at a byte, read once at the head of the function.
    pub(super) fn param(&mut self, number: u32, offset: usize, ty: &str, class: Class) -> Operand {
        let key = Key::Param(number, offset);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let place = Place { base: Operand::Name("", number), offset: offset as i64 };
        let value = self.at_head(|this| this.asm.load(class, &format!("ld.param.{ty}"), place));
        self.facts.insert(key, value);
        value
    }

    /// A scalar among the kernel's own parameters.
    pub(super) fn scalar(&mut self, number: u32, dtype: DType) -> Operand {
        let number = number + u32::from(self.kernel.grid);
        let class = match dtype {
            DType::Bool => Class::Word,
            DType::F16 => Class::Half,
            _ => Class::of(dtype),
        };
        let raw = self.param(number, 0, storage(dtype), class);
        let key = Key::Scalar(number);
        if let Some(known) = self.known(&key) {
            return known;
        }
        // Where every place of the function sees it.
        let value = self.at_head(|this| this.loaded(dtype, raw));
        self.facts.insert(key, value);
        value
    }

    /// What memory held, as a value.
    fn loaded(&mut self, dtype: DType, raw: Operand) -> Operand {
        match dtype {
            DType::Bool => self.asm.test("ne.u32", raw, Operand::Int(0)),
            DType::F16 | DType::BF16 => {
                let value = self.unpacked(dtype, raw);
                self.packed.insert((dtype, value), raw);
                value
            }
            _ => raw,
        }
    }

    /// A value as memory holds it.
    fn stored(&mut self, dtype: DType, value: Operand) -> Operand {
        match dtype {
            DType::Bool => self.asm.make(Class::Word, "selp.b32", &[Operand::Int(1), Operand::Int(0), value]),
            DType::F16 | DType::BF16 => self.packed(dtype, value),
            _ => value,
        }
    }

    /// The type of an array.
    pub(super) fn array(&self, array: Value) -> ArrayType {
        let nothing = ArrayType { dtype: DType::F32, lanes: 1, pitch: 1, ndim: 1, space: Space::Global };
        self.kernel.ty(array).array().unwrap_or(nothing)
    }

    fn number(&self, array: Value) -> u32 {
        match self.kernel.value(array).def {
            Def::Param(number) => number,
            _ => 0,
        }
    }

    /// The length of a dimension.
    pub(super) fn length(&mut self, array: Value, axis: u8) -> Operand {
        if let Some(&(_, count)) = self.own.get(&array) {
            return Operand::Int(count.into());
        }
        let number = self.number(array) + u32::from(self.kernel.grid);
        self.param(number, 8 + 4 * usize::from(axis), "u32", Class::Word)
    }

    /// Bytes from one element to the next in a dimension of an array with gaps.
    fn stride(&mut self, array: Value, axis: usize) -> Operand {
        let ty = self.array(array);
        let number = self.number(array) + u32::from(self.kernel.grid);
        let first = (8 + 4 * usize::from(ty.ndim)).next_multiple_of(8);
        let scalars = self.param(number, first + 8 * axis, "u64", Class::Long);
        let key = Key::Stride(array, axis);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let size = Operand::Int(ty.dtype.size() as i64);
        let bytes = self.at_head(|this| this.asm.make(Class::Long, "mul.lo.s64", &[scalars, size]));
        self.facts.insert(key, bytes);
        bytes
    }

    /// The address of an array's first element.
    fn base(&mut self, array: Value) -> Operand {
        if let Some(&(name, _)) = self.own.get(&array) {
            return name;
        }
        let number = self.number(array) + u32::from(self.kernel.grid);
        let generic = self.param(number, 0, "u64", Class::Long);
        let key = Key::Base(array);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let base = self.at_head(|this| this.asm.make(Class::Long, "cvta.to.global.u64", &[generic]));
        self.facts.insert(key, base);
        base
    }

    /// An allocation's name, and the address that it has in its space, for arithmetic.
    fn address_of(&mut self, name: Operand) -> Operand {
        let Operand::Name(..) = name else { return name };
        let key = Key::AddressOf(name);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let address = self.at_head(|this| this.asm.make(Class::Long, "mov.u64", &[name]));
        self.facts.insert(key, address);
        address
    }

    /// An array of the thread's or block's own.
    pub(super) fn alloc(&mut self, array: Value, count: u32) {
        let ty = self.array(array);
        let number = self.own.len() as u32;
        let stem = if ty.space == Space::Shared { "shared" } else { "local" };
        let name = Operand::Name(stem, number);
        let bytes = u64::from(count) * u64::from(ty.lanes) * ty.dtype.size() as u64;
        let _ = writeln!(self.declarations, ".{stem} .align 16 .b8 {name}[{bytes}];");
        self.own.insert(array, (name, count));
    }

    /// Where an element is: its first scalar.
    pub(super) fn element(&mut self, inst: Inst) -> Place {
        let data = self.kernel.inst(inst);
        let array = data.args[0];
        let ty = self.array(array);
        let indices = &data.args[1..=usize::from(ty.ndim)];
        self.check_indices(inst, indices);
        let base = self.base(array);
        let scale = i64::from(ty.pitch) * ty.dtype.size() as i64;
        let constants: Option<Vec<i64>> =
            indices.iter().map(|&index| self.kernel.as_const(index).and_then(Const::as_int)).collect();
        match constants.as_deref() {
            // The offset of an instruction has 32 bits.
            Some(&[index]) if self.is_packed(ty) && (0..1 << 24).contains(&(index.saturating_mul(scale))) => {
                return Place { base, offset: index * scale };
            }
            Some(zeros) if zeros.iter().all(|&index| index == 0) => return Place::at(base),
            _ => {}
        }
        let key = Key::Element(array, indices.into());
        if let Some(known) = self.known(&key) {
            return Place::at(known);
        }
        let base = self.address_of(base);
        let places: Vec<Operand> = indices.iter().map(|&index| self.get(index)).collect();
        let address = if self.is_packed(ty) {
            let mut place = places[0];
            for (axis, &index) in places.iter().enumerate().skip(1) {
                let length = self.length(array, axis as u8);
                place = self.asm.make(Class::Word, "mad.lo.s32", &[place, length, index]);
            }
            self.asm.make(Class::Long, "mad.wide.s32", &[place, Operand::Int(scale), base])
        } else {
            let mut address = base;
            for (axis, &index) in places.iter().enumerate() {
                let stride = self.stride(array, axis);
                let wide = match index {
                    Operand::Int(_) => index,
                    _ => self.asm.make(Class::Long, "cvt.s64.s32", &[index]),
                };
                address = self.asm.make(Class::Long, "mad.lo.s64", &[wide, stride, address]);
            }
            address
        };
        Place::at(self.learn(key, address))
    }

    /// Whether an array's elements lie in C order without gaps.
    fn is_packed(&self, ty: ArrayType) -> bool {
        ty.space != Space::Global || self.layout == Layout::Contiguous
    }

    /// How many scalars of an element may be read or written at once.
    fn at_once(&self, ty: ArrayType) -> usize {
        if ty.space == Space::Global && self.layout == Layout::Contiguous { at_once(ty) } else { 1 }
    }

    pub(super) fn load(&mut self, inst: Inst) {
        let place = self.element(inst);
        let data = self.kernel.inst(inst);
        let ty = self.array(data.args[0]);
        let (width, size) = (self.at_once(ty), ty.dtype.size());
        let class = match ty.dtype {
            DType::F16 => Class::Half,
            DType::Bool => Class::Word,
            dtype => Class::of(dtype),
        };
        // What nobody writes may come through the cache of constants, and before stores in front of it.
        let from = match self.constant.contains(&data.args[0]) {
            true => String::from("ld.global.nc"),
            false => format!("ld.{}", space(ty.space)),
        };
        for (chunk, results) in data.results.chunks(width).enumerate() {
            let place = place.plus(chunk * width * size);
            let used = results.iter().filter(|result| self.uses[result.index()] > 0).count();
            let raw: Vec<Operand> = results.iter().map(|_| self.asm.reg(class)).collect();
            if used > 1 {
                let list = raw.iter().map(Operand::to_string).collect::<Vec<_>>().join(",");
                put!(self.asm, "{from}.v{width}.{} {{{list}}},{place};", storage(ty.dtype));
            }
            for (lane, (&result, raw)) in results.iter().zip(raw).enumerate() {
                if self.uses[result.index()] == 0 {
                    continue;
                }
                if used == 1 {
                    put!(self.asm, "{from}.{} {raw},{};", storage(ty.dtype), place.plus(lane * size));
                }
                self.values[result.index()] = Some(self.loaded(ty.dtype, raw));
            }
        }
    }

    pub(super) fn store(&mut self, inst: Inst) {
        let place = self.element(inst);
        let data = self.kernel.inst(inst);
        let ty = self.array(data.args[0]);
        let (width, size) = (self.at_once(ty), ty.dtype.size());
        let to = format!("st.{}", space(ty.space));
        for (chunk, values) in data.args[1 + usize::from(ty.ndim)..].chunks(width).enumerate() {
            let place = place.plus(chunk * width * size);
            let raw: Vec<Operand> = values
                .iter()
                .map(|&value| {
                    let value = self.get(value);
                    let raw = self.stored(ty.dtype, value);
                    if width > 1 && ty.dtype != DType::F16 {
                        self.asm.in_reg(register(ty.dtype), raw)
                    } else {
                        raw
                    }
                })
                .collect();
            let list = raw.iter().map(Operand::to_string).collect::<Vec<_>>().join(",");
            match width {
                1 => put!(self.asm, "{to}.{} {place},{list};", storage(ty.dtype)),
                _ => put!(self.asm, "{to}.v{width}.{} {place},{{{list}}};", storage(ty.dtype)),
            }
        }
    }

    /// A value's bits in an untyped register.
    pub(super) fn bits_of(&mut self, value: Value) -> Operand {
        let x = self.get(value);
        let dtype = self.kernel.dtype(value);
        if dtype == DType::Bool {
            return self.asm.make(Class::Word, "selp.b32", &[Operand::Int(1), Operand::Int(0), x]);
        }
        self.asm.in_reg(dtype, x)
    }

    /// The value of these bits.
    pub(super) fn of_bits(&mut self, dtype: DType, x: Operand) -> Operand {
        if dtype == DType::Bool { self.asm.test("ne.u32", x, Operand::Int(0)) } else { x }
    }
}

/// The dtype that a stored value's register is of.
fn register(dtype: DType) -> DType {
    match dtype {
        DType::Bool | DType::BF16 => DType::U32,
        dtype => dtype,
    }
}
