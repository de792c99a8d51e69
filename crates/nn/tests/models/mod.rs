//! What the tests of models share: configurations of every variation, models of them, tensors.

use bullet_nn::config::{FeedForward, Norm, Positions};
use bullet_nn::{Init, Module, Transformer, TransformerConfig};
use bullet_tensor::{DType, Device, Distribution, Tensor, no_grad};

pub(crate) fn small() -> TransformerConfig {
    TransformerConfig {
        vocab: 11,
        dim: 8,
        layers: 2,
        heads: 2,
        kv_heads: 0,
        ff: 12,
        max_seq: 10,
        positions: Positions::Learned,
        rope_base: 10_000.0,
        norm: Norm::Layer,
        norm_eps: 1e-5,
        feed_forward: FeedForward::GeluTanh,
        bias: true,
        head_bias: false,
        tie_embeddings: false,
        dropout: 0.0,
    }
}

/// Every choice at least once, grouped heads with either kind of position.
pub(crate) fn variations() -> Vec<(&'static str, TransformerConfig)> {
    vec![
        ("gpt2", small()),
        (
            "gelu, head bias",
            TransformerConfig { feed_forward: FeedForward::Gelu, head_bias: true, ..small() },
        ),
        ("relu, no bias", TransformerConfig { feed_forward: FeedForward::Relu, bias: false, ..small() }),
        (
            "silu, tied",
            TransformerConfig { feed_forward: FeedForward::Silu, tie_embeddings: true, ..small() },
        ),
        ("grouped heads", TransformerConfig { heads: 4, kv_heads: 2, ..small() }),
        ("rms, rope", TransformerConfig { norm: Norm::Rms, positions: Positions::Rope, ..small() }),
        (
            "llama",
            TransformerConfig {
                norm: Norm::Rms,
                positions: Positions::Rope,
                rope_base: 500.0,
                feed_forward: FeedForward::SwiGlu,
                heads: 4,
                kv_heads: 1,
                bias: false,
                ..small()
            },
        ),
    ]
}

/// A model whose parameters are all random, norms and biases included: nothing cancels by being 0 or 1.
pub(crate) fn model(config: TransformerConfig, dtype: DType) -> Transformer {
    let model = Transformer::new(config, &Init::new(1, dtype, &Device::cpu())).unwrap();
    scramble(&model);
    model
}

pub(crate) fn scramble(module: &dyn Module) {
    for (i, (_, tensor)) in module.named_parameters().iter().enumerate() {
        let normal = Distribution::Normal { mean: 0.1, std: 0.3 };
        let values =
            Tensor::random(normal, tensor.shape(), tensor.dtype(), tensor.device(), (9, i as u64)).unwrap();
        no_grad(|| tensor.copy_(&values)).unwrap();
    }
}

pub(crate) fn ids(values: &[i64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::cpu()).unwrap()
}

pub(crate) fn max_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    worst.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}
