"""The contract that every registered model passes, networks with weights drawn by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from tests.drawn_weights import draw_weights

from unveil import raster
from unveil.errors import InputError
from unveil.inference.contract import CHECKS, SHAPE, Case, draw_scene
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.models.base import ModelSpec
from unveil.models.chronos import adaptation
from unveil.models.registry import create, kinds
from unveil.scene import Scene
from unveil.weights.arrays import write_arrays


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> dict[str, Scene]:
    folder = tmp_path_factory.mktemp("contract")
    return {level: draw_scene(folder / level, level=level) for level in ("L1C", "L2A")}


drawn = partial(draw_weights, seed=5, spread=0.05)


def weights_of(kind: str, options: dict) -> dict[str, np.ndarray] | None:
    if kind == "dsen2cr":
        from unveil.models.dsen2cr.network import build_network, network_arrays

        network = build_network(bands=13, **{"radar": True, **options})
        names = {name: array.shape for name, array in network_arrays(network).items()}
        return {n: a * (0.3 if a.ndim > 1 else 1) for n, a in drawn(names).items()}
    if kind == "uncrtaints":
        from unveil.models import uncrtaints

        return drawn(uncrtaints.state_shapes())
    if kind == "utilise":
        from unveil.models import utilise

        return drawn(utilise.state_shapes(utilise.CONFIGURATIONS[options["configuration"]]))
    if kind == "anytimeformer":
        from unveil.models.anytimeformer.network import expected_shapes

        return drawn(expected_shapes())
    if kind == "chronos":
        from unveil.models.chronos.model import CALIBRATION
        from unveil.models.chronos.network import build_network, network_arrays

        shapes = {
            name: array.shape for name, array in network_arrays(build_network("small")).items()
        }
        return drawn(shapes) | {CALIBRATION: np.full(2, 1.2, np.float32)}
    return None


SMALL = {"features": 8, "blocks": 2}
ROWS: dict[str, tuple[str, dict]] = {kind: (kind, {}) for kind in kinds()} | {
    "dsen2cr": ("dsen2cr", SMALL),
    "dsen2cr-nosar": ("dsen2cr", SMALL | {"radar": False}),
    "uncrtaints-clearest": ("uncrtaints", {"frames": "clearest"}),
    "utilise": ("utilise", {"configuration": "earthnet"}),
    "utilise-sen12mscrts": ("utilise", {"configuration": "sen12mscrts"}),
    "utilise-sen12mscrts-s1": ("utilise", {"configuration": "sen12mscrts-s1"}),
}
"""Every registered kind, and the configurations that change what a network is given."""


@pytest.fixture(scope="session")
def specs(scenes, tmp_path_factory) -> dict[str, ModelSpec]:
    """The rows of the model table, weights and deliveries included."""
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for row, (kind, options) in ROWS.items():
        path, arrays = None, weights_of(kind, options)
        if arrays:
            path = folder / f"{row}.npz"
            write_arrays(path, arrays)
        if kind == "external":
            target = scenes["L1C"].target.path
            (folder / "s.tif").write_bytes(target.read_bytes())
            options = {"folder": str(folder)}
        made[row] = ModelSpec(row, kind, weights=path, options=options)
    return made


def scene_for(row: str, scenes: dict[str, Scene]) -> Scene:
    return scenes["L2A" if row in ("anytimeformer", "utilise") else "L1C"]


@pytest.fixture(scope="module", autouse=True)
def few_trials():
    """Let chronos judge its deviations by a few trials, which is the same code in less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "TRIALS", 3)
        yield


@pytest.fixture(scope="module")
def cases(scenes, specs) -> Callable[[str], Case]:
    """A row with its scene, and its answer for it in one tile, computed once for all tests."""
    return cache(lambda row: Case(specs[row], scene_for(row, scenes)))


DEAR = ("chronos", "utilise-sen12mscrts", "utilise-sen12mscrts-s1")
"""They take most of the time of all; before each commit chronos answers once, utilise by another
configuration."""


def marked(row: str) -> Any:
    return pytest.param(row, marks=pytest.mark.slow) if row in DEAR else row


class TestEveryAnswer:
    @pytest.mark.parametrize("row", [marked(row) for row in ROWS])
    @pytest.mark.parametrize("check", CHECKS)
    def test_keeps_the_contract(self, row, check, cases):
        assert CHECKS[check](cases(row))

    @pytest.mark.parametrize("row", [row if row == "chronos" else marked(row) for row in ROWS])
    def test_gives_the_bands_that_it_says(self, row, scenes, cases):
        found = cases(row).answer
        assert found.dtype == np.float32
        assert found.shape[1:] == SHAPE
        assert found.shape[0] in (4, 10, len(scene_for(row, scenes).bands))

    @pytest.mark.parametrize("row", [marked(row) for row in ROWS])
    def test_is_blind_to_the_reference(self, row, scenes, specs, tmp_path):
        scene = scene_for(row, scenes)
        other = tmp_path / "other.tif"
        values = np.full((len(scene.bands), *SHAPE), 4321, np.uint16)
        raster.write_cog(other, values, scene.grid, descriptions=scene.bands, nodata=0)
        frames = tuple(replace(f, path=other) if f.role == "reference" else f for f in scene.frames)
        seen = []
        for number, given in enumerate((scene, replace(scene, frames=frames))):
            folder = tmp_path / str(number)
            [record] = run_shard(create(specs[row]), [given], folder, InferenceOptions(), code="x")
            seen.append(record["made"]["files"]["s.tif"])
        assert seen[0] == seen[1]


@pytest.mark.parametrize("row", ROWS)
class TestEveryModel:
    def test_says_what_it_is_and_where_it_comes_from(self, row, scenes, specs):
        model = create(specs[row])
        assert model.origin in ("published", "trained-here", "none", "external")
        assert model.skip(scene_for(row, scenes).without_truth()) is None

    def test_says_how_to_get_its_weights_when_it_has_none(self, row, scenes, specs):
        model = create(replace(specs[row], weights=None))
        if model.network:
            scene = scene_for(row, scenes).without_truth()
            assert "snakemake fetch_weights" in model.skip(scene)
            with pytest.raises(InputError, match="snakemake fetch_weights"):
                model.load()
