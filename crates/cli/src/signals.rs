//! What signals do: Ctrl-C (and SIGTERM) ask a run to save and end; reaching the file size limit is an error of one
//! write, not the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::{note, warn};

/// A flag that the first Ctrl-C raises; the second ends the process. Files are replaced atomically, so that even then
/// a checkpoint stays whole.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raise = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if raise.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("\nstopping: saving after this step (Ctrl-C again quits at once)");
    });
    if let Err(e) = installed {
        warn(format_args!("Ctrl-C will not save: {e}"));
    }
    flag
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
