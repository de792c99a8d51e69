//! [`Init`]: where new parameters come from.
//!
//! A parameter is drawn from `(seed, its name)` alone, not from a stream that all share, so that its values depend
//! neither on the order in which modules are made nor on which others there are.

use bullet_tensor::{DType, Device, Distribution, Tensor};

use crate::error::{Error, Result};
use crate::module::join;

/// The values that a new parameter gets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fill {
    /// All 0: biases.
    Zeros,
    /// All 1: scales of norms.
    Ones,
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform over `-bound..bound`.
    Uniform {
        /// Half the width.
        bound: f64,
    },
}

impl Fill {
    /// GPT-2's weights: normal, standard deviation 0.02 (Radford et al. 2019).
    pub const GPT2: Fill = Fill::Normal { std: 0.02 };

    /// GPT-2's projections onto the residual stream, of which a model of `layers` blocks adds up two a block: their
    /// standard deviation is divided by `sqrt(2 layers)`.
    pub fn residual(layers: usize) -> Fill {
        Fill::Normal { std: 0.02 / (2.0 * layers.max(1) as f64).sqrt() }
    }

    /// Uniform over `±1 / sqrt(fan_in)`: what PyTorch gives linear and recurrent layers.
    pub fn fan_in(fan_in: usize) -> Fill {
        Fill::Uniform { bound: 1.0 / (fan_in.max(1) as f64).sqrt() }
    }
}

/// Makes the parameters of a module, which it knows the name of.
#[derive(Clone, Debug)]
pub struct Init {
    seed: u64,
    dtype: DType,
    device: Device,
    path: String,
}

impl Init {
    /// Parameters of `dtype` on `device`; the name so far is empty.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Init {
        Init { seed, dtype, device: device.clone(), path: String::new() }
    }

    /// For the child called `name`.
    pub fn at(&self, name: &str) -> Init {
        Init { path: join(&self.path, name), ..self.clone() }
    }

    /// For a part on another device.
    pub fn on(&self, device: &Device) -> Init {
        Init { device: device.clone(), ..self.clone() }
    }

    /// Dtype of the parameters.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Device of the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A new parameter called `name`, a leaf of the tape.
    ///
    /// # Errors
    /// The dtype is not floating-point, the shape is too big, or memory is short; the message names the parameter.
    pub fn param(&self, name: &str, shape: &[usize], fill: Fill) -> Result<Tensor> {
        let name = join(&self.path, name);
        let make = || {
            let draw = |distribution| {
                Tensor::random(distribution, shape, self.dtype, &self.device, (self.seed, stable_hash(&name)))
            };
            let tensor = match fill {
                Fill::Zeros => Tensor::zeros(shape, self.dtype, &self.device),
                Fill::Ones => Tensor::ones(shape, self.dtype, &self.device),
                Fill::Normal { std } => draw(Distribution::Normal { mean: 0.0, std }),
                Fill::Uniform { bound } => draw(Distribution::Uniform { low: -bound, high: bound }),
            };
            tensor?.requires_grad()
        };
        make().map_err(|e| Error::from(e).context(format!("parameter {name}")))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo): the same on every machine and in every version, unlike the standard library's.
fn stable_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fnv1a() {
        // From the authors' test vectors.
        assert_eq!(stable_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(stable_hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
