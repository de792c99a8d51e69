//! The CUDA driver on a GPU; without one, every test says so and does nothing.

use std::process::Command;
use std::sync::Arc;

use bullet_runtime::jit::cache::Cache;
use bullet_runtime::jit::nvrtc::Nvrtc;
use bullet_runtime::jit::{Compiler, Program};
use bullet_runtime::{
    Buffer, CudaDriver, Device, DeviceKind, DeviceOptions, Driver, ErrorKind, FunctionId, KernelArgs, Launch,
    LaunchConfig, Priority, StreamId,
};

fn gpu() -> Option<Device> {
    match Device::cuda(0) {
        Ok(device) => Some(device),
        Err(e) if matches!(e.kind, ErrorKind::DriverMissing | ErrorKind::NoDevice) => {
            println!("skipped: no CUDA device");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

const SOURCE: &str = r#"
extern "C" __global__ void saxpy(float* y, const float* x, float a, unsigned int n) {
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
// Reverses each block's part by way of dynamic shared memory, which may be large.
extern "C" __global__ void reverse(unsigned int* y) {
    extern __shared__ unsigned int part[];
    unsigned int n = blockDim.x * 64;
    unsigned int* mine = y + (unsigned long long)blockIdx.x * n;
    for (unsigned int i = threadIdx.x; i < n; i += blockDim.x) part[n - 1 - i] = mine[i];
    __syncthreads();
    for (unsigned int i = threadIdx.x; i < n; i += blockDim.x) mine[i] = part[i];
}
// Keeps a multiprocessor busy.
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"#;

fn function(device: &Device, name: &str) -> FunctionId {
    let module = device.load(&Program { name: "test", source: SOURCE, minimal: false }).unwrap();
    device.driver().function(module, name).unwrap()
}

fn floats(device: &Device, values: &[f32]) -> Buffer {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let mut buffer = device.alloc(bytes.len()).unwrap();
    buffer.write(0, &bytes).unwrap();
    buffer
}

fn read(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read(0, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
}

/// Enqueues `y += a * x` on a stream.
fn saxpy(device: &Device, f: FunctionId, stream: StreamId, y: &Buffer, x: &Buffer, a: f32) {
    let n = (y.len() / 4) as u32;
    let mut args = KernelArgs::new();
    args.push(y.ptr()).push(x.ptr()).push(a).push(n);
    let config = LaunchConfig { grid: [n.div_ceil(256), 1, 1], block: [256, 1, 1], ..Default::default() };
    // SAFETY: these are the kernel's arguments; the tests keep the buffers until they have synchronized.
    unsafe { device.driver().launch(stream, Launch::Kernel { function: f, config, args: &args }).unwrap() };
}

#[test]
fn a_gpu_describes_itself_and_is_one_device() {
    let Some(device) = gpu() else { return };
    let info = device.gpu().unwrap();
    println!("{device}: {}, {info:?}", device.name());
    assert_eq!(device.kind(), DeviceKind::Cuda(0));
    assert_eq!(device, Device::parse("cuda").unwrap());
    assert_eq!(device.driver().info().capability, Some(info.capability));
    let memory = device.driver().memory().unwrap();
    assert!(memory.free > 0 && memory.free <= memory.total && info.shared_per_block >= 48 << 10);
    let e = Device::cuda(1000).unwrap_err();
    assert!(e.kind == ErrorKind::NoDevice && e.message.contains("cuda:1000"), "{e}");
    let report = bullet_runtime::gpus().unwrap();
    println!("{report:?}");
    assert_eq!(report.gpus[0].capability, info.capability);
}

#[test]
fn copies_and_fills_come_back() {
    let Some(device) = gpu() else { return };
    let data: Vec<u8> = (0..3_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut a = device.alloc(data.len()).unwrap();
    a.write(0, &data).unwrap();
    let mut b = device.alloc(data.len()).unwrap();
    b.copy_from(&a).unwrap();
    // SAFETY: inside the buffer, which lives until it has been read.
    unsafe { device.driver().fill(StreamId::DEFAULT, b.ptr().offset(7), 0xAB, 1001).unwrap() };
    let mut out = vec![0; data.len()];
    b.read(0, &mut out).unwrap();
    assert!(out[..7] == data[..7] && out[1008..] == data[1008..] && out[7..1008].iter().all(|&v| v == 0xAB));
    // By way of the CPU, and from another thread.
    let mut host = Device::cpu().alloc(data.len()).unwrap();
    std::thread::scope(|scope| scope.spawn(|| host.copy_from(&a).unwrap()).join().unwrap());
    host.read(0, &mut out).unwrap();
    assert!(out == data && a.ptr().0 % 64 == 0);
    assert!(a.read(1, &mut out).is_err());
}

#[test]
fn pinned_memory_copies_both_ways() {
    let Some(device) = gpu() else { return };
    let (driver, bytes) = (device.driver(), 1 << 20);
    let pinned = driver.alloc_pinned(bytes).unwrap();
    let buffer = device.alloc(bytes).unwrap();
    // SAFETY: both are this long; the stream is synchronized before the memory is looked at or freed.
    unsafe {
        let host = std::slice::from_raw_parts_mut(pinned.as_ptr(), bytes);
        assert!(host.iter().all(|&b| b == 0));
        host.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8);
        driver.copy_to_device(StreamId::DEFAULT, buffer.ptr(), pinned.as_ptr(), bytes).unwrap();
        driver.synchronize(StreamId::DEFAULT).unwrap();
        pinned.as_ptr().write_bytes(0, bytes);
        driver.copy_to_host(StreamId::DEFAULT, pinned.as_ptr(), buffer.ptr(), bytes).unwrap();
        driver.synchronize(StreamId::DEFAULT).unwrap();
        let host = std::slice::from_raw_parts(pinned.as_ptr(), bytes);
        assert!(host.iter().enumerate().all(|(i, &b)| b == (i % 251) as u8));
        driver.free_pinned(pinned, bytes).unwrap();
    }
}

#[test]
fn a_program_compiles_and_runs() {
    let Some(device) = gpu() else { return };
    let n = 100_003;
    let x = floats(&device, &(0..n).map(|i| i as f32).collect::<Vec<_>>());
    let y = floats(&device, &vec![1.0; n]);
    saxpy(&device, function(&device, "saxpy"), StreamId::DEFAULT, &y, &x, 2.0);
    assert!(read(&y).iter().enumerate().all(|(i, &v)| v == 1.0 + 2.0 * i as f32));
    let module = device.load(&Program { name: "test", source: SOURCE, minimal: false }).unwrap();
    let e = device.driver().function(module, "absent").unwrap_err();
    assert!(e.kind == ErrorKind::InvalidArgument && e.message.contains("'absent'"), "{e}");
    assert!(device.driver().load_module(b"no image at all\0").is_err());
}

#[test]
fn source_errors_come_with_the_compilers_log() {
    let Some(device) = gpu() else { return };
    let e = device.load(&Program { name: "bad", source: "\nKERNEL f() {}\n", minimal: false }).unwrap_err();
    println!("{e}");
    assert!(e.kind == ErrorKind::CompileFailed && e.message.contains("bad.cu(2)"), "{e}");
}

#[test]
fn blocks_get_more_than_48_kib_of_shared_memory() {
    let Some(device) = gpu() else { return };
    let reverse = function(&device, "reverse");
    for threads in [64u32, 320, 384] {
        let shared = threads * 64 * 4;
        let n = 4 * threads as usize * 64;
        let data: Vec<u8> = (0..n as u32).flat_map(u32::to_ne_bytes).collect();
        let mut buffer = device.alloc(data.len()).unwrap();
        buffer.write(0, &data).unwrap();
        let mut args = KernelArgs::new();
        args.push(buffer.ptr());
        let config = LaunchConfig {
            grid: [4, 1, 1],
            block: [threads, 1, 1],
            shared_bytes: shared,
            ..LaunchConfig::default()
        };
        let launch = Launch::Kernel { function: reverse, config, args: &args };
        // SAFETY: the kernel reverses this many numbers in each of its four blocks.
        let launched = unsafe { device.driver().launch(StreamId::DEFAULT, launch) };
        if shared > device.gpu().unwrap().shared_per_block {
            let e = launched.unwrap_err();
            assert!(e.kind == ErrorKind::LaunchFailed && e.message.contains("shared memory"), "{e}");
            continue;
        }
        launched.unwrap();
        let mut out = vec![0; data.len()];
        buffer.read(0, &mut out).unwrap();
        let part = threads as usize * 64;
        let numbers = out.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap()) as usize);
        assert!(numbers.enumerate().all(|(i, v)| v == i / part * part + part - 1 - i % part));
    }
}

#[test]
fn streams_wait_for_events_and_events_measure() {
    let Some(device) = gpu() else { return };
    let (spin, f) = (function(&device, "spin"), function(&device, "saxpy"));
    let (first, second) = (device.stream(Priority::Low).unwrap(), device.stream(Priority::High).unwrap());
    let (start, end) = (device.event(true).unwrap(), device.event(true).unwrap());
    let (x, y) = (floats(&device, &[3.0; 64]), floats(&device, &[1.0; 64]));
    assert!(start.query().unwrap(), "never recorded");
    first.record(&start).unwrap();
    let mut args = KernelArgs::new();
    args.push(20_000_000i64);
    // SAFETY: the kernel takes a number and touches no memory.
    unsafe {
        let config = LaunchConfig::default();
        first.launch(Launch::Kernel { function: spin, config, args: &args }).unwrap();
    }
    saxpy(&device, f, first.id(), &y, &x, 1.0);
    first.record(&end).unwrap();
    assert!(!end.query().unwrap() && end.elapsed_since(&start).is_err());
    second.wait(&end).unwrap();
    saxpy(&device, f, second.id(), &y, &x, 1.0);
    second.synchronize().unwrap();
    assert!(end.query().unwrap());
    assert_eq!(read(&y), [7.0; 64]);
    let milliseconds = end.elapsed_since(&start).unwrap().as_secs_f64() * 1e3;
    // 20 million cycles at 0.2 to 4 GHz.
    assert!((4.0..200.0).contains(&milliseconds), "{milliseconds} ms");
    let untimed = device.event(false).unwrap();
    first.record(&untimed).unwrap();
    untimed.synchronize().unwrap();
    assert_eq!(untimed.elapsed_since(&start).unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[test]
fn captured_work_is_replayed() {
    // A device of its own: other tests must not enqueue on the stream while it is captured.
    if gpu().is_none() {
        return;
    }
    let device = Device::with_driver(Arc::new(CudaDriver::new(0).unwrap()));
    let (driver, stream, f) = (device.driver(), StreamId::DEFAULT, function(&device, "saxpy"));
    let (x, y) = (floats(&device, &[1.0; 1000]), floats(&device, &[0.0; 1000]));
    let side = device.stream(Priority::Normal).unwrap();
    let [fork, join] = [(), ()].map(|()| device.event(false).unwrap());
    assert!(driver.end_capture(stream).is_err());
    driver.begin_capture(stream).unwrap();
    assert!(driver.is_capturing(stream) && driver.begin_capture(stream).is_err());
    saxpy(&device, f, stream, &y, &x, 1.0);
    // Memory comes and goes during a capture, more than the pool has.
    let scratch = device.alloc(64 << 20).unwrap();
    // SAFETY: inside the scratch memory, which the graph keeps.
    unsafe { driver.fill(stream, scratch.ptr(), 0, 4000).unwrap() };
    drop(scratch);
    // It is with the stream that is captured, and could not be freed before that has ended.
    assert_eq!(device.trim(), 0);
    // What would wait for captured work is refused, and the capture survives.
    assert!(driver.synchronize(stream).is_err());
    driver.record(fork.id(), stream).unwrap();
    assert!(fork.query().is_err() && fork.synchronize().is_err());
    driver.wait(side.id(), fork.id()).unwrap();
    saxpy(&device, f, side.id(), &y, &x, 10.0);
    driver.record(join.id(), side.id()).unwrap();
    driver.wait(stream, join.id()).unwrap();
    saxpy(&device, f, stream, &y, &x, 100.0);
    let graph = driver.end_capture(stream).unwrap();
    assert!(!driver.is_capturing(stream) && !driver.is_capturing(side.id()));
    assert_eq!(read(&y), [0.0; 1000], "nothing ran yet");
    for round in 1..=3 {
        // SAFETY: the graph's buffers are alive, and used on this stream only.
        unsafe { driver.launch_graph(graph, stream).unwrap() };
        assert_eq!(read(&y), [111.0 * round as f32; 1000]);
    }
    // SAFETY: launched work has been waited for.
    unsafe { driver.destroy_graph(graph).unwrap() };
    saxpy(&device, f, stream, &y, &x, 1.0);
    assert_eq!(read(&y), [334.0; 1000]);
}

#[test]
fn out_of_memory_is_an_error_and_not_the_end() {
    if gpu().is_none() {
        return;
    }
    let options = DeviceOptions { memory_limit: Some(64 << 20), ..DeviceOptions::default() };
    let device = Device::with_options(Arc::new(CudaDriver::new(0).unwrap()), options);
    let held = device.alloc(40 << 20).unwrap();
    let e = device.alloc(40 << 20).unwrap_err();
    println!("{e}");
    assert!(e.is_out_of_memory() && e.message.contains("BULLET_MEMORY_LIMIT"), "{e}");
    drop(held);
    // The cached 40 MiB make way for another size.
    device.alloc(50 << 20).unwrap();
    // More than there is, without a quota.
    let driver = Device::with_driver(Arc::new(CudaDriver::new(0).unwrap()));
    assert!(driver.alloc(1 << 44).unwrap_err().is_out_of_memory());
    floats(&driver, &[1.0; 10]);
}

#[test]
fn a_second_load_compiles_nothing() {
    if gpu().is_none() {
        return;
    }
    let driver = CudaDriver::new(0).unwrap();
    let compiler = driver.compiler().unwrap();
    let folder = std::env::temp_dir().join(format!("bullet-cuda-{}", std::process::id()));
    for (hits, misses) in [(0, 1), (1, 0)] {
        // As a new process would: nothing but the folder is kept.
        let cache = Arc::new(Cache::new(&folder, 1 << 20));
        let nvrtc = Nvrtc::open(compiler.nvrtc().path()).unwrap();
        let version = driver.driver_version();
        let again = Compiler::new(nvrtc, compiler.target().clone(), version, Some(cache.clone()));
        let image = again.compile(&Program { name: "test", source: SOURCE, minimal: false }).unwrap();
        let module = driver.load_module(&image).unwrap();
        driver.function(module, "saxpy").unwrap();
        let stats = cache.report().process;
        assert_eq!((stats.hits, stats.misses), (hits, misses));
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// What the test below runs with a variable that leads nowhere.
#[test]
fn child_without_nvrtc() {
    if std::env::var_os("BULLET_NVRTC").as_deref() != Some("/nonexistent".as_ref()) {
        return;
    }
    let Some(device) = gpu() else { return };
    let e = device.load(&Program { name: "test", source: SOURCE, minimal: false }).unwrap_err();
    assert_eq!(e.kind, ErrorKind::JitMissing);
    assert!(e.message.starts_with("NVRTC JIT compiler not available"), "{e}");
    assert!(e.message.contains("BULLET_NVRTC") && e.message.contains("/nonexistent"), "{e}");
    // The device works without kernels, and `auto` is the CPU.
    assert_eq!(read(&floats(&device, &[1.5; 3])), [1.5; 3]);
    let (auto, reason) = Device::auto().unwrap();
    assert!(auto == Device::cpu() && reason.unwrap().kind == ErrorKind::JitMissing);
    println!("checked without NVRTC");
}

#[test]
fn a_missing_nvrtc_is_told_and_auto_is_the_cpu() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_without_nvrtc", "--nocapture"])
        .env("BULLET_NVRTC", "/nonexistent")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{out}{}", String::from_utf8_lossy(&child.stderr));
    assert!(gpu().is_none() || out.contains("checked without NVRTC"), "{out}");
}
