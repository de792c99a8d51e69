//! [`TokenStream`] and [`TextStream`]: a text that grows by one token a call.

use std::collections::VecDeque;
use std::ops::Deref;

use bullet_tensor::decode::{Choice, Decoder, Stop};
use bullet_tensor::{DType, Tensor};

use super::Sampler;
use super::sampler::{none_likely, not_finite};
use crate::error::{Error, ErrorKind, Result};
use crate::module::Pass;
use crate::tokenizer::{StreamDecoder, Tokenizer};
use crate::transformer::{KvCache, LanguageModel};

/// Tokens of one text, made one at a time, without end: take as many as are wanted.
///
/// **Long texts.** A model sees at most `max_seq` tokens. When they are full, the older half is forgotten: the last
/// `max_seq / 2` tokens (at least one) are read again from position 0, and generation goes on from there. That is exact:
/// each token comes from the model's full forward pass over the window, and costs one such pass every `max_seq / 2`
/// tokens. Of a longer prompt only the last `max_seq` tokens are read.
///
/// **On a GPU** tokens are made ahead of the caller, up to 32 by one launch, where the model has a [`Decoder`]. They are the
/// same tokens.
///
/// `M` is any pointer to a model: `&Transformer`, `Arc<dyn LanguageModel>`.
pub struct TokenStream<M: Deref<Target: LanguageModel>> {
    model: M,
    sampler: Sampler,
    pass: Pass,
    cache: KvCache,
    /// The text so far, as far back as the model may look.
    window: Vec<u32>,
    /// How many tokens at the end of `window` the cache does not hold yet.
    pending: usize,
    step: u64,
    /// What makes many tokens at a time, where there is such a thing.
    decoder: Option<Decoder>,
    /// Tokens that it made and that nobody has taken yet. The cache holds their keys and values, but does not count them.
    ready: VecDeque<u32>,
    /// The error that follows them.
    stopped: Option<Error>,
    /// How many it makes next.
    chunk: usize,
}

/// Tokens that a decoder makes first: few, as somebody waits for the first one.
const FIRST_CHUNK: usize = 8;
/// Tokens that it makes at a time then.
const CHUNK: usize = 32;

impl<M: Deref<Target: LanguageModel>> TokenStream<M> {
    /// A text that begins with `prompt`; `pass` says in which dtype to compute.
    ///
    /// # Errors
    /// An empty prompt, a token outside the vocabulary, settings that [`Sampler::validate`] refuses.
    pub fn new(model: M, prompt: &[u32], sampler: Sampler, pass: Pass) -> Result<TokenStream<M>> {
        sampler.validate()?;
        let vocab = model.vocab();
        if prompt.is_empty() {
            return Err(Error::argument("the prompt is empty; give at least one token to continue from"));
        }
        if let Some((at, token)) = prompt.iter().enumerate().find(|(_, t)| **t as usize >= vocab) {
            return Err(Error::argument(format!(
                "token {token} at position {at} of the prompt is outside the model's vocabulary of {vocab}; use the tokenizer \
                 that the model was trained with"
            )));
        }
        let cache = model.new_cache(1, &pass)?;
        let window = prompt[prompt.len().saturating_sub(model.max_seq())..].to_vec();
        let pending = window.len();
        let decoder = model.decoder(&cache, &pass)?;
        Ok(TokenStream {
            model,
            sampler,
            pass,
            cache,
            window,
            pending,
            step: 0,
            decoder,
            ready: VecDeque::new(),
            stopped: None,
            chunk: FIRST_CHUNK,
        })
    }

    /// How many tokens of the text the model has in view.
    pub fn context_len(&self) -> usize {
        self.cache.len()
    }

