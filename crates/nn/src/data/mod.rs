//! Training data: text from files and folders, its tokens split into training and validation, and batches drawn
//! from them.

mod batches;
mod dataset;
mod text;

pub use batches::{Batch, IGNORE_INDEX, Sampler, eval_windows};
pub use dataset::{TokenDataset, Tokens};
pub use text::{Encoding, Skipped, TextOptions, TextSource};
