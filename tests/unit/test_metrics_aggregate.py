"""The only pooling: what compares, means over places, and tables whose text stays text."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from unveil.errors import InputError
from unveil.metrics import aggregate, levels, reading, statistics, tables

ODD_IDS = ["001", "NA", "NaN", "null", "1e5", "True", "-1", "1.0", "1", "None", "2020-01-01"]


def rows_of(values: dict[str, tuple[float, float | None]], model: str = "m") -> list[dict]:
    """Rows of MAE over bands: scene -> cloud cover and value."""
    rest = ("all", "all", "MAE")
    return [
        dict(
            zip(
                tables.COLUMNS,
                (scene, model, "paired", cover, *rest, value, "reflectance", 9),
                strict=True,
            )
        )
        for scene, (cover, value) in values.items()
    ]


def written(folder: Path, *shards: list[dict]) -> pd.DataFrame:
    paths = [folder / f"shard-{number}.csv" for number in range(len(shards))]
    for path, rows in zip(paths, shards, strict=True):
        tables.write_rows(rows, path)
    tables.collect(paths, folder / "metrics.csv")
    return reading.read_scores(folder / "metrics.csv")


def pooled(scores: pd.DataFrame, places: dict[str, str], of_levels=None) -> pd.DataFrame:
    """Pool scores, by the usual cloud levels unless others are given; indexed by level."""
    of_levels = of_levels or aggregate.by_cover(scores, (0.35, 0.65))
    kinds = {model: "kind" for model in scores["model"].unique()}
    columns = aggregate.pool(scores, places=places, models=kinds, levels=of_levels)
    return aggregate.pooled_table(columns).set_index("level")


def test_scores_are_pooled_per_scene_then_place_then_over_places(tmp_path) -> None:
    scores = written(
        tmp_path,
        rows_of({"a1": (0.1, 0.02), "a2": (0.2, 0.04)}),
        rows_of({"b1": (0.3, 0.09), "b2": (0.8, None)}),
    )
    found = pooled(scores, {"a1": "a", "a2": "a", "b1": "b", "b2": "b"})
    light = found.loc["0–35 %"]
    assert light["value"] == pytest.approx((0.03 + 0.09) / 2)
    assert (light["n_scenes"], light["n_places"]) == (3, 2)
    assert "65–100 %" not in found.index, "a level without any value has no row"
    assert found.loc["all", "value"] == pytest.approx(0.06)


def test_a_place_with_many_scenes_weighs_as_much_as_one_with_few(tmp_path) -> None:
    values = {"a1": 1.0, "a2": 1.0, "a3": 1.0, "b1": 3.0}
    scores = written(tmp_path, rows_of({scene: (0.1, value) for scene, value in values.items()}))
    found = pooled(scores, {scene: scene[0] for scene in values}).loc["all"]
    assert (found["value"], found["n_scenes"], found["n_places"]) == (2.0, 4, 2)


def test_scenes_can_be_sorted_by_days_to_a_clear_look_instead_of_cover(tmp_path) -> None:
    rows = rows_of({"a": (0.1, 0.02), "b": (0.9, 0.04), "c": (0.9, 0.06)})
    facts = {"a": 5.0, "b": 5.1, "c": None}
    days = [
        row | {"metric": "days_to_clear_look", "region": "occluded", "value": facts[row["scene"]]}
        for row in rows
    ]
    strata = aggregate.by_fact(written(tmp_path, rows, days), "days_to_clear_look", (5, 15))
    assert strata == {"1: to 5": ["a"], "2: to 15": ["b"], "3: above 15": []}
    found = pooled(written(tmp_path, rows), {name: name for name in facts}, strata)
    assert found["value"].to_dict() == {"1: to 5": 0.02, "2: to 15": 0.04}


def test_the_batch_that_a_scene_was_in_does_not_matter(tmp_path) -> None:
    values = {f"s{i}": (0.1, 0.01 * (i + 1)) for i in range(5)}
    rows, places = rows_of(values), {name: name for name in values}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = pooled(written(tmp_path / "one", rows), places)
    two = pooled(written(tmp_path / "two", rows[:1], rows[1:]), places)
    pd.testing.assert_frame_equal(one, two)


def test_cloud_levels_meet_without_gap() -> None:
    cover = np.array([0.0, 0.3499, 0.35, 0.65, 1.0])
    low, middle, high = names = levels.level_names((0.35, 0.65))
    assert names == ["0–35 %", "35–65 %", "65–100 %"]
    assert levels.level_of(cover, (0.35, 0.65)).tolist() == [low, low, middle, high, high]
    with pytest.raises(InputError, match="cloud_levels"):
        levels.check_bounds((0.6, 0.4))


@given(st.lists(st.floats(0, 1), min_size=1), st.lists(st.floats(0.01, 0.99), unique=True))
def test_every_cloud_cover_falls_into_one_named_level(cover, bounds) -> None:
    found = levels.level_of(np.array(cover), sorted(bounds))
    assert set(found) <= set(levels.level_names(sorted(bounds)))


# --- text -----------------------------------------------------------------------------


def test_scenes_and_models_named_like_numbers_or_missing_values_keep_their_names(tmp_path):
    shards = [rows_of({name: (0.1, 0.02) for name in ODD_IDS}, model=model) for model in ODD_IDS]
    scores = written(tmp_path, *shards, rows_of({"001": (0.1, None)}, model="x"))
    assert scores["scene"].unique().tolist() == ODD_IDS
    assert scores["model"].unique().tolist() == [*ODD_IDS, "x"]
    assert scores["value"].isna().sum() == 1


def test_a_table_in_which_every_id_is_a_number_keeps_them_as_text(tmp_path) -> None:
    names = [f"{number:03}" for number in range(1, 13)]
    scores = written(tmp_path, rows_of(dict.fromkeys(names, (0.1, 0.02)), model="007"))
    assert scores["scene"].tolist() == names and set(scores["model"]) == {"007"}


def test_twelve_dates_of_one_place_are_no_claim(tmp_path) -> None:
    """Read as numbers the scenes 001...012 lost their place, and were twelve places."""
    names = [f"{number:03}" for number in range(1, 13)]
    good = {name: (0.1, 0.01 + 0.001 * i) for i, name in enumerate(names)}
    bad = {name: (cover, value + 0.01) for name, (cover, value) in good.items()}
    scores = written(tmp_path, rows_of(good, model="1"), rows_of(bad, model="2"))
    columns = aggregate.pool(
        scores,
        places=dict.fromkeys(names, "field"),
        models={"1": "kind", "2": "kind"},
        levels={"all": names},
    )
    (row,) = statistics.comparison_table(columns).to_dict("records")
    assert (row["n_places"], row["verdict"]) == (1, statistics.TOO_FEW)


def test_a_metric_of_another_version_is_refused(tmp_path) -> None:
    rows = [row | {"metric": "LPIPS"} for row in rows_of({"a": (0.1, 0.02)})]
    with pytest.raises(InputError, match=r"metrics\.csv.*'LPIPS'"):
        written(tmp_path, rows)


def test_a_scene_without_a_place_is_refused(tmp_path) -> None:
    scores = written(tmp_path, rows_of({"a": (0.1, 0.02), "b": (0.1, 0.02)}))
    with pytest.raises(InputError, match=r"scene 'b' .*no place"):
        pooled(scores, {"a": "a"})


def test_a_model_that_is_not_of_the_run_is_refused(tmp_path) -> None:
    scores = written(tmp_path, rows_of({"a": (0.1, 0.02)}))
    with pytest.raises(InputError, match="model 'm'"):
        list(aggregate.pool(scores, places={"a": "a"}, models={"n": "kind"}, levels={}))


def test_a_scene_scored_twice_is_refused(tmp_path) -> None:
    rows = rows_of({"a": (0.1, 0.02)})
    with pytest.raises(InputError, match="scored twice"):
        pooled(written(tmp_path, rows, rows), {"a": "a"})


def test_a_table_with_other_columns_is_refused(tmp_path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("scene,score\n")
    with pytest.raises(InputError, match=r"old\.csv.*header"):
        tables.collect([path], tmp_path / "metrics.csv")
    assert not (tmp_path / "metrics.csv").exists()


# --- like for like --------------------------------------------------------------------


def test_a_method_that_skips_hard_scenes_is_not_ranked() -> None:
    present = pd.DataFrame(
        {"cloudy": [True] * 10, "full": [True] * 10, "picky": [True] * 3 + [False] * 7}
    )
    assert aggregate.comparable(present, ["cloudy"]) == ["cloudy", "full"]


def test_a_baseline_that_runs_everywhere_sets_no_measure() -> None:
    present = pd.DataFrame({"cloudy": [True] * 10, "a": [True] * 4 + [False] * 6})
    assert aggregate.comparable(present, ["cloudy"]) == ["cloudy", "a"]


def test_ranked_methods_stand_on_the_same_scenes() -> None:
    values = pd.DataFrame({"a": [1.0] * 9 + [math.nan], "b": [math.nan] + [1.0] * 9})
    assert aggregate.comparable(values.notna(), []) == ["a", "b"]
    assert aggregate.share(values, None, ["a", "b"])[0].index.tolist() == list(range(1, 9))


BANDS = ("B02", "B03", "B08")


@st.composite
def runs(draw) -> tuple[pd.DataFrame, dict[str, str]]:
    """Scores by band of three models, some absent; and the place of each scene."""
    n = draw(st.integers(1, 12))
    names = [f"s{i}" for i in range(n)]
    error = st.floats(0.001, 0.5)
    given_bands = st.sets(st.sampled_from(BANDS), max_size=3)
    rows = [
        (scene, model, band, draw(error))
        for scene in names
        for model in ("a", "b", "c")
        for band in sorted(draw(given_bands))
    ]
    places = {name: draw(st.sampled_from(["p", "q", "r", "s", "t", "u", "v"])) for name in names}
    return pd.DataFrame(rows, columns=["scene", "model", "band", "value"]), places


def tables_of(run: pd.DataFrame, places: dict[str, str]) -> tuple[pd.DataFrame, ...]:
    """Return the pooled, comparison and ranking table of MAE of a run."""
    fixed = {"protocol": "paired", "region": "occluded", "metric": "MAE", "cloud_cover": 0.5}
    by_band = run.assign(**fixed)
    over_bands = run.groupby(["scene", "model"], as_index=False)["value"].mean()
    columns = list(
        aggregate.pool(
            over_bands.assign(band="all", **fixed),
            by_band=by_band,
            places=places,
            models={"cloudy": "cloudy", "a": "x", "b": "x", "c": "x", "new": "x"},
            levels={"all": list(places)},
        )
    )
    return (
        aggregate.pooled_table(columns),
        statistics.comparison_table(columns),
        statistics.ranking_table(columns),
    )


@settings(max_examples=25, phases=(Phase.explicit, Phase.generate))
@given(runs())
def test_a_difference_is_that_of_the_means(run) -> None:
    pooled_rows, pairs, ranking = tables_of(*run)
    means = pooled_rows[pooled_rows["ranked"] == 1].set_index("model")["value"]
    of_ranks = ranking[ranking["mean_rank"].notna()].set_index("model")["mean"]
    assert of_ranks.to_dict() == pytest.approx(means.reindex(of_ranks.index).to_dict())
    for row in pairs.itertuples():
        assert row.difference == pytest.approx(row.first_mean - row.second_mean, abs=1e-12)
        if row.verdict != statistics.NOT_RANKED:
            assert row.first_mean == means[row.first] and row.second_mean == means[row.second]
        if not math.isnan(row.low):
            assert row.low - 1e-12 <= row.difference <= row.high + 1e-12


@settings(max_examples=25, phases=(Phase.explicit, Phase.generate))
@given(runs(), st.sets(st.sampled_from(BANDS), min_size=1), st.randoms(use_true_random=False))
def test_a_model_that_is_not_ranked_changes_nothing_between_the_others(run, bands, random) -> None:
    scores, places = run
    most = scores.groupby("model")["scene"].nunique().max() if len(scores) else 0
    few = math.ceil(aggregate.MIN_SHARE * most) - 1  # too few scenes to be ranked
    if few < 1:
        return
    chosen = random.sample(sorted(places), few)
    more = pd.DataFrame(
        [(scene, "new", band, random.uniform(0.001, 0.5)) for scene in chosen for band in bands],
        columns=scores.columns,
    )
    before, after = tables_of(scores, places), tables_of(pd.concat([scores, more]), places)
    assert (after[0]["model"] == "new").any()
    for old, new, names in zip(
        before, after, (["model"], ["first", "second"], ["model"]), strict=True
    ):
        others = new[(new[names] != "new").all(axis=1)].reset_index(drop=True)
        ignored = ["stratum_scenes"]  # the scenes of a level that any model has
        pd.testing.assert_frame_equal(
            old.drop(columns=ignored, errors="ignore"),
            others.drop(columns=ignored, errors="ignore"),
            check_dtype=False,
        )


def test_nothing_is_ranked_across_different_bands() -> None:
    """Three bands that are easy make no method the best by metrics over all of its bands."""
    fixed = {"protocol": "paired", "region": "occluded", "cloud_cover": 0.5}
    bands = {"a": ("B02", "B03", "B04", "B11"), "b": ("B02", "B03", "B04", "B11"), "rgb": ("B02",)}
    by_band = [
        {"scene": scene, "model": model, "band": band, "metric": "MAE", "value": 0.02, **fixed}
        for scene in "xyz"
        for model, given in bands.items()
        for band in given
    ]
    over = [
        {"scene": scene, "model": model, "band": "all", "metric": "SAM", "value": value, **fixed}
        for scene in "xyz"
        for model, value in (("a", 3.0), ("b", 4.0), ("rgb", 0.1))
    ]
    columns = aggregate.pool(
        pd.DataFrame(over),
        by_band=pd.DataFrame(by_band),
        places={name: name for name in "xyz"},
        models=dict.fromkeys(bands, "x"),
        levels={"all": list("xyz")},
    )
    found = aggregate.pooled_table(columns).set_index("model")
    assert found["ranked"].to_dict() == {"a": 1, "b": 1, "rgb": 0}
    assert found["rank"].dropna().to_dict() == {"a": 1, "b": 2}
    assert found.loc["rgb", "value"] == pytest.approx(0.1)


def test_the_cloudy_input_has_no_say_in_which_bands_are_usual() -> None:
    """It gives all bands there are; the only network of a scene gives six of them."""
    index = pd.MultiIndex.from_product([["x"], ["B01", "B02"]], names=["scene", "band"])
    by_band = pd.DataFrame({"cloudy": [0.1, 0.1], "network": [np.nan, 0.1]}, index)
    kinds = {"cloudy": "cloudy", "network": "dsen2cr"}
    found = aggregate.gives_usual_bands(by_band, kinds)
    assert found.loc["x"].to_dict() == {"cloudy": False, "network": True}
    alone = aggregate.gives_usual_bands(by_band[["cloudy"]], kinds)
    assert alone.loc["x"].to_dict() == {"cloudy": True}
