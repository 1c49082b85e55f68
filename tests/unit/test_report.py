"""The report: fair comparison, honest words, and a page for every kind of run."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.synthetic_results import (
    HOSTILE_TITLE,
    OUTLINE,
    Recipe,
    Results,
    compare_models,
    make_results,
    write_tables,
)

from unveil import raster
from unveil.bands import CLEAR, CLOUD, SHADOW
from unveil.errors import InputError
from unveil.excess import excess_to_dn
from unveil.metrics.published import DEFINITIONS
from unveil.metrics.published import FIGURES as FIGURES_OF_PAPERS
from unveil.predictions import write_prediction_record
from unveil.raster import Grid
from unveil.report import FIGURES, ReportOptions, images, render
from unveil.report import figures as charts
from unveil.report.context.answer import answer, outside_ranking, places_needed
from unveil.report.context.papers import papers_context
from unveil.report.context.picture import pixels_of
from unveil.report.context.scenes import moved_by, source_warnings
from unveil.report.context.scores import make_tables
from unveil.report.findings import pick_scenes, read_findings, read_methods
from unveil.report.images import Preview, stretch_of, thumbnail_size
from unveil.report.images import render as render_bands
from unveil.report.order import best_first
from unveil.report.places import find_places, read_outline
from unveil.report.spectra import choose_pixels
from unveil.scene import Frame, Scene, load_scene, save_scene


def read(results):
    return read_findings(
        scenes=results.scenes,
        metrics=results.metrics,
        skipped=results.skipped,
        manifest=results.manifest,
        statistics=results.statistics,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results"), size=48)


@pytest.fixture(scope="module")
def page(results):
    render(**results.inputs(), options=ReportOptions())
    return results.inputs()["output"].read_text(encoding="utf-8")


def test_of_thousands_of_scenes_a_figure_draws_an_even_choice():
    points = pd.DataFrame({"x": np.random.default_rng(1).permutation(2001), "value": 1.0})
    found = charts.spread(points, 401)
    assert found["x"].tolist() == list(range(0, 2001, 5))
    assert len(charts.spread(points[:300], 401)) == 300


def test_warnings_of_sources_are_listed_with_their_scene(results):
    findings = read(results)
    first = next(iter(findings.scenes.values()))
    warned = dataclasses.replace(first.target, facts={"unveil:warnings": ["an odd offset"]})
    frames = tuple(warned if f is first.target else f for f in first.frames)
    scenes = {**findings.scenes, first.id: dataclasses.replace(first, frames=frames)}
    found = source_warnings(dataclasses.replace(findings, scenes=scenes))
    assert [(w["date"], w["role"], w["text"]) for w in found] == [
        (first.target.date, "target", "an odd offset")
    ]
    assert source_warnings(findings) == []


def test_the_error_of_the_rim_stands_beside_that_under_cloud(page, results):
    (table,) = re.findall(
        r'<table class="score sortable" id="around-transplant">.*?</table>', page, re.DOTALL
    )
    rows = pd.read_csv(results.metrics).query("protocol == 'transplant' and band == 'all'")
    for region, metric in (("occluded", "MAE"), ("rim", "MAE"), ("occluded", "MAE_level_removed")):
        mean = rows.query(f"model == 'regressed' and region == '{region}' and metric == '{metric}'")
        assert f"{mean['value'].mean():.4f}" in table
    assert "at most 20 pixels" in table


def test_a_pair_says_what_its_dates_differ_by_themselves(tmp_path):
    results = make_results(tmp_path, [Recipe(n, n, "paired", 0.5) for n in "ab"], size=24)
    for path, floor in zip(results.scenes, (0.012, 0.024), strict=True):
        scene = load_scene(path)
        facts = {"floor": floor, "floor_after_line": floor / 2, "floor_pixels": 900}
        save_scene(replace(scene, facts=scene.facts | facts), path)
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    assert "differ by <strong>0.0180</strong>, and by <strong>0.0090</strong>" in page
    assert (
        "The two dates themselves differ by 0.0240, and by 0.0120 after one line per band" in page
    )


# --- pooling and comparison -----------------------------------------------------------


def test_pooled_scores_equal_plain_means_of_the_table(results):
    findings = read(results)
    table = next(t for t in make_tables(findings, (0.35, 0.65)) if t.protocol == "transplant")
    rows = pd.read_csv(results.metrics)
    plain = rows.query(
        "protocol == 'transplant' and model == 'regressed' and region == 'occluded' "
        "and band == 'all' and metric == 'MAE'"
    )["value"].mean()
    assert table.region == "occluded"
    assert table.cells["MAE", "regressed", len(table.labels) - 1].value == pytest.approx(plain)


def evidence_of(tmp_path, places, *, gap):
    """Return two models over many places: one ``gap`` worse, with noise of 0.001."""
    rng = np.random.default_rng(0)
    recipes = [Recipe(f"scene{i}", f"place{i}", "paired", 0.5) for i in range(places)]
    error = {"regressed": 0.01, "nearest": 0.01 + gap}
    rows = [
        (r.id, model, r.protocol, r.cover, "occluded", "all", "MAE", mae, "reflectance", 9)
        for r in recipes
        for model, mean in error.items()
        for mae in [mean + rng.normal(0, 0.001)]
    ]
    write_tables(tmp_path, recipes, rows, [])
    return read(Results(tmp_path, ()))


def judge(findings):
    return answer(findings, make_tables(findings, ())[0], min_places=5)[-1]


def verdict_of(tmp_path, places, *, gap):
    return judge(evidence_of(tmp_path, places, gap=gap))


def test_variants_of_one_network_are_no_rivals(tmp_path):
    findings = evidence_of(tmp_path, 8, gap=0.004)
    assert judge(findings).runner_up == "nearest"
    same = {k: dataclasses.replace(m, sha256="ab" * 32) for k, m in findings.methods.items()}
    alone = judge(dataclasses.replace(findings, methods=same))
    assert (alone.best, alone.runner_up) == ("regressed", "")


def test_better_is_said_from_enough_places_with_a_clear_difference(tmp_path):
    verdict = verdict_of(tmp_path, 8, gap=0.004)
    assert verdict.claim == "better" and verdict.best == "regressed"
    assert verdict.difference.low > 0


def test_equal_methods_are_not_distinguishable(tmp_path):
    assert verdict_of(tmp_path, 8, gap=0.0).claim == "indistinguishable"


def test_few_places_give_a_description_only(tmp_path):
    assert verdict_of(tmp_path, 4, gap=0.004).claim == "description"


@pytest.mark.parametrize("n_pairs", [1, 2, 10, 78, 300])
def test_a_claim_takes_as_many_places_as_can_reach_it(n_pairs):
    places = places_needed(n_pairs)
    least = [stats.wilcoxon(np.arange(1.0, n + 1)).pvalue for n in (places - 1, places)]
    assert n_pairs * least[0] > 0.05 >= n_pairs * least[1]


def test_the_best_is_seen_from_its_own_side(tmp_path):
    verdict = verdict_of(tmp_path, 8, gap=0.004)
    table = pd.read_csv(tmp_path / "statistics" / "comparison.csv").query("level == 'all'")
    assert table["first"].tolist() == ["nearest"]  # the best stands second in the table
    assert table["difference"].item() == pytest.approx(verdict.difference.difference)
    assert verdict.difference.model == "nearest" and verdict.difference.win_rate == 1
    assert verdict.difference.low == pytest.approx(table["low"].item())


def run_with_an_unranked_method(folder, *, unranked):
    """Ten scenes, two models in three bands; perhaps one of two bands on two scenes."""
    rng = np.random.default_rng(0)
    recipes = [Recipe(f"s{i}", f"p{i}", "paired", 0.5) for i in range(10)]
    bands = {"B02": 0.01, "B04": 0.02, "B08": 0.25}
    scored = [(r, m, bands) for r in recipes for m in ("regressed", "nearest")]
    rows = []
    for recipe, model, errors in scored:
        factor = {"regressed": 1.0, "nearest": 2.0}[model] * rng.uniform(0.95, 1.05)
        rows += errors_of(recipe, model, {band: factor * mae for band, mae in errors.items()})
    if unranked:
        for recipe in recipes[:2]:
            rows += errors_of(recipe, "mosaic", {"B02": 0.001, "B04": 0.001})
    write_tables(folder, recipes, rows, [])
    findings = read(Results(folder, ()))
    (table,) = make_tables(findings, ())
    return findings, table


def errors_of(recipe, model, bands):
    """Rows of MAE by band and over bands."""
    head = (recipe.id, model, recipe.protocol, recipe.cover, "occluded")
    mean = sum(bands.values()) / len(bands)
    return [
        (*head, band, "MAE", value, "reflectance", 9)
        for band, value in {**bands, "all": mean}.items()
    ]


def test_the_printed_difference_is_that_of_the_printed_means(tmp_path):
    """The test was on the bands of a model that is not ranked, the means were not."""
    findings, table = run_with_an_unranked_method(tmp_path, unranked=True)
    verdict = answer(findings, table, min_places=6)[-1]
    assert (verdict.best, verdict.runner_up, verdict.claim) == ("regressed", "nearest", "better")
    found = verdict.difference
    assert found.difference == pytest.approx(verdict.runner_up_mae - verdict.best_mae, abs=1e-7)
    assert found.low <= found.difference <= found.high
    cell = table.cells["MAE", "regressed", len(table.labels) - 1]
    assert cell.value == verdict.best_mae and cell.rank == 1


def test_a_method_that_is_not_ranked_changes_no_verdict(tmp_path):
    with_it = run_with_an_unranked_method(tmp_path / "with", unranked=True)
    without = run_with_an_unranked_method(tmp_path / "without", unranked=False)
    assert answer(*with_it, min_places=6) == answer(*without, min_places=6)
    (other,) = outside_ranking(
        with_it[0], answer(*with_it, min_places=6)[-1], protocol=with_it[1].protocol
    )
    assert (other["model"], other["n_scenes"]) == ("mosaic", 2)
    assert other["best_mae"] == pytest.approx(0.015, rel=0.1), "on the two bands that both give"


@pytest.mark.slow
def test_ids_that_look_like_numbers_or_nothing_are_rendered(tmp_path):
    ids = ["001", "002", "NA", "NaN", "null", "1e5", "True"]
    recipes = [Recipe(name, f"{i:02}", "paired", 0.5) for i, name in enumerate(ids)]
    models = {"cloudy": ("cloudy", "cloudy", "none")}
    models |= {name: (name, "kind", "none") for name in ids}
    rows, skips = [], [("NA", "NaN", "inference", "null")]
    make_results(tmp_path, recipes, size=24)
    for recipe in recipes:
        for number, model in enumerate(models):
            if (recipe.id, model) != ("NA", "NaN"):
                rows += errors_of(recipe, model, {"B02": 0.01 * (1 + number), "B03": 0.01})
    write_tables(tmp_path, recipes, rows, skips, models)
    results = Results(tmp_path, tuple(tmp_path / "scenes" / name / "scene.json" for name in ids))
    findings = read(results)
    assert set(findings.scores["scene"]) == set(ids) and findings.reasons("NA", "NaN") == ["null"]
    assert set(findings.statistics.pooled["model"]) == set(models)
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    assert all(f'id="scene-{name}"' in page for name in ids)
    assert all(f'<tr><th scope="row">{name}</th>' in page for name in ids)


# --- images ---------------------------------------------------------------------------


def test_one_stretch_serves_every_image_of_a_row():
    truth = np.linspace(0.1, 0.2, 100, dtype=np.float32).reshape(1, 10, 10).repeat(3, axis=0)
    limits = stretch_of(truth, (0, 100), common_span=True)
    assert limits == [pytest.approx((0.1, 0.2))] * 3
    assert (render_bands(truth + 0.1, limits) == 255).all()


def test_unknown_pixels_are_grey():
    bands = np.full((3, 2, 2), 0.1, np.float32)
    bands[1, 0, 0] = np.nan
    image = render_bands(bands, [(0, 0.1)] * 3)
    assert (image[0, 0] == 128).all() and (image[1, 1] == 255).all()


def test_a_flat_scene_has_a_stretch():
    (low, high), *_ = stretch_of(np.full((3, 4, 4), 0.2), (2, 98), common_span=False)
    assert high - low >= 0.01 * (1 - 1e-9)


@given(st.integers(1, 500), st.integers(1, 25))
def test_thumbnails_shrink_with_their_number(rows, columns):
    size = thumbnail_size(rows, columns, 256)
    assert 48 <= size <= 256
    assert thumbnail_size(rows + 1, columns, 256) <= size


def test_the_picture_spreads_over_cloud_cover():
    cover = {f"s{i:04d}": i / 2000 for i in range(2000)} | {"unknown": float("nan")}
    chosen = pick_scenes(cover, 5)
    assert chosen[0] == "s0000" and chosen[-1] == "unknown" and len(chosen) == 5


# --- the page -------------------------------------------------------------------------


def test_every_file_is_written(page, results):
    for name in FIGURES:
        assert (results.inputs()["figures"] / name).stat().st_size > 0


def test_the_page_refers_to_nothing_outside_itself(page):
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in html.unescape(page)


def test_a_title_with_markup_is_text(page):
    assert HOSTILE_TITLE not in page
    assert "&lt;script&gt;window.hacked" in page


def test_weights_trained_here_say_so_wherever_the_model_is_named(page):
    named = re.findall(r"DSen2-CR architecture, small.{0,15}", page)
    assert named
    assert all("trained here" in text for text in named)


def test_a_title_that_says_trained_here_is_left_alone():
    methods = read_methods({"m": {"title": "Net, trained here", "origin": "trained-here"}})
    assert methods["m"].title == "Net, trained here"


def test_the_stretch_of_each_row_is_stated(page):
    assert len(re.findall(r"Stretch, from (?:Cloud-free|clear part of Cloudy)", page)) == 6


def test_skips_and_scenes_without_truth_are_shown_with_their_reason(page):
    assert "needs 1 context frames, the scene has 0" in page
    assert "no cloud-free image" in page


def test_data_in_the_page_are_strict_json(page):
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        json.loads(block, parse_constant=pytest.fail)


def test_published_figures_are_marked_and_kept_apart(page):
    assert "do not rank these numbers" in page
    assert page.count(">second-hand<") == sum(figure.second_hand for figure in FIGURES_OF_PAPERS)
    assert "27.76" in page and "9.472" in page


def test_too_few_places_are_said_to_be_too_few(page):
    assert re.search(r"1 place compared\. A test of 10 pairs of\s+models needs 9", page)
    assert "There is no critical-difference diagram" in page


def test_each_work_is_cited_once(page):
    entries = re.search(r'<pre id="bibtex".*?</pre>', page, re.DOTALL).group()
    assert entries.count("10.1016/j.isprsjprs.2020.05.013") == 1
    assert "utilise" not in entries


@pytest.fixture(scope="module")
def ten_places(tmp_path_factory):
    recipes = [Recipe(f"s{i}", f"p{i}", "transplant", 0.05 + 0.09 * i) for i in range(10)]
    results = make_results(tmp_path_factory.mktemp("ten"), recipes, size=24)
    prediction = results.predictions / "regressed" / "s0.tif"
    shutil.copy(prediction, prediction.with_name("s0_std.tif"))
    with open(results.metrics, "a") as stream:
        stream.writelines(
            f"{r.id},regressed,transplant,{r.cover},occluded,all,coverage_{q},0.5,fraction,9\n"
            for r in recipes
            for q in (10, 50, 90)
        )
    compare_models(results.folder)
    render(**results.inputs(), options=ReportOptions())
    return results.inputs()["output"].read_text(encoding="utf-8")


@pytest.mark.slow
def test_enough_places_give_a_test_and_a_diagram(ten_places):
    assert "is better than" in ten_places
    assert "Critical-difference diagram" in ten_places


@pytest.mark.slow
def test_a_stated_standard_deviation_has_a_view_and_a_calibration(ten_places, page):
    assert "Standard deviation that the model states" in ten_places
    assert "On the diagonal a model knows its error" in ten_places
    assert "Standard deviation that" not in page and "On the diagonal" not in page


def test_a_run_in_which_every_model_was_skipped_has_a_page(tmp_path):
    results = make_results(tmp_path, size=24, skip_all=True)
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    assert "There is no answer" in page and "every model skipped" in page


def test_without_radar_there_is_no_radar_column(tmp_path):
    results = make_results(tmp_path, [Recipe("one", "here", "transplant", 0.5)], size=24)
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    assert '<th scope="col">SAR</th>' not in page


def test_the_same_results_give_the_same_page(results, page, tmp_path):
    inputs = results.inputs() | {"output": tmp_path / "again.html", "figures": tmp_path}
    render(**inputs, options=ReportOptions())
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


# --- spectra, places, the papers' definitions ------------------------------------------


def test_the_pixels_of_the_spectra_are_chosen_by_the_truth_among_the_hidden():
    near = np.arange(100, dtype=np.float32).reshape(1, 10, 10) / 100
    near[0, 0, 5] = np.nan
    hidden = np.zeros((10, 10), bool)
    hidden[:5] = True
    chosen = choose_pixels(Preview(("B08",), near), hidden)
    assert list(chosen) == ["dark", "middle", "bright"]
    values = [near[0][pixel] for pixel in chosen.values()]
    assert values == sorted(values) and max(values) < 0.5
    assert values[1] == pytest.approx(0.25, abs=0.01)
    assert choose_pixels(Preview(("B08",), near), np.zeros_like(hidden)) == {}


def test_a_spectrum_is_what_lies_in_the_rasters(results):
    scene = load_scene(results.scenes[0])
    paths = {"regressed": results.predictions / "regressed" / f"{scene.id}.tif"}
    pixels = pixels_of(scene, paths, 32)
    assert [pixel.name for pixel in pixels] == ["dark", "middle", "bright"]
    for pixel in pixels:
        dn = raster.read(paths["regressed"])[:, pixel.row, pixel.column]
        assert pixel.values["regressed"] == pytest.approx((dn / 10_000).tolist())
        truth = np.array(pixel.values["Cloud-free"])
        expected = np.abs(dn / 10_000 - truth).mean()
        assert pixel.mae("regressed") == pytest.approx(expected, abs=1e-4)


def test_places_lie_where_their_scenes_do(results):
    places = {place.id: place for place in find_places(read(results))}
    assert places["romania"].n_scenes == 3
    # Zone 35 N, 300 km E (200 km west of the central meridian, 27 E), 5000 km N.
    assert places["romania"].longitude == pytest.approx(24.46, abs=0.01)
    assert places["romania"].latitude == pytest.approx(45.12, abs=0.01)
    document = json.loads((results.inputs()["figures"] / "places.geojson").read_text())
    assert len(document["features"]) == len(places) == 4


def test_the_outline_is_of_the_whole_earth():
    rings = read_outline(OUTLINE)
    assert all(ring[0] == ring[-1] and len(ring) > 3 for ring in rings)
    points = np.concatenate([np.array(ring) for ring in rings])
    assert points.min(axis=0)[1] == -90 and points.max(axis=0)[1] == pytest.approx(83.6, abs=0.3)
    assert points.max(axis=0)[0] > 180, "land beyond the date line goes on"
    europe = np.array(max(rings, key=len))
    assert (np.hypot(*(europe - [-9.5, 38.8]).T) < 1).any(), "the coast near Lisbon"


def test_an_outline_that_is_none_is_refused(tmp_path):
    (tmp_path / "land.geojson").write_text("{}")
    with pytest.raises(InputError, match=r"land\.geojson"):
        read_outline(tmp_path / "land.geojson")


def test_each_papers_definition_stands_beside_ours_and_its_own_figures(tmp_path):
    recipes = [Recipe(f"s{i}", "p", "paired", 0.5) for i in range(2)]
    rows = []
    for recipe, mae, pixels in zip(recipes, (0.01, 0.04), (300, 100), strict=True):
        head = (recipe.id, "nearest", recipe.protocol, recipe.cover)
        rows += [
            (*head, "all", "all", "MAE", 0.02, "reflectance", 9),
            (*head, "as_published:DSen2-CR", "all", "MAE", mae, "reflectance", pixels),
        ]
    write_tables(tmp_path, recipes, rows, [])
    findings = read(Results(tmp_path, ()))
    tables = make_tables(findings, ())
    assert [table.region for table in tables] == ["all"]
    papers = {paper["name"]: paper for paper in papers_context(findings, tables)}
    assert list(papers) == list(DEFINITIONS)
    (row,) = papers["DSen2-CR"]["rows"]
    assert row["theirs"]["MAE"] == pytest.approx((0.01 * 300 + 0.04 * 100) / 400)
    assert row["ours"]["MAE"] == pytest.approx(0.02) and row["scenes"] == 2
    assert [figure["psnr"] for figure in papers["DSen2-CR"]["figures"]] == [28.7, 29.3, 27.6, 28.8]
    assert papers["UnCRtainTS"]["rows"] == [] and len(papers["UnCRtainTS"]["figures"]) == 2


def test_methods_stand_in_the_order_of_their_error(results):
    findings = read(results)
    order = best_first(findings)
    assert order[:2] == ["cloudy", "regressed"] and order[-1] == "dsen2cr"
    assert best_first(findings, "simulate")[1] == "dsen2cr-small"


def test_every_protocol_has_methods_in_colour(tmp_path):
    """Nine models on one protocol must not leave the only model of another without bars."""
    recipes = [Recipe("a", "p", "transplant", 0.5), Recipe("b", "q", "simulate", 0.5)]
    many = [f"m{i}" for i in range(9)]
    rows = []
    for model in (*many, "other"):
        recipe = recipes[model == "other"]
        head = (recipe.id, model, recipe.protocol, recipe.cover, "occluded")
        error = 0.9 if model == "other" else 0.01 * (1 + int(model[1]))
        rows += [(*head, band, "MAE", error, "reflectance", 9) for band in ("all", "B02")]
    models = {model: (model, model, "none") for model in (*many, "other")}
    write_tables(tmp_path, recipes, rows, [], models)
    findings = read(Results(tmp_path, ()))
    strong = {look.model for look in charts.looks(findings, [*many, "other"]) if look.strong}
    assert {"m0", "other"} < strong and "m8" not in strong
    assert len(charts.mae_by_band(findings).axes) == 2


def test_every_scene_has_an_anchor(results, page):
    scenes = [path.parent.name for path in results.scenes]
    assert all(page.count(f'id="scene-{name}"') == 1 for name in scenes)


def test_the_film_shows_the_frames_that_models_see(page, results):
    film = re.search(r'<ul class="film">.*?</ul>', page, re.DOTALL).group()
    scene = load_scene(results.scenes[0])
    assert film.count("<li") == 1 + len(scene.context) and film.count('class="target"') == 1
    assert "reference" not in film


def test_the_film_shows_classes_veil_and_shift_of_a_frame(tmp_path):
    grid = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 60, 60)
    classes = np.full((60, 60), CLEAR, np.uint8)
    classes[10:20, 10:20], classes[40:50, 40:50] = CLOUD, SHADOW
    excess = np.zeros((60, 60))
    excess[classes == CLOUD], excess[classes == SHADOW], excess[:, 55:] = 0.3, -0.3, np.nan
    frames = []
    for role, date in (("target", "2020-06-01"), ("context", "2020-06-11")):
        paths = [tmp_path / f"{role}_{part}.tif" for part in ("image", "mask", "veil")]
        image = np.full((3, 60, 60), 1000, np.uint16)
        arrays = (image, classes[None], excess_to_dn(excess)[None])
        names = (("B04", "B03", "B02"), ["CLASS"], ["EXCESS"])
        for path, array, bands in zip(paths, arrays, names, strict=True):
            raster.write_cog(path, array, grid, descriptions=bands, nodata=None)
        frames.append(Frame(date, role, paths[0], names[0], paths[1], veil=paths[2]))
    bare = replace(frames[1], date="2020-06-21", veil=None)
    scene = Scene("s", "none", "p", grid, (*frames, bare))
    first, _, last = images.make_film(scene, names[0], [(0.0, 0.3)] * 3)
    assert (first.image[10, 12] == images.OUTLINE).all()
    assert (first.image[40, 42] == images.SHADOW_OUTLINE).all()
    assert len(set(first.image[30, 30].tolist())) == 1  # grey ground
    red, green, blue = first.veil[15, 15].astype(int)
    assert red > 2 * blue and red > 2 * green
    assert first.veil[45, 45, 2] > 2 * first.veil[45, 45, 0]
    assert (first.veil[30, 58] == images.UNKNOWN_GREY).all()
    assert last.veil is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"unveil:shift_px": [0.5, -0.25], "unveil:shift_applied": True}, "moved by +0.50, -0.25"),
        ({"unveil:shift_px": [0.1, 0.0]}, "lies off by +0.10, +0.00"),
        ({"unveil:shift_px": None}, ""),
        ({"unveil:shift_px": [0.0, 0.0]}, ""),
    ],
)
def test_the_film_says_how_a_frame_was_moved(facts, words):
    frame = Frame("2020-06-01", "context", Path(), ("B04",), facts=facts)
    assert moved_by(frame) == words


def test_the_report_knows_of_the_metrics_their_names_and_files_only(root):
    """Nothing can be pooled, tested or scored a second time where none of it is imported."""
    known = {"levels", "reading", "registry", "tables"}
    for path in (root / "scripts/unveil/report").rglob("*.py"):
        imported = re.findall(r"unveil\.metrics(?:\.| import )(\w+)", path.read_text())
        assert set(imported) <= known, path


# --- bad input ------------------------------------------------------------------------


def test_a_metrics_table_without_a_column_is_refused(results, tmp_path):
    broken = tmp_path / "metrics.csv"
    pd.read_csv(results.metrics).drop(columns="region").to_csv(broken, index=False)
    with pytest.raises(InputError, match=r"metrics\.csv.*region"):
        render(**(results.inputs() | {"metrics": broken}), options=ReportOptions())


def test_metrics_of_another_run_are_refused(results, tmp_path):
    document = json.loads(results.manifest.read_text())
    del document["models"]["regressed"]
    other = tmp_path / "manifest.json"
    other.write_text(json.dumps(document))
    with pytest.raises(InputError, match="regressed"):
        render(**(results.inputs() | {"manifest": other}), options=ReportOptions())


@pytest.mark.parametrize("name", ["metrics", "skipped", "manifest"])
def test_a_missing_file_is_named(results, tmp_path, name):
    inputs = results.inputs() | {name: tmp_path / "absent"}
    with pytest.raises(InputError, match="absent"):
        render(**inputs, options=ReportOptions())


def test_cloud_levels_must_rise():
    with pytest.raises(InputError, match="cloud_levels"):
        ReportOptions(cloud_levels=(0.6, 0.4))


def test_every_key_of_the_configuration_is_an_option(root):
    schema = yaml.safe_load((root / "config/schemas/config.schema.yaml").read_text())
    known = {field.name: field.default for field in dataclasses.fields(ReportOptions)}
    for key, entry in schema["properties"]["report"]["properties"].items():
        default = known[key]
        assert (list(default) if isinstance(default, tuple) else default) == entry["default"]


def test_methods_with_different_bands_are_compared_on_the_bands_they_share(tmp_path):
    """A model without the hard band must not win by leaving it out."""
    recipes = [Recipe(f"scene{i}", f"place{i}", "simulate", 0.5) for i in range(6)]
    errors = {"nearest": {"B02": 0.01, "B08": 0.09}, "regressed": {"B02": 0.02}}
    rows = []
    for recipe in recipes:
        for model, bands in errors.items():
            head = (recipe.id, model, recipe.protocol, recipe.cover, "occluded")
            mean = sum(bands.values()) / len(bands)
            for band, value in {**bands, "all": mean}.items():
                rows.append((*head, band, "MAE", value, "reflectance", 9))
    write_tables(tmp_path, recipes, rows, [])
    findings = read(Results(tmp_path, ()))
    verdict = answer(findings, make_tables(findings, ())[0], min_places=5)[-1]
    assert verdict.best == "nearest" and verdict.best_mae == pytest.approx(0.01)
    assert verdict.shared_bands == ("B02",)


def keep_one_band(results, name, band):
    """Make all rasters of a scene, and of its predictions, ones of a single odd band."""
    path = results.folder / "scenes" / name / "scene.json"
    scene = load_scene(path)
    frames = []
    for frame in scene.frames:
        data = raster.read(frame.path)[:1]
        raster.write_cog(frame.path, data, scene.grid, descriptions=[band], nodata=0)
        frames.append(replace(frame, bands=(band,)))
    save_scene(replace(scene, frames=tuple(frames)), path)
    for image in results.predictions.glob(f"*/{name}.tif"):
        data = raster.read(image)[:1]
        raster.write_cog(image, data, scene.grid, descriptions=[band], nodata=0)
        write_prediction_record(image.parent, {"scene": name}, rule="infer_on_cpu")


def pictures_of(page, name):
    return re.findall(rf'data-scene="{name}"[^>]*><img src="([^"]+)"', page)


@pytest.mark.slow
def test_a_scene_of_one_odd_band_leaves_the_page_of_the_others_intact(tmp_path):
    recipes = [Recipe(name, name, "transplant", 0.5) for name in ("alps", "etna", "odd")]
    results = make_results(tmp_path, recipes, size=24)
    keep_one_band(results, "odd", "B10")
    render(**results.inputs(), options=ReportOptions())
    page = results.inputs()["output"].read_text(encoding="utf-8")
    whole = make_results(tmp_path / "whole", recipes, size=24)
    render(**whole.inputs(), options=ReportOptions())
    expected = whole.inputs()["output"].read_text(encoding="utf-8")
    for name in ("alps", "etna"):
        assert len(pictures_of(page, name)) > 3, name
        assert pictures_of(page, name) == pictures_of(expected, name), name
    assert pictures_of(page, "odd") and "B10" in page
