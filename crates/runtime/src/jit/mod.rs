//! Compiling device sources at run time: what to compile ([`Program`]), for which GPU ([`GpuInfo`], [`Tier`]).
//!
//! [`Device::load`](crate::Device::load) turns a program into a loaded module: from the disk cache if it was compiled
//! before by this NVRTC for this architecture under this driver, else by NVRTC.

pub mod cache;
pub mod nvrtc;

mod compiler;

use std::fmt;

use crate::error::{Error, Result};

pub use compiler::Compiler;

/// Whether `BULLET_TIER` names a tier, and `BULLET_CUBLASLT` and the variables of the cache make sense; whether the device has that tier, only
/// the device knows.
///
/// # Errors
/// A variable makes no sense.
pub fn check_environment() -> Result<()> {
    Tier::from_env()?;
    crate::search::check_cublaslt()?;
    cache::Cache::shared().map(|_| ())
}

/// A CUDA C++ translation unit, complete in itself: nothing is included.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// For error messages, as a file is named.
    pub name: &'a str,
    /// The whole text.
    pub source: &'a str,
    /// Whether it uses nothing of CUDA's runtime and textures (`cudaMalloc`, `cudaError_t`, `tex2D`): without them in scope,
    /// NVRTC 12.9 and later compile some 4 ms faster.
    pub minimal: bool,
}

/// The most modern kind of code that kernels may use: chosen by the device's capability, or forced lower by
/// `BULLET_TIER`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// f32 arithmetic, f16 as storage, 48 KiB of shared memory: every GPU from Kepler on.
    Sm35,
    /// Tensor cores for f16 through `mma.sync` (Volta).
    Sm70,
    /// `ldmatrix` and the m16n8k8 products (Turing).
    Sm75,
    /// `cp.async`, and tensor cores for bf16 and tf32 (Ampere and later).
    Sm80,
    /// TMA, thread block clusters and `wgmma` (Hopper only).
    Sm90a,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Tier; 5] = [Tier::Sm35, Tier::Sm70, Tier::Sm75, Tier::Sm80, Tier::Sm90a];

    /// The tier of a compute capability; `None` below 3.5.
    pub fn of(capability: (u32, u32)) -> Option<Tier> {
        match capability {
            (9, 0) => Some(Tier::Sm90a),
            (major, _) if major >= 8 => Some(Tier::Sm80),
            (7, minor) if minor >= 5 => Some(Tier::Sm75),
            (7, _) => Some(Tier::Sm70),
            c if c >= (3, 5) => Some(Tier::Sm35),
            _ => None,
        }
    }

    /// The value of the macro `TIER` in device sources: 35, 70, 75, 80 or 90.
    pub fn number(self) -> u32 {
        match self {
            Tier::Sm35 => 35,
            Tier::Sm70 => 70,
            Tier::Sm75 => 75,
            Tier::Sm80 => 80,
            Tier::Sm90a => 90,
        }
    }

    /// The tier that `BULLET_TIER` asks for, if it is set.
    ///
    /// # Errors
    /// It names none.
    pub fn from_env() -> Result<Option<Tier>> {
        let name = std::env::var_os("BULLET_TIER").map(|name| name.to_string_lossy().trim().to_string());
        name.filter(|name| !name.is_empty()).map(|name| Tier::named(&name)).transpose()
    }

    fn named(name: &str) -> Result<Tier> {
        Tier::parse(name).ok_or_else(|| {
            let names = Tier::ALL.map(|tier| tier.to_string()).join(", ");
            Error::invalid(format!(
                "the environment variable BULLET_TIER is wrong: '{name}'; expected one of {names}"
            ))
        })
    }

    /// The tier that its name says, as `BULLET_TIER` has it: `sm_35`, `sm_90a`.
    pub fn parse(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.to_string() == name)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Sm35 => "sm_35",
            Tier::Sm70 => "sm_70",
            Tier::Sm75 => "sm_75",
            Tier::Sm80 => "sm_80",
            Tier::Sm90a => "sm_90a",
        })
    }
}

/// What kernels need to know of a GPU to choose code and launch shapes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuInfo {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// The most modern code allowed.
    pub tier: Tier,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Most shared memory that one block can have, in bytes, dynamic memory included.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// Most resident threads of a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Second-level cache, in bytes.
    pub l2_bytes: usize,
}
