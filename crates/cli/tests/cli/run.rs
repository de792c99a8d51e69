//! Running the command in a folder of its own, and looking at what it said.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bullet_nn::format::BulletFile;

/// Sizes of a model that takes milliseconds a step.
pub(crate) const TINY: &str = "--tokenizer-kind char --dim 16 --layers 2 --heads 2 --ff 32 --seq 12 --batch-size 4 \
                               --log-interval 5 --eval-interval 10 --eval-batches 2";

/// A folder that is removed at the end, with a text in it.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("bullet-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let words =
            ["the cat ", "sat on ", "a mat; ", "who saw ", "it there? ", "not I, ", "said the dog.\n"];
        let text: String = (0..400).map(|i: usize| words[(i * i + i / 3) % words.len()]).collect();
        std::fs::write(path.join("text.txt"), text).unwrap();
        Place(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The command in this folder, with arguments separated by spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bullet"));
        command.current_dir(&self.0).args(arguments.split_whitespace()).stdin(Stdio::null());
        // One thread each: tests run side by side.
        command.env("BULLET_THREADS", "1").env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs to the end in a folder of this one.
    pub(crate) fn run_in(&self, folder: &str, arguments: &str) -> Said {
        Said::from(self.command(arguments).current_dir(self.path(folder)).output().unwrap())
    }

    /// Runs to the end.
    pub(crate) fn run(&self, arguments: &str) -> Said {
        Said::from(self.command(arguments).output().unwrap())
    }

    /// Runs to the end, which must be a good one; returns standard output.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "bullet {arguments}\n{}", said.err);
        said.out
    }

    /// Runs to the end, which must be a good one; returns the JSON that was printed.
    pub(crate) fn json(&self, arguments: &str) -> serde_json::Value {
        let out = self.ok(&format!("{arguments} --json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("bullet {arguments}: {e}\n{out}"))
    }

    /// Trains a tiny model in `runs/NAME`.
    pub(crate) fn trained(&self, name: &str, steps: u64) {
        self.ok(&format!("train --data text.txt --out runs/{name} {TINY} --steps {steps} --quiet"));
    }

    /// Starts, with its output kept for later.
    pub(crate) fn start(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Every tensor of a checkpoint by name, as bytes.
    pub(crate) fn tensors(&self, file: &str) -> Vec<(String, Vec<u8>)> {
        let file = BulletFile::open_verified(self.path(file)).unwrap();
        file.tensors().map(|t| (t.name.to_string(), t.bytes.to_vec())).collect()
    }

    /// Steps done in a checkpoint, every byte of which is verified.
    pub(crate) fn step(&self, file: &str) -> u64 {
        self.json(&format!("info {file} --verify"))["training"]["step"].as_u64().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits until `path` exists, or a minute.
pub(crate) fn wait_for(path: &Path) {
    for _ in 0..6000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} did not appear", path.display());
}
