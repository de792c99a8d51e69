"""What scripts of Warp's use around kernels: devices, timers, settings. And what to use instead of what is not here."""

from __future__ import annotations

import threading
import time
from typing import Any

import bullet_core as bc
from bullet_core import _core

#: Where names of Warp's that are not here stand for something that is.
INSTEAD = {
    **dict.fromkeys(
        ("capture_begin", "capture_end", "capture_launch", "ScopedCapture", "capture_if", "capture_while"),
        "launches are cheap here: leave it out, and launch the kernels in a loop",
    ),
    **dict.fromkeys(
        ("Stream", "Event", "ScopedStream", "get_stream", "set_stream", "record_event", "wait_event", "wait_stream", "synchronize_stream"),
        "all work of a device is in one stream, in the order of the launches",
    ),
    **dict.fromkeys(
        ("from_torch", "from_jax", "from_dlpack", "from_paddle"),
        "pass the tensor to the kernel as it is, or take wp.array(bullet_core.from_dlpack(x), copy=False)",
    ),
    **dict.fromkeys(("to_torch", "to_jax", "to_dlpack", "to_paddle"), "take torch.from_dlpack(array), or the like of another library"),
    **dict.fromkeys(
        ("launch_tiled", "tile", "tile_load", "tile_store", "tile_sum", "tile_matmul", "tile_zeros"),
        "there are no tiles: use wp.launch with a thread an element, or the operations of bullet_core's tensors",
    ),
    **dict.fromkeys(
        ("Mesh", "HashGrid", "Volume", "Bvh", "MarchingCubes", "Texture2D", "Texture3D"),
        "geometry and textures are not there; keep the data in arrays",
    ),
    **dict.fromkeys(("sim", "render", "fem", "sparse", "utils"), "this part of Warp is not there"),
    "optim": "bullet_core.optim has optimizers of tensors; an array's are array.tensor and array.grad.tensor",
    "func_native": "functions of CUDA C++ are not there: write a @wp.func",
    "func_replay_native": "functions of CUDA C++ are not there: write a @wp.func_replay",
    "indexedarray": "index an array by slices, or pass the indices as an array of their own",
    "ScopedMempool": "memory is always pooled",
    "noise": "noise is not there; wp.randf and wp.randn are",
    "map": "write a kernel",
    "set_module_options": "options are given to kernels: @wp.kernel(enable_backward=False)",
}


def init() -> None:
    """Does nothing: there is nothing to prepare. It is here for programs that were written for Warp."""


def _device(device: Any):
    return device if isinstance(device, bc.Device) else bc.default_device() if device is None else bc.Device(device)


def synchronize(device: Any = None) -> None:
    """Waits until a device has done its work."""
    _device(device).synchronize()


def synchronize_device(device: Any = None) -> None:
    """Waits until a device has done its work."""
    _device(device).synchronize()


def get_device(device: Any = None):
    """The device of this name; without one that of new arrays."""
    return _device(device)


def set_device(device: Any) -> None:
    """Says where new arrays are made."""
    bc.set_default_device(_device(device))


def get_preferred_device():
    """The first GPU, or the CPU if there is none."""
    return bc.Device("cuda:0" if is_cuda_available() else "cpu")


def is_cuda_available() -> bool:
    """Whether there is a GPU."""
    return bc.cuda.is_available()


def is_cpu_available() -> bool:
    """True."""
    return True


def get_devices() -> list:
    """The CPU and the GPUs."""
    return list(_core.__array_namespace_info__().devices())


def get_cuda_devices() -> list:
    """The GPUs."""
    return [device for device in get_devices() if str(device) != "cpu"]


def get_cuda_device_count() -> int:
    """How many GPUs there are."""
    return len(get_cuda_devices())


class ScopedDevice:
    """A `with` block in which new arrays are made on this device."""

    def __init__(self, device: Any):
        self.device = _device(device)

    def __enter__(self):
        self._outer = bc.set_default_device(self.device)
        return self.device

    def __exit__(self, *_):
        bc.set_default_device(self._outer)


class ScopedTimer:
    """A `with` block whose time is measured, in milliseconds.

    Args:
        name: what is printed before the time, and the key in `dict`.
        active: whether it does anything.
        print: whether the time is printed.
        dict: a dictionary of lists, which gets the time.
        synchronize: whether it waits for the GPU before and behind the block; without, the time is that of the launches.
    """

    _depth = threading.local()

    def __init__(self, name: str, active: bool = True, print: bool = True, detailed: bool = False, dict: dict | None = None, use_nvtx: bool = False, color: Any = None, synchronize: bool = False, cuda_filter: int = 0, report_func: Any = None, skip_tape: bool = False):  # fmt: skip
        refuse("ScopedTimer", detailed=detailed, use_nvtx=use_nvtx, cuda_filter=cuda_filter, report_func=report_func)
        self.name, self.active, self.print, self.dict, self.synchronize = name, active, print, dict, synchronize
        self.elapsed = 0.0

    def __enter__(self) -> ScopedTimer:
        if self.active:
            self._wait()
            self._depth.now = getattr(self._depth, "now", -1) + 1
            self._start = time.perf_counter()
        return self

    def __exit__(self, *_):
        if not self.active:
            return
        self._wait()
        self.elapsed = 1e3 * (time.perf_counter() - self._start)
        depth = self._depth.now
        self._depth.now = depth - 1
        if self.dict is not None:
            self.dict.setdefault(self.name, []).append(self.elapsed)
        if self.print:
            print("  " * depth + f"{self.name} took {self.elapsed:.2f} ms")

    def _wait(self) -> None:
        for device in get_cuda_devices() if self.synchronize else ():
            device.synchronize()


def refuse(what: str, **options: Any) -> None:
    """Raises an error that names the first option that was given and is not there."""
    for name, given in options.items():
        if given:
            hint = _OPTIONS.get(name)
            raise NotImplementedError(f"wp.{what} has no {name} here" + (f": {hint}" if hint else ""))


_BACKWARD = "launch the kernel while a wp.Tape is open, and call tape.backward(grads={output: gradient})"
_OPTIONS = {
    "adj_inputs": _BACKWARD,
    "adj_outputs": _BACKWARD,
    "adjoint": _BACKWARD,
    "cluster_dim": "blocks are in no clusters",
    "cuda_filter": "measure a GPU with synchronize=True",
    "detailed": "use cProfile",
    "max_blocks": "a grid is launched whole; leave it out",
    "launch_bounds": "leave it out, and give wp.launch a block_dim if it matters",
    "cuda_max_registers": "leave it out",
    "module_options": "give enable_backward to the kernel itself",
    "pinned": "copies between devices do not use it; leave it out",
    "record_cmd": "launches are cheap here: call wp.launch each time",
    "stream": INSTEAD["Stream"],
    "use_nvtx": "use a profiler's own ranges",
}
