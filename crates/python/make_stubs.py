"""Writes bullet_core/_core.pyi, the types of what the extension gives away: names, arguments and docstrings as the installed
extension has them, types by the tables below. Writes it, or with `--check` tells whether it is up to date.
"""

import inspect
import pathlib
import re
import sys

from bullet_core import _core

PLACE = pathlib.Path(__file__).resolve().parents[2] / "python" / "bullet_core" / "_core.pyi"

HEADER = '''\
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

'''

#: Types of parameters by name; by "function.name" where it is another one there.
PARAMETERS = {
    "x": "Tensor", "x1": "_Operand", "x2": "_Operand", "axis": "_Axes", "keepdims": "bool",
    "start": "_Number", "stop": "_Number | None", "linspace.stop": "_Number", "step": "_Number | None",
    "dtype": "_DType | None", "astype.dtype": "_DType", "_restore.dtype": "dtype", "isdtype.dtype": "_DType",
    "device": "_Device | None", "to_device.device": "_Device", "set_default_device.device": "_Device",
    "descending": "bool", "stable": "bool", "obj": "_Array", "copy": "bool | None", "astype.copy": "bool",
    "arrays": "Tensor", "concat.arrays": "Sequence[Tensor]", "stack.arrays": "Sequence[Tensor]",
    "shape": "_Shape", "Tensor.reshape.shape": "Any", "from_": "_DType | Tensor", "to": "_DType", "min": "_Operand | None",
    "max": "_Operand | None", "logits": "Tensor", "targets": "Tensor", "ignore_index": "int", "label_smoothing": "float",
    "include_initial": "bool", "n": "int", "prepend": "Tensor | None", "append": "Tensor | None", "weight": "Tensor | None",
    "embedding.weight": "Tensor", "linear.weight": "Tensor", "bias": "Tensor | None", "indices": "_Array", "embedding.indices": "Tensor", "take_along_axis.indices": "Tensor",
    "out": "None", "decimals": "int", "ddof": "float | None", "axis1": "int", "axis2": "int", "ndigits": "int | None",
    "other": "_Operand", "spec": "str", "format_spec": "str",
    "n_rows": "int", "n_cols": "int | None", "k": "int", "array": "numpy.ndarray[Any, Any]", "fill_value": "_Number",
    "approximate": "str", "kind": "_DType | str | Sequence[Any] | None", "eps": "float", "activation": "str | None",
    "num": "int", "endpoint": "bool", "indexing": "str", "source": "_Axes", "copy_.source": "_Array", "Tensor.__setitem__.value": "_Array",
    "destination": "_Axes", "axes": "_Axes", "tensordot.axes": "int | tuple[Sequence[int], Sequence[int]]",
    "Tensor.permute.axes": "Any", "seed": "int", "repeats": "_Array", "arrays_and_dtypes": "Tensor | _DType | _Number",
    "shift": "_Shape", "side": "str", "sorter": "Tensor | None", "enabled": "bool", "correction": "float | None",
    "repetitions": "Sequence[int]", "low": "float", "high": "float", "condition": "Tensor", "gradient": "Tensor | None",
    "stream": "int | None", "api_version": "str | None", "max_version": "tuple[int, int] | None",
    "dl_device": "tuple[int, int] | None", "a": "int", "b": "int", "value": "_Operand", "of": "_DType", "name": "_Device",
    "requires_grad": "bool", "type": "_DType | Tensor", "args": "Any", "kwargs": "Any", "bytes": "bytes",
    "Device.__eq__.value": "object", "Device.__ne__.value": "object", "dtype.__eq__.value": "object",
    "dtype.__ne__.value": "object", "__getitem__.key": "_Key", "__setitem__.key": "_Key", "__delitem__.key": "_Key", "__contains__.key": "_Operand",
    "mod": "None", "inputs": "list[Tensor]", "outputs": "list[Tensor]", "saved": "list[Tensor]",
    "backward": "Callable[[list[Tensor | None], list[Tensor]], Sequence[Tensor | None]]", "arguments": "Sequence[str]",
}

