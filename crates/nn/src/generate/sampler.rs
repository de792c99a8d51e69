//! [`Sampler`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rng::Rng;

/// The random stream that sampling draws from; see [`Rng::new`].
const STREAM: u32 = 0x7361_6d70;

/// How the next token is chosen from logits: the limits apply in the order temperature, top-k, top-p.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampler {
    /// Logits are divided by this: below 1 the likely get likelier; at 0 the likeliest token is taken, always.
    pub temperature: f64,
    /// Only the `k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the smallest set of the likeliest tokens whose probabilities add up to at least this (Holtzman et al. 2020).
    pub top_p: Option<f64>,
    /// Equal seeds and logits give equal tokens.
    pub seed: u64,
}

impl Default for Sampler {
    /// The model's own distribution.
    fn default() -> Sampler {
        Sampler { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl Sampler {
    /// Always the likeliest token.
    pub fn greedy() -> Sampler {
        Sampler { temperature: 0.0, ..Sampler::default() }
    }

    /// # Errors
    /// A value outside its range: its name, the value and the range.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::argument(format!(
                "temperature = {} must be a number of at least 0 (0 takes the likeliest token)",
                self.temperature
            )));
        }
        if self.top_k == Some(0) {
            return Err(Error::argument(
                "top_k = 0 leaves no token to choose; use at least 1, or none for no limit",
            ));
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => Err(Error::argument(format!(
                "top_p = {p} must be greater than 0 and at most 1 (1 is no limit)"
            ))),
            _ => Ok(()),
        }
    }

    /// The token for step `step` of a text: a function of settings, logits and step alone. Of equal logits the lower
    /// token id comes first.
    ///
    /// # Errors
    /// Logits that are NaN or +inf, all -inf, or none at all; settings that [`Sampler::validate`] refuses.
    pub fn sample(&self, logits: &[f32], step: u64) -> Result<u32> {
        self.validate()?;
        let best = likeliest(logits)?;
        if self.is_greedy() {
            return Ok(best as u32);
        }
        let mut candidates = self.candidates(logits, logits[best]);
        let total: f64 = candidates.iter().map(|c| c.1).sum();
        if let Some(p) = self.top_p {
            let mut mass = 0.0;
            let enough = candidates.iter().position(|c| {
                mass += c.1;
                mass >= p * total
            });
            candidates.truncate(enough.map_or(candidates.len(), |i| i + 1));
        }
        let kept: f64 = candidates.iter().map(|c| c.1).sum();
        let mut left = self.uniform(step) * kept;
        for &(token, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return Ok(token);
            }
        }
        // Rounding left a little over: the last token that could have been meant.
        Ok(candidates.iter().rev().find(|c| c.1 > 0.0).map_or(best as u32, |c| c.0))
    }

    /// Whether the likeliest token is taken, always.
    pub(super) fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == Some(1)
    }

    /// The number in 0..1 that picks the token of step `step`.
    pub(super) fn uniform(&self, step: u64) -> f64 {
        Rng::new(self.seed, STREAM, step).uniform()
    }

    /// Tokens with unnormalised probabilities: after top-k, and from the likeliest down where a limit needs that.
    fn candidates(&self, logits: &[f32], max: f32) -> Vec<(u32, f64)> {
        let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if let Some(k) = self.top_k.filter(|&k| k < tokens.len()) {
            tokens.select_nth_unstable_by(k - 1, likelier);
            tokens.truncate(k);
            tokens.sort_unstable_by(likelier);
        } else if self.top_p.is_some_and(|p| p < 1.0) {
            tokens.sort_unstable_by(likelier);
        }
        let weight =
            |token: u32| ((f64::from(logits[token as usize]) - f64::from(max)) / self.temperature).exp();
        tokens.into_iter().map(|token| (token, weight(token))).collect()
    }
}

/// Index of the largest logit, the first of equals.
fn likeliest(logits: &[f32]) -> Result<usize> {
    // Passes without an early exit and in lanes, which vectorise: this runs for every token. NaN is never the larger, so
    // that it needs its own.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<16>();
    let lanes = chunks.iter().fold([f32::NEG_INFINITY; 16], |mut lanes, chunk| {
        lanes.iter_mut().zip(chunk).for_each(|(max, &x)| *max = larger(*max, x));
        lanes
    });
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    let nan = logits.iter().fold(false, |nan, x| nan | x.is_nan());
    if nan || max == f32::INFINITY {
        let bad = logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY).expect("one was just seen");
        return Err(not_finite(bad, logits[bad]));
    }
    match logits.iter().position(|&x| x == max) {
        Some(best) if max > f32::NEG_INFINITY => Ok(best),
        _ => Err(none_likely(logits.len())),
    }
}

