"""Types of the kernel language: numbers, vectors, matrices, quaternions, transforms, structs, and arrays of them.

On the host a vector or matrix is a tuple of its numbers, with arithmetic; a struct is an object with its fields.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from bullet_core import _core

#: How generated expressions name this package, whatever the user calls it.
ALIAS = "__wp"


class Scalar:
    """A type of numbers. Called, it gives a number of that type, as NumPy has it."""

    def __init__(self, name: str):
        self.name = name
        self.dtype = getattr(_core, "bool" if name == "bool" else name)

    def __call__(self, value=0):
        if self.name == "bfloat16":
            raise TypeError("the host has no bfloat16 numbers; use float32 here, and wp.bfloat16(..) in a kernel")
        return np.dtype(self.name).type(value)

    def __repr__(self):
        return self.name

    @property
    def spelling(self) -> str:
        return f"{ALIAS}.{self.name}"

    def __reduce__(self):
        return of_description, (self.name,)


SCALARS = {
    name: Scalar(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64"),
    )
}
globals().update({name: scalar for name, scalar in SCALARS.items() if name != "bool"})

_PYTHON = {float: SCALARS["float32"], int: SCALARS["int32"], bool: SCALARS["bool"]}


def scalar_of(dtype) -> Scalar:
    """The scalar type that a dtype means: ours, Python's `float`, `int` and `bool`, NumPy's or a Tensor's."""
    if isinstance(dtype, Scalar):
        return dtype
    if dtype in _PYTHON:
        return _PYTHON[dtype]
    if isinstance(dtype, _core.dtype):
        return SCALARS[str(dtype)]
    try:
        return SCALARS[np.dtype(dtype).name]
    except (TypeError, KeyError):
        raise TypeError(f"{dtype!r} is no type of numbers that kernels know") from None


class Compound(tuple):
    """Numbers that belong together. The classes that are used are made by `vector`, `matrix` and their like."""

    __slots__ = ()
    #: Of the numbers.
    scalar: Scalar
    #: How they are arranged: (3,), (3, 3).
    dims: tuple[int, ...]
    spelling: str

    def __new__(cls, *args):
        if not args:
            values = [0] * cls.length()
        elif len(args) == 1 and not _is_number(args[0]):
            values = _flat(args[0])
        elif len(args) == 1:
            values = list(args) * cls.length()
        else:
            values = [x for arg in args for x in ([arg] if _is_number(arg) else _flat(arg))]
        if len(values) != cls.length():
            raise ValueError(f"a {cls.__name__} takes {cls.length()} numbers, got {len(values)}")
        number = np.float32 if cls.scalar.name == "bfloat16" else np.dtype(cls.scalar.name).type
        return tuple.__new__(cls, [number(x).item() for x in values])

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.__hash__ = tuple.__hash__

    @classmethod
    def length(cls) -> int:
        return int(np.prod(cls.dims))

    def numpy(self) -> np.ndarray:
        """The numbers as an array of the type's shape, in float64 or int64."""
        return np.array(tuple(self)).reshape(self.dims)

    def _check_scalar(self, other: Compound) -> None:
        if other.scalar is not self.scalar:
            raise TypeError(f"types are not converted unasked: {type(self).__name__} and {type(other).__name__}")

    def _with(self, other, op):
        if isinstance(other, Compound):
            if other.dims != self.dims:
                return NotImplemented
            self._check_scalar(other)
            other = other.numpy()
        elif not _is_number(other):
            return NotImplemented
        elif self.scalar.name.startswith(("int", "uint")) and not isinstance(other, (int, np.integer)):
            raise TypeError(f"types are not converted unasked: {type(self).__name__} and a number that is no integer")
        return type(self)(*op(self.numpy(), other).ravel())

    def __add__(self, other):
        return self._with(other, operator.add) if isinstance(other, Compound) else NotImplemented

    def __sub__(self, other):
        return self._with(other, operator.sub) if isinstance(other, Compound) else NotImplemented

    def __mul__(self, other):
        if isinstance(other, Compound):
            from ._evaluate import product

            return product(self, other)
        return self._with(other, operator.mul) if _is_number(other) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other):
        return self._with(other, operator.truediv) if _is_number(other) else NotImplemented

    def __neg__(self):
        return type(self)(*(-x for x in self))

    def __eq__(self, other):
        return isinstance(other, type(self)) and tuple.__eq__(self, other)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(repr(x) for x in self)})"

    def __reduce__(self):
        return _remake, (described(type(self)), tuple(self))


def _component(index):
    def get(self):
        if index >= len(self):
            raise AttributeError(f"a {type(self).__name__} has no component {'xyzw'[index]!r}")
        return self[index]

    return property(get)


