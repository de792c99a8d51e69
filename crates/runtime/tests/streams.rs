//! Streams and events of the host driver, and how the pool keeps blocks apart across streams.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bullet_runtime::{
    Buffer, Device, DeviceOptions, ErrorKind, HostDriver, KernelArgs, Launch, LaunchConfig, Priority, Stream,
};
use common::{Flag, Gate, Rng, fill, run};

fn device() -> Device {
    Device::with_driver(Arc::new(HostDriver::new()))
}

fn two_streams(device: &Device) -> (Stream, Stream) {
    (device.stream(Priority::Normal).unwrap(), device.stream(Priority::High).unwrap())
}

/// The first byte, copied on `stream`.
fn peek(stream: &Stream, buffer: &Buffer) -> u8 {
    let mut out = [0];
    // SAFETY: in bounds, and `out` is there until the stream is done.
    unsafe { stream.device().driver().copy_to_host(stream.id(), out.as_mut_ptr(), buffer.ptr(), 1).unwrap() };
    stream.synchronize().unwrap();
    out[0]
}

#[test]
fn streams_run_behind_the_caller_and_in_order() {
    let device = device();
    let (a, _) = two_streams(&device);
    let mut buffer = a.alloc(100).unwrap();
    buffer.write(0, &[1; 100]).unwrap();
    let (gate, done) = (Gate::default(), Flag::default());
    gate.hold(&a);
    fill(&a, &buffer, 2);
    fill(&a, &buffer, 3);
    done.set_on(&a);
    assert!(!done.get(), "the stream did not wait for the gate");
    gate.open();
    a.synchronize().unwrap();
    assert!(done.get());
    assert_eq!(peek(&a, &buffer), 3);
}

#[test]
fn without_an_event_a_reader_is_early() {
    let device = device();
    let (a, b) = two_streams(&device);
    let mut buffer = a.alloc(1000).unwrap();
    buffer.write(0, &[1; 1000]).unwrap();
    buffer.record_use(&b);
    let gate = Gate::default();
    gate.hold(&a);
    fill(&a, &buffer, 2);
    assert_eq!(peek(&b, &buffer), 1, "nothing orders b behind a, so it must not wait");
    let written = device.event(false).unwrap();
    a.record(&written).unwrap();
    assert!(!written.query().unwrap());
    b.wait(&written).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            gate.open();
        });
        assert_eq!(peek(&b, &buffer), 2, "b waited for the event");
    });
    assert!(written.query().unwrap());
}

#[test]
fn a_wait_is_for_the_recording_at_that_time() {
    let device = device();
    let (a, b) = two_streams(&device);
    let event = device.event(false).unwrap();
    // Never recorded: reached.
    assert!(event.query().unwrap());
    b.wait(&event).unwrap();
    let (first, second) = (Gate::default(), Gate::default());
    a.record(&event).unwrap();
    first.hold(&a);
    b.wait(&event).unwrap();
    a.record(&event).unwrap();
    second.hold(&a);
    let done = Flag::default();
    done.set_on(&b);
    b.synchronize().unwrap();
    assert!(done.get(), "b waits for the first recording only, which is before both gates");
    assert!(!event.query().unwrap());
    first.open();
    event.synchronize().unwrap();
    second.open();
}

#[test]
fn events_measure() {
    let device = device();
    let (a, _) = two_streams(&device);
    let (start, end) = (device.event(true).unwrap(), device.event(true).unwrap());
    assert_eq!(end.elapsed_since(&start).unwrap_err().kind, ErrorKind::InvalidArgument);
    a.record(&start).unwrap();
    run(&a, || std::thread::sleep(Duration::from_millis(15)));
    a.record(&end).unwrap();
    end.synchronize().unwrap();
    assert!(end.elapsed_since(&start).unwrap() >= Duration::from_millis(15));
    let untimed = device.event(false).unwrap();
    a.record(&untimed).unwrap();
    untimed.synchronize().unwrap();
    assert!(untimed.elapsed_since(&start).unwrap_err().message.contains("without timing"));
}

#[test]
fn a_panic_is_an_error_at_the_next_synchronisation() {
    let device = device();
    let (a, b) = two_streams(&device);
    let after = Flag::default();
    run(&a, || panic!("kernel went wrong"));
    after.set_on(&a);
    let e = a.synchronize().unwrap_err();
    assert_eq!(e.kind, ErrorKind::LaunchFailed);
    assert!(e.message.contains("kernel went wrong"));
    assert!(after.get());
    a.synchronize().unwrap();
    b.synchronize().unwrap();
}

