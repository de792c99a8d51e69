//! [`OwnRule`]: an update rule that is no part of this crate.

use bullet_tensor::optim::GradientScale;
use bullet_tensor::{Tensor, no_grad};

use super::{GroupOptions, Optimizer, Rule};
use crate::error::Result;

/// An update rule of the caller's own, made of ops of tensors. It keeps what state it needs itself.
pub trait OwnRule: Send + Sync {
    /// Updates one parameter in place. Nothing is recorded meanwhile.
    ///
    /// # Errors
    /// What its ops refuse; the step ends there.
    fn update(&self, slot: OwnSlot<'_>) -> Result<()>;
}

/// What a rule updates, and by what.
pub struct OwnSlot<'a> {
    /// Name of the parameter.
    pub name: &'a str,
    /// To be overwritten.
    pub param: &'a Tensor,
    /// In the dtype of the parameter; loss scale and clipping are done.
    pub grad: Tensor,
    /// The learning rate, times the group's factor.
    pub lr: f64,
    /// Of the group.
    pub options: GroupOptions,
}

impl Optimizer {
    /// An optimizer by a rule of the caller's own. Its steps wait for the device, as whether they are skipped is read from
    /// there; so they are not captured.
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    pub fn own(
        rule: Box<dyn OwnRule>,
        parameters: Vec<(String, Tensor)>,
        options: impl Fn(&str, &Tensor) -> GroupOptions,
    ) -> Result<Optimizer> {
        Ok(Optimizer { own: Some(rule), ..Optimizer::new(Rule::Own, parameters, options)? })
    }

    /// Whether a step can be recorded and replayed.
    pub fn can_be_captured(&self) -> bool {
        self.own.is_none()
    }

    pub(super) fn step_own(&self, rule: &dyn OwnRule, scale: &GradientScale) -> Result<()> {
        if scale.non_finite.item()? != 0.0 {
            return Ok(());
        }
        no_grad(|| {
            for group in &self.groups {
                let (lr, options) = (group.lr.item()?, group.options);
                let factor = scale.factor.to_device(group.device())?;
                for member in &group.members {
                    let Some(grad) = member.param.computed_grad() else { continue };
                    let grad = grad.cast(member.param.dtype())?.mul(&factor)?.cast(member.param.dtype())?;
                    rule.update(OwnSlot { name: &member.name, param: &member.param, grad, lr, options })?;
                }
                group.step.add_(&Tensor::scalar(1i64, group.device())?)?;
            }
            Ok(())
        })
    }
}
