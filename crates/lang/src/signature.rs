//! What a kernel's parameters are in the source: who launches it takes composite arguments apart as the IR has them.
//!
//! A value of several scalars becomes that many parameters of the IR, a struct those of its fields one after the other, an
//! array one, and an array of structs one for each field of numbers: [`ParamType::slots`] lists them.
//!
//! A struct lies in memory as C lays it out, and NumPy with `align=True`: each field at a multiple of the size of its scalars,
//! in the order of the source, and the whole a multiple of the largest.

use bullet_ops::DType;
use smallvec::SmallVec;

/// A scalar, or scalars that belong together, side by side in memory: `[]` for a number, `[3]` for a vec3, `[4]` for a quaternion
/// (x, y, z, w), `[7]` for a transform (position, quaternion), `[3, 3]` for a mat33, by rows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Element {
    /// Of the scalars.
    pub dtype: DType,
    /// How they are arranged.
    pub dims: SmallVec<[u16; 2]>,
    /// As the source spells it: `vec3 of float32`.
    pub name: String,
}

impl Element {
    /// How many scalars.
    pub fn lanes(&self) -> usize {
        self.dims.iter().map(|&dim| usize::from(dim)).product()
    }
}

/// The type of a parameter or field.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ParamType {
    /// By value.
    Value(Element),
    /// Of so many dimensions.
    Array(Element, u8),
    /// A struct: its name, and its fields with their names.
    Struct(String, Vec<(String, ParamType)>),
    /// An array of such structs, of so many dimensions.
    StructArray(Box<ParamType>, u8),
}

/// One parameter of a [kernel](crate::ir::Kernel) in the IR: what a part of a parameter of the source becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A number.
    Scalar {
        /// Of the number.
        dtype: DType,
        /// Where it is in the parameter's value as C lays it out, in bytes.
        offset: usize,
    },
    /// An array.
    Array {
        /// The fields that lead to it, in a struct with arrays.
        path: Vec<String>,
        /// Of the numbers.
        dtype: DType,
        /// Numbers an element, side by side.
        lanes: usize,
        /// How many dimensions.
        ndim: u8,
        /// Where the numbers are in an element of the source's array, in bytes; 0 but for arrays of structs.
        offset: usize,
        /// The size of an element of the source's array, in bytes.
        pitch: usize,
    },
}

impl ParamType {
    /// How many parameters of the IR it is.
    pub fn count(&self) -> usize {
        match self {
            ParamType::Value(element) => element.lanes(),
            ParamType::Array(..) => 1,
            ParamType::Struct(_, fields) => fields.iter().map(|(_, ty)| ty.count()).sum(),
            ParamType::StructArray(inner, _) => {
                let mut leaves = vec![];
                inner.leaves(0, &mut leaves);
                leaves.len()
            }
        }
    }

    /// Size and alignment of a value in memory, in bytes. Arrays count for nothing: a struct that holds them never lies in
    /// memory as a whole.
    pub fn layout(&self) -> (usize, usize) {
        match self {
            ParamType::Value(element) => (element.lanes() * element.dtype.size(), element.dtype.size()),
            ParamType::Array(..) | ParamType::StructArray(..) => (0, 1),
            ParamType::Struct(_, fields) => {
                let align = fields.iter().map(|(_, ty)| ty.layout().1).max().unwrap_or(1);
                let last = fields.iter().zip(self.offsets()).next_back();
                let end = last.map_or(0, |((_, ty), offset)| offset + ty.layout().0);
                (end.next_multiple_of(align), align)
            }
        }
    }

    /// Where each field of a struct begins, in bytes; of others nothing.
    pub fn offsets(&self) -> Vec<usize> {
        let ParamType::Struct(_, fields) = self else { return vec![] };
        let mut end = 0usize;
        let place = |(_, ty): &(String, ParamType)| {
            let (size, align) = ty.layout();
            let offset = end.next_multiple_of(align);
            end = offset + size;
            offset
        };
        fields.iter().map(place).collect()
    }

    /// The parameters of the IR that it becomes, in order.
    pub fn slots(&self) -> Vec<Slot> {
        let mut out = vec![];
        self.collect(0, &mut vec![], &mut out);
        out
    }

    fn collect(&self, offset: usize, path: &mut Vec<String>, out: &mut Vec<Slot>) {
        let array = |path: &[String], (offset, element): (usize, &Element), ndim: u8, pitch: usize| {
            let (dtype, lanes) = (element.dtype, element.lanes());
            Slot::Array { path: path.to_vec(), dtype, lanes, ndim, offset, pitch }
        };
        match self {
            ParamType::Value(element) => {
                let size = element.dtype.size();
                let scalar = |lane| Slot::Scalar { dtype: element.dtype, offset: offset + lane * size };
                out.extend((0..element.lanes()).map(scalar));
            }
            ParamType::Struct(_, fields) => {
                for ((name, ty), start) in fields.iter().zip(self.offsets()) {
                    path.push(name.clone());
                    ty.collect(offset + start, path, out);
                    path.pop();
                }
            }
            ParamType::Array(element, ndim) => {
                let pitch = element.lanes() * element.dtype.size();
                out.push(array(path, (0, element), *ndim, pitch));
            }
            ParamType::StructArray(inner, ndim) => {
                let mut leaves = vec![];
                inner.leaves(0, &mut leaves);
                let pitch = inner.layout().0;
                out.extend(leaves.into_iter().map(|leaf| array(path, leaf, *ndim, pitch)));
            }
        }
    }

    /// The numbers of a value in memory, and where they begin.
    fn leaves<'a>(&'a self, offset: usize, out: &mut Vec<(usize, &'a Element)>) {
        match self {
            ParamType::Value(element) => out.push((offset, element)),
            ParamType::Struct(_, fields) => {
                for ((_, ty), start) in fields.iter().zip(self.offsets()) {
                    ty.leaves(offset + start, out);
                }
            }
            ParamType::Array(..) | ParamType::StructArray(..) => {}
        }
    }
}

/// The parameters of a kernel, in order: their names and types.
pub type Signature = Vec<(String, ParamType)>;
