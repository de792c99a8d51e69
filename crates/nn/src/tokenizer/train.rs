//! Learning byte-pair merges: pair counts are kept up to date merge by merge, so that each costs only the words it
//! changes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::bpe::{BYTES, MAX_TOKEN_BYTES, PairMap, pair};
use super::pretokenize;

/// A distinct word of the text.
struct Word {
    symbols: Vec<u32>,
    count: u64,
}

/// Where a pair of tokens stands.
#[derive(Default)]
struct Occurrences {
    /// How many times in the text.
    count: u64,
    /// The words that held it when it was counted; some may hold it no longer.
    words: Vec<u32>,
}

/// The first `wanted` merges of `text`; fewer if no pair is left that appears twice.
pub(super) fn learn_merges(text: &str, wanted: usize) -> Vec<(u32, u32)> {
    let mut words = distinct_words(text);
    let mut pairs = PairMap::<Occurrences>::default();
    for (index, word) in words.iter().enumerate() {
        for w in word.symbols.windows(2) {
            add(&mut pairs, pair(w[0], w[1]), word.count, index);
        }
    }
    // The most frequent first, then the lowest ids. Counts only fall once a pair is queued (a merge makes pairs of
    // its own new token only), so an entry that is out of date is too high: it is queued again as it is now.
    let mut queue: BinaryHeap<(u64, Reverse<u64>)> =
        pairs.iter().map(|(&p, o)| (o.count, Reverse(p))).collect();
    let mut lengths = vec![1usize; BYTES];
    let mut merges = Vec::new();
    while merges.len() < wanted {
        let Some((count, Reverse(p))) = queue.pop() else { break };
        let now = pairs.get(&p).map_or(0, |o| o.count);
        let (a, b) = ((p >> 32) as u32, p as u32);
        let length = lengths[a as usize] + lengths[b as usize];
        if now < 2 || length > MAX_TOKEN_BYTES {
            continue;
        }
        if now != count {
            queue.push((now, Reverse(p)));
            continue;
        }
        let id = (BYTES + merges.len()) as u32;
        merges.push((a, b));
        lengths.push(length);
        for fresh in apply(&mut words, &mut pairs, (a, b), id) {
            queue.push((pairs[&fresh].count, Reverse(fresh)));
        }
    }
    merges
}

/// In order of first appearance, so that nothing depends on the order of a hash map.
fn distinct_words(text: &str) -> Vec<Word> {
    let mut index = HashMap::new();
    let mut words: Vec<Word> = Vec::new();
    for word in pretokenize(text) {
        let i = *index.entry(word).or_insert_with(|| {
            words.push(Word { symbols: word.bytes().map(u32::from).collect(), count: 0 });
            words.len() - 1
        });
        words[i].count += 1;
    }
    words
}

fn add(pairs: &mut PairMap<Occurrences>, p: u64, count: u64, word: usize) {
    let entry = pairs.entry(p).or_default();
    entry.count += count;
    if entry.words.last() != Some(&(word as u32)) {
        entry.words.push(word as u32);
    }
}

/// Replaces the pair by `id` in every word, and returns the pairs that this made.
fn apply(
    words: &mut [Word],
    pairs: &mut PairMap<Occurrences>,
    (a, b): (u32, u32),
    id: u32,
) -> impl Iterator<Item = u64> + use<> {
    let mut fresh = Vec::new();
    let Occurrences { words: holders, .. } = pairs.remove(&pair(a, b)).unwrap_or_default();
    for index in holders {
        let word = &mut words[index as usize];
        if !word.symbols.windows(2).any(|w| w == [a, b]) {
            continue;
        }
        for w in word.symbols.windows(2).filter(|w| *w != [a, b]) {
            let old = pairs.get_mut(&pair(w[0], w[1])).expect("every pair of a word is counted");
            old.count -= word.count;
        }
        replace(&mut word.symbols, (a, b), id);
        for w in word.symbols.windows(2) {
            let p = pair(w[0], w[1]);
            // Only what holds the new token can be new; the rest stays listed under this word already.
            if w.contains(&id) {
                add(pairs, p, word.count, index as usize);
                fresh.push(p);
            } else if let Some(same) = pairs.get_mut(&p) {
                same.count += word.count;
            }
        }
    }
    fresh.sort_unstable();
    fresh.dedup();
    fresh.into_iter()
}

fn replace(symbols: &mut Vec<u32>, (a, b): (u32, u32), id: u32) {
    let (mut read, mut write) = (0, 0);
    while read < symbols.len() {
        if symbols[read..].starts_with(&[a, b]) {
            symbols[write] = id;
            read += 2;
        } else {
            symbols[write] = symbols[read];
            read += 1;
        }
        write += 1;
    }
    symbols.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The definition, recounted from nothing at every merge.
    fn learn_naively(text: &str, wanted: usize) -> Vec<(u32, u32)> {
        let mut words = distinct_words(text);
        let mut merges = Vec::new();
        while merges.len() < wanted {
            let mut counts = std::collections::BTreeMap::new();
            for word in &words {
                for w in word.symbols.windows(2) {
                    *counts.entry((w[0], w[1])).or_insert(0u64) += word.count;
                }
            }
            let best = counts.into_iter().filter(|&(_, c)| c >= 2).max_by_key(|&(p, c)| (c, Reverse(p)));
            let Some((p, _)) = best else { break };
            for word in &mut words {
                replace(&mut word.symbols, p, (BYTES + merges.len()) as u32);
            }
            merges.push(p);
        }
        merges
    }

    #[test]
    fn incremental_counts_give_the_merges_of_recounting() {
        let mut rng = Rng::new(11, 0, 0);
        for round in 0..40 {
            let letters = 2 + rng.below(4);
            let text: String = (0..300 + rng.below(1500))
                .map(|_| if rng.below(6) == 0 { ' ' } else { (b'a' + rng.below(letters) as u8) as char })
                .collect();
            assert_eq!(learn_merges(&text, 120), learn_naively(&text, 120), "round {round}");
        }
    }

    #[test]
    fn overlapping_repeats_are_counted_as_they_merge() {
        let text = "aaaaaaa aaaa aaa aa bbbb bbb";
        assert_eq!(learn_merges(text, 20), learn_naively(text, 20));
    }
}
