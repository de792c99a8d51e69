//! NVRTC for the stage that compiles device sources: NVIDIA's compilers from Python wheels, in cargo's target folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command;

/// Set to 1, it leaves out the compilation of device sources.
pub(super) const SKIP: &str = "BULLET_SKIP_CUDA_COMPILE";

/// The oldest architectures are known to 11 only, the newest to 13 only. Two versions of one package cannot share a folder.
const WHEELS: &[&str] =
    &["nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-nvrtc==13.0.88"];

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
        install_one(&folder, wheel).map_err(|error| {
            format!(
                "{error}\ndevice sources are compiled with the wheel {wheel}, which needs python3 with pip and a \
                 network; {SKIP}=1 does without"
            )
        })?;
    }
    Ok(())
}

fn install_one(folder: &Path, wheel: &str) -> Result<(), String> {
    let place = folder.join(wheel);
    if place.is_dir() {
        return Ok(());
    }
    let text = |error: std::io::Error| format!("{}: {error}", place.display());
    // Installed beside and renamed, so that what is here is whole.
    let partial = folder.join(format!("{wheel}.partial-{}", std::process::id()));
    let mut pip = command::pip_install(Path::new("python3"));
    pip.args(["--no-deps", "--only-binary", ":all:", "--target"]).arg(&partial).arg(wheel);
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
