//! The learning rate as a pure function of the step.

/// How the learning rate changes after warm-up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Decay {
    /// Stays at the base rate.
    Constant,
    /// Half a cosine from the base rate, at the end of warm-up, to `floor`, at step `end`; then stays
    /// (Loshchilov and Hutter 2017, as nanoGPT has it).
    Cosine {
        /// Step at which it arrives.
        end: u64,
        /// The rate it ends at.
        floor: f64,
    },
    /// A line from the base rate to `floor`.
    Linear {
        /// Step at which it arrives.
        end: u64,
        /// The rate it ends at.
        floor: f64,
    },
    /// Multiplied by `gamma` every `every` steps after warm-up, down to `floor`.
    Step {
        /// Steps between drops; at least 1.
        every: u64,
        /// Factor of a drop.
        gamma: f64,
        /// The rate it never falls below.
        floor: f64,
    },
}

/// A learning rate for every step: linear warm-up, then [`Decay`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// The highest rate.
    pub base: f64,
    /// Steps of warm-up: step `s` (from 0) has `base * (s + 1) / (warmup + 1)`, so that none has 0.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

impl Schedule {
    /// Always `rate`.
    pub fn constant(rate: f64) -> Schedule {
        Schedule { base: rate, warmup: 0, decay: Decay::Constant }
    }

    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.base * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let along = |end: u64| {
            let length = end.saturating_sub(self.warmup).max(1);
            ((step - self.warmup) as f64 / length as f64).min(1.0)
        };
        match self.decay {
            Decay::Constant => self.base,
            Decay::Cosine { end, floor } => {
                floor + 0.5 * (1.0 + (std::f64::consts::PI * along(end)).cos()) * (self.base - floor)
            }
            Decay::Linear { end, floor } => self.base + along(end) * (floor - self.base),
            Decay::Step { every, gamma, floor } => {
                let drops = (step - self.warmup) / every.max(1);
                (self.base * gamma.powf(drops as f64)).max(floor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_is_nanogpts() {
        let s = Schedule { base: 1e-3, warmup: 100, decay: Decay::Cosine { end: 2000, floor: 1e-4 } };
        // `get_lr` of nanoGPT's train.py, written out.
        let nanogpt = |it: u64| {
            if it < 100 {
                return 1e-3 * (it + 1) as f64 / 101.0;
            }
            if it > 2000 {
                return 1e-4;
            }
            let ratio = (it - 100) as f64 / 1900.0;
            1e-4 + 0.5 * (1.0 + (std::f64::consts::PI * ratio).cos()) * (1e-3 - 1e-4)
        };
        for it in (0..2500).step_by(7).chain([99, 100, 101, 1999, 2000, 2001]) {
            assert!((s.at(it) - nanogpt(it)).abs() < 1e-15, "step {it}");
        }
    }

    #[test]
    fn others_at_their_corners() {
        let at = |warmup, decay, step| Schedule { base: 1.0, warmup, decay }.at(step);
        let linear = Decay::Linear { end: 20, floor: 0.2 };
        let drops = Decay::Step { every: 5, gamma: 0.5, floor: 0.2 };
        for (warmup, decay, step, want) in [
            (0, Decay::Constant, 0, 1.0),
            (4, Decay::Constant, 0, 0.2),
            (4, Decay::Constant, 3, 0.8),
            (4, Decay::Constant, 4, 1.0),
            (10, linear, 10, 1.0),
            (10, linear, 15, 0.6),
            (10, linear, 20, 0.2),
            (10, linear, 9999, 0.2),
            (0, drops, 4, 1.0),
            (0, drops, 5, 0.5),
            (0, drops, 10, 0.25),
            (0, drops, 15, 0.2),
            (5, drops, 9, 1.0),
            (5, drops, 10, 0.5),
        ] {
            assert!((at(warmup, decay, step) - want).abs() < 1e-12, "{decay:?} at {step}");
        }
    }

    #[test]
    fn a_schedule_without_length_does_not_divide_by_zero() {
        let s = Schedule { base: 1.0, warmup: 5, decay: Decay::Cosine { end: 5, floor: 0.1 } };
        assert!((s.at(5) - 1.0).abs() < 1e-12 && (s.at(6) - 0.1).abs() < 1e-12);
    }
}
