//! When numbers are no longer finite: which tensor, and what to try.

use bullet_tensor::{Tensor, no_grad};

use crate::error::{Error, ErrorKind, Result};

/// Whether every element is finite; one number is read from the device.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    // NaN and infinity survive abs and max; the largest of none is asked of no one.
    Ok(tensor.numel() == 0 || no_grad(|| tensor.detach().abs()?.max(&[], false)?.item())?.is_finite())
}

/// The first parameter whose value, or else whose gradient, is not finite: `value of NAME` or `gradient of NAME`.
fn first_broken<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a Tensor)> + Clone,
) -> Result<Option<String>> {
    for (name, tensor) in parameters.clone() {
        if !is_finite(tensor)? {
            return Ok(Some(format!("the value of {name}")));
        }
    }
    for (name, tensor) in parameters {
        if let Some(grad) = tensor.grad()
            && !is_finite(&grad)?
        {
            return Ok(Some(format!("the gradient of {name}")));
        }
    }
    Ok(None)
}

/// The error for a run whose numbers broke at or before `step`.
pub(super) fn not_finite<'a>(
    step: u64,
    loss: f64,
    half: bool,
    parameters: impl Iterator<Item = (&'a str, &'a Tensor)> + Clone,
) -> Result<Error> {
    let place = first_broken(parameters)?;
    let what = match &place {
        Some(place) if loss.is_finite() => format!("{place} is not finite (loss {loss:.4})"),
        Some(place) => format!("the loss is {loss} and {place} is not finite"),
        None => format!("the loss is {loss}, but every parameter and gradient is finite"),
    };
    let precision = if half { ", or train.precision = \"bf16\" or \"f32\"" } else { "" };
    Ok(Error::new(
        ErrorKind::Data,
        format!(
            "training broke down by step {step}: {what}; try a lower optim.lr, a longer optim.warmup, optim.grad_clip = \
             1.0{precision}; the last checkpoint before this is unchanged"
        ),
    ))
}
