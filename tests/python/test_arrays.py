"""Arrays against NumPy: what both can do must have the same shape, dtype and values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bullet_core as bc

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"]
FLOATS = ["float32", "float64"]


def arrays(dtypes=tuple(DTYPES), max_dims=4, shape=None):
    """NumPy arrays of moderate values."""

    def of(dtype):
        if dtype == "bool":
            elements = st.booleans()
        elif dtype.startswith("float"):
            elements = st.floats(-4, 4, width=32)
        else:
            elements = st.integers(0 if dtype.startswith("u") else -9, 9)
        shapes = hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=5)
        return hnp.arrays(dtype, shapes if shape is None else shape, elements=elements)

    return st.sampled_from(list(dtypes)).flatmap(of)


def same(ours, theirs, tolerance=1e-6):
    """Equal in shape and dtype, and close in values."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert str(ours.dtype) == str(theirs.dtype)
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


@given(arrays())
def test_an_array_comes_and_goes(a):
    t = bc.from_numpy(a)
    same(t, a)
    assert t.tolist() == a.tolist()
    assert t.size == a.size and t.ndim == a.ndim and t.nbytes == a.nbytes
    same(bc.array(a), a)
    same(bc.asarray(a.T), a.T)


BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
}


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=60)
@given(data=st.data())
def test_binary_functions_broadcast_and_promote(name, data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    a, b = (data.draw(arrays(shape=shape)) for shape in shapes)
    if name == "subtract" and (a.dtype == b.dtype == np.bool_):
        return  # NumPy refuses what is an exclusive or.
    ours = getattr(bc, name)(bc.from_numpy(a), bc.from_numpy(b))
    same(ours, BINARY[name](a, b))


UNARY = ["exp", "sin", "cos", "tanh", "floor", "ceil", "abs", "sign", "square", "logical_not"]


@pytest.mark.parametrize("name", UNARY)
@given(a=arrays(FLOATS))
def test_unary_functions(name, a):
    same(getattr(bc, name)(bc.from_numpy(a)), getattr(np, name)(a), 1e-5)


@given(arrays(["float32", "float64", "int32"], max_dims=3), st.data())
def test_reductions(a, data):
    axis = data.draw(st.one_of(st.none(), st.integers(-a.ndim, a.ndim - 1))) if a.ndim else None
    keepdims = data.draw(st.booleans())
    t = bc.from_numpy(a)
    same(bc.sum(t, axis=axis, keepdims=keepdims), np.sum(a, axis=axis, keepdims=keepdims), 1e-5)
    if a.size == 0:
        return
    same(bc.max(t, axis=axis, keepdims=keepdims), np.max(a, axis=axis, keepdims=keepdims))
    same(t.min(axis, keepdims=keepdims), np.min(a, axis=axis, keepdims=keepdims))
    same(t.mean(axis, keepdims=keepdims), np.mean(a, axis=axis, keepdims=keepdims), 1e-5)
    same(bc.argmax(t, axis=axis), np.argmax(a, axis=axis))


def keys(shape):
    """Keys of integers, slices, None and an ellipsis."""
    return hnp.basic_indices(shape, max_dims=8, allow_ellipsis=True, allow_newaxis=True)


@settings(max_examples=300)
@given(data=st.data(), a=arrays(["int64", "float32"]))
def test_basic_keys_give_views_as_numpys(data, a):
    key = data.draw(keys(a.shape))
    t = bc.from_numpy(a)
    same(t[key], a[key])
    want = a.copy()
    want[key] = 7
    got = bc.array(a)
    got[key] = 7
    same(got, want)


def test_views_share_memory_and_lists_take():
    t = bc.arange(12).reshape(3, 4)
    t[1:, ::2] = 0
    assert t.tolist() == [[0, 1, 2, 3], [0, 5, 0, 7], [0, 9, 0, 11]]
    assert t[[2, 0, -1]][:, 1].tolist() == [9, 1, 9]
    assert t[:, bc.array([[0], [3]])].shape == (3, 2, 1)
    assert [row.tolist() for row in t][2] == [0, 9, 0, 11]
    assert t.T.shape == (4, 3) and t.mT.tolist() == t.T.tolist()


@given(arrays(FLOATS, max_dims=3), st.sampled_from([0, 3, -2, True, 2.5]))
def test_pythons_numbers_take_the_dtype_beside_them(a, number):
    t = bc.from_numpy(a)
    same(t + number, a + np.asarray(number, a.dtype), 1e-5)
    same(number - t, np.asarray(number, a.dtype) - a, 1e-5)
    same(t * number, a * np.asarray(number, a.dtype), 1e-5)


def test_in_place_operators_keep_the_memory():
    t = bc.ones((2, 3))
    alias = t
    t += 2
    t *= bc.array([1.0, 2.0, 3.0])
    t -= 1
    t /= 2
    assert alias is t and alias.tolist() == [[1.0, 2.5, 4.0]] * 2


def test_creation():
    same(bc.zeros((2, 3)), np.zeros((2, 3), "float32"))
    same(bc.ones(4, dtype="int16"), np.ones(4, "int16"))
    same(bc.full((2,), 2**62 + 1), np.full(2, 2**62 + 1))
    same(bc.full((2,), True), np.full(2, True))
    same(bc.arange(5), np.arange(5))
    same(bc.arange(1, 4, 0.5), np.arange(1, 4, 0.5, dtype="float32"))
    same(bc.arange(5, 0, -2), np.arange(5, 0, -2))
    same(bc.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype="float32"))
    same(bc.linspace(0, 1, 4, endpoint=False, dtype="float64"), np.linspace(0, 1, 4, endpoint=False))
    same(bc.eye(3, 4, k=1), np.eye(3, 4, k=1, dtype="float32"))
    same(bc.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]]))
    same(bc.array([1.5, 2]), np.array([1.5, 2], "float32"))
    same(bc.array(np.float64(2.5)), np.array(2.5))
    assert bc.randn((3, 4), seed=1).tolist() == bc.randn((3, 4), seed=1).tolist()
    assert bc.uniform((1000,), low=2, high=3, seed=4).min().item() >= 2


def test_products():
    a, b = (np.random.default_rng(i).normal(size=s) for i, s in enumerate([(2, 3, 4), (4, 5)]))
    same(bc.from_numpy(a) @ bc.from_numpy(b), a @ b, 1e-12)
    same(bc.matmul(bc.from_numpy(a[0, 0]), bc.from_numpy(b)), a[0, 0] @ b, 1e-12)


def test_texts_are_numpys():
    t = bc.array([[1.0, 2.5], [3.0, -4.0]])
    assert repr(t) == "Tensor([[ 1. ,  2.5],\n        [ 3. , -4. ]], dtype=float32)"
    assert str(bc.arange(3)) == "[0, 1, 2]"
    t.requires_grad = True
    assert repr(t).endswith("dtype=float32, requires_grad=True)")
    assert "..." in repr(bc.zeros(5000))
    assert repr(bc.float32) == "bullet_core.float32" and bc.dtype("float16") == bc.float16
    assert repr(bc.ones(2, dtype=bc.bfloat16)) == "Tensor([1., 1.], dtype=bfloat16)"


def test_numbers_of_one_element():
    one = bc.array([2**53 + 1])
    assert one.item() == 2**53 + 1 and int(one) == 2**53 + 1
    assert float(bc.array(1.5)) == 1.5 and bool(bc.array([False])) is False
    assert [10, 20, 30][bc.array(1)] == 20
    assert isinstance(bc.array(True).item(), bool)
