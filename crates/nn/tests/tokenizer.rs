//! Tokenizers on Tiny Shakespeare and on awkward text.

use std::time::Instant;

use bullet_nn::ErrorKind;
use bullet_nn::rng::Rng;
use bullet_nn::tokenizer::{Bpe, StreamDecoder, Tokenizer};

fn shakespeare() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tinyshakespeare.txt")).unwrap()
}

#[test]
fn characters_are_nanogpts() {
    let text = shakespeare();
    let tokenizer = Tokenizer::train_char(&text).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    // nanoGPT: `sorted(list(set(text)))`; "hii there" is the example of its lectures.
    assert_eq!(tokenizer.encode("hii there").unwrap(), [46, 47, 47, 1, 58, 46, 43, 56, 43]);
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.count_bytes(ids).unwrap(), text.len());
}

#[test]
fn unknown_characters_are_reported_with_positions() {
    let tokenizer = Tokenizer::train_char("abc").unwrap();
    let (ids, unknown) = tokenizer.encode_lossy("aéb!éc");
    assert_eq!(ids, [0, 1, 2]);
    let rows: Vec<_> = unknown.chars.iter().map(|u| (u.char, u.first, u.count)).collect();
    assert_eq!((rows, unknown.total()), (vec![('é', 1, 2), ('!', 3, 1)], 3));
    let e = tokenizer.encode("aéb!éc").unwrap_err();
    assert!(e.message.contains("'é' (U+00E9) at position 1 and 1 more, '!' (U+0021) at position 3"), "{e}");
    let e = tokenizer.decode(&[3]).unwrap_err();
    assert!(e.message.contains("token id 3 is outside the vocabulary of 3"), "{e}");
}

#[test]
fn bpe_round_trips_any_text_and_compresses() {
    let text = shakespeare();
    let tokenizer = Tokenizer::train_bpe(&text, 3000).unwrap();
    assert_eq!(tokenizer.vocab_size(), 3000);
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.count_bytes(ids.iter().copied()).unwrap(), text.len());
    // Byte-level BPE of this size in other implementations: 3.1 bytes a token.
    let bytes_per_token = text.len() as f64 / ids.len() as f64;
    assert!((3.0..3.5).contains(&bytes_per_token), "{bytes_per_token}");
    for odd in ["", " ", "日本語 😀 \0\u{7f}\u{ffff}", "\r\n\t  x", "ﷺ é e\u{301}"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(odd).unwrap()).unwrap(), odd);
    }
}

/// Two processes could differ where two calls do not (hash seeds): each map is seeded anew in each call too.
#[test]
fn bpe_training_is_deterministic() {
    let text = &shakespeare()[..200_000];
    let first = Tokenizer::train_bpe(text, 1000).unwrap().to_json();
    for _ in 0..3 {
        assert_eq!(Tokenizer::train_bpe(text, 1000).unwrap().to_json(), first);
    }
    // And does not change unnoticed: the first merges of this text.
    let Tokenizer::Bpe(bpe) = Tokenizer::from_json(&first).unwrap() else { panic!("not bpe") };
    let token = |id: u32| Tokenizer::Bpe(bpe.clone()).decode(&[id]).unwrap();
    assert_eq!([256, 257, 258, 259].map(token), [" t", "he", "ou", " a"]);
}

#[test]
fn impossible_vocabularies_are_refused() {
    let e = Tokenizer::train_bpe("abc", 255).unwrap_err();
    assert!(e.kind == ErrorKind::Argument && e.message.contains("need at least 256"), "{e}");
    let e = Bpe::train("abc", 257, &["<a>", "<b>"]).unwrap_err();
    assert!(e.message.contains("2 special tokens need at least 258"), "{e}");
    assert!(Tokenizer::train_bpe("", 300).unwrap_err().message.contains("empty"));
    assert!(Tokenizer::train_char("").unwrap_err().message.contains("empty"));
    assert!(Bpe::train("abc", 300, &["<a>", "<a>"]).unwrap_err().message.contains("\"<a>\" is not allowed"));
    // A short text gives fewer tokens than asked for, and all bytes all the same.
    assert_eq!(Tokenizer::train_bpe("aaaa", 1000).unwrap().vocab_size(), 257);
}

#[test]
fn special_tokens_have_ids_and_are_never_encoded() {
    let bpe = Bpe::train("to be or not to be", 260, &["<|endoftext|>"]).unwrap();
    let id = bpe.special_id("<|endoftext|>").unwrap();
    assert_eq!(id as usize, bpe.vocab_size() - 1);
    let tokenizer = Tokenizer::Bpe(bpe);
    assert!(!tokenizer.encode("a<|endoftext|>").unwrap().contains(&id));
    assert_eq!(tokenizer.decode(&[id]).unwrap(), "<|endoftext|>");
    assert_eq!(Tokenizer::from_json(&tokenizer.to_json()).unwrap(), tokenizer);
}

#[test]
fn json_that_is_no_tokenizer_is_refused() {
    for (json, words) in [
        ("{}", "missing field `kind`"),
        ("{\"kind\":\"bpe\",\"merges\":[[256,1]]}", "joins tokens 256 and 1"),
        ("{\"kind\":\"bpe\",\"merges\":[[1,2],[1,2]]}", "given twice"),
        ("{\"kind\":\"bpe\",\"merges\":[[1,-2]]}", "invalid value"),
        ("{\"kind\":\"bpe\",\"merges\":[],\"special\":[\"\"]}", "not allowed"),
        ("{\"kind\":\"char\",\"alphabet\":\"aa\"}", "not sorted and distinct"),
        ("{\"kind\":\"char\",\"alphabet\":\"\"}", "empty"),
        ("nonsense", "expected"),
    ] {
        let e = Tokenizer::from_json(json).expect_err(words);
        assert!(e.message.contains(words), "{e}");
    }
}

/// What a user sees while tokens arrive is always text, and in the end the whole text.
#[test]
fn streaming_decode_never_splits_a_character() {
    let text = "naïve 東京 😀👍🏽 café — “quotes”";
    let tokenizer = Tokenizer::train_bpe("ascii only", 257).unwrap();
    let ids = tokenizer.encode(text).unwrap();
    let (mut stream, mut out) = (StreamDecoder::new(), String::new());
    for &id in &ids {
        stream.push(tokenizer.token_bytes(id).unwrap(), &mut out);
        assert!(text.starts_with(&out), "{out:?}");
    }
    stream.finish(&mut out);
    assert_eq!(out, text);
}

#[test]
fn any_ids_decode() {
    let tokenizer = Tokenizer::train_bpe(&shakespeare()[..50_000], 600).unwrap();
    let mut rng = Rng::new(1, 0, 0);
    for _ in 0..200 {
        let ids: Vec<u32> = (0..50).map(|_| rng.below(600) as u32).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().to_vec()).collect();
        assert_eq!(tokenizer.decode(&ids).unwrap(), String::from_utf8_lossy(&bytes));
    }
}

/// Bounds far above what is measured (about 0.2 s and 0.05 s in release), for machines that are busy and for debug builds.
#[test]
fn training_and_encoding_are_fast() {
    let text = shakespeare();
    let start = Instant::now();
    let tokenizer = Tokenizer::train_bpe(&text, 3000).unwrap();
    let trained = start.elapsed();
    let ids = tokenizer.encode(&text).unwrap();
    let encoded = start.elapsed() - trained;
    println!("train {trained:.2?}, encode {encoded:.2?}, {} tokens", ids.len());
    assert!(trained.as_secs_f64() < 10.0 && encoded.as_secs_f64() < 5.0, "{trained:?} {encoded:?}");
}
