//! What expressions are while a kernel is lowered: composite types, and values as the scalars they are made of.

use std::rc::Rc;

use bullet_ops::DType;
use smallvec::SmallVec;

use crate::ir::{ArrayType, Space, Value, Values};
use crate::signature;

/// How the scalars of a value belong together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Form {
    Scalar,
    /// Of a length.
    Vec(u16),
    /// Rows and columns, stored by rows.
    Mat(u16, u16),
    /// x, y, z, w; w is the real part.
    Quat,
    /// A position and a rotation: 3 and 4 scalars.
    Transform,
}

/// The type of a number, or of several that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Data {
    pub(super) form: Form,
    pub(super) dtype: DType,
}

/// Any type that an annotation can name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Ty {
    Data(Data),
    /// An index into the module's structs.
    Struct(u32),
    Array(Element, u8),
    /// What the argument is, if it is one of these.
    Open(Open),
    /// `Any`: whatever the argument is.
    Any,
}

/// What an annotation like `wp.Float` or `wp.types.vector(length=Any, dtype=wp.Float)` takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Open {
    pub(super) form: OpenForm,
    pub(super) numbers: Numbers,
}

/// Forms, of which some leave lengths open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum OpenForm {
    Known(Form),
    Vec,
    /// With as many rows, and columns.
    Mat(Option<u16>, Option<u16>),
}

/// The dtypes that numbers may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Numbers {
    Only(DType),
    Float,
    Int,
    /// Either.
    Scalar,
    Any,
}

impl Open {
    /// Scalars.
    pub(super) fn scalar(numbers: Numbers) -> Open {
        Open { form: OpenForm::Known(Form::Scalar), numbers }
    }

    /// Whether a value of this type is one.
    pub(super) fn takes(self, data: Data) -> bool {
        let fits = |wanted: Option<u16>, found: u16| wanted.is_none_or(|wanted| wanted == found);
        let form = match (self.form, data.form) {
            (OpenForm::Known(form), found) => form == found,
            (OpenForm::Vec, found) => matches!(found, Form::Vec(_)),
            (OpenForm::Mat(rows, columns), Form::Mat(r, c)) => fits(rows, r) && fits(columns, c),
            (OpenForm::Mat(..), _) => false,
        };
        let is_int = !data.dtype.is_float() && data.dtype != DType::Bool;
        form && match self.numbers {
            Numbers::Only(dtype) => data.dtype == dtype,
            Numbers::Float => data.dtype.is_float(),
            Numbers::Int => is_int,
            Numbers::Scalar => is_int || data.dtype.is_float(),
            Numbers::Any => true,
        }
    }

    /// How a message calls it.
    pub(super) fn name(self) -> String {
        let form = match self.form {
            OpenForm::Known(Form::Scalar) => "number".into(),
            OpenForm::Known(Form::Vec(length)) => format!("vector of {length}"),
            OpenForm::Known(Form::Mat(rows, columns)) => format!("{rows}x{columns} matrix"),
            OpenForm::Known(Form::Quat) => "quaternion".into(),
            OpenForm::Known(Form::Transform) => "transform".into(),
            OpenForm::Vec => "vector".into(),
            OpenForm::Mat(Some(rows), None) => format!("matrix of {rows} rows"),
            OpenForm::Mat(None, Some(columns)) => format!("matrix of {columns} columns"),
            OpenForm::Mat(Some(rows), Some(columns)) => format!("{rows}x{columns} matrix"),
            OpenForm::Mat(None, None) => "matrix".into(),
        };
        match (self.numbers, self.form) {
            (Numbers::Float, OpenForm::Known(Form::Scalar)) => "a float".into(),
            (Numbers::Int, OpenForm::Known(Form::Scalar)) => "an integer".into(),
            (Numbers::Only(dtype), _) => format!("a {form} of {}", dtype_name(dtype)),
            (Numbers::Float, _) => format!("a {form} of floats"),
            (Numbers::Int, _) => format!("a {form} of integers"),
            (Numbers::Scalar | Numbers::Any, _) => format!("a {form}"),
        }
    }
}

/// What an array holds many of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Element {
    Data(Data),
    /// An index into the module's structs.
    Struct(u32),
    /// `Any`, of parameters.
    Any,
}

/// One dimension of the memory behind an array.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Axis {
    /// All of it is a dimension of the array.
    All,
    /// One place of it, which is none.
    At(Value),
    /// Places `start, start + step, ..`, so many: what a slice leaves.
    Range { start: Value, length: Value, step: Value },
}

/// A reference to an array, or to a part of one. Copying it copies no element.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Array {
    pub(super) element: Element,
    /// The arrays of the IR: one, or of structs one for each field of numbers, in order.
    pub(super) values: Values,
    /// The lengths, where they are known: of an array that the kernel made.
    pub(super) local: Option<SmallVec<[u32; 4]>>,
    /// Of the memory.
    pub(super) axes: SmallVec<[Axis; 4]>,
}

impl Array {
    /// All of a parameter.
    pub(super) fn new(element: Element, ndim: u8, values: Values) -> Array {
        Array { element, values, local: None, axes: smallvec::smallvec![Axis::All; ndim.into()] }
    }

    /// How many indices an element has.
    pub(super) fn ndim(&self) -> usize {
        self.axes.iter().filter(|axis| !matches!(axis, Axis::At(_))).count()
    }

    pub(super) fn ty(&self) -> Ty {
        Ty::Array(self.element, self.ndim() as u8)
    }

