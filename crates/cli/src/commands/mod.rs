//! The commands, a module each, and what several of them do.

pub(crate) mod compile;
pub(crate) mod convert;
pub(crate) mod devices;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod info;
pub(crate) mod train;

use std::path::{Path, PathBuf};

use bullet_nn::train::{self as training, HYBRID, LoadedModel, RunFolder, load_model};
use bullet_tensor::Device;

use crate::failure::Failure;

/// The model file that `path` means: itself, or the best (else the last) checkpoint of a run folder.
pub(crate) fn model_path(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let run = RunFolder::at(path);
    [run.best(), run.last()].into_iter().find(|file| file.exists()).ok_or_else(|| no_checkpoint(path))
}

/// The checkpoint that `path` means to go on from: itself, or the last (else the best) of a run folder.
pub(crate) fn checkpoint_path(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let run = RunFolder::at(path);
    [run.last(), run.best()].into_iter().find(|file| file.exists()).ok_or_else(|| no_checkpoint(path))
}

fn no_checkpoint(path: &Path) -> Failure {
    Failure::usage(format!("{} has neither last.bullet nor best.bullet", path.display()))
        .or_hint("name a run folder or a .bullet file; `bullet train --out FOLDER` makes one")
}

/// The one device that `--device` names.
pub(crate) fn device(name: &str) -> Result<Device, Failure> {
    if name == HYBRID {
        return Err(Failure::usage(format!(
            "`--device` = {HYBRID}: that is for training, which takes several times the memory of the weights alone"
        ))
        .or_hint("give auto, cpu, cuda or cuda:N; a model that was trained on two devices runs on any one"));
    }
    Device::parse(name).map_err(|e| no_device(name, e))
}

/// As [`device`], for training: of `hybrid` the first one.
pub(crate) fn first_device(name: &str) -> Result<Device, Failure> {
    training::first_device(name).map_err(|e| no_device(name, e))
}

fn no_device(name: &str, e: bullet_runtime::Error) -> Failure {
    Failure::usage(format!("`--device` = {name}: {e}"))
        .or_hint("`bullet devices` lists what there is; auto and cpu go on without a GPU")
}

/// The model in a file or run folder.
pub(crate) fn load(path: &Path, device: &Device) -> Result<LoadedModel, Failure> {
    load_model(model_path(path)?, device).map_err(|e| {
        let missing = e.source.as_ref().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        let failure = Failure::from(e);
        if missing {
            failure.or_hint("`bullet demo` makes demo.bullet, `bullet train` a run folder")
        } else {
            failure
        }
    })
}
