"""Calibration and statistics against closed forms, scipy and published tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unveil.distribution import NORMAL, Distribution
from unveil.metrics import aggregate, statistics
from unveil.metrics.uncertainty import Calibration

# --- calibration ---------------------------------------------------------------------


def calibrated(n: int = 200_000, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Errors drawn from normals of known sigma; the model states ``factor`` times sigma."""
    rng = np.random.default_rng(5)
    sigma = np.exp(rng.normal(-4, 0.5, n))
    return sigma * rng.standard_normal(n), factor * sigma


def summed(
    error: np.ndarray, std: np.ndarray, pieces: int = 1, distribution: Distribution = NORMAL
) -> Calibration:
    calibration = Calibration(distribution)
    for e, s in zip(np.array_split(error, pieces), np.array_split(std, pieces), strict=True):
        calibration.update(e, s)
    return calibration


def test_intervals_of_a_calibrated_model_cover_what_they_say() -> None:
    found = summed(*calibrated()).metrics()
    for level in (10, 50, 68, 95):
        assert found[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.004)
    assert found["AUCE"] < 0.003
    assert found["UCE"] < 0.0005


def test_a_model_that_is_sure_of_itself_covers_too_little() -> None:
    found = summed(*calibrated(factor=0.5)).metrics()
    inside = 2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.975)) - 1
    assert found["coverage_95"] == pytest.approx(inside, abs=0.004)
    rmse = np.sqrt(np.mean(calibrated()[0] ** 2))
    assert rmse / 3 < found["UCE"] < rmse


def test_likelihood_is_that_of_the_normal_distribution() -> None:
    error, std = calibrated(1000)
    expected = -stats.norm.logpdf(error, scale=std).mean()
    assert summed(error, std).metrics()["NLL"] == pytest.approx(expected, rel=1e-12)


def student(degrees: float, n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Errors drawn from Student's t with known standard deviations, which the model states."""
    rng = np.random.default_rng(6)
    std = np.exp(rng.normal(-4, 0.5, n))
    return std * rng.standard_t(degrees, n) * np.sqrt((degrees - 2) / degrees), std


@pytest.mark.parametrize("degrees", [3, 5])
def test_intervals_of_students_t_cover_what_they_say_where_the_model_states_it(degrees) -> None:
    error, std = student(degrees)
    found = summed(error, std, distribution=Distribution(degrees)).metrics()
    for level in (10, 50, 68, 95):
        assert found[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.004)
    assert found["AUCE"] < 0.003
    as_normal = summed(error, std).metrics()
    assert as_normal["coverage_68"] > 0.71  # heavy tails: the middle is fuller than a normal's
    assert found["NLL"] < as_normal["NLL"]


def test_likelihood_is_that_of_the_stated_students_t() -> None:
    error, std = student(3, 1000)
    expected = -stats.t.logpdf(error, 3, scale=std / np.sqrt(3)).mean()
    found = summed(error, std, distribution=Distribution(3)).metrics()
    assert found["NLL"] == pytest.approx(expected, rel=1e-12)


def test_students_t_of_infinite_degrees_is_normal_and_of_two_has_no_deviation() -> None:
    z = np.linspace(0, 4, 9)
    many, one = Distribution(1e7), np.ones(9)
    np.testing.assert_allclose(many.central(z), NORMAL.central(z), atol=1e-5)
    np.testing.assert_allclose(many.surprise(z, one), NORMAL.surprise(z, one), rtol=1e-5)
    with pytest.raises(ValueError, match="above 2"):
        Distribution(2)


def test_the_area_between_coverage_and_probability_of_a_model_that_is_never_right() -> None:
    # Every error is far outside: coverage is 0 below a probability of 1.
    far = summed(np.full(10, 100.0), np.ones(10))
    assert far.auce() == pytest.approx(0.5, abs=1e-3)


def test_groups_of_like_sigma_see_what_the_mean_hides() -> None:
    # Too sure in one half, too modest in the other: right on average, wrong in each half.
    std = np.repeat([0.01, 0.03], 5000)
    error = np.repeat([0.03, 0.01], 5000)
    assert summed(error, std).uce() == pytest.approx(0.02)


def test_discarding_uncertain_pixels_lowers_the_error_only_if_sigma_knows() -> None:
    error, std = calibrated(20_000)
    found = summed(error, std).metrics()
    curve = [np.abs(error).mean(), *(found[f"MAE_keep_{kept}"] for kept in (90, 75, 50, 25))]
    assert curve == sorted(curve, reverse=True)
    order = np.argsort(std)[:10_000]
    assert found["MAE_keep_50"] == pytest.approx(np.abs(error[order]).mean(), rel=0.01)
    blind = summed(error, np.full_like(std, 0.02))
    assert blind.discard(0.5) == pytest.approx(np.abs(error).mean())


def test_windows_do_not_change_the_calibration() -> None:
    error, std = calibrated(5000)
    whole, pieces = summed(error, std).metrics(), summed(error, std, pieces=7).metrics()
    assert pieces == pytest.approx(whole, rel=1e-9)


def test_no_pixels_give_empty_values_and_a_bad_sigma_is_refused() -> None:
    assert set(Calibration().metrics().values()) == {None}
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="standard deviation"):
            Calibration().update(np.zeros(2), np.array([0.1, bad]))


# --- statistics ----------------------------------------------------------------------


