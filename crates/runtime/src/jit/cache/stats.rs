//! How a cache served: counted in the process, and summed over all processes in a file of one line.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Counts of a kernel cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Kernels found compiled.
    pub hits: u64,
    /// Kernels that had to be compiled.
    pub misses: u64,
    /// Time spent compiling, in microseconds.
    pub compile_us: u64,
}

impl Stats {
    fn plus(self, other: Stats) -> Stats {
        Stats {
            hits: self.hits.saturating_add(other.hits),
            misses: self.misses.saturating_add(other.misses),
            compile_us: self.compile_us.saturating_add(other.compile_us),
        }
    }

    /// All numbers at their full width, so that a line always covers the one before it.
    fn line(self) -> String {
        format!("hits {:020} misses {:020} compile_us {:020}\n", self.hits, self.misses, self.compile_us)
    }

    /// `None` for what is no such line.
    fn parse(text: &str) -> Option<Stats> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["hits", hits, "misses", misses, "compile_us", us] => Some(Stats {
                hits: hits.parse().ok()?,
                misses: misses.parse().ok()?,
                compile_us: us.parse().ok()?,
            }),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct StatsFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    process: Stats,
    /// Counted and not in the file yet.
    pending: Stats,
}

impl StatsFile {
    pub(super) fn new(path: PathBuf) -> StatsFile {
        StatsFile { path, state: Mutex::default() }
    }

    /// Counts, here and in the file. What cannot be written now is written the next time.
    pub(super) fn add(&self, stats: Stats) {
        let mut state = self.lock();
        state.process = state.process.plus(stats);
        state.pending = state.pending.plus(stats);
        if self.write(state.pending).is_ok() {
            state.pending = Stats::default();
        }
    }

    pub(super) fn process(&self) -> Stats {
        self.lock().process
    }

    /// What the file says, and what it does not know yet.
    pub(super) fn ever(&self) -> Stats {
        self.written().plus(self.lock().pending)
    }

    /// What the file says.
    pub(super) fn written(&self) -> Stats {
        File::open(&self.path).ok().as_ref().and_then(read).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds to the line in the file, alone among all processes.
    fn write(&self, stats: Stats) -> io::Result<()> {
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        lock_soon(&file)?;
        // What is damaged starts anew.
        let line = read(&file).unwrap_or_default().plus(stats).line();
        file.rewind()?;
        file.write_all(line.as_bytes())?;
        file.set_len(line.len() as u64)
    }
}

/// The line of a file, which may hold anything.
fn read(file: &File) -> Option<Stats> {
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    Stats::parse(&text)
}

/// Locks a file that others hold for microseconds; gives up if one of them was stopped meanwhile.
pub(super) fn lock_soon(file: &File) -> io::Result<()> {
    for _ in 0..100 {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(200)),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
