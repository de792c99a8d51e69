//! The pool: random sequences against a model, many threads, limits, pressure.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use bullet_runtime::{Buffer, Device, DeviceOptions, ErrorKind, FaultDriver, Faults, HostDriver};
use common::{Rng, faulty};

fn limited(limit: usize) -> (Device, Arc<FaultDriver>) {
    let driver = Arc::new(FaultDriver::new(Arc::new(HostDriver::new()), Faults::default()));
    let options = DeviceOptions { memory_limit: Some(limit), ..DeviceOptions::default() };
    (Device::with_options(driver.clone(), options), driver)
}

/// Marks both ends of a buffer with its tag.
fn tag(buffer: &mut Buffer, tag: u8) {
    let last = buffer.len() - 1;
    buffer.write(0, &[tag]).unwrap();
    buffer.write(last, &[tag]).unwrap();
}

fn check_tag(buffer: &Buffer, tag: u8) {
    let (mut first, mut last) = ([0], [0]);
    buffer.read(0, &mut first).unwrap();
    buffer.read(buffer.len() - 1, &mut last).unwrap();
    assert_eq!((first, last), ([tag], [tag]), "somebody else wrote into {buffer:?}");
}

#[test]
fn random_sequences_match_a_model() {
    for seed in 1..=12 {
        let mut rng = Rng(seed * 0x9E37_79B9);
        let limit = 8 << 20;
        let (device, driver) = limited(limit);
        let mut live: BTreeMap<u64, (Buffer, u8)> = BTreeMap::new();
        let mut used = 0;
        for step in 0..3000 {
            if rng.below(100) < 52 || live.is_empty() {
                let bytes = rng.size(1 << 20);
                match device.alloc(bytes) {
                    Ok(mut buffer) => {
                        assert_eq!((buffer.len(), buffer.ptr().0 % 64), (bytes, 0));
                        let at = buffer.ptr().0;
                        let below = live.range(..at).next_back();
                        assert!(below.is_none_or(|(&p, (b, _))| p + b.len() as u64 <= at), "overlap below");
                        let above = live.range(at..).next();
                        assert!(above.is_none_or(|(&p, _)| at + bytes as u64 <= p), "overlap above");
                        tag(&mut buffer, step as u8);
                        used += bytes;
                        live.insert(at, (buffer, step as u8));
                    }
                    Err(e) => {
                        let ErrorKind::OutOfMemory(oom) = &e.kind else { panic!("{e}") };
                        assert_eq!((oom.requested, oom.used, oom.buffers), (bytes, used, live.len()));
                        assert_eq!(oom.cached, 0, "an error came before the cache was empty");
                        assert!(used + oom.padding + bytes + bytes / 8 + 64 > limit, "there was room: {e}");
                    }
                }
            } else {
                let key = *live.keys().nth(rng.below(live.len())).unwrap();
                let (buffer, t) = live.remove(&key).unwrap();
                check_tag(&buffer, t);
                used -= buffer.len();
            }
            let stats = device.memory_stats();
            assert_eq!((stats.used, stats.buffers), (used, live.len()));
            assert!(stats.padding <= used / 8 + 64 * live.len());
            assert!(stats.held() <= limit && stats.peak_held <= limit && stats.peak >= used);
            assert_eq!(stats.held(), driver.counts().live_bytes);
        }
        assert!(device.memory_stats().hits > 500);
        drop(live);
        let stats = device.memory_stats();
        assert_eq!((stats.used, stats.padding, stats.buffers), (0, 0, 0));
        assert_eq!(device.trim(), stats.cached);
        assert_eq!(driver.counts().live_bytes, 0);
        assert!(driver.counts().peak_bytes <= limit);
    }
}

#[test]
fn a_freed_block_comes_back() {
    let (device, driver) = faulty(Faults::default());
    let first = device.alloc(5000).unwrap();
    let at = first.ptr();
    drop(first);
    // 5000 and 5100 share a class (4608, 5120].
    assert_eq!(device.alloc(5100).unwrap().ptr(), at);
    let stats = device.memory_stats();
    assert_eq!((stats.allocations, stats.hits, driver.counts().allocs), (2, 1, 1));
    assert_eq!((stats.peak, stats.used, stats.cached), (5100, 0, 5120));
    device.reset_peak();
    assert_eq!(device.memory_stats().peak, 0);
}

#[test]
fn pressure_empties_the_cache_before_it_fails() {
    let (device, _) = limited(1 << 20);
    // Fill the cache with one size, then ask for another that fits only without it.
    let small: Vec<Buffer> = (0..15).map(|_| device.alloc(64 << 10).unwrap()).collect();
    drop(small);
    assert_eq!(device.memory_stats().cached, 15 * (64 << 10));
    let big = device.alloc(700 << 10).unwrap();
    let stats = device.memory_stats();
    assert!(stats.cached > 0, "more was given up than had to be");
    assert!(stats.held() <= 1 << 20);
    let e = device.alloc(512 << 10).unwrap_err();
    assert!(e.message.contains("512.0 KiB requested; 700.0 KiB in use by 1 buffer "), "{e}");
    assert!(e.message.contains("largest free block 64.0 KiB"), "{e}");
    assert!(e.message.contains("limit 1.0 MiB. Raise BULLET_MEMORY_LIMIT"), "{e}");
    drop(big);
    assert!(device.alloc(512 << 10).is_ok());
}

