//! `bullet compile`.

use std::fs;

use crate::run::{Place, Said};

const KERNELS: &str = "\
import bullet_core.lang as wp


@wp.kernel
def scale(x: wp.array(dtype=float), s: float):
    i = wp.tid()
    x[i] = x[i] * s


@wp.kernel
def square(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[i] = x[i] * x[i]
";

/// What it takes from an array that it updates by atomics has no exact adjoint.
const NO_ADJOINT: &str = "\
import bullet_core.lang as wp


@wp.kernel
def take(x: wp.array(dtype=float), sum: wp.array(dtype=float)):
    i = wp.tid()
    x[i] = wp.atomic_add(sum, 0, x[i])
";

fn place(name: &str) -> Place {
    let place = Place::new(name);
    fs::write(place.path("kernels.py"), KERNELS).unwrap();
    place
}

#[test]
fn texts_of_every_kernel_go_to_standard_output() {
    let place = place("compile-text");
    let cuda = place.ok("compile kernels.py");
    assert!(cuda.starts_with("// scale: cuda\n") && cuda.contains("\n// square: cuda\n"), "{cuda}");
    assert!(cuda.contains("__global__ void square(") && !cuda.contains("square_adjoint"), "{cuda}");
    let both = place.ok("compile kernels.py --emit ir,cu,ir --adjoint --kernel square");
    for words in
        ["// square: ir\nkernel @square(", "\nkernel @square_adjoint(", "// square: cu\n", "int main() {"]
    {
        assert_eq!(both.matches(words).count(), 1, "{words}: {both}");
    }
    assert!(!both.contains("scale"), "{both}");
    assert!(!cuda.contains("Faults"), "{cuda}");
    let checked = place.ok("compile kernels.py --emit cuda,cu --debug --kernel square");
    let check = "if ((unsigned)i >= (unsigned)out.shape[0]) return faults.report(1, i, out.shape);";
    assert_eq!(checked.matches(check).count(), 2, "{checked}");
}

#[test]
fn files_are_named_by_kernel_and_kind() {
    let place = place("compile-files");
    let said = place.ok("compile kernels.py --emit ir,cuda,cu --adjoint --out made/deep");
    let names = ["scale.ir", "scale.cuda.cu", "scale.cu", "square.ir", "square.cuda.cu", "square.cu"];
    for (line, name) in said.lines().zip(names) {
        assert!(line.starts_with(&format!("wrote made/deep/{name}, ")), "{line}");
        let text = fs::read_to_string(place.path("made/deep").join(name)).unwrap();
        assert!(text.contains("_adjoint("), "{name}: {text}");
    }
    assert_eq!(said.lines().count(), names.len());
    assert!(!place.path("made/deep/scale.ptx").exists());
}

#[test]
fn two_kinds_stand_side_by_side() {
    let place = place("compile-diff");
    let shown = place.ok("compile kernels.py --diff ir,cuda --adjoint --kernel scale");
    let has = |left: &str, right: &str| {
        let line =
            shown.lines().find(|line| line.contains(left)).unwrap_or_else(|| panic!("{left}: {shown}"));
        let (before, after) = line.split_once(" | ").unwrap();
        assert!(before.contains(left) && after.contains(right), "{line}");
    };
    has("scale: ir", "scale: cuda");
    has("scale_adjoint: ir", "scale_adjoint: cuda");
    assert!(shown.lines().all(|line| line.chars().count() <= 160), "{shown}");
    // A program is one text with its adjoint.
    let shown = place.ok("compile kernels.py --diff ir,cu --adjoint --kernel scale");
    assert_eq!(shown.matches("scale: cu\n").count(), 1, "{shown}");
}

#[test]
fn times_are_told_apart_from_results() {
    let place = place("compile-time");
    let said = place.run("compile kernels.py --adjoint --time");
    assert_eq!(said.out, place.ok("compile kernels.py --adjoint"));
    for word in ["time: front ", " ms, passes ", " ms, adjoint ", " ms, emit "] {
        assert!(said.err.contains(word), "{}", said.err);
    }
    assert!(!said.err.contains("nvrtc"), "{}", said.err);
}

#[test]
fn what_cannot_be_compiled_is_explained() {
    let place = place("compile-errors");
    fs::write(place.path("none.py"), "import math\n\n\ndef f(x):\n    return x\n").unwrap();
    fs::write(place.path("wrong.py"), KERNELS.replace("* s", "* i").replace("out[i]", "outt[i]")).unwrap();
    fs::write(place.path("take.py"), NO_ADJOINT).unwrap();
    fs::write(place.path("file"), "").unwrap();
    let cases: &[(&str, i32, &[&str])] = &[
        ("missing.py", 1, &["error: could not read missing.py: No such file"]),
        ("none.py", 1, &["none.py has no kernel", "hint: kernels are functions with the decorator"]),
        ("wrong.py", 1, &["wrong.py:7:12", "^^^^^^^^", "= hint: ", "wrong.py:13:5", "outt"]),
        ("take.py --adjoint", 1, &["take.py:7:12", "wp.atomic_add(sum, 0, x[i])"]),
        ("kernels.py --out file/folder", 1, &["could not write file/folder/scale.cuda.cu"]),
        (
            "kernels.py --kernel cube",
            2,
            &["`--kernel` = cube", "no such kernel", "hint: it has scale, square"],
        ),
        ("kernels.py --emit ir,sass", 2, &["'sass'", "ir, cuda, cu"]),
        ("kernels.py --emit cubin", 2, &["`--emit` = cubin", "hint: --out FOLDER"]),
        ("kernels.py --diff ir", 2, &["--diff ir,cuda"]),
        ("kernels.py --diff ir,cubin", 2, &["`--diff` of a cubin"]),
        ("kernels.py --diff ir,cuda --out x", 2, &["--diff", "--out"]),
        ("kernels.py --arch sm_81", 2, &["'sm_81' for '--arch <ARCH>'", "sm_80", "sm_120"]),
        ("", 2, &["<FILE>"]),
    ];
    for (arguments, code, words) in cases {
        let said = place.run(&format!("compile {arguments}"));
        assert_eq!((said.code, said.out.as_str()), (Some(*code), ""), "{arguments}: {}", said.err);
        words.iter().for_each(|w| assert!(said.err.contains(w), "{arguments}: no {w:?} in {}", said.err));
        assert_eq!(said.err.matches("error: error: ").count(), 0, "{}", said.err);
    }
    // Only what was asked for needs an adjoint.
    assert!(place.ok("compile take.py").contains("__global__ void take("));
    let said = Said::from(
        place.command("compile kernels.py --emit ptx").env("BULLET_NVRTC", "/nowhere").output().unwrap(),
    );
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("BULLET_NVRTC is '/nowhere'"), "{}", said.err);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn code_for_the_cpu_is_shown() {
    let place = place("compile-cpu");
    let said = place.ok("compile kernels.py --emit clif,asm --adjoint --kernel square");
    assert!(said.starts_with("; square: clif\n") && said.contains("\n; square: asm\n"), "{said}");
    assert!(said.contains("function ") && said.contains("fmul") && said.contains("vmulss"), "{said}");
    assert_eq!(said.matches("; square_adjoint\n").count(), 2, "{said}");
    place.ok("compile kernels.py --emit clif,asm --out made");
    assert!(place.path("made/square.s").exists() && place.path("made/scale.clif").exists());
    let shown = place.ok("compile kernels.py --diff cpu,cuda --kernel square");
    let first = shown.lines().next().unwrap();
    assert!(first.starts_with("square: asm ") && first.ends_with("| square: cuda"), "{first}");
}

/// Needs an NVRTC of each major version in `BULLET_NVRTC`, as `cargo xtask test --stage cuda` sets it.
#[test]
fn nvrtc_compiles_for_the_architecture() {
    if std::env::var_os("BULLET_NVRTC").is_none_or(|places| places.is_empty()) {
        println!("skipped: BULLET_NVRTC is not set; run `cargo xtask test --stage cuda`");
        return;
    }
    let place = place("compile-nvrtc");
    let run = |arguments: &str| {
        let mut command = place.command(&format!("compile kernels.py {arguments}"));
        let said = Said::from(command.env("BULLET_CACHE_DIR", place.path("cache")).output().unwrap());
        assert_eq!(said.code, Some(0), "{arguments}: {}", said.err);
        said
    };
    for (arch, target) in [("sm_35", "sm_35"), ("sm_80", "sm_80"), ("sm_90a", "sm_90a"), ("sm_120", "sm_120")]
    {
        let said = run(&format!("--emit ptx --arch {arch} --kernel square --adjoint"));
        assert!(said.out.contains(&format!(".target {target}\n")), "{}", said.out);
        assert!(
            said.out.contains(".entry square(") && said.out.contains(".entry square_adjoint("),
            "{}",
            said.out
        );
        assert!(!said.out.contains('\0'));
    }
    run("--emit ptx,cubin --arch sm_90 --out made");
    assert!(fs::read(place.path("made/scale.cubin")).unwrap().starts_with(b"\x7fELF"));
    let anew = run("--emit ptx --arch sm_90 --time");
    assert!(anew.err.contains(", nvrtc "), "{}", anew.err);
    assert_eq!(anew.out, run("--emit ptx --arch sm_90").out);
    assert!(run("--diff cuda,ptx --arch sm_90").out.contains(".entry scale("));
}
