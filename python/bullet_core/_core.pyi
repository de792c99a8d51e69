"""The extension. Written by make_stubs.py; do not edit."""

import builtins
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, TypeAlias, final

import numpy

# By other names, as `bool` is a dtype here and `dtype` is an attribute, too.
_bool: TypeAlias = builtins.bool
_dtype: TypeAlias = dtype
_Number: TypeAlias = _bool | int | float
#: What an operation takes beside a tensor.
_Operand: TypeAlias = Tensor | _Number
_Nested: TypeAlias = _Number | Sequence[_Nested]
_Array: TypeAlias = Tensor | numpy.ndarray[Any, Any] | _Nested | Any
_DType: TypeAlias = _dtype | str | type[_bool] | type[int] | type[float] | numpy.dtype[Any]
_Device: TypeAlias = Device | str
_Axes: TypeAlias = int | Sequence[int] | None
_Shape: TypeAlias = int | Sequence[int]
_Index: TypeAlias = int | slice | EllipsisType | None | Tensor | numpy.ndarray[Any, Any] | Sequence[int]
_Key: TypeAlias = _Index | tuple[_Index, ...]


class UniqueAllResult(NamedTuple):
    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor

class UniqueCountsResult(NamedTuple):
    values: Tensor
    counts: Tensor

class UniqueInverseResult(NamedTuple):
    values: Tensor
    inverse_indices: Tensor

@final
class Device:
    """Where tensors lie: `cpu`, `cuda:0`, .. ."""

    def __new__(cls, name: _Device) -> Device: ...

    def __eq__(self, value: object, /) -> _bool:
        """Return self==value."""

    def __hash__(self) -> int:
        """Return hash(self)."""

    def __ne__(self, value: object, /) -> _bool:
        """Return self!=value."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Helper for pickle."""

    @property
    def name(self) -> str:
        """The product's name."""

    def synchronize(self) -> None:
        """Waits for all work on this device, and raises what its kernels found wrong."""

    @property
    def type(self) -> str:
        """`cpu` or `cuda`."""