#: What functions, methods and properties give where it is no tensor; by "class.name" where the name alone means several.
RETURNS = {
    "host_copies": "int", "cuda_is_available": "bool", "default_device": "Device", "set_default_device": "Device",
    "memory_stats": "dict[str, int]", "is_grad_enabled": "bool", "set_grad_enabled": "bool", "can_cast": "bool",
    "isdtype": "bool", "result_type": "dtype", "broadcast_arrays": "list[Tensor]", "meshgrid": "list[Tensor]",
    "nonzero": "tuple[Tensor, ...]", "unstack": "tuple[Tensor, ...]", "unique_all": "UniqueAllResult",
    "unique_counts": "UniqueCountsResult", "unique_inverse": "UniqueInverseResult", "_custom": "list[Tensor]",
    "_run_command": "int", "backward": "None", "synchronize": "None", "item": "_Number", "tolist": "Any",
    "numpy": "numpy.ndarray[Any, Any]", "is_contiguous": "bool", "fill_": "Tensor", "copy_": "Tensor", "fill": "None", "sort": "Tensor", "Tensor.sort": "None", "tobytes": "bytes",
    "kind": "str", "dtype.dtype": "numpy.dtype[Any]", "__format__": "str", "__divmod__": "tuple[Tensor, Tensor]",
    "__rdivmod__": "tuple[Tensor, Tensor]",
    "Device.name": "str", "Device.type": "str", "dtype.name": "str", "itemsize": "int", "nbytes": "int", "ndim": "int",
    "size": "int", "shape": "tuple[int, ...]", "strides": "tuple[int, ...]", "Tensor.dtype": "dtype", "device": "Device",
    "requires_grad": "bool", "grad": "Tensor | None", "finfo.dtype": "dtype", "iinfo.dtype": "dtype", "bits": "int",
    "finfo.min": "float", "finfo.max": "float", "eps": "float", "smallest_normal": "float", "iinfo.min": "int",
    "iinfo.max": "int", "capabilities": "dict[str, bool | int | None]", "default_dtypes": "dict[str, dtype]",
    "dtypes": "dict[str, dtype]", "devices": "list[Device]", "__array_namespace_info__.default_device": "Device",
    "__array_interface__": "dict[str, Any]", "__cuda_array_interface__": "dict[str, Any]", "__array_namespace__": "Any",
    "__array__": "numpy.ndarray[Any, Any]", "__dlpack__": "Any", "__dlpack_device__": "tuple[int, int]",
    "__bool__": "bool", "__complex__": "complex", "__float__": "float", "__int__": "int", "__index__": "int",
    "__len__": "int", "__iter__": "Iterator[Tensor]", "__contains__": "bool", "__delitem__": "None", "__setitem__": "None",
    "__hash__": "int", "__reduce__": "tuple[Any, ...]", "dtype.__eq__": "bool", "dtype.__ne__": "bool",
    "Device.__eq__": "bool", "Device.__ne__": "bool",
}

#: Properties that can be set.
SETTABLE = {"Tensor.grad", "Tensor.requires_grad"}
#: What every object has, and object's own type describes.
OF_OBJECT = {"__new__", "__repr__", "__str__", "__doc__", "__module__"}
#: Slots that Python fills in though the class does not order itself.
NOT_ORDERED = {"__lt__", "__le__", "__gt__", "__ge__"}
#: What mypy does not like: that comparison is element by element, and that only `pow` knows a modulus.
IGNORED = {"__eq__": "override", "__ne__": "override", "__ipow__": "misc"}
TUPLES = {
    "UniqueAllResult": ["values", "indices", "inverse_indices", "counts"],
    "UniqueCountsResult": ["values", "counts"],
    "UniqueInverseResult": ["values", "inverse_indices"],
}


def look_up(table, owner, name, what, default=None):
    """The type of `name` in `owner`, from the most to the least particular entry."""
    for key in (f"{owner}.{name}", f"{owner.rpartition('.')[2]}.{name}", name):
        if key in table:
            return re.sub(r"\b(bool|dtype)\b(?!\[)", r"_\1", table[key])
    if default is None:
        sys.exit(f"make_stubs.py: no type for {what} {name} of {owner or 'the module'}; add it to the tables")
    return default


