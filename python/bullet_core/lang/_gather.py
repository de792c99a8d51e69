"""What the compiler needs of a kernel: its source, that of all it calls, and what the names in them mean.

The compiler looks nothing up. Names are resolved here as Python would, in closures and module globals, at the first launch,
so that a kernel may use what is defined below it.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import textwrap
import types as pytypes
from typing import Any, NamedTuple

import numpy as np

from bullet_core import _core

from ._builtins import NAMES, Builtin
from ._types import ALIAS, ArrayType, Compound, OpenType, Scalar, Struct, is_compound, scalar_of, spell


class Definition(NamedTuple):
    """A function or class for the compiler; see `Definition` in crates/lang/src/link.rs."""

    kind: str
    #: The function that this is a derivative of.
    of: int
    file: str
    line: int
    indent: int
    text: str
    names: list[tuple[str, str, Any]]
    types: list[tuple[str, str]]
    statics: list[tuple[int, str]]


class Source(NamedTuple):
    """The text of a function, from its `def` on, and where it was written."""

    file: str
    line: int
    indent: int
    text: str
    node: Any


def source_of(fn) -> Source:
    """The source of a function."""
    file, first = fn.__code__.co_filename, fn.__code__.co_firstlineno
    lines = linecache.getlines(file, fn.__globals__)[first - 1 :]
    if not lines:
        raise OSError(
            f"the source of {fn.__qualname__} cannot be read; kernels are compiled from their source, so write them to a file "
            "or a notebook cell, not into exec() or python -c"
        )
    lines = inspect.getblock(lines)
    text = "".join(lines)
    indent = len(text) - len(text.lstrip())
    text = textwrap.dedent(text)
    node = ast.parse(text).body[0]
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{fn!r} is no function that was written with def")
    # Decorators stand before the line of the definition.
    text = "".join(text.splitlines(keepends=True)[node.lineno - 1 :])
    return Source(file, first + node.lineno - 1, indent, text, node)


class Gatherer:
    """Collects definitions, each once, beginning with the kernel that is to be compiled."""

    def __init__(self):
        self.definitions: list[Definition | None] = []
        self._places: dict[int, int] = {}
        # Objects must outlive their ids here.
        self._alive: list[Any] = []

    def add(self, kind: str, obj, of: int = 0, types: dict[str, Any] | None = None) -> int:
        """The place of a function's or struct class's definition among all. `types` are those of parameters whose annotations
        leave them open."""
        if id(obj) in self._places:
            return self._places[id(obj)]
        place = self._places[id(obj)] = len(self.definitions)
        self._alive.append(obj)
        self.definitions.append(None)
        made = self._struct(obj) if kind == "struct" else self._function(kind, obj, of, types or {})
        self.definitions[place] = made
        return place

    def add_function(self, fn, of) -> int:
        """The place of one overload of a `Func`; with it go the derivatives that it was given."""
        known = id(fn) in self._places
        place = self.add("function", fn)
        for kind, derivative in of._derivatives.get(fn, {}).items() if not known else ():
            self.add(kind, derivative, of=place)
        return place

    def _struct(self, cls: type) -> Definition:
        """Of a class only the fields matter, which Python knows: its source is not looked for."""
        scope = _Scope(self)
        types = []
        for name, annotation in inspect.get_annotations(cls, eval_str=True).items():
            spelled = scope.type(annotation)
            if spelled is None:
                raise TypeError(f"field {name!r} of struct {cls.__name__} is {_described(annotation)}, no type that kernels know")
            types.append((name, spelled))
        text = f"class {cls.__name__}:\n" + "".join(f"    {name}: _\n" for name, _ in types)
        return Definition("struct", 0, f"struct {cls.__qualname__}", 1, 0, text, scope.names, types, [])

    def _function(self, kind: str, fn, of: int, given: dict[str, Any]) -> Definition:
        source = source_of(fn)
        scope = _Scope(self, fn)
        types = scope.annotations({**evaluated(fn), **given})
        scope.visit_body(source.node)
        file, line, indent, text, node = source
        starts = [0]
        for row in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(row.encode()))
        statics = [(starts[arg.lineno - node.lineno] + arg.col_offset, value) for arg, value in scope.statics]
        return Definition(kind, of, file, line, indent, text, scope.names, types, statics)


def evaluated(fn) -> dict[str, Any]:
    """The annotations of a function; of those that are text, what it says, unless that cannot be known."""
    if not any(isinstance(annotation, str) for annotation in fn.__annotations__.values()):
        return fn.__annotations__
    cells = _cells(fn)
    found = {}
    for name, annotation in fn.__annotations__.items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, fn.__globals__, cells)
            except Exception:
                # The compiler says what is wrong with it.
                pass
        found[name] = annotation
    return found


def _cells(fn) -> dict[str, Any]:
    """What a function's closure holds, by name; what was not assigned yet is left out."""
    cells = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
        try:
            cells[name] = cell.cell_contents
        except ValueError:
            continue
    return cells