    fn next_token(&mut self) -> Result<u32> {
        if let Some(token) = self.ready.pop_front() {
            self.cache.advance();
            return Ok(self.push(token));
        }
        if let Some(error) = self.stopped.take() {
            return Err(error);
        }
        if self.cache.len() + self.pending > self.cache.capacity() {
            let keep = (self.cache.capacity() / 2).max(1);
            self.window.drain(..self.window.len() - keep);
            self.cache.truncate(0);
            self.pending = keep;
        }
        if self.pending == 1 && self.decoder.is_some() {
            self.make_chunk()?;
            return self.next_token();
        }
        let new: Vec<i64> =
            self.window[self.window.len() - self.pending..].iter().map(|&t| i64::from(t)).collect();
        let tokens = Tensor::from_slice(&new, &[1, new.len()], self.cache.device())?;
        let logits = self.model.forward_cached(&tokens, &mut self.cache, &self.pass)?;
        let token = self.sampler.sample(&logits.cast(DType::F32)?.to_vec::<f32>()?, self.step)?;
        Ok(self.push(token))
    }

    /// Takes a token into the text.
    fn push(&mut self, token: u32) -> u32 {
        self.window.push(token);
        (self.pending, self.step) = (1, self.step + 1);
        token
    }

    /// Has the decoder make what follows the last token of the text, which the cache has room for: a token or an error at
    /// least.
    fn make_chunk(&mut self) -> Result<()> {
        let (Some(decoder), Some(&last)) = (&mut self.decoder, self.window.last()) else {
            return Ok(());
        };
        let past = self.cache.len();
        let n = self.chunk.min(decoder.capacity() - past);
        let uniforms: Vec<f64>;
        let choice = if self.sampler.is_greedy() {
            Choice::Likeliest
        } else {
            let Sampler { temperature, top_k, top_p, .. } = self.sampler;
            uniforms = (self.step..).take(n).map(|step| self.sampler.uniform(step)).collect();
            Choice::Drawn { temperature, top_k, top_p, uniforms: &uniforms }
        };
        let made = decoder.run(last, past, n, choice)?;
        self.chunk = CHUNK;
        self.ready = made.tokens.into();
        self.stopped = made.stopped.map(|stop| match stop {
            Stop::NotFinite { token, logit } => not_finite(token as usize, logit),
            Stop::NoneLikely => none_likely(self.model.vocab()),
        });
        if self.ready.is_empty() && self.stopped.is_none() {
            return Err(Error::new(ErrorKind::Tensor, "the device generated no token and no reason why"));
        }
        Ok(())
    }
}

impl<M: Deref<Target: LanguageModel>> Iterator for TokenStream<M> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        Some(self.next_token())
    }
}

/// Text made piece by piece: what each new token completes, possibly nothing while a character is unfinished.
pub struct TextStream<'t, M: Deref<Target: LanguageModel>> {
    tokens: std::iter::Take<TokenStream<M>>,
    tokenizer: &'t Tokenizer,
    decoder: StreamDecoder,
    finished: bool,
}

impl<'t, M: Deref<Target: LanguageModel>> TextStream<'t, M> {
    /// `max_tokens` tokens of text that follow `prompt`, which is not repeated.
    ///
    /// # Errors
    /// A prompt that the tokenizer can't encode, and as [`TokenStream::new`].
    pub fn new(
        model: M,
        tokenizer: &'t Tokenizer,
        prompt: &str,
        max_tokens: usize,
        sampler: Sampler,
        pass: Pass,
    ) -> Result<TextStream<'t, M>> {
        let tokens = TokenStream::new(model, &tokenizer.encode(prompt)?, sampler, pass)?.take(max_tokens);
        Ok(TextStream { tokens, tokenizer, decoder: StreamDecoder::new(), finished: false })
    }
}

impl<M: Deref<Target: LanguageModel>> Iterator for TextStream<'_, M> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let mut piece = String::new();
        match self.tokens.next() {
            Some(Err(e)) => return Some(Err(e)),
            Some(Ok(token)) => match self.tokenizer.token_bytes(token) {
                Ok(bytes) => self.decoder.push(bytes, &mut piece),
                Err(e) => return Some(Err(e)),
            },
            None if self.finished => return None,
            None => {
                self.finished = true;
                self.decoder.finish(&mut piece);
                if piece.is_empty() {
                    return None;
                }
            }
        }
        Some(Ok(piece))
    }
}
