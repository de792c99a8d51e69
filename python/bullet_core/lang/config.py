"""Settings of kernels: variables of this module, with Warp's names. Those that would change results and are not there are
refused; others say how Warp works inside, are kept, and change nothing."""

from __future__ import annotations

import enum
import os
import sys
import types
from typing import Any

import bullet_core
from bullet_core import _core


class DeterministicMode(enum.IntEnum):
    """Whether launches leave the same bits at every run. The last two are one here: what one run gives, every run gives."""

    NOT_GUARANTEED = 0
    RUN_TO_RUN = 1
    GPU_TO_GPU = 2


cache_kernels = True
cuda_output = None
#: Of launches that do not say it themselves, of kernels that do not.
deterministic: DeterministicMode | bool = DeterministicMode.NOT_GUARANTEED
#: Of Warp's programs; here launches find out how much room they need.
deterministic_max_records = 0
enable_backward = True
enable_graph_capture_module_load_by_default = True
enable_mempools_at_init = True
fast_math = False
kernel_cache_dir = None
#: What compiles kernels for GPUs: "nvrtc"; "bullet", which needs nothing but the driver; None for what BULLET_KERNEL_COMPILER says, or
#: NVRTC where there is one. Kernels that were launched keep their code.
kernel_compiler: str | None = None
launch_array_access_mode = None
line_directives = True
lineinfo = False
llvm_cuda = False
log_level = 20
max_unroll = 16
#: "debug": a GPU checks indices of arrays, too, as a CPU always does. Of launches of kernels that do not say it themselves.
mode = os.environ.get("BULLET_KERNEL_MODE") or "release"
optimization_level = None
print_launches = False
ptx_target_arch = None
quiet = False
track_memory = False
use_precompiled_headers = True
verbose = False
verbose_warnings = False
verify_autograd_array_access = False
verify_cuda = False
verify_fp = False
version = bullet_core.__version__

#: What cannot be set to anything else, and why.
_REFUSED = {
    "cuda_output": "`bullet compile --emit ptx` shows the code",
    "fast_math": "kernels compute as IEEE says",
    "kernel_cache_dir": "set the environment variable BULLET_CACHE_DIR before the first launch",
}


class _Settings(types.ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            if name not in self.__dict__:
                raise AttributeError(f"wp.config has no {name!r}")
            if name in _REFUSED and value != self.__dict__[name]:
                raise ValueError(f"wp.config.{name} cannot be {value!r}: {_REFUSED[name]}")
            if name == "kernel_compiler":
                _core._lang.set_kernel_compiler(value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Settings
