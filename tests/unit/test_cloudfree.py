"""Cloud-free images of the dates of a place: which dates, which model, where pixels come from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window
from tests.small_run import ALL_CLOUD, BANDS, DATES, DONOR, GRID, write_place

from unveil import raster
from unveil.assembly.assemble import assemble_row
from unveil.assembly.planning import plan_judges
from unveil.assembly.product_dates import plan_dates, wanted_days
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.bands import CLEAR, CLOUD
from unveil.cloudfree.area import inside_of
from unveil.cloudfree.choice import RECOMMENDED, choose, read_ranking
from unveil.cloudfree.provenance import FILLED, NEVER_SEEN, NODATA, OBSERVED, VEILED, trace
from unveil.cloudfree.quality import Score, expected, mean_by_model
from unveil.config import REPOSITORY, SceneRow, load_config
from unveil.coregistration.coregister_scene import CoregistrationOptions, coregister_scene
from unveil.errors import InputError
from unveil.masks.mask_scene import detect_clouds, judge_frame, mask_scene, why_unjudged
from unveil.masks.options import MaskOptions
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.places.table import read_places
from unveil.scene import NO_ACQUISITION, Frame, Scene, read_inputs
from unveil.sources.selection import Limits
from unveil.workflow.tables import MOST_CANDIDATES

SOURCES = load_config({})["sources"]
RANKING = REPOSITORY / "resources" / "ranking.tsv"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_place(folder)
    return folder


def row(place, target_date, **others):
    return SceneRow("mine", "local", str(place), target_date, "none", **others)


def ready(row, folder):
    """Take a row through the stages that come before models."""
    scene = assemble_row(
        row,
        SOURCES,
        folder,
        ProtocolSettings(1),
        detect=detect_clouds,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    scene = mask_scene(scene, folder, MaskOptions(detectors=("source",)))
    return coregister_scene(scene, folder, CoregistrationOptions())


# --- dates ---------------------------------------------------------------------------------


def test_every_acquisition_from_start_to_end_the_middle_of_each_month_or_a_regular_step():
    known = ["2020-02-28", "2020-03-09", "2020-04-01"]
    span = {"first": "2020-02-28", "last": "2020-04-01"}
    assert wanted_days("every", known, first="2020-03-01", last="2020-04-01") == known[1:]
    assert wanted_days("monthly", (), **span) == ["2020-03-15"]
    # 2020 is a leap year.
    assert wanted_days("10D", (), **span) == [
        "2020-02-28",
        "2020-03-09",
        "2020-03-19",
        "2020-03-29",
    ]


def test_a_row_of_many_dates_becomes_one_scene_a_date_and_one_of_a_date_stays(place):
    planned = plan_dates(row(place, "every", start="2020-03-01", end="2020-05-31"), SOURCES)
    assert [r.scene for r in planned] == ["mine-20200311", "mine-20200411", "mine-20200511"]
    assert {r.product for r in planned} == {"mine"}
    assert len(plan_dates(row(place, "monthly"), SOURCES)) == 8  # February to September
    single = row(place, DATES[0])
    assert plan_dates(single, SOURCES) == [single]


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ({"target_date": "every", "protocol": "paired"}, "target_date"),
        ({"target_date": "2020-01-01", "protocol": "none", "start": "2020-01-01"}, "start"),
        ({"target_date": "monthly", "protocol": "none", "start": "2020-02-30"}, "start"),
        (
            {"target_date": "10D", "protocol": "none", "start": "2020-03-01", "end": "2020-02-01"},
            "end",
        ),
    ],
)
def test_what_makes_no_sense_of_dates_is_refused_by_its_column(tmp_path, cells, field):
    table = tmp_path / "scenes.tsv"
    cells = {"scene": "a", "source": "local", "path": "p", **cells}
    table.write_text("\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n")
    with pytest.raises(InputError, match=rf"line 2\.{field}"):
        read_scenes(table)


def test_a_period_without_an_acquisition_says_what_needs_none(place):
    with pytest.raises(InputError, match="monthly or 10D"):
        plan_dates(row(place, "every", start="2021-01-01", end="2021-02-01"), SOURCES)


# --- days without an acquisition -------------------------------------------------------------


@pytest.fixture(scope="module")
def between(place, tmp_path_factory):
    """A scene of the day in the middle of two clear acquisitions."""
    return ready(row(place, "2020-05-26"), tmp_path_factory.mktemp("between"))


def test_the_ground_of_a_day_without_an_acquisition_lies_between_the_looks_around_it(between):
    assert NO_ACQUISITION in between.target.facts
    inputs = read_inputs(between)
    assert not inputs.target_clear.any()
    model = create(ModelSpec("linear", "linear"))
    assert model.skip(between) is None
    found = model.predict(inputs).reflectance
    before, after = (inputs.context[list(inputs.days).index(days)] for days in (-15, 16))
    np.testing.assert_allclose(found, (16 * before + 15 * after) / 31, atol=1e-5)


def test_a_date_of_a_product_never_moves_whatever_the_window(place, tmp_path):
    wide = {**SOURCES, "selection": {**SOURCES["selection"], "window_days": 40}}
    planned = plan_dates(row(place, "monthly", start="2020-05-01", end="2020-05-31"), wide)[0]
    scene = assemble_row(
        planned,
        wide,
        tmp_path,
        ProtocolSettings(1),
        detect=detect_clouds,
        refusal=why_unjudged,
        judge=judge_frame,
    )
    assert scene.target.date == "2020-05-15"
    assert NO_ACQUISITION in scene.target.facts


@pytest.mark.parametrize("kind", ["cloudy", "inpaint", "clear_mean", "vpint2", "mnspi"])
def test_models_that_look_at_the_target_skip_a_day_without_an_acquisition(between, kind):
    reason = create(ModelSpec(kind, kind)).skip(between)
    assert reason is not None
    assert "needs an image of 2020-05-26" in reason


@pytest.mark.parametrize("kind", ["damped", "median", "robust_line", "harmonic", "regressed"])
def test_models_of_the_other_looks_answer_for_all_of_it(between, kind):
    model, inputs = create(ModelSpec(kind, kind)), read_inputs(between)
    assert model.skip(between) is None
    model.load()
    model.prepare(between, [inputs])
    assert np.isfinite(model.predict(inputs).reflectance).all()


def test_what_an_acquisition_does_not_show_is_filled_like_what_is_hidden(place, tmp_path):
    gap = tmp_path / "gap"
    write_place(gap)
    path = gap / "frames" / f"{DATES[3]}.tif"
    data = raster.read(path)
    data[:, :, :20] = 0
    raster.write_cog(path, data, GRID, descriptions=BANDS, nodata=0)
    dated = plan_dates(row(gap, "every", start=DATES[3], end=DATES[3]), SOURCES)[0]
    inputs = read_inputs(ready(dated, tmp_path / "scene"))
    assert not inputs.target_clear[:, :20].any()
    assert inputs.target_clear[:, 35:].all()  # what lies next to the gap counts as hidden
    image = create(ModelSpec("median", "median")).predict(inputs).reflectance
    assert np.isfinite(image).all()


# --- where pixels come from --------------------------------------------------------------------


def scene_of(folder, target, context, *, days=(4, -9)):
    """Write masks of a target and its context, ``(H, W)`` classes each, and their scene."""
    frames = []
    for number, (classes, away) in enumerate(zip([target, *context], (0, *days), strict=False)):
        path = folder / f"{number}.tif"
        raster.write_cog(path, classes[None], GRID, descriptions=["CLASS"], nodata=None)
        date = f"2020-06-{15 + away:02d}"
        role = "context" if number else "target"
        frames.append(Frame(date, role, path, ("B02",), path))
    return Scene("s", "none", "p", GRID, tuple(frames))


def test_pixels_are_observed_near_cloud_filled_or_never_seen(tmp_path):
    target, near, far = (np.full(GRID.shape, CLEAR, np.uint8) for _ in range(3))
    target[:, :20] = CLOUD
    near[:, :10] = CLOUD
    far[:, :5] = CLOUD
    scene = scene_of(tmp_path, target, [near, far])
    answered = np.ones(GRID.shape, bool)
    answered[:, 15] = False
    whole = trace(scene, Window(0, 0, GRID.width, GRID.height), answered)
    expected_classes = [NEVER_SEEN] * 5 + [FILLED] * 15 + [VEILED] * 10 + [OBSERVED] * 50
    expected_classes[15] = NODATA
    assert whole.classes[30].tolist() == expected_classes
    days = [NODATA] * 5 + [9] * 5 + [4] * 10 + [0] * 60
    assert whole.days[30].tolist() == days
    assert whole.looks[30].tolist() == [0] * 5 + [1] * 5 + [2] * 10 + [3] * 60
    part = Window(15, 8, 30, 24)
    inner = raster.within(part, Window(0, 0, GRID.width, GRID.height))
    np.testing.assert_array_equal(trace(scene, part, answered[inner]).bands, whole.bands[:, *inner])


def test_pixels_outside_of_the_polygon_are_none_of_the_place(tmp_path):
    from rasterio.warp import transform_geom

    west, north = GRID.transform[2], GRID.transform[5]
    corners = [(west, north), (west + 300, north), (west + 300, north - 640), (west, north - 640)]
    ring = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    path = tmp_path / "clip.geojson"
    path.write_text(json.dumps(transform_geom(GRID.crs, "EPSG:4326", ring, precision=9)))
    inside = inside_of(GRID, str(path)).of(Window(0, 0, GRID.width, GRID.height))
    assert inside[:, :30].all()
    assert not inside[:, 30:].any()
    path.write_text(json.dumps({"type": "Point", "coordinates": [15, 45]}))
    with pytest.raises(InputError, match="no polygon"):
        inside_of(GRID, str(path))


# --- which model, and how good it is -------------------------------------------------------------


def scores(protocol, **errors):
    """Scores of models on scenes of July, half covered."""
    return [
        Score(model, f"scene-{n}", protocol, f"2020-07-{n + 1:02d}", 0.3, error)
        for model, found in errors.items()
        for n, error in enumerate(found)
    ]


def test_a_place_judges_by_its_real_pairs_then_by_transplants_then_others_do():
    elsewhere = [replace(s, date="", cover=None) for s in scores("paired", a=[1, 1], b=[2, 2])]
    pairs = scores("paired", a=[0.03] * 3, b=[0.02] * 3)
    lent = scores("transplant", a=[0.01] * 3, b=[0.02] * 3)
    assert choose(RECOMMENDED, "ab", [*pairs, *lent], elsewhere).models == ("b", "a")
    assert choose(RECOMMENDED, "ab", [*pairs[:2], *pairs[3:5], *lent], elsewhere).models[0] == "a"
    rest = choose(RECOMMENDED, "abc", pairs[:2], elsewhere)
    assert rest.models == ("a", "b", "c")
    assert "other places" in rest.basis
    assert choose("mine", "ab", pairs, elsewhere).models == ("mine",)


def test_models_are_compared_on_what_all_of_them_answered_and_the_rest_come_last():
    pairs = scores("paired", a=[0.03] * 3, b=[0.001])
    assert list(mean_by_model(pairs)) == ["a"]
    assert choose(RECOMMENDED, "ba", pairs, []).models == ("a", "b")


def test_the_ranking_that_is_shipped_is_of_places_without_training_and_what_the_evidence_prints():
    page = (REPOSITORY / "docs" / "evidence.md").read_text()
    pairs = page.split("\n## Real pairs\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in pairs.splitlines() if line.startswith("|")]
    heads = next(line for line in lines if line[1].startswith(("antwerp", "hungary")))
    by_place = {line[0].strip("*`"): line for line in reversed(lines[lines.index(heads) :])}
    places = read_places()
    scores = read_ranking(RANKING)
    assert {places[score.where].role for score in scores} == {"judges", "validates"}
    for score in (s for s in scores if s.model in ("median", "harmonic", "led_frames")):
        column = next(n for n, head in enumerate(heads) if head.startswith(f"{score.where} ("))
        assert by_place[score.model][column].split(" ")[0] == f"{score.mae:.4f}"
    assert len({score.model for score in scores}) >= MOST_CANDIDATES


def test_the_expected_error_rests_on_the_nearest_evidence_that_suffices():
    own = scores("paired", a=[0.01, 0.02, 0.03])
    summer = expected("a", "2021-08-01", 0.2, own, [])
    assert summer.error == pytest.approx(0.02)
    # t of two degrees of freedom at 97.5 % is 4.303; the deviation of the mean is .01 / sqrt(3)
    assert summer.high == pytest.approx(0.02 + 4.303 * 0.01 / 3**0.5, abs=1e-5)
    assert summer.low == 0
    assert "summer, partly hidden" in summer.basis
    assert "any cover" in expected("a", "2021-08-01", 0.9, own, []).basis
    assert "any season" in expected("a", "2021-01-01", 0.2, own, []).basis
    others = [replace(s, where=f"place-{n}") for n, s in enumerate(own)]
    assert "other places" in expected("a", "2021-01-01", 0.2, own[:2], others).basis
    unknown = expected("b", "2021-01-01", 0.2, own, others)
    assert unknown.error is None
    assert "nothing is known" in unknown.basis


def test_a_place_with_clear_dates_and_no_pair_judges_by_transplants(place, tmp_path):
    dated = row(place, "every", product="mine")
    limits = Limits(**SOURCES["selection"])
    found = plan_judges(dated, ProtocolSettings(1), tmp_path, limits)
    assert {r.protocol for r in found} == {"transplant"}
    assert len(found) == 4
    assert {r.cloud_date for r in found} <= {DONOR, ALL_CLOUD}
    assert {r.product for r in found} == {"mine"}


# --- a series without jumps ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_series_of_images_is_no_noisier_than_its_clear_dates(tmp_path):
    """Romania's forest in summer: dates of 0 to 100 % cover, four of them clear."""
    romania = REPOSITORY / "resources" / "example" / "romania"
    wish = row(romania, "every", start="2018-07-01", end="2018-08-30", product="")
    found, clear = {}, {}
    for dated in plan_dates(wish, SOURCES):
        scene = ready(dated, tmp_path / dated.scene)
        inputs = read_inputs(scene)
        date = scene.target.date
        found[date] = create(ModelSpec("median", "median")).predict(inputs).reflectance
        if inputs.target_clear.mean() > 0.9:
            clear[date] = inputs.target
    assert len(clear) >= 3
    assert len(found) >= 2 * len(clear)
    red, near_infrared = (scene.bands.index(name) for name in ("B04", "B08"))
    forest = np.all(
        [(x[near_infrared] - x[red]) > 0.7 * (x[near_infrared] + x[red]) for x in clear.values()],
        axis=0,
    )
    assert forest.mean() > 0.3
    assert noise(found, forest) <= noise(clear, forest)


def noise(series, where):
    """Return the mean change from one date to the next, in reflectance."""
    images = [image[:, where] for _, image in sorted(series.items())]
    return np.mean([np.nanmean(np.abs(b - a)) for a, b in zip(images, images[1:], strict=False)])
