//! Byte-level byte-pair encoding (Sennrich et al. 2016, over bytes as in GPT-2): vocabulary, encoding, storage.
//! Training is in [`train`](super::train).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::pretokenize;
use super::train::learn_merges;
use crate::error::{Error, Result, show};

/// The longest token, in bytes: keeps a file from naming, by repeated doubling, tokens that no memory holds.
pub const MAX_TOKEN_BYTES: usize = 256;

/// The tokens that every vocabulary begins with: token `b` is byte `b`, so that any text encodes.
pub(super) const BYTES: usize = 256;

/// Above this many symbols a word is merged with a heap (`n log n`) instead of by scanning (`n^2`).
const SCAN_LIMIT: usize = 48;

/// A byte-level vocabulary: ids `0..256` are the bytes, then one id a merge, then the special tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "BpeJson", into = "BpeJson")]
pub struct Bpe {
    merges: Vec<(u32, u32)>,
    special: Vec<String>,
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// `bytes[starts[id]..starts[id + 1]]` is token `id`.
    starts: Vec<usize>,
    /// The token that a pair of tokens merges to; a lower id merges first.
    merged: PairMap<u32>,
}

/// How a byte-level vocabulary is saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BpeJson {
    merges: Vec<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    special: Vec<String>,
}

impl Bpe {
    /// Learns merges from `text` until there are `vocab_size` tokens (the 256 bytes and `special` included), or no
    /// pair of tokens appears twice. The same text gives the same merges in every run: of pairs that are equally
    /// frequent, the one with the lower ids merges first.
    ///
    /// # Errors
    /// The text is empty; `vocab_size` is below 256 plus the special tokens; a special token is empty or given twice.
    pub fn train(text: &str, vocab_size: usize, special: &[&str]) -> Result<Bpe> {
        if text.is_empty() {
            return Err(Error::data("a tokenizer needs text to learn from, and the text is empty"));
        }
        let least = BYTES + special.len();
        if vocab_size < least {
            return Err(Error::argument(format!(
                "a byte-level vocabulary of {vocab_size} tokens is too small: the 256 bytes and {} special tokens \
                 need at least {least}",
                special.len()
            )));
        }
        let merges = learn_merges(text, vocab_size - least);
        Bpe::new(merges, special.iter().map(|s| s.to_string()).collect())
    }

    /// The vocabulary of these merges and special tokens.
    ///
    /// # Errors
    /// A merge names a token that comes after it, or is given twice, or makes a token longer than
    /// [`MAX_TOKEN_BYTES`]; a special token is empty, too long or given twice.
    pub fn new(merges: Vec<(u32, u32)>, special: Vec<String>) -> Result<Bpe> {
        let mut bytes: Vec<u8> = (0..=255).collect();
        let mut starts: Vec<usize> = (0..=BYTES).collect();
        let mut merged = PairMap::default();
        for (i, &(a, b)) in merges.iter().enumerate() {
            let id = BYTES + i;
            if a as usize >= id || b as usize >= id {
                return Err(Error::corrupt(format!(
                    "merge {i} of the vocabulary joins tokens {a} and {b}, but only 0 to {} exist before it",
                    id - 1
                )));
            }
            let (left, right) = (span(&starts, a), span(&starts, b));
            if left.len() + right.len() > MAX_TOKEN_BYTES {
                return Err(Error::corrupt(format!(
                    "merge {i} of the vocabulary makes a token of {} bytes; the longest allowed is {MAX_TOKEN_BYTES}",
                    left.len() + right.len()
                )));
            }
            if merged.insert(pair(a, b), id as u32).is_some() {
                return Err(Error::corrupt(format!(
                    "merge {i} of the vocabulary, ({a}, {b}), is given twice"
                )));
            }
            bytes.extend_from_within(left);
            bytes.extend_from_within(right);
            starts.push(bytes.len());
        }
        let mut seen = HashSet::new();
        for s in &special {
            if s.is_empty() || s.len() > MAX_TOKEN_BYTES || !seen.insert(s) {
                return Err(Error::argument(format!(
                    "special token {} is not allowed: it must be new and of 1 to {MAX_TOKEN_BYTES} bytes",
                    show(s)
                )));
            }
            bytes.extend_from_slice(s.as_bytes());
            starts.push(bytes.len());
        }
        Ok(Bpe { merges, special, bytes, starts, merged })
    }

    /// How many tokens there are; fewer than training asked for if the text ran out of pairs.
    pub fn vocab_size(&self) -> usize {
        self.starts.len() - 1
    }

    /// The merges, in the order in which they apply.
    pub fn merges(&self) -> &[(u32, u32)] {
        &self.merges
    }

