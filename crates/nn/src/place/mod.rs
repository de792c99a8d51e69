//! Where the parts of a model lie, so that one too large for a GPU trains on GPU and CPU together (hybrid mode).
//!
//! **Parts** are the embedding (tokens and positions), each block, and the head (last norm and output layer). A
//! [`Placement`] says on which device each is; a part's parameters, gradients and optimizer state are all there. What
//! flows from part to part is moved where the device changes, forward and backward ([`Tensor::to_device`]); tokens and
//! targets are moved to the first and last part.
//!
//! **A plan** ([`plan`]) is the placement that is predicted fastest of those that fit: blocks on the fast device are the
//! first or the last ones, as a gap would cost more moves, and embedding and head go to either device, together where
//! they share their weights. It is a function of what the parts cost on either device ([`Costs`]) and of the memory there.
//!
//! **Costs are measured** (`train/probe.rs`): each kind of part does a step alone on each device, with an optimizer of its own,
//! and is thrown away. Time is the clock's, memory what the device's pool handed out. Nothing of the model that is trained
//! is touched, and no randomness: parameters are functions of seed and name, dropout of seed and step. As blocks are alike
//! one is measured; it takes about as long as a few steps of that block.
//!
//! **Why the host is in between.** Moves go through host memory, and the norm of gradients (for clipping, and for steps to
//! be skipped everywhere if they overflow anywhere) is brought together from both devices. So a step that is split waits
//! for the GPU some times, and is not captured into a graph. A plan that puts everything on one device is a run on that
//! device, captured as any, and then faster than predicted: probes do op by op what they measure.

mod plan;

use bullet_tensor::Device;
#[cfg(doc)]
use bullet_tensor::Tensor;

pub use plan::{Cost, Costs, DeviceCosts, Plan, plan};

use crate::error::{Error, Result};
use crate::transformer::TransformerConfig;

/// The device of each part of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct Placement {
    /// Of the tables of tokens and positions.
    pub embedding: Device,
    /// Of each block.
    pub blocks: Vec<Device>,
    /// Of the last norm and the output layer, and so of the loss.
    pub head: Device,
}

impl Placement {
    /// Everything on one device.
    pub fn on(device: &Device, layers: usize) -> Placement {
        Placement { embedding: device.clone(), blocks: vec![device.clone(); layers], head: device.clone() }
    }

    /// Each device once, in the order of the model.
    pub fn devices(&self) -> Vec<Device> {
        distinct(self.parts())
    }

    /// The devices of all parts, in the order of the model.
    fn parts(&self) -> impl Iterator<Item = &Device> {
        [&self.embedding].into_iter().chain(&self.blocks).chain([&self.head])
    }

    /// Whether it is one of a model of this configuration.
    pub(crate) fn check(&self, config: &TransformerConfig) -> Result<()> {
        if self.blocks.len() != config.layers {
            return Err(Error::argument(format!(
                "the placement says where {} blocks are, and the model has {}; give one for each",
                self.blocks.len(),
                config.layers
            )));
        }
        if config.tie_embeddings && self.embedding != self.head {
            return Err(Error::argument(
                "the output layer shares the weights of the token embedding, but the placement has them on two devices; put \
                 them on one, or set tie_embeddings = false",
            ));
        }
        Ok(())
    }
}

/// Each of `devices` once, in the order in which they come.
pub(crate) fn distinct<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Vec<Device> {
    let mut found: Vec<Device> = Vec::new();
    for device in devices {
        if !found.contains(device) {
            found.push(device.clone());
        }
    }
    found
}
