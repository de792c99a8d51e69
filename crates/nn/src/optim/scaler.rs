//! Loss scaling for f16: small gradients are lifted above the smallest half-precision number, and the factor finds its
//! own size (Micikevicius et al. 2018).

use bullet_tensor::optim::{LossScaling, update_loss_scale};
use bullet_tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::module::StateDict;

use super::state::{StateEntries, overwrite};

/// A loss scale that halves when gradients overflow and doubles after enough steps without. All of its state is on the
/// device; nothing here is read back.
pub struct LossScaler {
    scale: Tensor,
    clean: Tensor,
    rule: LossScaling,
}

impl LossScaler {
    /// Starts at `scale` (usually 2^16), and doubles after `interval` clean steps (usually 2000).
    pub fn new(scale: f64, interval: u64, device: &Device) -> Result<LossScaler> {
        Ok(LossScaler {
            scale: Tensor::full(scale, &[], DType::F32, device)?,
            clean: Tensor::zeros(&[], DType::I64, device)?,
            rule: LossScaling {
                growth: 2.0,
                backoff: 0.5,
                interval: i64::try_from(interval).unwrap_or(i64::MAX),
            },
        })
    }

    /// The factor on the loss: f32, no axes.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// Moves the scale after a step: `non_finite` (bool) says whether some gradient overflowed.
    pub fn update(&self, non_finite: &Tensor) -> Result<()> {
        Ok(update_loss_scale(&self.scale, &self.clean, non_finite, &self.rule)?)
    }

    /// Its tensors, by the names they have in a checkpoint.
    pub fn state(&self) -> StateEntries {
        vec![
            ("optim.loss_scale".to_string(), self.scale.clone()),
            ("optim.clean_steps".to_string(), self.clean.clone()),
        ]
    }

    /// Overwrites its tensors with those of a checkpoint.
    ///
    /// # Errors
    /// One is missing or has another shape or dtype.
    pub fn load(&self, state: &StateDict) -> Result<()> {
        overwrite(&self.state(), state)
    }
}
