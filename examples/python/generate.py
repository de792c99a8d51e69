"""Writes with a trained model, piece by piece as it comes; without one it first trains a small one.

    python examples/python/generate.py [model.bullet] [--prompt "It was"] [--quick]
"""

import argparse
import tempfile
import time

import bullet_core as bc
from bullet_core.data import tiny_shakespeare


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a .bullet or safetensors file, such as `bullet demo` makes")
    parser.add_argument("--prompt", default="\n")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--quick", action="store_true", help="train for a few steps only")
    args = parser.parse_args()

    if args.model:
        model = bc.load(args.model)
    else:
        with tempfile.TemporaryDirectory() as folder:
            settings = {"tokenizer.kind": "char", "steps": 500, "lr": 3e-3, "runs": folder}
            if args.quick:
                settings |= {"steps": 20, "dim": 32, "layers": 1, "ff": 64, "seq": 32}
            text = tiny_shakespeare()[:20_000] if args.quick else None
            model = bc.train(text=text, eval_interval=0, **settings).model
    began, count = time.perf_counter(), 0
    for piece in model.generate(args.prompt, args.max_tokens, temperature=args.temperature, top_k=50, stop="\n\n\n"):
        print(piece, end="", flush=True)
        count += 1
    print(f"\n[{count / (time.perf_counter() - began):.0f} pieces a second]")


if __name__ == "__main__":
    main()
