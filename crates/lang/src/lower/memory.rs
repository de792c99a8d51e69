//! Arrays: elements, parts of arrays, arrays that a kernel makes, arrays of structs.
//!
//! An array of structs is in the IR one array for each field of numbers, all of one shape. A part of an array (`a[i]` of
//! several dimensions, slices) is the same arrays with places that its indices are mapped to. An array that the kernel makes
//! is a thread's own memory, with one index in the IR, and lies there from the kernel's begin: where the source makes it, it
//! is filled with zeros.

use std::rc::Rc;

use bullet_ops::DType;
use smallvec::{SmallVec, smallvec};

use super::value::{Array, Axis, Data, Element, Form, Literal, Ty, Val};
use super::{Lower, Reported, Result};
use crate::diag::Span;
use crate::ir::{ArrayType, Atomic, Binary, Compare, Op, Space, Type, Value, Values};
use crate::syntax::ast::{Expr, ExprKind, Symbol};

/// The most scalars of an array that a kernel makes.
const MAX_LOCAL: u64 = 1 << 16;

/// What an array is called before a variable holds it.
const LOCAL: &str = "local";

/// What an index is of, for who finds it outside.
const SLICE: &str = "a slice";
const DIMENSIONS: [&str; 4] = [
    "dimension 0 of an array",
    "dimension 1 of an array",
    "dimension 2 of an array",
    "dimension 3 of an array",
];

/// The most elements that are filled with zeros one by one.
const MAX_FILLED: u32 = 4;

/// What indices name.
pub(super) enum Place {
    Element(Values),
    Part(Rc<Array>),
}

impl<'a> Lower<'a> {
    // Types.

    /// The numbers that an element is made of, with their names: one of a number or vector, of a struct one for each field.
    pub(super) fn leaves(
        &mut self,
        span: Span,
        name: &str,
        element: Element,
        out: &mut Vec<(String, Data)>,
    ) -> Result<()> {
        match element {
            Element::Data(data) => out.push((name.into(), data)),
            Element::Any => return self.error(span, "the type of this array's elements is not known"),
            Element::Struct(id) => {
                for &(field, ty) in self.struct_fields(id)?.iter() {
                    let field = self.text(field);
                    let element = match ty {
                        Ty::Data(data) => Element::Data(data),
                        Ty::Struct(id) => Element::Struct(id),
                        Ty::Array(..) | Ty::Open(_) | Ty::Any => {
                            return self.error_hint(
                                span,
                                format!("an array cannot hold structs with arrays: `{field}` is one"),
                                "give the kernel a struct of arrays",
                            );
                        }
                    };
                    self.leaves(span, &format!("{name}_{field}"), element, out)?;
                }
            }
        }
        Ok(())
    }

    /// The parameters of the kernel that an array becomes.
    pub(super) fn array_param(&mut self, span: Span, name: &str, element: Element, ndim: u8) -> Result<Val> {
        let mut leaves = vec![];
        self.leaves(span, name, element, &mut leaves)?;
        let size = match element {
            Element::Struct(id) => self.param_type(Ty::Struct(id))?.layout().0 as u64,
            _ => 0,
        };
        let mut values = Values::new();
        for (name, data) in leaves {
            let mut ty = data.array(ndim);
            if size > 0 {
                // A struct's size is a multiple of each field's alignment.
                let Ok(pitch) = u16::try_from(size / data.dtype.size() as u64) else {
                    return self.error(span, "structs in arrays have up to 65535 numbers");
                };
                ty.pitch = pitch;
            }
            values.push(self.b.kernel.param(&name, Type::Array(ty)));
        }
        if values.is_empty() {
            return self.error(span, "an array holds structs without fields");
        }
        Ok(Val::Array(Rc::new(Array::new(element, ndim, values))))
    }

    // Arrays of the kernel's own.

