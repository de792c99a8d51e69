//! Ctrl-C in long calls. Python handles signals in its main thread, between its own instructions; a call into the engine is
//! one of these, however long it takes. So the engine asks on the way (`stop`), and who waits for a GPU wakes up to ask.
//!
//! Other threads do not ask: they get no signals, and a daemon thread may still compute when the interpreter is gone. For
//! the same reason the engine calls back into Python by [`attached`].

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bullet_runtime::fork;
use bullet_tensor::{Device, stop};
use pyo3::prelude::*;

use crate::error;

/// How long a wait for a GPU keeps the processor busy: what small results take, which sleeping would double.
const ALERT: Duration = Duration::from_micros(200);
/// How long it sleeps between looks after that.
const NAP: Duration = Duration::from_micros(50);
/// How often Python is asked for signals.
const EVERY: Duration = Duration::from_millis(50);

thread_local! {
    /// What the handler of a signal raised while this thread was in the engine.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
    /// Whether this is the thread that Python handles signals in, and the process that this was true of: in a forked child
    /// it is the thread that forked.
    static MAIN: Cell<Option<(usize, bool)>> = const { Cell::new(None) };
}

/// Whether this is the thread that Python handles signals in.
fn handles_signals(py: Python<'_>) -> bool {
    let process = fork::generation();
    if let Some((_, main)) = MAIN.get().filter(|&(of, _)| of == process) {
        return main;
    }
    let ask = || -> PyResult<bool> {
        let threading = py.import("threading")?;
        let main = threading.call_method0("main_thread")?.getattr("ident")?;
        threading.call_method0("get_ident")?.eq(main)
    };
    let main = ask().unwrap_or(false);
    MAIN.set(Some((process, main)));
    main
}

/// Runs `f` with the interpreter's lock, for calls from the engine. Once the interpreter has ended, a daemon thread that comes
/// here sleeps until the process does, as one that waits for the lock.
pub(crate) fn attached<R>(f: impl FnOnce(Python<'_>) -> R) -> R {
    Python::try_attach(f).unwrap_or_else(|| {
        loop {
            std::thread::park();
        }
    })
}

/// Lets Python handle signals that have come in; whether a handler raised.
fn signalled() -> bool {
    match attached(|py| py.check_signals()) {
        Ok(()) => false,
        Err(exception) => {
            RAISED.set(Some(exception));
            true
        }
    }
}

/// Runs `f` without the interpreter's lock. The handler of a signal that raises, as that of Ctrl-C does, ends it soon: results
/// are dropped, what was being overwritten is half done.
pub(crate) fn detached<R: Send>(py: Python<'_>, f: impl FnOnce() -> R + Send) -> PyResult<R> {
    if !handles_signals(py) {
        return Ok(py.detach(f));
    }
    py.detach(|| stop::stoppable(signalled, f)).map_err(|stop::Stopped| {
        RAISED.take().unwrap_or_else(|| pyo3::exceptions::PyKeyboardInterrupt::new_err(()))
    })
}

/// For work that holds the interpreter's lock for long: lets other threads have it, and Python handle signals.
///
/// # Errors
/// What the handler of a signal raised.
pub(crate) fn breathe(py: Python<'_>) -> PyResult<()> {
    py.detach(|| ());
    py.check_signals()
}

/// Waits for the work of a GPU, while Python handles signals; not for a CPU, which has none under way.
pub(crate) fn wait(py: Python<'_>, device: &Device) -> PyResult<()> {
    if device.gpu().is_none() || device.is_capturing() {
        return Ok(());
    }
    let done = device
        .event(false)
        .and_then(|event| device.record(&event).map(|()| event))
        .map_err(error::runtime)?;
    loop {
        let reached = py.detach(|| {
            let start = Instant::now();
            loop {
                let (reached, waited) = (done.query()?, start.elapsed());
                if reached || waited > EVERY {
                    return Ok(reached);
                }
                if waited > ALERT {
                    std::thread::sleep(NAP);
                }
            }
        });
        if reached.map_err(error::runtime)? {
            return Ok(());
        }
        py.check_signals()?;
    }
}