#[test]
fn what_cannot_work_says_so() {
    let device = device();
    let (a, _) = two_streams(&device);
    assert_eq!(device.driver().load_module(b"\x7fELF").unwrap_err().kind, ErrorKind::Unsupported);
    // SAFETY: the host driver refuses kernels before it looks at the handle.
    let e = unsafe {
        let function = bullet_runtime::FunctionId::from_raw(1);
        let args = KernelArgs::new();
        a.launch(Launch::Kernel { function, config: LaunchConfig::default(), args: &args }).unwrap_err()
    };
    assert_eq!(e.kind, ErrorKind::Unsupported);
    let foreign = self::device().event(false).unwrap();
    assert_eq!(a.record(&foreign).unwrap_err().kind, ErrorKind::InvalidArgument);
    // A stream that waits for itself from within would never end.
    let refused = Flag::default();
    let (stream, flag) = (a.clone(), refused.clone());
    run(&a, move || {
        assert_eq!(stream.synchronize().unwrap_err().kind, ErrorKind::InvalidArgument);
        let _ = &flag;
    });
    refused.set_on(&a);
    a.synchronize().unwrap();
    assert!(refused.get());
}

#[test]
fn a_block_goes_back_to_its_stream_at_once_and_to_others_when_passed() {
    let device = device();
    let (a, b) = two_streams(&device);
    let buffer = a.alloc(5000).unwrap();
    let at = buffer.ptr();
    let gate = Gate::default();
    gate.hold(&a);
    fill(&a, &buffer, 7);
    drop(buffer);
    // Still being written by a: b gets other memory, and does not wait for a.
    let of_b = b.alloc(5000).unwrap();
    assert_ne!(of_b.ptr(), at);
    fill(&b, &of_b, 1);
    assert_eq!(peek(&b, &of_b), 1);
    // The default stream, neither.
    assert_ne!(device.alloc(5000).unwrap().ptr(), at);
    // Its own stream has it at once, though the write is still to come.
    let again = a.alloc(5000).unwrap();
    assert_eq!(again.ptr(), at);
    drop(again);
    gate.open();
    a.synchronize().unwrap();
    // The last search left a marker only behind the first free; the next finds it passed and marks the second.
    let _other = b.alloc(5000).unwrap();
    a.synchronize().unwrap();
    assert_eq!(b.alloc(5000).unwrap().ptr(), at, "a has passed, but its block is not reused");
    assert_eq!(device.memory_stats().waits, 0);
}

#[test]
fn when_memory_is_short_a_stream_waits_for_another() {
    let options = DeviceOptions { memory_limit: Some(1 << 20), ..DeviceOptions::default() };
    let device = Device::with_options(Arc::new(HostDriver::new()), options);
    let (a, b) = two_streams(&device);
    let buffer = a.alloc(1 << 20).unwrap();
    let at = buffer.ptr();
    let gate = Gate::default();
    gate.hold(&a);
    fill(&a, &buffer, 1);
    drop(buffer);
    let reused = b.alloc(1 << 20).unwrap();
    assert_eq!((reused.ptr(), device.memory_stats().waits), (at, 1));
    fill(&b, &reused, 2);
    let filled = Flag::default();
    filled.set_on(&b);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!filled.get(), "b did not wait for a");
    gate.open();
    assert_eq!(peek(&b, &reused), 2, "b's fill came before a's");
    a.synchronize().unwrap();
    assert_eq!(peek(&b, &reused), 2, "a's fill came after b's");
}

#[test]
fn a_stream_waits_behind_the_free_not_behind_an_older_marker() {
    let options = DeviceOptions { memory_limit: Some(1 << 20), ..DeviceOptions::default() };
    let device = Device::with_options(Arc::new(HostDriver::new()), options);
    let (a, b) = two_streams(&device);
    let (first, second) = (Gate::default(), Gate::default());
    first.hold(&a);
    let early = a.alloc(64 << 10).unwrap();
    drop(early);
    // Leaves a marker on a, behind the first gate.
    let _fresh = b.alloc(64 << 10).unwrap();
    let late = a.alloc(768 << 10).unwrap();
    let at = late.ptr();
    second.hold(&a);
    fill(&a, &late, 1);
    drop(late);
    let reused = b.alloc(768 << 10).unwrap();
    assert_eq!((reused.ptr(), device.memory_stats().waits), (at, 1));
    let started = Flag::default();
    started.set_on(&b);
    first.open();
    std::thread::sleep(Duration::from_millis(20));
    assert!(!started.get(), "b went ahead while a still used the block");
    second.open();
    b.synchronize().unwrap();
}

