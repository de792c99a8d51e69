//! PTX of our own: it is what `tests/golden` says of some kinds of kernels (`BLESS=1` writes it) and small; `ptxas` takes that of every kind
//! and of random kernels, for each [`Target`]. The latter needs programs in `BULLET_PTXAS`, separated as in `PATH`, as
//! `cargo xtask test --stage cuda` sets it; a plain `cargo test` skips that.

#[path = "random/generate.rs"]
#[allow(dead_code)]
mod generate;
mod sources;

use std::process::Command;
use std::{env, fs};

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, Layout, Sharing};
use bullet_lang::emit::ptx::{Target, module};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use sources::{compare, kinds};

/// The kernels of a source, and their adjoints.
fn kernels(name: &str, text: &str) -> Vec<Kernel> {
    let kernels = compile(name, text, Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let both = kernels.into_iter().flat_map(|kernel| {
        let made = adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        [kernel, made.kernel]
    });
    both.collect()
}

fn emitted(name: &str, text: &str, options: CudaOptions, target: Target) -> String {
    let kernels = kernels(name, text);
    let made = module(&kernels.iter().collect::<Vec<_>>(), options, target);
    made.unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn modules_are_small_and_as_recorded() {
    for (name, text) in kinds() {
        let ptx = emitted(&name, &text, CudaOptions::default(), Target::Sm80);
        println!("{name}: {} bytes", ptx.len());
        let trigonometric =
            ["combined", "derivatives", "half", "local", "loop", "math", "rotations", "structs"];
        let limit = if trigonometric.contains(&&*name) { 65536 } else { 8192 };
        assert!(ptx.len() < limit, "{name}: {} bytes\n{ptx}", ptx.len());
        if !["arithmetic", "conditional", "math"].contains(&&*name) {
            continue;
        }
        compare(&format!("{name}.ptx"), &ptx);
    }
}

/// The architectures that a `ptxas` of a CUDA version is asked for.
fn architectures(version: &str) -> Vec<(&'static str, Target)> {
    let all = [
        ("sm_35", Target::Sm35),
        ("sm_52", Target::Sm35),
        ("sm_61", Target::Sm60),
        ("sm_75", Target::Sm70),
        ("sm_90", Target::Sm80),
        ("sm_120", Target::Sm80),
    ];
    let known = match version {
        "11" => &all[..4],
        "12" => &all[1..],
        _ => &all[3..],
    };
    known.to_vec()
}

#[test]
fn ptxas_takes_it() {
    let Some(places) = env::var_os("BULLET_PTXAS").filter(|places| !places.is_empty()) else {
        println!("skipped: BULLET_PTXAS is not set; run `cargo xtask test --stage cuda`");
        return;
    };
    let count = env::var("BULLET_LANG_KERNELS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let out = env::temp_dir().join(format!("bullet-ptx-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a folder");
    for ptxas in env::split_paths(&places) {
        let said = Command::new(&ptxas).arg("--version").output().expect("ptxas can be run");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version =
            said.split("release ").nth(1).and_then(|rest| rest.split('.').next()).expect("a version");
        for (arch, target) in architectures(version) {
            let sources = sources(target, count);
            for (number, (name, ptx)) in sources.iter().enumerate() {
                let file = out.join(format!("{number}.ptx"));
                fs::write(&file, ptx).expect("a writable folder");
                let done = Command::new(&ptxas)
                    .args([&format!("-arch={arch}"), "-o", "/dev/null"])
                    .arg(&file)
                    .output()
                    .expect("ptxas can be run");
                let said = String::from_utf8_lossy(&done.stderr);
                let numbered: Vec<String> =
                    ptx.lines().enumerate().map(|(i, line)| format!("{} {line}", i + 1)).collect();
                assert!(done.status.success(), "{name} for {arch}:\n{said}\n{}", numbered.join("\n"));
            }
            println!("{arch} by ptxas {version}: {} modules", sources.len());
        }
    }
    fs::remove_dir_all(&out).expect("the folder");
}

/// Names that mean something in PTX or to us, each of a kernel that prints and asserts.
fn words() -> String {
    let names = "add mov ld bar ret call exit entry reg func param tid mul r0 d1 p0 h0 x0 y vprintf sin const pred trap b32 max _";
    let mut text = String::from("import warp as wp\n");
    for name in names.split(' ') {
        text += &format!(
            "\n@wp.kernel\ndef {name}({name}: wp.array(dtype=float), b: wp.bool, c: wp.array(dtype=wp.float64)):\n    i = wp.tid()\n    \
             wp.printf(\"%d %f %d%% %f\\n\", i, {name}[i], b, c[i])\n    assert {name}[i] > 0.5, \"100% wrong\"\n    \
             {name}[i] = wp.sin({name}[i])\n"
        );
    }
    text
}

/// Modules of every kind and of random kernels of every width.
fn sources(target: Target, count: u64) -> Vec<(String, String)> {
    let mut sources = vec![];
    for (name, text) in kinds() {
        for (layout, sharing) in [(Layout::Contiguous, Sharing::Distinct), (Layout::Strided, Sharing::Any)] {
            for records in [None, Some(sharing)] {
                let options = CudaOptions { layout, records, ..CudaOptions::default() };
                sources.push((name.clone(), emitted(&name, &text, options, target)));
            }
        }
    }
    let names = compile("names.py", &words(), Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let names = module(&names.iter().collect::<Vec<_>>(), CudaOptions::default(), target);
    sources.push(("names".into(), names.unwrap_or_else(|e| panic!("{e}"))));
    for seed in 1..=count {
        let text = generate::module(seed);
        let text = match seed % 4 {
            0 => text.replace("wp.float64", "float"),
            1 => text.replace("wp.float64", "wp.float16"),
            3 => text.replace("wp.float64", "wp.bfloat16"),
            _ => text,
        };
        let records = if seed % 2 == 0 { Some(Sharing::Distinct) } else { None };
        let options = CudaOptions { records, ..CudaOptions::default() };
        sources.push((format!("seed {seed}"), emitted("random.py", &text, options, target)));
    }
    sources
}
