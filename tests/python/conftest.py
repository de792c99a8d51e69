"""The tests run against the installed package, never against the source tree."""

import pathlib
import signal

import bullet_core

# In a job in the background Ctrl-C is ignored, by what the job starts, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

SOURCE = pathlib.Path(__file__).resolve().parents[2]
installed = pathlib.Path(bullet_core.__file__).resolve()
if SOURCE / "python" in installed.parents:
    raise RuntimeError(f"bullet_core comes from {installed}, which is the source tree; install the wheel and run from elsewhere")
