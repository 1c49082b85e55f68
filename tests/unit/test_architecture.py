"""The direction of imports: what stands on a floor knows only its own floor and those below."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PACKAGE = "unveil"

FIELD, STAGES, WORKFLOW, RULES = range(4)
FLOORS: dict[int, tuple[str, ...]] = {
    FIELD: (
        *("bands", "classes", "code", "compiled", "composites", "config", "distance", "errors"),
        "gdal",
        *(
            "guarded",
            "hdf5",
            "machine",
            "nearest_point",
            "places",
            "distribution",
            "predictions",
            "protocols",
            "raster",
            "records",
            "redaction",
            "remote",
            "scene",
        ),
        *("excess", "stored"),
    ),
    STAGES: (
        *("assembly", "cloudfree", "coregistration", "deliveries", "evidence", "inference"),
        *("masks", "metrics", "models", "report", "sources", "training", "weights"),
    ),
    WORKFLOW: ("workflow",),
}
"""Names directly below the package, by floor; scripts of the rules stand above them all."""
ONE_STAGE = (
    {"inference", "models", "training", "weights"},
    {"assembly", "sources"},
)
"""Names of one stage's rooms: models run by inference read weights, training makes them."""
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("deliveries", "models"): "a delivery is what a model of kind external names",
    ("evidence", "metrics"): "evidence prints what metrics score, with their intervals",
    ("report", "metrics"): "the page prints metrics as their registry and tables have them",
    ("report", "workflow"): "which rule wrote a raster is known where shards are made",
    ("training", "assembly"): "samples are hidden by the clouds of the protocol simulate",
}
"""(from, to), names below the package -> why this import stays."""


def modules() -> dict[str, Path]:
    """Return the package's modules, and the rules' scripts, by dotted name."""
    found = {}
    for path in [*SCRIPTS.glob("*.py"), *(SCRIPTS / PACKAGE).rglob("*.py")]:
        parts = path.relative_to(SCRIPTS).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yield the package's modules that a tree imports; of names in a module, that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in MODULES else node.module


def at_run_time(tree: ast.Module) -> ast.Module:
    """Return a module without what it imports for type checkers alone."""

    class Strip(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:  # noqa: N802 - the name ast calls
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else node

    return Strip().visit(tree)


GRAPH = {
    name: set(imports_of(at_run_time(ast.parse(path.read_text())))) - {name}
    for name, path in MODULES.items()
}


def room(module: str) -> str:
    """Return the name directly below the package; of a rule's script, nothing."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else ""


def floor(name: str) -> int:
    return next((number for number, names in FLOORS.items() if name in names), RULES)


def crossings() -> set[tuple[str, str]]:
    """Return which names below the package import which others."""
    pairs = ((room(a), room(b)) for a, there in GRAPH.items() for b in there)
    return {(a, b) for a, b in pairs if a and b and a != b}


def is_wrong(a: str, b: str) -> bool:
    """Return whether an import goes upwards, or from stage to stage."""
    if floor(a) == floor(b) == STAGES:
        return not any({a, b} <= rooms for rooms in ONE_STAGE)
    return floor(b) > floor(a)


def test_every_name_below_the_package_has_a_floor():
    lost = sorted({room(module) for module in MODULES} - {""} - set().union(*FLOORS.values()))
    assert not lost, f"give {', '.join(lost)} a floor in FLOORS"


def test_imports_point_down_and_never_from_stage_to_stage():
    wrong = {pair for pair in crossings() if is_wrong(*pair)} - set(EXCEPTIONS)
    lines = [
        f"{module} imports {other}"
        for module, there in sorted(GRAPH.items())
        for other in sorted(there)
        if (room(module), room(other)) in wrong
    ]
    assert not lines, "\n".join(lines)


def test_every_exception_is_still_needed():
    stale = {pair for pair in EXCEPTIONS if pair not in crossings() or not is_wrong(*pair)}
    assert not stale, f"take {sorted(stale)} out of EXCEPTIONS"


def test_nothing_in_the_package_imports_a_script():
    assert not [
        f"{module} imports {other}"
        for module, there in GRAPH.items()
        for other in there
        if room(module) and not other.startswith(PACKAGE)
    ]


def test_no_module_comes_back_to_itself():
    """Imports inside functions count, too: the circle is there, whenever it closes."""
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(" -> ".join((*path[path.index(module) :], module)))
        if module not in done:
            for other in sorted(GRAPH[module]):
                walk(other, (*path, module))
            done.add(module)

    for module in sorted(GRAPH):
        walk(module, ())


def test_what_plans_a_run_loads_no_library_that_only_jobs_need():
    code = "import sys, unveil.workflow.tables, unveil.workflow.batches\nprint(*sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {"scipy", "pandas", "matplotlib", "tensorflow", "requests", "pystac_client"}
    assert not heavy & set(done.stdout.split())
