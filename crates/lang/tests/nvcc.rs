//! Every kind of kernel as a program of its own compiles with nvcc, forward and adjoint. Needs the path of nvcc in
//! `BULLET_NVCC` and a folder for what it makes in `BULLET_NVCC_OUT`, as `cargo xtask test --stage cuda` sets them; a plain
//! `cargo test` skips this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{Checks, CudaOptions, standalone};
use bullet_lang::{Options, compile};

/// What nvcc makes code for; every nvcc that there is a wheel of knows these.
const ARCHITECTURES: [&str; 3] = ["75", "90", "120"];

/// What no example does: stop threads.
const ASSERTS: &str = "import warp as wp

@wp.kernel
def asserts(x: wp.array2d(dtype=float), at: wp.array(dtype=int), faults: wp.array(dtype=float)):
    i = wp.tid()
    assert at[i] < 7, '100 % of the places are below 7'
    faults[i] = x[at[i], i] * wp.vec3(1.0, 2.0, 3.0)[at[i] % 3]
";

/// The programs of the kernels in `examples/kernels/kinds`, with their adjoints; every other one with checks of indices.
fn programs() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/kernels/kinds");
    let entries = fs::read_dir(folder).expect("examples/kernels/kinds").flatten();
    let text = |path: PathBuf| fs::read_to_string(path).expect("a readable file");
    let mut texts: Vec<(String, String)> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), text(entry.path())))
        .chain([("asserts.py".into(), ASSERTS.into())])
        .collect();
    texts.sort();
    let mut out = vec![];
    for (name, text) in texts {
        for kernel in compile(&name, &text, Options::default()).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let made =
                adjoint(&kernel, AdjointOptions::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let checks = if out.len() % 2 == 0 { Checks::Off } else { Checks::All };
            let options = CudaOptions { checks, ..CudaOptions::default() };
            out.push((kernel.name.clone(), standalone(&kernel, Some(&made), options)));
        }
    }
    out
}

/// Compiles and links a program as a user does; what nvcc says of it must be nothing.
fn build(nvcc: &Path, out: &Path, name: &str, text: &str) {
    let (source, program) = (out.join(format!("{name}.cu")), out.join(name));
    fs::write(&source, text).expect("a writable folder");
    let mut command = Command::new(nvcc);
    for arch in ARCHITECTURES {
        command.arg("-gencode").arg(format!("arch=compute_{arch},code=sm_{arch}"));
    }
    command.args(["-Werror", "all-warnings", "-Xcompiler", "-Wall"]);
    // Wheels have their libraries in `lib`, where nvcc does not look.
    if let Some(toolkit) = nvcc.parent().and_then(Path::parent) {
        command.arg("-L").arg(toolkit.join("lib"));
    }
    let output = command.arg(&source).arg("-o").arg(&program).output().expect("nvcc can be run");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{name}: {}\n{said}\n{text}", output.status);
    let code = fs::read(&program).expect("nvcc made a program");
    for function in [name.to_string(), format!("{name}_adjoint")] {
        // Each architecture's part has the section's name, once or more.
        let section = format!(".text.{function}\0");
        let found = code.windows(section.len()).filter(|window| *window == section.as_bytes()).count();
        assert!(found >= ARCHITECTURES.len(), "`{function}` is not there for every architecture");
    }
}

#[test]
fn standalone_programs_compile() {
    let Some(nvcc) = std::env::var_os("BULLET_NVCC").filter(|path| !path.is_empty()).map(PathBuf::from)
    else {
        println!("skipped: BULLET_NVCC is not set; run `cargo xtask test --stage cuda`");
        return;
    };
    let out = std::env::var_os("BULLET_NVCC_OUT").expect("BULLET_NVCC_OUT is set with BULLET_NVCC");
    let out = PathBuf::from(out);
    fs::create_dir_all(&out).expect("a folder can be made");
    let programs = programs();
    assert!(programs.len() >= 10);
    // Two at a time: nvcc itself runs its programs one after the other.
    std::thread::scope(|scope| {
        for half in programs.chunks(programs.len().div_ceil(2)) {
            let (nvcc, out) = (&nvcc, &out);
            scope.spawn(move || half.iter().for_each(|(name, text)| build(nvcc, out, name, text)));
        }
    });
    println!(
        "sm_{} by nvcc: {} programs of the kernel language",
        ARCHITECTURES.join(", sm_"),
        programs.len()
    );
}
