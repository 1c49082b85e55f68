"""The tables that compare the models of a run, written from its metrics."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.synthetic_results import Recipe, make_results, write_tables

from unveil.metrics.published import FIGURES
from unveil.metrics.reading import read_statistics
from unveil.metrics.tables import harmless, write_skipped
from unveil.report.page import as_csv


def write(folder, errors, places=8, days=None):
    """Write a run of made-up errors, ``model -> band -> error``, and return its tables."""
    recipes = [Recipe(f"scene{i}", f"place{i}", "paired", 0.5) for i in range(places)]
    rows = []
    for number, recipe in enumerate(recipes):
        for model, bands in errors.items():
            head = (recipe.id, model, recipe.protocol, recipe.cover, "occluded")
            bands = {band: value * (1 + 0.01 * number) for band, value in bands.items()}
            values = {**bands, "all": sum(bands.values()) / len(bands)}
            rows += [(*head, band, "MAE", v, "reflectance", 9) for band, v in values.items()]
            if days:
                rows.append((*head, "all", "days_to_clear_look", days[number], "day", 9))
    write_tables(folder, recipes, rows, [])
    return read_statistics(folder / "statistics")


def test_a_model_that_leaves_out_the_hard_band_is_compared_on_the_others(tmp_path):
    tables = write(tmp_path, {"nearest": {"B02": 0.01, "B08": 0.09}, "regressed": {"B02": 0.02}})
    row = tables["comparison"].query("level == 'all'").iloc[0]
    assert (row["first"], row["second"], row["verdict"]) == ("nearest", "regressed", "better")
    ranking = tables["ranking"].query("level == 'all'")
    assert ranking["model"].tolist() == ["nearest", "regressed"]
    assert ranking["mean"].iloc[0] == pytest.approx(0.01 * 1.035)


def test_models_without_a_common_band_are_not_compared(tmp_path):
    tables = write(tmp_path, {"nearest": {"B02": 0.01}, "regressed": {"B08": 0.02}})
    assert tables["comparison"].empty


def test_scenes_are_sorted_by_days_to_a_clear_look(tmp_path):
    errors = {"nearest": {"B02": 0.01}, "regressed": {"B02": 0.02}}
    strata = write(tmp_path, errors, places=4, days=[2, 4, 10, 40])["strata"]
    nearest = strata.query("model == 'nearest' and by == 'days_to_clear_look'")
    assert nearest["position"].tolist() == [3, 10, 40]
    assert nearest["n_places"].tolist() == [2, 1, 1]


def test_scenes_are_sorted_by_season_and_by_what_was_never_seen(tmp_path):
    results = make_results(tmp_path, size=24)
    strata = read_statistics(results.statistics)["strata"]
    seasons = strata[strata["by"] == "season"]
    assert set(seasons["level"]) == {"3: summer"} and seasons["position"].isna().all()
    unseen = strata[strata["by"] == "never_seen_fraction"]
    assert set(unseen["level"]) == {"2: to 0.1"} and set(unseen["position"]) == {0.1}


def test_a_run_without_scores_has_empty_tables_and_the_published_figures(tmp_path):
    results = make_results(tmp_path, [Recipe("a", "a", "none", 0.5)], size=24, skip_all=True)
    tables = read_statistics(results.statistics)
    assert all(tables[name].empty for name in ("pooled", "comparison", "ranking", "strata"))
    assert len(tables["published"]) == len(FIGURES)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("-3.25", "-3.25"),
        ("+1e-4", "+1e-4"),
        ("-inf", "-inf"),
        ("DSen2-CR", "DSen2-CR"),
        ("", ""),
    ],
)
def test_what_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers(text, written):
    assert harmless(text) == written


def test_reasons_of_what_was_skipped_run_in_no_spreadsheet(tmp_path):
    write_skipped([["a", "m", "inference", "=1+1"]], tmp_path / "skipped.csv")
    assert (tmp_path / "skipped.csv").read_text().splitlines()[1] == "a,m,inference,'=1+1"


def test_scores_beside_the_page_run_in_no_spreadsheet():
    table = pd.DataFrame({"title": ["=1+1", "Nearest"], "value": [-0.5, 2.0]})
    assert as_csv(table) == "title,value\n'=1+1,-0.5\nNearest,2.0\n"
