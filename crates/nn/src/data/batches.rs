//! Batches of token windows: `x` is `tokens[i..i + T]`, `y` the tokens one later.

use bullet_tensor::runtime::hardware::memory_holds;

use super::Tokens;
use crate::error::{Error, ErrorKind, Result};
use crate::rng::Rng;

/// The target of a position that counts for nothing (PyTorch's `ignore_index`).
pub const IGNORE_INDEX: i64 = -100;

/// Inputs and targets, both `[batch, sequence]`, row-major.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Input token ids.
    pub x: Vec<i64>,
    /// Target token ids; [`IGNORE_INDEX`] where there is none.
    pub y: Vec<i64>,
    /// How many targets are not [`IGNORE_INDEX`].
    pub targets: usize,
}

/// Draws random windows. It has no state: the batch of a step is a function of seed, stream, step and sizes, so that
/// a run that resumes at a step draws what it would have drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampler {
    seed: u64,
    stream: u32,
    batch: usize,
    sequence: usize,
}

impl Sampler {
    /// The stream of training batches.
    pub const TRAIN: u32 = 0x7261_696e;
    /// The stream of random evaluation batches: drawing from it leaves training as it is.
    pub const EVAL: u32 = 0x6576_616c;

    /// `batch` windows of `sequence` tokens a step, on [`Sampler::TRAIN`] or another stream.
    ///
    /// # Errors
    /// `batch` or `sequence` is 0.
    pub fn new(seed: u64, stream: u32, batch: usize, sequence: usize) -> Result<Sampler> {
        if batch == 0 || sequence == 0 {
            return Err(Error::argument(format!(
                "a batch of {batch} windows of {sequence} tokens is empty: both must be at least 1"
            )));
        }
        if batch.checked_mul(sequence).is_none_or(|n| n > isize::MAX as usize / size_of::<i64>()) {
            return Err(Error::argument(format!(
                "a batch of {batch} windows of {sequence} tokens is more than any memory holds"
            )));
        }
        Ok(Sampler { seed, stream, batch, sequence })
    }

    /// `[batch, sequence]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.batch, self.sequence]
    }

    /// The windows of this step.
    ///
    /// # Errors
    /// There are not `sequence + 1` tokens.
    pub fn batch(&self, tokens: &Tokens, step: u64) -> Result<Batch> {
        check_length(tokens, self.sequence)?;
        let n = self.batch * self.sequence;
        let mut batch = Batch { x: zeros(n)?, y: zeros(n)?, targets: n };
        self.fill(tokens, step, &mut batch.x, &mut batch.y)?;
        Ok(batch)
    }

    /// As [`batch`](Sampler::batch), into slices of `batch * sequence` each.
    ///
    /// # Errors
    /// There are not `sequence + 1` tokens, or a slice is of another length.
    pub fn fill(&self, tokens: &Tokens, step: u64, x: &mut [i64], y: &mut [i64]) -> Result<()> {
        check_length(tokens, self.sequence)?;
        let n = self.batch * self.sequence;
        if x.len() != n || y.len() != n {
            return Err(Error::argument(format!(
                "a batch of {} windows of {} tokens needs two slices of {n}; got {} and {}",
                self.batch,
                self.sequence,
                x.len(),
                y.len()
            )));
        }
        let mut rng = Rng::new(self.seed, self.stream, step);
        let starts = (tokens.len() - self.sequence) as u64;
        for (x, y) in x.chunks_exact_mut(self.sequence).zip(y.chunks_exact_mut(self.sequence)) {
            let start = rng.below(starts) as usize;
            tokens.copy_to(start, x);
            tokens.copy_to(start + 1, y);
        }
        Ok(())
    }
}

/// Every token but the first exactly once as a target, in windows that don't overlap, `batch` at a time.
///
/// The last window is padded with input 0 and target [`IGNORE_INDEX`], and so are windows missing from the last batch:
/// every batch has the same shape, `batch` windows or as many as the text has. The mean over all targets is `sum(loss * targets) / sum(targets)`.
///
/// # Errors
/// `batch` or `sequence` is 0, or there are fewer than two tokens.
pub fn eval_windows(
    tokens: &Tokens,
    batch: usize,
    sequence: usize,
) -> Result<impl ExactSizeIterator<Item = Batch>> {
    if batch == 0 || sequence == 0 {
        return Err(Error::argument(format!(
            "evaluation in batches of {batch} windows of {sequence} tokens is empty: both must be at least 1"
        )));
    }
    if tokens.len() < 2 {
        return Err(Error::data(format!(
            "evaluation needs at least 2 tokens, one to predict from and one to predict; this text has {}: give \
             more",
            tokens.len()
        )));
    }
    let targets = tokens.len() - 1;
    // No more windows than the text has: a mistyped batch size must not become an allocation.
    let span = batch.min(targets.div_ceil(sequence)).checked_mul(sequence);
    let span = span.filter(|&n| n <= isize::MAX as usize / size_of::<i64>()).ok_or_else(|| {
        Error::argument(format!("a window of {sequence} tokens is more than any memory holds"))
    })?;
    // Once, so that too little memory is an error: batches are as large, one after the other.
    drop((zeros(span)?, zeros(span)?));
    Ok((0..targets.div_ceil(span)).map(move |i| {
        let start = i * span;
        let n = span.min(targets - start);
        let mut out = Batch { x: vec![0; span], y: vec![IGNORE_INDEX; span], targets: n };
        tokens.copy_to(start, &mut out.x[..n]);
        tokens.copy_to(start + 1, &mut out.y[..n]);
        out
    }))
}

/// Room for so many token ids.
fn zeros(n: usize) -> Result<Vec<i64>> {
    let mut room = Vec::new();
    if !memory_holds(n.saturating_mul(size_of::<i64>())) || room.try_reserve_exact(n).is_err() {
        return Err(Error::new(
            ErrorKind::OutOfMemory,
            format!("a batch of {n} tokens does not fit the memory; make batch or sequence smaller"),
        ));
    }
    room.resize(n, 0);
    Ok(room)
}

fn check_length(tokens: &Tokens, sequence: usize) -> Result<()> {
    if tokens.len() > sequence {
        return Ok(());
    }
    Err(Error::data(format!(
        "the text is too short: a sequence length of {sequence} needs at least {} tokens, and there are {}; give more \
         text, or set the sequence length to {} or less",
        sequence + 1,
        tokens.len(),
        tokens.len().saturating_sub(1).max(1)
    )))
}
