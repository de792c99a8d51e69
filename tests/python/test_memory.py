"""Memory comes back: seen from outside, by what the system says the process holds."""

import gc
import pathlib
import weakref

import numpy as np
import pytest

import bullet_core as bc
from bullet_core import nn

STATUS = pathlib.Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="what a process holds is not to be seen here")

MIB = 1 << 20
TIMES = 1_000_000


def held():
    """Bytes of memory that the process has pages of."""
    gc.collect()
    return int(STATUS.read_text().split()[1]) * 4096


def growth(work, times):
    """Bytes that rounds of `work` leave behind, once what is kept for reuse is there."""
    for _ in range(max(times // 10, 1)):
        work()
    before = held()
    for _ in range(times):
        work()
    return held() - before


def create():
    return bc.zeros(8)


def view():
    return BASE[1:3]


def graph():
    (LEAF * 2.0).sum()


def backward():
    (LEAF * LEAF).sum().backward()
    LEAF.grad = None


def cycle():
    """Two modules that know each other, and a hook that knows its module."""
    module = nn.Module()
    module.scale = nn.Parameter([1.0])
    module.hook = lambda: module
    module.loss = (module.scale * 2.0).detach()


BASE = bc.ones(64)
LEAF = bc.Tensor(np.ones(16, "float32"), requires_grad=True)


@pytest.mark.parametrize(
    ("work", "times"),
    [(create, TIMES), (view, TIMES), (graph, TIMES // 10), (backward, TIMES // 20), (cycle, TIMES // 20)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_nothing_leaks(work, times):
    """Less than a megabyte or few, which allocators come to by themselves: each round leaves hundreds of bytes if it leaks."""
    assert growth(work, times) < 6 * MIB


def test_a_cycle_is_collected():
    module = nn.Linear(2, 2)
    module.itself = lambda: module
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_big_arrays_are_free_at_once():
    """All but 256 MiB, which are kept for the next ones."""
    before = held()
    for _ in range(3):
        x = bc.ones(400 * MIB // 4)
        y = x + 1.0
        assert held() - before > 700 * MIB
        del x, y
        assert held() - before < 300 * MIB
    for _ in range(100):
        x = bc.ones(40 * MIB // 4)
    del x
    assert held() - before < 300 * MIB


def test_big_arrays_of_others_are_free_at_once():
    before = held()
    for _ in range(5):
        x = bc.from_numpy(np.ones(64 * MIB // 4, "float32"))
        array = x[1:].numpy()
        del x
        assert array[0] == 1 and held() - before > 50 * MIB
        del array
    assert held() - before < 32 * MIB


def test_a_graph_goes_with_its_result():
    x = bc.Tensor(np.ones(MIB, "float32"), requires_grad=True)
    before = bc.cuda.memory_stats("cpu")["used"]
    y = x
    for _ in range(20):
        y = bc.exp(y * 0.5)
    assert bc.cuda.memory_stats("cpu")["used"] - before > 20 * 4 * MIB
    del y
    assert bc.cuda.memory_stats("cpu")["used"] - before < MIB
