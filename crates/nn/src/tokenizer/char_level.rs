//! One token a character: the vocabulary is the sorted distinct characters of the training text.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{UnknownChar, UnknownChars};
use crate::error::{Error, Result};

/// A character vocabulary; ids follow code-point order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "CharJson", into = "CharJson")]
pub struct CharLevel {
    /// Sorted and distinct.
    alphabet: Vec<char>,
    /// The same characters in UTF-8, one after the other.
    utf8: String,
    /// `utf8[starts[i]..starts[i + 1]]` is character `i`.
    starts: Vec<u32>,
    /// Id of each ASCII character, `u32::MAX` if it has none: nearly all lookups end here.
    ascii: Box<[u32; 128]>,
}

/// How a character vocabulary is saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CharJson {
    alphabet: String,
}

impl CharLevel {
    /// The sorted distinct characters of `text`.
    ///
    /// # Errors
    /// The text is empty.
    pub fn train(text: &str) -> Result<CharLevel> {
        let mut ascii = [false; 128];
        let mut other = std::collections::BTreeSet::new();
        for c in text.chars() {
            match ascii.get_mut(c as usize) {
                Some(seen) => *seen = true,
                None => {
                    other.insert(c);
                }
            }
        }
        let low = (0..128u8).filter(|&b| ascii[usize::from(b)]).map(char::from);
        CharLevel::new(low.chain(other).collect())
    }

    fn new(alphabet: Vec<char>) -> Result<CharLevel> {
        if alphabet.is_empty() {
            return Err(Error::data(
                "a tokenizer needs text to learn its characters from, and the text is empty",
            ));
        }
        if let Some(w) = alphabet.windows(2).find(|w| w[0] >= w[1]) {
            return Err(Error::corrupt(format!(
                "the characters of the vocabulary are not sorted and distinct: {:?} stands before {:?}",
                w[0], w[1]
            )));
        }
        let mut ascii = Box::new([u32::MAX; 128]);
        let mut utf8 = String::new();
        let mut starts = vec![0];
        for (id, &c) in alphabet.iter().enumerate() {
            if let Some(slot) = ascii.get_mut(c as usize) {
                *slot = id as u32;
            }
            utf8.push(c);
            starts.push(utf8.len() as u32);
        }
        Ok(CharLevel { alphabet, utf8, starts, ascii })
    }

    /// The characters, in id order.
    pub fn alphabet(&self) -> &[char] {
        &self.alphabet
    }

    /// How many characters there are.
    pub fn vocab_size(&self) -> usize {
        self.alphabet.len()
    }

    /// The id of a character.
    pub fn id(&self, c: char) -> Option<u32> {
        match self.ascii.get(c as usize) {
            Some(&id) => (id != u32::MAX).then_some(id),
            None => self.alphabet.binary_search(&c).ok().map(|i| i as u32),
        }
    }

    pub(super) fn encode_lossy(&self, text: &str) -> (Vec<u32>, UnknownChars) {
        let mut ids = Vec::with_capacity(text.len());
        let mut unknown = UnknownChars::default();
        let mut rows = HashMap::new();
        for (position, c) in text.chars().enumerate() {
            if let Some(id) = self.id(c) {
                ids.push(id);
                continue;
            }
            let row = *rows.entry(c).or_insert_with(|| {
                unknown.chars.push(UnknownChar { char: c, first: position, count: 0 });
                unknown.chars.len() - 1
            });
            unknown.chars[row].count += 1;
        }
        (ids, unknown)
    }

    pub(super) fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let i = id as usize;
        let (start, end) = (*self.starts.get(i)?, *self.starts.get(i + 1)?);
        Some(&self.utf8.as_bytes()[start as usize..end as usize])
    }
}

impl TryFrom<CharJson> for CharLevel {
    type Error = Error;
    fn try_from(json: CharJson) -> Result<CharLevel> {
        CharLevel::new(json.alphabet.chars().collect())
    }
}

impl From<CharLevel> for CharJson {
    fn from(t: CharLevel) -> CharJson {
        CharJson { alphabet: t.utf8 }
    }
}
