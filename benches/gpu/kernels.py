"""Times the ten kinds of kernels, forward and adjoint, beside Warp's machine code of the same source, on the first GPU.

    python kernels.py [--bullet PROGRAM] [--warp FOLDER] [--kinds vector,loop] [--size N] [--ptx]

Bullet's machine code comes from `bullet compile`, Warp's from the folder that warp_cubins.py left; with --ptx there is what the driver
makes of Bullet's own PTX, too. All are loaded by the same
driver calls, given the same arrays, and launched with 256 threads a block; results and gradients are compared, then
each launch is timed with device events: the median of ROUNDS, each of BATCH launches on arrays of their own, larger together than
the second-level cache. An adjoint that needs a tape of a length that is measured is timed with its measurement. Lines of JSON as
bullet-bench-gpu prints them; a comparison that failed has the section `error`, and then the exit code is 1. Where Warp's gradients
are known to be wrong (WARP_IS_WRONG) only the forward results are compared: examples/kernels/run.py has finite differences.
"""

import argparse
import ctypes
import json
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = next(p for p in (HERE / "examples", HERE.parents[1] / "examples") if p.is_dir()) / "kernels"
sys.path.insert(0, str(EXAMPLES))
import run as kinds  # noqa: E402

ROUNDS, BATCH, BLOCK = 15, 8, 256
#: Kinds, and why Warp 1.19's gradients are not those of finite differences.
WARP_IS_WRONG = {
    "conditional": "the slope of the square root at 0, where it was not chosen, is NaN",
    "vector": "a component that is overwritten keeps its gradient",
    "reduction": "a sum that a loop of a length only known at run time carries is not there on the way back",
}


def say(section, case, peer, value, unit):
    print(json.dumps({"section": section, "case": case, "peer": peer, "value": value, "unit": unit}), flush=True)


