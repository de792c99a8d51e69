//! Optimizers (SGD, Adam, AdamW), parameter groups, learning-rate schedules, loss scaling.
//!
//! **Nothing here reads from the device.** Step count, learning rate, clipping factor and loss scale are device tensors
//! that kernels read; a step whose gradients are not finite skips itself there. Parameters may be on several devices: each
//! device's are updated by calls of its own, and the norms of their gradients are brought together through the host.

mod own;
mod scaler;
mod schedule;
mod state;

use bullet_tensor::optim::{Adam, GradientScale, Sgd, Slot, StepState, adam_step, gradient_scale, sgd_step};
use bullet_tensor::{DType, Device, Tensor, no_grad};

pub use own::{OwnRule, OwnSlot};
pub use scaler::LossScaler;
pub use schedule::{Decay, Schedule};
pub use state::StateEntries;

use crate::error::{Error, Result};
use crate::module::StateDict;
use crate::place::distinct;

/// An update rule with what is common to all parameters; learning rate and weight decay are of the group.
///
/// Each does what PyTorch's optimizer of the same name documents.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// Stochastic gradient descent; with momentum, the first step takes the gradient as the velocity
    /// (Sutskever et al. 2013).
    Sgd {
        /// Share of the velocity that carries over; 0 for none.
        momentum: f64,
        /// Looks ahead along the velocity.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015); weight decay adds to the gradient.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root of the mean square.
        eps: f64,
    },
    /// Adam with weight decay that scales the parameter instead (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root of the mean square.
        eps: f64,
    },
    /// Of the caller's own: [`Optimizer::own`].
    Own,
}

impl Rule {
    /// AdamW with PyTorch's defaults.
    pub const ADAMW: Rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    /// Plain gradient descent.
    pub const SGD: Rule = Rule::Sgd { momentum: 0.0, nesterov: false };

    /// `sgd`, `adam`, `adamw` or `own`.
    pub const fn name(&self) -> &'static str {
        match self {
            Rule::Sgd { .. } => "sgd",
            Rule::Adam { .. } => "adam",
            Rule::AdamW { .. } => "adamw",
            Rule::Own => "own",
        }
    }

    /// What the running averages of a parameter are called in a checkpoint.
    const fn moments(&self) -> &'static [&'static str] {
        match self {
            Rule::Own => &[],
            Rule::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            Rule::Sgd { .. } => &["velocity"],
            Rule::Adam { .. } | Rule::AdamW { .. } => &["mean", "square"],
        }
    }

    fn check(&self) -> Result<()> {
        let (shares, eps): (&[(&str, f64)], f64) = match self {
            Rule::Sgd { momentum, nesterov } => {
                if *nesterov && *momentum == 0.0 {
                    return Err(Error::argument(
                        "sgd: Nesterov's method needs a momentum above 0; 0.9 is usual",
                    ));
                }
                (&[("momentum", *momentum)], 0.0)
            }
            Rule::Own => (&[], 0.0),
            Rule::Adam { beta1, beta2, eps } | Rule::AdamW { beta1, beta2, eps } => {
                (&[("beta1", *beta1), ("beta2", *beta2)], *eps)
            }
        };
        if let Some((name, value)) = shares.iter().find(|(_, x)| !(0.0..1.0).contains(x)) {
            return Err(Error::argument(format!(
                "{}: {name} = {value} must be in 0..1, 1 excluded",
                self.name()
            )));
        }
        if eps.is_nan() || eps < 0.0 {
            return Err(Error::argument(format!("{}: eps = {eps} must not be negative", self.name())));
        }
        Ok(())
    }
}

/// What the parameters of one group share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupOptions {
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Default for GroupOptions {
    /// The learning rate as it is, no decay.
    fn default() -> GroupOptions {
        GroupOptions { lr_scale: 1.0, weight_decay: 0.0 }
    }
}

/// A parameter with its running averages.
struct Member {
    name: String,
    param: Tensor,
    moments: Vec<Tensor>,
}

/// Parameters of one device that are stepped by one call, with the scalars that the call reads there.
struct Group {
    options: GroupOptions,
    /// f32, no axes.
    lr: Tensor,
    /// i64, no axes: steps taken, skipped ones not counted.
    step: Tensor,
    members: Vec<Member>,
}

impl Group {
    fn device(&self) -> &Device {
        self.lr.device()
    }
}

/// An update rule, the parameters it updates in place, and its state.
pub struct Optimizer {
    rule: Rule,
    groups: Vec<Group>,
    /// What [`Rule::Own`] does.
    own: Option<Box<dyn OwnRule>>,
}

