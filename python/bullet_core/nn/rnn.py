"""`GRU` and `LSTM`: recurrent layers with PyTorch's equations, gate order and parameter names."""

from __future__ import annotations

from .._core import Tensor, _nn, concat, linear, sigmoid, tanh, zeros
from . import init
from .layers import cast, param
from .module import Module

__all__ = ["GRU", "LSTM"]


class _Recurrent(Module):
    """Layers of gates, each fed with the outputs of the one before."""

    gates: int

    def __init__(self, inputs: int, hidden: int, layers: int = 1, *, bias: bool = True, dropout: float = 0.0):
        if min(inputs, hidden, layers) < 1:
            raise ValueError(f"inputs = {inputs}, hidden = {hidden} and layers = {layers} must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout = {dropout} must be in [0, 1)")
        self.inputs, self.hidden, self.layers, self.dropout = inputs, hidden, layers, dropout
        fill, rows = init.fan_in(hidden), self.gates * hidden
        for i in range(layers):
            self.parameter(f"weight_ih_l{i}", (rows, inputs if i == 0 else hidden), fill)
            self.parameter(f"weight_hh_l{i}", (rows, hidden), fill)
            for name in ("bias_ih", "bias_hh") if bias else ():
                self.parameter(f"{name}_l{i}", (rows,), fill)

    def _own(self, name: str, layer: int) -> Tensor | None:
        return param(getattr(self, f"{name}_l{layer}", None))

    def _initial(self, given: Tensor | None, x: Tensor) -> list[Tensor]:
        """The first states of all layers, each (batch, hidden)."""
        shape = (self.layers, x.shape[0], self.hidden)
        if given is None:
            return [zeros(shape[1:], dtype=x.dtype, device=x.device)] * self.layers
        if tuple(given.shape) != shape:
            raise ValueError(f"an initial state must have shape (layers, batch, hidden) = {shape}, got {given.shape}")
        return [cast(given)[i] for i in range(self.layers)]

    def _run(self, x: Tensor, states: list[tuple[Tensor, ...]]) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The last layer's outputs, and every layer's last state; the first tensor of a state is the hidden one."""
        if x.ndim != 3 or x.shape[2] != self.inputs or not x.shape[1]:
            raise ValueError(
                f"the input must have shape (batch, sequence, {self.inputs}) with a sequence of at least 1, got {x.shape}"
            )
        batch, length, _ = x.shape
        last = []
        for i, state in enumerate(states):
            if i > 0 and self.training:
                x = _nn.dropout(x, self.dropout)
            of_input = linear(cast(x), self._own("weight_ih", i), self._own("bias_ih", i))
            weight, bias = self._own("weight_hh", i), self._own("bias_hh", i)
            outputs = []
            # One split, not a slice a step: its gradient is one concatenation.
            for gates in _nn.split(of_input, [1] * length, 1):
                state = self.step(gates.reshape(batch, -1), linear(state[0], weight, bias), state)
                outputs.append(state[0].reshape(batch, 1, self.hidden))
            x = concat(outputs, axis=1)
            last.append(state)
        return x, last

    def _stack(self, states: list[Tensor]) -> Tensor:
        return concat([state.reshape(1, *state.shape) for state in states], axis=0)

    def step(self, of_input: Tensor, of_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, from what input and hidden state add to the gates."""
        raise NotImplementedError


class GRU(_Recurrent):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate applied after the product, as PyTorch has it."""

    gates = 3

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs over `x` (batch, sequence, inputs) from `h0` (layers, batch, hidden), or zeros.

        Returns the last layer's outputs (batch, sequence, hidden) and every layer's last state (layers, batch, hidden).
        """
        x = cast(x)
        y, last = self._run(x, [(h,) for h in self._initial(h0, x)])
        return y, self._stack([h for (h,) in last])

    def step(self, of_input: Tensor, of_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        sizes = [2 * self.hidden, self.hidden]
        (gates_x, new_x), (gates_h, new_h) = _nn.split(of_input, sizes), _nn.split(of_hidden, sizes)
        reset, update = _nn.split(sigmoid(gates_x + gates_h), [self.hidden] * 2)
        new = tanh(new_x + reset * new_h)
        return (new + update * (h - new),)  # (1 - z) n + z h


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate (Gers et al. 2000)."""

    gates = 4

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Runs over `x` (batch, sequence, inputs) from hidden and cell states, each (layers, batch, hidden), or zeros.

        Returns the last layer's outputs (batch, sequence, hidden) and every layer's last hidden and cell states.
        """
        x = cast(x)
        h0, c0 = state or (None, None)
        y, last = self._run(x, list(zip(self._initial(h0, x), self._initial(c0, x), strict=True)))
        return y, (self._stack([h for h, _ in last]), self._stack([c for _, c in last]))

    def step(self, of_input: Tensor, of_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, c = state
        parts = _nn.split(of_input + of_hidden, [2 * self.hidden, self.hidden, self.hidden])
        enter, forget = _nn.split(sigmoid(parts[0]), [self.hidden] * 2)
        cell = forget * c + enter * tanh(parts[1])
        return sigmoid(parts[2]) * tanh(cell), cell
