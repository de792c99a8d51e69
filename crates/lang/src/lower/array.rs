//! Indices, components of vectors and matrices, fields of structs.

use bullet_ops::DType;

use super::memory::Place;
use super::value::{Array, Data, Form, Literal, Val};
use super::{Lower, Reported, Result};
use crate::diag::Span;
use crate::ir::{Compare, Value, Values};
use crate::syntax::ast::{Expr, ExprKind, Symbol};

impl<'a> Lower<'a> {
    /// The indices of an array's element: values, and where they stand in the source.
    pub(super) fn indices(
        &mut self,
        span: Span,
        array: &Array,
        indices: impl ExactSizeIterator<Item = (Span, Val)>,
    ) -> Result<Values> {
        let ndim = array.ndim();
        if indices.len() != ndim {
            let message =
                format!("this array has {ndim} dimensions, but {} indices are given", indices.len());
            return self.error_hint(span, message, "give one index for each dimension");
        }
        indices.map(|(span, index)| self.index_value(span, index)).collect()
    }

    /// An index, as int32.
    pub(super) fn index(&mut self, index: &Expr) -> Result<Value> {
        let value = self.expr(index)?;
        self.index_value(index.span, value)
    }

    fn index_value(&mut self, span: Span, value: Val) -> Result<Value> {
        let value = self.materialize_at(span, value)?;
        match &value {
            Val::Data(Data { form: Form::Scalar, dtype }, parts) => match dtype {
                DType::I32 => Ok(parts[0]),
                DType::I8 | DType::I16 | DType::U8 | DType::U16 | DType::U32 => {
                    Ok(self.b.cast(DType::I32, parts[0]))
                }
                _ => {
                    let found = self.type_name(&value);
                    self.error_hint(span, format!("an index is an int32, not {found}"), "write int(i)")
                }
            },
            other => {
                let found = self.type_name(other);
                self.error(span, format!("an index is an integer, not {found}"))
            }
        }
    }

    /// The scalars of a value that is stored as an element.
    pub(super) fn element(&mut self, span: Span, data: Data, value: Val) -> Result<Values> {
        let value = match value {
            // `a[i] = 0.0` of vectors is not Warp's; literals fill scalars only.
            Val::Literal(_) if data.form != Form::Scalar => {
                let (expected, found) = (data.name(), self.type_name(&value));
                return self.error(span, format!("expected {expected}, found {found}"));
            }
            value => self.convert(span, value, super::Ty::Data(data))?,
        };
        match value {
            Val::Data(_, parts) => Ok(parts),
            _ => Err(Reported),
        }
    }

    /// `base[indices]`.
    pub(super) fn subscript(&mut self, span: Span, base: Val, indices: &[Expr]) -> Result<Val> {
        match base {
            Val::Array(array) => match self.place_in(span, &array, indices)? {
                Place::Element(indices) => self.load_element(&array, &indices),
                Place::Part(part) => Ok(Val::Array(part)),
            },
            Val::Tuple(items) => match indices {
                [index] => match self.place_of(index, items.len(), "items of a tuple")? {
                    Component::Known(at) => Ok(items[at].clone()),
                    Component::Dynamic(at) => {
                        let items = self.alike(span, items)?;
                        Ok(self.chosen(&items, at))
                    }
                },
                _ => self.error(span, "a tuple has one index"),
            },
            Val::Data(data, parts) => match indices {
                [Expr { kind: ExprKind::Slice(bounds), .. }] if data.form != Form::Scalar => {
                    self.vector_slice(span, data, &parts, bounds)
                }
                _ => self.component(span, data, &parts, indices),
            },
            other => {
                let found = self.type_name(&other);
                self.error(span, format!("{found} has no elements"))
            }
        }
    }

    /// Which scalars of a vector or matrix `indices` name: a place among groups of `width` neighbours.
    fn place(&mut self, span: Span, data: Data, indices: &[Expr]) -> Result<(Component, usize)> {
        let wrong = |lower: &mut Self| {
            let name = data.name();
            lower.error(span, format!("{} indices are too many or too few for {name}", indices.len()))
        };
        match (data.form, indices) {
            (Form::Vec(_) | Form::Quat | Form::Transform, [index]) => {
                Ok((self.place_of(index, data.form.lanes(), "components")?, 1))
            }
            (Form::Mat(rows, columns), [row]) => {
                Ok((self.place_of(row, rows.into(), "rows")?, columns.into()))
            }
            (Form::Mat(rows, columns), [row, column]) => {
                let row = self.place_of(row, rows.into(), "rows")?;
                let column = self.place_of(column, columns.into(), "columns")?;
                let place = match (row, column) {
                    (Component::Known(row), Component::Known(column)) => {
                        Component::Known(row * usize::from(columns) + column)
                    }
                    (row, column) => {
                        let (row, column) = (self.place_value(row), self.place_value(column));
                        let width = self.b.int(DType::I32, columns.into());
                        let start = self.b.mul(row, width);
                        Component::Dynamic(self.b.add(start, column))
                    }
                };
                Ok((place, 1))
            }
            _ => wrong(self),
        }
    }