class Vector(Compound):
    __slots__ = ()
    x, y, z, w = (_component(i) for i in range(4))


class Matrix(Compound):
    __slots__ = ()

    def __getitem__(self, index):
        if isinstance(index, tuple):
            row, column = index
            return self.numpy()[row, column].item()
        return vector(self.dims[1], self.scalar)(*self.numpy()[index])

    def __matmul__(self, other):
        if not isinstance(other, (Matrix, Vector)):
            return NotImplemented
        self._check_scalar(other)
        product = self.numpy() @ other.numpy()
        made = vector(product.shape[0], self.scalar) if product.ndim == 1 else matrix(product.shape, self.scalar)
        return made(*product.ravel())


class Quaternion(Vector):
    """x, y, z, and w, the real part."""

    __slots__ = ()


class Transformation(Compound):
    """A position p and a rotation q."""

    __slots__ = ()

    @property
    def p(self):
        return vector(3, self.scalar)(*self[:3])

    @property
    def q(self):
        return quaternion(self.scalar)(*self[3:])


_MADE: dict[tuple, type[Compound]] = {}
_SUFFIX = {
    "float16": "h", "float32": "f", "float64": "d", "int8": "b", "uint8": "ub", "int16": "s", "uint16": "us",
    "int32": "i", "uint32": "ui", "int64": "l", "uint64": "ul",
}  # fmt: skip


def _spelled(kind: str, dims: tuple, numbers: str) -> str:
    """A type as an expression; lengths may be Any."""
    lengths = ", ".join("Any" if dim is Any else str(dim) for dim in dims)
    shape = {"vector": f"length={lengths}, ", "matrix": f"shape=({lengths}), "}.get(kind, "")
    return f"{ALIAS}.types.{kind}({shape}dtype={numbers})"


class OpenType:
    """What a parameter takes that leaves something of its type to the argument: `Float`, `vector(length=Any, dtype=Float)`."""

    def __init__(self, kind: str, dims: tuple, numbers: Any):
        self.kind, self.dims, self.numbers = kind, dims, numbers

    @property
    def spelling(self) -> str:
        numbers = self.numbers.spelling if isinstance(self.numbers, Scalar) else f"{ALIAS}.{self.numbers}" if self.numbers != "Any" else "Any"
        return numbers if self.kind == "number" else _spelled(self.kind, self.dims, numbers)

    def takes(self, given: Any) -> bool:
        """Whether a type is one of these."""
        if isinstance(given, (ArrayType, Struct)):
            return False
        kind, dims, scalar = (given.kind, given.dims, given.scalar) if is_compound(given) else ("number", (), scalar_of(given))
        if kind != self.kind or any(own not in (Any, dim) for own, dim in zip(self.dims, dims)):
            return False
        is_float, is_int = scalar.name.startswith(("float", "bfloat")), scalar.name.startswith(("int", "uint"))
        return {"Float": is_float, "Int": is_int, "Scalar": is_float or is_int, "Any": True}.get(self.numbers, scalar is self.numbers)

    def __call__(self, *_args):
        raise TypeError(f"{self} stands for several types, in annotations; call one of them, as wp.vec3 or wp.float32")

    def __repr__(self):
        return self.spelling.replace(f"{ALIAS}.", "")

    def __reduce__(self):
        return OpenType, (self.kind, self.dims, self.numbers)


#: Numbers of any float type, any integer type, and either.
OPEN = {name: OpenType("number", (), name) for name in ("Float", "Int", "Scalar")}


def _open(kind: str, dims: tuple, dtype) -> OpenType:
    if isinstance(dtype, OpenType) and dtype.kind != "number":
        raise TypeError(f"expected a type of numbers, got {dtype}")
    numbers = "Any" if dtype is Any else dtype.numbers if isinstance(dtype, OpenType) else scalar_of(dtype)
    return OpenType(kind, tuple(dim if dim is Any else operator.index(dim) for dim in dims), numbers)


def _make(kind: str, dims: tuple[int, ...], dtype) -> type[Compound] | OpenType:
    if Any in dims or dtype is Any or isinstance(dtype, OpenType):
        return _open(kind, dims, dtype)
    scalar = scalar_of(dtype)
    dims = tuple(operator.index(dim) for dim in dims)
    if any(not 1 <= dim <= 64 for dim in dims):
        raise ValueError(f"vectors and matrices have 1 to 64 elements a dimension, not {dims}")
    key = (kind, dims, scalar.name)
    if key not in _MADE:
        base, stem = {
            "vector": (Vector, f"vec{dims[0]}"),
            "matrix": (Matrix, "mat" + "".join(map(str, dims))),
            "quaternion": (Quaternion, "quat"),
            "transformation": (Transformation, "transform"),
        }[kind]
        members = {"__slots__": (), "scalar": scalar, "dims": dims, "spelling": _spelled(kind, dims, scalar.spelling), "kind": kind}
        _MADE[key] = type(stem + _SUFFIX.get(scalar.name, f"_{scalar.name}"), (base,), members)
    return _MADE[key]


