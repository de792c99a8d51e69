"""What NumPy's users write works here, and means the same."""

import copy
import pickle

import numpy as np
import pytest

import bullet_core as bc

A = np.array([[1.5, -2.0, 0.25, 3.0], [0.0, 7.0, -1.5, 2.0], [4.0, 1.0, 1.0, -6.0]], "float32")
V = np.array([3, 1, 2, 1])
M = np.arange(16, dtype="float32").reshape(4, 4)

# Expressions of an array `x`, a vector of integers `v`, a square matrix `m`, and the library as `lib`.
EXPRESSIONS = """
x.shape, x.ndim, x.size, x.nbytes, x.itemsize, len(x)
x.T, x.transpose(), x.transpose((1, 0)), x.transpose(1, 0), x.swapaxes(0, 1), lib.transpose(x), lib.transpose(x, (1, 0))
lib.transpose(m.reshape(2, 2, 4), (2, 0, 1)), m.reshape(2, 2, 4).transpose(2, 0, 1)
x.reshape(-1), x.reshape(2, 6), x.reshape((2, -1)), lib.reshape(x, -1), x.ravel(), x.flatten(), lib.ravel(x)
x.sum(), x.sum(0), x.sum(axis=1, keepdims=True), x.sum(axis=(0, 1)), lib.sum(x, 0), lib.sum(x, axis=None), v.sum(dtype=np.int64)
x.mean(1), x.var(axis=0, ddof=1), x.std(axis=1, ddof=1), lib.mean(x, 1), lib.var(x, 0, ddof=1)
x.max(), x.min(axis=1), x.argmax(), x.argmin(axis=1), lib.max(x), lib.argmax(x, 1), lib.amax(x, 0), lib.amin(x)
x.prod(), x.all(), x.any(axis=0), lib.any(x > 0), lib.all(x > 0, axis=0), lib.count_nonzero(v == 1)
x.cumsum(axis=0), x.cumsum(), x.cumprod(axis=1), lib.cumsum(v), lib.cumprod(v)
x.clip(0, 1), x.clip(min=0), lib.clip(x, 0, 1), x.round(1), lib.round(x, 1), lib.round(x * 100, -2), lib.rint(x)
lib.sort(x), lib.sort(x, axis=0), lib.sort(x, 0), v.argsort(kind="stable") if lib is np else v.argsort()
x.dot(m), lib.dot(x, m), v.dot(v), v.dot(2), lib.dot(v, v), x @ m, v @ v, lib.inner(v, v), lib.vdot(x, x), lib.outer(v, v)
x.nonzero(), (x > 1).nonzero(), lib.argwhere(x > 1), lib.flatnonzero(v > 1), lib.argwhere(v > 1)
x[x > 0], x[:, 1], x[..., -1], x[::2, ::-1], x[[0, 2]], x[[0, 2], [1, 3]], x[:, None], x[lib.newaxis], x[-1]
x.item(1), x.item(1, 2), x.item((1, 2)), x[0, 0].item(), x.tolist()
f"{x[0, 0]:.3f}", f"{v[0]:d}", "{:8.1f}".format(x[0, 2]), format(x[0, 0], "e"), f"{x[0, 0]:+}", "%.2f" % x[0, 0]
round(x[0, 0], 0), abs(x), -x, +x, x**2, 2**v, x // 2, x % 2, divmod(v, 2), divmod(7, v), ~(x > 0)
max(v), min(v), sum(v), sorted(v), list(v), tuple(v), [row.sum() for row in x], 2 in v, 9 in v, bool(v[0] > 0), int(v[0])
range(v[1])[0], "abcdef"[v[0]], v[0] in [3, 4], {int(a) for a in v}
np.asarray(x), np.array(x), np.sum(x), np.mean(x, axis=0), np.max(x, 1), np.any(x > 0), np.std(x, 0), np.allclose(x, x)
lib.concatenate([x, x], axis=1), lib.concat([x, x], 1), lib.stack([x, x], 1), lib.vstack([v, v]), lib.hstack([v, v]), lib.hstack([x, x])
lib.split(v, 2), lib.split(x, [1, 3], axis=1)
lib.where(x > 0, x, 0), lib.maximum(x, 0), lib.minimum(x, 0.5), lib.power(x, 2), lib.mod(v, 2), lib.true_divide(v, 2)
lib.arange(5), lib.arange(10, 0, -2), lib.linspace(0, 1).shape, lib.zeros((2, 3)), lib.eye(3), lib.identity(2), lib.full((2,), 7.0)
lib.zeros(3, np.int32), lib.ones(2, "float64"), lib.zeros_like(x), lib.full_like(v, 3), lib.array([1, 2], np.float64)
lib.unique(v), lib.unique(v, return_counts=True), lib.unique(v, True, True, True), lib.isin(v, [1, 2]), lib.searchsorted(lib.sort(v), 2)
lib.isclose(x, x + 1e-9), lib.allclose(x, x), lib.allclose(x, x + 1), lib.array_equal(v, v), lib.array_equal(v, x)
lib.expand_dims(v, 0), lib.squeeze(x[None]), lib.moveaxis(x, 0, 1), lib.broadcast_to(v, (2, 4)), lib.atleast_1d(v), lib.atleast_2d(v)
lib.tile(v, 2), lib.repeat(v, 2), lib.repeat(v, [1, 2, 0, 1]), lib.repeat(x, 2, axis=0), x.repeat(2), x.repeat(2, 1)
lib.flip(v), lib.flip(x, 0), lib.roll(v, 1), lib.roll(x, 1, 0), lib.diff(v), lib.take(v, [0, 1]), lib.take(x, [0, 1], axis=1), x.take([0, 5])
lib.tril(m), lib.triu(m, 1), lib.tril(m, -1), lib.diag(m), lib.diag(m, 1), lib.diag(m, -2), lib.diag(v), lib.diag(v, -1), lib.trace(m)
lib.median(x), lib.median(x, axis=0), lib.median(m, axis=1), lib.median(m.reshape(2, 2, 4), axis=1), lib.median(x, axis=0, keepdims=True)
lib.nan_to_num(x / 0.0 * 0.0), lib.absolute(x), lib.arctan2(x, x), lib.arcsin(x / 10), lib.invert(v), lib.left_shift(v, 1)
lib.ndim(x), lib.size(x), lib.size(x, 1), lib.shape(x), lib.copy(x), x.real, x.imag, x.conj(), x.tobytes(), x.mT
x.dtype == np.float32, x.dtype == "float32", x.dtype != "float64", x.dtype == None, x.dtype.kind, x.dtype.name, v.dtype.kind
np.zeros(2, x.dtype), np.dtype(x.dtype), x.astype("f8"), x.astype("<i4"), v.astype("i8"), v.astype(np.uint8), x.astype(bool)
v / 300, v // 2, True + v, lib.divide(v, 2), np.float32(2) * v[0].item(), lib.finfo(lib.float32).eps
""".strip().split("\n")

