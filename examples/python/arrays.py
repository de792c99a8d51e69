"""A tour of arrays: NumPy's habits, gradients, devices, and exchange without copies.

    python examples/python/arrays.py [--quick]
"""

import numpy as np

import bullet_core as bc


def main():
    print("Arrays behave as NumPy's:")
    x = bc.arange(12, dtype="float32").reshape(3, 4)
    print(x, x.shape, x.dtype, x.device)
    print("rows 0 and 2, columns backwards:\n", x[[0, 2], ::-1], sep="")
    print("what is odd:", x[x % 2 == 1])
    x[:, 0] = -1
    x += bc.asarray([0, 10, 20, 30], dtype="float32")
    print("mean of each column:", x.mean(0), "sum of all:", x.sum().item())

    print("\nMemory is shared with NumPy, not copied:")
    array = np.zeros((2, 2))
    tensor = bc.from_numpy(array)
    tensor[0, 1] = 7.0
    print(array, np.shares_memory(tensor.numpy(), array))

    print("\nPrograms for any array library take them:")
    print(normalized(bc.asarray([[3.0, 4.0], [0.0, 2.0]])))

    print("\nGradients flow through all of it:")
    w = bc.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    loss = (bc.exp(-w) * w[::-1] + bc.where(w > 1.5, w**2, 0)).sum()
    loss.backward()
    print("d loss / d w =", w.grad)

    if bc.cuda.is_available():
        print("\nThe same on a GPU:")
        y = bc.randn((1000, 1000), device="cuda:0")
        copies = bc.host_copies()
        z = bc.softmax(y @ y.T / 30)
        print(z.device, "copies to the host:", bc.host_copies() - copies, "mean:", z.mean().item())


def normalized(rows):
    """Rows of length 1, of arrays of any library that follows the standard."""
    xp = rows.__array_namespace__()
    return rows / xp.sqrt(xp.sum(rows * rows, axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
