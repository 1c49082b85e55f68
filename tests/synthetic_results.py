"""A folder of results as the workflow leaves it, small and made up, for tests of the report."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from unveil import raster
from unveil.bands import CLOUD, CORE6, SAR2, SHADOW
from unveil.metrics.stage import write_statistics
from unveil.metrics.tables import TABLES
from unveil.predictions import write_prediction_record
from unveil.raster import Grid
from unveil.scene import Frame, Scene, cloud_cover, save_scene

HOSTILE_TITLE = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
CITATIONS = Path(__file__).parents[1] / "resources" / "citations.bib"
OUTLINE = CITATIONS.with_name("land_110m.geojson")
CITATION = "Meraner et al. 2020, doi:10.1016/j.isprsjprs.2020.05.013"
ERRORS = {
    "cloudy": 0.22,
    "mosaic": 0.03,
    "nearest": 0.027,
    "regressed": 0.009,
    "dsen2cr-small": 0.045,
}
MODELS = {
    "cloudy": ("Cloudy image as it is", "cloudy", "none"),
    "mosaic": ("Mosaic of clear looks", "mosaic", "none"),
    "nearest": ("Nearest clear look", "nearest", "none"),
    "regressed": ("Regressed", "regressed", "none"),
    "dsen2cr-small": ("DSen2-CR architecture, small", "dsen2cr", "trained-here"),
    "dsen2cr": ("DSen2-CR (CARL)", "dsen2cr", "published"),
}


@dataclass(frozen=True)
class Recipe:
    """One made-up scene."""

    id: str
    place: str
    protocol: str
    cover: float
    title: str = ""
    radar: bool = False
    reference: bool = True
    context: int = 4


DEFAULT = (
    Recipe("romania-20", "romania", "transplant", 0.2),
    Recipe("romania-50", "romania", "transplant", 0.5, title=HOSTILE_TITLE),
    Recipe("romania-90", "romania", "transplant", 0.9),
    Recipe("lisbon", "lisbon", "simulate", 0.4, radar=True, context=0),
    Recipe("kosovo", "kosovo", "simulate", 0.7, radar=True, context=0),
    Recipe("no-truth", "elsewhere", "none", 0.6, reference=False),
)


@dataclass(frozen=True)
class Results:
    """Paths of a results folder."""

    folder: Path
    scenes: tuple[Path, ...]

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def skipped(self) -> Path:
        return self.folder / "skipped.csv"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def statistics(self) -> Path:
        return self.folder / "statistics"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    def inputs(self) -> dict:
        """Keyword arguments of ``unveil.report.render``."""
        return {
            "scenes": self.scenes,
            "metrics": self.metrics,
            "skipped": self.skipped,
            "manifest": self.manifest,
            "statistics": self.statistics,
            "citations": CITATIONS,
            "outline": OUTLINE,
            "predictions": self.predictions,
            "output": self.folder / "report" / "index.html",
            "figures": self.folder / "report" / "figures",
        }


def make_results(
    folder: Path, recipes: Sequence[Recipe] = DEFAULT, *, size: int = 96, skip_all: bool = False
) -> Results:
    """Write scenes, predictions, tables and manifest below ``folder``."""
    paths, metrics, skips = [], [], []
    for number, recipe in enumerate(recipes):
        rng = np.random.default_rng(number)
        truth = landscape(rng, size)
        scene, hidden = _write_scene(folder, recipe, truth, rng)
        paths.append(folder / "scenes" / recipe.id / "scene.json")
        for model in MODELS:
            reason = "every model skipped" if skip_all else why_skipped(recipe, model)
            if reason:
                skips.append((recipe.id, model, "inference", reason))
                continue
            _write_prediction(folder, scene, model, truth, hidden, rng)
            if recipe.reference:
                metrics += metric_rows(recipe, model, rng, n_pixels=int(hidden.sum()))
    write_tables(folder, recipes, metrics, skips)
    return Results(folder, tuple(paths))


def landscape(rng: np.random.Generator, size: int) -> np.ndarray:
    """Fields and a lake in six bands, reflectance ``(6, H, W)`` float32."""
    spectra = np.array(
        [
            [0.03, 0.05, 0.03, 0.35, 0.37, 0.17],
            [0.06, 0.09, 0.12, 0.22, 0.25, 0.3],
            [0.05, 0.04, 0.02, 0.01, 0.01, 0.01],
        ]
    )
    fields = np.stack([gaussian_filter(rng.normal(size=(size, size)), size / 14) for _ in range(3)])
    kind = fields.argmax(axis=0)
    texture = 1 + 0.15 * gaussian_filter(rng.normal(size=(size, size)), 1)
    return (spectra[kind].transpose(2, 0, 1) * texture).clip(0.001, 1).astype(np.float32)


def why_skipped(recipe: Recipe, model: str) -> str:
    """Return the reason that the workflow would have recorded."""
    if model == "dsen2cr":
        return "weights not fetched: put dsen2cr_carl.hdf5 into resources/weights"
    if model in ("mosaic", "nearest", "regressed") and recipe.context == 0:
        return "needs 1 context frames, the scene has 0"
    return ""


def metric_rows(recipe: Recipe, model: str, rng: np.random.Generator, *, n_pixels: int) -> list:
    """Make up the metric rows of one result."""
    rows = []
    error = ERRORS[model] * (1 + recipe.cover) * rng.uniform(0.9, 1.1)
    for region, factor in (
        *(("all", recipe.cover), ("occluded", 1.0), ("rim", 0.3)),
        ("clear", 0.02),
    ):
        mae = error * factor
        values = {
            "MAE": (mae, "reflectance"),
            "MAE_level_removed": (0.8 * mae, "reflectance"),
            "RMSE": (1.4 * mae, "reflectance"),
            "PSNR": (-20 * np.log10(1.4 * mae), "dB"),
            "SSIM": (1 - 4 * mae, "1"),
            "SAM": (200 * mae, "degree"),
        }
        head = (recipe.id, model, recipe.protocol, recipe.cover, region)
        rows += [(*head, "all", m, v, unit, n_pixels) for m, (v, unit) in values.items()]
        rows += [
            (*head, band, "MAE", mae * scale, "reflectance", n_pixels)
            for band, scale in zip(CORE6, (0.6, 0.7, 0.8, 1.4, 1.4, 1.1), strict=True)
        ]
    rows += [
        (*head[:4], "never_seen", "all", "MAE", "", "reflectance", 0),
        (*head[:4], "occluded", "all", "answered", 1.0, "fraction", n_pixels),
        (*head[:4], "occluded", "all", "never_seen_fraction", 0.1, "fraction", n_pixels),
        (*head[:4], "occluded", "all", "days_to_clear_look", 12.0, "day", n_pixels),
        (*head[:4], "all", "all", "n_bands", 6, "band", n_pixels),
    ]
    return rows


def write_tables(
    folder: Path,
    recipes: Sequence[Recipe],
    metrics: list,
    skips: list,
    models: Mapping[str, tuple[str, str, str]] = MODELS,
) -> None:
    """Write ``metrics.csv``, ``skipped.csv``, ``manifest.json`` and the statistics.

    Scenes that have no ``scene.json`` yet get one without rasters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        if not (folder / "scenes" / recipe.id / "scene.json").exists():
            _write_bare_scene(folder, recipe)
    head = "scene,model,protocol,cloud_cover,region,band,metric,value,unit,n_pixels".split(",")
    _write_csv(folder / "metrics.csv", head, metrics)
    _write_csv(folder / "skipped.csv", ["scene", "model", "stage", "reason"], skips)
    manifest = {
        "command": "snakemake --cores 2 --resources gpu=1",
        "created": "2026-01-02T03:04:05Z",
        "versions": {"unveil": "0.1.0", "numpy": "2.4.6", "snakemake": "9.27.1"},
        "hardware": {"processor": "2 cores", "memory_gib": 8, "gpu": "none"},
        "config": {"seed": 20260, "run_models": list(models)},
        "models": {
            model: {
                "title": title,
                "kind": kind,
                "origin": origin,
                "series": kind not in ("cloudy", "dsen2cr"),
                "citation": CITATION if kind == "dsen2cr" else "",
                "weights": f"resources/weights/{model}.h5" if kind == "dsen2cr" else "",
                "weights_sha256": "ab" * 32 if kind == "dsen2cr" else "",
            }
            for model, (title, kind, origin) in models.items()
        },
        "costs": {"regressed": {"pixels": 27648, "model_seconds": 0.5, "devices": ["cpu"]}},
        "scenes": {
            r.id: {
                "protocol": r.protocol,
                "place": r.place,
                "licence": "CC-BY-4.0",
                "attribution": "made up",
            }
            for r in recipes
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    compare_models(folder, models)


def compare_models(folder: Path, models: Mapping[str, tuple[str, str, str]] = MODELS) -> None:
    """Write the statistics of the scores in ``metrics.csv``."""
    (folder / "statistics").mkdir(exist_ok=True)
    write_statistics(
        metrics=folder / "metrics.csv",
        scenes=sorted(folder.glob("scenes/*/scene.json")),
        models={model: kind for model, (_, kind, _) in models.items()},
        cloud_levels=(0.35, 0.65),
        outputs={name: folder / "statistics" / f"{name}.csv" for name in TABLES},
    )


def _write_bare_scene(folder: Path, recipe: Recipe) -> None:
    home = folder / "scenes" / recipe.id
    grid = Grid(None, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 8, 8)
    target = Frame("2020-06-15", "target", home / "frames" / "2020-06-15.tif", CORE6)
    home.mkdir(parents=True)
    save_scene(
        Scene(recipe.id, recipe.protocol, recipe.place, grid, (target,)), home / "scene.json"
    )


def _write_csv(path: Path, head: Sequence[str], rows: list) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([head, *rows])


def _write_scene(
    folder: Path, recipe: Recipe, truth: np.ndarray, rng: np.random.Generator
) -> tuple[Scene, np.ndarray]:
    size = truth.shape[-1]
    grid = Grid("EPSG:32635", (10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0), size, size)
    home = folder / "scenes" / recipe.id
    noise = gaussian_filter(rng.normal(size=(size, size)), size / 10)
    hidden = noise > np.quantile(noise, 1 - recipe.cover)
    classes = np.where(hidden, CLOUD, 0).astype(np.uint8)
    classes[hidden & (noise < np.quantile(noise, 1 - 0.8 * recipe.cover))] = SHADOW
    target = np.where(hidden, 0.35 + 0.3 * truth, truth)
    day = dt.date(2020, 6, 15)
    frames = [_frame(home, grid, day, "target", "frames", target, classes)]
    if recipe.reference:
        frames.append(_frame(home, grid, day, "reference", "truth", truth, 0 * classes))
        path = home / "truth" / "occlusion.tif"
        raster.write_cog(path, classes[None], grid, descriptions=("CLASS",), nodata=None)
        frames.append(Frame(str(day), "occlusion", path, ("CLASS",)))
    for k in range(recipe.context):
        cover = np.roll(classes, 17 * (k + 1), axis=1)
        date = day + dt.timedelta(days=10 * (k - recipe.context // 2) + 5)
        frames.append(
            _frame(home, grid, date, "context", "frames", truth * (0.9 + 0.05 * k), cover)
        )
    if recipe.radar:
        decibel = 12 * np.log10(truth[3:5] + 0.01).astype(np.float32) - 4
        path = home / "sar" / f"{day}.tif"
        raster.write_cog(path, decibel, grid, descriptions=SAR2, nodata=float("nan"))
        frames.append(Frame(str(day), "radar", path, SAR2))
    facts = {"level": "L2A", "source": "made up"} | (
        {"title": recipe.title} if recipe.title else {}
    )
    scene = Scene(recipe.id, recipe.protocol, recipe.place, grid, tuple(frames), facts)
    save_scene(scene, home / "scene.json")
    return scene, hidden


def _frame(home: Path, grid: Grid, day: dt.date, role: str, sub: str, data, classes) -> Frame:
    name = "reference" if role == "reference" else str(day)
    path, mask = home / sub / f"{name}.tif", home / "masks" / f"{name}.tif"
    raster.write_cog(path, raster.to_dn(data), grid, descriptions=CORE6, nodata=0)
    layers = np.stack([classes, np.full_like(classes, 255)])
    raster.write_cog(mask, layers, grid, descriptions=("CLASS", "CLOUD_PROBABILITY"), nodata=None)
    moved = role == "context"
    facts = {
        "eo:cloud_cover": 100.0 * cloud_cover(classes),
        "unveil:mask_sources": ["SCL"],
        "unveil:shift_px": [0.12, -0.4] if moved else [0.0, 0.0],
        "unveil:shift_reliability": 0.9,
        "unveil:shift_applied": moved,
    }
    return Frame(str(day), role, path, CORE6, mask, facts)


def _write_prediction(folder, scene: Scene, model: str, truth, hidden, rng) -> None:
    error = ERRORS[model] * gaussian_filter(rng.normal(size=truth.shape), (0, 2, 2)) * 8
    data = np.where(hidden, truth + error, truth)
    path = folder / "predictions" / model / f"{scene.id}.tif"
    raster.write_cog(
        path, raster.to_dn(data.clip(0.001, 1)), scene.grid, descriptions=CORE6, nodata=0
    )
    write_prediction_record(path.parent, {"scene": scene.id}, rule="infer_on_cpu")
