//! Where NVIDIA's libraries may be, in the order they are looked for: an explicit path, Python's wheels, the system.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A library to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    /// Its file, without a version.
    name: &'static str,
    /// The folder of its wheel for CUDA 11 and 12, below `nvidia`; later wheels share `nvidia/cu13`.
    package: &'static str,
}

/// The run-time compiler.
pub(crate) const NVRTC: Sought = Sought { name: "libnvrtc.so", package: "cuda_nvrtc" };
/// The library of matrix products.
pub(crate) const CUBLASLT: Sought = Sought { name: "libcublasLt.so", package: "cublas" };

/// Names of NVRTC that the system's loader may know, newest first.
const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];

/// The NVRTCs there are, best place first; the last few are names for the system's loader, which may know none.
///
/// # Errors
/// `BULLET_NVRTC` names no library.
pub(crate) fn nvrtc() -> Result<Vec<PathBuf>> {
    if let Some(explicit) = env::var_os("BULLET_NVRTC").filter(|v| !v.is_empty()) {
        let found = NVRTC.at(&explicit);
        return if found.is_empty() {
            Err(Error::jit_missing(format!(
                "the environment variable BULLET_NVRTC is '{}', which is neither libnvrtc.so nor a folder that has it",
                Path::new(&explicit).display()
            )))
        } else {
            Ok(found)
        };
    }
    let mut found = NVRTC.installed(&[]);
    found.extend(NAMES.map(PathBuf::from));
    Ok(found)
}

/// The cuBLASLts there are, best place first; none if `BULLET_CUBLASLT` is 0 or off. Files only, so that it is known what
/// would be loaded before it is.
///
/// # Errors
/// `BULLET_CUBLASLT` is none of these and names no library.
pub(crate) fn cublaslt() -> Result<Vec<PathBuf>> {
    let explicit = env::var_os("BULLET_CUBLASLT").filter(|v| !v.is_empty());
    match explicit.as_deref().map(|v| v.to_string_lossy().trim().to_ascii_lowercase()).as_deref() {
        Some("0" | "off") => Ok(Vec::new()),
        None | Some("1" | "on") => {
            let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
            Ok(CUBLASLT.installed(&env::split_paths(&path).collect::<Vec<_>>()))
        }
        Some(_) => {
            let explicit = explicit.unwrap_or_default();
            let found = CUBLASLT.at(&explicit);
            if !found.is_empty() {
                return Ok(found);
            }
            Err(Error::invalid(format!(
                "the environment variable BULLET_CUBLASLT is wrong: '{}' is neither libcublasLt.so nor a folder that has it; \
                 0 does without",
                Path::new(&explicit).display()
            )))
        }
    }
}

/// Whether `BULLET_CUBLASLT` makes sense, without a search if it is not set.
///
/// # Errors
/// As [`cublaslt`].
pub(crate) fn check_cublaslt() -> Result<()> {
    if env::var_os("BULLET_CUBLASLT").is_some_and(|v| !v.is_empty()) { cublaslt().map(drop) } else { Ok(()) }
}

/// The number behind `.so.` of a library's file, or of what it links to.
pub(crate) fn major_version(library: &Path) -> Option<u32> {
    let of = |path: &Path| file_name(path).split_once(".so.")?.1.split('.').next()?.parse().ok();
    of(library).or_else(|| of(&fs::canonicalize(library).ok()?))
}

impl Sought {
    /// What an explicit setting names: libraries, or folders that have them, separated as in `PATH`.
    fn at(&self, explicit: &OsStr) -> Vec<PathBuf> {
        env::split_paths(explicit).flat_map(|path| self.explicit_path(&path)).collect()
    }

