"""Every mistake is the exception that a Python user expects, with words that help; nothing panics."""

import pickle

import numpy as np
import pytest

import bullet_core as bc


def endless(*shape):
    """A tensor of more elements than memory has bytes."""
    return bc.broadcast_to(bc.ones(1), shape)


@pytest.mark.parametrize(
    ("call", "exception", "words"),
    [
        (lambda: bc.ones((2, 3)) @ bc.ones((2, 3)), ValueError, "mismatch"),
        (lambda: bc.ones((2, 3)) + bc.ones((2, 4)), ValueError, "broadcast"),
        (lambda: bc.ones(3)[5], IndexError, "out of bounds"),
        (lambda: bc.ones(3)[1, 2], IndexError, "too many indices"),
        (lambda: bc.ones(3)["a"], IndexError, "integers, slices"),
        (lambda: bc.ones(3)[1.0], IndexError, "integers, slices"),
        (lambda: bc.ones(3)[..., ...], IndexError, "single ellipsis"),
        (lambda: bc.ones(3)[::0], ValueError, "zero"),
        (lambda: bc.zeros((2, -1)), ValueError, "negative dimensions"),
        (lambda: bc.zeros("a"), TypeError, "shape"),
        (lambda: bc.zeros(2, dtype="float128"), TypeError, "not understood"),
        (lambda: bc.zeros(2, dtype=complex), TypeError, "not understood"),
        (lambda: bc.zeros((1 << 40, 1 << 40)), ValueError, ""),
        (lambda: bc.zeros((1 << 28, 1 << 28)), MemoryError, "out of memory"),
        (lambda: bc.arange(10**15), MemoryError, "out of memory"),
        (lambda: bc.linspace(0, 1, 10**15), MemoryError, "out of memory"),
        (lambda: bc.eye(10**8), MemoryError, "out of memory"),
        (lambda: bc.repeat(bc.zeros(2), bc.asarray([10**15, 1])), MemoryError, "out of memory"),
        (lambda: bc.repeat(bc.zeros(2), bc.asarray([2**62, 2**62])), ValueError, "exceeded"),
        (lambda: pickle.dumps(bc.broadcast_to(bc.zeros(1), (10**15,))), MemoryError, "out of memory"),
        (lambda: endless(10**14) @ endless(10**14), MemoryError, "out of memory"),
        (lambda: endless(2, 10**13) @ endless(10**13, 2), MemoryError, "out of memory"),
        (lambda: bc.vecdot(endless(10**14), endless(10**14)), MemoryError, "out of memory"),
        (lambda: bc.tensordot(endless(10**7, 10**7), endless(10**7, 10**7)), MemoryError, "out of memory"),
        (lambda: bc.sort(endless(10**14)), MemoryError, "out of memory"),
        (lambda: endless(10**14)[endless(10**14) > 0], MemoryError, "out of memory"),
        (lambda: bc.nn.conv1d(bc.ones((1, 1, 8)), bc.ones((1, 1, 2)), padding=2**63), ValueError, "too big"),
        (lambda: bc.nn.conv1d(bc.ones((1, 1, 8)), bc.ones((1, 1, 2)), dilation=2**63), ValueError, "longer"),
        (lambda: bc.cross_entropy(bc.zeros((2, 3)), bc.asarray([0.0, 1.7])), TypeError, "expected integers"),
        (lambda: bc.sum(bc.ones(2), axis="a"), TypeError, "expected a whole number or a tuple of them"),
        (lambda: bc.sum(bc.ones(2), axis=2**70), ValueError, "64 bits"),
        (lambda: bc.linspace(0, 1, -3), ValueError, "num = -3: expected a whole number of at least 0"),
        (lambda: bc.linspace(0, 1, 2.5), TypeError, "num: expected a whole number"),
        (lambda: bc.eye(-1), ValueError, "n_rows = -1"),
        (lambda: bc.eye(2**70), OverflowError, "n_rows = "),
        (lambda: bc.randn(2, seed=-1), ValueError, "seed = -1"),
        (lambda: bc.diff(bc.ones(3), n=-1), ValueError, "n = -1"),
        (lambda: bc.repeat(bc.ones(2), -1), ValueError, "repeats = -1"),
        (lambda: bc.repeat(bc.ones(2), "a"), TypeError, ""),
        (lambda: bc.tensordot(bc.ones((2, 2)), bc.ones((2, 2)), axes="a"), TypeError, "two lists of axes"),
        (lambda: bc.nn.conv1d(bc.ones((1, 1, 8)), bc.ones((1, 1, 2)), stride=-1), ValueError, "stride = -1"),
        (lambda: bc.nn.rope(bc.ones((1, 1, 1, 8)), offset=-1), ValueError, "offset = -1"),
        (lambda: bc.Tokenizer.train("ab", "char").decode([-1]), TypeError, "expected token ids"),
        (lambda: bc.zeros(2, "f16x"), TypeError, "expected one of bool, uint8"),
        (lambda: bc.ones(2).backward(), RuntimeError, ""),
        (lambda: bc.asarray([None, 1], "float32"), TypeError, "expected numbers"),
        (lambda: bc.ones(3).__setitem__(0, "a"), TypeError, "expected numbers"),
        (lambda: bc.ones(3).__setitem__(slice(None), [1, 2]), ValueError, "broadcast"),
        (lambda: bc.ones((2, 3)).item(7), IndexError, "out of bounds"),
        (lambda: bc.ones(2) + np.ones(2), TypeError, ""),
        (lambda: np.ones(2) * bc.ones(2), TypeError, ""),
        (lambda: bc.from_numpy(np.float64(1)), TypeError, "expected a NumPy array"),
        (lambda: bc.zeros(2, device="gpu"), ValueError, "not a device"),
        (lambda: bc.zeros(2, device=7), TypeError, "device"),
        (lambda: bc.array("text"), TypeError, "numbers"),
        (lambda: bc.array([[1, 2], [3]]), ValueError, "inhomogeneous"),
        (lambda: bc.array({1: 2}), TypeError, "numbers"),
        (lambda: bc.ones(2) + "a", TypeError, "unsupported operand"),
        (lambda: bc.ones(2) + [1, 2], TypeError, "unsupported operand"),
        (lambda: bc.array([1], dtype="uint8") + 300, OverflowError, "out of bounds"),
        (lambda: bc.array([1]) + 2**70, OverflowError, ""),
        (lambda: bool(bc.ones(2)), ValueError, "ambiguous"),
        (lambda: len(bc.array(1.0)), TypeError, "unsized"),
        (lambda: bc.ones(2).item(), TypeError, "one element"),
        (lambda: bc.ones(2).reshape(3), ValueError, "cannot reshape"),
        (lambda: bc.ones(2).reshape("a"), TypeError, ""),
        (lambda: bc.ones((2, 3)).permute(0, 0), ValueError, ""),
        (lambda: bc.embedding(bc.ones((3, 2)), bc.array([3])), IndexError, "out of"),
        (lambda: bc.embedding(bc.ones((3, 2)), bc.array([0.5])), TypeError, ""),
        (lambda: bc.softmax(bc.ones((2, 2)), 5), ValueError, "axis"),
        (lambda: bc.max(bc.zeros((0,))), ValueError, ""),
        (lambda: bc.gelu(bc.ones(2), approximate="x"), ValueError, "expected"),
        (lambda: bc.arange(0, 5, 0), ValueError, "steps of 0"),
        (lambda: bc.exp(np.ones(2)), TypeError, "Tensor"),
        (lambda: bc.ones(2).to("nowhere"), ValueError, "not a device"),
        (lambda: bc.Device("cuda:99"), RuntimeError, ""),
        (lambda: bc.set_default_device("tpu"), ValueError, "not a device"),
        (lambda: hash(bc.ones(1)) and [][bc.ones(1)], TypeError, "index"),
    ],
)
def test_mistakes(call, exception, words):
    with pytest.raises(exception, match=words or None):
        call()


def test_devices():
    assert bc.default_device() == bc.Device("cpu") and str(bc.ones(1).device) == "cpu"
    with bc.device("cpu") as device:
        assert bc.zeros(1).device == device
    assert isinstance(bc.cuda.is_available(), bool)
    stats = bc.cuda.memory_stats("cpu")
    assert stats["peak"] >= stats["used"] >= 0