def parameter(owner, p):
    """A parameter as it is written."""
    star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
    written = f"{star}{p.name}: {look_up(PARAMETERS, owner, p.name, 'parameter')}"
    return written if p.default is p.empty else f"{written} = ..."


def arguments(owner, signature):
    """The parameters of a signature, with the marks of positional and keyword ones."""
    written, last = [], None
    for p in signature.parameters.values():
        if last is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
            written.append("/")
        if p.kind is p.KEYWORD_ONLY and last not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL):
            written.append("*")
        written.append(p.name if p.name in ("self", "cls") else parameter(owner, p))
        last = p.kind
    if last is inspect.Parameter.POSITIONAL_ONLY and written[-1:] not in (["self"], ["cls"]):
        written.append("/")
    return ", ".join(written)


def docstring(of, indent):
    """A docstring, or nothing."""
    text = inspect.getdoc(of)
    if not text:
        return f"{indent}...\n"
    text = text.replace("\\", "\\\\").replace("\n", f"\n{indent}").replace(f"\n{indent}\n", "\n\n")
    return f'{indent}"""{text}"""\n'


def function(name, of, owner="", indent=""):
    """A function or method."""
    signature = inspect.signature(of)
    path = f"{owner}.{name}" if owner else name
    written = arguments(path, signature)
    default = "Tensor" if owner in ("", "Tensor") else None
    result = look_up(RETURNS, owner, name, "the result", default)
    head = f"{indent}@classmethod\n" if "cls" in signature.parameters else ""
    return f"{head}{indent}def {name}({written}) -> {result}:\n{docstring(of, indent + '    ')}"


def own_class(name, of):
    """A class of the extension."""
    text = f"@final\nclass {name}:\n{docstring(of, '    ') if of.__doc__ else ''}"
    if of.__text_signature__ is not None:
        given = ", ".join(filter(None, ["cls", arguments(name, inspect.signature(of))]))
        text += f"\n    def __new__({given}) -> {name}: ...\n"
    for member, value in sorted(vars(of).items()):
        kind = type(value).__name__
        if value is None:
            text += f"\n    {member}: None\n"
            continue
        if member in OF_OBJECT or (member in NOT_ORDERED and name != "Tensor"):
            continue
        if kind == "getset_descriptor":
            result = look_up(RETURNS, name, member, "the property", "Tensor" if name == "Tensor" else None)
            text += f"\n    @property\n    def {member}(self) -> {result}:\n{docstring(value, '        ')}"
            if f"{name}.{member}" in SETTABLE:
                text += f"\n    @{member}.setter\n    def {member}(self, value: {result}) -> None: ...\n"
        elif member == "__hash__" or callable(value):
            written = function(member, value, name, "    ")
            if member in IGNORED:
                written = written.replace("-> Tensor:", f"-> Tensor:  # type: ignore[{IGNORED[member]}]")
            text += f"\n{written}"
    return text


def render():
    """The stub file."""
    parts = [HEADER]
    for name, fields in TUPLES.items():
        parts.append(f"class {name}(NamedTuple):\n" + "".join(f"    {field}: Tensor\n" for field in fields))
    names = [name for name in dir(_core) if name not in ("__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__", "__all__")]
    values = {name: getattr(_core, name) for name in names}
    parts += [own_class(name, value) for name, value in values.items() if isinstance(value, type)]
    for name, value in values.items():
        if isinstance(value, _core.dtype):
            parts.append(f"{name}: _dtype\n")
        elif isinstance(value, str):
            parts.append(f"{name}: str\n")
        elif inspect.ismodule(value):
            parts.append(f"{name}: Any\n")
        elif not isinstance(value, type):
            parts.append(function(name, value))
    return "\n".join(parts)


def main():
    """Writes or checks."""
    text = render()
    if sys.argv[1:] == ["--check"]:
        if not PLACE.is_file() or PLACE.read_text() != text:
            sys.exit(f"{PLACE} is out of date; write it anew with python {__file__}")
    elif sys.argv[1:]:
        sys.exit("usage: make_stubs.py [--check]")
    else:
        PLACE.write_text(text)


if __name__ == "__main__":
    main()
