//! What signals do: Ctrl-C (and SIGTERM) ask a run to save and end; reaching the file size limit is an error of one
//! write, not the end of the process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bullet_nn::train::{Callback, CheckpointKind, Flow, Report};

use crate::failure::INTERRUPTED;
use crate::output::{note, warn};

/// No step was done: there is nothing to save.
const BEFORE: u8 = 0;
/// There are steps to save.
const TRAINING: u8 = 1;
/// All is saved.
const AFTER: u8 = 2;

/// What the first Ctrl-C does depends on where a run stands: before its first step and after its last save it ends the
/// process, between them it raises a flag. The second always ends the process. Files are replaced atomically, so that even then a
/// checkpoint stays whole.
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    phase: Arc<AtomicU8>,
}

impl Stop {
    /// Listens from now on. `untrained` tells the user of an end before the first step.
    pub(crate) fn listen(untrained: impl Fn() + Send + 'static) -> Stop {
        let stop = Stop { flag: Arc::default(), phase: Arc::default() };
        let (flag, phase) = (stop.flag.clone(), stop.phase.clone());
        // The handler has a thread of its own, where it may print and exit.
        let installed = ctrlc::set_handler(move || {
            match phase.load(Ordering::Relaxed) {
                BEFORE => untrained(),
                TRAINING if !flag.swap(true, Ordering::Relaxed) => {
                    return note("\nstopping: saving after this step (Ctrl-C again quits at once)");
                }
                TRAINING => {}
                _ => note("\nstopped: training is done, and saved"),
            }
            std::process::exit(INTERRUPTED.into());
        });
        if let Err(e) = installed {
            warn(format_args!("Ctrl-C will not save: {e}"));
        }
        stop
    }

    /// The flag for the run.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    /// What learns from the run where it stands.
    pub(crate) fn watch(&self) -> impl Callback + use<> {
        Watch { phase: self.phase.clone(), done: false }
    }
}

struct Watch {
    phase: Arc<AtomicU8>,
    /// The last step is done.
    done: bool,
}

impl Callback for Watch {
    fn on_step(&mut self, step: u64, steps: u64) -> Flow {
        self.phase.store(TRAINING, Ordering::Relaxed);
        self.done = step == steps;
        Flow::Continue
    }

    fn on_checkpoint(&mut self, kind: CheckpointKind, _: &Path) {
        // What follows the last save is an evaluation, as long as the text is.
        if self.done && kind == CheckpointKind::Last {
            self.phase.store(AFTER, Ordering::Relaxed);
        }
    }

    fn on_end(&mut self, _: &Report) {
        self.phase.store(AFTER, Ordering::Relaxed);
    }
}

/// By default the signal SIGXFSZ ends a process whose file gets larger than `ulimit -f`; without it the write fails,
/// and is reported.
#[cfg(unix)]
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: setting a signal to SIG_IGN runs no code of ours; no other thread was started yet.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// There is no such signal.
#[cfg(not(unix))]
pub(crate) fn ignore_file_size_signal() {}