#[test]
fn a_full_driver_gets_the_cache_back_first() {
    let (device, driver) = faulty(Faults { capacity: Some(1 << 20), ..Faults::default() });
    drop(device.alloc(600 << 10).unwrap());
    assert!(device.alloc(700 << 10).is_ok());
    let e = device.alloc(2 << 20).unwrap_err();
    let ErrorKind::OutOfMemory(oom) = &e.kind else { panic!("{e}") };
    assert_eq!((oom.cached, oom.device_free), (0, Some(1 << 20)));
    assert_eq!(driver.counts().live_bytes, 0);
    // A fragmented device: the bytes are there by count, but not in one piece.
    driver.set_faults(Faults { largest_alloc: Some(100 << 10), ..Faults::default() });
    let _held = device.alloc(80 << 10).unwrap();
    assert!(device.alloc(200 << 10).unwrap_err().is_out_of_memory());
}

#[test]
fn absurd_sizes_are_errors() {
    let device = Device::cpu();
    for bytes in [usize::MAX, usize::MAX / 2, 1 << 49, isize::MAX as usize] {
        assert!(device.alloc(bytes).unwrap_err().is_out_of_memory());
    }
}

#[test]
fn empty_buffers_are_harmless() {
    let device = Device::cpu();
    let mut empty = device.alloc(0).unwrap();
    assert!(empty.is_empty() && !empty.host_ptr().unwrap().is_null());
    assert_eq!(empty.ptr().0 % 256, 0);
    empty.write(0, &[]).unwrap();
    empty.read(0, &mut []).unwrap();
    assert_eq!(empty.write(0, &[1]).unwrap_err().kind, ErrorKind::InvalidArgument);
    let mut other = device.alloc(4).unwrap();
    other.copy_from(&empty).unwrap();
    assert!(empty.copy_from(&other).is_err());
}

#[test]
fn ranges_are_checked() {
    let device = Device::cpu();
    let mut buffer = device.alloc(10).unwrap();
    buffer.write(8, &[1, 2]).unwrap();
    for (offset, bytes) in [(9, 2), (11, 0), (usize::MAX, 1), (0, 11)] {
        assert!(buffer.write(offset, &vec![0; bytes]).is_err(), "{offset} {bytes}");
        assert!(buffer.read(offset, &mut vec![0; bytes]).is_err(), "{offset} {bytes}");
    }
    let mut copy = device.alloc(12).unwrap();
    copy.copy_from(&buffer).unwrap();
    let mut out = [0; 2];
    copy.read(8, &mut out).unwrap();
    assert_eq!(out, [1, 2]);
    assert!(buffer.copy_from(&copy).is_err());
    // Across devices, by way of the host.
    let mut far = Device::with_driver(Arc::new(HostDriver::new())).alloc(10).unwrap();
    far.copy_from(&buffer).unwrap();
    far.read(8, &mut out).unwrap();
    assert_eq!(out, [1, 2]);
}

#[test]
fn poison_shows_what_was_not_written() {
    let options = DeviceOptions { poison: true, ..DeviceOptions::default() };
    let device = Device::with_options(Arc::new(HostDriver::new()), options);
    for _ in 0..2 {
        let mut buffer = device.alloc(400).unwrap();
        let mut out = [0; 400];
        buffer.read(0, &mut out).unwrap();
        assert_eq!(out, [0xFF; 400]);
        buffer.write(0, &[0; 400]).unwrap();
    }
    assert_eq!(device.memory_stats().hits, 1);
}

#[test]
fn threads_share_a_pool() {
    let limit = 4 << 20;
    let (device, driver) = limited(limit);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let device = &device;
            scope.spawn(move || {
                let mut rng = Rng(thread * 77 + 5);
                let mut live: Vec<Buffer> = Vec::new();
                for _ in 0..4000 {
                    // What eight threads hold at most, (8 buffers of 48 KiB) x 8 = 3 MiB and padding, always fits.
                    if live.len() < 8 && rng.below(2) == 0 {
                        let mut buffer = device.alloc(rng.size(48 << 10)).expect("there is room for all");
                        tag(&mut buffer, thread as u8);
                        live.push(buffer);
                    } else if !live.is_empty() {
                        let buffer = live.swap_remove(rng.below(live.len()));
                        check_tag(&buffer, thread as u8);
                    }
                    assert!(device.memory_stats().held() <= limit);
                }
            });
        }
    });
    let stats = device.memory_stats();
    assert_eq!((stats.used, stats.padding, stats.buffers), (0, 0, 0));
    assert!(driver.counts().peak_bytes <= limit);
    drop(device);
    assert_eq!(driver.counts().live_bytes, 0);
}

#[test]
fn threads_under_pressure_never_pass_the_limit() {
    let limit = 256 << 10;
    let (device, driver) = limited(limit);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let device = &device;
            scope.spawn(move || {
                let mut rng = Rng(thread * 31 + 7);
                let mut live: Vec<Buffer> = Vec::new();
                for _ in 0..3000 {
                    match device.alloc(rng.size(96 << 10)) {
                        Ok(mut buffer) => {
                            tag(&mut buffer, thread as u8);
                            live.push(buffer);
                        }
                        Err(e) => assert!(e.is_out_of_memory(), "{e}"),
                    }
                    if live.len() > 2 {
                        check_tag(&live.swap_remove(0), thread as u8);
                    }
                }
            });
        }
    });
    let counts = driver.counts();
    assert!(counts.peak_bytes <= limit, "{} of {limit}", counts.peak_bytes);
    assert!(counts.frees > 1000, "there was no pressure: {} frees", counts.frees);
}
