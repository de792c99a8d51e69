//! NVRTC and nvcc for the stage that compiles device sources: NVIDIA's compilers from Python wheels, in cargo's target folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command;

/// Set to 1, it leaves out the compilation of device sources.
pub(super) const SKIP: &str = "BULLET_SKIP_CUDA_COMPILE";

/// The oldest architectures are known to 11 only, the newest to 13 only. Two versions of one package cannot share a folder.
const WHEELS: &[&str] =
    &["nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-nvrtc==13.0.88"];

/// nvcc, and what it calls and includes. No wheel of CUDA 11 or 12 has the program itself.
const NVCC: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
];

/// Whether the user does without.
pub(super) fn skipped() -> bool {
    command::is_set(SKIP)
}

/// Downloads the wheels that are not here yet.
pub(super) fn install() -> Result<(), String> {
    if skipped() {
        println!("{SKIP}=1: device sources will not be compiled");
        return Ok(());
    }
    let folder = folder()?;
    for wheel in WHEELS {
        install_together(&folder, wheel, &[wheel]).map_err(|error| {
            format!(
                "{error}\ndevice sources are compiled with the wheel {wheel}, which needs python3 with pip and a \
                 network; {SKIP}=1 does without"
            )
        })?;
    }
    Ok(())
}

/// nvcc, downloaded at the first use; none, with a warning, where it cannot be had. What it compiles is checked with NVRTC
/// all the same.
pub(super) fn nvcc() -> Result<Option<PathBuf>, String> {
    let (folder, name) = (folder()?, NVCC[0]);
    let ready = match command::find_on_path("g++") {
        Some(_) => install_together(&folder, name, NVCC),
        None => Err("it needs g++ on the PATH".into()),
    };
    if let Err(error) = ready {
        println!("WARNING: nvcc was NOT run on the programs of the kernel language: {error}");
        return Ok(None);
    }
    Ok(Some(folder.join(name).join("nvidia/cu13/bin/nvcc")))
}

/// Where nvcc's programs go.
pub(super) fn programs() -> Result<PathBuf, String> {
    Ok(folder()?.join("programs"))
}

/// Wheels in one folder, which is there whole or not at all.
fn install_together(folder: &Path, name: &str, wheels: &[&str]) -> Result<(), String> {
    let place = folder.join(name);
    if place.is_dir() {
        return Ok(());
    }
    let text = |error: std::io::Error| format!("{}: {error}", place.display());
    // Installed beside and renamed, so that what is here is whole.
    let partial = folder.join(format!("{name}.partial-{}", std::process::id()));
    let mut pip = command::pip_install(Path::new("python3"));
    pip.args(["--no-deps", "--only-binary", ":all:", "--target"]).arg(&partial).args(wheels);
    let done = command::run(&mut pip).and_then(|()| fs::rename(&partial, &place).map_err(text));
    if done.is_err() {
        let _ = fs::remove_dir_all(&partial); // The error of the installation says more.
    }
    done
}

/// What the test program needs to know: where the compilers are, and where to keep what they make.
pub(super) fn variables() -> Result<[(&'static str, String); 2], String> {
    let folder = folder()?;
    let text = |path: OsString| {
        path.into_string().map_err(|path| format!("the target folder's name is no UTF-8: {}", path.display()))
    };
    let places = std::env::join_paths(WHEELS.iter().map(|wheel| folder.join(wheel)))
        .map_err(|error| format!("the target folder's name cannot be in a list of paths: {error}"))?;
    let compiled = folder.join("compiled").into_os_string();
    Ok([("BULLET_NVRTC", text(places)?), ("BULLET_CUDA_COMPILE", text(compiled)?)])
}

fn folder() -> Result<PathBuf, String> {
    Ok(command::target_folder()?.join("cuda"))
}