    /// A place among `count` of these, below 0 from the end; one that is known at run time only is checked there.
    fn place_of(&mut self, index: &Expr, count: usize, of: &str) -> Result<Component> {
        let value = self.index(index)?;
        let Some(known) = self.b.kernel.as_const(value).and_then(|known| known.as_int()) else {
            let (zero, length) = (self.b.int(DType::I32, 0), self.b.int(DType::I32, count as i64));
            self.b.span = index.span;
            self.b.within(value, -(count as i64), length, &format!("{count} {of}"));
            let (below, from_end) = (self.b.compare(Compare::Lt, value, zero), self.b.add(value, length));
            return Ok(Component::Dynamic(self.b.select(below, from_end, value)));
        };
        let at = if known < 0 { known + count as i64 } else { known };
        match usize::try_from(at) {
            Ok(at) if at < count => Ok(Component::Known(at)),
            _ => self.error(index.span, format!("index {known} is outside of {count} {of}")),
        }
    }

    fn place_value(&mut self, place: Component) -> Value {
        match place {
            Component::Known(at) => self.b.int(DType::I32, at as i64),
            Component::Dynamic(value) => value,
        }
    }

    fn component(&mut self, span: Span, data: Data, parts: &Values, indices: &[Expr]) -> Result<Val> {
        let (place, width) = self.place(span, data, indices)?;
        let groups: Vec<&[Value]> = parts.chunks(width).collect();
        let chosen = match place {
            Component::Known(at) => groups[at].into(),
            Component::Dynamic(index) => self.chosen_group(&groups, index),
        };
        let form = if width == 1 { Form::Scalar } else { Form::Vec(width as u16) };
        Ok(Val::Data(Data { form, ..data }, chosen))
    }

    /// The group of this number, which is in range.
    fn chosen_group(&mut self, groups: &[&[Value]], index: Value) -> Values {
        let mut chosen: Values = groups[0].into();
        for (number, group) in groups.iter().enumerate().skip(1) {
            let number = self.b.int(DType::I32, number as i64);
            let here = self.b.compare(Compare::Eq, index, number);
            chosen = group.iter().zip(&chosen).map(|(&new, &old)| self.b.select(here, new, old)).collect();
        }
        chosen
    }

    /// Items as values of one type, so that one of them can be chosen at run time.
    pub(super) fn alike(&mut self, span: Span, items: Vec<Val>) -> Result<Vec<Val>> {
        let is_float = |item: &Val| matches!(item, Val::Literal(Literal::Float(_)));
        let is_int = |item: &Val| matches!(item, Val::Literal(Literal::Int(_)));
        let mixed = items.iter().any(is_float) && items.iter().any(is_int);
        let mut alike = vec![];
        for item in items {
            alike.push(self.materialize_at(span, item)?);
        }
        let first = alike.first();
        let same =
            first.is_some_and(|first| first.is_carried() && alike.iter().all(|item| item.same_type(first)));
        if mixed || !same {
            let hint = "give all one type; an index that is known at compile time may name any";
            return self.error_hint(span, "the items of this tuple have no one type", hint);
        }
        Ok(alike)
    }

    /// The item of this number, which is in range.
    pub(super) fn chosen(&mut self, items: &[Val], index: Value) -> Val {
        let parts: Vec<Values> = items
            .iter()
            .map(|item| {
                let mut parts = Values::new();
                item.parts(&mut parts);
                parts
            })
            .collect();
        let groups: Vec<&[Value]> = parts.iter().map(|parts| &parts[..]).collect();
        let chosen = self.chosen_group(&groups, index);
        items[0].with_parts(&mut chosen.into_iter())
    }

