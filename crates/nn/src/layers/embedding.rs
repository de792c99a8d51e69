//! [`Embedding`].

use bullet_tensor::Tensor;

use crate::error::Result;
use crate::init::{Fill, Init};
use crate::module::{Module, Pass, join};

/// A table of vectors, looked up by index.
#[derive(Debug)]
pub struct Embedding {
    /// Shape (rows, width).
    pub weight: Tensor,
}

impl Embedding {
    /// A table of `rows` vectors drawn from `fill`.
    pub fn new(init: &Init, rows: usize, width: usize, fill: Fill) -> Result<Embedding> {
        Ok(Embedding { weight: init.param("weight", &[rows, width], fill)? })
    }

    /// Integer indices (..) to vectors (.., width) in the dtype of the pass.
    ///
    /// # Errors
    /// An index outside the table; indices that are not integers.
    pub fn forward(&self, indices: &Tensor, pass: &Pass) -> Result<Tensor> {
        if pass.training {
            return Ok(pass.param(&self.weight)?.embedding(indices)?);
        }
        // Rows are cast after they are picked: they are fewer than the table's.
        pass.cast(&self.weight.embedding(indices)?)
    }

    /// The first `len` rows from `start`, as (len, width).
    pub fn rows(&self, start: usize, len: usize, pass: &Pass) -> Result<Tensor> {
        if pass.training {
            return Ok(pass.param(&self.weight)?.narrow(0, start, len)?);
        }
        pass.cast(&self.weight.narrow(0, start, len)?)
    }
}

impl Module for Embedding {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, &Tensor)) {
        f(&join(path, "weight"), &self.weight);
    }
}
