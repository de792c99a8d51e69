//! What the pool costs: `cargo run --release -p bullet-runtime --example pool`.

use std::hint::black_box;
use std::time::Instant;

use bullet_runtime::Device;

/// The best of several runs, in nanoseconds a call.
fn best(mut f: impl FnMut()) -> f64 {
    const CALLS: u32 = 100_000;
    let run = |_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| f());
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..20).map(run).fold(f64::INFINITY, f64::min)
}

fn main() {
    let device = Device::cpu();
    for bytes in [256, 64 << 10, 4 << 20] {
        let pool = best(|| drop(black_box(device.alloc(bytes).expect("there is memory"))));
        let system = best(|| drop(black_box(Vec::<u8>::with_capacity(bytes))));
        println!(
            "{bytes:>8} bytes: alloc and free from the pool {pool:.0} ns, from the system {system:.0} ns"
        );
    }
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let device = &device;
            scope.spawn(move || {
                for _ in 0..1_000_000 {
                    drop(black_box(device.alloc(1000 << thread).expect("there is memory")));
                }
            });
        }
    });
    println!(
        "{threads} threads at once: {:.0} ns a call and thread",
        start.elapsed().as_nanos() as f64 / 1e6
    );
    let start = Instant::now();
    let bytes = 256 << 20;
    let mut buffer = device.alloc(bytes).expect("there is memory");
    let allocated = start.elapsed();
    buffer.write(0, &vec![1; bytes]).expect("it fits");
    println!("256 MiB: {:.3} ms to allocate, then first touch", allocated.as_secs_f64() * 1e3);
}
