//! Random numbers by counter: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011), and which words of it dropout uses.
//!
//! A number is a function of (seed, stream, step, position) alone: the same on every device and thread count, and drawn
//! again rather than kept for an adjoint.

use crate::op::DropoutSpec;

/// Where in the space of random numbers a use draws from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// The key of the generator.
    pub seed: u64,
    /// Which use within one step.
    pub stream: u64,
    /// The step.
    pub step: u64,
}

impl Counter {
    /// The four words of block `block`.
    ///
    /// The block takes the first counter word, and the rest of a block index above 2^32 goes into the second with the
    /// stream; the step takes the third and, above 2^32, the fourth with the stream's upper half.
    #[inline(always)]
    pub fn words(self, block: u64) -> [u32; 4] {
        let counter = [
            block as u32,
            (block >> 32) as u32 ^ (self.stream as u32),
            self.step as u32,
            (self.step >> 32) as u32 ^ (self.stream >> 32) as u32,
        ];
        philox(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }
}

/// Philox4x32-10.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

impl DropoutSpec {
    /// What is dropped has a word below this.
    pub fn threshold(&self) -> u64 {
        (self.p * 4_294_967_296.0) as u64
    }

    /// What the rest is multiplied by.
    pub fn scale(&self) -> f64 {
        if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 }
    }
}

/// Which weights of an attention are dropped.
///
/// The weights of queries `i` and `i + 8` for keys `j` and `j + 8`, where bit 3 of `i` and `j` is 0, share the four words
/// of a block, in the order (i, j), (i, j + 8), (i + 8, j), (i + 8, j + 8). These are what one lane has of a tensor core's
/// product, whether queries or keys are its rows, so that no word is drawn for nothing.
#[derive(Clone, Copy, Debug)]
pub struct WeightDropout {
    counter: Counter,
    heads: u64,
    /// Blocks of a head, along queries and along keys.
    blocks: [u64; 2],
    /// What is dropped has a word below this.
    pub threshold: u32,
    /// What the rest is multiplied by.
    pub scale: f64,
}

impl WeightDropout {
    /// Of weights `[batch, heads, queries, keys]`; `state` is seed and step.
    pub fn new(spec: DropoutSpec, state: [i64; 2], [heads, queries, keys]: [usize; 3]) -> WeightDropout {
        let counter = Counter { seed: state[0] as u64, stream: spec.stream, step: state[1] as u64 };
        let blocks = [queries, keys].map(|n| n.div_ceil(16) as u64 * 8);
        // Below 2^32, as inference refuses a probability of 1.
        let threshold = spec.threshold() as u32;
        WeightDropout { counter, heads: heads as u64, blocks, threshold, scale: spec.scale() }
    }

    /// The block of a weight.
    #[inline(always)]
    pub fn block(&self, batch: usize, head: usize, query: usize, key: usize) -> u64 {
        let within = |i: usize| (i / 16 * 8 + i % 8) as u64;
        let row = (batch as u64 * self.heads + head as u64) * self.blocks[0] + within(query);
        row * self.blocks[1] + within(key)
    }

    /// The words of a block.
    #[inline(always)]
    pub fn words(&self, block: u64) -> [u32; 4] {
        self.counter.words(block)
    }

    /// A weight after dropout.
    pub fn apply(&self, weight: f64, [batch, head, query, key]: [usize; 4]) -> f64 {
        let words = self.words(self.block(batch, head, query, key));
        let word = words[query / 8 % 2 * 2 + key / 8 % 2];
        if word < self.threshold { 0.0 } else { weight * self.scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Of the authors' Random123.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
    }

    #[test]
    fn every_weight_has_a_word_of_its_own() {
        let sizes = [3, 21, 40];
        let drop = WeightDropout::new(DropoutSpec { p: 0.5, stream: 1 }, [1, 2], sizes);
        let mut seen = std::collections::BTreeSet::new();
        for (b, h) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
            for (i, j) in (0..sizes[1]).flat_map(|i| (0..sizes[2]).map(move |j| (i, j))) {
                assert!(seen.insert((drop.block(b, h, i, j), i / 8 % 2, j / 8 % 2)), "{b} {h} {i} {j}");
            }
        }
    }

    #[test]
    fn weights_are_dropped_as_often_as_they_should_be() {
        let drop = WeightDropout::new(DropoutSpec { p: 0.2, stream: 1 }, [1, 2], [4, 64, 64]);
        let all = (0..4 * 64 * 64).map(|n| drop.apply(1.0, [0, n / 4096, n / 64 % 64, n % 64]));
        let dropped = all.filter(|&w| w == 0.0).count() as f64 / (4.0 * 4096.0);
        // Three standard deviations.
        assert!((dropped - 0.2).abs() < 3.0 * (0.16f64 / 16384.0).sqrt(), "{dropped}");
    }
}
