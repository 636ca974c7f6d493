# SPDX-License-Identifier: BSD-2-Clause
"""Dependencies point one way: the tables here are the architecture, and the tests hold us to it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC, PACKAGE = ROOT / "csrc", ROOT / "pympi"

# A layer of csrc, and the layers whose headers it may include besides its own.
C_LAYERS = {
    "base": set(),
    "sec": {"base"},
    "ipc": {"base", "sec"},
    "sys": {"base", "sec", "ipc"},
    "sepol": set(),  # a module of its own, built where libsepol is
}
# What lies in csrc itself puts the core together and binds it. Only the public header is known to
# the layers, and not to the lowest, which knows nothing of us.
PUBLIC_HEADER = "pympi.h"

# A module or package of pympi, and the ones it may import at run time besides itself. Whatever is
# not listed is built on the public API: see PRIVATE.
BOTTOM = {"_version", "_values", "_lazy", "_closing"}
FFI = BOTTOM | {"_ffi", "_upcall", "_binding", "_rows"}
VALUES = FFI | {"errors", "enums", "label", "escape"}
MESSAGES = VALUES | {"_aio", "batch", "message"}
OBJECTS = MESSAGES | {"port", "task", "policy", "audit", "ipctrace", "survey"}
PYTHON_LAYERS = {
    "_version": set(),
    "_values": set(),
    "_lazy": set(),
    "_closing": set(),
    "_ffi": BOTTOM | {"_core"},
    "_upcall": BOTTOM | {"_ffi"},
    "_binding": BOTTOM | {"_ffi"},
    "_rows": BOTTOM | {"_ffi"},
    "escape": set(),
    "errors": VALUES,
    "enums": VALUES,
    "label": VALUES,
    "policy": VALUES | {"_sepol"},
    "audit": VALUES,
    "ipctrace": VALUES,
    "survey": VALUES,
    "_aio": VALUES,
    "batch": VALUES,
    "message": MESSAGES,
    "port": MESSAGES | {"task"},
    "task": MESSAGES | {"port"},
    "clock": set(),
    "decisions": VALUES,
    "interfaces": VALUES,
    "kernel": OBJECTS | {"mach", "clock", "decisions", "interfaces"},
    "labelh": OBJECTS | {"kernel"},
    "mach": OBJECTS | {"kernel", "labelh"},
    # What measures the binding goes past the API, and under it.
    "bench": OBJECTS | {"", "kernel", "mig"},
}
# Doors: an attribute of a lower module opens a higher one. Imported in a function, when asked for.
DOORS = {"kernel": {"bootstrap", "inspect", "trace"}}
# Packages in a package that are units of their own, built on the public API: the rest of it does
# not know them.
PARTS = {("policy", "author")}
# Packages whose modules have an order among each other, which their docstring lists, one a line: a
# module may import those below it at run time.
ORDERED = ("bench", "bootstrap")
LISTED = re.compile(r"^    ([a-z_]+)  ", re.M)
# What modules built on the public API may not import: they get by with what users have.
PRIVATE = {"_core", "_sepol", "_ffi", "_upcall", "_binding", "_rows", "_values", "_aio"}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def c_files() -> list[Path]:
    """Return the C files of the layers."""
    return sorted(CSRC.glob("*/**/*.[ch]"))


def includes(path: Path) -> list[str]:
    """Return the quoted includes of a C file, relative to csrc."""
    names = INCLUDE.findall(path.read_text(encoding="utf-8"))
    beside = {name: path.parent / name for name in names}
    return [str(p.relative_to(CSRC)) if p.is_file() else name for name, p in beside.items()]


def layer_of(path: Path) -> str:
    """Return the layer directory that a C file lies in."""
    return path.relative_to(CSRC).parts[0]


def forbidden_includes(layer: str, names: list[str]) -> list[str]:
    """Return those of the included `names` that `layer` may not include."""
    allowed = C_LAYERS[layer] | {layer}
    public = set() if layer == "base" else {PUBLIC_HEADER}
    return [n for n in names if n not in public and n.split("/")[0] not in allowed]


@pytest.mark.parametrize("path", c_files(), ids=lambda p: str(p.relative_to(CSRC)))
def test_c_includes_point_down(path: Path) -> None:
    wrong = forbidden_includes(layer_of(path), includes(path))
    assert not wrong, f"{path.relative_to(ROOT)} may not include {', '.join(wrong)}"


def test_c_files_lie_in_layers() -> None:
    outside = [str(p.relative_to(CSRC)) for p in c_files() if layer_of(p) not in C_LAYERS]
    assert not outside, f"not in a layer of csrc ({', '.join(C_LAYERS)}): {outside}"


def test_c_headers_have_no_cycle() -> None:
    graph = {str(p.relative_to(CSRC)): includes(p) for p in c_files() if p.suffix == ".h"}
    assert cycle(graph) == []


def cycle(graph: dict[str, list[str]]) -> list[str]:
    """Return the nodes of one cycle of `graph`, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        found = next(filter(None, (visit(n, [*path, node]) for n in graph.get(node, []))), [])
        done.add(node)
        return found

    return next(filter(None, (visit(node, []) for node in graph)), [])