def described(dtype: Scalar | type[Compound]) -> str | tuple:
    """A type in words that a pickle can hold."""
    return dtype.name if isinstance(dtype, Scalar) else (dtype.kind, dtype.dims, dtype.scalar.name)


def of_description(description: str | tuple) -> Scalar | type[Compound]:
    """The type that was described."""
    return SCALARS[description] if isinstance(description, str) else _make(*description)


def _remake(description, values):
    return of_description(description)(*values)


def is_compound(dtype) -> bool:
    """Whether it is a type of vectors, matrices and the like."""
    return isinstance(dtype, type) and issubclass(dtype, Compound)


def element_type(dtype) -> Scalar | type[Compound] | Struct:
    """The type that an array's elements have: itself if it is one of ours, else the scalar type that it means."""
    return dtype if isinstance(dtype, Struct) or is_compound(dtype) else scalar_of(dtype)


def vector(length: int, dtype: Any = float) -> type[Compound]:
    """The type of vectors of this length."""
    return _make("vector", (length,), dtype)


def matrix(shape: tuple[int, int], dtype: Any = float) -> type[Compound]:
    """The type of matrices of this shape, rows and columns."""
    if len(shape) != 2:
        raise ValueError(f"a matrix has rows and columns, not a shape of {shape}")
    return _make("matrix", tuple(shape), dtype)


def quaternion(dtype: Any = float) -> type[Compound]:
    """The type of quaternions."""
    return _make("quaternion", (4,), dtype)


def transformation(dtype: Any = float) -> type[Compound]:
    """The type of rigid transforms."""
    return _make("transformation", (7,), dtype)


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number, np.bool_)) and not isinstance(value, Compound)


def _flat(value) -> list:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"expected numbers, got {value!r}")
    return [x for item in value for x in ([item] if _is_number(item) else _flat(item))]


def _named() -> dict[str, type[Compound]]:
    """`vec3`, `vec3d`, `mat33`, `quat`, .. as Warp names them."""
    names: dict[str, type[Compound]] = {}
    for dtype, suffix in _SUFFIX.items():
        for n in (2, 3, 4):
            names[f"vec{n}{suffix}"] = vector(n, dtype)
        if suffix in "hfd":
            for n in (2, 3, 4):
                names[f"mat{n}{n}{suffix}"] = matrix((n, n), dtype)
            names[f"quat{suffix}"] = quaternion(dtype)
            names[f"transform{suffix}"] = transformation(dtype)
            if suffix != "h":
                names[f"spatial_vector{suffix}"] = vector(6, dtype)
                names[f"spatial_matrix{suffix}"] = matrix((6, 6), dtype)
    short = [name for name in names if name.endswith("f")]
    return names | {name[:-1]: names[name] for name in short}


NAMED = _named()


class ArrayType:
    """The type of arrays, in annotations: `array(dtype=float, ndim=2)`."""

    def __init__(self, dtype: Any, ndim: int = 1):
        if not 1 <= ndim <= 4:
            raise ValueError(f"arrays have 1 to 4 dimensions, not {ndim}")
        self.dtype, self.ndim = dtype, ndim

    def __repr__(self):
        return f"array(dtype={name_of(self.dtype)}, ndim={self.ndim})"


