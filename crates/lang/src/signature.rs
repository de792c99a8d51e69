//! What a kernel's parameters are in the source: who launches it takes composite arguments apart as the IR has them.
//!
//! A value of several scalars becomes that many parameters of the IR, a struct those of its fields one after the other, an
//! array one.

use bullet_ops::DType;
use smallvec::SmallVec;

/// A scalar, or scalars that belong together, side by side in memory: [] for a number, [3] for a vec3, [4] for a quaternion
/// (x, y, z, w), [7] for a transform (position, quaternion), [3, 3] for a mat33, by rows.
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
}

impl ParamType {
    /// How many parameters of the IR it is.
    pub fn count(&self) -> usize {
        match self {
            ParamType::Value(element) => element.lanes(),
            ParamType::Array(..) => 1,
            ParamType::Struct(_, fields) => fields.iter().map(|(_, ty)| ty.count()).sum(),
        }
    }
}

/// The parameters of a kernel, in order: their names and types.
pub type Signature = Vec<(String, ParamType)>;
