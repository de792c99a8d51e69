"""Memory that comes and goes without a copy, and the objects that keep it."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import bullet_core as bc


def test_numpy_and_tensor_share_memory_both_ways():
    a = np.arange(12.0).reshape(3, 4)[::-1, ::2]
    t = bc.from_numpy(a)
    a[0, 0] = 100
    assert t[0, 0].item() == 100
    t[2, 1] = -1
    assert a[2, 1] == -1
    back = t.numpy()
    assert np.shares_memory(back, a) and back.strides == a.strides
    assert np.asarray(t[1]).base is not None


def test_each_side_keeps_the_memory():
    class Array(np.ndarray):
        pass

    a = np.ones(1000).view(Array)
    gone = weakref.ref(a)
    t = bc.from_numpy(a)
    view = t[10:20]
    del a, t
    gc.collect()
    assert gone() is not None and view.sum().item() == 10
    del view
    gc.collect()
    assert gone() is None
    n = bc.full((100,), 3.0).numpy()
    gc.collect()
    bc.full((100,), 4.0)
    assert n.sum() == 300


def test_read_only_arrays_stay_so():
    a = np.zeros(3)
    a.flags.writeable = False
    t = bc.from_numpy(a)
    with pytest.raises(ValueError, match="read-only"):
        t[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        t += 1
    assert not t.numpy().flags.writeable
    assert (t + 1).tolist() == [1, 1, 1]


def test_what_cannot_be_shared_says_why():
    for array, words in [
        (np.zeros(3, ">f4"), "big-endian"),
        (np.zeros(3, complex), "cannot be tensors"),
        (np.array(["a"]), "cannot be tensors"),
        (np.zeros(3, [("a", "u1"), ("b", "f4")])["b"], "copy"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            bc.from_numpy(array)
    with pytest.raises(TypeError, match="expected a NumPy array"):
        bc.from_numpy([1, 2])
    tracked = bc.Tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        tracked.numpy()
    with pytest.raises(TypeError, match="bfloat16"):
        bc.zeros(2, dtype="bfloat16").numpy()


def test_bools_of_other_bytes_are_refused():
    with pytest.raises(ValueError, match="byte 2"):
        bc.from_numpy(np.array([0, 1, 2], "u1").view(bool))


def test_dlpack_both_ways():
    a = np.arange(6, dtype="int32").reshape(2, 3)
    t = bc.from_dlpack(a)
    a[0, 0] = 9
    assert t.tolist() == [[9, 1, 2], [3, 4, 5]]
    back = np.from_dlpack(t.T)
    assert np.shares_memory(back, a) and back.shape == (3, 2)
    assert t.__dlpack_device__() == (1, 0)
    for dtype in ["bool", "uint8", "int8", "int16", "int64", "float16", "float32", "float64"]:
        assert np.from_dlpack(bc.ones(2, dtype=dtype)).dtype == dtype
    assert bc.from_dlpack(bc.ones(3, dtype="bfloat16")).dtype == bc.bfloat16
    assert not np.shares_memory(np.from_dlpack(bc.from_dlpack(a, copy=True)), a)


def test_dlpack_capsules_are_consumed_once_and_freed_unconsumed():
    class Used:
        def __init__(self, capsule):
            self.capsule = capsule

        def __dlpack__(self, **_):
            return self.capsule

        def __dlpack_device__(self):
            return (1, 0)

    used = Used(bc.ones(3).__dlpack__())
    assert bc.from_dlpack(used).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="consumed"):
        bc.from_dlpack(used)
    before = bc.memory_stats()["used"]
    for _ in range(100):
        bc.ones(1000).__dlpack__()
        bc.ones(1000).__dlpack__(max_version=(1, 0))
    assert bc.memory_stats()["used"] == before


def test_asarray_copies_only_where_it_must():
    a = np.ones(3, "float32")
    assert np.shares_memory(bc.asarray(a).numpy(), a)
    assert not np.shares_memory(bc.asarray(a, copy=True).numpy(), a)
    assert not np.shares_memory(bc.array(a).numpy(), a)
    assert bc.asarray(a, dtype="float64").dtype == bc.float64
    with pytest.raises(ValueError, match="copy=False"):
        bc.asarray(a, dtype="float64", copy=False)
    t = bc.ones(2)
    assert np.shares_memory(bc.asarray(t).numpy(), t.numpy())


def test_pickles_and_copies():
    for dtype in ["float32", "bfloat16", "int8", "bool"]:
        t = bc.ones((2, 3), dtype=dtype)[:, ::2]
        again = pickle.loads(pickle.dumps(t))
        assert again.tolist() == t.tolist() and again.dtype == t.dtype
    leaf = bc.Tensor([1.0], requires_grad=True)
    assert copy.deepcopy(leaf).requires_grad
    assert pickle.loads(pickle.dumps(bc.float16)) is not None and pickle.loads(pickle.dumps(bc.Device("cpu"))) == bc.Device("cpu")


def test_threads_compute_at_once():
    """Eight threads on tensors that they share: no deadlock, no wrong number."""
    shared, out = bc.randn((128, 128), seed=1), [None] * 8

    def work(i):
        total = bc.zeros((128, 128))
        for _ in range(30):
            total += shared @ shared
        out[i] = total.sum().item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(set(out)) == 1


def test_nothing_leaks():
    import resource

    def pages():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1])

    def work(n):
        for _ in range(n):
            t = bc.ones(8) + 1
            t.numpy()
            t[2:4]

    work(20_000)
    before = pages()
    work(100_000)
    assert (pages() - before) * resource.getpagesize() < 4 << 20


def test_objects_are_hashable_and_weakly_referable():
    t = bc.ones(2)
    assert {t: 1}[t] == 1 and weakref.ref(t)() is t
