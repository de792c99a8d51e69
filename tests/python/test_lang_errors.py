"""Kernels that cannot be compiled, and launches that cannot be made: what is said, and that nothing was done."""

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

ON_CPU = pytest.mark.skipif(str(bc.zeros(1).device) != "cpu", reason="a GPU does not check indices and assertions")

data = np.zeros(3)


@wp.kernel
def scale(x: wp.array(dtype=float), s: float):
    i = wp.tid()
    x[i] = x[i] * s


@wp.kernel
def pairs(x: wp.array2d(dtype=wp.vec3)):
    i, j = wp.tid()
    x[i, j] = wp.vec3(float(i), float(j), 0.0)


def host(x):
    return x


def launch_broken(kernel, *args):
    with pytest.raises(wp.CompileError) as caught:
        wp.launch(kernel, 1, args or [wp.zeros(1)])
    return str(caught.value)


def test_mistakes_are_shown_where_they_are():
    @wp.kernel
    def broken(x: wp.array(dtype=float)):
        i = wp.tid()
        y = x[i] * i
        x[i] = unknown_name + y

    text = launch_broken(broken)
    line = broken.__wrapped__.__code__.co_firstlineno
    assert f"{__file__}:{line + 3}:13" in text and "y = x[i] * i" in text, text
    assert f"{__file__}:{line + 4}:16" in text and "`unknown_name` is not known here" in text
    # Nothing is kept of it: the next launch says the same.
    assert launch_broken(broken) == text


def test_a_mistake_in_a_function_is_shown_there():
    @wp.func
    def inner(x: float):
        return x + 1

    @wp.func
    def outer(x: float):
        return inner(x) * data

    @wp.kernel
    def broken(x: wp.array(dtype=float)):
        x[0] = outer(x[0])

    text = launch_broken(broken)
    assert f":{outer.__wrapped__.__code__.co_firstlineno + 2}:" in text
    assert "`data` is a numpy.ndarray, which kernels cannot use" in text


def test_host_functions_and_recursion_are_refused():
    @wp.kernel
    def calls_host(x: wp.array(dtype=float)):
        x[0] = host(x[0])

    assert "`host`" in launch_broken(calls_host)

    @wp.func
    def again(n: int):
        return again(n - 1)

    @wp.kernel
    def recurs(x: wp.array(dtype=float)):
        x[0] = float(again(3))

    assert "`again` calls itself" in launch_broken(recurs)


def test_source_that_cannot_be_read():
    namespace = {"wp": wp}
    exec("@wp.kernel\ndef k(x: wp.array(dtype=float)):\n    x[0] = 1.0\n", namespace)
    with pytest.raises(OSError, match="the source of k cannot be read"):
        wp.launch(namespace["k"], 1, [wp.zeros(1)])


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ([], TypeError, r"kernel `scale` takes 2 arguments \(x, s\), got 0"),
        ([wp.zeros(3), 1.0, 2.0], TypeError, "got 3"),
        ([[1.0, 2.0], 1.0], TypeError, "argument `x` of kernel `scale`: expected an array of float32"),
        ([None, 1.0], TypeError, "expected an array"),
        ([np.zeros(3), 1.0], ValueError, "`x` of `scale` is an array of float32, got one of float64"),
        ([np.zeros((3, 3), np.float32), 1.0], ValueError, "1 dimension of float32, so its tensor has shape"),
        ([wp.zeros(3), "2"], TypeError, "argument `s` of kernel `scale`: expected a number for float32"),
        ([wp.zeros(3), [1.0, 2.0]], TypeError, "expected a number"),
        ([wp.zeros(3, dtype=wp.vec3), 1.0], ValueError, "got"),
        ([wp.zeros(3), 1e300], OverflowError, "out of bounds for float32"),
        (wp.zeros(3), TypeError, "inputs and outputs as lists"),
    ],
)
def test_arguments_that_do_not_fit(args, error, match):
    with pytest.raises(error, match=match):
        wp.launch(scale, 3, args)


def test_elements_that_do_not_fit():
    with pytest.raises(ValueError, match=r"has 2 dimensions of vec3 of float32, so its tensor has shape \(n, n, 3\)"):
        wp.launch(pairs, (2, 2), [np.zeros((2, 2, 2), np.float32)])
    with pytest.raises(ValueError, match="do not lie side by side"):
        wp.launch(pairs, (2, 2), [np.zeros((3, 2, 2), np.float32).T])


@pytest.mark.parametrize(
    ("dim", "error", "match"),
    [
        (-1, ValueError, "negative"),
        ((), ValueError, "1 to 4 lengths"),
        ((1, 2, 3, 4, 5), ValueError, "1 to 4 lengths"),
        (1.5, TypeError, "dim takes integers"),
        ("3", TypeError, "dim takes integers"),
        (2**31, ValueError, "at most 2147483647"),
        ((2**20, 2**20), ValueError, "more places"),
        ((2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1), ValueError, "more places"),
    ],
)
def test_grids_that_do_not_fit(dim, error, match):
    with pytest.raises(error, match=match):
        wp.launch(scale, dim, [wp.zeros(3), 1.0])


def test_too_few_dimensions():
    with pytest.raises(ValueError, match=r"`pairs` asks wp.tid\(\) for 2 dimensions"):
        wp.launch(pairs, 4, [wp.zeros((2, 2), dtype=wp.vec3)])


def test_memory_that_may_not_be_written():
    frozen = np.zeros(3, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        wp.launch(scale, 3, [frozen, 2.0])
    with pytest.raises(ValueError, match="broadcast"):
        wp.launch(scale, 3, [bc.broadcast_to(bc.zeros(1), (3,)), 2.0])
    t = bc.zeros(3)
    t.requires_grad = True
    with pytest.raises(ValueError, match="not on the tape"):
        wp.launch(scale, 3, [t, 2.0])


def test_what_is_no_kernel():
    with pytest.raises(TypeError, match="launch takes a @kernel"):
        wp.launch(host, 1, [])
    with pytest.raises(TypeError, match="is run over a grid"):
        scale(1, 2)
    with pytest.raises(TypeError, match="takes a function"):
        wp.kernel(3)
    with pytest.raises(AttributeError, match="no attribute 'sinus'"):
        wp.sinus


@ON_CPU
def test_an_index_out_of_range_is_an_error():
    @wp.kernel
    def reach(x: wp.array(dtype=float), n: int):
        i = wp.tid()
        x[i + n] = 1.0

    x = wp.zeros(3)
    wp.launch(reach, 2, [x, 1])
    assert x.list() == [0, 1, 1]
    for n in (1, -1, 2**30):
        with pytest.raises(IndexError, match="`x`") as caught:
            wp.launch(reach, 3, [x, n])
        assert __file__ in str(caught.value), caught.value


@ON_CPU
def test_a_failed_assertion_is_an_error():
    @wp.kernel
    def positive(x: wp.array(dtype=float)):
        i = wp.tid()
        assert x[i] > 0.0, "all must be positive"

    wp.launch(positive, 3, [wp.ones(3)])
    with pytest.raises(AssertionError, match="all must be positive"):
        wp.launch(positive, 3, [wp.zeros(3)])
