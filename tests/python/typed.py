"""What type checkers must know of the package: this file is checked by mypy, not run. A line that is wrong on purpose says which
error it is, so that an error that goes away is one, too.
"""

from collections.abc import Iterator

import numpy as np

import bullet_core as bc
from bullet_core import Module, Tensor, Trainer, device, load, nn, no_grad
from bullet_core.autograd import Context, Function

x: Tensor = bc.ones((2, 3), dtype="float32") + 1
row: Tensor = (2 * x @ x.T)[0, 1:]
number: bool | int | float = row.sum().item()
shape: tuple[int, ...] = x.shape
counts: Tensor = bc.unique_counts(x).counts
array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = x.numpy()
rows: Iterator[Tensor] = iter(x)
on: bc.Device = x.device
kind: bc.dtype = bc.result_type(x, bc.float64, 1.0)
layer: Module = nn.Linear(3, 4)
weights: list[Tensor] = list(layer.parameters())

x[:] = [1.0, 2.0, 3.0]
x[0] = np.ones(3)
joined: Tensor = bc.concatenate([x, x], 1)
text: str = f"{x[0, 0]:.3f}"
same: bool = x.dtype == np.float32


class Square(Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


with no_grad(), device("cpu"):
    squared: Tensor = Square.apply(x)

trainer: Trainer = Trainer(layer, lambda model, x: squared.mean(), [x], steps=1)
model: Module = load("no such file")

bc.softmax(x, "rows")  # type: ignore[arg-type]
bc.zeros(3).no_such_thing  # type: ignore[attr-defined]
bc.zeros()  # type: ignore[call-arg]
