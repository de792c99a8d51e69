"""What scripts written for Warp use besides kernels and arrays, and what they may expect and not find."""

import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import bullet_core as bc
import bullet_core.lang as wp

STEPS = wp.constant((1, 2, 4))
WEIGHTS = (0.5, 0.25)
AXES = (wp.vec3(1.0, 0.0, 0.0), wp.vec3(0.0, 1.0, 0.0))
NAMES = ["a", "list"]


@wp.kernel
def component(x: wp.array(dtype=wp.vec3), at: wp.array(dtype=int), out: wp.array(dtype=float)):
    i = wp.tid()
    v = x[i]
    out[i] = v[at[i]]


@wp.kernel
def square(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    i = wp.tid()
    y[i] = x[i] * x[i]


def broken(kernel, *args):
    with pytest.raises(wp.CompileError) as caught:
        wp.launch(kernel, 1, args or [wp.zeros(1)])
    return str(caught.value)


class TestIndices:
    @pytest.mark.parametrize("n", [1, 20])
    def test_components_are_checked(self, n):
        x = wp.array(np.arange(3.0 * n).reshape(n, 3), dtype=wp.vec3)
        at, out = np.zeros(n, int), wp.zeros(n)
        for good in (0, 2, -1, -3):
            at[-1] = good
            wp.launch(component, n, [x, wp.array(at, dtype=int), out])
            assert out.list()[-1] == 3.0 * (n - 1) + good % 3
        for bad in (3, -4, 2**31 - 1, -(2**31)):
            at[-1] = bad
            with pytest.raises(IndexError) as caught:
                wp.launch(component, n, [x, wp.array(at, dtype=int), out])
                # A GPU says it to who waits for it.
                wp.synchronize()
            text = str(caught.value)
            line = component.__wrapped__.__code__.co_firstlineno + 4
            assert f"thread ({n - 1},): index {bad} is outside of 3 components" in text and f"{__file__}:{line}:" in text, text

    def test_a_gradient_goes_to_the_component_that_was_read(self):
        x, out = wp.array([[1.0, 2.0, 3.0]] * 2, dtype=wp.vec3, requires_grad=True), wp.zeros(2)
        with wp.Tape() as tape:
            wp.launch(component, 2, [x, wp.array([-1, 1], dtype=int), out])
        tape.backward(grads={out: np.ones(2)})
        assert x.grad.numpy().tolist() == [[0, 0, 1], [0, 1, 0]]

    def test_an_own_array_and_a_slice_are_no_longer_than_they_are(self):
        @wp.kernel
        def own(n: int, out: wp.array(dtype=float)):
            a = wp.zeros(shape=(2, 3), dtype=float)
            a[1, 0] = 5.0
            out[0] = a[0, n]

        @wp.kernel
        def part(x: wp.array(dtype=float), n: int, out: wp.array(dtype=float)):
            s = x[1:3]
            out[0] = s[n]

        x, out = wp.array([1.0, 2.0, 3.0, 4.0]), wp.zeros(1)
        wp.launch(part, 1, [x, 1, out])
        assert out.list() == [3.0]
        for index in (2, -1):
            with pytest.raises(IndexError, match=f"index {index} is outside of a slice"):
                wp.launch(part, 1, [x, index, out])
                wp.synchronize()
        with pytest.raises(IndexError, match="index 3 is outside of dimension 1"):
            wp.launch(own, 1, [3, out])
            wp.synchronize()


class TestLanguage:
    def test_tuples_are_constants(self):
        @wp.kernel
        def k(n: int, out: wp.array(dtype=float)):
            s = float(0.0)
            for step in STEPS:
                s += float(step)
            for i in range(len(WEIGHTS)):
                s += WEIGHTS[i]
            out[0] = s
            out[1] = float(STEPS[n])
            out[2] = AXES[n % 2][1] + float(STEPS[-1])

        out = wp.zeros(3)
        wp.launch(k, 1, [1, out])
        assert out.list() == [7.75, 2.0, 5.0]
        with pytest.raises(IndexError, match="index 3 is outside of 3 items of a tuple"):
            wp.launch(k, 1, [3, out])
            wp.synchronize()

    def test_parameters_by_name_and_defaults(self):
        @wp.func
        def f(a: float, b: float = 2.0, *, c: float = 10.0):
            return a * b + c

        @wp.kernel
        def k(out: wp.array(dtype=float)):
            out[0] = f(1.0) + f(1.0, 3.0) + f(1.0, c=0.0, b=5.0)

        out = wp.zeros(1)
        wp.launch(k, 1, [out])
        assert out.list() == [12.0 + 13.0 + 5.0]

    def test_types_of_generic_arguments(self):
        @wp.func
        def twice(x: Any):
            return x * type(x)(2.0)

        @wp.kernel
        def k(x: wp.array(dtype=Any), y: wp.array(dtype=Any)):
            i = wp.tid()
            y[i] = twice(x[i]) + x.dtype(1.0)

        for dtype in (float, wp.float64):
            y = wp.zeros(1, dtype=dtype)
            wp.launch(k, 1, [wp.array([1.5], dtype=dtype), y])
            assert y.list() == [4.0]

    def test_names_that_mean_something_in_cuda(self):
        @wp.kernel
        def double(float4: wp.array(dtype=float), threadIdx: float):
            größe = threadIdx
            float4[0] = größe

        @wp.kernel
        def größe(x: wp.array(dtype=float)):
            x[0] = x[0] + 1.0

        x = wp.zeros(1)
        wp.launch(double, 1, [x, 2.0])
        wp.launch(größe, 1, [x])
        assert x.list() == [3.0]
        with pytest.raises(TypeError, match="kernel `größe` takes 1 arguments"):
            wp.launch(größe, 1, [])

    def test_functions_of_other_modules(self):
        @wp.kernel
        def numpys(x: wp.array(dtype=float)):
            x[0] = np.sin(x[0]) + np.arctan2(x[0], 1.0) + np.clip(x[0], 0.0, 1.0)

        text = broken(numpys)
        assert "`np.sin` is a numpy.ufunc, which kernels cannot call" in text
        assert "write wp.sin" in text and "write wp.atan2" in text and "write wp.clamp" in text

        @wp.kernel
        def others(x: wp.array(dtype=float)):
            x[0] = random.random()
            x[0] = math.gamma(2.0)
            x[0] = float(len(NAMES))

        text = broken(others)
        assert "write wp.randf" in text and "`math.gamma` is" in text and "a list, which kernels cannot use" in text

        @wp.kernel
        def maths(x: wp.array(dtype=float)):
            x[0] = math.sin(math.pi / 2.0) + math.fabs(-2.0) + math.sqrt(4.0)

        x = wp.zeros(1)
        wp.launch(maths, 1, [x])
        assert x.list() == [5.0]

    def test_quotients_of_integers_in_the_source(self):
        @wp.kernel
        def half(x: wp.array(dtype=float)):
            x[0] = 1 / 2 * x[0]

        text = broken(half)
        assert "`1 / 2` of integers is 0" in text and "write `1.0 / 2.0` for the fraction, or `1 // 2`" in text

    def test_print_takes_several_values(self, tmp_path):
        script = (
            "import bullet_core.lang as wp\n"
            "@wp.kernel\ndef k(x: wp.array(dtype=float)):\n    print('x is', x[0], '%', wp.vec2(1.0, 2.5), 3)\n"
            "wp.launch(k, 1, [wp.array([1.5])])\n"
        )
        path = tmp_path / "printing.py"
        path.write_text(script)
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.stdout == "x is 1.5 % 1 2.5 3\n", done.stderr

    def test_import_star(self):
        names = {}
        exec("from bullet_core.lang import *", names)
        assert {"kernel", "tid", "vec3", "zeros", "float64", "Tape", "sin"} <= names.keys()
        # Python's own stay.
        assert not {"abs", "min", "max", "len", "print", "pow", "round", "bool"} & names.keys()


class TestLaunch:
    def test_options_of_warp(self):
        @wp.kernel(enable_backward=False, module="unique")
        def copies(x: wp.array[float], y: wp.array[float]):
            i = wp.tid()
            y[i] = x[i]

        x, y = wp.array([1.0, 2.0], requires_grad=True), wp.zeros(2)
        with wp.Tape() as tape:
            wp.launch(kernel=copies, dim=2, inputs=[wp.zeros(2)], outputs=[y], block_dim=64)
            with pytest.raises(RuntimeError, match="`copies` has enable_backward=False"):
                wp.launch(copies, 2, [x], [y])
            wp.launch(copies, 2, [x], [y], record_tape=False)
        assert y.list() == [1.0, 2.0] and len(tape) == 0

        @wp.kernel(module_options={"enable_backward": False})
        def also(x: wp.array(dtype=float)):
            x[0] = 1.0

        with wp.Tape(), pytest.raises(RuntimeError, match="enable_backward"):
            wp.launch(also, 1, [x])

    @pytest.mark.parametrize(
        ("option", "hint"),
        [
            ({"adjoint": True}, "launch has no adjoint here: .* tape.backward"),
            ({"adj_inputs": [None]}, "no adj_inputs"),
            ({"adj_outputs": [None]}, "no adj_outputs"),
            ({"stream": 1}, "no stream here: all work of a device is in one stream"),
            ({"max_blocks": 8}, "no max_blocks"),
            ({"record_cmd": True}, "no record_cmd"),
        ],
    )
    def test_what_is_not_there_is_named(self, option, hint):
        with pytest.raises(NotImplementedError, match=hint):
            wp.launch(square, 1, [wp.zeros(1), wp.zeros(1)], **option)

    def test_blocks_and_decorators(self):
        with pytest.raises(ValueError, match="1 to 1024 threads, not 2048"):
            wp.launch(square, 1, [wp.zeros(1), wp.zeros(1)], block_dim=2048)
        for option in ({"launch_bounds": 128}, {"module_options": {"fast_math": True}}, {"cluster_dim": 2}):
            with pytest.raises(NotImplementedError, match="wp.kernel has no"):
                wp.kernel(**option)

    def test_annotations_of_warp(self):
        @wp.kernel
        def k(x: wp.array[wp.vec3], y: wp.array2d[float], z: wp.array3d(dtype=int)):
            y[0, 0] = x[0][1]
            z[0, 0, 0] = 7

        y, z = wp.zeros((1, 1)), wp.zeros((1, 1, 1), dtype=int)
        wp.launch(k, 1, [wp.array([[1.0, 2.0, 3.0]], dtype=wp.vec3), y, z])
        assert y.list() == [2.0] and z.list() == [7]


class TestCopies:
    def test_gradients_flow_through_copies(self):
        x = wp.array([1.0, 2.0, 3.0], dtype=float, requires_grad=True)
        with wp.Tape() as tape:
            y = wp.zeros(3)
            wp.launch(square, 3, [wp.clone(x)], [y])
            z, part = wp.empty_like(y, requires_grad=True), wp.zeros(6)
            z.assign(y)
            wp.copy(part, z, 2, 1, 2)
        assert part.list() == [0.0, 0.0, 4.0, 9.0, 0.0, 0.0]
        tape.backward(grads={part: np.ones(6)})
        assert x.grad.list() == [0.0, 4.0, 6.0] and z.grad.list() == [0.0, 1.0, 1.0]

    def test_of_vectors_structs_and_strides(self):
        @wp.struct
        class P:
            x: wp.vec3
            n: int

        @wp.kernel
        def lengths(p: wp.array(dtype=P), out: wp.array(dtype=float)):
            i = wp.tid()
            out[i] = wp.dot(p[i].x, p[i].x)

        p, out = wp.array([P(x=wp.vec3(1.0, 2.0, 3.0), n=4)], dtype=P, requires_grad=True), wp.zeros(1)
        with wp.Tape() as tape:
            q = wp.clone(p)
            wp.launch(lengths, 1, [q, out])
        tape.backward(out)
        assert q.list() == p.list() and p.grad.list()[0].x == wp.vec3(2.0, 4.0, 6.0)
        m = wp.array(np.arange(6.0).reshape(2, 3), dtype=float, requires_grad=True)
        with wp.Tape() as tape:
            y = wp.zeros(4)
            wp.launch(square, 4, [m[:, ::2].contiguous().flatten()], [y])
        tape.backward(grads={y: np.ones(4)})
        assert m.grad.numpy().tolist() == [[0, 0, 4], [6, 0, 10]]

    def test_what_is_overwritten_by_a_copy_has_lost_its_gradient(self):
        x, y, z = wp.array([3.0], requires_grad=True), wp.zeros(1), wp.zeros(1)
        with wp.Tape() as tape:
            wp.launch(square, 1, [x], [y])
            y.assign(wp.array([5.0]))
            wp.launch(square, 1, [y], [z])
        tape.backward(z)
        assert z.list() == [25.0] and x.grad.list() == [0.0]

    def test_what_no_tape_can_follow_is_refused(self):
        x = wp.array([3.0], requires_grad=True)
        with wp.Tape(), pytest.raises(RuntimeError, match="not through a copy to another device or dtype"):
            wp.copy(wp.zeros(1, dtype=wp.float64), x)
        # Without a tape, or of what has no gradient, a copy is a copy.
        wp.copy(wp.zeros(1, dtype=wp.float64), x)
        with wp.Tape() as tape:
            a = wp.clone(wp.array([1, 2]))
            wp.copy(a, wp.array([3, 4]))
        assert a.list() == [3, 4] and len(tape) == 0
        with pytest.raises(ValueError, match="3 elements from 1 are outside of an array of 2"):
            wp.copy(wp.zeros(3, dtype=int), a, 0, 1, 3)
        with pytest.raises(TypeError, match="copy takes two arrays"):
            wp.copy(a, np.zeros(2))


class TestHost:
    def test_devices(self):
        wp.init()
        cpu = wp.get_device("cpu")
        assert wp.get_device() == bc.default_device() and cpu in wp.get_devices() and wp.is_cpu_available()
        assert wp.get_cuda_device_count() == len(wp.get_cuda_devices()) and wp.is_cuda_available() == bc.cuda.is_available()
        with wp.ScopedDevice("cpu") as device:
            assert device == cpu == wp.zeros(1).device
            wp.synchronize_device(device)
        wp.set_device(wp.get_device())
        wp.synchronize()

    def test_timers(self, capsys):
        times = {}
        with wp.ScopedTimer("outer", dict=times, synchronize=True) as timer, wp.ScopedTimer("inner"):
            pass
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith("  inner took") and printed[1].startswith("outer took") and times["outer"] == [timer.elapsed]
        with wp.ScopedTimer("quiet", print=False), wp.ScopedTimer("off", active=False):
            pass
        assert capsys.readouterr().out == ""
        with pytest.raises(NotImplementedError, match="no detailed"):
            wp.ScopedTimer("x", detailed=True)

    def test_settings(self):
        wp.config.quiet = True
        assert wp.config.quiet and wp.config.version == bc.__version__
        with pytest.raises(ValueError, match="fast_math cannot be True: kernels compute as IEEE says"):
            wp.config.fast_math = True
        with pytest.raises(AttributeError, match="has no 'vebrose'"):
            wp.config.vebrose = True
        with pytest.raises(ValueError, match="kernel_compiler cannot be 'nvcc': expected 'nvrtc', 'bullet' or None"):
            wp.config.kernel_compiler = "nvcc"
        wp.config.kernel_compiler = "bullet"
        wp.config.kernel_compiler = None

    def test_arrays_of_warp(self):
        x = wp.zeros(3, dtype=wp.vec3, device="cpu", requires_grad=True)
        assert wp.zeros_like(x, device="cpu", requires_grad=False).requires_grad is False and wp.ones_like(x).requires_grad
        assert wp.full_like(wp.zeros(2), 3.0).list() == [3.0, 3.0] and wp.full((2,), wp.vec2(1.0, 2.0)).list()[1] == wp.vec2(1.0, 2.0)
        assert wp.clone(x, device="cpu", requires_grad=False).requires_grad is False
        with pytest.raises(NotImplementedError, match="no pinned"):
            wp.zeros(3, pinned=True)
        with pytest.raises(AttributeError, match="said where an array is made"):
            x.requires_grad = False
        m = wp.array(np.arange(6).reshape(2, 3), dtype=float)
        assert m.is_contiguous and m.strides == (12, 4) and x.strides == (12,)
        assert m.transpose().shape == (3, 2) and not m.transpose().is_contiguous and m.transpose().numpy().tolist()[1] == [1.0, 4.0]
        with pytest.raises(ValueError, match="in some order"):
            m.transpose((0, 0))

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("ScopedCapture", "launches are cheap"), ("from_torch", "bullet_core.from_dlpack"), ("Mesh", "geometry"), ("sim", "this part")],
    )
    def test_names_of_warp_say_what_to_use(self, name, hint):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}': .*{hint}"):
            getattr(wp, name)
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'$"):
            wp.nonsense