/// The error of a logit that is NaN or +inf.
pub(super) fn not_finite(token: usize, logit: f32) -> Error {
    Error::data(format!(
        "the logit of token {token} is {logit}: the model's weights or activations overflowed; lower the learning rate, or \
         load a checkpoint from before"
    ))
}

/// The error of `vocab` logits that are all -inf.
pub(super) fn none_likely(vocab: usize) -> Error {
    Error::data(format!("none of the {vocab} tokens has a logit above -inf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampler: &Sampler, logits: &[f32], n: u64) -> Vec<u64> {
        let mut counts = vec![0; logits.len()];
        (0..n).for_each(|step| counts[sampler.sample(logits, step).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::greedy().sample(&[0.0, 3.0, 3.0, -1.0], 5).unwrap(), 1);
    }

    #[test]
    fn frequencies_are_the_softmax() {
        let probabilities = [0.1, 0.2, 0.3, 0.4f64];
        let logits = probabilities.map(|p| p.ln() as f32);
        for temperature in [1.0, 2.0] {
            let weights = probabilities.map(|p| p.powf(1.0 / temperature));
            let total: f64 = weights.iter().sum();
            let n = 40_000;
            let got = counts(&Sampler { temperature, seed: 3, ..Sampler::default() }, &logits, n);
            // Chi-squared with 3 degrees of freedom: above 21 once in 10,000 seeds.
            let chi2: f64 = (0..4)
                .map(|i| {
                    let want = n as f64 * weights[i] / total;
                    (got[i] as f64 - want).powi(2) / want
                })
                .sum();
            assert!(chi2 < 21.0, "temperature {temperature}: {got:?}");
        }
    }

    #[test]
    fn limits_keep_the_likeliest() {
        let logits = [0.05f64, 0.15, 0.3, 0.5].map(|p| p.ln() as f32);
        let kept = |top_k, top_p| {
            let got = counts(&Sampler { top_k, top_p, ..Sampler::default() }, &logits, 2000);
            got.iter().map(|&c| c > 0).collect::<Vec<_>>()
        };
        assert_eq!(kept(Some(2), None), [false, false, true, true]);
        assert_eq!(kept(Some(9), None), [true; 4]);
        // 0.5 is enough for 0.49; 0.51 needs the next one too; 0.81 a third.
        assert_eq!(kept(None, Some(0.49)), [false, false, false, true]);
        assert_eq!(kept(None, Some(0.51)), [false, false, true, true]);
        assert_eq!(kept(None, Some(0.81)), [false, true, true, true]);
        assert_eq!(kept(None, Some(1.0)), [true; 4]);
        // Top-p counts mass within what top-k left: 0.5 of 0.8 is 0.625.
        assert_eq!(kept(Some(2), Some(0.62)), [false, false, false, true]);
        // Of equal logits exactly k stay.
        let got = counts(&Sampler { top_k: Some(2), ..Sampler::default() }, &[1.0; 5], 500);
        assert!(got[0] > 0 && got[1] > 0 && got[2..].iter().all(|&c| c == 0), "{got:?}");
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
        let draw = |seed| {
            let sampler = Sampler { seed, ..Sampler::default() };
            (0..20).map(|step| sampler.sample(&logits, step).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            (Sampler { temperature: -1.0, ..Sampler::default() }, "temperature = -1"),
            (Sampler { temperature: f64::NAN, ..Sampler::default() }, "temperature = NaN"),
            (Sampler { top_k: Some(0), ..Sampler::default() }, "top_k = 0"),
            (Sampler { top_p: Some(0.0), ..Sampler::default() }, "top_p = 0"),
            (Sampler { top_p: Some(1.5), ..Sampler::default() }, "top_p = 1.5"),
        ];
        for (sampler, words) in bad {
            let message = sampler.sample(&[0.0, 1.0], 0).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        for (logits, words) in [
            (&[0.0, f32::NAN][..], "token 1 is NaN"),
            (&[f32::INFINITY, 0.0], "token 0 is inf"),
            (&[f32::NEG_INFINITY; 3], "none of the 3"),
            (&[], "none of the 0"),
        ] {
            for sampler in [Sampler::default(), Sampler::greedy()] {
                let message = sampler.sample(logits, 0).unwrap_err().message;
                assert!(message.contains(words), "{message}");
            }
        }
    }
}