class Struct:
    """A struct of the kernel language. Called, it makes one with all fields zero, or as given by name."""

    def __init__(self, cls: type):
        self.cls = cls
        self.__name__, self.__qualname__ = cls.__name__, cls.__qualname__
        self.__doc__, self.__module__ = cls.__doc__, cls.__module__
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The types of the fields, by name."""
        if self._fields is None:
            import inspect

            self._fields = inspect.get_annotations(self.cls, eval_str=True)
        return self._fields

    def numpy_dtype(self) -> np.dtype:
        """How it lies in memory: as C lays it out."""
        return np.dtype([(name, *_numpy_field(dtype)) for name, dtype in self.fields.items()], align=True)

    def of_numpy(self, record) -> StructInstance:
        """An instance with the values of a record of `numpy_dtype()`."""
        values = {}
        for name, dtype in self.fields.items():
            value = record[name]
            if isinstance(dtype, Struct):
                values[name] = dtype.of_numpy(value)
            else:
                values[name] = dtype(value) if is_compound(dtype) else value.item()
        return StructInstance(self, values)

    def __call__(self, **values):
        unknown = [name for name in values if name not in self.fields]
        if unknown:
            raise TypeError(f"struct {self.__name__} has no field {unknown[0]!r}; it has {', '.join(self.fields)}")
        return StructInstance(self, values)

    def __reduce__(self):
        # By its name, as classes are.
        return self.__qualname__

    def __repr__(self):
        return f"<struct {self.__name__}>"


class StructInstance:
    """A struct's values. Fields are set like attributes."""

    def __init__(self, struct: Struct, values: dict[str, Any]):
        object.__setattr__(self, "_struct", struct)
        for name, dtype in struct.fields.items():
            object.__setattr__(self, name, values[name] if name in values else zero(dtype))

    def __setattr__(self, name, value):
        if name not in self._struct.fields:
            raise AttributeError(f"struct {self._struct.__name__} has no field {name!r}; it has {', '.join(self._struct.fields)}")
        object.__setattr__(self, name, value)

    def __reduce__(self):
        return _remake_struct, (self._struct, {name: getattr(self, name) for name in self._struct.fields})

    def _values(self) -> tuple:
        """The values as a record of NumPy takes them."""
        values = (getattr(self, name) for name in self._struct.fields)
        return tuple(
            value._values() if isinstance(value, StructInstance) else value.numpy() if isinstance(value, Compound) else value
            for value in values
        )

    def __eq__(self, other):
        if not isinstance(other, StructInstance) or other._struct is not self._struct:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._struct.fields)

    __hash__ = None

    def __repr__(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._struct.fields)
        return f"{self._struct.__name__}({fields})"


def _remake_struct(struct, values):
    return struct(**values)


def _numpy_field(dtype) -> tuple:
    if isinstance(dtype, Struct):
        return (dtype.numpy_dtype(),)
    if isinstance(dtype, ArrayType):
        raise TypeError("a struct with arrays does not lie in memory: it is an argument of its own")
    scalar, dims = (dtype.scalar, dtype.dims) if is_compound(dtype) else (scalar_of(dtype), ())
    if scalar.name == "bfloat16":
        return "u2", dims
    return scalar.name, dims


def zero(dtype):
    """The value that a field of a new struct has: none of an array."""
    if isinstance(dtype, ArrayType):
        return None
    if isinstance(dtype, Struct) or is_compound(dtype):
        return dtype()
    return scalar_of(dtype)(0).item() if scalar_of(dtype).name != "bfloat16" else 0.0


def is_open(annotation) -> bool:
    """Whether an annotation leaves the type to the argument."""
    return annotation is Any or isinstance(annotation, OpenType) or (isinstance(annotation, ArrayType) and annotation.dtype is Any)


def key_of(dtype):
    """What tells a type from others."""
    if isinstance(dtype, ArrayType):
        return ArrayType, key_of(dtype.dtype), dtype.ndim
    return element_type(dtype)


def type_of(value, annotation):
    """The type of an argument for a parameter that leaves it open; others keep their annotation."""
    if not is_open(annotation):
        return annotation
    if isinstance(value, Compound):
        return type(value)
    if isinstance(value, StructInstance):
        return value._struct
    if isinstance(value, (bool, int, float, np.generic)):
        return scalar_of(type(value))
    dtype = getattr(value, "dtype", None)
    if dtype is None or not hasattr(value, "shape"):
        raise TypeError(f"the type of {type(value)} is none that kernels know")
    if isinstance(dtype, (Scalar, Struct)) or is_compound(dtype):
        return ArrayType(dtype, value.ndim)
    scalar, shape = scalar_of(dtype), tuple(value.shape)
    ndim = annotation.ndim if isinstance(annotation, ArrayType) else len(shape)
    if len(shape) - ndim == 1:
        return ArrayType(vector(shape[-1], scalar), ndim)
    return ArrayType(matrix(shape[-2:], scalar) if len(shape) - ndim == 2 else scalar, ndim)


def name_of(dtype) -> str:
    """As a person calls it."""
    return dtype.__name__ if isinstance(dtype, (Struct, type)) else repr(dtype)


def spell(value) -> str | None:
    """A constant as an expression; None if it is none."""
    if isinstance(value, Compound):
        return f"{value.spelling}({', '.join(spell(x) or '' for x in value)})"
    if isinstance(value, tuple):
        items = [spell(item) for item in value]
        return None if None in items else f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, np.generic) and value.dtype.name in SCALARS:
        return f"{SCALARS[value.dtype.name].spelling}({spell(value.item())})"
    if isinstance(value, float):
        if value != value:
            return f"{ALIAS}.nan"
        if value in (float("inf"), float("-inf")):
            return f"{ALIAS}.inf" if value > 0 else f"-{ALIAS}.inf"
        return repr(value)
    return None
