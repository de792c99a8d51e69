//! Any bytes as a `.bullet` file: `cargo +nightly fuzz run bullet_file` in crates/nn.
//!
//! The bytes are tried as they are and as the header and data of a file whose prelude is right, since no fuzzer
//! guesses a checksum.
#![no_main]

use bullet_nn::format::{BulletFile, MAGIC, VERSION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    exercise(bytes.to_vec());
    let json = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let (json, data) = (&bytes[..json], bytes.get(json + 1..).unwrap_or_default());
    exercise(assemble(json, data));
});

fn exercise(bytes: Vec<u8>) {
    let size = bytes.len();
    let Ok(file) = BulletFile::from_bytes(bytes) else { return };
    let _ = file.verify();
    assert!(file.tensors().map(|t| t.bytes.len()).sum::<usize>() <= size);
    if let Some(tokenizer) = &file.header().tokenizer {
        let (ids, _) = tokenizer.encode_lossy("the cat é 😀");
        tokenizer.decode(&ids).expect("its own ids decode");
    }
}

fn assemble(json: &[u8], data: &[u8]) -> Vec<u8> {
    let start = (32 + json.len()).next_multiple_of(64);
    let mut file = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4]].concat();
    file.extend((json.len() as u64).to_le_bytes());
    file.extend(((start + data.len()) as u64).to_le_bytes());
    file.extend(json);
    let crc = crc32c([&file[..12], &file[16..]].concat());
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    file.resize(start, 0);
    file.extend(data);
    file
}

fn crc32c(bytes: Vec<u8>) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}
