"""Random programs of array operations, run by NumPy and by us: after every step all values must be the same.

A program is a string of bytes, from which every choice is read: hypothesis shortens a failing one to what is needed. Values
live in a few variables, so that views, and writes through them, are part of it. Where NumPy raises, we must raise the same.

`BULLET_FUZZ=N` runs N programs, other ones each time; without it 10,000 run, always the same.
"""

import os
import warnings

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bullet_core as bc

CASES = os.environ.get("BULLET_FUZZ")
INTS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
FLOATS = ["float16", "float32", "float64"]
DTYPES = ["bool", *INTS, *FLOATS]
STEPS = 6
# What a function of rounded operands may lose, in units of the last place: sums of a few dozen, sines of large numbers.
ULPS = 64


class Choices:
    """Reads choices from bytes; from their end on, always the first one."""

    def __init__(self, program):
        self.bytes = iter(program)

    def below(self, n):
        return next(self.bytes, 0) % n

    def of(self, options):
        return options[self.below(len(options))]

    def some(self, low, high):
        return low + self.below(high - low + 1)


class Skip(Exception):
    """This step is not defined, or not the same in NumPy by intention."""


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.7, -2.5, 10.25, -0.125, 1e-3, 1000.0, np.inf, -np.inf, np.nan]


def elements(dtype, n, seed):
    """Elements: mostly small, sometimes an end of the range or not finite; all small and finite of every other seed."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        options = [False, True]
    elif dtype in INTS:
        info = np.iinfo(dtype)
        options = [0, 1, 2, 3, 5, 7] + ([100, info.max, info.min, info.max // 3, max(info.min, -1), max(info.min, -4)] if seed % 2 else [])
    else:
        options = SPECIAL if seed % 2 else SPECIAL[:12]
    return np.array([options[i] for i in rng.integers(0, len(options), n)], dtype)


def array(c):
    """An array of up to three axes, in one of several layouts, twice."""
    dtype = c.of(DTYPES)
    shape = tuple(c.of([2, 3, 1, 4, 0, 2, 3, 2]) for _ in range(c.below(4)))
    a = elements(dtype, int(np.prod(shape)), c.below(256)).reshape(shape)
    layout = c.below(4) if a.ndim else 0
    twice = [a, a.copy()]
    if layout == 1:
        return [x.T for x in twice]
    if layout == 2:
        return [x[::-1] for x in twice]
    if layout == 3:
        return [np.repeat(x, 2, axis=-1)[..., ::2] for x in twice]
    return twice


def axis_of(c, a):
    """An axis, rarely one that there is not. Of arrays without axes NumPy often takes -1 and 0."""
    return c.some(-a.ndim, a.ndim - 1) if a.ndim and c.below(16) != 15 else c.some(1, 3)


def axes_of(c, a):
    kind = c.below(3)
    if kind == 0:
        return None
    if kind == 1:
        return axis_of(c, a)
    return tuple(axis for axis in range(a.ndim) if c.below(2))


# Elementwise functions: their names here, those of NumPy where they differ, and the kinds of dtypes they are for.
UNARY = {
    "abs": "biuf", "negative": "iuf", "sign": "iuf", "square": "iuf", "floor": "iuf", "ceil": "iuf", "trunc": "iuf",
    "round": "iuf", "isnan": "biuf", "isinf": "biuf", "isfinite": "biuf", "logical_not": "biuf", "bitwise_invert": "biu",
    "signbit": "f", "exp": "biuf", "expm1": "biuf", "log": "biuf", "log1p": "biuf", "log2": "biuf", "log10": "biuf",
    "sqrt": "biuf", "sin": "biuf", "cos": "biuf", "tan": "biuf", "asin": "biuf", "acos": "biuf", "atan": "biuf",
    "sinh": "biuf", "cosh": "biuf", "tanh": "biuf", "asinh": "biuf", "acosh": "biuf", "atanh": "biuf", "reciprocal": "f",
}  # fmt: skip
BINARY = {
    "add": "biuf", "subtract": "iuf", "multiply": "biuf", "divide": "biuf", "floor_divide": "iuf", "remainder": "iuf",
    "maximum": "biuf", "minimum": "biuf", "equal": "biuf", "not_equal": "biuf", "less": "biuf", "less_equal": "biuf",
    "greater": "biuf", "greater_equal": "biuf", "logical_and": "biuf", "logical_or": "biuf", "logical_xor": "biuf",
    "bitwise_and": "biu", "bitwise_or": "biu", "bitwise_xor": "biu", "bitwise_left_shift": "iu",
    "bitwise_right_shift": "iu", "atan2": "biuf", "hypot": "biuf", "copysign": "biuf", "logaddexp": "biuf", "pow": "iuf",
}  # fmt: skip
SUMS = ["sum", "prod", "mean", "var", "std", "max", "min", "any", "all", "count_nonzero"]


def unary(c, v):
    name = c.of(list(UNARY))
    a, t = c.of(v)
    if a.dtype.kind not in UNARY[name]:
        raise Skip
    return lambda: getattr(np, name)(a), lambda: getattr(bc, name)(t)


def binary(c, v):
    name = c.of(list(BINARY))
    (a, s), (b, t) = c.of(v), c.of(v)
    if a.dtype.kind not in BINARY[name] or b.dtype.kind not in BINARY[name]:
        raise Skip
    if name == "pow" and (a == -np.inf).any() and (b == 0.5).any():
        raise Skip  # NumPy takes the square root, which is NaN; the standard has infinity.
    return lambda: getattr(np, name)(a, b), lambda: getattr(bc, name)(s, t)


OPERATORS = {
    "+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "/": lambda x, y: x / y,
    "//": lambda x, y: x // y, "%": lambda x, y: x % y, "<": lambda x, y: x < y, "==": lambda x, y: x == y,
    "&": lambda x, y: x & y, "|": lambda x, y: x | y, "^": lambda x, y: x ^ y,
}  # fmt: skip


def with_number(c, v):
    """A Python number beside an array: it takes the array's dtype."""
    name, left = c.of(list(OPERATORS)), c.below(2)
    f = OPERATORS[name]
    a, t = c.of(v)
    n = c.of([0, 1, 3, -2, 300, True, 0.5, -2.0])
    if a.dtype == bool:
        raise Skip  # Subtraction, quotients and shifts of bools have their own tests.
    if isinstance(n, float) and a.dtype.kind != "f":
        raise Skip  # We give float64 as NumPy, but for comparisons.
    if name == "/" and a.dtype.kind in "iu":
        raise Skip  # NumPy divides by numbers that the dtype does not hold, and only divides by them.
    if left:
        return lambda: f(n, a), lambda: f(n, t)
    return lambda: f(a, n), lambda: f(t, n)


