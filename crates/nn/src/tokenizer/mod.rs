//! Text to token ids and back: a character vocabulary as in nanoGPT, or byte-level byte-pair encoding.

mod bpe;
mod char_level;
mod pretokenize;
mod stream;
mod train;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use bpe::{Bpe, MAX_TOKEN_BYTES};
pub use char_level::CharLevel;
pub use pretokenize::pretokenize;
pub use stream::StreamDecoder;

use crate::error::{Error, Result};

/// A vocabulary and how to split text into it. Immutable once made, and saved inside every model file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Tokenizer {
    /// One token a character of the training text.
    Char(CharLevel),
    /// Byte-level byte-pair encoding.
    Bpe(Bpe),
}

/// Characters that are not in the vocabulary, in the order in which they appear first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UnknownChars {
    /// Each unknown character with the position (in characters, from 0) of its first appearance and its count.
    pub chars: Vec<UnknownChar>,
}

/// One row of [`UnknownChars`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownChar {
    /// The character.
    pub char: char,
    /// Where it first appears, in characters from the start of the text.
    pub first: usize,
    /// How many times it appears.
    pub count: usize,
}

impl UnknownChars {
    /// Whether every character was known.
    pub fn is_empty(&self) -> bool {
        self.chars.is_empty()
    }
    /// How many characters of the text were unknown.
    pub fn total(&self) -> usize {
        self.chars.iter().map(|u| u.count).sum()
    }
}

impl fmt::Display for UnknownChars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (i, u) in self.chars.iter().take(SHOWN).enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{:?} (U+{:04X}) at position {}", u.char, u.char as u32, u.first)?;
            if u.count > 1 {
                write!(f, " and {} more", u.count - 1)?;
            }
        }
        match self.chars.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, ", and {more} other characters"),
        }
    }
}

impl Tokenizer {
    /// The sorted distinct characters of `text`, each one token: nanoGPT's `shakespeare_char`.
    ///
    /// # Errors
    /// The text is empty.
    pub fn train_char(text: &str) -> Result<Tokenizer> {
        CharLevel::train(text).map(Tokenizer::Char)
    }

    /// Byte-pair encoding learnt from `text`, of at most `vocab_size` tokens; see [`Bpe::train`].
    ///
    /// # Errors
    /// The text is empty, or `vocab_size` is below 256.
    pub fn train_bpe(text: &str, vocab_size: usize) -> Result<Tokenizer> {
        Bpe::train(text, vocab_size, &[]).map(Tokenizer::Bpe)
    }

    /// How many token ids there are: ids are `0..vocab_size`.
    pub fn vocab_size(&self) -> usize {
        match self {
            Tokenizer::Char(t) => t.vocab_size(),
            Tokenizer::Bpe(t) => t.vocab_size(),
        }
    }

    /// `char` or `bpe`.
    pub fn kind(&self) -> &'static str {
        match self {
            Tokenizer::Char(_) => "char",
            Tokenizer::Bpe(_) => "bpe",
        }
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// The text has characters that a character vocabulary does not hold; the message lists them.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let (ids, unknown) = self.encode_lossy(text);
        if unknown.is_empty() {
            return Ok(ids);
        }
        Err(Error::data(format!(
            "the text has characters outside the {} of the vocabulary: {unknown}; remove them, or train the \
             tokenizer on text that has them",
            self.vocab_size()
        )))
    }

    /// The ids of the characters that the vocabulary holds, and a report of those it left out. A byte-level
    /// vocabulary leaves out none.
    pub fn encode_lossy(&self, text: &str) -> (Vec<u32>, UnknownChars) {
        match self {
            Tokenizer::Char(t) => t.encode_lossy(text),
            Tokenizer::Bpe(t) => (t.encode(text), UnknownChars::default()),
        }
    }

    /// The text of `ids`; byte sequences that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An id is not below [`vocab_size`](Tokenizer::vocab_size).
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut stream = StreamDecoder::default();
        let mut text = String::new();
        for &id in ids {
            stream.push(self.token_bytes(id)?, &mut text);
        }
        stream.finish(&mut text);
        Ok(text)
    }

    /// The bytes that one token stands for.
    ///
    /// # Errors
    /// The id is not below [`vocab_size`](Tokenizer::vocab_size).
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        let bytes = match self {
            Tokenizer::Char(t) => t.token_bytes(id),
            Tokenizer::Bpe(t) => t.token_bytes(id),
        };
        bytes.ok_or_else(|| {
            Error::argument(format!(
                "token id {id} is outside the vocabulary of {} tokens",
                self.vocab_size()
            ))
        })
    }

    /// How many bytes of text `ids` stand for: the denominator of bits per byte.
    ///
    /// # Errors
    /// An id is not below [`vocab_size`](Tokenizer::vocab_size).
    pub fn count_bytes(&self, ids: impl IntoIterator<Item = u32>) -> Result<usize> {
        ids.into_iter().try_fold(0, |sum, id| Ok(sum + self.token_bytes(id)?.len()))
    }

    /// This tokenizer as JSON, as it stands in a `.bullet` header.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and integers always serialise")
    }

    /// The tokenizer that [`to_json`](Tokenizer::to_json) wrote.
    ///
    /// # Errors
    /// The JSON is not a tokenizer, or one that cannot be: a character twice, a merge of tokens that don't exist yet.
    pub fn from_json(json: &str) -> Result<Tokenizer> {
        serde_json::from_str(json).map_err(|e| Error::corrupt(format!("not a tokenizer: {e}")))
    }
}
