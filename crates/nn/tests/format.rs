//! `.bullet` and safetensors: what is written comes back, and every kind of damaged or hostile file is refused with
//! words that say why.

mod files;

use std::collections::BTreeMap;
use std::path::Path;

use bullet_nn::format::{
    BulletFile, Header, ModelFile, SafetensorsFile, TensorRef, TensorSpec, Writer, convert, write,
    write_safetensors,
};
use bullet_nn::tokenizer::Tokenizer;
use bullet_nn::{ErrorKind, format};
use bullet_ops::DType;
use files::{Folder, assemble, sample_header, sample_tensors, views, with_json};
use serde_json::{Value, json};

fn sample(path: &Path) -> Vec<u8> {
    let tensors = sample_tensors();
    write(path, &sample_header(), &views(&tensors)).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn everything_written_comes_back() {
    let folder = Folder::new();
    let path = folder.path("model.bullet");
    sample(&path);
    let file = BulletFile::open_verified(&path).unwrap();
    assert_eq!(file.header(), &sample_header());
    let tensors = sample_tensors();
    assert_eq!(file.tensors().collect::<Vec<_>>(), views(&tensors));
    for t in file.tensors() {
        assert_eq!(t.bytes.as_ptr() as usize % 64, 0, "{} is aligned", t.name);
        assert_eq!(file.tensor(t.name).unwrap(), t);
    }
    let missing = file.tensor("nope").unwrap_err().message;
    assert!(missing.contains("no tensor named \"nope\"") && missing.contains("\"embedding\""), "{missing}");
}

#[test]
fn a_file_without_tensors_is_sound() {
    let folder = Folder::new();
    let path = folder.path("empty.bullet");
    write(&path, &Header::default(), &[]).unwrap();
    let file = BulletFile::open_verified(&path).unwrap();
    assert!(file.is_empty());
    assert_eq!(file.header(), &Header::default());
}

#[test]
fn floats_in_the_header_are_exact() {
    let folder = Folder::new();
    let path = folder.path("floats.bullet");
    let floats: Vec<f64> = (1..2000).map(|i| f64::from(i).sqrt() * 10f64.powi(i % 40 - 20)).collect();
    let header = Header { training: Some(json!({ "lr": floats })), ..Header::default() };
    write(&path, &header, &[]).unwrap();
    assert_eq!(BulletFile::open(&path).unwrap().header(), &header);
}

/// The guarantee of the format: no bit of a file can flip unseen.
#[test]
fn every_flipped_bit_is_found() {
    let folder = Folder::new();
    let bytes = sample(&folder.path("model.bullet"));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let result = BulletFile::from_bytes(damaged).and_then(|f| f.verify());
            assert!(result.is_err(), "bit {bit} of byte {at} of {} flipped unseen", bytes.len());
        }
    }
}

#[test]
fn every_truncation_and_extension_is_found() {
    let folder = Folder::new();
    let bytes = sample(&folder.path("model.bullet"));
    for len in 0..bytes.len() {
        assert!(BulletFile::from_bytes(bytes[..len].to_vec()).is_err(), "cut to {len} of {}", bytes.len());
    }
    let cut = BulletFile::from_bytes(bytes[..bytes.len() - 1].to_vec()).unwrap_err();
    let expected = format!("it has {} bytes and should have {}", bytes.len() - 1, bytes.len());
    assert!(cut.kind == ErrorKind::Corrupt && cut.message.contains(&expected), "{cut}");
    let long = [&bytes[..], &[0]].concat();
    assert!(BulletFile::from_bytes(long).unwrap_err().message.contains("extra bytes at its end"));
}

#[track_caller]
fn refused(bytes: Vec<u8>, kind: ErrorKind, words: &str) {
    let e = BulletFile::from_bytes(bytes).expect_err(words);
    assert!(
        e.kind == kind && e.message.contains(words),
        "wanted {kind:?} with {words:?}, got {:?}: {e}",
        e.kind
    );
}

#[test]
fn lengths_of_any_size_are_refused_without_allocating() {
    let folder = Folder::new();
    let bytes = sample(&folder.path("model.bullet"));
    for (length, words) in [
        (u64::MAX, "the header claims 18446744073709551615 bytes"),
        (1 << 63, "the header claims"),
        ((64 << 20) + 1, "the format allows 67108864"),
        (64 << 20, "but only"),
        (bytes.len() as u64, "but only"),
        (1, "does not match its checksum"),
    ] {
        let mut hostile = bytes.clone();
        hostile[16..24].copy_from_slice(&length.to_le_bytes());
        refused(hostile, ErrorKind::Corrupt, words);
    }
}

