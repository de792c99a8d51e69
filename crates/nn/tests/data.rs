//! Text loading, splits and batches.

mod files;

use std::fs;

use bullet_nn::ErrorKind;
use bullet_nn::data::{
    Encoding, IGNORE_INDEX, Sampler, TextOptions, TextSource, TokenDataset, Tokens, eval_windows,
};
use bullet_nn::tokenizer::Tokenizer;
use files::Folder;

fn load(path: &std::path::Path) -> bullet_nn::Result<TextSource> {
    TextSource::load(path, &TextOptions::default())
}

#[test]
fn folders_are_read_in_path_order() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("b/deep")).unwrap();
    fs::create_dir_all(folder.path(".git")).unwrap();
    for (name, content) in [
        ("c.txt", &b"third"[..]),
        ("a.md", b"first"),
        ("b/deep/x.py", b"second\n"),
        (".hidden", b"no"),
        (".git/config", b"no"),
        ("image.png", b"\x89PNG\r\n\x1a\n\0\0"),
        ("empty.txt", b""),
        ("z.txt", b"\xef\xbb\xbfbom"),
    ] {
        fs::write(folder.path(name), content).unwrap();
    }
    let source = load(folder.root()).unwrap();
    assert_eq!(source.text, "first\nsecond\nthird\nbom");
    let files: Vec<_> =
        source.files.iter().map(|f| f.strip_prefix(folder.root()).unwrap().to_str().unwrap()).collect();
    assert_eq!(files, ["a.md", "b/deep/x.py", "c.txt", "empty.txt", "z.txt"]);
    let skipped: Vec<_> =
        source.skipped.iter().map(|s| (s.path.file_name().unwrap().to_str().unwrap(), s.reason)).collect();
    assert_eq!(skipped, [(".git", "hidden"), (".hidden", "hidden"), ("image.png", "binary")]);
}

#[test]
#[cfg(unix)]
fn links_that_lead_round_in_circles_are_left_out() {
    let folder = Folder::new();
    fs::write(folder.path("a.txt"), "text").unwrap();
    std::os::unix::fs::symlink(folder.root(), folder.path("loop")).unwrap();
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("broken")).unwrap();
    let source = load(folder.root()).unwrap();
    assert_eq!(source.text, "text");
    let reasons: Vec<_> = source.skipped.iter().map(|s| s.reason).collect();
    assert_eq!(reasons, ["a broken link", "a link to a folder"]);
}

#[test]
fn text_that_is_not_utf8_is_refused_or_mended() {
    let folder = Folder::new();
    let path = folder.path("latin1.txt");
    fs::write(&path, b"caf\xe9 au lait").unwrap();
    for place in [path.as_path(), folder.root()] {
        let e = load(place).unwrap_err();
        assert!(e.kind == ErrorKind::Data && e.message.contains("latin1.txt is not UTF-8"), "{e}");
        assert!(
            e.message.contains("0xe9 at offset 3") && e.message.contains("`data.encoding` = lossy"),
            "{e}"
        );
        let options = TextOptions { encoding: Encoding::parse("lossy").unwrap() };
        assert_eq!(TextSource::load(place, &options).unwrap().text, "caf\u{fffd} au lait");
    }
    fs::write(&path, b"\xff\xfea\0b\0").unwrap();
    assert!(load(&path).unwrap_err().message.contains("UTF-16"));
    assert!(Encoding::parse("ascii").is_err());
}

#[test]
fn nothing_to_train_on_is_explained() {
    let folder = Folder::new();
    assert!(load(folder.root()).unwrap_err().message.contains("no text file"));
    fs::write(folder.path("a.txt"), "").unwrap();
    assert!(load(&folder.path("a.txt")).unwrap_err().message.contains("is empty"));
    assert!(load(folder.root()).unwrap_err().message.contains("all 1 text files"));
    let e = load(&folder.path("missing.txt")).unwrap_err();
    assert!(e.kind == ErrorKind::Io && e.message.contains("missing.txt"), "{e}");
}