def reduction(c, v):
    name, keepdims = c.of(SUMS), bool(c.below(2))
    a, t = c.of(v)
    axis = axes_of(c, a) if a.ndim else None  # Of arrays without axes NumPy takes axis 0.
    if name in ("mean", "var", "std") and a.dtype.kind != "f":
        raise Skip  # NumPy has an exact intermediate type, the standard none at all.
    if name in ("mean", "var", "std") and (a.size == 0 or not np.isfinite(a).all()):
        raise Skip
    if name in ("max", "min") and a.size == 0 and axis is not None:
        raise Skip  # NumPy refuses the largest of nothing even where none is asked for.
    if a.dtype == "float16" and name in ("sum", "prod", "mean", "var", "std"):
        raise Skip  # NumPy adds up in float16.
    if name == "count_nonzero":
        return lambda: np.count_nonzero(a, axis=axis, keepdims=keepdims), lambda: bc.count_nonzero(t, axis=axis, keepdims=keepdims)
    return lambda: getattr(np, name)(a, axis=axis, keepdims=keepdims), lambda: getattr(bc, name)(t, axis=axis, keepdims=keepdims)


def scan(c, v):
    name = c.of(["cumulative_sum", "cumulative_prod"])
    a, t = c.of(v)
    axis, initial = axis_of(c, a), bool(c.below(2))
    if a.dtype == "float16" or a.ndim == 0:
        raise Skip
    return (
        lambda: getattr(np, name)(a, axis=axis, include_initial=initial),
        lambda: getattr(bc, name)(t, axis=axis, include_initial=initial),
    )


def arg_extreme(c, v):
    name, keepdims = c.of(["argmax", "argmin"]), bool(c.below(2))
    a, t = c.of(v)
    axis = c.of([None, axis_of(c, a)]) if a.ndim else None
    if a.size == 0 and axis is not None:
        raise Skip  # NumPy refuses an empty axis where nothing is asked of it.
    return lambda: getattr(np, name)(a, axis=axis, keepdims=keepdims), lambda: getattr(bc, name)(t, axis=axis, keepdims=keepdims)


