//! Functions with a backward of their own.

use crate::error::Result;
use crate::tape::{Autograd, Backward, Node, Saved, Step, grad_enabled};
use crate::tensor::Tensor;

/// `outputs`, which someone computed of `inputs` without recording, as results of one function on the tape: their gradients
/// go to `backward`, and what that gives to the inputs. `saved` are tensors that backward reads, of inputs or outputs for
/// instance; they are kept as the tape keeps those of ops, so that one that is overwritten meanwhile is an error.
///
/// Outputs that are not floating-point stay off the tape, and so do all where nothing is recorded or no input is tracked.
///
/// # Errors
/// None here; in backward those of `backward`, and gradients that do not fit the inputs in number, shape or dtype.
pub fn custom(
    inputs: &[&Tensor],
    outputs: &[Tensor],
    saved: &[&Tensor],
    backward: Box<dyn Backward>,
) -> Result<Vec<Tensor>> {
    if !grad_enabled() || !inputs.iter().any(|t| t.is_tracked()) {
        return Ok(outputs.to_vec());
    }
    let metas = outputs.iter().map(Tensor::meta).collect();
    let saved = saved.iter().map(|t| Some(Saved::new(t))).collect();
    let node = Node::record(Step::Custom(backward), inputs, metas, saved);
    let tracked = |(i, output): (usize, &Tensor)| match output.dtype().is_float() {
        true => output.view_as(*output.layout(), Some(Autograd::Node(node.clone(), i))),
        false => output.clone(),
    };
    Ok(outputs.iter().enumerate().map(tracked).collect())
}