    /// `wp.zeros(shape, dtype)`.
    pub(super) fn zeros(&mut self, span: Span, args: &[Expr], keywords: &[(Symbol, Expr)]) -> Result<Val> {
        let named = |word: &str| keywords.iter().find(|(key, _)| self.text(*key) == word).map(|pair| &pair.1);
        let other = keywords.iter().find(|(key, _)| !matches!(self.text(*key), "shape" | "dtype"));
        if let Some((_, expr)) = other {
            return self.error(expr.span, "`zeros` takes a shape and a dtype in a kernel");
        }
        let (shape, dtype) = (named("shape").or(args.first()), named("dtype").or(args.get(1)));
        let Some(shape) = shape else { return self.error(span, "`zeros` needs a shape") };
        let lengths = match &shape.kind {
            ExprKind::Tuple(items) => items.iter().map(|item| self.static_length(item)).collect(),
            _ => self.static_length(shape).map(|length| smallvec![length]),
        };
        let lengths: SmallVec<[u32; 4]> = lengths?;
        if !(1..=4).contains(&lengths.len()) {
            return self.error(shape.span, format!("arrays have 1 to 4 dimensions, not {}", lengths.len()));
        }
        let element = match dtype {
            Some(dtype) => self.element_type(dtype)?,
            None => Element::Data(Data::scalar(DType::F32)),
        };
        let mut leaves = vec![];
        self.leaves(span, LOCAL, element, &mut leaves)?;
        let count: u64 = lengths.iter().map(|&length| u64::from(length)).product();
        let scalars: u64 = leaves.iter().map(|leaf| count * leaf.1.form.lanes() as u64).sum();
        if scalars > MAX_LOCAL || scalars == 0 {
            let message = format!("an array of a kernel's own has 1 to {MAX_LOCAL} numbers, not {scalars}");
            return self.error_hint(span, message, "give the kernel a larger one as a parameter");
        }
        let values = leaves.iter().map(|(name, data)| self.alloc(name, *data, count as u32)).collect();
        let axes = smallvec![Axis::All; lengths.len()];
        let array = Rc::new(Array { element, values, local: Some(lengths), axes });
        self.fill(&array, count as u32);
        Ok(Val::Array(array))
    }

    fn static_length(&mut self, expr: &Expr) -> Result<u32> {
        match self.static_int(expr)? {
            n @ 1..=0xffff => Ok(n as u32),
            n => self.error(expr.span, format!("a dimension has 1 to 65535 elements here, not {n}")),
        }
    }

    /// Memory of the thread, at the kernel's begin.
    fn alloc(&mut self, name: &str, data: Data, count: u32) -> Value {
        let ty = ArrayType { space: Space::Local, ..data.array(1) };
        let inst = self.b.kernel.new_inst(Op::Alloc(count), Values::new(), &[Type::Array(ty)], self.b.span);
        let body = self.b.kernel.body;
        self.b.kernel.blocks[body.index()].insts.insert(self.allocs, inst);
        self.allocs += 1;
        let value = self.b.kernel.inst(inst).results[0];
        self.b.kernel.set_name(value, name);
        value
    }

    /// Calls a new array of the kernel's own after the first variable that holds it.
    pub(super) fn name_local(&mut self, name: Symbol, array: &Array) {
        for &value in array.values.iter().filter(|_| array.local.is_some()) {
            let rest = self.b.kernel.name_of(value).and_then(|known| known.strip_prefix(LOCAL));
            if let Some(rest) = rest.map(String::from) {
                self.b.kernel.set_name(value, &format!("{}{rest}", self.text(name)));
            }
        }
    }

    /// Zeros in every element.
    fn fill(&mut self, array: &Array, count: u32) {
        let clear = |lower: &mut Self, index: Value| {
            for &value in &array.values {
                let Some(ty) = lower.b.kernel.ty(value).array() else { continue };
                let zero = lower.b.zero(ty.dtype);
                lower.b.store(value, &[index], &Values::from_elem(zero, ty.lanes.into()));
            }
        };
        if count <= MAX_FILLED {
            for at in 0..count {
                let index = self.b.int(DType::I32, at.into());
                clear(self, index);
            }
            return;
        }
        let block = self.b.kernel.new_block();
        let index = self.b.kernel.block_arg(block, Type::Scalar(DType::I32));
        let outer = std::mem::replace(&mut self.b.block, block);
        clear(self, index);
        self.b.block = outer;
        let bounds = [0, count.into(), 1].map(|bound| self.b.int(DType::I32, bound));
        self.b.region(Op::For, bounds.into_iter().collect(), &[block]);
    }

    // Elements.

