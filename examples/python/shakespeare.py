"""A transformer that Python's modules make and Rust trains on Tiny Shakespeare; it is saved, and writes.

    python examples/python/shakespeare.py [--quick] [--device cuda] [--precision bfloat16]

`bullet_core.train()` does the same in one call, with the settings and the run folder of `bullet train`.
"""

import argparse

import bullet_core as bc
from bullet_core import optim
from bullet_core.data import TextBatches, tiny_shakespeare


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", default="shakespeare.bullet", help="where the model is saved")
    args = parser.parse_args()

    text = tiny_shakespeare()
    tokenizer = bc.Tokenizer.train(text, "char")
    dim, layers = (32, 1) if args.quick else (128, 4)
    model = bc.Transformer(tokenizer, dim=dim, layers=layers, heads=4, max_seq=64, device=args.device)
    data = TextBatches(text, tokenizer, batch=16, sequence=64)
    steps = 20 if args.quick else 1000
    print(f"{model.num_parameters():,} parameters, {len(data):,} training tokens")

    class Samples(bc.Callback):
        """Shows what the model writes by now."""

        def on_log(self, logs):
            if logs["step"] % 250 == 0:
                print(f"\nstep {logs['step']}, loss {logs['loss']:.3f}: {model.text('The ', 60, temperature=0.8)!r}")

    trainer = bc.Trainer(
        model,
        data=data,
        optimizer=optim.AdamW(model, betas=(0.9, 0.99), weight_decay=0.1),
        schedule=optim.cosine(3e-3, steps, warmup=steps // 20, floor=3e-4),
        steps=steps,
        grad_clip=1.0,
        precision=args.precision,
        callbacks=[Samples()],
        log_interval=10,
    )
    report = trainer.fit()
    print(f"\n{steps} steps in {report['seconds']:.1f} s, training loss {report['loss']:.3f}")
    if not args.quick:
        print(f"validation loss {trainer.evaluate(data.validation):.3f}")
    model.save(args.out)
    print(f"saved {args.out}; write more with: bullet generate {args.out}")
    print(model.text("\n", 40 if args.quick else 300, temperature=0.8))


if __name__ == "__main__":
    main()
