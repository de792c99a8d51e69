//! A model file appears whole or not at all: full disks, limits, missing folders, leftovers of killed processes.

mod files;

use std::process::Command;

use bullet_nn::ErrorKind;
use bullet_nn::format::{AtomicFile, BulletFile, Header, TensorRef, write};
use bullet_ops::DType;
use files::{Folder, sample_header, sample_tensors, views};

const PATH: &str = "BULLET_TEST_WRITE_TO";

fn large(path: impl AsRef<std::path::Path>) -> bullet_nn::Result<()> {
    let bytes = vec![7; 400_000];
    let tensor = TensorRef { name: "large", dtype: DType::F32, shape: &[100_000], bytes: &bytes };
    write(path, &Header::default(), &[tensor])
}

/// Not a test by itself: what the limited process of the next test runs.
#[test]
#[ignore = "run by a_write_that_fails_halfway_leaves_the_old_file"]
fn writes_a_large_file() {
    if let Some(path) = std::env::var_os(PATH) {
        println!(
            "RESULT {}",
            large(path).map_or_else(|e| format!("{:?} {e}", e.kind), |()| "written".to_string())
        );
    }
}

/// The system cuts the write short, as on a full disk: the process may write files of a few kilobytes only.
#[test]
#[cfg(unix)]
fn a_write_that_fails_halfway_leaves_the_old_file() {
    let folder = Folder::new();
    let path = folder.path("model.bullet");
    write(&path, &sample_header(), &views(&sample_tensors())).unwrap();
    let before = std::fs::read(&path).unwrap();
    let run = |setup: &str| {
        let script =
            format!("trap '' XFSZ; {setup} exec \"$0\" --ignored --exact writes_a_large_file --nocapture");
        let exe = std::env::current_exe().unwrap();
        let out = Command::new("sh").args(["-c", &script]).arg(exe).env(PATH, &path).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };

    let out = run("ulimit -f 100;");
    assert!(out.contains("RESULT Io could not write"), "{out}");
    for words in [path.to_str().unwrap(), "bytes (400.", "kB) are needed in", "ulimit", "is unchanged"] {
        assert!(out.contains(words), "{words:?} is missing from {out}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(folder.names(), ["model.bullet"], "the temporary file is gone");

    // The same call without the limit goes through, so that it was the limit that stopped it.
    assert!(run("").contains("RESULT written"));
    assert_eq!(BulletFile::open_verified(&path).unwrap().tensor("large").unwrap().bytes, [7; 400_000]);
}

#[test]
fn an_unfinished_file_is_never_seen() {
    let folder = Folder::new();
    let path = folder.path("a");
    std::fs::write(&path, "old").unwrap();
    let mut file = AtomicFile::create(&path, 3).unwrap();
    file.write(b"new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(folder.names().len(), 2);
    drop(file);
    assert_eq!(folder.names(), ["a"]);
    let mut file = AtomicFile::create(&path, 3).unwrap();
    file.write(b"new").unwrap();
    file.commit().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(folder.names(), ["a"]);
}

#[test]
fn leftovers_of_killed_processes_go_and_files_being_written_stay() {
    let folder = Folder::new();
    let path = folder.path("m.bullet");
    for name in [".m.bullet.4000000-0.tmp", ".m.bullet.notes.tmp", ".other.bullet.4000000-0.tmp"] {
        std::fs::write(folder.path(name), "x").unwrap();
    }
    let busy = AtomicFile::create(&path, 0).unwrap();
    write(&path, &Header::default(), &[]).unwrap();
    let names = folder.names();
    assert!(!names.contains(&".m.bullet.4000000-0.tmp".to_string()), "{names:?}");
    assert_eq!(names.len(), 4, "ours, a stranger's, another file's, and the one being written: {names:?}");
    busy.commit().unwrap();
}

#[test]
fn impossible_destinations_are_explained() {
    let folder = Folder::new();
    let e = large(folder.path("missing/model.bullet")).unwrap_err();
    assert!(e.kind == ErrorKind::Io && e.message.contains("the folder must exist and be writable"), "{e}");
    assert!(e.message.contains("bytes (400."), "{e}");
    let e = large(folder.root()).unwrap_err();
    assert!(e.message.contains("it is a folder"), "{e}");
}

#[test]
#[cfg(unix)]
fn links_and_permissions_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    let (target, link) = (folder.path("target"), folder.path("link"));
    std::fs::write(&target, "old").unwrap();
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&target, &link).unwrap();
    large(&link).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    BulletFile::open_verified(&target).unwrap();
}

/// Opened files stay whole while they are replaced.
#[test]
fn readers_keep_the_file_they_opened() {
    let folder = Folder::new();
    let path = folder.path("m.bullet");
    let tensors = sample_tensors();
    write(&path, &sample_header(), &views(&tensors)).unwrap();
    let old = BulletFile::open(&path).unwrap();
    large(&path).unwrap();
    old.verify().unwrap();
    assert_eq!(old.tensors().collect::<Vec<_>>(), views(&tensors));
}
