"""Arrays of the kernel language: tensors whose elements may be vectors and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

import bullet_core as bc
from bullet_core import _core

from . import _types
from ._host import refuse
from ._types import ArrayType, Compound, Scalar, Struct, StructInstance, element_type, is_compound, name_of, scalar_of


def _element(dtype) -> tuple[Any, tuple[int, ...]]:
    """The dtype of the scalars of an element, and how these are arranged."""
    if is_compound(dtype):
        return dtype.scalar.dtype, dtype.dims
    if isinstance(dtype, Struct):
        return bc.uint8, (dtype.numpy_dtype().itemsize,)
    return scalar_of(dtype).dtype, ()


def _bytes(data, struct: Struct):
    """Records as bytes in the last axis."""
    dtype = struct.numpy_dtype()
    if isinstance(data, (list, tuple)) and any(isinstance(item, StructInstance) for item in data):
        data = np.array([item._values() for item in data], dtype)
    data = np.asarray(data)
    if data.dtype != dtype:
        raise TypeError(f"an array of {struct.__name__} takes a list of them, or a NumPy array of {struct.__name__}.numpy_dtype(), got {data.dtype}")
    return data[..., None].view(np.uint8)


def _copies():
    # They are kernels, which are of arrays.
    from . import _copies

    return _copies


def _shape(shape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


class array(_core._lang.Array):
    """An array of numbers, vectors, matrices, quaternions, transforms or structs, of 1 to 4 dimensions.

    Without data it is the type of such arrays, for annotations: `x: array(dtype=vec3)`.

    Args:
        data: anything that `bullet_core.array` takes; its last axes are those of the elements.
        dtype: of the elements; without it that of the data.
        ndim: the number of dimensions, in annotations; of data it is checked.
        device: where it lies, as `bullet_core` names devices; without it where the data lies, and NumPy's on the default device.
        copy: whether the memory is its own. Without a copy it is the data's, if that is possible.
        requires_grad: whether a `Tape` computes its gradient.
    """

    dtype: Any

    def __new__(cls, data=None, dtype=None, ndim=None, device=None, copy=True, requires_grad=False, shape=None):
        if data is None:
            if shape is not None:
                return zeros(shape, dtype or float, device, requires_grad)
            return ArrayType(float if dtype is None else dtype, 1 if ndim is None else ndim)
        if isinstance(data, array):
            dtype = dtype or data.dtype
            data = data.tensor
        elif isinstance(dtype, Struct):
            data = _bytes(data, dtype)
        scalar, dims = (None, ()) if dtype is None else _element(dtype)
        if device is None and isinstance(data, np.ndarray):
            device = _core.default_device()
        make = bc.array if copy else bc.asarray
        tensor = make(data, dtype=scalar, device=device)
        if dtype is None:
            dtype = _types.SCALARS[str(tensor.dtype)]
        if tuple(tensor.shape[len(tensor.shape) - len(dims) :]) != dims:
            raise ValueError(f"an array of {name_of(dtype)} takes data of shape (.., {', '.join(map(str, dims))}), got {tuple(tensor.shape)}")
        self = cls._around(tensor, dtype, requires_grad)
        if ndim is not None and self.ndim != ndim:
            raise ValueError(f"expected data of {ndim} dimensions of {name_of(dtype)}, got {self.ndim}")
        return self

    def __class_getitem__(cls, dtype):
        return ArrayType(dtype, 1)

    @classmethod
    def _around(cls, tensor, dtype, requires_grad=False, of=None) -> array:
        self = super().__new__(cls, tensor, requires_grad, of, isinstance(dtype, Struct))
        self.dtype = element_type(dtype)
        if not 1 <= self.ndim <= 4:
            raise ValueError(f"arrays have 1 to 4 dimensions, not {self.ndim}")
        return self

    @property
    def _dims(self) -> tuple[int, ...]:
        return () if isinstance(self.dtype, Scalar) else _element(self.dtype)[1]

    @property
    def shape(self) -> tuple[int, ...]:
        shape = tuple(self.tensor.shape)
        return shape[: len(shape) - len(self._dims)]

    @property
    def ndim(self) -> int:
        return len(self.tensor.shape) - len(self._dims)

    @property
    def size(self) -> int:
        """The number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def device(self):
        return self.tensor.device

    @property
    def requires_grad(self) -> bool:
        """Whether a `Tape` computes its gradient."""
        return super().requires_grad

    @requires_grad.setter
    def requires_grad(self, _) -> None:
        raise AttributeError("requires_grad is said where an array is made: wp.array(a, requires_grad=True), or wp.clone(a, requires_grad=True)")

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie side by side, in order."""
        return self.tensor.is_contiguous()

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next, in each dimension."""
        tensor = self.tensor
        return tuple(stride * tensor.itemsize for stride in tensor.strides[: self.ndim])

    @property
    def grad(self) -> array | None:
        """The gradient that `Tape.backward` added up; None before there is one."""
        gradient = self._gradient
        return None if gradient is None else array._around(gradient, self.dtype)

    def numpy(self):
        """The elements as a NumPy array: the same memory on the CPU, else a copy. Of structs, records."""
        data = self.tensor.numpy() if str(self.device) == "cpu" else self.tensor.to("cpu").numpy()
        return data.view(self.dtype.numpy_dtype())[..., 0] if isinstance(self.dtype, Struct) else data

    def list(self) -> list:
        """The elements as a flat list."""
        if isinstance(self.dtype, Scalar):
            return self.tensor.reshape(-1).tolist()
        if isinstance(self.dtype, Struct):
            return [self.dtype.of_numpy(record) for record in self.numpy().reshape(-1)]
        return [self.dtype(*row) for row in self.tensor.reshape(-1, self.dtype.length()).tolist()]

    def to(self, device) -> array:
        """The array on this device: itself if it is there, else a copy."""
        tensor = self.tensor.to(device)
        if tensor.device == self.device:
            return self
        _copies().refuse_unrecorded(self)
        return array._around(tensor, self.dtype, self.requires_grad)

    def assign(self, data) -> None:
        """Overwrites all elements with data of the same shape. Of an array it is a `copy`, which a `Tape` remembers."""
        if isinstance(data, array):
            return _copies().copy(self, data)
        self._overwrite(data)

    def _overwrite(self, data) -> None:
        if isinstance(self.dtype, Struct) and not isinstance(data, array):
            data = _bytes(data, self.dtype)
        source = data.tensor if isinstance(data, array) else bc.asarray(data, dtype=self.tensor.dtype)
        if tuple(source.shape) != tuple(self.tensor.shape):
            raise ValueError(f"cannot assign data of shape {tuple(source.shape)} to {tuple(self.tensor.shape)}")
        self.tensor[...] = source.to(self.device)

    def fill_(self, value) -> None:
        """Sets all elements to a number, or to an element's value."""
        if isinstance(value, StructInstance):
            value = _bytes([value], self.dtype)[0]
            self.tensor[...] = bc.asarray(value, device=self.device)
            return
        self.tensor[...] = bc.asarray(value.numpy(), dtype=self.tensor.dtype, device=self.device) if isinstance(value, Compound) else value

    def zero_(self) -> None:
        """Sets all elements to 0."""
        self.fill_(0)

    def reshape(self, *shape) -> array:
        """The same elements in another shape, in the same memory."""
        shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return self._view(self.tensor.reshape(*shape, *self._dims))

    def transpose(self, axes=None) -> array:
        """The same memory with its dimensions in this order, or in the reverse one."""
        order = tuple(range(self.ndim))[::-1] if axes is None else tuple(axes)
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"the axes of an array of {self.ndim} dimensions are {tuple(range(self.ndim))} in some order, not {order}")
        return self._view(self.tensor.permute(*order, *range(self.ndim, len(self.tensor.shape))))

    def flatten(self) -> array:
        """All elements in one dimension."""
        return self.reshape(-1)

    def contiguous(self) -> array:
        """Itself if its elements lie side by side, else a copy."""
        return self._view(self.tensor.contiguous()) if self.tensor.is_contiguous() else _copies().clone(self)

    def __getitem__(self, index):
        """A part of it in the same memory, with that part of its gradient; by slices and integers. An element, if an integer
        is given for each dimension: a number, or a vector and the like."""
        items = index if isinstance(index, tuple) else (index,)
        if len([item for item in items if item is not Ellipsis]) > self.ndim:
            raise IndexError(f"too many indices: the array has {self.ndim} dimensions, got {len(items)}")
        if any(not isinstance(item, (slice, type(Ellipsis))) and not hasattr(item, "__index__") for item in items):
            raise TypeError("arrays are indexed by integers and slices; index .tensor or .numpy() otherwise")
        if any(item is Ellipsis for item in items):
            items += (slice(None),) * len(self._dims)
        part = self.tensor[items]
        if len(part.shape) == len(self._dims):
            if isinstance(self.dtype, Struct):
                return self.dtype.of_numpy(part.to("cpu").numpy().view(self.dtype.numpy_dtype())[0])
            return part.item() if isinstance(self.dtype, Scalar) else self.dtype(*part.reshape(-1).tolist())
        return self._view(part)

    def _view(self, tensor) -> array:
        return array._around(tensor, self.dtype, of=self)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return self.numpy().__array__(dtype, copy=copy) if dtype is not None or copy else self.numpy()

    def __dlpack__(self, **kwargs):
        return self.tensor.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __repr__(self):
        data = self.list() if isinstance(self.dtype, Struct) else self.tensor.tolist()
        return f"array({data}, dtype={name_of(self.dtype)}, device={str(self.device)!r})"

    def __reduce__(self):
        return _rebuilt, (self.tensor, _types.described(self.dtype), self.requires_grad)