    /// Where in the arrays of the IR the element at these indices is.
    fn mapped(&mut self, array: &Array, indices: &[Value]) -> Values {
        let mut next = indices.iter().copied();
        let mut places = Values::new();
        for axis in &array.axes {
            places.push(match *axis {
                Axis::At(place) => place,
                Axis::All => next.next().unwrap_or_else(|| self.b.int(DType::I32, 0)),
                Axis::Range { start, step, length } => {
                    let index = next.next().unwrap_or_else(|| self.b.int(DType::I32, 0));
                    self.b.within(index, 0, length, SLICE);
                    let moved = self.b.mul(index, step);
                    self.b.add(start, moved)
                }
            });
        }
        match &array.local {
            None => places,
            Some(lengths) => {
                // With one dimension the load or store itself is checked.
                for (axis, (&place, &length)) in
                    places.iter().zip(lengths).enumerate().skip_while(|_| lengths.len() == 1)
                {
                    let length = self.b.int(DType::I32, length.into());
                    self.b.within(place, 0, length, DIMENSIONS[axis]);
                }
                let mut linear = places[0];
                for (&place, &length) in places.iter().zip(lengths).skip(1) {
                    let length = self.b.int(DType::I32, length.into());
                    let row = self.b.mul(linear, length);
                    linear = self.b.add(row, place);
                }
                smallvec![linear]
            }
        }
    }

    /// The element at these indices.
    pub(super) fn load_element(&mut self, array: &Array, indices: &[Value]) -> Result<Val> {
        let places = self.mapped(array, indices);
        let parts: Vec<Values> = array.values.iter().map(|&value| self.b.load(value, &places)).collect();
        self.assemble(array.element, &mut parts.into_iter())
    }

    fn assemble(&mut self, element: Element, parts: &mut impl Iterator<Item = Values>) -> Result<Val> {
        match element {
            Element::Data(data) => parts.next().map(|lanes| Val::Data(data, lanes)).ok_or(Reported),
            Element::Any => Err(Reported),
            Element::Struct(id) => {
                let mut fields = vec![];
                for &(_, ty) in self.struct_fields(id)?.iter() {
                    let element = match ty {
                        Ty::Data(data) => Element::Data(data),
                        Ty::Struct(id) => Element::Struct(id),
                        Ty::Array(..) | Ty::Open(_) | Ty::Any => return Err(Reported),
                    };
                    fields.push(self.assemble(element, parts)?);
                }
                Ok(Val::Struct(id, fields))
            }
        }
    }

    /// Overwrites the element at these indices.
    pub(super) fn store_element(
        &mut self,
        span: Span,
        array: &Array,
        indices: &[Value],
        value: Val,
    ) -> Result<()> {
        let value = match array.element {
            Element::Data(data) => Val::Data(data, self.element(span, data, value)?),
            Element::Struct(id) => self.convert(span, value, Ty::Struct(id))?,
            Element::Any => return Err(Reported),
        };
        let places = self.mapped(array, indices);
        let mut parts = Values::new();
        value.parts(&mut parts);
        let mut rest = &parts[..];
        for &value in &array.values {
            let lanes = self.b.kernel.ty(value).array().map_or(1, |ty| usize::from(ty.lanes));
            let (lanes, others) = rest.split_at(lanes.min(rest.len()));
            self.b.store(value, &places, lanes);
            rest = others;
        }
        Ok(())
    }

    /// Updates an element of numbers at once; what it was. No other thread sees a kernel's own arrays.
    pub(super) fn update_atomically(
        &mut self,
        op: Atomic,
        array: &Array,
        indices: &[Value],
        lanes: &[Value],
    ) -> Values {
        let (places, value) = (self.mapped(array, indices), array.values[0]);
        if array.local.is_none() {
            return self.b.atomic(op, value, &places, lanes);
        }
        let old = self.b.load(value, &places);
        let binary = match op {
            Atomic::Add => Binary::Add,
            Atomic::Min => Binary::Min,
            Atomic::Max => Binary::Max,
            Atomic::And => Binary::And,
            Atomic::Or => Binary::Or,
            Atomic::Xor => Binary::Xor,
            Atomic::Exchange => {
                self.b.store(value, &places, lanes);
                return old;
            }
        };
        let new: Values = old.iter().zip(lanes).map(|(&a, &b)| self.b.binary(binary, a, b)).collect();
        self.b.store(value, &places, &new);
        old
    }