    /// In Python's wheels, toolkits, the system's folders and these, each file once.
    fn installed(&self, more: &[PathBuf]) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = site_packages().iter().flat_map(|site| self.in_wheels(site)).collect();
        found.extend(system_folders().iter().chain(more).flat_map(|folder| self.in_folder(folder)));
        let mut seen = HashSet::new();
        found.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
        found
    }

    fn explicit_path(&self, path: &Path) -> Vec<PathBuf> {
        if path.is_file() {
            return vec![path.to_path_buf()];
        }
        let mut found = self.in_folder(path);
        found.extend(["lib", "lib64"].iter().flat_map(|lib| self.in_folder(&path.join(lib))));
        found.extend(self.in_wheels(path));
        found
    }

    /// In `nvidia/PACKAGE/lib` (CUDA 11 and 12) and `nvidia/cu13/lib` of a folder of Python packages.
    fn in_wheels(&self, site: &Path) -> Vec<PathBuf> {
        let packages = entries(&site.join("nvidia"));
        let ours = packages.iter().filter(|package| {
            let name = file_name(package);
            name == self.package || name.strip_prefix("cu").is_some_and(|n| n.parse::<u32>().is_ok())
        });
        ours.flat_map(|package| self.in_folder(&package.join("lib"))).collect()
    }

    /// The libraries of a folder, the newest name first: `libnvrtc.so.12`, and not its builtins or variants.
    fn in_folder(&self, folder: &Path) -> Vec<PathBuf> {
        let is_it = |path: &PathBuf| {
            let name = file_name(path);
            let version = name.strip_prefix(self.name);
            version.is_some_and(|v| v.chars().all(|c| c == '.' || c.is_ascii_digit()))
        };
        let mut found: Vec<PathBuf> = entries(folder).into_iter().filter(is_it).collect();
        found.sort_by(|a, b| b.cmp(a));
        found
    }
}

/// NVRTC's builtins next to a library that is given by its path.
pub(crate) fn builtins(library: &Path) -> Vec<PathBuf> {
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
        let found = NVRTC.in_wheels(&site);
        let lib = site.join("nvidia/cuda_nvrtc/lib");
        assert_eq!(found, [site.join("nvidia/cu13/lib/libnvrtc.so.13"), lib.join("libnvrtc.so.12")]);
        assert_eq!(builtins(&found[1]), [lib.join("libnvrtc-builtins.so.12.9")]);
        assert_eq!(builtins(&lib.join("libnvrtc.alt.so.12")), [lib.join("libnvrtc-builtins.alt.so.12.9")]);
        assert_eq!(NVRTC.explicit_path(&lib), [lib.join("libnvrtc.so.12")]);
        assert_eq!(NVRTC.explicit_path(&site).len(), 2);
        assert_eq!(NVRTC.explicit_path(&found[0]), [found[0].clone()]);
        assert!(
            NVRTC.explicit_path(&site.join("nothing")).is_empty()
                && builtins(Path::new("libnvrtc.so")).is_empty()
        );
        fs::remove_dir_all(site).unwrap();
    }

    #[test]
    fn other_libraries_are_found_in_the_same_places() {
        let site = tree(
            "cublas",
            &[
                "nvidia/cublas/lib/libcublasLt.so.12",
                "nvidia/cublas/lib/libcublas.so.12",
                "nvidia/cu13/lib/libcublasLt.so.13",
                "nvidia/cuda_nvrtc/lib/libcublasLt.so.9",
            ],
        );
        let lib = |file: &str| site.join("nvidia").join(file);
        let found = CUBLASLT.at(site.as_os_str());
        assert_eq!(found, [lib("cu13/lib/libcublasLt.so.13"), lib("cublas/lib/libcublasLt.so.12")]);
        assert_eq!(found.iter().map(|path| major_version(path)).collect::<Vec<_>>(), [Some(13), Some(12)]);
        assert_eq!(CUBLASLT.at(lib("cublas").as_os_str()), found[1..]);
        assert_eq!(major_version(Path::new("libcublasLt.so")), None);
        fs::remove_dir_all(site).unwrap();
    }
}