class Driver:
    """The few calls of the CUDA driver that are needed."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")
        self("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)
        numbers = [ctypes.c_int(), ctypes.c_int()]
        for number, attribute in zip(numbers, (75, 76)):
            self("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        self.arch = "sm_{}{}".format(*(n.value for n in numbers))

    def __call__(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} failed with CUDA error {code}")

    def function(self, image, name):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuModuleLoadData", ctypes.byref(module), image)
        self("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def alloc(self, size):
        pointer = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 4)))
        return pointer.value

    def upload(self, data):
        data = np.ascontiguousarray(data)
        pointer = self.alloc(data.nbytes)
        self("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes))
        return pointer

    def download(self, pointer, like):
        data = np.empty_like(like)
        self("cuMemcpyDtoH_v2", ctypes.c_void_p(data.ctypes.data), ctypes.c_uint64(pointer), ctypes.c_size_t(data.nbytes))
        return data

    def copy(self, to, source, size):
        self("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size), None)

    def zero(self, pointer, size):
        self("cuMemsetD8Async", ctypes.c_uint64(pointer), ctypes.c_ubyte(0), ctypes.c_size_t(size), None)

    def launch(self, function, threads, arguments):
        """Launches with arguments that are bytes."""
        blocks = -(-threads // BLOCK)
        values = [ctypes.create_string_buffer(argument, len(argument)) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self("cuLaunchKernel", function, blocks, 1, 1, BLOCK, 1, 1, 0, None, pointers, None)

    def timed(self, enqueue):
        """Milliseconds of what is enqueued."""
        events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in events:
            self("cuEventCreate", ctypes.byref(event), 0)
        self("cuEventRecord", events[0], None)
        enqueue()
        self("cuEventRecord", events[1], None)
        self("cuCtxSynchronize")
        took = ctypes.c_float()
        self("cuEventElapsedTime", ctypes.byref(took), *events)
        for event in events:
            self("cuEventDestroy_v2", event)
        return took.value


class Array:
    """An array of a case on the device, its gradient, and how both are reset."""

    def __init__(self, driver, data, ndim):
        self.driver, self.data, self.ndim = driver, data, ndim
        self.first, self.memory = driver.upload(data), driver.alloc(data.nbytes)
        self.seed = self.gradient = 0
        if data.dtype == np.float32:
            self.gradient = driver.alloc(data.nbytes)

    def set_seed(self, seed):
        self.seed = self.driver.upload(seed)

    def reset(self):
        self.driver.copy(self.memory, self.first, self.data.nbytes)
        if self.seed:
            self.driver.copy(self.gradient, self.seed, self.data.nbytes)
        elif self.gradient:
            self.driver.zero(self.gradient, self.data.nbytes)


class Bullet:
    """The machine code of `bullet compile`, and its arguments: docs/kernel-language.md."""

    def __init__(self, driver, program, kind, own_ptx=False):
        self.driver, self.need, self.tape = driver, driver.alloc(4), (0, 0)
        self.name = "bullet ptx" if own_ptx else "bullet"
        form, by = ("ptx", "bullet") if own_ptx else ("cubin", "nvrtc")
        with tempfile.TemporaryDirectory() as folder:
            command = [program, "compile", EXAMPLES / "kinds" / f"{kind}.py", "--adjoint", "--emit", f"cuda,{form}", "--ptx-by", by]
            subprocess.run([*command, "--arch", driver.arch, "--out", folder], check=True, stdout=subprocess.DEVNULL)
            made = [next(pathlib.Path(folder).glob(f"*{end}")) for end in (f".{form}", ".cuda.cu")]
            image, text = made[0].read_bytes() + b"\0", made[1].read_text()
        signatures = re.findall(r'extern "C" __global__ void (\w+)\((.*?)\) \{', text, re.S)
        self.functions, self.parameters = {}, {}
        for function, parameters in signatures:
            way = "adjoint" if function.endswith("_adjoint") else "forward"
            self.functions[way] = driver.function(image, function)
            self.parameters[way] = [p.strip() for p in " ".join(parameters.split()).split(",")]

    def arguments(self, way, dims, case):
        packed = [struct.pack("i", n) for n in dims]
        for parameter in self.parameters[way][len(dims) :]:
            name = parameter.split()[-1]
            gradient = name.startswith("adj_")
            value = case.get(name.removeprefix("adj_")) if gradient else case.get(name)
            if name.startswith("tape_"):
                continue
            if isinstance(value, Array):
                pointer = value.gradient if gradient else value.memory
                lengths = struct.pack(f"{value.ndim}i", *value.data.shape[: value.ndim])
                packed.append(struct.pack("Q", pointer) + lengths + bytes(-len(lengths) % 8))
            else:
                packed.append(scalar(value))
        return packed

    def launch(self, way, dims, case):
        threads = int(np.prod(dims))
        packed = self.arguments(way, dims, case)
        if not any("tape_words" in p for p in self.parameters[way]):
            self.driver.launch(self.functions[way], threads, packed)
            return
        self.driver("cuMemsetD32_v2", ctypes.c_uint64(self.need), 0, ctypes.c_size_t(1))
        measure = [struct.pack("Q", 0), struct.pack("I", 0), struct.pack("Q", self.need)]
        self.driver.launch(self.functions[way], threads, packed + measure)
        words = int(self.driver.download(self.need, np.zeros(1, np.uint32))[0])
        if 4 * words * threads > self.tape[1]:
            # The old one is left to the process's end, so that no free is timed.
            self.tape = self.driver.alloc(4 * words * threads), 4 * words * threads
        taped = [struct.pack("Q", self.tape[0]), struct.pack("I", words), struct.pack("Q", self.need)]
        self.driver.launch(self.functions[way], threads, packed + taped)


class Warp:
    """The machine code that Warp made, and its arguments: launch_bounds_t and array_t of warp 1.19."""

    name = "warp"

    def __init__(self, driver, folder, kind):
        self.driver = driver
        image = (pathlib.Path(folder) / f"{kind}.cubin").read_bytes()
        ways = {"forward": "forward", "adjoint": "backward"}
        self.functions = {way: driver.function(image, f"{kind}_cuda_kernel_{name}") for way, name in ways.items()}

    def launch(self, way, dims, case):
        threads = int(np.prod(dims))
        shape = struct.pack(f"{len(dims)}I", *dims)
        packed = [shape + bytes(-len(shape) % 8) + struct.pack("QQ", threads, 1)]
        packed += [self.argument(value, False) for value in case.values()]
        if way == "adjoint":
            packed += [self.argument(value, True) for value in case.values()]
        self.driver.launch(self.functions[way], threads, packed)

    @staticmethod
    def argument(value, gradient):
        if not isinstance(value, Array):
            return bytes(4) if gradient else scalar(value)
        if gradient and not value.gradient:
            return bytes(56)
        pointers = (value.gradient, 0) if gradient else (value.memory, value.gradient)
        shape = list(value.data.shape[: value.ndim])
        strides = value.data.strides[: value.ndim]
        pad = [0] * (4 - value.ndim)
        return struct.pack("QQ4i4iii", *pointers, *shape, *pad, *strides, *pad, value.ndim, 0)


def scalar(value):
    return struct.pack("f" if isinstance(value, float) else "i", value)


def compare(name, ours, theirs):
    """What is too far apart."""
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-3)
    wrong = ~np.isclose(ours, theirs, rtol=2e-3, atol=2e-4 * scale)
    if wrong.any():
        return f"{name}: {wrong.sum()} of {wrong.size} differ, by {np.abs(ours - theirs).max():.3g} of {scale:.3g}"
    return ""


def measure(driver, kind, codes, size):
    """Checks and times a kind; whether its results agree."""
    rng = np.random.default_rng(0)
    case = getattr(kinds, kind)(rng, size)
    dims = case.dim if isinstance(case.dim, tuple) else (case.dim,)

    def arrays():
        made = {}
        for name, value in case.args.items():
            if isinstance(value, np.ndarray):
                value = Array(driver, value, value.ndim - inner(case.types.get(name)))
            made[name] = value
        return made

    sets = [arrays() for _ in range(BATCH)]
    for name in case.writes:
        seed = rng.normal(size=case.args[name].shape).astype(np.float32)
        for one in sets:
            one[name].set_seed(seed)

    def reset():
        for one in sets:
            for value in one.values():
                if isinstance(value, Array):
                    value.reset()

    found, right = {}, True
    for way in ("forward", "adjoint"):
        for code in codes:
            reset()
            code.launch(way, dims, sets[0])
            driver("cuCtxSynchronize")
            floats = {n: a for n, a in sets[0].items() if isinstance(a, Array) and a.gradient}
            # The gradients of what a kernel overwrites are what it leaves of them, about which the two differ.
            names = case.writes if way == "forward" else [n for n in floats if n not in case.writes or kind == "combined"]
            part = "memory" if way == "forward" else "gradient"
            found[way, code.name] = {n: driver.download(getattr(floats[n], part), floats[n].data) for n in names}
            times = []
            for _ in range(ROUNDS):
                reset()
                times.append(driver.timed(lambda: [code.launch(way, dims, one) for one in sets]) / BATCH)
            say("kernels", f"{kind} {way}", code.name, 1e3 * statistics.median(times), "us")
        ours = found[way, codes[0].name]
        for code in codes[1:]:
            if code.name == "warp" and way == "adjoint" and kind in WARP_IS_WRONG:
                continue
            for name, theirs in found[way, code.name].items():
                if fault := compare(f"{kind} {way}: {name}", ours[name], theirs):
                    say("error", fault, code.name, 1, "mismatch")
                    right = False
    for one in sets:
        for value in one.values():
            if isinstance(value, Array):
                for pointer in {value.first, value.memory, value.gradient, value.seed} - {0}:
                    driver("cuMemFree_v2", ctypes.c_uint64(pointer))
    return right


def inner(dtype):
    """Dimensions of an element."""
    return 0 if dtype is None else 2 if "mat" in dtype.__name__ else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bullet", default=str(HERE / "bullet"))
    parser.add_argument("--warp", default=str(HERE / "warp"))
    parser.add_argument("--kinds", default=",".join(kind.__name__ for kind in kinds.KINDS))
    parser.add_argument("--size", type=int, default=1 << 23)
    parser.add_argument("--ptx", action="store_true", help="time Bullet's own PTX, too")
    options = parser.parse_args()
    driver, right = Driver(), True
    kinds.LOOP = 1 << 14
    for kind in options.kinds.split(","):
        codes = [Bullet(driver, options.bullet, kind)]
        if options.ptx:
            codes.append(Bullet(driver, options.bullet, kind, own_ptx=True))
        if pathlib.Path(options.warp).is_dir():
            codes.append(Warp(driver, options.warp, kind))
        right &= measure(driver, kind, codes, options.size)
    sys.exit(not right)


if __name__ == "__main__":
    main()