def order(c, v):
    name, axis_choice = c.of(["sort", "argsort"]), c.below(4)
    a, t = c.of(v)
    axis = axis_of(c, a) if axis_choice else -1
    if a.ndim == 0:
        raise Skip  # NumPy sorts them, the standard does not.
    return lambda: getattr(np, name)(a, axis=axis, stable=True), lambda: getattr(bc, name)(t, axis=axis)


def sets(c, v):
    a, t = c.of(v)
    name = c.of(["values", "counts", "inverse_indices", "indices"])
    if a.dtype.kind == "f" and np.isnan(a).any():
        raise Skip  # The order of NaNs among themselves is open.
    return lambda: getattr(np.unique_all(a), name), lambda: getattr(bc.unique_all(t), name)


def search(c, v):
    (a, s), (b, t) = c.of(v), c.of(v)
    if a.ndim != 1:
        raise Skip
    side = c.of(["left", "right"])
    return lambda: np.searchsorted(np.sort(a), b, side=side), lambda: bc.searchsorted(bc.sort(s), t, side=side)


def nonzero(c, v):
    a, t = c.of(v)
    if a.ndim == 0:
        return lambda: np.nonzero(a), lambda: bc.nonzero(t)
    i = c.below(a.ndim)
    return lambda: np.nonzero(a)[i], lambda: bc.nonzero(t)[i]


def reshape(c, v):
    a, t = c.of(v)
    kind = c.below(4)
    if kind == 0:
        shape = (-1,)
    elif kind == 1 and a.ndim > 1:
        shape = (a.shape[0], -1) if a.size else (*a.shape, 1)
    elif kind == 2:
        shape = (1, *a.shape[::-1])
    else:
        shape = (c.some(1, 4), -1)
    return lambda: a.reshape(shape), lambda: bc.reshape(t, shape)


def views(c, v):
    a, t = c.of(v)
    kind = c.below(7)
    if kind == 0:
        return lambda: a.T, lambda: t.T
    if kind == 1:
        axis = axes_of(c, a)
        return lambda: np.flip(a, axis), lambda: bc.flip(t, axis=axis)
    if kind == 2:
        axis = c.some(-a.ndim - 1, a.ndim)
        if a.ndim == 6:
            raise Skip
        return lambda: np.expand_dims(a, axis), lambda: bc.expand_dims(t, axis)
    if kind == 3:
        axis = axis_of(c, a)
        return lambda: np.squeeze(a, axis), lambda: bc.squeeze(t, axis)
    if kind == 4:
        i, j = axis_of(c, a), axis_of(c, a)
        return lambda: np.moveaxis(a, i, j), lambda: bc.moveaxis(t, i, j)
    if kind == 5:
        if a.ndim < 2:
            raise Skip
        return lambda: a.mT, lambda: t.mT
    axes = list(range(a.ndim))
    axes = tuple(axes.pop(c.below(len(axes))) for _ in range(a.ndim))
    return lambda: np.transpose(a, axes), lambda: bc.permute_dims(t, axes)


def copies(c, v):
    (a, s), (b, t) = c.of(v), c.of(v)
    kind, axis = c.below(8), axis_of(c, a)
    if kind == 0:
        return lambda: np.concat([a, b], axis=axis), lambda: bc.concat([s, t], axis=axis)
    if kind == 1:
        return lambda: np.stack([a, b], axis=axis), lambda: bc.stack([s, t], axis=axis)
    if kind == 2:
        shift, axis = c.some(-3, 5), c.of([None, axis])
        return lambda: np.roll(a, shift, axis), lambda: bc.roll(s, shift, axis=axis)
    if kind == 3:
        n, axis = c.below(3), c.of([None, axis])
        return lambda: np.repeat(a, n, axis), lambda: bc.repeat(s, n, axis=axis)
    if kind == 4:
        times = tuple(c.below(3) for _ in range(c.below(4)))
        return lambda: np.tile(a, times), lambda: bc.tile(s, times)
    if kind == 5:
        k = c.some(-3, 3)
        if a.ndim < 2:
            raise Skip
        return lambda: np.tril(a, k), lambda: bc.tril(s, k=k)
    if kind == 6:
        n = c.some(1, 2)
        if a.dtype == bool or a.ndim == 0:
            raise Skip  # NumPy has an exclusive or for bools.
        return lambda: np.diff(a, n, axis), lambda: bc.diff(s, n=n, axis=axis)
    if a.ndim > 6 or len(np.broadcast_shapes(a.shape, (1,) * b.ndim)) > 6:
        raise Skip
    return lambda: np.broadcast_to(a, b.shape).copy(), lambda: bc.broadcast_to(s, b.shape).copy()