@final
class Tensor:
    """An n-dimensional array on a device, with its place on the tape of gradients.

    Made by `array`, `asarray`, `zeros` and others; `Tensor(obj)` is `array(obj)`."""

    def __new__(cls, obj: _Array, *, dtype: _DType | None = ..., device: _Device | None = ..., requires_grad: _bool = ...) -> Tensor: ...

    @property
    def T(self) -> Tensor:
        """The tensor with its axes in reverse order."""

    def __abs__(self) -> Tensor:
        """abs(self)"""

    def __add__(self, value: _Operand, /) -> Tensor:
        """Return self+value."""

    def __and__(self, value: _Operand, /) -> Tensor:
        """Return self&value."""

    def __array__(self, /, dtype: _DType | None = ..., *, copy: _bool | None = ...) -> numpy.ndarray[Any, Any]:
        """The NumPy array of the same memory, or of a copy if `copy` is True or the dtype is another one."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        ...

    def __array_namespace__(self, /, *, api_version: str | None = ...) -> Any:
        """The functions of the array API for tensors: this package."""

    __array_ufunc__: None

    def __bool__(self) -> _bool:
        """True if self else False"""

    def __complex__(self) -> complex:
        ...

    def __contains__(self, key: _Operand, /) -> _bool:
        """Return key in self."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What other libraries need to know of memory on a GPU."""

    def __delitem__(self, key: _Key, /) -> None:
        """Delete self[key]."""

    def __divmod__(self, value: _Operand, /) -> tuple[Tensor, Tensor]:
        """Return divmod(self, value)."""

    def __dlpack__(self, /, *, stream: int | None = ..., max_version: tuple[int, int] | None = ..., dl_device: tuple[int, int] | None = ..., copy: _bool | None = ...) -> Any:
        ...

    def __dlpack_device__(self) -> tuple[int, int]:
        ...

    def __eq__(self, value: _Operand, /) -> Tensor:  # type: ignore[override]
        """Return self==value."""

    def __float__(self) -> float:
        """float(self)"""

    def __floordiv__(self, value: _Operand, /) -> Tensor:
        """Return self//value."""

    def __format__(self, /, spec: str) -> str:
        """Default object formatter."""

    def __ge__(self, value: _Operand, /) -> Tensor:
        """Return self>=value."""

    def __getitem__(self, key: _Key, /) -> Tensor:
        """Return self[key]."""

    def __gt__(self, value: _Operand, /) -> Tensor:
        """Return self>value."""

    def __hash__(self) -> int:
        """Return hash(self)."""

    def __iadd__(self, value: _Operand, /) -> Tensor:
        """Return self+=value."""

    def __iand__(self, value: _Operand, /) -> Tensor:
        """Return self&=value."""

    def __ifloordiv__(self, value: _Operand, /) -> Tensor:
        """Return self//=value."""

    def __ilshift__(self, value: _Operand, /) -> Tensor:
        """Return self<<=value."""

    def __imatmul__(self, value: _Operand, /) -> Tensor:
        """Return self@=value."""

    def __imod__(self, value: _Operand, /) -> Tensor:
        """Return self%=value."""

    def __imul__(self, value: _Operand, /) -> Tensor:
        """Return self*=value."""

    def __index__(self) -> int:
        """Return self converted to an integer, if self is suitable for use as an index into a list."""

    def __int__(self) -> int:
        """int(self)"""

    def __invert__(self) -> Tensor:
        """~self"""

    def __ior__(self, value: _Operand, /) -> Tensor:
        """Return self|=value."""

    def __ipow__(self, value: _Operand, /) -> Tensor:  # type: ignore[misc]
        """Return self**=value."""

    def __irshift__(self, value: _Operand, /) -> Tensor:
        """Return self>>=value."""

    def __isub__(self, value: _Operand, /) -> Tensor:
        """Return self-=value."""

    def __iter__(self) -> Iterator[Tensor]:
        """Implement iter(self)."""

    def __itruediv__(self, value: _Operand, /) -> Tensor:
        """Return self/=value."""

    def __ixor__(self, value: _Operand, /) -> Tensor:
        """Return self^=value."""

    def __le__(self, value: _Operand, /) -> Tensor:
        """Return self<=value."""

    def __len__(self) -> int:
        """Return len(self)."""

    def __lshift__(self, value: _Operand, /) -> Tensor:
        """Return self<<value."""

    def __lt__(self, value: _Operand, /) -> Tensor:
        """Return self<value."""

    def __matmul__(self, value: _Operand, /) -> Tensor:
        """Return self@value."""

    def __mod__(self, value: _Operand, /) -> Tensor:
        """Return self%value."""

    def __mul__(self, value: _Operand, /) -> Tensor:
        """Return self*value."""

    def __ne__(self, value: _Operand, /) -> Tensor:  # type: ignore[override]
        """Return self!=value."""

    def __neg__(self) -> Tensor:
        """-self"""

    def __or__(self, value: _Operand, /) -> Tensor:
        """Return self|value."""

    def __pos__(self) -> Tensor:
        """+self"""

    def __pow__(self, value: _Operand, mod: None = ..., /) -> Tensor:
        """Return pow(self, value, mod)."""

    def __radd__(self, value: _Operand, /) -> Tensor:
        """Return value+self."""

    def __rand__(self, value: _Operand, /) -> Tensor:
        """Return value&self."""

    def __rdivmod__(self, value: _Operand, /) -> tuple[Tensor, Tensor]:
        """Return divmod(value, self)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Helper for pickle."""

    def __rfloordiv__(self, value: _Operand, /) -> Tensor:
        """Return value//self."""

    def __rlshift__(self, value: _Operand, /) -> Tensor:
        """Return value<<self."""

    def __rmatmul__(self, value: _Operand, /) -> Tensor:
        """Return value@self."""

    def __rmod__(self, value: _Operand, /) -> Tensor:
        """Return value%self."""

    def __rmul__(self, value: _Operand, /) -> Tensor:
        """Return value*self."""

    def __ror__(self, value: _Operand, /) -> Tensor:
        """Return value|self."""

    def __round__(self, /, ndigits: int | None = ...) -> Tensor:
        ...

    def __rpow__(self, value: _Operand, mod: None = ..., /) -> Tensor:
        """Return pow(value, self, mod)."""

    def __rrshift__(self, value: _Operand, /) -> Tensor:
        """Return value>>self."""

    def __rshift__(self, value: _Operand, /) -> Tensor:
        """Return self>>value."""

    def __rsub__(self, value: _Operand, /) -> Tensor:
        """Return value-self."""

    def __rtruediv__(self, value: _Operand, /) -> Tensor:
        """Return value/self."""

    def __rxor__(self, value: _Operand, /) -> Tensor:
        """Return value^self."""

    def __setitem__(self, key: _Key, value: _Array, /) -> None:
        """Set self[key] to value."""

    def __sub__(self, value: _Operand, /) -> Tensor:
        """Return self-value."""

    def __truediv__(self, value: _Operand, /) -> Tensor:
        """Return self/value."""

    def __xor__(self, value: _Operand, /) -> Tensor:
        """Return self^value."""

    @classmethod
    def _restore(cls, /, bytes: bytes, dtype: _dtype, shape: _Shape, device: _Device | None, requires_grad: _bool) -> Tensor:
        """The tensor that was pickled."""

    def all(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Whether no element over axes is zero; over all without `axis`."""

    def any(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Whether an element over axes is not zero; over all without `axis`."""

    def argmax(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Index of the largest element along an axis; in the flattened tensor without `axis`."""

    def argmin(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Index of the smallest element along an axis; in the flattened tensor without `axis`."""

    def argsort(self, /, axis: _Axes = ..., *, descending: _bool = ..., stable: _bool = ...) -> Tensor:
        """The indices that put its elements in order along an axis: see the function `sort`."""

    def astype(self, dtype: _DType, /, *, copy: _bool = ...) -> Tensor:
        """Its elements as another dtype: a copy, unless `copy` is False and nothing changes."""

    def backward(self, /, gradient: Tensor | None = ...) -> None:
        """Adds the gradient of this scalar to the `grad` of every tensor it was computed from that requires one; of a tensor
        that is no scalar, with `gradient` as the gradient of it."""

    def clip(self, /, min: _Operand | None = ..., max: _Operand | None = ..., out: None = ...) -> Tensor:
        """Elements no less than `min` and no more than `max`; either may be None."""

    def conj(self) -> Tensor:
        """The complex conjugate of each element: a copy, as there are no complex numbers."""

    def contiguous(self) -> Tensor:
        """Itself if it is row-major, else a copy that is."""

    def copy(self) -> Tensor:
        """A copy, row-major."""

    def copy_(self, /, source: _Array) -> Tensor:
        """Overwrites the elements with those of another tensor, or of an array or lists, which are broadcast."""

    def cumprod(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ...) -> Tensor:
        """Running products along an axis; along the flattened tensor without `axis`."""

    def cumsum(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ...) -> Tensor:
        """Running sums along an axis; along the flattened tensor without `axis`."""

    def detach(self) -> Tensor:
        """The same memory, cut off the tape."""

    @property
    def device(self) -> Device:
        """Where the tensor lies."""

    def dot(self, /, other: _Operand) -> Tensor:
        """The product with another tensor: `@`, and with a number `*`."""

    @property
    def dtype(self) -> _dtype:
        """Type of the elements."""

    def fill(self, /, value: _Operand) -> None:
        """Overwrites every element with a number."""

    def fill_(self, /, value: _Operand) -> Tensor:
        """Overwrites every element with a number."""

    def flatten(self) -> Tensor:
        """A copy of the elements along one axis."""

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has added up, or None. Set to None to begin anew."""

    @grad.setter
    def grad(self, value: Tensor | None) -> None: ...

    @property
    def imag(self) -> Tensor:
        """The imaginary part of each element: zeros, as there are no complex numbers."""

    def is_contiguous(self) -> _bool:
        """Whether the elements lie one after the other in row-major order."""

    def item(self, /, *args: Any) -> _Number:
        """The value of the one element, or of the one at these indices, as a Python number."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""

    @property
    def mT(self) -> Tensor:
        """The tensor with its last two axes exchanged."""

    def max(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Largest element over axes; over all without `axis`."""

    def mean(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Mean over axes; over all without `axis`."""

    def min(self, /, axis: _Axes = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Smallest element over axes; over all without `axis`."""

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def nonzero(self) -> tuple[Tensor, ...]:
        """The indices of the elements that are not zero: a tensor for each axis."""

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """The NumPy array of the same memory; the tensor is on the CPU, and does not require gradients."""

    def permute(self, /, *axes: Any) -> Tensor:
        """A view with the axes in this order; in reverse order without arguments."""

    def prod(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Product over axes; over all without `axis`."""

    def ravel(self) -> Tensor:
        """The elements along one axis: a view where that is possible."""

    @property
    def real(self) -> Tensor:
        """The real part of each element: itself, as there are no complex numbers."""

    def repeat(self, /, repeats: _Array, axis: _Axes = ...) -> Tensor:
        """Elements several times in a row along an axis; of the flattened tensor without `axis`."""

    @property
    def requires_grad(self) -> _bool:
        """Whether ops on it are recorded, and `backward` fills its `grad`."""

    @requires_grad.setter
    def requires_grad(self, value: _bool) -> None: ...

    def reshape(self, /, *shape: Any) -> Tensor:
        """The same elements under another shape, one length of which may be -1: a view where that is possible."""

    def round(self, /, decimals: int = ..., out: None = ...) -> Tensor:
        """Each element rounded to so many decimals, ties to even."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def size(self) -> int:
        """Number of elements."""

    def sort(self, /, axis: _Axes = ..., *, descending: _bool = ..., stable: _bool = ...) -> None:
        """Puts its elements in order along an axis, in place; the function `sort` makes a new tensor."""

    def squeeze(self, /, axis: _Axes = ...) -> Tensor:
        """Without axes of length 1: these, or all of them."""

    def std(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ..., ddof: float | None = ..., *, correction: float | None = ..., keepdims: _bool = ...) -> Tensor:
        """Standard deviation over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one to the next along each axis."""

    def sum(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ..., *, keepdims: _bool = ...) -> Tensor:
        """Sum over axes; over all without `axis`."""

    def swapaxes(self, /, axis1: int, axis2: int) -> Tensor:
        """A view with two axes exchanged."""

    def take(self, /, indices: _Array, axis: _Axes = ...) -> Tensor:
        """Slices along an axis at indices; elements of the flattened tensor without `axis`."""

    def to(self, /, *args: Any) -> Tensor:
        """On another device, or as another dtype, or both; itself if nothing changes."""

    def to_device(self, device: _Device, /, *, stream: int | None = ...) -> Tensor:
        """On another device."""

    def tobytes(self) -> bytes:
        """The bytes of the elements, in row-major order."""

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""

    def transpose(self, /, *axes: _Axes) -> Tensor:
        """A view with two axes exchanged, for two numbers; with the axes in this order, for one sequence or more numbers; in
        reverse order without arguments."""

    def var(self, /, axis: _Axes = ..., dtype: _DType | None = ..., out: None = ..., ddof: float | None = ..., *, correction: float | None = ..., keepdims: _bool = ...) -> Tensor:
        """Variance over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements."""

@final
class __array_namespace_info__:
    """What this library can do, for programs that use any array library."""

    def __new__(cls) -> __array_namespace_info__: ...

    def capabilities(self) -> dict[str, _bool | int | None]:
        """Which optional parts of the standard there are."""

    def default_device(self) -> Device:
        """The device of new tensors."""

    def default_dtypes(self, /, *, device: _Device | None = ...) -> dict[str, _dtype]:
        """The dtypes of new tensors, by kind."""

    def devices(self) -> list[Device]:
        """The devices that tensors can be on."""

    def dtypes(self, /, *, device: _Device | None = ..., kind: _DType | str | Sequence[Any] | None = ...) -> dict[str, _dtype]:
        """The dtypes of the standard that there are, of a kind or of one of several; there are no complex ones."""

@final
class dtype:
    """The type of a tensor's elements."""

    def __new__(cls, of: _DType) -> dtype: ...

    def __eq__(self, value: object, /) -> _bool:
        """Return self==value."""

    def __hash__(self) -> int:
        """Return hash(self)."""

    def __ne__(self, value: object, /) -> _bool:
        """Return self!=value."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Helper for pickle."""

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """NumPy's dtype of that name, by which NumPy takes it for one."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""

    @property
    def kind(self) -> str:
        """What kind it is, in NumPy's letters: `b`, `u`, `i` or `f`."""

    @property
    def name(self) -> str:
        """Its name, as NumPy has it."""

@final
class finfo:
    """Limits of a floating-point dtype."""

    def __new__(cls, type: _DType | Tensor, /) -> finfo: ...

    def __reduce__(self) -> tuple[Any, ...]:
        """Helper for pickle."""

    @property
    def bits(self) -> int:
        """Bits of an element."""

    @property
    def dtype(self) -> _dtype:
        """The dtype itself."""

    @property
    def eps(self) -> float:
        """The gap between 1 and the next larger number."""

    @property
    def max(self) -> float:
        """The largest number."""

    @property
    def min(self) -> float:
        """The smallest number."""

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number of full precision."""

@final
class iinfo:
    """Limits of an integer dtype."""

    def __new__(cls, type: _DType | Tensor, /) -> iinfo: ...

    def __reduce__(self) -> tuple[Any, ...]:
        """Helper for pickle."""

    @property
    def bits(self) -> int:
        """Bits of an element."""

    @property
    def dtype(self) -> _dtype:
        """The dtype itself."""

    @property
    def max(self) -> int:
        """The largest number."""

    @property
    def min(self) -> int:
        """The smallest number."""

__version__: str

def _custom(inputs: list[Tensor], outputs: list[Tensor], saved: list[Tensor], backward: Callable[[list[Tensor | None], list[Tensor]], Sequence[Tensor | None]]) -> list[Tensor]:
    """`outputs`, which Python computed of `inputs` without recording, as results of one function whose backward is `backward`."""

_lang: Any

_nn: Any

def _run_command(args: Any) -> int:
    """Does what the command line says; returns the exit code."""

def abs(x: Tensor, /) -> Tensor:
    """Absolute value of each element."""

def acos(x: Tensor, /) -> Tensor:
    """Inverse cosine of each element, in radians."""

def acosh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic cosine of each element."""

def add(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Sum of elements."""

def all(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Whether no element over axes is zero; over all without `axis`."""

def any(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Whether an element over axes is not zero; over all without `axis`."""

def arange(start: _Number, /, stop: _Number | None = ..., step: _Number | None = ..., dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """`start, start + step, ..` up to, and without, `stop`; int64 if all are integers, else float32."""

def argmax(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Index of the largest element along an axis; in the flattened tensor without `axis`."""

def argmin(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Index of the smallest element along an axis; in the flattened tensor without `axis`."""

def argsort(x: Tensor, /, axis: _Axes = ..., *, descending: _bool = ..., stable: _bool = ...) -> Tensor:
    """The indices that put elements in order along an axis: see `sort`."""

def array(obj: _Array, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """As `asarray`, always of its own memory."""

def asarray(obj: _Array, /, dtype: _DType | None = ..., *, device: _Device | None = ..., copy: _bool | None = ...) -> Tensor:
    """A tensor of nested lists, numbers, an array or a tensor; memory is shared where `copy` is not True and dtype and device
    are those of `obj`. Without a dtype, floats of Python become float32."""

def asin(x: Tensor, /) -> Tensor:
    """Inverse sine of each element, in radians."""

def asinh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic sine of each element."""

def astype(x: Tensor, dtype: _DType, /, *, copy: _bool = ..., device: _Device | None = ...) -> Tensor:
    """The elements as another dtype: a copy, unless `copy` is False and nothing changes."""

def atan(x: Tensor, /) -> Tensor:
    """Inverse tangent of each element, in radians."""

def atan2(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Angle of the points whose ordinates are the first and whose abscissas are the second elements."""

def atanh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic tangent of each element."""

bfloat16: _dtype

def bitwise_and(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Bits that both integers have."""

def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit of each integer inverted; bools negated."""

def bitwise_left_shift(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Bits of the first moved up by as many places as the second says."""

def bitwise_or(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Bits that either integer has."""

def bitwise_right_shift(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Bits of the first moved down by as many places as the second says."""

def bitwise_xor(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Bits that one of the integers has."""

bool: _dtype

def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """Views of all tensors, of the shape that they broadcast to."""

def broadcast_to(x: Tensor, /, shape: _Shape) -> Tensor:
    """A view that repeats axes of length 1, and new leading ones, to fill a shape."""

def can_cast(from_: _DType | Tensor, to: _DType, /) -> _bool:
    """Whether a dtype, or that of a tensor, becomes another one by promotion."""

def ceil(x: Tensor, /) -> Tensor:
    """Smallest integer not below each element."""

def clip(x: Tensor, /, min: _Operand | None = ..., max: _Operand | None = ...) -> Tensor:
    """Elements no less than `min` and no more than `max`, which goes first; either may be None."""

def concat(arrays: Sequence[Tensor], /, axis: _Axes = ...) -> Tensor:
    """Tensors side by side along an axis; flattened ones without."""

def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate of each element: a copy, as there are no complex numbers."""

def copysign(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Magnitudes of the first with signs of the second."""

def cos(x: Tensor, /) -> Tensor:
    """Cosine of each element, in radians."""

def cosh(x: Tensor, /) -> Tensor:
    """Hyperbolic cosine of each element."""

def count_nonzero(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Number of elements over axes that are not zero; over all without `axis`."""

def cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int = ..., label_smoothing: float = ...) -> Tensor:
    """Mean cross-entropy of logits (.., classes) against class indices (..), those equal to `ignore_index` left out."""

def cuda_is_available() -> _bool:
    """Whether there is a GPU that can be used."""

def cumulative_prod(x: Tensor, /, *, axis: _Axes = ..., dtype: _DType | None = ..., include_initial: _bool = ...) -> Tensor:
    """Running products along an axis."""

def cumulative_sum(x: Tensor, /, *, axis: _Axes = ..., dtype: _DType | None = ..., include_initial: _bool = ...) -> Tensor:
    """Running sums along an axis."""

def default_device() -> Device:
    """The device that tensors are made on where none is named: as `BULLET_DEVICE` says (`cpu`, `cuda:0`, or `auto` for a GPU if
    there is one), the CPU without that."""

def diff(x: Tensor, /, *, axis: _Axes = ..., n: int = ..., prepend: Tensor | None = ..., append: Tensor | None = ...) -> Tensor:
    """Differences of neighbours along an axis, taken `n` times, of the tensor with `prepend` before and `append` behind it."""

def divide(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Quotient of elements; integers give floats."""

def embedding(weight: Tensor, indices: Tensor) -> Tensor:
    """Rows of `weight` at `indices`."""

def empty(shape: _Shape, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """A tensor of a shape whose elements are to be overwritten; they are zero."""

def empty_like(x: Tensor, /, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """A tensor of the shape, dtype and device of another, whose elements are to be overwritten; they are zero."""

def equal(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements are equal."""

def erf(x: Tensor, /) -> Tensor:
    """Error function of each element."""

def exp(x: Tensor, /) -> Tensor:
    """e to the power of each element."""

def expand_dims(x: Tensor, /, axis: _Axes = ...) -> Tensor:
    """A view with a new axis of length 1."""

def expm1(x: Tensor, /) -> Tensor:
    """e to the power of each element, minus 1, with all its digits near 0."""

def eye(n_rows: int, n_cols: int | None = ..., /, *, k: int = ..., dtype: _DType | None = ..., device: _Device | None = ...) -> Tensor:
    """Ones on a diagonal of a matrix, zeros elsewhere."""

def flip(x: Tensor, /, axis: _Axes = ...) -> Tensor:
    """A view with elements in reverse order along axes; along all without `axis`."""

float16: _dtype

float32: _dtype

float64: _dtype

def floor(x: Tensor, /) -> Tensor:
    """Largest integer not above each element."""

def floor_divide(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Largest integer not above the quotient."""

def from_dlpack(obj: _Array, /, *, device: _Device | None = ..., copy: _bool | None = ...) -> Tensor:
    """A tensor that shares the memory of any object with `__dlpack__`, on the CPU or a GPU."""

def from_numpy(array: numpy.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the memory of a NumPy array, with its shape, strides and dtype."""

def full(shape: _Shape, fill_value: _Number, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """One value in every element of a shape; of the dtype that the value alone would have, if none is named."""

def full_like(x: Tensor, /, fill_value: _Number, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """One value in every element, of the shape, dtype and device of another tensor."""

def gelu(x: Tensor, /, *, approximate: str = ...) -> Tensor:
    """GELU: x * Phi(x), Phi the normal distribution; with `approximate="tanh"` as GPT-2 computes it."""

def greater(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements of the first are larger."""

def greater_equal(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements of the first are not smaller."""

def host_copies() -> int:
    """How often tensors were copied from a GPU to the host since the process began."""

def hypot(x1: _Operand, x2: _Operand, /) -> Tensor:
    """sqrt(x1^2 + x2^2), without overflow in between."""

def imag(x: Tensor, /) -> Tensor:
    """The imaginary part of each element: zeros, as there are no complex numbers."""

int16: _dtype

int32: _dtype

int64: _dtype

int8: _dtype

def is_grad_enabled() -> _bool:
    """Whether ops of this thread are recorded for backward."""

def isdtype(dtype: _DType, kind: _DType | str | Sequence[Any] | None) -> _bool:
    """Whether a dtype is of a kind: a dtype, 'bool', 'signed integer', 'unsigned integer', 'integral', 'real floating',
    'complex floating', 'numeric', or a tuple of such, one of which suffices."""

def isfinite(x: Tensor, /) -> Tensor:
    """Whether each element is neither infinite nor NaN."""

def isinf(x: Tensor, /) -> Tensor:
    """Whether each element is infinite."""

def isnan(x: Tensor, /) -> Tensor:
    """Whether each element is NaN."""

def layernorm(x: Tensor, weight: Tensor | None = ..., bias: Tensor | None = ..., eps: float = ...) -> Tensor:
    """Layer normalisation along the last axis (Ba et al. 2016), then times `weight` plus `bias`."""

def less(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements of the first are smaller."""

def less_equal(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements of the first are not larger."""

def linear(x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, activation: str | None = ...) -> Tensor:
    """activation(x W^T + b), in one pass; `activation` is None, "relu", "gelu", "gelu_tanh" or "silu"."""

def linspace(start: _Number, stop: _Number, /, num: int = ..., *, dtype: _DType | None = ..., device: _Device | None = ..., endpoint: _bool = ...) -> Tensor:
    """`num` numbers from `start` to `stop`, evenly spaced."""

def log(x: Tensor, /) -> Tensor:
    """Natural logarithm of each element."""

def log10(x: Tensor, /) -> Tensor:
    """Logarithm to base 10 of each element."""

def log1p(x: Tensor, /) -> Tensor:
    """Natural logarithm of 1 plus each element, with all its digits near 0."""

def log2(x: Tensor, /) -> Tensor:
    """Logarithm to base 2 of each element."""

def log_softmax(x: Tensor, axis: _Axes = ...) -> Tensor:
    """Logarithm of the softmax along an axis."""

def logaddexp(x1: _Operand, x2: _Operand, /) -> Tensor:
    """log(exp(x1) + exp(x2)), without overflow in between."""

def logical_and(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether both elements are not zero."""

def logical_not(x: Tensor, /) -> Tensor:
    """Whether each element is zero."""

def logical_or(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether either element is not zero."""

def logical_xor(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether one of the elements is not zero, and the other is."""

def matmul(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast, dtypes are promoted."""

def matrix_transpose(x: Tensor, /) -> Tensor:
    """A view of matrices with the last two axes exchanged."""

def max(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Largest element over axes; over all without `axis`."""

def maximum(x1: _Operand, x2: _Operand, /) -> Tensor:
    """The larger of two elements; NaN if either is."""

def mean(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Mean over axes; over all without `axis`."""

def memory_stats(device: _Device | None = ...) -> dict[str, int]:
    """What the memory of a device is used for, in bytes: `used` by tensors, `cached` for the next ones, `peak` of the first."""

def meshgrid(*arrays: Tensor, indexing: str = ...) -> list[Tensor]:
    """Coordinates of a grid, of the coordinates along each axis; with `indexing='xy'` the first two axes are exchanged."""

def min(x: Tensor, /, axis: _Axes = ..., *, keepdims: _bool = ...) -> Tensor:
    """Smallest element over axes; over all without `axis`."""

def minimum(x1: _Operand, x2: _Operand, /) -> Tensor:
    """The smaller of two elements; NaN if either is."""

def moveaxis(x: Tensor, source: _Axes, destination: _Axes, /) -> Tensor:
    """A view with axes elsewhere, the others in their order."""

def multiply(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Product of elements."""

def negative(x: Tensor, /) -> Tensor:
    """Negative of each element."""

def nextafter(x1: _Operand, x2: _Operand, /) -> Tensor:
    """The number next to the first, towards the second."""

def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not zero: a tensor for each axis."""

def not_equal(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Whether elements differ."""

def ones(shape: _Shape, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """Ones of a shape; float32 if no dtype is named."""

def ones_like(x: Tensor, /, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """Ones of the shape, dtype and device of another tensor."""

def permute_dims(x: Tensor, /, axes: _Axes) -> Tensor:
    """A view with the axes in this order."""

def positive(x: Tensor, /) -> Tensor:
    """A copy."""

def pow(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Elements of the first to the power of those of the second."""

def prod(x: Tensor, /, axis: _Axes = ..., dtype: _DType | None = ..., *, keepdims: _bool = ...) -> Tensor:
    """Product over axes; over all without `axis`. Integers multiply in int64 or uint64."""

def randn(shape: _Shape, *, seed: int = ..., dtype: _DType | None = ..., device: _Device | None = ...) -> Tensor:
    """Standard normal numbers: a function of shape, dtype and seed."""

def real(x: Tensor, /) -> Tensor:
    """The real part of each element: a copy, as there are no complex numbers."""

def reciprocal(x: Tensor, /) -> Tensor:
    """1 / x of each element."""

def relu(x: Tensor, /) -> Tensor:
    """max(x, 0) of each element."""

def remainder(x1: _Operand, x2: _Operand, /) -> Tensor:
    """What the floor of the quotient leaves, with the sign of the second."""

def repeat(x: Tensor, repeats: _Array, /, axis: _Axes = ...) -> Tensor:
    """Elements several times in a row along an axis; of the flattened tensor without `axis`."""

def reshape(x: Tensor, /, shape: _Shape, *, copy: _bool | None = ...) -> Tensor:
    """The same elements under another shape, one length of which may be -1. A view where that is possible: with `copy` True
    never, with False an error where it is not."""

def result_type(*arrays_and_dtypes: Tensor | _DType | _Number) -> _dtype:
    """The dtype of a result of these tensors, dtypes and Python numbers together."""

def rmsnorm(x: Tensor, weight: Tensor | None = ..., eps: float = ...) -> Tensor:
    """Root-mean-square normalisation along the last axis (Zhang and Sennrich 2019), then times `weight`."""

def roll(x: Tensor, /, shift: _Shape, axis: _Axes = ...) -> Tensor:
    """Elements moved along axes, those beyond an end coming in at the other; all axes as one without `axis`."""

def round(x: Tensor, /, decimals: int = ...) -> Tensor:
    """Each element rounded to so many decimals (tens if negative), ties to even, as NumPy does it: scaled, rounded and scaled back."""

def rsqrt(x: Tensor, /) -> Tensor:
    """1 / sqrt(x) of each element."""

def searchsorted(x1: _Operand, x2: _Operand, /, side: str = ..., *, sorter: Tensor | None = ...) -> Tensor:
    """Where elements of `x2` go into `x1`, which ascends or is put in order by `sorter`: before its equals, or behind them
    with `side='right'`."""

def set_default_device(device: _Device) -> Device:
    """Says on which device tensors are made where none is named; returns the one before."""

def set_grad_enabled(enabled: _bool) -> _bool:
    """Says whether ops of this thread are recorded for backward; returns what was before."""

def sigmoid(x: Tensor, /) -> Tensor:
    """1 / (1 + exp(-x)) of each element."""

def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1 by the sign of each element."""

def signbit(x: Tensor, /) -> Tensor:
    """Whether the sign bit of each element is set."""

def silu(x: Tensor, /) -> Tensor:
    """x * sigmoid(x) of each element."""

def sin(x: Tensor, /) -> Tensor:
    """Sine of each element, in radians."""

def sinh(x: Tensor, /) -> Tensor:
    """Hyperbolic sine of each element."""

def softmax(x: Tensor, axis: _Axes = ...) -> Tensor:
    """Softmax along an axis."""

def sort(x: Tensor, /, axis: _Axes = ..., *, descending: _bool = ..., stable: _bool = ...) -> Tensor:
    """Elements in order along an axis. Equals keep their order in either direction; NaN is last."""

def sqrt(x: Tensor, /) -> Tensor:
    """Square root of each element."""

def square(x: Tensor, /) -> Tensor:
    """x * x of each element."""

def squeeze(x: Tensor, /, axis: _Axes = ...) -> Tensor:
    """A view without axes of length 1: these, or all of them."""

def stack(arrays: Sequence[Tensor], /, axis: _Axes = ...) -> Tensor:
    """Tensors of one shape side by side along a new axis."""

def std(x: Tensor, /, axis: _Axes = ..., *, correction: float | None = ..., keepdims: _bool = ..., ddof: float | None = ...) -> Tensor:
    """Standard deviation over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements."""

def subtract(x1: _Operand, x2: _Operand, /) -> Tensor:
    """Difference of elements."""

def sum(x: Tensor, /, axis: _Axes = ..., dtype: _DType | None = ..., *, keepdims: _bool = ...) -> Tensor:
    """Sum over axes; over all without `axis`. Integers add up in int64 or uint64."""

def take(x: Tensor, indices: _Array, /, axis: _Axes = ...) -> Tensor:
    """Slices along an axis at indices, which count from the end if negative; of a vector without `axis`."""

def take_along_axis(x: Tensor, indices: Tensor, /, axis: _Axes = ...) -> Tensor:
    """Elements picked along an axis by a tensor of indices with as many axes."""

def tan(x: Tensor, /) -> Tensor:
    """Tangent of each element, in radians."""

def tanh(x: Tensor, /) -> Tensor:
    """Hyperbolic tangent of each element."""

def tensordot(x1: _Operand, x2: _Operand, /, axes: int | tuple[Sequence[int], Sequence[int]] = ...) -> Tensor:
    """Sum over products of elements along pairs of axes: `axes` of the last and first, or two lists of axes."""

def tile(x: Tensor, repetitions: Sequence[int], /) -> Tensor:
    """The tensor several times side by side along each axis."""

def tril(x: Tensor, /, k: int = ...) -> Tensor:
    """Matrices with zeros above the `k`-th diagonal."""

def triu(x: Tensor, /, k: int = ...) -> Tensor:
    """Matrices with zeros below the `k`-th diagonal."""

def trunc(x: Tensor, /) -> Tensor:
    """Integer part of each element."""

uint16: _dtype

uint32: _dtype

uint64: _dtype

uint8: _dtype

def uniform(shape: _Shape, *, low: float = ..., high: float = ..., seed: int = ..., dtype: _DType | None = ..., device: _Device | None = ...) -> Tensor:
    """Numbers from `low` to `high`, all as likely: a function of shape, dtype and seed."""

def unique_all(x: Tensor, /) -> UniqueAllResult:
    """The distinct elements, in ascending order, with the index of the first of each, which of them each element is, and how
    often each is there. Each NaN is distinct."""

def unique_counts(x: Tensor, /) -> UniqueCountsResult:
    """The distinct elements, in ascending order, and how often each is there."""

def unique_inverse(x: Tensor, /) -> UniqueInverseResult:
    """The distinct elements, in ascending order, and which of them each element is."""

def unique_values(x: Tensor, /) -> Tensor:
    """The distinct elements, in ascending order."""

def unstack(x: Tensor, /, *, axis: _Axes = ...) -> tuple[Tensor, ...]:
    """The slices along an axis, as views without it."""

def var(x: Tensor, /, axis: _Axes = ..., *, correction: float | None = ..., keepdims: _bool = ..., ddof: float | None = ...) -> Tensor:
    """Variance over axes, with `correction` (0 by default), or `ddof`, degrees of freedom less than elements."""

def vecdot(x1: _Operand, x2: _Operand, /, *, axis: _Axes = ...) -> Tensor:
    """Sum of products of elements along an axis; the other axes broadcast."""

def where(condition: Tensor, x1: _Operand, x2: _Operand, /) -> Tensor:
    """Elements of `x1` where the condition is true, else of `x2`."""

def zeros(shape: _Shape, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """Zeros of a shape; float32 if no dtype is named."""

def zeros_like(x: Tensor, /, dtype: _DType | None = ..., *, device: _Device | None = ...) -> Tensor:
    """Zeros of the shape, dtype and device of another tensor."""
