//! What the tests of model files share: folders that vanish, a sample model, files put together by hand.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bullet_nn::format::{Header, MAGIC, TensorRef, TensorSpec, VERSION};
use bullet_nn::tokenizer::Tokenizer;
use bullet_ops::DType;
use serde_json::{Value, json};

/// A fresh folder, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bullet-nn-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Every entry, hidden ones too, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn sample_header() -> Header {
    Header {
        model: json!({ "kind": "gpt", "layers": 2, "dropout": 0.1, "name": "größe \u{1F600}" }),
        tokenizer: Some(Tokenizer::train_bpe("the cat sat on the mat, the cat sat", 270).unwrap()),
        training: Some(json!({ "step": 18446744073709551615u64, "lr": 0.1 + 0.2, "scale": 65536.0 })),
        metadata: [("author", "ä\n\"b\""), ("bullet.model", "not ours"), ("", "")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into(),
    }
}

/// Every dtype, in an order that is neither by size nor by name; a scalar, and empty tensors.
pub(crate) fn sample_tensors() -> Vec<(TensorSpec, Vec<u8>)> {
    let mut specs = vec![("embedding", DType::F32, vec![3, 5]), ("scalar", DType::F64, vec![])];
    specs.push(("empty.b", DType::I64, vec![0, 7]));
    specs.push(("empty.a", DType::F32, vec![4, 0]));
    let names = ["z0", "z1", "a2", "z3", "z4", "b5", "z6", "z7", "z8", "c9"];
    specs.extend(names.into_iter().zip(DType::ALL).map(|(name, dtype)| (name, dtype, vec![3])));
    let mut next = 0u8;
    let build = |(name, dtype, shape): (&str, DType, Vec<usize>)| {
        let spec = TensorSpec { name: name.to_string(), dtype, shape };
        let bytes = (0..spec.byte_len().unwrap())
            .map(|_| {
                next = next.wrapping_mul(5).wrapping_add(17);
                if dtype == DType::Bool { next & 1 } else { next }
            })
            .collect();
        (spec, bytes)
    };
    specs.into_iter().map(build).collect()
}

pub(crate) fn views(tensors: &[(TensorSpec, Vec<u8>)]) -> Vec<TensorRef<'_>> {
    tensors
        .iter()
        .map(|(spec, bytes)| TensorRef { name: &spec.name, dtype: spec.dtype, shape: &spec.shape, bytes })
        .collect()
}

/// A `.bullet` file with this header and data, written from the specification and not with the library.
pub(crate) fn assemble(header: &Value, data: &[u8]) -> Vec<u8> {
    with_json(header.to_string().as_bytes(), data)
}

/// As [`assemble`], where the header need not even be JSON.
pub(crate) fn with_json(json: &[u8], data: &[u8]) -> Vec<u8> {
    let start = (32 + json.len()).next_multiple_of(64);
    let mut file = Vec::new();
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    let mut rest = Vec::new();
    rest.extend((json.len() as u64).to_le_bytes());
    rest.extend(((start + data.len()) as u64).to_le_bytes());
    rest.extend(json);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&file), &rest);
    file.extend(crc.to_le_bytes());
    file.extend(rest);
    file.resize(start, 0);
    file.extend(data);
    file
}
