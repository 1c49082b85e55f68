"""What several benchmarks share: models by their ids, the scene they are told about, documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unveil.guarded import read_yaml
from unveil.models.base import Model, ModelSpec
from unveil.models.registry import create
from unveil.places.series import Series
from unveil.raster import Grid
from unveil.scene import Frame, Inputs, Scene

ROOT = Path(__file__).resolve().parents[1]


def load_models(names: list[str]) -> dict[str, Model]:
    """Return models of config/models.yaml by id; ``ID:option=value`` changes one option."""
    table = read_yaml(ROOT / "config" / "models.yaml")
    models = {}
    for name in names:
        row, _, change = name.partition(":")
        spec = ModelSpec.from_row(name, table[row])
        options = dict([change.split("=")]) if change else {}
        models[name] = create(replace(spec, options=spec.options | options))
    for model in models.values():
        model.load()
    return models


def scene_of(place: Series, inputs: Inputs) -> Scene:
    """Return the scene that models are told about."""
    height, width = inputs.shape
    grid = Grid("EPSG:32634", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), height, width)
    frame = Frame(inputs.target_date, "target", Path(), inputs.bands)
    return Scene("series", "simulate", place.id, grid, (frame,))


def update(path: Path, name: str, text: str, command: str) -> None:
    """Put a table and the command that made it between the marks of its name in a document.

    Raises:
        SystemExit: if the document has no such marks.
    """
    document = path.read_text()
    begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has no '{begin}' and '{end}'")
    path.write_text(f"{head}{begin}\n`{command}`\n\n{text}\n{end}{tail}")