/// nanoGPT's `prepare.py` prints 1,003,854 and 111,540 for this text.
#[test]
fn the_split_is_nanogpts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tinyshakespeare.txt");
    let text = load(path.as_ref()).unwrap().text;
    let data = TokenDataset::new(&text, &Tokenizer::train_char(&text).unwrap(), 0.9).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.vocab_size), (1_003_854, 111_540, 65));
    assert_eq!((data.validation_bytes, data.validation_target_bytes), (111_540, 111_539));
    assert!(matches!(data.train, Tokens::U16(_)));
    // One byte a token: bits per byte are bits per token.
    assert!((data.bits_per_byte(std::f64::consts::LN_2).unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn splits_count_characters_not_bytes_and_bytes_not_characters() {
    let text = "ééééé日日日日日";
    let tokenizer = Tokenizer::train_char(text).unwrap();
    let data = TokenDataset::new(text, &tokenizer, 0.5).unwrap();
    assert_eq!((data.train.len(), data.validation.len()), (5, 5));
    assert_eq!((data.validation_bytes, data.validation_target_bytes), (15, 12));
    let bpb = data.bits_per_byte(3.0 * std::f64::consts::LN_2).unwrap();
    assert!((bpb - 1.0).abs() < 1e-12, "{bpb}");
    for fraction in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(
            TokenDataset::new(text, &tokenizer, fraction).unwrap_err().message.contains("training fraction")
        );
    }
    let all = TokenDataset::new(text, &tokenizer, 1.0).unwrap();
    assert!(all.validation.is_empty() && all.bits_per_byte(1.0).is_none());
}

#[test]
fn unknown_characters_are_counted_over_both_parts() {
    let tokenizer = Tokenizer::train_char("ab").unwrap();
    let data = TokenDataset::new("aXbabaXYab", &tokenizer, 0.5).unwrap();
    let rows: Vec<_> = data.unknown.chars.iter().map(|u| (u.char, u.first, u.count)).collect();
    assert_eq!(rows, [('X', 1, 2), ('Y', 7, 1)]);
    assert_eq!(data.train.len() + data.validation.len(), 7);
    let e = TokenDataset::new("XYZ", &tokenizer, 0.5).unwrap_err();
    assert!(e.message.contains("no character of the text is in the vocabulary"), "{e}");
}

fn counting(n: u32, vocab: usize) -> Tokens {
    Tokens::new(&(0..n).collect::<Vec<_>>(), vocab).unwrap()
}

#[test]
fn a_batch_is_a_function_of_its_step() {
    let tokens = counting(1000, 1000);
    let sampler = Sampler::new(42, Sampler::TRAIN, 8, 16).unwrap();
    let third = sampler.batch(&tokens, 3).unwrap();
    for step in 0..10 {
        let batch = sampler.batch(&tokens, step).unwrap();
        assert_eq!(batch == third, step == 3, "steps differ, and a step is itself");
        for (x, y) in batch.x.chunks(16).zip(batch.y.chunks(16)) {
            for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
                assert_eq!((x, y), (batch_start(x, i) + i as i64, x + 1));
            }
        }
    }
    let other = |seed, stream| Sampler::new(seed, stream, 8, 16).unwrap().batch(&tokens, 3).unwrap();
    assert_ne!(other(43, Sampler::TRAIN), third);
    assert_ne!(other(42, Sampler::EVAL), third);
    // Wide and narrow storage draw alike.
    assert_eq!(sampler.batch(&counting(1000, 1 << 20), 3).unwrap(), third);
}

fn batch_start(x: i64, i: usize) -> i64 {
    x - i as i64
}

/// This pins the sampling: a change would silently alter every resumed run.
#[test]
fn windows_reach_every_start_and_no_further() {
    let tokens = counting(20, 20);
    let sampler = Sampler::new(0, Sampler::TRAIN, 4, 16).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..100 {
        seen.extend(sampler.batch(&tokens, step).unwrap().x.chunks(16).map(|w| w[0]));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    // The shortest text there can be has one window.
    let batch = sampler.batch(&counting(17, 17), 5).unwrap();
    assert_eq!((batch.x[0], batch.y[15]), (0, 16));
}

#[test]
fn short_texts_are_explained_with_numbers() {
    let sampler = Sampler::new(0, Sampler::TRAIN, 4, 256).unwrap();
    let e = sampler.batch(&counting(100, 100), 0).unwrap_err();
    assert!(e.message.contains("needs at least 257 tokens, and there are 100"), "{e}");
    assert!(e.message.contains("set the sequence length to 99 or less"), "{e}");
    assert!(Sampler::new(0, 0, 0, 8).is_err() && Sampler::new(0, 0, 8, 0).is_err());
    assert!(sampler.fill(&counting(300, 300), 0, &mut [0; 3], &mut [0; 3]).is_err());
}

#[test]
fn evaluation_sees_every_target_once() {
    for (n, batch, sequence) in
        [(2, 1, 1), (2, 3, 7), (100, 4, 8), (97, 4, 8), (65, 4, 8), (33, 4, 8), (34, 4, 8)]
    {
        let tokens = counting(n, 1000);
        let mut targets = Vec::new();
        for b in eval_windows(&tokens, batch, sequence).unwrap() {
            // All of one shape, which is no larger than the text.
            let windows = batch.min((n as usize - 1).div_ceil(sequence));
            assert_eq!((b.x.len(), b.y.len()), (windows * sequence, windows * sequence));
            let real: Vec<_> = b.x.iter().zip(&b.y).filter(|(_, y)| **y != IGNORE_INDEX).collect();
            assert!(real.iter().all(|(x, y)| **x + 1 == **y));
            assert_eq!(real.len(), b.targets);
            targets.extend(real.into_iter().map(|(_, y)| *y));
        }
        assert_eq!(targets, (1..i64::from(n)).collect::<Vec<_>>(), "{n} tokens, {batch} x {sequence}");
    }
    assert!(eval_windows(&counting(1, 10), 1, 8).err().unwrap().message.contains("at least 2 tokens"));
    assert!(eval_windows(&counting(9, 10), 0, 8).is_err());
    assert!(Tokens::new(&[5], 5).unwrap_err().message.contains("token 0 has id 5"));
}