    /// Stores `new` if the element is `expected`; what it was.
    pub(super) fn exchange_element(
        &mut self,
        array: &Array,
        indices: &[Value],
        expected: Value,
        new: Value,
    ) -> Value {
        let (places, value) = (self.mapped(array, indices), array.values[0]);
        if array.local.is_some() {
            let old = self.b.load(value, &places)[0];
            let same = self.b.compare(Compare::Eq, old, expected);
            let new = self.b.select(same, new, old);
            self.b.store(value, &places, &[new]);
            return old;
        }
        let mut operands: Values = smallvec![value];
        operands.extend(places);
        operands.extend([expected, new]);
        let types = [Type::Scalar(self.b.kernel.dtype(new))];
        let inst = self.b.emit(Op::CompareExchange, operands, &types);
        self.b.kernel.inst(inst).results[0]
    }

    /// The length of a dimension.
    pub(super) fn dim(&mut self, array: &Array, number: usize) -> Value {
        let open = array.axes.iter().enumerate().filter(|(_, axis)| !matches!(axis, Axis::At(_)));
        match (open.clone().nth(number), &array.local) {
            (Some((_, &Axis::Range { length, .. })), _) => length,
            (Some((axis, _)), Some(lengths)) => self.b.int(DType::I32, lengths[axis].into()),
            (Some((axis, _)), None) => self.b.dim(array.values[0], axis as u8),
            (None, _) => self.b.int(DType::I32, 0),
        }
    }

    // Parts.

    /// What the indices of an array name: an element, or with fewer of them or with slices a part of it.
    pub(super) fn place_in(&mut self, span: Span, array: &Rc<Array>, indices: &[Expr]) -> Result<Place> {
        let ndim = array.ndim();
        let sliced = indices.iter().any(|index| matches!(index.kind, ExprKind::Slice(_)));
        if indices.len() == ndim && !sliced {
            let spans = indices.iter().map(|index| index.span);
            let places: Values = indices.iter().map(|index| self.index(index)).collect::<Result<_>>()?;
            self.check_places(array, spans, &places)?;
            return Ok(Place::Element(places));
        }
        if indices.len() > ndim {
            let message =
                format!("this array has {ndim} dimensions, but {} indices are given", indices.len());
            return self.error_hint(span, message, "give one index for each dimension");
        }
        let mut given = indices.iter();
        let mut axes: SmallVec<[Axis; 4]> = smallvec![];
        let mut open = 0;
        for &axis in &array.axes {
            if matches!(axis, Axis::At(_)) {
                axes.push(axis);
                continue;
            }
            let index = given.next();
            axes.push(match index.map(|index| &index.kind) {
                None => axis,
                Some(ExprKind::Slice(bounds)) => {
                    let length = self.dim(array, open);
                    self.slice(axis, length, bounds)?
                }
                Some(_) => {
                    let index = self.index(index.ok_or(Reported)?)?;
                    match axis {
                        Axis::Range { start, step, length } => {
                            self.b.within(index, 0, length, SLICE);
                            let moved = self.b.mul(index, step);
                            Axis::At(self.b.add(start, moved))
                        }
                        _ => Axis::At(index),
                    }
                }
            });
            open += 1;
        }
        Ok(Place::Part(Rc::new(Array { axes, ..(**array).clone() })))
    }

    /// Refuses known indices that no array of the kernel's own of this shape has.
    fn check_places(
        &mut self,
        array: &Array,
        spans: impl Iterator<Item = Span>,
        places: &[Value],
    ) -> Result<()> {
        let Some(lengths) = array.local.as_ref().filter(|_| places.len() == array.axes.len()) else {
            return Ok(());
        };
        for (axis, span) in spans.enumerate() {
            if array.axes[axis] != Axis::All {
                continue;
            }
            let place = places[axis];
            let known = self.b.kernel.as_const(place).and_then(|known| known.as_int());
            let length = i64::from(lengths[axis]);
            if let Some(index) = known.filter(|index| !(0..length).contains(index)) {
                return self.error(span, format!("there is no element {index} of {length}"));
            }
        }
        Ok(())
    }