impl Optimizer {
    /// An optimizer of `parameters` (as [`Module::named_parameters`](crate::Module::named_parameters) gives them);
    /// those on one device for which `options` says the same make a group. The learning rate is 0 until [`Optimizer::set_lr`].
    ///
    /// # Errors
    /// No parameters; a hyper-parameter out of range; out of memory.
    pub fn new(
        rule: Rule,
        parameters: Vec<(String, Tensor)>,
        options: impl Fn(&str, &Tensor) -> GroupOptions,
    ) -> Result<Optimizer> {
        rule.check()?;
        if parameters.is_empty() {
            return Err(Error::argument("optimizer: the model has no parameters to train"));
        }
        let mut groups: Vec<Group> = Vec::new();
        for (name, param) in parameters {
            let options = options(&name, &param);
            check_options(&name, options)?;
            let wide = if param.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let zeros = || Tensor::zeros(param.shape(), wide, param.device());
            let moments = rule.moments().iter().map(|_| zeros()).collect::<Result<_, _>>()?;
            let device = param.device().clone();
            let member = Member { name, param, moments };
            match groups.iter_mut().find(|g| g.options == options && *g.device() == device) {
                Some(group) => group.members.push(member),
                None => groups.push(Group {
                    options,
                    lr: Tensor::zeros(&[], DType::F32, &device)?,
                    step: Tensor::zeros(&[], DType::I64, &device)?,
                    members: vec![member],
                }),
            }
        }
        Ok(Optimizer { rule, groups, own: None })
    }

    /// The same rule with other parameters or options. A parameter that had running averages by its name keeps them, where
    /// they are if it has not moved; steps taken stay counted.
    ///
    /// # Errors
    /// As [`Optimizer::new`]; the rule is [`Rule::Own`].
    pub fn regrouped(
        &self,
        parameters: Vec<(String, Tensor)>,
        options: impl Fn(&str, &Tensor) -> GroupOptions,
    ) -> Result<Optimizer> {
        let mut next = Optimizer::new(self.rule, parameters, options)?;
        next.count_from(self.steps_taken())?;
        for group in &mut next.groups {
            for member in &mut group.members {
                let fits =
                    |old: &Tensor, new: &Tensor| (old.shape(), old.dtype()) == (new.shape(), new.dtype());
                let Some(old) = self.members().find(|m| m.name == member.name) else { continue };
                if old.moments.iter().zip(&member.moments).all(|(old, new)| fits(old, new)) {
                    let device = member.param.device();
                    let moved = old.moments.iter().map(|m| m.to_device(device));
                    member.moments = moved.collect::<Result<_, _>>()?;
                }
            }
        }
        Ok(next)
    }

    /// The update rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The options of each group with the names of its parameters.
    pub fn groups(&self) -> impl Iterator<Item = (GroupOptions, Vec<&str>)> {
        self.groups.iter().map(|g| (g.options, g.members.iter().map(|m| &*m.name).collect()))
    }

    /// i64, no axes: how many steps were taken; those skipped for gradients that were not finite don't count.
    pub fn steps_taken(&self) -> &Tensor {
        &self.groups[0].step
    }

    /// Counts from `steps` on, which is as [`Optimizer::steps_taken`] of an optimizer that went further.
    ///
    /// # Errors
    /// It is no i64 without axes; out of memory.
    pub fn count_from(&self, steps: &Tensor) -> Result<()> {
        Ok(self.groups.iter().try_for_each(|g| g.step.send_from_(steps))?)
    }

    /// Writes the learning rate of the next steps to the device, times each group's factor.
    pub fn set_lr(&self, lr: f64) -> Result<()> {
        for group in &self.groups {
            group.lr.send_(&[(lr * group.options.lr_scale) as f32])?;
        }
        Ok(())
    }

    /// Brings the parameters' copies in other dtypes up to date: for a replayed step, which reads them as they are.
    ///
    /// # Errors
    /// Out of memory.
    pub fn refresh_shadows(&self) -> Result<()> {
        Ok(self.members().try_for_each(|m| m.param.refresh_shadow())?)
    }

    /// Drops every gradient.
    pub fn zero_grad(&self) {
        self.members().for_each(|m| m.param.set_grad(None));
    }

    /// The devices that its parameters are on.
    pub fn devices(&self) -> Vec<Device> {
        distinct(self.groups.iter().map(Group::device))
    }

    /// The global norm of the gradients and the factor that undoes the loss scale, then clips to `max_norm`; all are where
    /// the loss scale is. Of gradients on several devices the norms are brought together there, for which the host waits.
    ///
    /// # Errors
    /// No parameter has a gradient.
    pub fn gradient_scale(
        &self,
        loss_scale: Option<&Tensor>,
        max_norm: Option<f64>,
    ) -> Result<GradientScale> {
        let grads: Vec<Tensor> = self.members().filter_map(|m| m.param.computed_grad()).collect();
        if grads.is_empty() {
            return Err(Error::argument(
                "optimizer: no parameter has a gradient; run the forward pass and call backward on the loss first",
            ));
        }
        let devices = distinct(grads.iter().map(Tensor::device));
        if devices.len() > 1 {
            return joint_scale(&grads, &devices, loss_scale, max_norm);
        }
        Ok(gradient_scale(&grads.iter().collect::<Vec<_>>(), loss_scale, max_norm)?)
    }

