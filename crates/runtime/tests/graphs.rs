//! Captures and graphs over the host driver: what is replayed, and who owns the memory that a graph uses.

mod common;

use std::sync::Arc;

use bullet_runtime::{
    Buffer, Call, Device, DeviceOptions, DevicePtr, EventId, Faults, Graph, HostDriver, Launch, Priority,
    Result, StreamId,
};
use common::faulty;

/// Adds `by` to each byte of a buffer, on the default stream.
fn add(device: &Device, to: &Buffer, by: u8) -> Result<()> {
    let (at, bytes) = (to.ptr(), to.len());
    let work = move || {
        for i in 0..bytes {
            // SAFETY: in bounds; the tests keep the memory as long as what uses it, and use one stream.
            unsafe { *(at.0 as *mut u8).add(i) += by };
        }
    };
    // SAFETY: as above.
    unsafe { device.driver().launch(StreamId::DEFAULT, Launch::Host(Arc::new(work))) }
}

fn zeros(device: &Device, bytes: usize) -> Buffer {
    let mut buffer = device.alloc(bytes).unwrap();
    buffer.write(0, &vec![0; bytes]).unwrap();
    buffer
}

fn first(buffer: &Buffer) -> u8 {
    let mut out = vec![0; buffer.len()];
    buffer.read(0, &mut out).unwrap();
    assert!(out.iter().all(|&b| b == out[0]), "all bytes are alike");
    out[0]
}

fn launch(graph: &Graph) {
    // SAFETY: the tests keep what the graph uses.
    unsafe { graph.launch().unwrap() };
}

#[test]
fn captured_work_is_done_at_each_launch_and_not_before() {
    for driver in [HostDriver::new(), HostDriver::simulation().unwrap()] {
        let device = Device::with_driver(Arc::new(driver));
        let (x, mut y) = (zeros(&device, 100), zeros(&device, 100));
        assert!(!device.is_capturing());
        let capture = device.capture().unwrap();
        assert!(device.is_capturing() && device.capture().is_err());
        add(&device, &x, 2).unwrap();
        // SAFETY: both live longer than the graph.
        unsafe { device.driver().copy(StreamId::DEFAULT, y.ptr(), x.ptr(), 100).unwrap() };
        add(&device, &x, 3).unwrap();
        // What would wait is refused, and so is what a replay would do with other data; the capture survives.
        assert!(device.synchronize().is_err() && x.read(0, &mut [0; 4]).is_err());
        assert!(y.send(0, &[7; 4]).unwrap_err().message.contains("capture"));
        assert!(y.write(0, &[7; 4]).is_err());
        let graph = capture.end().unwrap();
        assert!(!device.is_capturing());
        assert_eq!((first(&x), first(&y)), (0, 0), "nothing ran yet");
        for round in 0..4 {
            launch(&graph);
            assert_eq!((first(&x), first(&y)), (5 * (round + 1), 5 * round + 2));
        }
    }
}

#[test]
fn side_streams_join_a_capture_by_events() {
    let device = Device::with_driver(Arc::new(HostDriver::new()));
    let (driver, x, side) = (device.driver(), zeros(&device, 8), device.stream(Priority::Normal).unwrap());
    let [fork, join, outside] = [(); 3].map(|()| device.event(false).unwrap());
    side.record(&outside).unwrap();
    let wait = |event: EventId| driver.wait(StreamId::DEFAULT, event);
    let capture = device.capture().unwrap();
    assert!(wait(outside.id()).is_err(), "it is not part of the capture");
    driver.record(fork.id(), StreamId::DEFAULT).unwrap();
    assert!(fork.query().is_err() && fork.synchronize().is_err());
    side.wait(&fork).unwrap();
    let at = x.ptr();
    // SAFETY: the buffer outlives the graph.
    let work = move || unsafe { *(at.0 as *mut u8) += 1 };
    // SAFETY: as above.
    unsafe { side.launch(Launch::Host(Arc::new(work))).unwrap() };
    side.record(&join).unwrap();
    wait(join.id()).unwrap();
    let graph = capture.end().unwrap();
    side.synchronize().unwrap();
    let mut out = [0; 1];
    x.read(0, &mut out).unwrap();
    assert_eq!(out, [0]);
    launch(&graph);
    x.read(0, &mut out).unwrap();
    assert_eq!(out, [1]);
}