#[test]
fn a_block_that_two_streams_used_waits_for_both() {
    let device = device();
    let (a, b) = two_streams(&device);
    let buffer = a.alloc(3000).unwrap();
    let at = buffer.ptr();
    let gate = Gate::default();
    gate.hold(&b);
    buffer.record_use(&b);
    buffer.record_use(&a);
    fill(&b, &buffer, 1);
    drop(buffer);
    let fresh = a.alloc(3000).unwrap();
    assert_ne!(fresh.ptr(), at, "b still writes there");
    gate.open();
    b.synchronize().unwrap();
    // The search above left a marker on b, behind the free.
    assert_eq!(a.alloc(3000).unwrap().ptr(), at);
}

#[test]
fn a_stream_leaves_its_blocks_to_the_default_one() {
    let device = device();
    let (a, b) = two_streams(&device);
    let (mine, shared) = (a.alloc(3000).unwrap(), b.alloc(9000).unwrap());
    shared.record_use(&a);
    let (at, shared_at) = (mine.ptr(), shared.ptr());
    drop((mine, shared));
    drop(a);
    assert_eq!(device.alloc(3000).unwrap().ptr(), at);
    assert_eq!(b.alloc(9000).unwrap().ptr(), shared_at);
    // A buffer keeps its stream alive, and trimming works whatever the streams did.
    let kept = { device.stream(Priority::Low).unwrap().alloc(64).unwrap() };
    drop((kept, b));
    let cached = device.memory_stats().cached;
    assert_eq!(device.trim(), cached);
}

#[test]
fn a_closure_may_hold_the_last_handle_of_its_stream() {
    let device = device();
    let (gate, done) = (Gate::default(), Flag::default());
    let a = device.stream(Priority::Normal).unwrap();
    let buffer = a.alloc(100).unwrap();
    gate.hold(&a);
    run(&a, move || assert_eq!(buffer.len(), 100));
    done.set_on(&a);
    drop(a);
    gate.open();
    while !done.get() {
        std::thread::yield_now();
    }
    // The next stream clears away the one that could not wait for itself.
    let b = device.stream(Priority::Normal).unwrap();
    let _again = b.alloc(100).unwrap();
    assert_eq!(device.memory_stats().buffers, 1);
}

#[test]
fn a_simulated_device_is_asynchronous_throughout() {
    let device = Device::with_driver(Arc::new(HostDriver::simulation().unwrap()));
    let mut buffer = device.alloc(1 << 16).unwrap();
    let data: Vec<u8> = (0..1 << 16).map(|i| i as u8).collect();
    buffer.write(0, &data).unwrap();
    let mut copy = device.alloc(1 << 16).unwrap();
    copy.copy_from(&buffer).unwrap();
    drop(buffer);
    let mut out = vec![0; 1 << 16];
    copy.read(0, &mut out).unwrap();
    assert_eq!(out, data);
    drop(copy);
    assert_eq!(device.trim(), 2 << 16);
}

#[test]
fn streams_and_threads_share_a_pool_without_mixing_up_memory() {
    let options = DeviceOptions { memory_limit: Some(512 << 10), poison: true };
    let device = Device::with_options(Arc::new(HostDriver::new()), options);
    std::thread::scope(|scope| {
        for thread in 1..=4u8 {
            let device = &device;
            scope.spawn(move || {
                let mut rng = Rng(u64::from(thread) * 991);
                let mut stream = device.stream(Priority::Normal).unwrap();
                for round in 0..400 {
                    let bytes = 20_000 + rng.below(20_000);
                    let buffer = stream
                        .alloc(bytes)
                        .expect("4 x 40 kB fit in 512 KiB, if streams wait for each other");
                    fill(&stream, &buffer, thread);
                    let (at, len) = (buffer.ptr().0 as usize, bytes);
                    run(&stream, move || {
                        // SAFETY: the pool keeps the memory from others until this stream has passed its drop.
                        let seen = unsafe { std::slice::from_raw_parts(at as *const u8, len) };
                        assert!(seen.iter().all(|&b| b == thread), "another stream wrote here");
                    });
                    drop(buffer);
                    if round % 50 == 49 {
                        stream.synchronize().unwrap();
                        stream = device.stream(Priority::Normal).unwrap();
                    }
                }
                stream.synchronize().unwrap();
            });
        }
    });
    let stats = device.memory_stats();
    assert_eq!((stats.used, stats.buffers), (0, 0));
    assert!(stats.peak_held <= 512 << 10);
}

#[test]
fn recording_on_no_stream_leaves_the_event_as_it_was() {
    let device = device();
    let event = device.event(false).unwrap();
    // SAFETY: the host driver looks the number up, and refuses one it does not know.
    let nobody = unsafe { bullet_runtime::StreamId::from_raw(999_999) };
    assert_eq!(device.driver().record(event.id(), nobody).unwrap_err().kind, ErrorKind::InvalidArgument);
    event.synchronize().unwrap();
}