    /// A slice of a dimension of some length: its bounds are cut to it, and counted from its end where they are negative.
    fn slice(&mut self, axis: Axis, length: Value, bounds: &[Option<Expr>; 3]) -> Result<Axis> {
        let step = match &bounds[2] {
            None => 1,
            Some(step) => match self.static_int(step)? {
                0 => return self.error(step.span, "the step of a slice cannot be 0"),
                n if i32::try_from(n).is_ok() => n,
                n => return self.error(step.span, format!("{n} is no int32")),
            },
        };
        let (zero, one) = (self.b.int(DType::I32, 0), self.b.int(DType::I32, 1));
        // Forwards bounds lie in 0 to the length, backwards one before that.
        let (low, high) =
            if step > 0 { (zero, length) } else { (self.b.int(DType::I32, -1), self.b.sub(length, one)) };
        let mut ends = if step > 0 { [low, high] } else { [high, low] };
        for (end, bound) in ends.iter_mut().zip(bounds) {
            if let Some(bound) = bound {
                let index = self.index(bound)?;
                let from_end = self.b.add(index, length);
                let negative = self.b.compare(Compare::Lt, index, zero);
                let index = self.b.select(negative, from_end, index);
                let index = self.b.binary(Binary::Max, index, low);
                *end = self.b.binary(Binary::Min, index, high);
            }
        }
        let [start, stop] = ends;
        let way = if step > 0 { self.b.sub(stop, start) } else { self.b.sub(start, stop) };
        let size = self.b.int(DType::I32, step.abs());
        let rest = self.b.int(DType::I32, step.abs() - 1);
        let way = self.b.binary(Binary::Max, way, zero);
        let rounded = self.b.add(way, rest);
        let count = self.b.div(rounded, size);
        let by = self.b.int(DType::I32, step);
        Ok(match axis {
            Axis::Range { start: first, step: outer, .. } => {
                let moved = self.b.mul(start, outer);
                Axis::Range { start: self.b.add(first, moved), length: count, step: self.b.mul(outer, by) }
            }
            _ => Axis::Range { start, length: count, step: by },
        })
    }

    /// The array that an expression names, if it names one without computing anything.
    fn named_array(&self, expr: &Expr) -> Option<Rc<Array>> {
        fn find<'v>(lower: &'v Lower<'_>, expr: &Expr) -> Option<&'v Val> {
            match &expr.kind {
                ExprKind::Name(name) => lower.env.get(*name),
                ExprKind::Attribute(base, name) => match find(lower, base)? {
                    Val::Struct(id, fields) => fields.get(lower.field(*id, *name)?),
                    _ => None,
                },
                _ => None,
            }
        }
        match find(self, expr)? {
            Val::Array(array) => Some(array.clone()),
            _ => None,
        }
    }

    /// What the element of an array is that an expression names, or the field of one; `None` if it names something else.
    pub(super) fn element_type_of(&mut self, expr: &Expr) -> Option<Element> {
        match &expr.kind {
            ExprKind::Subscript(base, indices) => {
                let mut count = indices.len();
                let mut base = &**base;
                while let ExprKind::Subscript(inner, indices) = &base.kind {
                    count += indices.len();
                    base = inner;
                }
                let array = self.named_array(base)?;
                // Slices leave dimensions open, which then want an index more.
                (count == array.ndim() && !has_slice(expr)).then_some(array.element)
            }
            ExprKind::Attribute(base, name) => {
                let Element::Struct(id) = self.element_type_of(base)? else { return None };
                let at = self.field(id, *name)?;
                match self.struct_fields(id).ok()?[at].1 {
                    Ty::Data(data) => Some(Element::Data(data)),
                    Ty::Struct(id) => Some(Element::Struct(id)),
                    Ty::Array(..) | Ty::Open(_) | Ty::Any => None,
                }
            }
            _ => None,
        }
    }

    /// The element of an array that an expression names, or the field of one: the array, of structs that of the field's
    /// arrays, and the indices. `None` if it names something else.
    pub(super) fn element_place(&mut self, expr: &Expr) -> Result<Option<(Rc<Array>, Values)>> {
        match &expr.kind {
            ExprKind::Subscript(base, indices) => {
                let array = match self.named_array(base) {
                    Some(array) => array,
                    // `a[i][j]`
                    None => match self.part_place(base)? {
                        Some(array) => array,
                        None => return Ok(None),
                    },
                };
                match self.place_in(expr.span, &array, indices)? {
                    Place::Element(indices) => Ok(Some((array, indices))),
                    Place::Part(_) => Ok(None),
                }
            }
            ExprKind::Attribute(base, name) => {
                let Some((array, indices)) = self.element_place(base)? else { return Ok(None) };
                let Element::Struct(id) = array.element else { return Ok(None) };
                let Some(at) = self.field(id, *name) else {
                    let found = self.text(self.program.classes[id as usize].name);
                    return self.error(expr.span, format!("{found} has no field `{}`", self.text(*name)));
                };
                let field = self.field_array(expr.span, &array, id, at)?;
                Ok(Some((Rc::new(field), indices)))
            }
            _ => Ok(None),
        }
    }