def errors(n: int, shifts: dict[str, float], seed: int = 1) -> pd.DataFrame:
    """Errors of models over places that differ much more than the models do."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0.01, 0.1, n)
    noise = {model: rng.normal(shift, 0.001, n) for model, shift in shifts.items()}
    return pd.DataFrame({model: place + x for model, x in noise.items()})


def test_holm_corrects_as_in_the_worked_example() -> None:
    # 4 x .01, 3 x .015, then 2 x .03 and 1 x .04 raised to it.
    np.testing.assert_allclose(
        statistics.holm([0.03, 0.01, 0.04, 0.015]), [0.06, 0.04, 0.06, 0.045]
    )
    np.testing.assert_allclose(statistics.holm([np.nan, 0.04]), [np.nan, 0.04])


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_probability_nor_changes_their_order(p) -> None:
    corrected = statistics.holm(p)
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


def test_a_better_model_is_called_better_from_enough_places_on() -> None:
    shifts = {"good": 0.0, "bad": 0.01}
    (found,) = statistics.compare(errors(12, shifts), metric="MAE")
    assert (found.first, found.second) == ("good", "bad")
    assert found.verdict == statistics.BETTER
    assert found.win_rate == 1
    assert found.difference.high < 0
    (few,) = statistics.compare(errors(5, shifts), metric="MAE")
    assert few.verdict == statistics.TOO_FEW
    (higher,) = statistics.compare(errors(12, shifts), metric="PSNR")
    assert higher.verdict == statistics.WORSE
    assert higher.win_rate == 0


def test_models_that_differ_by_chance_are_not_distinguishable() -> None:
    table = errors(30, {f"m{i}": 0.0 for i in range(5)})
    found = statistics.compare(table, metric="MAE")
    assert len(found) == 10
    assert {x.verdict for x in found} == {statistics.UNDECIDED}
    assert found[0].p == pytest.approx(stats.wilcoxon(table["m0"], table["m1"]).pvalue)


def test_a_model_and_its_copy_tie() -> None:
    table = errors(8, {"a": 0.0})
    (found,) = statistics.compare(table.assign(b=table["a"]), metric="MAE")
    assert (found.win_rate, found.verdict) == (0.5, statistics.UNDECIDED)
    assert np.isnan(found.p)


def test_models_can_be_compared_with_one_of_them_only() -> None:
    table = errors(10, {"a": 0.0, "b": 0.01, "c": 0.02})
    found = statistics.compare(table, metric="MAE", against="b")
    assert [(x.first, x.second, x.verdict) for x in found] == [
        ("a", "b", statistics.BETTER),
        ("c", "b", statistics.WORSE),
    ]


def test_the_smallest_number_of_places_is_the_least_that_can_reach_five_percent() -> None:
    def least(n: int) -> float:
        return stats.wilcoxon(np.arange(1, n + 1)).pvalue

    assert least(statistics.MIN_PLACES) < statistics.ALPHA < least(statistics.MIN_PLACES - 1)


@pytest.mark.parametrize(("models", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(models, q) -> None:
    expected = q * np.sqrt(models * (models + 1) / (6 * 14))
    assert statistics.critical_difference(models=models, places=14) == pytest.approx(
        expected, rel=5e-4
    )


def test_ranks_and_their_groups() -> None:
    table = errors(20, {"c": 0.03, "a": 0.0, "b": 0.0, "d": 0.06})
    found = statistics.rank(table, metric="MAE")
    assert set(list(found.ranks)[:2]) == {"a", "b"}
    assert list(found.ranks)[2:] == ["c", "d"]
    assert found.ranks["d"] == 4
    assert found.p == pytest.approx(stats.friedmanchisquare(*table.to_numpy().T).pvalue)
    assert [set(clique) for clique in found.cliques] == [{"a", "b"}, {"c", "d"}]
    reverse = statistics.rank(-table, metric="PSNR")
    assert reverse.ranks == found.ranks


def test_with_too_few_places_no_model_stands_out() -> None:
    found = statistics.rank(errors(3, {"a": 0.0, "b": 0.1}), metric="MAE")
    assert np.isnan(found.critical_difference)
    assert found.cliques == (("a", "b"),)


def columns_of(n: int) -> list[aggregate.Column]:
    """Errors of three models over ``n`` places in two protocols."""
    table = errors(n, {"a": 0.0, "b": 0.0, "c": 0.05}).rename_axis("scene").reset_index()
    long = table.melt("scene", var_name="model").assign(metric="MAE", region="occluded", band="all")
    scores = pd.concat(
        long.assign(protocol=protocol, scene=protocol + "-" + long["scene"].astype(str))
        for protocol in ("paired", "transplant")
    )
    scenes = {scene: scene for scene in scores["scene"]}
    models = dict.fromkeys("abc", "kind")
    return list(aggregate.pool(scores, places=scenes, models=models, levels={"all": scenes}))


def test_tables_of_comparisons_and_ranks_hold_one_family_a_protocol() -> None:
    columns = columns_of(10)
    pairs = statistics.comparison_table(columns)
    assert len(pairs) == 2 * 3
    verdicts = pairs[pairs["protocol"] == "paired"].set_index(["first", "second"])["verdict"]
    assert verdicts.to_dict() == {
        ("a", "b"): statistics.UNDECIDED,
        ("a", "c"): statistics.BETTER,
        ("b", "c"): statistics.BETTER,
    }
    ranks = statistics.ranking_table(columns)
    of_one = ranks[ranks["protocol"] == "paired"].set_index("model")
    assert of_one.loc["c", "mean_rank"] == 3
    assert of_one.loc["a", "cliques"] == of_one.loc["b", "cliques"] == "1"
    assert of_one.loc["c", "cliques"] == ""
    assert (of_one["low"] < of_one["mean"]).all()