    /// The id of a special token. Encoding text never gives one: the caller places them.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        let i = self.special.iter().position(|s| s == name)?;
        Some((BYTES + self.merges.len() + i) as u32)
    }

    /// The ids of `text`.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 2);
        // Words repeat: each is merged once, and its ids copied from where they were first written.
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::new();
        let mut scratch = Vec::new();
        for word in pretokenize(text) {
            if let Some(&(start, end)) = seen.get(word) {
                ids.extend_from_within(start..end);
                continue;
            }
            let start = ids.len();
            self.encode_word(word.as_bytes(), &mut scratch);
            ids.extend_from_slice(&scratch);
            seen.insert(word, (start, ids.len()));
        }
        ids
    }

    pub(super) fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        ((id as usize) < self.vocab_size()).then(|| &self.bytes[span(&self.starts, id)])
    }

    fn encode_word(&self, word: &[u8], ids: &mut Vec<u32>) {
        ids.clear();
        ids.extend(word.iter().map(|&b| u32::from(b)));
        if ids.len() <= SCAN_LIMIT { self.merge_by_scan(ids) } else { self.merge_by_heap(ids) }
    }

    fn merge_by_scan(&self, ids: &mut Vec<u32>) {
        loop {
            let best =
                (1..ids.len()).filter_map(|i| Some((*self.merged.get(&pair(ids[i - 1], ids[i]))?, i))).min();
            let Some((id, i)) = best else { return };
            ids[i - 1] = id;
            ids.remove(i);
        }
    }

    /// As [`merge_by_scan`](Bpe::merge_by_scan), in `n log n`: the symbols are a linked list, the candidates a heap
    /// whose stale entries are dropped when they surface.
    fn merge_by_heap(&self, ids: &mut Vec<u32>) {
        const NONE: usize = usize::MAX;
        let n = ids.len();
        let mut next: Vec<usize> = (1..n).chain([NONE]).collect();
        let mut previous: Vec<usize> = [NONE].into_iter().chain(0..n - 1).collect();
        let mut live = vec![true; n];
        let lookup = |a: u32, b: u32| self.merged.get(&pair(a, b)).copied();
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> =
            (1..n).filter_map(|i| Some(Reverse((lookup(ids[i - 1], ids[i])?, i - 1)))).collect();
        while let Some(Reverse((id, i))) = heap.pop() {
            let j = next[i];
            if !live[i] || j == NONE || lookup(ids[i], ids[j]) != Some(id) {
                continue;
            }
            (ids[i], live[j], next[i]) = (id, false, next[j]);
            if next[i] != NONE {
                previous[next[i]] = i;
                heap.extend(lookup(id, ids[next[i]]).map(|m| Reverse((m, i))));
            }
            if previous[i] != NONE {
                heap.extend(lookup(ids[previous[i]], id).map(|m| Reverse((m, previous[i]))));
            }
        }
        let mut alive = live.iter();
        ids.retain(|_| *alive.next().expect("one flag a symbol"));
    }
}

fn span(starts: &[usize], id: u32) -> std::ops::Range<usize> {
    starts[id as usize]..starts[id as usize + 1]
}

impl PartialEq for Bpe {
    fn eq(&self, other: &Bpe) -> bool {
        self.merges == other.merges && self.special == other.special
    }
}

impl Eq for Bpe {}

impl TryFrom<BpeJson> for Bpe {
    type Error = Error;
    fn try_from(json: BpeJson) -> Result<Bpe> {
        Bpe::new(json.merges, json.special)
    }
}

impl From<Bpe> for BpeJson {
    fn from(t: Bpe) -> BpeJson {
        BpeJson { merges: t.merges, special: t.special }
    }
}

/// A pair of token ids as one integer, ordered as the pair is.
pub(super) fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

/// A map from [`pair`]s.
pub(super) type PairMap<V> = HashMap<u64, V, BuildHasherDefault<PairHasher>>;

/// The finaliser of splitmix64 (Steele et al. 2014): several times faster than the default hash on integers.
#[derive(Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(self.0 ^ u64::from(b));
        }
    }
    fn write_u64(&mut self, x: u64) {
        let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = x ^ x >> 31;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn heap_and_scan_merge_alike() {
        let mut rng = Rng::new(5, 0, 0);
        let text: String = (0..4000).map(|_| ['a', 'b', 'c'][rng.below(3) as usize]).collect();
        let bpe = Bpe::train(&text, 400, &[]).unwrap();
        for _ in 0..300 {
            let word: Vec<u32> = (0..1 + rng.below(200)).map(|_| 97 + rng.below(3) as u32).collect();
            let (mut scan, mut heap) = (word.clone(), word);
            bpe.merge_by_scan(&mut scan);
            bpe.merge_by_heap(&mut heap);
            assert_eq!(scan, heap);
        }
    }

    /// A word of a million symbols: quadratic merging would take minutes.
    #[test]
    fn long_words_encode_in_n_log_n() {
        let word = "ab".repeat(500_000);
        let bpe = Bpe::new(vec![(97, 98), (256, 256)], vec![]).unwrap();
        assert_eq!(bpe.encode(&word), vec![257; 250_000]);
    }
}