    /// The part of an array that `a[i]` names, with fewer indices than dimensions.
    fn part_place(&mut self, expr: &Expr) -> Result<Option<Rc<Array>>> {
        let ExprKind::Subscript(base, indices) = &expr.kind else { return Ok(None) };
        let Some(array) = self.named_array(base).map_or_else(|| self.part_place(base), |a| Ok(Some(a)))?
        else {
            return Ok(None);
        };
        let sliced = indices.iter().any(|index| matches!(index.kind, ExprKind::Slice(_)));
        if indices.len() >= array.ndim() && !sliced {
            return Ok(None);
        }
        match self.place_in(expr.span, &array, indices)? {
            Place::Part(part) => Ok(Some(part)),
            Place::Element(_) => Ok(None),
        }
    }

    /// The arrays of one field of the structs that an array holds.
    fn field_array(&mut self, span: Span, array: &Array, id: u32, at: usize) -> Result<Array> {
        let mut first = 0;
        for (number, &(_, ty)) in self.struct_fields(id)?.iter().enumerate() {
            let element = match ty {
                Ty::Data(data) => Element::Data(data),
                Ty::Struct(id) => Element::Struct(id),
                Ty::Array(..) | Ty::Open(_) | Ty::Any => return Err(Reported),
            };
            let mut leaves = vec![];
            self.leaves(span, "", element, &mut leaves)?;
            if number == at {
                let values = array.values[first..][..leaves.len()].into();
                return Ok(Array { element, values, ..array.clone() });
            }
            first += leaves.len();
        }
        Err(Reported)
    }

    /// The components of a vector from one bound of a slice to another, all known at compile time.
    pub(super) fn components(
        &mut self,
        span: Span,
        count: usize,
        bounds: &[Option<Expr>; 3],
    ) -> Result<Vec<usize>> {
        let mut known = [None; 3];
        for (known, bound) in known.iter_mut().zip(bounds) {
            *known = bound.as_ref().map(|bound| self.static_int(bound)).transpose()?;
        }
        let (count, step) = (count as i64, known[2].unwrap_or(1));
        if step == 0 {
            return self.error(span, "the step of a slice cannot be 0");
        }
        let (low, high) = if step > 0 { (0, count) } else { (-1, count - 1) };
        let cut = |bound: i64| (if bound < 0 { bound.saturating_add(count) } else { bound }).clamp(low, high);
        let start = known[0].map_or(if step > 0 { low } else { high }, cut);
        let stop = known[1].map_or(if step > 0 { high } else { low }, cut);
        let mut places = vec![];
        let mut at = start;
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            places.push(at as usize);
            at = at.saturating_add(step);
        }
        match places.is_empty() {
            true => self.error(span, "this slice has no components"),
            false => Ok(places),
        }
    }

    /// `v[a:b]` of a vector, and `m[a:b]`, which has rows.
    pub(super) fn vector_slice(
        &mut self,
        span: Span,
        data: Data,
        parts: &Values,
        bounds: &[Option<Expr>; 3],
    ) -> Result<Val> {
        let (count, width) = match data.form {
            Form::Mat(rows, columns) => (rows.into(), usize::from(columns)),
            form => (form.lanes(), 1),
        };
        let places = self.components(span, count, bounds)?;
        let chosen: Values =
            places.iter().flat_map(|&at| parts[at * width..][..width].iter().copied()).collect();
        let form = match data.form {
            Form::Mat(_, columns) => Form::Mat(places.len() as u16, columns),
            _ => Form::Vec(places.len() as u16),
        };
        Ok(Val::Data(Data { form, ..data }, chosen))
    }

    /// A number as every component, a vector as it is: what is assigned to a slice.
    pub(super) fn spread(&mut self, span: Span, data: Data, value: Val) -> Result<Values> {
        let scalar = match &value {
            Val::Literal(Literal::Int(_) | Literal::Float(_)) => true,
            Val::Data(found, _) => found.form == Form::Scalar,
            _ => false,
        };
        if scalar {
            let part = self.scalar_of(span, value, data.dtype)?;
            return Ok(Values::from_elem(part, data.form.lanes()));
        }
        self.element(span, data, value)
    }
}

/// Whether any index in a row of subscripts is a slice.
fn has_slice(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Subscript(base, indices) => {
            indices.iter().any(|index| matches!(index.kind, ExprKind::Slice(_))) || has_slice(base)
        }
        _ => false,
    }
}