# Statements that overwrite.
STATEMENTS = """
x[:] = np.arange(4)
x[:] = [1, 2, 3, 4]
x[0] = [9.0, 8.0, 7.0, 6.0]
x[[0, 2]] = np.zeros((2, 4))
x[x > 1] = [0]
x[x > 1] = np.float64(0.5)
x[:, 0] = np.int8(3)
x[1:] = [np.ones(4), np.zeros(4)]
v[[0, 1]] = [7, 8]
v[:] = np.array([1.9, -2.9, 3.0, 4.0])
v[1:3] = (5, 6)
x *= 2; x += 1; x[0, :] -= 1
x.fill(3)
v.fill(np.int16(4))
x.sort(); v.sort()
x.sort(axis=0)
""".strip().split("\n")


def plain(value):
    """Arrays and numbers of either library as NumPy's, inside of lists and tuples."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return np.asarray(value) if isinstance(value, (bc.Tensor, np.ndarray, np.generic, int, float)) else value


def same(ours, theirs):
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, np.ndarray):
        return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)
    return ours == theirs


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.filterwarnings("ignore")
def test_expressions(expression):
    theirs = eval(expression, {"np": np, "lib": np, "x": A.copy(), "v": V.copy(), "m": M.copy()})
    ours = eval(expression, {"np": np, "lib": bc, "x": bc.array(A), "v": bc.array(V), "m": bc.array(M)})
    for one, other, text in zip(plain(ours), plain(theirs), expression.split(", ") * 9, strict=False):
        assert same(one, other), f"near {text}: {one!r}, in NumPy {other!r}"
    assert len(plain(ours)) == len(plain(theirs))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements(statement):
    theirs, ours = {"np": np, "x": A.copy(), "v": V.copy()}, {"np": np, "x": bc.array(A), "v": bc.array(V)}
    exec(statement, theirs)
    exec(statement, ours)
    for name, dtype in (("x", "float32"), ("v", "int64")):
        assert isinstance(ours[name], bc.Tensor) and ours[name].dtype == dtype
        assert np.array_equal(np.asarray(ours[name]), theirs[name]), ours[name]


def test_lists_may_hold_anything_with_elements():
    assert bc.asarray([np.ones(2), np.zeros(2)]).dtype == "float64"
    assert bc.asarray([np.float32(1), np.float32(2)]).dtype == "float32" and bc.asarray([1.0, 2.0]).dtype == "float32"
    assert bc.asarray([bc.array([1, 2]), [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert bc.asarray([[bc.array(1.0), 2], [3, np.float64(4)]]).tolist() == [[1, 2], [3, 4]]
    x = bc.Tensor([1.0, 2.0], requires_grad=True)
    (bc.asarray([x, x]) * 3).sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_numbers_of_numpy_are_numbers():
    assert (bc.ones(2) * np.float64(2)).dtype == "float32" and (np.float32(2) * bc.ones(2)).tolist() == [2, 2]
    assert bc.zeros((np.int64(2), np.uint8(3))).shape == (2, 3) and bc.zeros(np.int32(2)).shape == (2,)
    assert bc.arange(np.int8(3)).tolist() == [0, 1, 2] and bc.full(np.int64(2), np.float32(3)).tolist() == [3, 3]
    assert bc.linspace(np.float32(0), np.int64(2), np.int16(3)).tolist() == [0, 1, 2]
    assert bc.ones((2, 2)).sum(axis=np.int64(0), keepdims=np.True_).shape == (1, 2)
    assert bc.ones(4).reshape(np.int64(2), -1).shape == (2, 2) and bc.ones(3)[np.uint8(1)].item() == 1
    assert bc.clip(bc.arange(4), np.int64(1), np.float32(2)).tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint64", "int64"])
def test_integers_out_of_range_are_errors(dtype):
    info, one = np.iinfo(dtype), bc.ones(2, dtype)
    for wrong in (int(info.max) + 1, int(info.min) - 1, 2**70):
        for call in (
            lambda: bc.asarray(wrong, dtype),
            lambda: bc.asarray([wrong], dtype),
            lambda: bc.asarray([[1, 2], [3, wrong]], dtype),
            lambda: bc.full(2, wrong, dtype),
            lambda: bc.full_like(one, wrong),
            lambda: one.fill(wrong),
            lambda: one.fill_(wrong),
            lambda: one.copy_(wrong),
            lambda: one.__setitem__(0, wrong),
            lambda: one.__setitem__(slice(None), [1, wrong]),
            lambda: one + wrong,
            lambda: wrong - one,
            lambda: one.__iadd__(wrong),
            lambda: bc.maximum(one, wrong),
            lambda: bc.where(one > 0, one, wrong),
        ):
            with pytest.raises(OverflowError):
                call()
    assert one.tolist() == [1, 1]
    for wrong, exception in ((float("nan"), ValueError), (float("inf"), OverflowError), (1e30, OverflowError)):
        with pytest.raises(exception):
            one[0] = wrong
        with pytest.raises(exception):
            bc.full(2, wrong, dtype)


def test_integers_that_fit_in_another_way():
    x = bc.asarray([1, 200], "uint8")
    assert (x / 400).tolist() == (np.asarray([1, 200], "uint8") / 400).tolist()
    assert bc.clip(x, -5, 400).tolist() == [1, 200] and bc.clip(x, 2, 400).tolist() == [2, 200]
    assert (x < 400).all() and (x > -1).all() and (bc.zeros(2) + 2**70 == 2.0**70).all()
    assert (bc.array([True]) ** bc.array([True])).dtype == "int8"


def test_an_ellipsis_of_no_axes_parts_indices():
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    y, i, j = bc.asarray(x), np.array([0, 1, 1, 0, 1, 0, 1]), bc.asarray([0, 1, 1, 0, 1, 0, 1])
    keys = [
        lambda i: (slice(None), i, ..., i, i),
        lambda i: (slice(None), slice(None), i, ..., i),
        lambda i: (slice(None), 0, ..., i, i),
        lambda i: (slice(None), i, i, ..., 0),
        lambda i: (0, ..., i),
        lambda i: (slice(None), i, None, i),
        lambda i: (slice(None), i, i, i, ...),
    ]
    for key in keys:
        assert np.array_equal(np.asarray(y[key(j)]), x[key(i)]), key(i)
        x[key(i)] = -1
        y[key(j)] = -1
        assert np.array_equal(np.asarray(y), x), key(i)


def test_what_goes_over_its_elements_twice_agrees_with_itself():
    """Both passes of running sums and of `nonzero` cut long tensors at the same places."""
    n = 20_000_000
    x = bc.ones(n, "uint8")
    sums, places = bc.cumulative_sum(x), x.nonzero()[0]
    assert np.array_equal(sums.numpy(), np.arange(1, n + 1)) and np.array_equal(places.numpy(), np.arange(n))
    assert x.sum().item() == n and x[x > 0].shape == (n,)


def test_text_of_nothing_tells_its_shape():
    assert repr(bc.zeros((0, 3))) == "Tensor([], shape=(0, 3), dtype=float32)"
    assert repr(bc.zeros(0)) == "Tensor([], dtype=float32)" and str(bc.zeros((2, 0))) == "[]"


def test_formats_are_of_numbers():
    with pytest.raises(TypeError, match="of one number"):
        f"{bc.ones(2):.3f}"
    assert f"{bc.ones(2)}" == "[1., 1.]" and f"{bc.array(1.5):>6}" == "   1.5"


def test_dtypes_equal_their_names():
    assert bc.float32 == "f4" and bc.int64 == "i8" and bc.uint8 == np.uint8 and bc.bool == bool and bc.int64 == int
    assert bc.float32 != "float64" and bc.float32 != "no dtype" and bc.float32 != 4 and bc.float32 is not None
    assert {bc.float32: 1}[bc.dtype("float32")] == 1 and bc.finfo("f4").dtype == bc.float32
    for thing in (bc.float16, bc.finfo("float32"), bc.iinfo("int8")):
        assert repr(pickle.loads(pickle.dumps(thing))) == repr(copy.deepcopy(thing)) == repr(thing)


def test_dtype_of_others_and_out_are_refused_with_words():
    with pytest.raises(TypeError, match="out is not supported"):
        np.sum(bc.ones(2), out=np.zeros(()))
    with pytest.raises(ValueError, match="ddof"):
        bc.ones(2).var(ddof=1, correction=1)
