//! A text as tokens, split into training and validation as nanoGPT splits it.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::tokenizer::{Tokenizer, UnknownChars};

/// Token ids, in 16 bits each if the vocabulary allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tokens {
    /// A vocabulary of up to 65,536 tokens.
    U16(Vec<u16>),
    /// A larger one.
    U32(Vec<u32>),
}

impl Tokens {
    /// Stores `ids`, all below `vocab_size`.
    ///
    /// # Errors
    /// An id is not below `vocab_size`.
    pub fn new(ids: &[u32], vocab_size: usize) -> Result<Tokens> {
        if let Some((i, id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
            return Err(Error::argument(format!(
                "token {i} has id {id}, outside the vocabulary of {vocab_size} tokens"
            )));
        }
        Ok(if vocab_size <= 1 << 16 {
            Tokens::U16(ids.iter().map(|&id| id as u16).collect())
        } else {
            Tokens::U32(ids.to_vec())
        })
    }

    /// How many tokens.
    pub fn len(&self) -> usize {
        match self {
            Tokens::U16(t) => t.len(),
            Tokens::U32(t) => t.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids in `range`.
    ///
    /// # Panics
    /// `range` reaches beyond [`len`](Tokens::len).
    pub fn iter(&self, range: Range<usize>) -> impl Iterator<Item = u32> + '_ {
        let (narrow, wide): (&[u16], &[u32]) = match self {
            Tokens::U16(t) => (&t[range], &[]),
            Tokens::U32(t) => (&[], &t[range]),
        };
        narrow.iter().map(|&id| u32::from(id)).chain(wide.iter().copied())
    }

    /// Writes the ids from `start` on into `out`, all of it.
    ///
    /// # Panics
    /// `start + out.len()` is beyond [`len`](Tokens::len).
    pub fn copy_to(&self, start: usize, out: &mut [i64]) {
        let range = start..start + out.len();
        match self {
            Tokens::U16(t) => out.iter_mut().zip(&t[range]).for_each(|(o, &id)| *o = i64::from(id)),
            Tokens::U32(t) => out.iter_mut().zip(&t[range]).for_each(|(o, &id)| *o = i64::from(id)),
        }
    }
}

/// Tokens to train on and tokens to validate on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenDataset {
    /// Training tokens: of the first part of the text.
    pub train: Tokens,
    /// Validation tokens: of the rest.
    pub validation: Tokens,
    /// Bytes of the validation text that its tokens stand for.
    pub validation_bytes: usize,
    /// Bytes of the validation text that its tokens but the first stand for: what a model that is given the first
    /// token predicts. The denominator of bits per byte.
    pub validation_target_bytes: usize,
    /// How many ids there are.
    pub vocab_size: usize,
    /// Characters of the text that the vocabulary lacks and that were left out.
    pub unknown: UnknownChars,
}

impl TokenDataset {
    /// Splits `text` after `floor(train_fraction * characters)` characters (nanoGPT: 0.9), and encodes the two parts
    /// apart. Characters outside the vocabulary are left out and reported in [`unknown`](TokenDataset::unknown),
    /// with positions in the whole text.
    ///
    /// # Errors
    /// `train_fraction` is not in `(0, 1]`, or no character of the text is in the vocabulary.
    pub fn new(text: &str, tokenizer: &Tokenizer, train_fraction: f64) -> Result<TokenDataset> {
        if !(train_fraction > 0.0 && train_fraction <= 1.0) {
            return Err(Error::argument(format!(
                "the training fraction is {train_fraction}; expected more than 0 and at most 1 (0.9 keeps a tenth of \
                 the text for validation)"
            )));
        }
        let characters = text.chars().count();
        let train_characters = (characters as f64 * train_fraction) as usize;
        let cut = text.char_indices().nth(train_characters).map_or(text.len(), |(i, _)| i);
        let (train, mut unknown) = tokenizer.encode_lossy(&text[..cut]);
        let (validation, more) = tokenizer.encode_lossy(&text[cut..]);
        merge(&mut unknown, more, train_characters);
        if train.is_empty() && validation.is_empty() {
            return Err(Error::data(if text.is_empty() {
                "the text is empty".to_string()
            } else {
                format!("no character of the text is in the vocabulary: {unknown}")
            }));
        }
        let vocab_size = tokenizer.vocab_size();
        Ok(TokenDataset {
            train: Tokens::new(&train, vocab_size)?,
            validation_bytes: tokenizer.count_bytes(validation.iter().copied())?,
            validation_target_bytes: tokenizer.count_bytes(validation.iter().skip(1).copied())?,
            validation: Tokens::new(&validation, vocab_size)?,
            vocab_size,
            unknown,
        })
    }

    /// Bits per byte of text from the mean cross-entropy over all validation targets, in nats per token: `loss /
    /// ln 2 * tokens / bytes`. Unlike the loss it compares across tokenizers. `None` without validation targets.
    pub fn bits_per_byte(&self, loss: f64) -> Option<f64> {
        let targets = self.validation.len().checked_sub(1).filter(|&n| n > 0)?;
        Some(loss / std::f64::consts::LN_2 * targets as f64 / self.validation_target_bytes as f64)
    }
}

fn merge(unknown: &mut UnknownChars, more: UnknownChars, offset: usize) {
    for row in more.chars {
        match unknown.chars.iter_mut().find(|u| u.char == row.char) {
            Some(known) => known.count += row.count,
            None => unknown.chars.push(crate::tokenizer::UnknownChar { first: row.first + offset, ..row }),
        }
    }
}