def _rebuilt(tensor, description, requires_grad) -> array:
    return array._around(tensor, _types.of_description(description), requires_grad)


def _maker(fill):
    def make(shape, dtype=float, device=None, requires_grad=False, pinned=False) -> array:
        refuse("array", pinned=pinned)
        scalar, dims = _element(dtype)
        return array._around(fill((*_shape(shape), *dims), dtype=scalar, device=device), dtype, requires_grad)

    return make


zeros = _maker(bc.zeros)
zeros.__doc__ = "An array of zeros."
ones = _maker(bc.ones)
ones.__doc__ = "An array of ones."
empty = _maker(bc.empty)
empty.__doc__ = "An array whose elements are unspecified until they are written."


def full(shape, value, dtype=None, device=None, requires_grad=False) -> array:
    """An array of one value."""
    if dtype is None:
        dtype = type(value) if isinstance(value, (Compound, bool, int, float)) else _types.scalar_of(type(value))
    made = empty(shape, dtype, device, requires_grad)
    made.fill_(value)
    return made


def _like(make):
    def made(other: array, device=None, requires_grad: bool | None = None, pinned: bool = False) -> array:
        refuse("array", pinned=pinned)
        device = other.device if device is None else device
        return make(other.shape, other.dtype, device, other.requires_grad if requires_grad is None else requires_grad)

    return made


zeros_like = _like(zeros)
zeros_like.__doc__ = "Zeros of the shape and dtype of another array, and where it lies unless a device is named."
ones_like = _like(ones)
ones_like.__doc__ = "Ones of the shape and dtype of another array, and where it lies unless a device is named."
empty_like = _like(empty)
empty_like.__doc__ = "An array of the shape and dtype of another, its elements unspecified."


def full_like(other: array, value, device=None, requires_grad: bool | None = None) -> array:
    """An array of the shape and dtype of another, full of one value."""
    made = empty_like(other, device, requires_grad)
    made.fill_(value)
    return made


def from_numpy(data, dtype=None, device=None, requires_grad=False) -> array:
    """An array over the memory of a NumPy array; a copy where the device, by default the default device, is another."""
    return array(data, dtype=dtype, device=device, copy=False, requires_grad=requires_grad)
