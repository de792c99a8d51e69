//! What a launch must know of the types of a kernel's parameters: how structs lie in memory, and which parameters of the
//! [kernel](crate::ir::Kernel) a parameter of the source becomes.

use bullet_ops::DType;

/// How the scalars of a value belong together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// A number.
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

impl Form {
    /// How many scalars.
    pub fn lanes(self) -> usize {
        match self {
            Form::Scalar => 1,
            Form::Vec(n) => n.into(),
            Form::Mat(rows, columns) => usize::from(rows) * usize::from(columns),
            Form::Quat => 4,
            Form::Transform => 7,
        }
    }
}

/// The type of a parameter of a kernel, or of a field of a struct.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ParamType {
    /// A number, vector, matrix, quaternion or transform.
    Data(Form, DType),
    /// A `@wp.struct`.
    Struct(StructType),
    /// Of elements and a number of dimensions, 1 to 4.
    Array(Box<ParamType>, u8),
}

/// A `@wp.struct` as C lays it out, and NumPy with `align=True`: each field at a multiple of the size of its scalars, in the
/// order of the source, and the whole a multiple of the largest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StructType {
    /// As the source calls it.
    pub name: String,
    /// In bytes; of a struct with arrays, which never lies in memory as a whole, that of the rest.
    pub size: usize,
    /// In bytes: of what addresses are multiples.
    pub align: usize,
    /// In order.
    pub fields: Vec<Field>,
}

/// A field of a struct.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Field {
    /// As the source calls it.
    pub name: String,
    /// What it is.
    pub ty: ParamType,
    /// The bytes before it in the struct.
    pub offset: usize,
}

/// One parameter of a [kernel](crate::ir::Kernel) in the IR: what a part of a parameter of the source becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A number: the scalar of this number of the value at an offset in bytes of the parameter's value.
    Scalar {
        /// Of the number.
        dtype: DType,
        /// In bytes, from the start of a struct or vector as C lays it out.
        offset: usize,
    },
    /// An array.
    Array {
        /// The fields that lead to it, of a struct with arrays.
        path: Vec<String>,
        /// Of the numbers.
        dtype: DType,
        /// Numbers an element, side by side.
        lanes: usize,
        /// How many dimensions.
        ndim: u8,
        /// In bytes: where in an element of the source's array the numbers are; 0 but for arrays of structs.
        offset: usize,
        /// In bytes: the size of an element of the source's array.
        pitch: usize,
    },
}

impl ParamType {
    /// Size and alignment in bytes, as C has them; 0 and 1 of arrays.
    pub fn size_align(&self) -> (usize, usize) {
        match self {
            ParamType::Data(form, dtype) => (form.lanes() * dtype.size(), dtype.size()),
            ParamType::Struct(found) => (found.size, found.align),
            ParamType::Array(..) => (0, 1),
        }
    }

    /// The parameters of the IR that a parameter of this type becomes, in order: numbers one by one, structs field by field,
    /// an array of structs as an array for each field of numbers.
    pub fn slots(&self) -> Vec<Slot> {
        let mut out = vec![];
        self.collect(0, &mut vec![], &mut out);
        out
    }

    fn collect(&self, offset: usize, path: &mut Vec<String>, out: &mut Vec<Slot>) {
        match self {
            ParamType::Data(form, dtype) => out.extend(
                (0..form.lanes())
                    .map(|lane| Slot::Scalar { dtype: *dtype, offset: offset + lane * dtype.size() }),
            ),
            ParamType::Struct(found) => {
                for field in &found.fields {
                    path.push(field.name.clone());
                    field.ty.collect(offset + field.offset, path, out);
                    path.pop();
                }
            }
            ParamType::Array(element, ndim) => {
                let mut leaves = vec![];
                element.leaves(0, &mut leaves);
                let pitch = element.size_align().0;
                out.extend(leaves.into_iter().map(|(offset, form, dtype)| Slot::Array {
                    path: path.clone(),
                    dtype,
                    lanes: form.lanes(),
                    ndim: *ndim,
                    offset,
                    pitch,
                }));
            }
        }
    }

    fn leaves(&self, offset: usize, out: &mut Vec<(usize, Form, DType)>) {
        match self {
            ParamType::Data(form, dtype) => out.push((offset, *form, *dtype)),
            ParamType::Struct(found) => {
                found.fields.iter().for_each(|field| field.ty.leaves(offset + field.offset, out));
            }
            ParamType::Array(..) => {}
        }
    }
}

impl StructType {
    /// Of these fields, in order.
    pub fn new(name: &str, fields: Vec<(String, ParamType)>) -> StructType {
        let (mut size, mut align) = (0usize, 1);
        let mut placed = vec![];
        for (name, ty) in fields {
            let (field_size, field_align) = ty.size_align();
            let offset = size.next_multiple_of(field_align);
            placed.push(Field { name, ty, offset });
            size = offset + field_size;
            align = align.max(field_align);
        }
        StructType { name: name.into(), size: size.next_multiple_of(align), align, fields: placed }
    }
}
