//! Random tensors and the state that dropout draws from.
//!
//! All randomness is counter-based (Philox, Salmon et al. 2011): a number is a function of seed, step, stream and
//! position, so that nothing depends on threads or on order, a training step can be captured and replayed, and saving
//! (seed, step) saves everything.

use std::sync::atomic::{AtomicU64, Ordering};

use bullet_kernels::cpu::random;
pub use bullet_kernels::cpu::random::Distribution;
use bullet_ops::{DType, Meta, Shape};
use bullet_runtime::Device;

use crate::dispatch;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Source of randomness for one model in training.
///
/// Its state (seed, step) lives on the device, or on each of several. Each use within a step draws from its own stream,
/// numbered in the order of calls since [`Generator::begin_step`], so that the numbers don't depend on which device draws.
pub struct Generator {
    /// i64 (seed, step), one a device.
    states: Vec<Tensor>,
    seed: u64,
    stream: AtomicU64,
}

impl Generator {
    /// A generator at step 0.
    pub fn new(seed: u64, device: &Device) -> Result<Generator> {
        Generator::across(seed, std::slice::from_ref(device))
    }

    /// As [`Generator::new`], for a model that lies on several devices.
    pub fn across(seed: u64, devices: &[Device]) -> Result<Generator> {
        let state = |device| Tensor::from_slice(&[seed as i64, 0], &[2], device);
        let states = devices.iter().map(state).collect::<Result<_>>()?;
        Ok(Generator { states, seed, stream: AtomicU64::new(0) })
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Moves to training step `step`, and to its first stream.
    pub fn begin_step(&self, step: u64) -> Result<()> {
        self.stream.store(0, Ordering::Relaxed);
        self.states.iter().try_for_each(|state| state.send_(&[self.seed as i64, step as i64]))
    }

    /// The tensor that random ops on `device` read: i64 (seed, step).
    ///
    /// # Errors
    /// The generator was made for other devices.
    pub fn state_on(&self, device: &Device) -> Result<&Tensor> {
        self.states.iter().find(|state| state.device() == device).ok_or_else(|| {
            let made_for: Vec<String> = self.states.iter().map(|state| state.device().to_string()).collect();
            Error::DeviceMismatch(device.to_string(), made_for.join(" and "))
        })
    }

    /// Takes the next stream of this step.
    pub fn next_stream(&self) -> u64 {
        self.stream.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of streams taken in this step.
    pub fn streams(&self) -> u64 {
        self.stream.load(Ordering::Relaxed)
    }

    /// Goes back (or forth) to a stream of this step, for running a part of it again.
    pub fn set_streams(&self, streams: u64) {
        self.stream.store(streams, Ordering::Relaxed);
    }
}

impl Tensor {
    /// A tensor of random numbers: a function of `seed` and `stream` alone.
    ///
    /// # Errors
    /// Out of memory; a capture is under way, as the host draws the numbers.
    pub fn random(
        distribution: Distribution,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        (seed, stream): (u64, u64),
    ) -> Result<Tensor> {
        let host = Device::cpu();
        if host.is_capturing() {
            return Err(bullet_ops::Error::argument(
                "random tensors are made by the host, which a capture cannot do; make them before it",
            )
            .into());
        }
        let shape = Shape::new(shape)?;
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let tensor = Tensor::empty(Meta::new(shape, wide), &host)?;
        // SAFETY: the tensor is fresh; no one else can name its memory yet.
        let mut out = unsafe { dispatch::view_mut(&tensor) };
        let counter = random::Counter { seed, stream, step: 0 };
        match wide {
            DType::F64 => random::fill::<f64>(distribution, counter, out.slice()),
            _ => random::fill::<f32>(distribution, counter, out.slice()),
        }
        tensor.cast(dtype)?.to_device(device)
    }

    /// Standard normal numbers.
    pub fn randn(shape: &[usize], dtype: DType, device: &Device, seed: u64) -> Result<Tensor> {
        Tensor::random(Distribution::Normal { mean: 0.0, std: 1.0 }, shape, dtype, device, (seed, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bullet_runtime::HostDriver;

    use super::*;

    #[test]
    fn every_device_draws_the_same_numbers() -> Result<()> {
        let [here, there, elsewhere] = [(); 3].map(|()| Device::with_driver(Arc::new(HostDriver::new())));
        let generator = Generator::across(7, &[here.clone(), there.clone()])?;
        let draw = |device: &Device, stream| {
            generator.set_streams(stream);
            Tensor::ones(&[300], DType::F32, device)?.dropout(0.5, &generator)?.to_vec::<f32>()
        };
        for step in [0, 5] {
            generator.begin_step(step)?;
            assert_eq!(draw(&here, 0)?, draw(&there, 0)?);
            // Streams are numbered across devices.
            assert_eq!(generator.streams(), 1);
            assert_ne!(draw(&here, 0)?, draw(&there, 1)?);
        }
        assert!(matches!(draw(&elsewhere, 0), Err(Error::DeviceMismatch(..))));
        Ok(())
    }
}
