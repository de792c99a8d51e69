//! What expressions are while a kernel is lowered: composite types, and values as the scalars they are made of.

use bullet_ops::DType;
use smallvec::SmallVec;

use crate::ir::{ArrayType, Space, Value, Values};
use crate::signature::Element;

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
    Array(Data, u8),
    /// `Any`: whatever the argument is.
    Any,
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
    Array(Data, u8, Value),
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
        ArrayType { dtype: self.dtype, lanes: self.form.lanes() as u16, ndim, space: Space::Global }
    }

    /// As those who launch a kernel see it.
    pub(super) fn element(self) -> Element {
        let dims = match self.form {
            Form::Scalar => SmallVec::new(),
            Form::Vec(n) => SmallVec::from_slice(&[n]),
            Form::Mat(rows, columns) => SmallVec::from_slice(&[rows, columns]),
            Form::Quat | Form::Transform => SmallVec::from_slice(&[self.form.lanes() as u16]),
        };
        Element { dtype: self.dtype, dims, name: self.name() }
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

    /// All scalars, in order; those of arrays and of what cannot be stored are none.
    pub(super) fn parts(&self, out: &mut Values) {
        match self {
            Val::Data(_, parts) => out.extend_from_slice(parts),
            Val::Struct(_, fields) | Val::Tuple(fields) => fields.iter().for_each(|field| field.parts(out)),
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
            (a, b) => a == b,
        }
    }

    /// Whether it is made of scalars, which branches and loops can carry.
    pub(super) fn is_carried(&self) -> bool {
        match self {
            Val::Data(..) => true,
            Val::Struct(_, fields) | Val::Tuple(fields) => fields.iter().any(Val::is_carried),
            _ => false,
        }
    }
}