class _Scope:
    """What the names of one definition mean."""

    def __init__(self, gatherer: Gatherer, fn=None):
        self.gatherer = gatherer
        self.names: list[tuple[str, str, Any]] = [(ALIAS, "builtin", "warp")]
        self.statics: list[tuple[ast.expr, str]] = []
        self._known = {ALIAS}
        self._globals = fn.__globals__ if fn is not None else {}
        self._cells = _cells(fn) if fn is not None else {}

    def annotations(self, annotations: dict[str, Any]) -> list[tuple[str, str]]:
        """The types of parameters, which Python evaluated."""
        types = []
        for name, annotation in annotations.items():
            if name == "return" or isinstance(annotation, str):
                continue
            spelled = self.type(annotation)
            if spelled is not None:
                types.append((name, spelled))
        return types

    def type(self, annotation) -> str | None:
        """A type as an expression of this scope's names."""
        if annotation in (float, int, bool):
            return annotation.__name__
        if annotation is Any:
            return "Any"
        if isinstance(annotation, (Scalar, OpenType)) or is_compound(annotation):
            return annotation.spelling
        if isinstance(annotation, ArrayType):
            return f"{ALIAS}.array(dtype={self.type(annotation.dtype)}, ndim={annotation.ndim})"
        if isinstance(annotation, Struct):
            place = self.gatherer.add("struct", annotation.cls)
            name = f"__struct_{place}"
            self._bind(name, "struct", place)
            return name
        try:
            return scalar_of(annotation).spelling
        except TypeError:
            return None

    def visit_body(self, node: ast.FunctionDef) -> None:
        """Resolves what the function's body uses."""
        local = {arg.arg for arg in [*node.args.args, *node.args.kwonlyargs]}
        local |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        defaults = [default for default in [*node.args.defaults, *node.args.kw_defaults] if default]
        for part in [*node.body, *defaults, *([node.returns] if node.returns else [])]:
            self._visit(part, local)

    def _visit(self, node: ast.AST, local: set[str]) -> None:
        if isinstance(node, ast.Call) and len(node.args) == 1 and self._is_static(node.func, local):
            self._static(node.args[0])
            self._visit(node.func, local)
            return
        path = _path(node)
        if path and path[0] not in local:
            self._resolve(path)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child, local)

    def _is_static(self, func: ast.expr, local: set[str]) -> bool:
        path = _path(func)
        if not path or path[0] in local:
            return False
        found, value = self._look_up(path)
        return found == len(path) and isinstance(value, Builtin) and value.name == "static"

    def _static(self, arg: ast.expr) -> None:
        """What the argument of `wp.static` comes to on the host; where it does not, the compiler tries."""
        try:
            value = eval(compile(ast.Expression(arg), "<static>", "eval"), self._globals, self._cells)
        except NameError:
            return
        kind, what = self._meaning(value)
        if kind != "expr":
            raise TypeError(f"wp.static({ast.unparse(arg)}) is {what if kind == 'other' else 'no value'}; expected a number or a vector")
        self.statics.append((arg, what))

    def _look_up(self, path: list[str]) -> tuple[int, Any]:
        """The object that the longest part of a path names, and how long that part is; 0 for an unknown name."""
        if path[0] in self._cells:
            value = self._cells[path[0]]
        elif path[0] in self._globals:
            value = self._globals[path[0]]
        else:
            return 0, None
        for length, name in enumerate(path[1:], 1):
            if isinstance(value, (Compound, Scalar, ArrayType)) or not hasattr(value, name):
                return length, value
            value = getattr(value, name)
        return len(path), value

    def _resolve(self, path: list[str]) -> None:
        found, value = self._look_up(path)
        if found == 0:
            return
        name = ".".join(path[:found])
        if name not in self._known:
            self._bind(name, *self._meaning(value))
        # `wp.sin`: the compiler knows what the module has.
        for length in range(1, found):
            part = self._look_up(path[:length])[1]
            if _is_front(part):
                self._bind(".".join(path[:length]), "builtin", "warp")

    def _bind(self, name: str, kind: str, what: Any) -> None:
        if name not in self._known:
            self._known.add(name)
            self.names.append((name, kind, what))

    def _meaning(self, value) -> tuple[str, Any]:
        """What an object is to the compiler."""
        if _is_front(value):
            return "builtin", "warp"
        if isinstance(value, Builtin):
            return "builtin", f"warp.{value.name}"
        instead = _instead(value)
        if isinstance(value, pytypes.BuiltinFunctionType) and value.__module__ == "math" and instead:
            return "builtin", f"warp.{instead}"
        overloads = getattr(value, "_overloads", None)
        if overloads is not None:
            return "functions", [self.gatherer.add_function(fn, value) for fn in overloads]
        if isinstance(value, Struct):
            return "struct", self.gatherer.add("struct", value.cls)
        literal = spell(value)
        if literal is not None:
            return "expr", literal
        is_type = isinstance(value, (type, Scalar, OpenType, ArrayType, np.dtype, _core.dtype))
        spelled = self.type(value) if is_type else None
        if spelled is not None:
            return "expr", spelled
        if isinstance(value, pytypes.FunctionType) and value.__module__.startswith("bullet_core.lang"):
            return "builtin", f"warp.{value.__name__}"
        if instead:
            return "other", f"{_described(value)}\nwrite wp.{instead}"
        if isinstance(value, pytypes.FunctionType):
            return "other", f"the function `{value.__name__}` without @wp.func"
        if isinstance(value, list):
            return "other", "a list\nmake it a tuple, or pass an array"
        return "other", _described(value)