def convert(c, v):
    a, t = c.of(v)
    dtype = c.of(DTYPES)
    if a.dtype.kind == "f" and dtype in INTS:
        info = np.iinfo(dtype)
        if not ((a > float(info.min)) & (a < float(info.max))).all():
            raise Skip  # What comes of numbers out of range depends on the machine.
    return lambda: a.astype(dtype), lambda: bc.astype(t, getattr(bc, dtype))


def where(c, v):
    (m, r), (a, s), (b, t) = c.of(v), c.of(v), c.of(v)
    return lambda: np.where(m != 0, a, b), lambda: bc.where(r != 0, s, t)


def clip(c, v):
    a, t = c.of(v)
    if a.dtype == bool:
        raise Skip
    low, high = c.of([None, 0, 1]), c.of([None, 2, 3])
    return lambda: np.clip(a, low, high) if (low, high) != (None, None) else a.copy(), lambda: bc.clip(t, low, high)


def product(c, v):
    (a, s), (b, t) = c.of(v), c.of(v)
    if c.below(2) == 0 and a.ndim:
        b, t = a.T, s.T
    if "b" in (a.dtype.kind, b.dtype.kind):
        raise Skip
    for x in (a, b):
        if x.dtype.kind == "f" and (x.dtype == "float16" or not np.isfinite(x).all()):
            raise Skip
    return lambda: a @ b, lambda: s @ t


def key(c, v, a):
    """A key for `a`, as NumPy and as we take it."""
    ours, theirs, axes, i = [], [], a.ndim, 0
    while i < axes:
        kind, n = c.below(9), a.shape[i]
        if kind <= 1:
            k = slice(*(c.of([None, 0, 1, -1, 2, -3, 5]) for _ in range(2)), c.of([None, 1, 2, -1, -2]))
        elif kind == 2:
            k = c.some(-n, n - 1) if n and c.below(16) != 15 else c.some(-1, 4)
        elif kind == 3:
            theirs.append(None)
            ours.append(None)
            continue
        elif kind == 4:
            k, i = Ellipsis, axes
        elif kind in (5, 6):
            if n == 0:
                raise Skip  # Whether an index into nothing is an error depends on the others.
            shape = c.of([(2,), (1,), (3,), (2, 1), ()])
            index = np.array([c.some(-n, n - 1) for _ in range(int(np.prod(shape)))]).reshape(shape)
            index = index.astype(c.of(["int64", "int32"])) if (index < 0).any() else index.astype(c.of(["int64", "uint8"]))
            theirs.append(index)
            ours.append(bc.array(index) if c.below(2) else index.tolist() if index.ndim else bc.array(index))
            i += 1
            continue
        elif kind == 7:
            rank = c.some(1, axes - i)
            mask = np.array([bool(c.below(2)) for _ in range(int(np.prod(a.shape[i : i + rank])))], bool).reshape(a.shape[i : i + rank])
            theirs.append(mask)
            ours.append(bc.array(mask))
            i += rank
            continue
        else:
            break
        theirs.append(k)
        ours.append(k)
        i += 1
    if len(theirs) == 1 and c.below(2):
        return ours[0], theirs[0]
    return tuple(ours), tuple(theirs)


def index(c, v):
    a, t = c.of(v)
    ours, theirs = key(c, v, a)
    return lambda: a[theirs], lambda: t[ours]


def take(c, v):
    a, t = c.of(v)
    axis = axis_of(c, a)
    if not a.size or not a.ndim or not -a.ndim <= axis < a.ndim:
        raise Skip  # Of no elements NumPy checks no indices.
    n = a.shape[axis]
    index = np.array([c.some(-n, n) for _ in range(3)])
    if c.below(2):
        return lambda: np.take(a, index, axis), lambda: bc.take(t, bc.array(index), axis=axis)
    places = np.argsort(a, axis=axis, stable=True)
    return lambda: np.take_along_axis(a, places, axis), lambda: bc.take_along_axis(t, bc.array(places), axis=axis)


def assign(c, v):
    (a, s), (b, t) = c.of(v), c.of(v)
    ours, theirs = key(c, v, a)
    if c.below(2):
        b = t = c.of([0, 1, 5])
    elif b.size == 0 or (b.ndim and outcome(lambda: isinstance(a[theirs], np.generic))[0]):
        raise Skip  # NumPy does not check the shape of nothing, and takes no array of one number for a number.
    elif b.ndim > 1 and getattr(theirs[0] if isinstance(theirs, tuple) and len(theirs) == 1 else theirs, "dtype", None) == bool:
        raise Skip  # NumPy takes no more than one axis beside a mask alone.
    elif b.dtype.kind == "f" and a.dtype.kind != "f":
        raise Skip

    def numpy():
        a[theirs] = b

    def bullet():
        s[ours] = t

    return numpy, bullet