#[test]
fn other_versions_are_named() {
    let folder = Folder::new();
    let mut bytes = sample(&folder.path("model.bullet"));
    bytes[8] = 7;
    refused(bytes, ErrorKind::Unsupported, "format version 7; this build reads version 1: update Bullet");
}

#[test]
fn other_files_are_told_by_what_they_look_like() {
    let folder = Folder::new();
    let st = folder.path("model.safetensors");
    write_safetensors(&st, &Header::default(), &views(&sample_tensors())).unwrap();
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(Vec<u8>, &str); 14] = [
        (std::fs::read(&st).unwrap(), "this is a safetensors file; convert it with `bullet convert`"),
        (b"PK\x03\x04\0\0archive/data.pkl".to_vec(), "PyTorch checkpoint"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "pickle"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "gzip"),
        (b"\x28\xb5\x2f\xfd\0\0".to_vec(), "Zstandard"),
        (b"GGUF\x03\0\0\0".to_vec(), "GGUF"),
        (b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "HDF5"),
        (b"\x93NUMPY\x01\0".to_vec(), "NumPy"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
        ("Erste Zeile, größer".as_bytes().to_vec(), "text file"),
        (vec![0; 4096], "only zeros"),
        (Vec::new(), "the file is empty"),
        (tar, "tar archive"),
    ];
    for (bytes, words) in cases {
        refused(bytes, ErrorKind::Unsupported, words);
    }
    refused(b"\xde\xad\xbe\xef\xff\xff".to_vec(), ErrorKind::Unsupported, "first bytes, de ad be ef ff ff");
    refused(b"\x09BULLT\r\n".to_vec(), ErrorKind::Unsupported, "text mode");
    refused(format::MAGIC.to_vec(), ErrorKind::Corrupt, "cut off");
}

/// A well-formed header, checksum and all, with tensors as `json` has them over a data section of `data` bytes.
fn hostile_tensors(tensors: Value, data: usize) -> Vec<u8> {
    assemble(&json!({ "model": null, "tensors": tensors }), &vec![0; data])
}

fn entry(name: &str, shape: Value, offset: u64, bytes: u64) -> Value {
    let crc = format!("{:08x}", crc32c::crc32c(&vec![0; (bytes as usize).min(1 << 20)]));
    json!({ "name": name, "dtype": "f32", "shape": shape, "offset": offset, "bytes": bytes, "crc32c": crc })
}

