"""Compiles examples/kernels with NVIDIA Warp for one architecture, without a GPU, for kernels.py to launch beside Bullet's.

    python benches/gpu/warp_cubins.py gpu-bundle/warp [--arch 90]

Needs warp-lang (requirements-peers.txt). Leaves KIND.cubin for each kind, and `version`.
"""

import argparse
import importlib.util
import pathlib
import sys
import tempfile

import warp as wp

KINDS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "kernels" / "kinds"
NAMES = "arithmetic math loop conditional vector matrix combined reduction scatter stencil".split()


def compiled(name, arch, folder):
    """The machine code of a kind's kernels."""
    source = pathlib.Path(folder, f"{name}_kind.py")
    source.write_text((KINDS / f"{name}.py").read_text().replace("import bullet_core.lang as wp", "import warp as wp"))
    spec = importlib.util.spec_from_file_location(source.stem, source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.stem] = module
    spec.loader.exec_module(module)
    (made,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=False, strip_hash=True)
    return made.read_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--arch", type=int, default=90)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wp.config.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            (options.out / f"{name}.cubin").write_bytes(compiled(name, options.arch, folder))
    (options.out / "version").write_text(wp.__version__)


if __name__ == "__main__":
    main()