INPLACE = {"+": "__iadd__", "-": "__isub__", "*": "__imul__", "/": "__itruediv__", "//": "__ifloordiv__", "&": "__iand__", "^": "__ixor__"}


def inplace(c, v):
    name = INPLACE[c.of(list(INPLACE))]
    (a, s), (b, t) = c.of(v), c.of(v)
    if c.below(2):
        b = t = c.of([1, 2, 3])
    if a.dtype == bool or getattr(b, "dtype", None) == bool:
        raise Skip
    if name in ("__iand__", "__ixor__") and "f" in (a.dtype.kind, getattr(b, "dtype", a.dtype).kind):
        raise Skip

    # The operators themselves would bind new names.
    def numpy():
        getattr(a, name)(b)

    def bullet():
        getattr(s, name)(t)

    return numpy, bullet


ACTIONS = [
    unary, binary, with_number, reduction, scan, arg_extreme, order, sets, search, nonzero, reshape, views, copies, convert,
    where, clip, product, index, take, assign, inplace, binary, index, assign, views,
]  # fmt: skip


def outcome(f):
    """What a call gives: its result, or its exception."""
    try:
        return f(), None
    except (ValueError, TypeError, IndexError, OverflowError, RuntimeError) as e:
        return None, e


def close(ours, theirs):
    """Whether results agree: exactly if they are not floats, else up to some units of the last place."""
    if theirs.dtype.kind != "f":
        return np.array_equal(ours, theirs)
    eps = float(np.finfo(theirs.dtype).eps)
    with np.errstate(all="ignore"):
        wide = theirs.astype("float64")
        return np.allclose(ours.astype("float64"), wide, rtol=ULPS * eps, atol=ULPS * eps, equal_nan=True)


def exact(ours, theirs):
    return ours.tobytes() == theirs.tobytes()


def run(program):
    """Runs a program, with a trace of it for messages."""
    c, trace = Choices(program), []
    v = []
    for _ in range(c.some(2, 3)):
        a, again = array(c)
        v.append((a, bc.asarray(again)))
        trace.append(f"{a.dtype} {a.shape} {a.tolist()}")
    for _ in range(c.some(2, STEPS)):
        action = c.of(ACTIONS)
        try:
            numpy, bullet = action(c, v)
        except Skip:
            continue
        trace.append(action.__name__)
        want, error = outcome(numpy)
        if want is not None and np.asarray(want).ndim > 8:
            continue
        got, ours = outcome(bullet)
        at = "\n".join(trace)
        if error is not None or ours is not None:
            assert (error is None) == (ours is None), f"NumPy: {error!r}\nwe: {ours!r}\n{at}"
            assert isinstance(ours, type(error)) or isinstance(error, type(ours)) or {type(error), type(ours)} <= {ValueError, IndexError, TypeError, OverflowError}, f"NumPy: {error!r}\nwe: {ours!r}\n{at}"
            continue
        if want is not None:
            if not isinstance(want, np.ndarray):
                got = got.copy()  # Where we make a view, NumPy has made a number.
            want = np.asarray(want)
            if want.flags.owndata and all(want is not a for a, _ in v):
                # Orders of axes in memory, which decide what can be a view, are open: NumPy keeps those of operands.
                want, got = want.copy(order="C"), got.contiguous()
            there = np.asarray(got)
            assert got.shape == want.shape and str(got.dtype) == str(want.dtype), f"NumPy: {want.dtype} {want.shape}\nwe: {got!r}\n{at}"
            assert close(there, want), f"NumPy: {want!r}\nwe: {got!r}\n{at}"
            if want.size < 200:
                # What differs in its last digit would be amplified by later steps.
                v.append((want, got if exact(there, want) else bc.asarray(want, copy=True)))
        for a, t in v:
            there = np.asarray(t)
            assert close(there, a), f"a variable is {t!r}, in NumPy {a!r}\n{at}"
            if not exact(there, a):
                t[...] = bc.asarray(a)


@settings(
    max_examples=int(CASES or 10_000),
    derandomize=CASES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.binary(min_size=12, max_size=80))
def test_programs_agree_with_numpy(program):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        run(program)
