//! Decoding with cached keys and values against the full forward pass; long texts; sampling from a model.

mod models;

use std::sync::Arc;

use bullet_nn::generate::{Sampler, TextStream, TokenStream};
use bullet_nn::tokenizer::Tokenizer;
use bullet_nn::{LanguageModel, Pass, Transformer};
use bullet_tensor::{DType, Tensor, no_grad};
use models::{ids, max_difference, model, small, variations};

fn logits(model: &Transformer, tokens: &[i64]) -> Vec<f64> {
    let all = no_grad(|| model.forward(&ids(tokens, &[1, tokens.len()]), &Pass::eval())).unwrap();
    all.select(1, -1).unwrap().to_f64_vec().unwrap()
}

fn greedy(logits: &[f64]) -> u32 {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

#[test]
fn cached_steps_equal_the_full_pass() {
    let tokens = [3i64, 1, 4, 1, 5, 9, 2, 6, 10, 0];
    for (name, config) in variations() {
        let model = model(config, DType::F32);
        // A prompt of several tokens at once, then one by one; and all one by one.
        for prompt in [1, 4] {
            let mut cache = model.new_cache(1, &Pass::eval()).unwrap();
            let mut fed = 0;
            for end in prompt..=tokens.len() {
                let new = ids(&tokens[fed..end], &[1, end - fed]);
                let got =
                    model.forward_cached(&new, &mut cache, &Pass::eval()).unwrap().to_f64_vec().unwrap();
                let error = max_difference(&got, &logits(&model, &tokens[..end]));
                assert!(error < 1e-4, "{name}: prompt {prompt}, position {end}: {error}");
                fed = end;
            }
            assert_eq!(cache.len(), tokens.len());
        }
    }
}

#[test]
fn batches_decode_side_by_side() {
    let model = model(small(), DType::F32);
    let rows = [[1i64, 2, 3], [7, 8, 9]];
    let mut cache = model.new_cache(2, &Pass::eval()).unwrap();
    model.forward_cached(&ids(&[1, 2, 7, 8], &[2, 2]), &mut cache, &Pass::eval()).unwrap();
    let got = model
        .forward_cached(&ids(&[3, 9], &[2, 1]), &mut cache, &Pass::eval())
        .unwrap()
        .to_f64_vec()
        .unwrap();
    let want = rows.map(|row| logits(&model, &row)).concat();
    assert!(max_difference(&got, &want) < 1e-4);
}

#[test]
fn a_full_cache_says_so_and_stays_as_it_was() {
    let model = model(small(), DType::F32);
    let mut cache = model.new_cache(1, &Pass::eval()).unwrap();
    model.forward_cached(&ids(&[1; 9], &[1, 9]), &mut cache, &Pass::eval()).unwrap();
    let error = model.forward_cached(&ids(&[1, 1], &[1, 2]), &mut cache, &Pass::eval()).unwrap_err().message;
    assert!(error.contains("2 tokens after 9 cached") && error.contains("10 positions"), "{error}");
    assert_eq!(cache.len(), 9);
    let error = model.forward_cached(&ids(&[1, 1], &[2, 1]), &mut cache, &Pass::eval()).unwrap_err().message;
    assert!(error.contains("1 sequences"), "{error}");
}

#[test]
fn long_texts_slide_the_window() {
    for (name, config) in variations() {
        let (max_seq, keep) = (config.max_seq, config.max_seq / 2);
        let model = model(config, DType::F32);
        let stream = TokenStream::new(&model, &[1, 2, 3], Sampler::greedy(), Pass::eval()).unwrap();
        let got: Vec<u32> = stream.take(4 * max_seq).map(Result::unwrap).collect();
        // The same, by the full pass over a window that forgets all but its last half when it overflows.
        let mut window = vec![1i64, 2, 3];
        for (i, &token) in got.iter().enumerate() {
            if window.len() > max_seq {
                window.drain(..window.len() - keep);
            }
            let want = logits(&model, &window);
            // Near ties may go either way by rounding.
            let gap = want[greedy(&want) as usize] - want[token as usize];
            assert!(gap < 1e-4, "{name}: token {i}: {token} instead of {}", greedy(&want));
            window.push(i64::from(token));
        }
    }
}

#[test]
fn a_long_prompt_is_cropped_to_its_end() {
    let model = model(small(), DType::F32);
    let prompt: Vec<u32> = (0..25).map(|i| i % 11).collect();
    let first = |prompt: &[u32]| {
        TokenStream::new(&model, prompt, Sampler::default(), Pass::eval()).unwrap().next().unwrap().unwrap()
    };
    assert_eq!(first(&prompt), first(&prompt[15..]));
}

#[test]
fn a_seed_names_a_text() {
    let model = Arc::new(model(small(), DType::F32));
    let text = |seed| -> Vec<u32> {
        let sampler = Sampler { temperature: 1.5, top_k: Some(8), top_p: Some(0.99), seed };
        // Through a trait object, as a trainer holds it.
        let model: Arc<dyn LanguageModel> = model.clone();
        TokenStream::new(model, &[1], sampler, Pass::eval()).unwrap().take(30).map(Result::unwrap).collect()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn half_precision_decodes_near_single() {
    let model = model(small(), DType::F32);
    let tokens = [3i64, 1, 4, 1, 5];
    let want = logits(&model, &tokens);
    for dtype in [DType::F16, DType::BF16] {
        // Cast on the way, and cast once.
        let device = bullet_tensor::Device::cpu();
        let converted = model.to(dtype, &device).unwrap();
        for (model, pass) in [(&model, Pass::eval().with_compute(dtype)), (&converted, Pass::eval())] {
            let mut cache = model.new_cache(1, &pass).unwrap();
            let got = model.forward_cached(&ids(&tokens, &[1, 5]), &mut cache, &pass).unwrap();
            assert_eq!(got.dtype(), dtype);
            let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(max_difference(&got.to_f64_vec().unwrap(), &want) < 0.05 * scale, "{dtype}");
        }
    }
}

#[test]
fn text_comes_in_pieces() {
    let alphabet = "abcdefghijk";
    let tokenizer = Tokenizer::train_char(alphabet).unwrap();
    let model = model(small(), DType::F32);
    let stream = TextStream::new(&model, &tokenizer, "abc", 17, Sampler::default(), Pass::eval()).unwrap();
    let text: String = stream.map(Result::unwrap).collect();
    assert_eq!(text.chars().count(), 17);
    assert!(text.chars().all(|c| alphabet.contains(c)));
    let error =
        TextStream::new(&model, &tokenizer, "xyz", 1, Sampler::default(), Pass::eval()).err().unwrap();
    assert!(error.message.contains("vocabulary"), "{error}");
}

#[test]
fn wrong_starts_are_refused() {
    let model = model(small(), DType::F32);
    let start = |prompt: &[u32], sampler| {
        TokenStream::new(&model, prompt, sampler, Pass::eval()).err().unwrap().message
    };
    assert!(start(&[], Sampler::default()).contains("empty"));
    let error = start(&[1, 11], Sampler::default());
    assert!(error.contains("token 11 at position 1") && error.contains("vocabulary of 11"), "{error}");
    assert!(start(&[1], Sampler { top_k: Some(0), ..Sampler::default() }).contains("top_k"));
    // A model whose weights overflowed.
    no_grad(|| {
        model.head.weight.copy_(&Tensor::full(f64::NAN, &[], DType::F32, model.head.weight.device())?)
    })
    .unwrap();
    let error =
        TokenStream::new(&model, &[1], Sampler::greedy(), Pass::eval()).unwrap().next().unwrap().unwrap_err();
    assert!(error.message.contains("NaN"), "{error}");
}
