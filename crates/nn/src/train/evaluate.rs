//! The validation loss: exact over the whole text, or estimated on some batches of it.

use bullet_tensor::{Device, Tensor, no_grad};

use crate::data::{Batch, Sampler, TokenDataset, eval_windows};
use crate::error::Result;
use crate::module::Pass;

use super::step::Objective;

/// The mean cross-entropy over `batches`, in nats per target.
fn mean_loss<M: Objective + ?Sized>(
    model: &M,
    batches: impl Iterator<Item = Result<Batch>>,
    sequence: usize,
    pass: &Pass,
    device: &Device,
) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for batch in batches {
        let batch = batch?;
        let shape = [batch.x.len() / sequence, sequence];
        let inputs = Tensor::from_slice(&batch.x, &shape, device)?;
        let targets = Tensor::from_slice(&batch.y, &shape, device)?;
        let loss = no_grad(|| model.loss(&[inputs, targets], pass))?.item()?;
        sum += loss * batch.targets as f64;
        count += batch.targets;
    }
    Ok(sum / count as f64)
}

/// The exact mean cross-entropy over the validation text, in nats per token: every token but the first is predicted
/// once, from those before it in windows of `sequence` tokens that don't overlap.
///
/// # Errors
/// There are fewer than two validation tokens; what the model refuses.
pub fn evaluate<M: Objective + ?Sized>(
    model: &M,
    data: &TokenDataset,
    [batch, sequence]: [usize; 2],
    pass: &Pass,
    device: &Device,
) -> Result<f64> {
    let batches = eval_windows(&data.validation, batch, sequence)?.map(Ok);
    mean_loss(model, batches, sequence, pass, device)
}

/// As [`evaluate`], on `count` random batches: the same ones for every call with this seed, so that results of one run
/// compare.
///
/// # Errors
/// The validation text is shorter than a window; what the model refuses.
pub fn estimate<M: Objective + ?Sized>(
    model: &M,
    data: &TokenDataset,
    shape: [usize; 2],
    count: usize,
    seed: u64,
    pass: &Pass,
    device: &Device,
) -> Result<f64> {
    let sampler = Sampler::new(seed, Sampler::EVAL, shape[0], shape[1])?;
    let batches = (0..count as u64).map(|i| sampler.batch(&data.validation, i));
    mean_loss(model, batches, shape[1], pass, device)
}
