//! PTX and machine code by an NVRTC that knows the architecture; no GPU is needed.

use std::fmt;

use bullet_lang::emit::ptx;
use bullet_runtime::jit::cache::Cache;
use bullet_runtime::jit::nvrtc::{Nvrtc, Target};
use bullet_runtime::jit::{Compiler, Program};

use crate::failure::Failure;

/// What each Python package with an NVRTC compiles for: its major version, and the architectures of its last release.
const PACKAGES: [(&str, u32, &[u32]); 3] = [
    ("nvidia-cuda-nvrtc", 13, &[75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121]),
    (
        "nvidia-cuda-nvrtc-cu12",
        12,
        &[50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121],
    ),
    ("nvidia-cuda-nvrtc-cu11", 11, &[35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90]),
];

/// A GPU architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arch {
    /// 80 of `sm_80`.
    number: u32,
    /// Of `sm_90a`: with what this architecture alone has.
    own: bool,
}

/// The architecture that is written as `sm_80`.
pub(crate) fn arch(text: &str) -> Result<Arch, String> {
    let name = text.strip_prefix("sm_").unwrap_or("");
    let (digits, own) = name.strip_suffix('a').map_or((name, false), |digits| (digits, true));
    let known = |arch: &Arch| PACKAGES.iter().any(|&(_, major, archs)| arch.is_known_to((major, 9), archs));
    let found = digits.parse().ok().map(|number| Arch { number, own }).filter(known);
    found.ok_or_else(|| {
        let mut all: Vec<u32> = PACKAGES.iter().flat_map(|(_, _, archs)| *archs).copied().collect();
        all.sort_unstable();
        all.dedup();
        let all: Vec<String> = all.iter().map(|number| format!("sm_{number}")).collect();
        format!("expected one of {}, or with an `a` from sm_90 on", all.join(", "))
    })
}

impl Arch {
    /// Whether an NVRTC of this version, for these architectures, compiles for it.
    fn is_known_to(self, version: (u32, u32), archs: &[u32]) -> bool {
        archs.contains(&self.number) && (!self.own || (self.number >= 90 && version >= (12, 0)))
    }

    /// The Python package to install for it, the newest there is.
    fn package(self) -> &'static str {
        let knows = |&&(_, major, archs): &&(&str, u32, &[u32])| self.is_known_to((major, 9), archs);
        PACKAGES.iter().find(knows).map_or("nvidia-cuda-nvrtc", |(package, ..)| package)
    }

    /// The instructions that Bullet's own PTX has for it.
    pub(super) fn target(self) -> ptx::Target {
        // The parser knows no architecture below 3.5.
        ptx::Target::of((self.number / 10, self.number % 10)).unwrap_or(ptx::Target::Sm35)
    }

    fn suffix(self) -> String {
        format!("{}{}", self.number, if self.own { "a" } else { "" })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.suffix())
    }
}

/// What NVRTC makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Image {
    Ptx,
    Cubin,
}

/// A compiler to each image, for one architecture.
pub(super) struct Gpu {
    ptx: Compiler,
    cubin: Compiler,
}

impl Gpu {
    /// The best installed NVRTC that knows the architecture.
    pub(super) fn find(arch: Arch, cached: bool) -> Result<Gpu, Failure> {
        let failed = |e: bullet_runtime::Error| Failure::failed(e.message);
        let installed = Nvrtc::installed().map_err(failed)?;
        let knows = |nvrtc: &&Nvrtc| arch.is_known_to(nvrtc.version(), nvrtc.archs());
        let found = installed.iter().find(knows).ok_or_else(|| missing(arch, &installed))?;
        let compiler = |target: Target| {
            let cache = if cached { Cache::shared().map_err(failed)? } else { None };
            // No driver will load this now: (0, 0).
            Ok::<_, Failure>(Compiler::new(Nvrtc::open(found.path()).map_err(failed)?, target, (0, 0), cache))
        };
        Ok(Gpu {
            ptx: compiler(Target::Ptx(format!("compute_{}", arch.suffix())))?,
            cubin: compiler(Target::Cubin(arch.to_string()))?,
        })
    }

    /// PTX as text, without the 0 byte that ends it for a driver; or machine code.
    pub(super) fn compile(&self, image: Image, name: &str, source: &str) -> Result<Vec<u8>, Failure> {
        let compiler = if image == Image::Ptx { &self.ptx } else { &self.cubin };
        let made = compiler.compile(&Program { name, source, minimal: true });
        let mut made = made.map_err(|e| Failure::failed(e.message))?;
        if image == Image::Ptx && made.last() == Some(&0) {
            made.pop();
        }
        Ok(made)
    }
}

/// What is installed, and what would do.
fn missing(arch: Arch, installed: &[Nvrtc]) -> Failure {
    let versions: Vec<String> = installed
        .iter()
        .map(|nvrtc| format!("{}.{} at {}", nvrtc.version().0, nvrtc.version().1, nvrtc.path().display()))
        .collect();
    let found = if versions.is_empty() {
        "none is installed".into()
    } else {
        format!("there is {}, which does not know it", versions.join(", "))
    };
    Failure::failed(format!("ptx and cubin need NVRTC for {arch}: {found}")).or_hint(format_args!(
        "`pip install {}`, or set BULLET_NVRTC to the path of libnvrtc.so; --ptx-by bullet, and all kinds but ptx and cubin, need none",
        arch.package()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_those_of_some_nvrtc() {
        for (name, package) in [
            ("sm_35", "nvidia-cuda-nvrtc-cu11"),
            ("sm_61", "nvidia-cuda-nvrtc-cu12"),
            ("sm_80", "nvidia-cuda-nvrtc"),
            ("sm_90a", "nvidia-cuda-nvrtc"),
            ("sm_101a", "nvidia-cuda-nvrtc-cu12"),
            ("sm_120", "nvidia-cuda-nvrtc"),
        ] {
            let arch = arch(name).unwrap();
            assert_eq!((arch.to_string().as_str(), arch.package()), (name, package));
        }
        for wrong in ["sm_81", "sm_80a", "compute_80", "80", "sm_", "sm_-1", "sm_90aa", "SM_80"] {
            assert!(arch(wrong).unwrap_err().contains("sm_35, sm_37"), "{wrong}");
        }
    }

    #[test]
    fn what_only_one_architecture_has_needs_cuda_12() {
        let hopper = arch("sm_90a").unwrap();
        assert!(!hopper.is_known_to((11, 8), &[80, 90]) && hopper.is_known_to((12, 0), &[80, 90]));
        assert!(arch("sm_90").unwrap().is_known_to((11, 8), &[80, 90]));
    }

    #[test]
    fn a_missing_compiler_is_told_with_its_package() {
        let Failure::Error { message, hint, code: 1 } = missing(arch("sm_35").unwrap(), &[]) else {
            panic!()
        };
        assert!(message.contains("sm_35: none is installed"), "{message}");
        assert!(hint.unwrap().contains("`pip install nvidia-cuda-nvrtc-cu11`"));
    }
}
