//! Compiling with every NVRTC that is installed. Needs no GPU; without NVRTC there is nothing to do.

use std::sync::Arc;

use bullet_runtime::ErrorKind;
use bullet_runtime::jit::cache::Cache;
use bullet_runtime::jit::nvrtc::{Nvrtc, Target};
use bullet_runtime::jit::{Compiler, Program, Tier};

const SCALE: Program<'_> = Program {
    name: "scale",
    source: "extern \"C\" __global__ void scale(float* x, float a) { x[blockIdx.x * blockDim.x + threadIdx.x] *= a; }\n",
    minimal: false,
};

fn installed() -> Vec<Nvrtc> {
    let all = Nvrtc::installed().unwrap();
    if all.is_empty() {
        println!("skipped: no NVRTC");
    }
    all
}

#[test]
fn every_nvrtc_compiles_for_its_architectures() {
    for nvrtc in installed() {
        println!("{nvrtc:?}: {:?}", nvrtc.archs());
        for &arch in [nvrtc.archs().first(), nvrtc.archs().last()].into_iter().flatten() {
            let cubin = nvrtc.compile(&SCALE, &Target::Cubin(format!("sm_{arch}"))).unwrap();
            assert_eq!(&cubin[..4], b"\x7fELF");
            let ptx = nvrtc.compile(&SCALE, &Target::Ptx(format!("compute_{arch}"))).unwrap();
            assert_eq!(ptx.last(), Some(&0), "PTX ends in a 0 byte");
            assert!(String::from_utf8_lossy(&ptx).contains(".entry scale"));
            // What is left out is not in the code.
            let minimal =
                nvrtc.compile(&Program { minimal: true, ..SCALE }, &Target::Ptx(format!("compute_{arch}")));
            assert_eq!(minimal.unwrap(), ptx);
        }
        let hopper = Target::choose((9, 0), Tier::Sm90a, nvrtc.archs(), nvrtc.version());
        assert_eq!(hopper.is_some(), nvrtc.version() >= (12, 0));
        if let Some(target) = hopper {
            assert_eq!(&nvrtc.compile(&SCALE, &target).unwrap()[..4], b"\x7fELF");
        }
    }
}

#[test]
fn errors_hold_the_log_with_line_numbers() {
    for nvrtc in installed() {
        let target = Target::Cubin(format!("sm_{}", nvrtc.archs()[0]));
        let wrong = Program {
            name: "wrong",
            source: "\n\nextern \"C\" __global__ void f() { int x = y; }\n",
            minimal: true,
        };
        let e = nvrtc.compile(&wrong, &target).unwrap_err();
        assert_eq!(e.kind, ErrorKind::CompileFailed);
        for part in ["'wrong'", target.arch(), "wrong.cu(3)", "\"y\" is undefined"] {
            assert!(e.message.contains(part), "no {part} in: {e}");
        }
        let e = nvrtc.compile(&SCALE, &Target::Cubin("sm_1".into())).unwrap_err();
        assert!(e.message.contains("sm_1"), "{e}");
        let zero = Program { name: "zero", source: "int x;\0", minimal: true };
        assert!(nvrtc.compile(&zero, &target).unwrap_err().message.contains("0 byte"));
    }
}

#[test]
fn a_compiled_program_is_found_again() {
    let folder = std::env::temp_dir().join(format!("bullet-nvrtc-{}", std::process::id()));
    let all = installed();
    let count = all.len() as u64;
    for nvrtc in all {
        let cache = Arc::new(Cache::new(&folder, 1 << 20));
        let target = Target::Cubin(format!("sm_{}", nvrtc.archs()[0]));
        let compiler = Compiler::new(nvrtc, target, (13, 0), Some(cache.clone()));
        let first = compiler.compile(&SCALE).unwrap();
        assert_eq!(compiler.compile(&Program { name: "renamed", ..SCALE }).unwrap(), first);
        let report = cache.report();
        assert_eq!((report.process.hits, report.process.misses), (1, 1));
        assert!(report.process.compile_us > 0);
    }
    // One entry for each version: none took another's.
    assert!(count == 0 || Cache::new(&folder, 1 << 20).report().entries >= 1);
    let _ = std::fs::remove_dir_all(folder);
}
