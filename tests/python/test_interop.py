"""Memory that comes and goes without a copy, and the objects that keep it."""

import copy
import ctypes
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
    with pytest.raises(ValueError, match="byte of 2"):
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


def test_dlpack_devices_that_differ_are_refused():
    """What an object says of its device must be what its memory says."""
    a = bc.ones(3, device="cpu")

    class Elsewhere:
        __dlpack__ = a.__dlpack__

        def __dlpack_device__(self):
            return (14, 0)

    with pytest.raises(BufferError, match="device type 14"):
        bc.from_dlpack(Elsewhere())
    capsule = a.__dlpack__()
    # `DLTensor.device` lies behind the pointer to the data.
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    ctypes.c_int.from_address(get(capsule, b"dltensor") + 8).value = 14

    class Other:
        def __dlpack__(self, **_):
            return capsule

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(BufferError, match="device type 14"):
        bc.from_dlpack(Other())


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


def test_scalars_of_numpy_lend_no_memory_that_is_gone():
    for i in range(200):
        t = bc.asarray(np.float64(i + 0.5))
        others = [np.full((), -9.0) for _ in range(50)]
        assert t.item() == i + 0.5
        t += 1
        assert all(other == -9.0 for other in others)
    w = bc.Tensor([1.0, 2.0], requires_grad=True)
    assert (np.float32(2) * w).tolist() == [2.0, 4.0] and isinstance(np.float64(2) * bc.ones(2), bc.Tensor)
    v = bc.zeros(4)[1:]
    with pytest.raises(TypeError):
        v += np.ones(3)


needs_cuda = pytest.mark.skipif(not bc.cuda.is_available(), reason="no GPU")


def test_dlpack_says_where_and_refuses_what_cannot_be():
    t = bc.ones(3)
    assert t.__dlpack_device__() == (1, 0)
    t.__dlpack__(stream=-1)
    with pytest.raises(ValueError, match="no streams"):
        t.__dlpack__(stream=7)
    with pytest.raises(BufferError, match="move it first"):
        t.__dlpack__(dl_device=(2, 0))
    assert not hasattr(t, "__cuda_array_interface__")

    class Elsewhere:
        def __dlpack_device__(self):
            return 10, 0

        def __dlpack__(self, **_):
            raise AssertionError("not asked for")

    with pytest.raises(BufferError, match="device type 10"):
        bc.from_dlpack(Elsewhere())


def torch_and_tensors():
    torch = pytest.importorskip("torch")
    return torch, bc.arange(24, dtype="float32", device="cuda:0").reshape(2, 3, 4)


@needs_cuda
def test_torch_shares_gpu_memory_by_dlpack():
    torch, ours = torch_and_tensors()
    copies = bc.host_copies()
    theirs = torch.from_dlpack(ours.T)
    assert theirs.is_cuda and theirs.shape == (4, 3, 2) and theirs.data_ptr() == ours.__cuda_array_interface__["data"][0]
    theirs += 100
    torch.cuda.synchronize()
    assert ours.tolist() == (np.arange(24).reshape(2, 3, 4) + 100).tolist()
    again = bc.from_dlpack(torch.arange(10, device="cuda", dtype=torch.bfloat16)[::3])
    assert again.dtype == bc.bfloat16 and str(again.device) == "cuda:0"
    assert bc.host_copies() == copies + 1
    assert again.tolist() == [0, 3, 6, 9]


@needs_cuda
def test_streams_of_torch_wait_and_are_waited_for():
    """Long work on one side, and the other must not read before its end."""
    torch = pytest.importorskip("torch")
    side = torch.cuda.Stream()
    for _ in range(5):
        with torch.cuda.stream(side):
            a = torch.full((4096, 4096), 0.5, device="cuda")
            for _ in range(5):
                a = a @ a / 1024
            a.fill_(3.0)
            ours = bc.from_dlpack(a)
        del a
        assert ours.sum().item() == 3.0 * 4096 * 4096
        big = bc.ones((4096, 4096), device="cuda:0")
        for _ in range(5):
            big = big @ big / 4096
        with torch.cuda.stream(side):
            theirs = torch.from_dlpack(big * 2)
            assert theirs.double().sum().item() == 2.0 * 4096 * 4096


@needs_cuda
def test_memory_given_away_is_not_used_again_too_early():
    torch = pytest.importorskip("torch")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(20):
            theirs = torch.from_dlpack(bc.ones((2048, 2048), device="cuda:0") * i)
            copy = theirs
            for _ in range(3):
                copy = copy @ torch.eye(2048, device="cuda")
            del theirs
            bc.ones((2048, 2048), device="cuda:0") * -1
            assert (copy == i).all().item()


@needs_cuda
def test_cupy_shares_gpu_memory():
    cupy = pytest.importorskip("cupy")
    ours = bc.arange(12, dtype="int32", device="cuda:0").reshape(3, 4)
    theirs = cupy.asarray(ours)
    assert theirs.data.ptr == ours.__cuda_array_interface__["data"][0]
    theirs *= 2
    cupy.cuda.runtime.deviceSynchronize()
    assert ours.tolist() == (np.arange(12).reshape(3, 4) * 2).tolist()

    class Interface:
        """Only the older protocol."""

        __cuda_array_interface__ = cupy.arange(6, dtype="float16")[::2].__cuda_array_interface__

    back = bc.asarray(Interface())
    assert back.dtype == bc.float16 and back.tolist() == [0, 2, 4]
    assert cupy.from_dlpack(ours[:, 1:3]).tolist() == (np.arange(12).reshape(3, 4) * 2)[:, 1:3].tolist()


@needs_cuda
def test_jax_shares_gpu_memory():
    jax = pytest.importorskip("jax")
    ours = bc.arange(8, dtype="float32", device="cuda:0")
    theirs = jax.dlpack.from_dlpack(ours)
    assert (theirs * 2).tolist() == [2.0 * i for i in range(8)]
    assert bc.from_dlpack(theirs + 1).tolist() == [i + 1.0 for i in range(8)]


@needs_cuda
def test_dlpack_copies_to_the_host_where_that_is_asked_for():
    ours = bc.arange(3, device="cuda:0")
    copies = bc.host_copies()
    host = np.from_dlpack(ours, device="cpu") if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else ours.to("cpu").numpy()
    assert host.tolist() == [0, 1, 2] and bc.host_copies() == copies + 1
    with pytest.raises(BufferError):
        ours.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(ValueError, match="stream"):
        ours.__dlpack__(stream=0)
