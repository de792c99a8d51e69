//! How much of the order of atomic updates kernels see, and how many records they make.

use bullet_lang::emit::cuda::{CudaOptions, Sharing, source};
use bullet_lang::ir::Kernel;
use bullet_lang::order::{Order, counting, most_records, order, summed, updates_once};
use bullet_lang::{Options, compile};

/// The kernel with this body, of one dimension.
fn kernel(body: &str) -> Kernel {
    let body = body.replace('\n', "\n    ");
    let text = format!(
        "import warp as wp\n\n@wp.kernel\ndef k(x: wp.array(dtype=float), at: wp.array(dtype=int), \
         v: wp.array(dtype=wp.vec3), n: int):\n    i = wp.tid()\n    {body}\n"
    );
    compile("k.py", &text, Options::default()).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// Why a kernel sees the order.
fn why(kernel: &Kernel) -> String {
    match order(kernel, true) {
        Order::Serial(diagnostic) => diagnostic.message,
        other => format!("{other:?}"),
    }
}

#[test]
fn kernels_see_the_order_by_what_they_do() {
    for body in [
        "x[i] = 2.0 * x[i]",
        "x[i] += 1.0",
        "wp.atomic_add(at, 0, 1)",
        "wp.atomic_max(at, n, i)",
        "at[n] |= i",
        "wp.printf(\"%d\", wp.atomic_add(at, i, 1))",
    ] {
        assert_eq!(why(&kernel(body)), "Free", "{body}");
    }
    for body in ["x[at[i]] += 1.0", "wp.atomic_max(x, 0, 1.0)", "wp.atomic_sub(v, n, wp.vec3(1.0))"] {
        assert_eq!(why(&kernel(body)), "Records", "{body}");
    }
    for (body, what) in [
        ("x[wp.atomic_add(at, 0, 1)] = 1.0", "the old value that an atomic update of `at` gives is used"),
        ("wp.atomic_exch(x, 0, 1.0)", "`x` keeps what the last of several threads puts there"),
        ("wp.atomic_cas(at, 0, 1, i)", "`at` keeps what the last of several threads puts there"),
        ("wp.atomic_add(x, n, x[i])", "`x` is updated by atomics of several threads, and read or stored to"),
        ("wp.atomic_add(x, n, 1.0)\nwp.atomic_max(x, n, 2.0)", "`x` is updated by several kinds of atomics"),
    ] {
        assert!(why(&kernel(body)).starts_with(what), "{body}: {}", why(&kernel(body)));
    }
    // An element of one's own may be somebody else's where arrays share memory.
    assert_eq!(order(&kernel("x[i] += 1.0"), false), Order::Records);
}

#[test]
fn records_are_counted_by_the_text_or_by_a_kernel() {
    let known = |body: &str| most_records(&kernel(body), true);
    assert_eq!(known("x[n] += 1.0"), Some(1));
    assert_eq!(known("wp.atomic_add(v, n, wp.vec3(1.0))"), Some(3));
    assert_eq!(known("if i > 3:\n    x[n] += 1.0\nelse:\n    x[n] += 2.0\n    x[n] += 3.0"), Some(2));
    assert_eq!(known("for k in range(40):\n    x[k] += 1.0"), Some(40));
    // A GPU's instructions order extremes.
    let extreme = kernel("wp.atomic_min(x, n, 1.0)");
    assert_eq!((most_records(&extreme, true), summed(&extreme, true)), (Some(0), vec![]));

    let loops = kernel("for k in range(at[i]):\n    x[k] += wp.sin(float(k))\n    at[n] |= 0\n");
    assert_eq!(why(&loops).split(',').next(), Some("`at` is updated by atomics of several threads"));
    let loops = kernel("for k in range(at[i]):\n    x[k] += wp.sin(float(k))\n    v[i] = wp.vec3(1.0)\n");
    assert_eq!((most_records(&loops, true), summed(&loops, true)), (None, vec![0]));
    let counts = counting(&loops, true).unwrap_or_else(|e| panic!("{}", e.message));
    assert_eq!(counts.name, "k_count");
    let text = counts.to_string();
    assert!(!text.contains("store") && !text.contains("sin") && text.contains("load"), "{text}");
    let cannot = kernel("at[i + 1] = 2\nfor k in range(at[i]):\n    x[k] += 1.0");
    let error = counting(&cannot, true).expect_err("it depends on what is stored").message;
    assert_eq!(error, "how often this kernel adds to arrays depends on `at`, which it writes itself");
}

#[test]
fn only_shared_sums_are_records_in_the_text() {
    let kernel = kernel("x[n] += 1.0\nv[i] += wp.vec3(1.0)\nwp.atomic_add(at, 0, 1)");
    assert!(updates_once(&kernel, true));
    let text = |records| source(&[&kernel], CudaOptions { records, ..CudaOptions::default() });
    let distinct = text(Some(Sharing::Distinct));
    assert_eq!(distinct.matches("record_log.put").count(), 1, "{distinct}");
    assert!(distinct.contains("record_log.put(&x(n), x_key, 0, 1.0f);"), "{distinct}");
    assert_eq!(text(Some(Sharing::Any)).matches("record_log.put").count(), 4);
    assert!(!text(None).contains("record"));
}