#[test]
fn the_hand_made_files_of_these_tests_are_otherwise_sound() {
    let two = json!([entry("a", json!([4]), 0, 16), entry("b", json!([2, 2]), 64, 16)]);
    BulletFile::from_bytes(hostile_tensors(two, 80)).and_then(|f| f.verify()).unwrap();
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let max = u64::MAX;
    for (tensors, data, words) in [
        (
            json!([entry("a", json!([4]), 0, 16), entry("b", json!([4]), 0, 16)]),
            80,
            "overlaps the one before it",
        ),
        (json!([entry("a", json!([32]), 0, 128), entry("b", json!([4]), 64, 16)]), 128, "overlaps"),
        (json!([entry("a", json!([4]), 64, 16)]), 16, "lies outside the file"),
        (json!([entry("a", json!([4]), max - 8, 16)]), 16, "lies outside the file"),
        (json!([entry("a", json!([4]), max - 63, 16)]), 16, "lies outside the file"),
        (json!([entry("a", json!([4]), 0, 16), entry("b", json!([4]), 20, 16)]), 80, "misaligned"),
        (json!([entry("a", json!([4]), 64, 16)]), 80, "gap before tensor \"a\""),
        (json!([entry("a", json!([4]), 0, 16)]), 64, "48 bytes after the last tensor"),
        (json!([entry("a", json!([4]), 0, 12)]), 12, "but [4] of f32 need 16"),
        (json!([entry("a", json!([1u64 << 62, 4]), 0, 16)]), 16, "overflows"),
        (json!([entry("a", json!([1u64 << 62]), 0, 16)]), 16, "overflows"),
        (json!([entry("a", json!([max, max, max]), 0, 16)]), 16, "overflows"),
        (json!([entry("a", json!([4]), 0, 16), entry("a", json!([4]), 64, 16)]), 80, "same name \"a\""),
        (json!([entry("a", json!([-4]), 0, 16)]), 16, "not what the format prescribes"),
        (json!([entry("a", json!([4.5]), 0, 16)]), 16, "not what the format prescribes"),
        (json!([{ "name": "a" }]), 16, "missing field"),
        (json!("none"), 16, "not what the format prescribes"),
    ] {
        refused(hostile_tensors(tensors, data), ErrorKind::Corrupt, words);
    }
    let mut odd = entry("a", json!([4]), 0, 16);
    odd["dtype"] = json!("f8");
    refused(hostile_tensors(json!([odd]), 16), ErrorKind::Unsupported, "dtype \"f8\"");
    for crc in ["", "0", "+1234567", "ABCDEF01", "123456789", "ü234567"] {
        let mut odd = entry("a", json!([4]), 0, 16);
        odd["crc32c"] = json!(crc);
        refused(hostile_tensors(json!([odd]), 16), ErrorKind::Corrupt, "8 hexadecimal digits");
    }
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (json, words) in [
        ("", "EOF"),
        ("[]", "prescribes"),
        ("{\"model\":null}", "missing field `tensors`"),
        ("{\"model\":null,\"tensors\":[],\"extra\":1}", "unknown field `extra`"),
        ("{\"model\":null,\"tensors\":[],\"tensors\":[]}", "duplicate field"),
        ("{\"model\":null,\"tensors\":[]} x", "trailing characters"),
        ("{\"model\":\"\u{0}\",\"tensors\":[]}", "control character"),
        (&format!("{{\"model\":{deep},\"tensors\":[]}}"), "recursion limit"),
        ("{\"model\":1,\"tensors\":[],\"tokenizer\":{\"kind\":\"bpe\",\"merges\":[[1,256]]}}", "merge 0"),
        ("{\"model\":1,\"tensors\":[],\"tokenizer\":{\"kind\":\"char\",\"alphabet\":\"ba\"}}", "not sorted"),
        ("{\"model\":1,\"tensors\":[],\"tokenizer\":{\"kind\":\"word\"}}", "unknown variant"),
    ] {
        refused(with_json(json.as_bytes(), &[]), ErrorKind::Corrupt, words);
    }
    refused(with_json(b"\xff\xfe{}", &[]), ErrorKind::Corrupt, "prescribes");
}

#[test]
fn a_merge_bomb_does_not_fill_memory() {
    // Each merge doubles the token: 2^60 bytes if it were believed.
    let merges: Vec<[u32; 2]> = (0..60).map(|i| if i == 0 { [97, 97] } else { [255 + i, 255 + i] }).collect();
    let header = json!({ "model": null, "tensors": [], "tokenizer": { "kind": "bpe", "merges": merges } });
    refused(assemble(&header, &[]), ErrorKind::Corrupt, "makes a token of 512 bytes");
}

