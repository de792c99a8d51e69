"""The same memory in bullet_core and PyTorch, on the CPU and on a GPU if there is one.

    python examples/python/interop.py [--quick]
"""

import bullet_core as bc


def main():
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        print("PyTorch is not installed: nothing to show")
        return
    devices = ["cpu", "cuda:0"] if bc.cuda.is_available() and torch.cuda.is_available() else ["cpu"]
    for device in devices:
        ours = bc.arange(6, dtype="float32", device=device).reshape(2, 3)
        theirs = torch.from_dlpack(ours)
        theirs *= 10
        if device != "cpu":
            # Reading ours does not wait for what PyTorch does after the exchange; what DLPack hands over is waited for.
            torch.cuda.synchronize()
        print(device, ours.tolist(), theirs.tolist())
        back = bc.from_dlpack(torch.linspace(0, 1, 5, device=device))
        print(device, bc.softmax(back).tolist())


if __name__ == "__main__":
    main()
