//! What a run leaves behind to look at: a JSONL log, TensorBoard event files, a loss curve as SVG.

mod curve;
mod jsonl;
mod tensorboard;

pub use curve::{Curve, Series};
pub use jsonl::JsonlLog;
pub use tensorboard::EventWriter;
