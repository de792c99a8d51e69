//! Loops that do not end can be stopped, wherever they run, and leave everything usable.

use std::time::{Duration, Instant};

use bullet_jit::{Arg, Lanes, Options, Program};
use bullet_kernels::cpu::stop::{Stopped, stoppable};
use bullet_lang::{Options as Front, compile};

/// Runs a kernel of `x`, a float for each of `threads` threads, and `n`, until it is told to stop after 50 ms.
fn stops(body: &str, threads: u32, lanes: Lanes) {
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array(dtype=float), n: int):\n    i = wp.tid()\n{body}\n"
    );
    let kernels = compile("stop.py", &text, Front::default()).unwrap_or_else(|e| panic!("{e}"));
    let program = Program::new(&kernels[0], Options { lanes, ..Options::default() }).expect("code");
    let mut x = vec![0.5f32; threads as usize];
    let array = Arg::array(x.as_mut_ptr().cast(), [threads as i32, 0, 0, 0], [4, 0, 0, 0]);
    let args = [array, Arg::scalar(1 << 30)];
    let start = Instant::now();
    // SAFETY: the arguments are what the kernel's parameters say.
    let told = stoppable(|| true, || unsafe { program.launch(&[threads], &args) });
    assert_eq!(told.err(), Some(Stopped), "{body}");
    // The machine may be busy with other tests.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}: {body}", start.elapsed());
}

#[test]
fn endless_loops_stop() {
    let bodies = [
        "    s = x[i]\n    while s < 1.0:\n        s = s * 0.5\n    x[i] = s",
        // Only a thread that another worker may have, while this one waits.
        "    s = x[i]\n    while s < 1.0:\n        s = s * 0.5\n        if i < 5000:\n            s = 2.0\n    x[i] = s",
        "    s = x[i]\n    for j in range(n):\n        for k in range(n):\n            s = s * 0.99 + 0.01\n    x[i] = s",
        "    s = x[i]\n    for j in range(0, n, 1 + i):\n        k = int(0)\n        while k < n:\n            k += 1\n            s = s + 0.1 * wp.sin(s)\n    x[i] = s",
        // Loops that are short each, in many rounds.
        "    s = x[i]\n    for j in range(n):\n        for k in range(100):\n            for l in range(100):\n                s = s * 0.99 + 0.01\n    x[i] = s",
        "    s = x[i]\n    for j in range(n):\n        s = s * 0.99 + 0.01\n        x[i] = s + x[0]",
    ];
    for body in bodies {
        for threads in [1, 10_000] {
            for lanes in [Lanes::Off, Lanes::Auto, Lanes::Always] {
                if threads == 1 && body.contains("5000") {
                    continue;
                }
                stops(body, threads, lanes);
            }
        }
    }
}

#[test]
fn what_keeps_asking_computes_the_same() {
    let text = "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array(dtype=float), n: int):\n    i = wp.tid()\n    a = x[i]\n    b = \
                a * 2.0\n    c = a + 3.0\n    for j in range(n):\n        a = a * 0.5 + b\n        b = b * 0.25 + c\n        c = c * \
                0.125 + a\n    x[i] = a + b + c\n";
    let kernels = compile("same.py", text, Front::default()).unwrap_or_else(|e| panic!("{e}"));
    let n = 100_000;
    for lanes in [Lanes::Off, Lanes::Always] {
        let program = Program::new(&kernels[0], Options { lanes, ..Options::default() }).expect("code");
        let mut x: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
        let expected: Vec<f32> = x
            .iter()
            .map(|&x| {
                let (mut a, mut b, mut c) = (x, x * 2.0, x + 3.0);
                for _ in 0..n {
                    a = a * 0.5 + b;
                    b = b * 0.25 + c;
                    c = c * 0.125 + a;
                }
                a + b + c
            })
            .collect();
        let args = [Arg::array(x.as_mut_ptr().cast(), [64, 0, 0, 0], [4, 0, 0, 0]), Arg::scalar(n)];
        // SAFETY: as above.
        let told = stoppable(|| false, || unsafe { program.launch(&[64], &args) });
        assert_eq!(told, Ok(Ok(())));
        assert_eq!(x, expected);
    }
}