#[test]
fn wrong_calls_of_the_writer_are_refused() {
    let folder = Folder::new();
    let path = folder.path("w.bullet");
    let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![2] };
    let start = || Writer::create(&path, &Header::default(), &[spec("a"), spec("b")]).unwrap();
    let mut writer = start();
    assert!(writer.tensor("b", &[0; 8]).unwrap_err().message.contains("came where \"a\" was due"));
    assert!(writer.tensor("a", &[0; 4]).unwrap_err().message.contains("4 bytes; its shape and dtype need 8"));
    drop(writer);
    assert!(start().finish().unwrap_err().message.contains("\"a\" was announced, not written"));
    let twice = Writer::create(&path, &Header::default(), &[spec("a"), spec("a")]).unwrap_err();
    assert!(twice.kind == ErrorKind::Argument && twice.message.contains("same name"));
    let huge = TensorSpec { shape: vec![usize::MAX, 3], ..spec("h") };
    assert!(Writer::create(&path, &Header::default(), &[huge]).unwrap_err().message.contains("overflows"));
    let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
    let header = Header { model: deep, ..Header::default() };
    assert!(write(&path, &header, &[]).unwrap_err().message.contains("could not be read again"));
    assert_eq!(folder.names(), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn safetensors_round_trip_is_byte_identical() {
    let folder = Folder::new();
    let [a, st, b] = ["a.bullet", "m.safetensors", "b.bullet"].map(|n| folder.path(n));
    let bytes = sample(&a);
    convert(&a, &st).unwrap();
    convert(&st, &b).unwrap();
    assert_eq!(std::fs::read(&b).unwrap(), bytes);
    // And each format on its own keeps everything.
    let file = ModelFile::open(&st).unwrap();
    assert!(matches!(file, ModelFile::Safetensors(_)));
    assert_eq!(file.header(), &sample_header());
    assert_eq!(file.tensors(), views(&sample_tensors()));
    assert!(convert(&a, folder.path("m.onnx")).unwrap_err().message.contains(".bullet or .safetensors"));
}

/// The other implementation agrees on what we wrote.
#[test]
fn the_safetensors_crate_reads_our_files() {
    let folder = Folder::new();
    let path = folder.path("m.safetensors");
    let tensors = sample_tensors();
    write_safetensors(&path, &sample_header(), &views(&tensors)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.len(), tensors.len());
    for t in views(&tensors) {
        let view = theirs.tensor(t.name).unwrap();
        assert_eq!((view.shape(), view.data()), (t.shape, t.bytes));
        assert_eq!(view.dtype().to_string(), t.dtype.name().to_uppercase());
        assert_eq!((view.data().as_ptr() as usize - bytes.as_ptr() as usize) % t.dtype.size(), 0);
    }
}

#[test]
fn foreign_safetensors_files_are_read() {
    use safetensors::tensor::{Dtype, TensorView};
    let data: Vec<u8> = (0..24).collect();
    let view = TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let bytes = safetensors::serialize([("w", view)], Some(metadata)).unwrap();
    let file = SafetensorsFile::from_bytes(bytes).unwrap();
    let want = TensorRef { name: "w", dtype: DType::F32, shape: &[2, 3], bytes: &data };
    assert_eq!(file.tensor("w").unwrap(), want);
    assert_eq!(file.header().metadata, BTreeMap::from([("format".into(), "pt".into())]));
    assert_eq!(file.header().model, Value::Null);

    let view = TensorView::new(Dtype::F8_E4M3, vec![24], &data).unwrap();
    let bytes = safetensors::serialize([("w8", view)], None).unwrap();
    let e = SafetensorsFile::from_bytes(bytes).unwrap_err();
    assert!(e.kind == ErrorKind::Unsupported && e.message.contains("\"w8\" has dtype F8_E4M3"), "{e}");
}

#[test]
fn a_bool_that_is_neither_0_nor_1_is_refused() {
    let folder = Folder::new();
    for (bytes, sound) in [([0u8, 1, 1], true), ([0, 2, 1], false), ([0xFF, 0, 0], false)] {
        let mask = TensorRef { name: "mask", dtype: DType::Bool, shape: &[3], bytes: &bytes };
        let path = folder.path("m.safetensors");
        write_safetensors(&path, &sample_header(), &[mask]).unwrap();
        let safetensors = SafetensorsFile::open(&path).map(drop);
        let path = folder.path("m.bullet");
        format::write(&path, &sample_header(), &[mask]).unwrap();
        let bullet = BulletFile::open(&path).and_then(|f| f.verify());
        for result in [safetensors, bullet] {
            assert_eq!(result.is_ok(), sound, "{bytes:?}");
            let Err(e) = result else { continue };
            assert!(e.kind == ErrorKind::Corrupt && e.message.contains("\"mask\" is of bools"), "{e}");
        }
    }
}

#[test]
fn damaged_safetensors_files_are_refused() {
    let folder = Folder::new();
    let path = folder.path("m.safetensors");
    write_safetensors(&path, &sample_header(), &views(&sample_tensors())).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        assert!(SafetensorsFile::from_bytes(bytes[..len].to_vec()).is_err(), "cut to {len}");
    }
    let e = SafetensorsFile::from_bytes(bytes[..bytes.len() - 1].to_vec()).unwrap_err();
    assert!(e.kind == ErrorKind::Corrupt && e.message.contains("cut off"), "{e}");
    let bullet = sample(&folder.path("m.bullet"));
    let e = SafetensorsFile::from_bytes(bullet).unwrap_err();
    assert!(e.message.contains("this is a .bullet file"), "{e}");
    let e = SafetensorsFile::from_bytes(b"PK\x03\x04".to_vec()).unwrap_err();
    assert!(e.message.contains("zip archive"), "{e}");
}

#[test]
fn tokenizers_survive_in_the_header() {
    let folder = Folder::new();
    for tokenizer in [
        Tokenizer::train_char("hello \"wörld\"\n\u{1}").unwrap(),
        Tokenizer::train_bpe("low lower lowest", 260).unwrap(),
    ] {
        let header = Header { tokenizer: Some(tokenizer), ..Header::default() };
        for name in ["t.bullet", "t.safetensors"] {
            let path = folder.path(name);
            let write = if name.ends_with("bullet") { write } else { write_safetensors };
            write(&path, &header, &[]).unwrap();
            assert_eq!(ModelFile::open(&path).unwrap().header(), &header);
        }
    }
}