def python_files() -> list[Path]:
    """Return the modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """Return the name in the table above that stands for a file: its top module or package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:2]) if parts[:2] in PARTS else parts[0]


def runtime_nodes(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """Yield the nodes except those under `if TYPE_CHECKING:`, and but for `functions` in those."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not functions:
            continue
        yield node
        yield from runtime_nodes(node, functions)


def imported_units(source: str, package: list[str], functions: bool = True) -> set[str]:
    """Return the units that `source`, a module in `package`, imports; `` for pympi itself.

    Imports inside functions are dependencies too; without `functions` they are left out.
    """
    units = set()
    for node in runtime_nodes(ast.parse(source), functions):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        units.update(unit_of_import(name) for name in names if name[0] == "pympi")
    return units


def unit_of_import(name: list[str]) -> str:
    """Return the unit that a dotted import means; a name that pympi re-exports means pympi."""
    if len(name) < 2:
        return ""
    if tuple(name[1:3]) in PARTS:
        return ".".join(name[1:3])
    places = (PACKAGE / name[1], PACKAGE / f"{name[1]}.py")
    known = name[1] in PYTHON_LAYERS or name[1] in PRIVATE or any(map(Path.exists, places))
    return name[1] if known else ""


def forbidden_imports(unit: str, source: str, package: list[str]) -> set[str]:
    """Return the units that `source`, a module of `unit`, imports and may not."""
    imported = imported_units(source, package)
    if unit not in PYTHON_LAYERS:
        return imported & (PRIVATE if unit != "__init__" else {"_core"})
    early = imported_units(source, package, functions=False)
    doors = DOORS.get(unit, set()) - early
    return imported - PYTHON_LAYERS[unit] - doors - {unit}


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports_point_down(path: Path) -> None:
    package = ["pympi", *path.relative_to(PACKAGE).parts[:-1]]
    wrong = forbidden_imports(unit_of(path), path.read_text(encoding="utf-8"), package)
    names = ", ".join(sorted(f"pympi.{name}".rstrip(".") for name in wrong))
    assert not wrong, f"{path.relative_to(ROOT)} may not import {names}"


def order_of(package: str) -> list[str]:
    """Return the modules of a package as its docstring lists them, the topmost first."""
    source = (PACKAGE / package / "__init__.py").read_text(encoding="utf-8")
    return LISTED.findall(ast.get_docstring(ast.parse(source)) or "")


def siblings(source: str) -> set[str]:
    """Return the modules of its own package that a module imports at run time."""
    found: set[str] = set()
    for node in runtime_nodes(ast.parse(source), functions=True):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found.update(name.split(".")[0] for name in names)
    return found


def not_below(module: str, source: str, order: list[str]) -> set[str]:
    """Return the modules that `module` imports and may not: itself, and what is above it."""
    return siblings(source) & set(order[: order.index(module) + 1])


@pytest.mark.parametrize("package", ORDERED)
def test_an_order_lists_all_modules_once(package: str) -> None:
    files = {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__", "__main__"}
    assert sorted(order_of(package)) == sorted(files)


@pytest.mark.parametrize("package", ORDERED)
def test_modules_import_those_below_them(package: str) -> None:
    order = order_of(package)
    for module in order:
        source = (PACKAGE / package / f"{module}.py").read_text(encoding="utf-8")
        wrong = not_below(module, source, order)
        assert not wrong, f"pympi/{package}/{module}.py may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from .low import f", set()),
        ("from . import low, high", {"high"}),
        ("def f():\n    from .high.er import g", {"high"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .high import g", set()),
    ],
)
def test_an_import_against_the_order_is_found(source: str, wrong: set[str]) -> None:
    assert not_below("middle", source, ["high", "middle", "low"]) == wrong


@pytest.mark.parametrize(
    ("layer", "name"),
    [("base", "pympi.h"), ("base", "sec/avc.h"), ("sec", "ipc/port.h"), ("ipc", "sys/kernel.h")],
)
def test_upward_include_is_found(layer: str, name: str) -> None:
    assert forbidden_includes(layer, ["base/base.h", name]) == [name]


@pytest.mark.parametrize(
    ("unit", "source", "wrong"),
    [
        ("errors", "from pympi.kernel import Kernel", {"kernel"}),
        ("errors", "def f():\n    import pympi.kernel", {"kernel"}),
        ("errors", "from .kernel import Kernel", {"kernel"}),
        ("errors", "from . import _core", {"_core"}),
        (
            "errors",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pympi.task",
            set(),
        ),
        ("trace", "from pympi._ffi import lib", {"_ffi"}),
        ("trace", "from pympi import Kernel, enums", set()),
        ("kernel", "from pympi import Kernel", {""}),
        ("kernel", "def f():\n    from .trace.live import Trace", set()),
        ("kernel", "from .trace.live import Trace", {"trace"}),
        ("policy", "from pympi.policy import author", {"policy.author"}),
        ("policy.author", "from pympi.trace import read_trace\nimport pympi._ffi", {"_ffi"}),
    ],
)
def test_upward_import_is_found(unit: str, source: str, wrong: set[str]) -> None:
    assert forbidden_imports(unit, source, ["pympi"]) == wrong


def test_cycle_is_found() -> None:
    assert cycle({"a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    assert cycle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
