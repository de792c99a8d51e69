//! Layers: the parts that models are made of. Each is its parameters and a `forward` of a few tensor ops.

mod attention;
mod block;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod rnn;

pub use attention::{Attention, AttentionConfig, LayerCache};
pub use block::{BlockConfig, TransformerBlock};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{LayerNorm, NormLayer, RmsNorm, Stream};
pub use rnn::{Gru, Lstm, RnnConfig};