    /// One step with the gradients that backward left, times `scale.factor`; the device skips it if
    /// `scale.non_finite`. Parameters without gradient stay as they are.
    pub fn step(&self, scale: &GradientScale) -> Result<()> {
        if let Some(rule) = &self.own {
            return self.step_own(&**rule, scale);
        }
        no_grad(|| self.groups.iter().try_for_each(|g| self.step_group(g, scale)))
    }

    fn step_group(&self, group: &Group, scale: &GradientScale) -> Result<()> {
        let grads: Vec<(&Member, Tensor)> =
            group.members.iter().filter_map(|m| Some((m, m.param.computed_grad()?))).collect();
        let slots: Vec<Slot<'_>> = grads
            .iter()
            .map(|(m, grad)| Slot {
                param: &m.param,
                grad,
                moments: &m.moments,
                shadow: m.param.shadow_values(),
            })
            .collect();
        let state = StepState {
            step: &group.step,
            lr: &group.lr,
            grad_scale: &scale.factor.to_device(group.device())?,
            skip: &scale.non_finite.to_device(group.device())?,
        };
        let weight_decay = group.options.weight_decay;
        match self.rule {
            Rule::Sgd { momentum, nesterov } => {
                let hyper = Sgd { momentum, nesterov, weight_decay };
                sgd_step(&slots, &state, &hyper)?;
            }
            Rule::Adam { beta1, beta2, eps } => {
                let hyper = Adam { beta1, beta2, eps, weight_decay, decoupled: false };
                adam_step(&slots, &state, &hyper)?;
            }
            Rule::AdamW { beta1, beta2, eps } => {
                let hyper = Adam { beta1, beta2, eps, weight_decay, decoupled: true };
                adam_step(&slots, &state, &hyper)?;
            }
            Rule::Own => {}
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = &Member> + Clone {
        self.groups.iter().flat_map(|g| &g.members)
    }

    /// The parameters in the order of their groups.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> + Clone {
        self.members().map(|m| (&*m.name, &m.param))
    }

    /// Its tensors by the names they have in a checkpoint: `optim.step`, and `optim.mean.NAME` and
    /// `optim.square.NAME` (Adam) or `optim.velocity.NAME` (SGD with momentum) of each parameter.
    pub fn state(&self) -> StateEntries {
        let mut entries = vec![("optim.step".to_string(), self.steps_taken().clone())];
        for member in self.members() {
            for (kind, moment) in self.rule.moments().iter().zip(&member.moments) {
                entries.push((format!("optim.{kind}.{}", member.name), moment.clone()));
            }
        }
        entries
    }

    /// Overwrites its tensors with those of a checkpoint.
    ///
    /// # Errors
    /// One is missing or has another shape or dtype; nothing is overwritten then.
    pub fn load(&self, state: &StateDict) -> Result<()> {
        state::overwrite(&self.state(), state)?;
        // All groups step together, so that one count in the file stands for all.
        self.groups[1..].iter().try_for_each(|g| g.step.copy_(self.steps_taken()))?;
        Ok(())
    }
}

/// As [`gradient_scale`], of gradients on several devices.
fn joint_scale(
    grads: &[Tensor],
    devices: &[Device],
    loss_scale: Option<&Tensor>,
    max_norm: Option<f64>,
) -> Result<GradientScale> {
    let norm_on = |device: &Device| {
        let here: Vec<&Tensor> = grads.iter().filter(|g| g.device() == device).collect();
        Ok(gradient_scale(&here, None, None)?.norm)
    };
    // All are begun before one is waited for.
    let norms: Vec<Tensor> = devices.iter().map(norm_on).collect::<Result<_>>()?;
    let home = loss_scale.map_or(&devices[0], Tensor::device);
    let norms: Vec<Tensor> = norms.iter().map(|n| n.to_device(home)).collect::<Result<_, _>>()?;
    // The norm of norms is the norm of all, and not finite if one of them is not.
    Ok(gradient_scale(&norms.iter().collect::<Vec<_>>(), loss_scale, max_norm)?)
}

fn check_options(name: &str, options: GroupOptions) -> Result<()> {
    let GroupOptions { lr_scale, weight_decay } = options;
    if lr_scale >= 0.0 && weight_decay >= 0.0 && lr_scale.is_finite() && weight_decay.is_finite() {
        return Ok(());
    }
    Err(Error::argument(format!(
        "optimizer: parameter {name} has lr_scale = {lr_scale} and weight_decay = {weight_decay}; both must be finite and \
         not negative"
    )))
}