    /// The value with another component or row.
    pub(super) fn replace_component(
        &mut self,
        span: Span,
        old: Val,
        indices: &[Expr],
        value: Val,
    ) -> Result<Val> {
        let Val::Data(data, mut parts) = old else {
            let found = self.type_name(&old);
            return self.error(span, format!("{found} has no components that could be assigned"));
        };
        if let [Expr { kind: ExprKind::Slice(bounds), .. }] = indices
            && matches!(data.form, Form::Vec(_) | Form::Quat | Form::Transform)
        {
            let places = self.components(span, data.form.lanes(), bounds)?;
            let form = Form::Vec(places.len() as u16);
            let new = self.spread(span, Data { form, ..data }, value)?;
            for (&at, &new) in places.iter().zip(&new) {
                parts[at] = new;
            }
            return Ok(Val::Data(data, parts));
        }
        let (place, width) = self.place(span, data, indices)?;
        let form = if width == 1 { Form::Scalar } else { Form::Vec(width as u16) };
        let new = self.element(span, Data { form, ..data }, value)?;
        match place {
            Component::Known(at) => parts[at * width..][..width].copy_from_slice(&new),
            Component::Dynamic(index) => {
                for number in 0..parts.len() / width {
                    let at = self.b.int(DType::I32, number as i64);
                    let here = self.b.compare(Compare::Eq, index, at);
                    for (part, &new) in parts[number * width..][..width].iter_mut().zip(&new) {
                        *part = self.b.select(here, new, *part);
                    }
                }
            }
        }
        Ok(Val::Data(data, parts))
    }

    /// Where the scalars of `value.name` begin, and what they are together.
    fn part_of(&self, data: Data, name: &str) -> Option<(usize, Form)> {
        let at = ["x", "y", "z", "w"].iter().position(|known| *known == name);
        match data.form {
            Form::Vec(n) if n <= 4 => at.filter(|&at| at < n.into()).map(|at| (at, Form::Scalar)),
            Form::Quat => at.map(|at| (at, Form::Scalar)),
            Form::Transform => match name {
                "p" => Some((0, Form::Vec(3))),
                "q" => Some((3, Form::Quat)),
                _ => None,
            },
            _ => None,
        }
    }

    /// `base.name`.
    pub(super) fn attribute(&mut self, span: Span, base: Val, name: Symbol) -> Result<Val> {
        let text = self.text(name);
        match &base {
            Val::Data(data, parts) => {
                if let Some((at, form)) = self.part_of(*data, text) {
                    let parts = parts[at..][..form.lanes()].into();
                    return Ok(Val::Data(Data { form, ..*data }, parts));
                }
            }
            Val::Struct(id, fields) => {
                if let Some(at) = self.field(*id, name) {
                    return Ok(fields[at].clone());
                }
            }
            Val::Array(array) if text == "shape" => {
                let dims = (0..array.ndim()).map(|axis| Val::scalar(DType::I32, self.dim(array, axis)));
                return Ok(Val::Tuple(dims.collect()));
            }
            Val::Array(array) if text == "ndim" => {
                return Ok(Val::Literal(Literal::Int(array.ndim() as i128)));
            }
            Val::Array(array) if text == "size" => {
                let mut size = self.dim(array, 0);
                for axis in 1..array.ndim() {
                    let dim = self.dim(array, axis);
                    size = self.b.mul(size, dim);
                }
                return Ok(self.val(size));
            }
            _ => {}
        }
        let found = self.type_name(&base);
        self.error(span, format!("{found} has no `{text}`"))
    }

    pub(super) fn field(&self, id: u32, name: Symbol) -> Option<usize> {
        self.program.classes[id as usize].fields.iter().position(|field| field.0 == name)
    }

    /// The value with another `name`.
    pub(super) fn replace_attribute(
        &mut self,
        span: Span,
        old: Val,
        name: Symbol,
        value: Val,
    ) -> Result<Val> {
        match old {
            Val::Struct(id, mut fields) => {
                let Some(at) = self.field(id, name) else {
                    let found = self.text(self.program.classes[id as usize].name);
                    return self.error(span, format!("{found} has no field `{}`", self.text(name)));
                };
                let types = self.struct_fields(id)?;
                fields[at] = self.convert(span, value, types[at].1)?;
                Ok(Val::Struct(id, fields))
            }
            Val::Data(data, mut parts) => {
                let Some((at, form)) = self.part_of(data, self.text(name)) else {
                    let message = format!("{} has no `{}`", data.name(), self.text(name));
                    return self.error(span, message);
                };
                let new = self.element(span, Data { form, ..data }, value)?;
                parts[at..][..new.len()].copy_from_slice(&new);
                Ok(Val::Data(data, parts))
            }
            other => {
                let found = self.type_name(&other);
                self.error(span, format!("{found} has no `{}` that could be assigned", self.text(name)))
            }
        }
    }
}

/// A component: known at compile time or not.
#[derive(Clone, Copy)]
enum Component {
    Known(usize),
    Dynamic(Value),
}
