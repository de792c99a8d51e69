//! Any bytes as a safetensors file: `cargo +nightly fuzz run safetensors_file` in crates/nn.
#![no_main]

use bullet_nn::format::SafetensorsFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafetensorsFile::from_bytes(bytes.to_vec()) else { return };
    for t in file.tensors() {
        assert_eq!(t.spec().byte_len().expect("was checked on opening"), t.bytes.len() as u64);
    }
});