    /// Whether two differ in places only.
    fn same_type(&self, other: &Array) -> bool {
        let kind = std::mem::discriminant::<Axis>;
        (self.element, &self.values, &self.local) == (other.element, &other.values, &other.local)
            && self.axes.len() == other.axes.len()
            && self.axes.iter().zip(&other.axes).all(|(a, b)| kind(a) == kind(b))
    }
}

/// A number in the source, which has the type of what it meets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Literal {
    Int(i128),
    Float(f64),
    Bool(bool),
}

/// What an expression is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Val {
    Literal(Literal),
    Data(Data, Values),
    /// The values of the fields.
    Struct(u32, Vec<Val>),
    Array(Rc<Array>),
    Tuple(Vec<Val>),
    Str(String),
    None,
    /// A variable that has one type on one way to here and another on the other; what they are, for the message.
    Conflict(String, String),
    /// What a mistake that was reported left; silent.
    Bad,
}

impl Form {
    /// How many scalars.
    pub(super) fn lanes(self) -> usize {
        match self {
            Form::Scalar => 1,
            Form::Vec(n) => n.into(),
            Form::Mat(rows, columns) => usize::from(rows) * usize::from(columns),
            Form::Quat => 4,
            Form::Transform => 7,
        }
    }
}

impl Data {
    pub(super) fn scalar(dtype: DType) -> Data {
        Data { form: Form::Scalar, dtype }
    }

    /// As an array of `ndim` dimensions holds it.
    pub(super) fn array(self, ndim: u8) -> ArrayType {
        let lanes = self.form.lanes() as u16;
        ArrayType { dtype: self.dtype, lanes, pitch: lanes, ndim, space: Space::Global }
    }

    /// As those who launch a kernel see it.
    pub(super) fn element(self) -> signature::Element {
        let dims = match self.form {
            Form::Scalar => SmallVec::new(),
            Form::Vec(n) => SmallVec::from_slice(&[n]),
            Form::Mat(rows, columns) => SmallVec::from_slice(&[rows, columns]),
            Form::Quat | Form::Transform => SmallVec::from_slice(&[self.form.lanes() as u16]),
        };
        signature::Element { dtype: self.dtype, dims, name: self.name() }
    }

    /// As the source spells it.
    pub(super) fn name(self) -> String {
        let dtype = dtype_name(self.dtype);
        match self.form {
            Form::Scalar => dtype.into(),
            Form::Vec(n) => format!("vec{n} of {dtype}"),
            Form::Mat(rows, columns) => format!("mat{rows}{columns} of {dtype}"),
            Form::Quat => format!("quat of {dtype}"),
            Form::Transform => format!("transform of {dtype}"),
        }
    }
}

/// As the source spells it.
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::U32 => "uint32",
        DType::U64 => "uint64",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::I64 => "int64",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F32 => "float32",
        DType::F64 => "float64",
    }
}

impl Val {
    pub(super) fn scalar(dtype: DType, value: Value) -> Val {
        Val::Data(Data::scalar(dtype), SmallVec::from_slice(&[value]))
    }

    /// All scalars, in order: of arrays those that say which part it is; of what cannot be stored none.
    pub(super) fn parts(&self, out: &mut Values) {
        match self {
            Val::Data(_, parts) => out.extend_from_slice(parts),
            Val::Struct(_, fields) | Val::Tuple(fields) => fields.iter().for_each(|field| field.parts(out)),
            Val::Array(array) => array.axes.iter().for_each(|axis| match *axis {
                Axis::All => {}
                Axis::At(place) => out.push(place),
                Axis::Range { start, length, step } => out.extend([start, length, step]),
            }),
            _ => {}
        }
    }

    /// The same type with other scalars, taken in order.
    pub(super) fn with_parts(&self, parts: &mut impl Iterator<Item = Value>) -> Val {
        match self {
            Val::Data(data, old) => Val::Data(*data, parts.take(old.len()).collect()),
            Val::Struct(id, fields) => {
                Val::Struct(*id, fields.iter().map(|field| field.with_parts(parts)).collect())
            }
            Val::Tuple(items) => Val::Tuple(items.iter().map(|item| item.with_parts(parts)).collect()),
            Val::Array(array) if array.axes.iter().any(|axis| *axis != Axis::All) => {
                let mut next = |old: Value| parts.next().unwrap_or(old);
                let axes = array.axes.iter().map(|axis| match *axis {
                    Axis::All => Axis::All,
                    Axis::At(place) => Axis::At(next(place)),
                    Axis::Range { start, length, step } => {
                        Axis::Range { start: next(start), length: next(length), step: next(step) }
                    }
                });
                let axes = axes.collect();
                Val::Array(Rc::new(Array { axes, ..(**array).clone() }))
            }
            other => other.clone(),
        }
    }

    /// Whether two values have one type, and differ in scalars only.
    pub(super) fn same_type(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::Data(a, _), Val::Data(b, _)) => a == b,
            (Val::Struct(a, x), Val::Struct(b, y)) => a == b && x.iter().zip(y).all(|(x, y)| x.same_type(y)),
            (Val::Tuple(x), Val::Tuple(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.same_type(y))
            }
            (Val::Array(a), Val::Array(b)) => a.same_type(b),
            (a, b) => a == b,
        }
    }

    /// Whether it is made of scalars, which branches and loops can carry.
    pub(super) fn is_carried(&self) -> bool {
        match self {
            Val::Data(..) => true,
            Val::Struct(_, fields) | Val::Tuple(fields) => fields.iter().any(Val::is_carried),
            Val::Array(array) => array.axes.iter().any(|axis| *axis != Axis::All),
            _ => false,
        }
    }
}
