"""The tests run against the installed package, never against the source tree."""

import pathlib

import bullet_core

SOURCE = pathlib.Path(__file__).resolve().parents[2]
installed = pathlib.Path(bullet_core.__file__).resolve()
if SOURCE / "python" in installed.parents:
    raise RuntimeError(f"bullet_core comes from {installed}, which is the source tree; install the wheel and run from elsewhere")
