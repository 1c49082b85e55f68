"""The page's claims: real pairs first, one image against a series, agreement, honest numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.synthetic_results import (
    MODELS,
    Recipe,
    Results,
    compare_models,
    make_results,
    metric_rows,
    write_tables,
)

from unveil.metrics.intervals import place_intervals
from unveil.metrics.levels import ALL
from unveil.metrics.registry import print_value
from unveil.report import ReportOptions, render
from unveil.report import figures as charts
from unveil.report.context.agreement import agreement_context
from unveil.report.context.answer import answers
from unveil.report.context.claim import claims, networks_and_fillings
from unveil.report.context.scores import ALL_LEVELS, make_tables, stratum_name
from unveil.report.findings import read_findings
from unveil.report.page import count
from unveil.scene import load_scene, save_scene

MODEL_RAN = [model for model in MODELS if model != "dsen2cr"]
BOTH = [
    Recipe(f"{protocol}-{number}", f"place-{number}", protocol, 0.1 + 0.1 * number)
    for protocol in ("paired", "transplant")
    for number in range(8)
]


def read(folder):
    results = Results(folder, tuple(sorted(folder.glob("scenes/*/scene.json"))))
    return read_findings(
        scenes=results.scenes,
        metrics=results.metrics,
        skipped=results.skipped,
        manifest=results.manifest,
        statistics=results.statistics,
    )


@pytest.fixture
def folder(tmp_path):
    """Eight places with a real pair and a transplant each, without rasters."""
    rng = np.random.default_rng(3)
    rows = [
        row
        for recipe in BOTH
        for model in MODEL_RAN
        for row in metric_rows(recipe, model, rng, n_pixels=100)
    ]
    skips = [(recipe.id, "dsen2cr", "inference", "weights not fetched: run x") for recipe in BOTH]
    write_tables(tmp_path, BOTH, rows, skips)
    return tmp_path


def errors(folder, protocol: str) -> pd.DataFrame:
    rows = pd.read_csv(folder / "metrics.csv")
    rows = rows.query(
        f"protocol == '{protocol}' and region == 'occluded' and band == 'all' and metric == 'MAE'"
    )
    return rows.pivot(index="scene", columns="model", values="value")


def test_real_pairs_come_first(folder):
    findings = read(folder)
    tables = make_tables(findings, (0.35, 0.65))
    found = answers(findings, tables, ReportOptions())
    assert [entry["protocol"] for entry in found] == ["paired", "transplant"]


def test_the_best_single_image_method_is_held_against_the_best_series(folder):
    claim, _ = claims(read(folder), ReportOptions())
    table = errors(folder, "paired")
    means = table.mean()
    assert claim.protocol == "paired"
    assert (claim.single, claim.series) == (
        "dsen2cr-small",  # the cloudy input is no method
        means[["mosaic", "nearest", "regressed"]].idxmin(),
    )
    found = claim.levels[ALL_LEVELS]
    gap = (table[claim.single] - table[claim.series]).to_numpy()
    (interval,) = place_intervals(gap[:, None])
    assert found.difference == pytest.approx(gap.mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.n_places, found.n_scenes) == (8, 8)
    assert list(claim.levels) == ["0–35 %", "35–65 %", "65–100 %", ALL_LEVELS]


def test_networks_of_one_image_are_held_against_the_better_filling(folder):
    findings = read(folder)
    assert networks_and_fillings(findings, "paired") == []
    kinds = {"mosaic": "clear_mean", "nearest": "inpaint"}
    methods = {
        name: replace(method, kind=kinds.get(name, method.kind))
        for name, method in findings.methods.items()
    }
    [(filling, pair)] = networks_and_fillings(replace(findings, methods=methods), "paired")
    means = errors(folder, "paired").mean()
    assert filling == means[["mosaic", "nearest"]].idxmin()
    assert pair.model == "dsen2cr-small" and pair.difference > 0
    assert (pair.mean, pair.best_mean) == pytest.approx((means["dsen2cr-small"], means[filling]))


def test_the_best_of_a_kind_is_chosen_once_and_not_by_scene(folder):
    rows = pd.read_csv(folder / "metrics.csv", dtype=str)
    # On two scenes another series method is the best by far, on the others the worst.
    chosen = rows["scene"].isin(["paired-0", "paired-1"]) & (rows["model"] == "mosaic")
    rows.loc[chosen & (rows["metric"] == "MAE"), "value"] = "0.0001"
    rows.to_csv(folder / "metrics.csv", index=False)
    compare_models(folder)
    claim = claims(read(folder), ReportOptions())[0]
    table = errors(folder, "paired")
    oracle = table[["mosaic", "nearest", "regressed"]].min(axis=1).mean()
    assert claim.series == "regressed"
    assert claim.levels[ALL_LEVELS].best_mean > oracle


def test_agreement_is_spearmans_over_the_models_of_both_protocols(folder):
    found = agreement_context(read(folder))
    models = [model for model in MODEL_RAN if model != "cloudy"]
    one, other = (errors(folder, p)[models].mean() for p in ("paired", "transplant"))
    agreed = found["agreement"]["transplant"]
    assert agreed["n"] == len(models)
    assert agreed["rho"] == pytest.approx(stats.spearmanr(one, other).statistic)
    assert found["protocols"] == ["paired", "transplant"]


def test_models_of_equal_pixels_are_one_curve(folder):
    rows = pd.read_csv(folder / "metrics.csv", dtype=str)
    copy = rows[rows["model"] == "mosaic"].assign(model="nearest")
    # Windows of SSIM reach into clear pixels, in which two such models may differ.
    windows = copy["metric"] == "SSIM"
    copy.loc[windows, "value"] = (copy.loc[windows, "value"].astype(float) - 0.01).astype(str)
    rows = pd.concat([rows[rows["model"] != "nearest"], copy])
    rows.to_csv(folder / "metrics.csv", index=False)
    compare_models(folder)
    findings = read(folder)
    assert findings.twins == {"nearest": "mosaic"}
    labels = [look.label for look in charts.looks(findings, MODEL_RAN)]
    assert "Nearest clear look" not in labels
    assert "Mosaic of clear looks (and 1 with the same pixels)" in labels
    titles = [row["title"] for row in agreement_context(findings)["rows"]]
    assert "Nearest clear look" not in titles


def test_numbers_that_print_alike_share_their_rank(folder):
    rows = pd.read_csv(folder / "statistics/pooled.csv", keep_default_na=False, dtype=str)
    chosen = (rows[["protocol", "level", "region", "band", "metric"]] == [
        "paired", ALL, "occluded", "all", "MAE"
    ]).all(axis=1)  # fmt: skip
    values = {"regressed": "0.00901", "nearest": "0.00904", "mosaic": "0.0301"}
    rows.loc[chosen, "value"] = rows.loc[chosen, "model"].map(values).fillna("0.2")
    order = {"regressed": "1", "nearest": "2", "mosaic": "3", "dsen2cr-small": "4", "cloudy": "5"}
    rows.loc[chosen, "rank"] = rows.loc[chosen, "model"].map(order)
    rows.to_csv(folder / "statistics/pooled.csv", index=False)
    table = make_tables(read(folder), (0.35, 0.65))[0]
    ranks = {model: table.cells["MAE", model, 3].rank for model in values}
    assert ranks == {"regressed": 1, "nearest": 1, "mosaic": 2}


def test_a_zero_has_no_sign():
    assert print_value(-0.00001, "MAE") == "0.0000"
    assert print_value(-0.0001, "MAE") == "−0.0001"


@pytest.mark.parametrize(
    ("fact", "level", "printed"),
    [
        ("days_to_clear_look", "2: to 15", "up to 15 days"),
        ("days_to_clear_look", "4: above 30", "more than 30 days"),
        ("never_seen_fraction", "1: to 0", "none"),
        ("never_seen_fraction", "4: above 0.5", "more than 50 %"),
        ("season", "1: winter", "winter"),
        ("land_cover", "bare", "bare"),
    ],
)
def test_strata_are_printed_in_words(fact, level, printed):
    assert stratum_name(fact, level) == printed


def test_models_without_weights_are_counted_apart_from_what_was_skipped(folder):
    counts = count(read(folder))
    assert (counts["methods"], counts["without_weights"], counts["skips"]) == (len(MODELS), 1, 0)


def test_the_floor_is_a_line_in_the_figures_of_real_pairs(folder):
    for path in (folder / "scenes").glob("paired-*/scene.json"):
        scene = load_scene(path)
        facts = {"floor": 0.02, "floor_after_line": 0.0125, "floor_pixels": 900}
        save_scene(replace(scene, facts=scene.facts | facts), path)
    figure = charts.mae_by_cover(read(folder), (0.35, 0.65), min_places=6)
    paired, transplant = figure.axes[:2]
    lines = [line for line in paired.lines if line.get_label() == charts.FLOOR]
    assert [set(line.get_ydata()) for line in lines] == [{0.0125}]
    assert charts.FLOOR not in [line.get_label() for line in transplant.lines]


@pytest.mark.slow
def test_the_original_picture_shows_real_pairs_with_radar_at_three_covers(tmp_path):
    recipes = [
        *(Recipe(f"real-{c}", "here", "paired", c / 10, radar=True) for c in (2, 3, 5, 8)),
        Recipe("without-radar", "here", "paired", 0.4),
        Recipe("lent", "here", "transplant", 0.9, radar=True),
    ]
    results = make_results(tmp_path, recipes, size=24)
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    section = page.partition('<section id="claim"')[2].partition("</section>")[0]
    picture = section.partition("<h3>The same as images</h3>")[2]
    heads = ("Cloudy", "SAR", "DSen2-CR architecture", "Cloud-free")
    assert all(f'<th scope="col">{head}' in picture for head in heads)
    shown = [name for name in (r.id for r in recipes) if f'href="#scene-{name}"' in picture]
    assert shown == ["real-2", "real-5", "real-8"]
    assert "the official weights are not fetched" in picture
    assert "leaving the clouds in" not in page and "occluded pixels" not in page
