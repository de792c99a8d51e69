"""The array API beyond its own tests: what it leaves open, and what only tensors have."""

import ctypes
import operator

import numpy as np
import pytest

import bullet_core as bc


def leaf(values):
    t = bc.asarray(np.asarray(values, "float64"))
    t.requires_grad = True
    return t


def test_the_namespace():
    assert bc.ones(1).__array_namespace__() is bc is bc.ones(1).__array_namespace__(api_version="2024.12")
    with pytest.raises(ValueError, match="not known"):
        bc.ones(1).__array_namespace__(api_version="1999.01")
    info = bc.__array_namespace_info__()
    assert info.default_dtypes()["real floating"] == bc.float32
    assert "complex64" not in info.dtypes() and info.dtypes(kind=("bool", "unsigned integer")).keys() == {
        "bool", "uint8", "uint16", "uint32", "uint64",
    }  # fmt: skip
    assert bc.result_type(bc.uint8, bc.int8, 1.0) == bc.float64 and bc.result_type(bc.float32, 1.0) == bc.float32
    assert bc.finfo(bc.bfloat16).eps == 2**-7 and bc.iinfo(bc.uint64).max == 2**64 - 1
    assert bc.can_cast(bc.int8, bc.int16) and not bc.can_cast(bc.int16, bc.int8)
    with pytest.raises(TypeError, match="floating"):
        bc.finfo(bc.int8)


def test_python_integers_are_exact_to_both_ends():
    u = bc.asarray([2**64 - 1], dtype=bc.uint64)
    assert u.item() == 2**64 - 1 and (u - (2**64 - 2)).tolist() == [1]
    assert bc.full((1,), -(2**63)).item() == -(2**63)
    assert bc.arange(2**62, 2**62 + 3).tolist() == [2**62, 2**62 + 1, 2**62 + 2]
    assert bc.asarray([0.1], dtype="float64").item() == 0.1
    assert (bc.asarray([1, 255], dtype="uint8") < 256).tolist() == [True, True]
    assert (bc.asarray([2**63 - 1]) >= 2**63).tolist() == [False]
    with pytest.raises(OverflowError, match="uint8"):
        bc.asarray([1], dtype="uint8") - 256


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (([0, 2],), (2, 4, 5)),
        ((slice(None), [0, 2], [1, 1]), (3, 2)),
        (([0, 2], slice(None), [1, 1]), (2, 4)),
        ((0, slice(None), [1, 1, 4]), (3, 4)),
        ((..., [[0], [1]]), (3, 4, 2, 1)),
        ((None, [0, 1]), (1, 2, 4, 5)),
        ((True,), (1, 3, 4, 5)),
        ((False,), (0, 3, 4, 5)),
        (([],), (0, 4, 5)),
    ],
)
def test_keys_of_tensors(key, shape):
    a = np.arange(60).reshape(3, 4, 5)
    want, got = a[key], bc.asarray(a)[key]
    assert got.shape == want.shape == shape and got.tolist() == want.tolist()
    copy, t = a.copy(), bc.asarray(a, copy=True)
    copy[key] = -1
    t[key] = -1
    assert t.tolist() == copy.tolist()


def test_masks():
    a = np.arange(12).reshape(3, 4)
    t = bc.asarray(a, copy=True)
    mask = t % 3 == 1
    assert t[mask].tolist() == a[a % 3 == 1].tolist()
    assert t[bc.asarray([True, False, True])].tolist() == a[[0, 2]].tolist()
    assert t[bc.asarray([True, False, True]), 1].tolist() == [1, 9]
    t[mask] = bc.asarray([10, 20, 30, 40])
    assert t.tolist() == [[0, 10, 2, 3], [20, 5, 6, 30], [8, 9, 40, 11]]
    t[bc.asarray([False, True, False])] = bc.asarray([7, 8, 9, 10])
    assert t[1].tolist() == [7, 8, 9, 10]
    with pytest.raises(IndexError, match="boolean index did not match"):
        t[bc.asarray([True, False])]


def test_wrong_indices():
    t = bc.zeros((3, 4))
    for key, words in [
        (([0, 3],), "index 3 is out of bounds for axis 0 with size 3"),
        ((slice(None), [-5]), "index -5 is out of bounds for axis 1 with size 4"),
        (([0, 1], [0, 1, 2]), "could not be broadcast together"),
        ((bc.asarray([0.5]),), "valid indices"),
        ((2**80,), "out of bounds"),
    ]:
        with pytest.raises(IndexError, match=words):
            t[key]
    with pytest.raises(ValueError, match="could not be broadcast"):
        t[[0, 1]] = bc.ones((3, 3))
    assert t[-(2**80) : 2**80].shape == (3, 4)


