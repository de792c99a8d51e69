"""What compiling the ten kinds of kernels takes: front, passes, adjoint, CUDA C++ and PTX in Rust, then PTX by each NVRTC.

    cargo build --release -p bullet -p bullet-lang --example throughput --bin bullet
    python benches/lang.py --nvrtc FOLDER:FOLDER... [--out benches/results/NAME.json]

NVRTC is timed in processor time, by the options that the runtime gives it, for the kernel alone and with its adjoint in
one unit; the table has the best of some runs after one that counts for nothing, the JSON result their median, too. Rust's parts are medians of single runs of
some hundred microseconds, which other processes rarely interrupt. Needs nothing but Python's standard library.
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

import run as harness

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "examples/kernels/kinds"
KINDS = "arithmetic math loop conditional vector matrix combined reduction scatter stencil".split()
OPTIONS = ["--gpu-architecture=compute_80", "-std=c++14", "-default-device", "--fmad=true"]
# For NVRTC 12.9 and later.
MINIMAL = "-minimal"
RUNS = 9


class Nvrtc:
    """One loaded NVRTC."""

    def __init__(self, folder: str):
        libraries = sorted(pathlib.Path(folder).rglob("libnvrtc*.so*"))
        for builtins in libraries:
            if "builtins" in builtins.name and ".alt." not in builtins.name:
                ctypes.CDLL(str(builtins))
        (path,) = [path for path in libraries if path.name.startswith("libnvrtc.so")]
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = f"{major.value}.{minor.value}"

    @staticmethod
    def check(code: int) -> None:
        if code:
            raise RuntimeError(f"NVRTC error {code}")

    def ptx(self, source: bytes) -> bytes:
        """The PTX of a source."""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        wanted = OPTIONS + [MINIMAL] * (self.version != "11.8")
        options = (ctypes.c_char_p * len(wanted))(*[option.encode() for option in wanted])
        library = self.library
        self.check(library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None))
        self.check(library.nvrtcCompileProgram(program, len(wanted), options))
        self.check(library.nvrtcGetPTXSize(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self.check(library.nvrtcGetPTX(program, text))
        self.check(library.nvrtcDestroyProgram(ctypes.byref(program)))
        return text.value

    def measure(self, source: bytes) -> dict[str, float]:
        """Milliseconds of processor time, and bytes of PTX."""
        length = len(self.ptx(source))
        times = []
        for _ in range(RUNS):
            start = time.process_time()
            self.ptx(source)
            times.append(1e3 * (time.process_time() - start))
        return {"ms": round(statistics.median(times), 1), "best_ms": round(min(times), 1), "ptx_bytes": length}


def output(*command: object) -> str:
    """What a program prints."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Everything, as the JSON result holds it."""
    files = [KERNELS / f"{kind}.py" for kind in KINDS]
    parts = [json.loads(line) for line in output(args.throughput, "--json", *files).splitlines()]
    kernels = {}
    for kind, file, part in zip(KINDS, files, parts, strict=True):
        del part["file"]
        kernels[kind] = part | {"nvrtc": {}}
    for nvrtc in map(Nvrtc, args.nvrtc.split(":")):
        for kind, file in zip(KINDS, files, strict=True):
            source = [output(args.bullet, "compile", file, *more).encode() for more in ([], ["--adjoint"])]
            alone, both = map(nvrtc.measure, source)
            kernels[kind]["nvrtc"][nvrtc.version] = {"forward": alone, "forward_and_adjoint": both}
    return {
        "what": "compiling a kernel of each kind: microseconds of Rust's parts, milliseconds of NVRTC to PTX for compute_80",
        "date": datetime.date.today().isoformat(),
        "device": f"{harness.cpu_model()}, {os.cpu_count()} CPUs",
        "commit": harness.commit(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 1),
        "kernels_per_second": round(1e6 * len(parts) / sum(part["us"] for part in parts)),
        "nvrtc_options": [*OPTIONS, MINIMAL],
        "kernels": kernels,
    }


def table(result: dict[str, object]) -> None:
    """The figures as a table of Markdown."""
    kernels = result["kernels"]
    versions = list(next(iter(kernels.values()))["nvrtc"])
    print(f"{result['kernels_per_second']} kernels/s, load {result['load']}\n")
    nvrtc = "".join(f" | NVRTC {version}, ms" for version in versions)
    print(f"| kind | front + passes | adjoint | CUDA | kernels/s | own PTX, ms | bytes{nvrtc} | PTX, bytes |")
    print("|---" * (8 + len(versions)) + "|")
    for kind, it in kernels.items():

        def pair(version: str, key: str) -> list[float]:
            return [it["nvrtc"][version][way][key] for way in ("forward", "forward_and_adjoint")]

        times = "".join(" | {:.0f}, {:.0f}".format(*pair(version, "best_ms")) for version in versions)
        sizes = "{}, {}".format(*pair(versions[-1], "ptx_bytes"))
        ms = [it["front_us"] + it["passes_us"], it["adjoint_us"], it["cuda_us"]]
        parts = " | ".join(f"{part / 1e3:.3f}" for part in ms)
        own = f"{it['ptx_us'] / 1e3:.3f} | {it['ptx_bytes']}"
        print(f"| {kind} | {parts} | {1e6 / it['us']:.0f} | {own}{times} | {sizes} |")


def main() -> None:
    """Parses the arguments, measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvrtc", required=True, help="folders of Python's wheels of NVRTC, with colons between them")
    parser.add_argument("--bullet", default=ROOT / "target/release/bullet")
    parser.add_argument("--throughput", default=ROOT / "target/release/examples/throughput")
    parser.add_argument("--out", type=pathlib.Path, help="a file for the JSON result")
    args = parser.parse_args()
    result = measure(args)
    table(result)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
