//! State of optimizers as named tensors.

use bullet_tensor::{Tensor, no_grad};

use crate::error::{Error, Result};
use crate::module::StateDict;

/// Tensors by their names in a checkpoint, in a fixed order; they share memory with what owns them.
pub type StateEntries = Vec<(String, Tensor)>;

/// Overwrites each tensor with the one of its name in `state`, and nothing if any doesn't fit.
pub(super) fn overwrite(entries: &StateEntries, state: &StateDict) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, tensor) in entries {
        match state.get(name) {
            None => wrong.push(format!("{name}: missing")),
            Some(found) if found.shape() != tensor.shape() || found.dtype() != tensor.dtype() => {
                wrong.push(format!(
                    "{name}: found {} {}, expected {} {}",
                    found.dtype(),
                    found.shape(),
                    tensor.dtype(),
                    tensor.shape()
                ))
            }
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        return Err(Error::data(format!(
            "the optimizer state does not fit this run:\n  {}\nresume with the optimizer, precision and model of the \
             checkpoint",
            wrong.join("\n  ")
        )));
    }
    no_grad(|| entries.iter().try_for_each(|(name, tensor)| tensor.copy_(&state[name])))?;
    Ok(())
}