def test_the_last_of_several_values_for_a_place_stays():
    t = bc.zeros((3,))
    t[[1, 1, 0, 1]] = bc.asarray([1.0, 2.0, 3.0, 4.0])
    assert t.tolist() == [3.0, 4.0, 0.0]


def test_gradients_flow_through_keys():
    x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (x[[0, 0, 1], [2, 2, 0]] * bc.asarray(np.array([1.0, 10.0, 100.0]))).sum().backward()
    assert x.grad.tolist() == [[0, 0, 11], [100, 0, 0]]
    x.grad = None
    x[x > 2.5].sum().backward()
    assert x.grad.tolist() == [[0, 0, 1], [1, 1, 1]]
    x.grad = None
    bc.take_along_axis(x, bc.asarray([[0], [-1]]), axis=1).sum().backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 0, 1]]
    x.grad = None
    (bc.tensordot(x, x, axes=2) + bc.tril(x).sum() + bc.stack([x, x])[1, 0, 0]).backward()
    assert x.grad.tolist() == [[4, 4, 6], [9, 11, 12]]


def test_assignments_would_lose_gradients():
    t = bc.zeros((2,), dtype="float64")
    for write in [lambda: operator.setitem(t, 0, leaf([1.0])[0]), lambda: t.copy_(leaf([1.0])), lambda: operator.iadd(t, leaf([1.0]))]:
        with pytest.raises(RuntimeError, match="requires gradients"):
            write()
    with bc.no_grad():
        t[0] = leaf([1.0])[0]
    assert t.tolist() == [1, 0]


def test_in_place_operators_cast_as_numpy():
    t = bc.asarray([7, 8], dtype="int32")
    alias = t
    t //= 2
    t **= 2
    t <<= 1
    t ^= 1
    t %= 16
    assert alias is t and t.tolist() == [3, 1]
    t += bc.asarray([1, 1], dtype="int64")
    assert t.dtype == bc.int32
    for other in [0.5, bc.asarray([0.5])]:
        with pytest.raises(TypeError, match="same_kind"):
            t += other
    with pytest.raises(TypeError, match="same_kind"):
        t /= 2
    with pytest.raises(ValueError, match="negative integer powers"):
        t **= -1
    m = bc.asarray([[1.0, 2.0], [3.0, 4.0]])
    m @= bc.eye(2) * 2
    assert m.tolist() == [[2, 4], [6, 8]]


def test_numbers_and_truth():
    assert complex(bc.asarray(2.5)) == 2.5 + 0j and int(bc.asarray([3.7])) == 3
    assert operator.index(bc.asarray(3)) == 3
    for call, words in [
        (lambda: float(bc.ones(2)), "length-1"),
        (lambda: int(bc.ones(0)), "length-1"),
        (lambda: operator.index(bc.asarray(True)), "integer scalar"),
        (lambda: operator.index(bc.asarray([1])), "integer scalar"),
        (lambda: operator.index(bc.asarray(1.0)), "integer scalar"),
        (lambda: iter(bc.asarray(1.0)), "0-d"),
    ]:
        with pytest.raises(TypeError, match=words):
            call()
    with pytest.raises(ValueError, match="ambiguous"):
        bool(bc.ones(0))
    with pytest.raises(OverflowError):
        int(bc.asarray(float("inf")))
    t = bc.asarray([[1, 2], [3, 4]])
    assert 3 in t and 5 not in t and 300 not in bc.asarray([1], dtype="uint8")
    rows = iter(t)
    assert next(rows).tolist() == [1, 2] and next(rows).tolist() == [3, 4] and next(rows, None) is None


def test_buffers_share_memory_and_keep_to_the_rules():
    t = bc.arange(6, dtype="int32").reshape(2, 3)
    view = memoryview(t)
    assert view.shape == (2, 3) and view.strides == (12, 4) and view.format == "i" and not view.readonly
    assert view.tolist() == t.tolist() and bytes(t) == np.asarray(t).tobytes()
    view[1, 2] = 50
    assert t[1, 2].item() == 50
    assert memoryview(t.T).strides == (4, 12)
    fixed = np.zeros(3)
    fixed.flags.writeable = False
    assert memoryview(bc.from_numpy(fixed)).readonly
    for tensor, words in [
        (bc.zeros(2, dtype="bfloat16"), "bfloat16"),
        (leaf([1.0]), "requires gradients"),
    ]:
        with pytest.raises(BufferError, match=words):
            memoryview(tensor)
    with pytest.raises((BufferError, TypeError), match="writable|written"):
        ctypes.c_char.from_buffer(bc.from_numpy(fixed))


def test_arrays_of_tensors():
    t = bc.ones((2, 2))
    assert np.shares_memory(np.asarray(t), t.numpy())
    assert not np.shares_memory(np.array(t), t.numpy())
    assert t.__array__("float64").dtype == "float64"
    with pytest.raises(ValueError):
        t.__array__("float64", copy=False)