#: Of functions that are called otherwise here.
_OTHER_NAMES = {
    "absolute": "abs", "amax": "max", "amin": "min", "arccos": "acos", "arcsin": "asin", "arctan": "atan", "arctan2": "atan2",
    "clip": "clamp", "deg2rad": "radians", "fabs": "abs", "fmax": "max", "fmin": "min", "fmod": "mod", "maximum": "max",
    "minimum": "min", "power": "pow", "rad2deg": "degrees", "random": "randf", "remainder": "mod", "uniform": "randf",
    "norm": "length", "eye": "identity", "rand": "randf", "zeros": "zeros",
}  # fmt: skip


def _instead(value) -> str | None:
    """The function of kernels that does what one of NumPy's, of Python's `math` or of `random` does."""
    module = getattr(value, "__module__", None) or ("random" if type(getattr(value, "__self__", None)).__module__ == "random" else "")
    if not callable(value) or (module.split(".")[0] not in ("math", "numpy", "random") and not isinstance(value, np.ufunc)):
        return None
    name = getattr(value, "__name__", "")
    name = _OTHER_NAMES.get(name, name)
    # `math.remainder` rounds to the nearest quotient.
    return name if name in NAMES and value is not math.remainder else None


def _described(value) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _is_front(value) -> bool:
    return isinstance(value, pytypes.ModuleType) and value.__name__ in ("bullet_core.lang", "warp")


def _path(node: ast.AST) -> list[str] | None:
    """The names of `a.b.c`."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        base = _path(node.value)
        return [*base, node.attr] if base else None
    return None
