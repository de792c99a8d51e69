//! Gradient checkpointing: memory for time (Chen et al. 2016).

use std::sync::Arc;

use bullet_ops::Meta;

use crate::error::Result;
use crate::random::Generator;
use crate::tape::{Autograd, Backward, Node, Step, backward, grad_enabled, no_grad, with_grad};
use crate::tensor::Tensor;

struct Recompute<F> {
    function: F,
    inputs: Vec<(Tensor, u64, bool)>,
    generator: Option<(Arc<Generator>, u64)>,
}

/// `function(inputs)`, without keeping what is computed inside: backward runs it a second time.
///
/// `function` must compute the same both times; randomness from `generator` is replayed. Leaves that it captures (a
/// layer's parameters) get their gradients as usual.
///
/// # Errors
/// What `function` returns; in backward, an input that was overwritten meanwhile.
pub fn recompute<F>(function: F, inputs: &[&Tensor], generator: Option<Arc<Generator>>) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
{
    let detached: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
    let generator = generator.map(|g| {
        let stream = g.streams();
        (g, stream)
    });
    let output = no_grad(|| function(&detached))?;
    if !grad_enabled() {
        return Ok(output);
    }
    let inputs_saved = inputs.iter().map(|t| (t.detach(), t.version(), t.is_tracked())).collect();
    let step = Step::Custom(Box::new(Recompute { function, inputs: inputs_saved, generator }));
    let node = Node::record(step, inputs, vec![output_meta(&output)], Vec::new());
    Ok(output.view_as(*output.layout(), Some(Autograd::Node(node, 0))))
}

fn output_meta(output: &Tensor) -> Meta {
    Meta::new(*output.shape(), output.dtype())
}

impl<F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync> Backward for Recompute<F> {
    fn backward(&self, mut grads: Vec<Option<Tensor>>, _: Vec<Tensor>) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.pop().flatten() else { return Ok(vec![None; self.inputs.len()]) };
        if let Some((tensor, ..)) = self.inputs.iter().find(|(t, version, _)| t.version() != *version) {
            return Err(crate::Error::Autograd(format!(
                "an input of shape {} of a recomputed function was overwritten by an in-place operation; clone it before",
                tensor.shape()
            )));
        }
        let leaf =
            |(t, _, tracked): &(Tensor, u64, bool)| if *tracked { t.requires_grad() } else { Ok(t.clone()) };
        let inputs: Vec<Tensor> = self.inputs.iter().map(leaf).collect::<Result<_>>()?;
        let resume = self.generator.as_ref().map(|(g, stream)| {
            let now = g.streams();
            g.set_streams(*stream);
            (g, now)
        });
        let output = with_grad(true, || (self.function)(&inputs));
        if let Some((generator, now)) = resume {
            generator.set_streams(now);
        }
        let output = output?;
        if output.is_tracked() {
            backward(&output, grad)?;
        }
        Ok(inputs.iter().map(Tensor::grad).collect())
    }
}