#[test]
fn what_a_capture_used_belongs_to_the_graph_as_long_as_that_lives() {
    const BIG: usize = 64 << 10;
    let (device, driver) = faulty(Faults { poison: true, ..Faults::default() });
    let sum = zeros(&device, BIG);
    let before = zeros(&device, BIG);
    let at_start = device.memory_stats().used;
    let capture = device.capture().unwrap();
    // Made and freed inside, twice: the second takes the place of the first.
    let inside = device.alloc(BIG).unwrap();
    let place = inside.ptr();
    drop(inside);
    let inside = device.alloc(BIG).unwrap();
    assert_eq!(inside.ptr(), place);
    // Used by the capture, and freed in it, though it was there before.
    add(&device, &before, 1).unwrap();
    let freed = before.ptr();
    // SAFETY: both are memory of the graph.
    unsafe { device.driver().copy(StreamId::DEFAULT, inside.ptr(), freed, BIG).unwrap() };
    drop(before);
    // SAFETY: as above.
    unsafe { device.driver().copy(StreamId::DEFAULT, sum.ptr(), inside.ptr(), BIG).unwrap() };
    let graph = capture.end().unwrap();
    device.trim();
    let others: Vec<Buffer> = (0..4).map(|_| zeros(&device, BIG)).collect();
    let apart = |at: DevicePtr| others.iter().all(|other| other.ptr() != at);
    assert!(apart(place) && apart(freed), "the graph's memory went to others");
    for round in 1..=3 {
        launch(&graph);
        assert_eq!(first(&sum), round);
        assert!(others.iter().all(|other| first(other) == 0));
        device.trim();
    }
    drop(graph);
    // One buffer of the capture lives on; what else the graph had is back.
    assert_eq!(first(&inside), 3);
    assert_eq!(device.memory_stats().used, BIG * 2 + 4 * BIG);
    drop((inside, others));
    assert_eq!(device.memory_stats().used, at_start - BIG);
    drop(sum);
    assert_eq!(device.memory_stats().used, 0);
    device.trim();
    assert_eq!(driver.counts().live_bytes, 0);
}

#[test]
fn buffers_of_side_streams_freed_in_a_capture_wait_for_their_users() {
    let (device, driver) = faulty(Faults::default());
    let side = device.stream(Priority::Normal).unwrap();
    let (own, shared) = (side.alloc(3000).unwrap(), device.alloc(3000).unwrap());
    shared.record_use(&side);
    let capture = device.capture().unwrap();
    let places = [own.ptr(), shared.ptr()];
    drop((own, shared, side));
    let inside = device.alloc(3000).unwrap();
    assert!(!places.contains(&inside.ptr()));
    drop((capture.end().unwrap(), inside));
    assert_eq!(device.memory_stats().buffers, 0);
    drop(device);
    assert_eq!((driver.counts().live_bytes, driver.counts().live_handles), (0, 0));
}

#[test]
fn the_cache_of_a_captured_stream_is_not_trimmed_before_the_capture_ends() {
    let limit = DeviceOptions { memory_limit: Some(100 << 10), ..DeviceOptions::default() };
    let device = Device::with_options(Arc::new(HostDriver::new()), limit);
    drop(zeros(&device, 60 << 10));
    let capture = device.capture().unwrap();
    assert_eq!(device.trim(), 0);
    // Half of the memory is cached in the wrong size.
    assert!(device.alloc(80 << 10).unwrap_err().is_out_of_memory());
    drop(capture);
    assert_eq!(device.memory_stats().held(), 60 << 10, "the limit counts it all along");
    drop(device.alloc(80 << 10).unwrap());
}

#[test]
fn a_capture_that_is_dropped_or_fails_leaves_nothing() {
    let (device, driver) = faulty(Faults::default());
    let x = zeros(&device, 1000);
    for failing in [false, true] {
        let capture = device.capture().unwrap();
        let inside = device.alloc(5000).unwrap();
        add(&device, &x, 1).unwrap();
        if failing {
            driver.fail_after(Call::Sync, 0);
            assert!(capture.end().is_err());
        } else {
            drop(capture);
        }
        drop(inside);
        assert!(!device.is_capturing());
        assert_eq!((first(&x), device.memory_stats().buffers), (0, 1));
    }
    add(&device, &x, 1).unwrap();
    assert_eq!(first(&x), 1);
    drop(x);
    drop(device);
    assert_eq!((driver.counts().live_bytes, driver.counts().live_handles), (0, 0));
}

#[test]
fn a_failing_closure_fails_the_launch() {
    let (device, _) = faulty(Faults::default());
    let capture = device.capture().unwrap();
    let fail = || std::panic::resume_unwind(Box::new("index 9 is out of bounds".to_string()));
    // SAFETY: the closure touches no memory.
    unsafe { device.driver().launch(StreamId::DEFAULT, Launch::Host(Arc::new(fail))).unwrap() };
    let graph = capture.end().unwrap();
    // SAFETY: as above.
    let e = unsafe { graph.launch() }.unwrap_err();
    assert!(e.message.contains("index 9 is out of bounds"), "{e}");
}
