//! Mutated model files: whatever the bytes, opening gives a file or an error, never a panic or a large allocation, and
//! a file that opens can be read to its last tensor.
//!
//! Runs two seconds; `BULLET_FUZZ_SECONDS=600` runs longer, `BULLET_FUZZ_SEED=n` elsewhere. A failure prints the input
//! in hexadecimal.

mod files;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bullet_nn::format::{BulletFile, SafetensorsFile, write, write_safetensors};
use bullet_nn::rng::Rng;
use files::{Folder, sample_header, sample_tensors, views, with_json};

/// The system's allocator, noting the largest request of each thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // Not accessible while a thread ends; nothing is measured then.
    let _ = LARGEST.try_with(|l| l.set(l.get().max(size)));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: `pointer` came from `System` with this layout; the caller's promise about `size` is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Numbers at which lengths and offsets go wrong.
const EDGES: [u64; 14] =
    [0, 1, 7, 8, 31, 32, 63, 64, (64 << 20) + 1, 1 << 31, 1 << 32, i64::MAX as u64, u64::MAX - 63, u64::MAX];

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Rng| corpus[rng.below(corpus.len() as u64) as usize].clone();
    let mut bytes = pick(rng);
    for _ in 0..1 + rng.below(4) {
        let n = bytes.len() as u64;
        let at = rng.below(n) as usize;
        match rng.below(9) {
            _ if n < 2 => bytes = pick(rng),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                // A splice: the start of one file, the end of another.
                let other = pick(rng);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.below(other.len() as u64) as usize..]);
            }
            4 => {
                // A length field of the prelude.
                let field = [0, 8, 16, 24][rng.below(4) as usize].min(bytes.len().saturating_sub(8));
                let value = match rng.below(3) {
                    0 => rng.next_u64(),
                    1 => n.wrapping_add(rng.below(17)).wrapping_sub(8),
                    _ => EDGES[rng.below(EDGES.len() as u64) as usize],
                };
                let end = bytes.len().min(field + 8);
                bytes[field..end].copy_from_slice(&value.to_le_bytes()[..end - field]);
            }
            5 | 6 => edit_number(rng, &mut bytes),
            7 => {
                let end = (at + 1 + rng.below(40) as usize).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.below(n) as usize;
                bytes.splice(to..to, copy);
            }
            _ => {
                bytes.drain(at..(at + 1 + rng.below(40) as usize).min(bytes.len()));
            }
        }
    }
    // Most changes to a header would end at its checksum: mend it, to get behind it.
    if rng.below(4) != 0 { mend(&bytes).unwrap_or(bytes) } else { bytes }
}

/// Replaces a decimal number of the JSON: shapes, offsets, lengths, ids.
fn edit_number(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let digits: Vec<usize> = (1..bytes.len().min(4096))
        .filter(|&i| bytes[i].is_ascii_digit() && !bytes[i - 1].is_ascii_digit())
        .collect();
    if digits.is_empty() {
        return;
    }
    let start = digits[rng.below(digits.len() as u64) as usize];
    let end = (start..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
    let value = match rng.below(4) {
        0 => "-1".to_string(),
        1 => rng.below(300).to_string(),
        2 => (64 * rng.below(40)).to_string(),
        _ => EDGES[rng.below(EDGES.len() as u64) as usize].to_string(),
    };
    bytes.splice(start..end, value.into_bytes());
}

/// The same `.bullet` file with lengths and header checksum made right, if it still has a header to find.
fn mend(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(&bullet_nn::format::MAGIC) {
        return None;
    }
    let rest = bytes.get(32..)?;
    let (json, tail) = rest.split_at(rest.iter().position(|&b| b == 0).unwrap_or(rest.len()));
    // The corpus has no tensor data that begins with a zero, so that the padding ends where the zeros do.
    let padding = tail.iter().position(|&b| b != 0).unwrap_or(tail.len());
    Some(with_json(json, &tail[padding..]))
}

/// Whether it opened.
fn exercise(bytes: Vec<u8>) -> bool {
    let touch = |sum: u64, b: &u8| sum.wrapping_add(u64::from(*b));
    let mut opened = false;
    if let Ok(file) = BulletFile::from_bytes(bytes.clone()) {
        opened = true;
        let _ = file.verify();
        let total: usize = file.tensors().map(|t| t.bytes.len()).sum();
        assert!(total <= bytes.len(), "tensors do not overlap");
        std::hint::black_box(
            file.tensors().map(|t| t.bytes.iter().fold(0, touch)).fold(0, u64::wrapping_add),
        );
        let header = file.header();
        if let Some(tokenizer) = &header.tokenizer {
            let (ids, _) = tokenizer.encode_lossy("the cat é 😀");
            tokenizer.decode(&ids).expect("its own ids decode");
        }
    }
    if let Ok(file) = SafetensorsFile::from_bytes(bytes) {
        opened = true;
        std::hint::black_box(
            file.tensors().map(|t| t.bytes.iter().fold(0, touch)).fold(0, u64::wrapping_add),
        );
    }
    opened
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn fuzz_mutated_files_never_panic_and_never_allocate_much() {
    let folder = Folder::new();
    let (bullet, st) = (folder.path("m.bullet"), folder.path("m.safetensors"));
    let tensors = sample_tensors();
    write(&bullet, &sample_header(), &views(&tensors)).unwrap();
    write_safetensors(&st, &sample_header(), &views(&tensors)).unwrap();
    let small = with_json(
        br#"{"model":null,"tokenizer":{"kind":"char","alphabet":"abc"},"tensors":[{"name":"a","dtype":"u8","shape":[2,2],"offset":0,"bytes":4,"crc32c":"00000000"}]}"#,
        &[1, 2, 3, 4],
    );
    let corpus = [std::fs::read(bullet).unwrap(), std::fs::read(st).unwrap(), small];
    let mut rng = Rng::new(number("BULLET_FUZZ_SEED").unwrap_or(0), 0, 0);
    let limit = Duration::from_secs(number("BULLET_FUZZ_SECONDS").unwrap_or(2));
    let start = Instant::now();
    let (mut runs, mut opened, mut largest) = (0u64, 0u64, 0);
    while start.elapsed() < limit {
        let bytes = mutate(&mut rng, &corpus);
        let size = bytes.len();
        let copy = bytes.clone();
        LARGEST.with(|l| l.set(0));
        match catch_unwind(AssertUnwindSafe(|| exercise(bytes))) {
            Ok(ok) => opened += u64::from(ok),
            Err(_) => panic!("run {runs} failed on {}", hex(&copy)),
        }
        // A parsed number or string takes more room than its text, by a constant; no length field is believed.
        let allowed = 40 * size + 8192;
        let asked = LARGEST.with(Cell::get);
        largest = largest.max(asked);
        assert!(asked <= allowed, "run {runs} allocated {asked} bytes for a file of {size}: {}", hex(&copy));
        runs += 1;
    }
    println!("{runs} runs, {opened} opened, largest allocation {largest} bytes");
    assert!(runs > 100 && opened > runs / 1000, "mutations reach the inside: {opened} of {runs} opened");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
