//! Ctrl-C in long calls. Python handles signals in its main thread, between its own instructions; a call into the engine is
//! one of these, however long it takes. So the engine asks on the way (`stop`), and who waits for a GPU wakes up to ask.

use std::cell::RefCell;
use std::time::{Duration, Instant};

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
}

/// Lets Python handle signals that have come in; whether a handler raised.
fn signalled() -> bool {
    match Python::attach(|py| py.check_signals()) {
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
    py.detach(|| stop::stoppable(signalled, f)).map_err(|stop::Stopped| {
        RAISED.take().unwrap_or_else(|| pyo3::exceptions::PyKeyboardInterrupt::new_err(()))
    })
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
