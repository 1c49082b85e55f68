"""The contract of a metric: whatever is registered is scored, in its unit, on its better side."""

from __future__ import annotations

import importlib
import math
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tests.synthetic_results import Recipe, make_results

from unveil import raster
from unveil.bands import CORE6
from unveil.metrics import published
from unveil.metrics.registry import METRICS, best_first, in_print_order, print_value
from unveil.metrics.scoring import score_scene
from unveil.metrics.strata import KEPT_REGIONS, TRUTH_REGIONS
from unveil.metrics.tables import PAPERS
from unveil.scene import is_occluded, load_scene, read_occlusion

REGION = {metric: "occluded" for metric in METRICS} | {"n_bands": "all"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, list[dict]]:
    """Rows of a good and of a worse image of one scene, which is too sure of itself."""
    folder = tmp_path_factory.mktemp("contract")
    results = make_results(folder, [Recipe("s", "p", "transplant", 0.5)], size=64)
    scene, rng = load_scene(results.scenes[0]), np.random.default_rng(2)
    truth = raster.read(scene.with_role("reference")[0].path) / 10_000
    hidden = is_occluded(read_occlusion(scene, None))
    noise = 0.005 * rng.standard_normal(truth.shape)
    smooth = 0.02 * gaussian_filter(rng.standard_normal(truth.shape), (0, 2, 2)) * 8
    images = {"good": truth + noise, "worse": truth + noise + hidden * (smooth + 0.03)}
    found = {}
    for name, image in images.items():
        dn = raster.to_dn(image.clip(0.001, 1))
        if name == "worse":
            dn[:, hidden & (np.arange(64) < 8)] = 0  # no answer
        spread = np.where(dn, 50, 0).astype(np.uint16)
        paths = folder / f"{name}.tif", folder / f"{name}_std.tif"
        for path, data in zip(paths, (dn, spread), strict=True):
            raster.write_cog(path, data, scene.grid, descriptions=CORE6, nodata=0)
        found[name] = score_scene(scene, paths[0], model=name, std=paths[1])
    return found


def value_of(rows: list[dict], metric: str) -> float:
    where = {"metric": metric, "region": REGION[metric], "band": "all"}
    (found,) = [row["value"] for row in rows if where.items() <= row.items()]
    return found


def test_what_is_scored_is_what_is_registered(rows) -> None:
    assert {row["metric"] for row in rows["good"]} == set(METRICS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
class TestContract:
    def test_every_row_has_its_unit(self, metric, rows) -> None:
        units = {row["unit"] for row in rows["good"] if row["metric"] == metric.name}
        assert units == {metric.unit}

    def test_it_is_scored_by_band_where_it_says_so(self, metric, rows) -> None:
        bands = {
            row["band"]
            for row in rows["good"]
            if row["metric"] == metric.name and row["region"] in (*TRUTH_REGIONS, *KEPT_REGIONS)
        }
        assert bands == ({*CORE6, "all"} if metric.by_band else {"all"})

    def test_a_worse_image_has_a_worse_value(self, metric, rows) -> None:
        values = {name: value_of(of, metric.name) for name, of in rows.items()}
        assert all(map(math.isfinite, values.values()))
        expected = [] if metric.better == "none" else ["good", "worse"]
        assert best_first(values, metric.name) == expected

    def test_it_prints(self, metric, rows) -> None:
        text = print_value(value_of(rows["worse"], metric.name), metric.name)
        assert re.fullmatch(rf"−?\d+(\.\d{{{metric.decimals}}})?", text)
        assert print_value(math.nan, metric.name) == "–"
        assert print_value(math.inf, metric.name) == "∞"
        assert metric.head.endswith(f"({metric.unit})") or metric.unit == "1"

    def test_its_formula_is_where_it_says(self, metric, rows) -> None:
        module, *path = metric.source.split(".")
        found = importlib.import_module(f"unveil.metrics.{module}")
        for name in path:
            found = getattr(found, name)
        assert found.__doc__

    def test_the_papers_give_it_where_it_says_so(self, metric, rows) -> None:
        region = f"{PAPERS}{next(iter(published.DEFINITIONS))}"
        printed = {row["metric"] for row in rows["good"] if row["region"] == region}
        assert (metric.name in printed) == metric.in_papers


def test_the_better_side_decides_the_order() -> None:
    assert best_first({"a": 1.0, "b": 2.0}, "MAE") == ["a", "b"]
    assert best_first({"a": 1.0, "b": 2.0}, "PSNR") == ["b", "a"]
    assert best_first({"a": -3.0, "b": 1.0}, "bias") == ["b", "a"]
    assert best_first({"a": 1.0, "b": 2.0}, "n_bands") == []
    assert in_print_order(["SAM", "MAE", "bias"]) == ["MAE", "SAM", "bias"]
