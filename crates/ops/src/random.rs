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

/// Which weights of an attention are dropped: those whose 16 random bits are below [`threshold`](Self::threshold).
///
/// A block of four words has the bits of eight weights: of queries `i` and `i + 8`, and keys `2u`, `2u + 1` and both and 8,
/// where bit 3 of `i` and `2u` is 0. Word `2 a + b` is that of query `i + 8a` and keys `2u + 8b` (its low half) and
/// `2u + 8b + 1`. These are the weights that one lane has of a tensor core's product of queries and keys; where it has those
/// of keys and queries, two lanes share two blocks. So no bits are drawn for nothing.
#[derive(Clone, Copy, Debug)]
pub struct WeightDropout {
    counter: Counter,
    heads: u64,
    /// Blocks of a head, along queries and along keys.
    blocks: [u64; 2],
    /// The probability, in 2^-16.
    pub threshold: u32,
    /// What the rest is multiplied by: 1 / (1 - p) of the probability as it is rounded.
    pub scale: f64,
}

impl WeightDropout {
    /// Of weights `[batch, heads, queries, keys]`; `state` is seed and step.
    pub fn new(spec: DropoutSpec, state: [i64; 2], [heads, queries, keys]: [usize; 3]) -> WeightDropout {
        let counter = Counter { seed: state[0] as u64, stream: spec.stream, step: state[1] as u64 };
        let blocks = [queries.div_ceil(16) as u64 * 8, keys.div_ceil(16) as u64 * 4];
        let (threshold, scale) = WeightDropout::rounded(spec.p);
        WeightDropout { counter, heads: heads as u64, blocks, threshold, scale }
    }

    /// Threshold and scale of a probability below 1.
    pub fn rounded(p: f64) -> (u32, f64) {
        let threshold = (p * 65536.0).round().min(65535.0);
        (threshold as u32, 65536.0 / (65536.0 - threshold))
    }

    /// The block of a weight.
    #[inline(always)]
    pub fn block(&self, [batch, head, query, key]: [usize; 4]) -> u64 {
        let row = (batch as u64 * self.heads + head as u64) * self.blocks[0];
        let row = row + (query / 16 * 8 + query % 8) as u64;
        row * self.blocks[1] + (key / 16 * 4 + key % 8 / 2) as u64
    }

    /// The words of a block.
    #[inline(always)]
    pub fn words(&self, block: u64) -> [u32; 4] {
        self.counter.words(block)
    }

    /// A weight after dropout.
    pub fn apply(&self, weight: f64, at: [usize; 4]) -> f64 {
        let [_, _, query, key] = at;
        let word = self.words(self.block(at))[query / 8 % 2 * 2 + key / 8 % 2];
        let bits = word >> (key % 2 * 16) & 0xffff;
        if bits < self.threshold { 0.0 } else { weight * self.scale }
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
    fn every_weight_has_bits_of_its_own() {
        let sizes = [3, 21, 40];
        let drop = WeightDropout::new(DropoutSpec { p: 0.5, stream: 1 }, [1, 2], sizes);
        let mut seen = std::collections::BTreeSet::new();
        for (b, h) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
            for (i, j) in (0..sizes[1]).flat_map(|i| (0..sizes[2]).map(move |j| (i, j))) {
                let bits = (drop.block([b, h, i, j]), i / 8 % 2, j / 8 % 2, j % 2);
                assert!(seen.insert(bits), "{b} {h} {i} {j}");
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
