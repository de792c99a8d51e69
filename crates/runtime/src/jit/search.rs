//! Where NVRTC may be, in the order it is looked for: an explicit path, Python's wheels, the system.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names that the system's loader may know, newest first.
const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];

/// The libraries there are, best place first; the last few are names for the system's loader, which may know none.
///
/// # Errors
/// `BULLET_NVRTC` names no library.
pub(super) fn candidates() -> Result<Vec<PathBuf>> {
    if let Some(explicit) = env::var_os("BULLET_NVRTC").filter(|v| !v.is_empty()) {
        let found: Vec<PathBuf> = env::split_paths(&explicit).flat_map(|path| explicit_path(&path)).collect();
        return if found.is_empty() {
            Err(Error::jit_missing(format!(
                "the environment variable BULLET_NVRTC is '{}', which is neither libnvrtc.so nor a folder that has it",
                Path::new(&explicit).display()
            )))
        } else {
            Ok(found)
        };
    }
    let mut found: Vec<PathBuf> = site_packages().iter().flat_map(|site| in_wheels(site)).collect();
    found.extend(system_folders().iter().flat_map(|folder| in_folder(folder)));
    let mut seen = HashSet::new();
    found.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found.extend(NAMES.map(PathBuf::from));
    Ok(found)
}

/// The builtins next to a library that is given by its path.
pub(super) fn builtins(library: &Path) -> Vec<PathBuf> {
    let alternative = file_name(library).contains(".alt.");
    let is_builtins = |path: &PathBuf| {
        let name = file_name(path);
        name.starts_with("libnvrtc-builtins.") && name.contains(".alt.") == alternative
    };
    match library.parent() {
        Some(folder) if folder != Path::new("") => entries(folder).into_iter().filter(is_builtins).collect(),
        _ => Vec::new(),
    }
}

fn explicit_path(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let mut found = in_folder(path);
    found.extend(["lib", "lib64"].iter().flat_map(|lib| in_folder(&path.join(lib))));
    found.extend(in_wheels(path));
    found
}

/// In `nvidia/cuda_nvrtc/lib` (CUDA 11 and 12) and `nvidia/cu13/lib` of a folder of Python packages.
fn in_wheels(site: &Path) -> Vec<PathBuf> {
    let packages = entries(&site.join("nvidia"));
    let nvrtc = packages.iter().filter(|package| {
        let name = file_name(package);
        name == "cuda_nvrtc" || name.strip_prefix("cu").is_some_and(|n| n.parse::<u32>().is_ok())
    });
    nvrtc.flat_map(|package| in_folder(&package.join("lib"))).collect()
}

/// The libraries of a folder, the newest name first: `libnvrtc.so.12`, and not its builtins or variants.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let is_nvrtc = |path: &PathBuf| {
        let name = file_name(path);
        let version = name.strip_prefix("libnvrtc.so");
        version.is_some_and(|v| v.chars().all(|c| c == '.' || c.is_ascii_digit()))
    };
    let mut found: Vec<PathBuf> = entries(folder).into_iter().filter(is_nvrtc).collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Folders of Python packages: those of the active environment, of the user, and of each `python3` on the PATH.
fn site_packages() -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> = Vec::new();
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    prefixes.extend(["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(var));
    prefixes.extend(var("HOME").map(|home| home.join(".local")));
    for folder in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        let python = folder.join("python3");
        if python.is_file() {
            // An environment's python3 is a link: both its own packages and those of what it points to may be used.
            prefixes.extend(folder.parent().map(Path::to_path_buf));
            let real = fs::canonicalize(&python).ok();
            prefixes
                .extend(real.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf));
        }
    }
    prefixes.extend(["/usr", "/usr/local"].map(PathBuf::from));
    let mut seen = HashSet::new();
    prefixes.retain(|prefix| seen.insert(prefix.clone()));
    let mut sites = Vec::new();
    for lib in prefixes.iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("lib64")]) {
        let mut pythons = entries(&lib);
        pythons.retain(|path| file_name(path).starts_with("python3"));
        pythons.sort_by(|a, b| b.cmp(a));
        let kinds = pythons.iter().flat_map(|p| ["site-packages", "dist-packages"].map(|kind| p.join(kind)));
        sites.extend(kinds.filter(|site| site.is_dir()));
    }
    sites
}

/// Folders of toolkits and packages of the system.
fn system_folders() -> Vec<PathBuf> {
    let mut toolkits: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(PathBuf::from).collect();
    let mut local = entries(Path::new("/usr/local"));
    local.retain(|path| file_name(path).starts_with("cuda"));
    local.sort_by(|a, b| b.cmp(a));
    toolkits.extend(local);
    let mut folders = Vec::new();
    for toolkit in toolkits {
        folders.push(toolkit.join("lib64"));
        folders.extend(entries(&toolkit.join("targets")).iter().map(|target| target.join("lib")));
    }
    folders
        .extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(PathBuf::from));
    folders
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn file_name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[&str]) -> PathBuf {
        let root = env::temp_dir().join(format!("bullet-search-{name}-{}", std::process::id()));
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn wheels_of_all_layouts_are_found() {
        let site = tree(
            "wheels",
            &[
                "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
                "nvidia/cuda_nvrtc/lib/libnvrtc.alt.so.12",
                "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
                "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.alt.so.12.9",
                "nvidia/cu13/lib/libnvrtc.so.13",
                "nvidia/cublas/lib/libnvrtc.so.9",
            ],
        );
        let found = in_wheels(&site);
        let lib = site.join("nvidia/cuda_nvrtc/lib");
        assert_eq!(found, [site.join("nvidia/cu13/lib/libnvrtc.so.13"), lib.join("libnvrtc.so.12")]);
        assert_eq!(builtins(&found[1]), [lib.join("libnvrtc-builtins.so.12.9")]);
        assert_eq!(builtins(&lib.join("libnvrtc.alt.so.12")), [lib.join("libnvrtc-builtins.alt.so.12.9")]);
        assert_eq!(explicit_path(&lib), [lib.join("libnvrtc.so.12")]);
        assert_eq!(explicit_path(&site).len(), 2);
        assert_eq!(explicit_path(&found[0]), [found[0].clone()]);
        assert!(
            explicit_path(&site.join("nothing")).is_empty() && builtins(Path::new("libnvrtc.so")).is_empty()
        );
        fs::remove_dir_all(site).unwrap();
    }
}
