//! Text generation: [`Sampler`] picks a token from logits, [`TokenStream`] makes tokens one at a time with cached keys and
//! values, [`TextStream`] turns them into text.

mod sampler;
mod stream;

pub use sampler::Sampler;
pub use stream::{TextStream, TokenStream};
