"""Scores of a pair are kept: a job that died, or has a new model, scores only what is new."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unveil import raster
from unveil.errors import InputError, SceneSkipped
from unveil.metrics import shard
from unveil.metrics.scoring import CopiedTruthError
from unveil.metrics.tables import COLUMNS

ROW = dict.fromkeys(COLUMNS, "x") | {"value": None, "cloud_cover": 0.5, "n_pixels": 3}


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Score a prediction of some bytes; return rows, reason and the number of calls so far."""
    calls = []

    def score_scene(scene, path, **kwargs):
        calls.append(path)
        if path.read_bytes() == b"no truth":
            raise SceneSkipped("the truth is not known")
        if path.read_bytes() == b"the truth":
            raise CopiedTruthError("the prediction equals the reference")
        return [dict(ROW)]

    monkeypatch.setattr(shard, "score_scene", score_scene)
    monkeypatch.setattr(shard, "why_known", lambda scene, weights: weights or "")

    def go(content=b"image", *, status="predicted", made_from="scene", harm=False, known=None):
        path = tmp_path / "predictions/a.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        record = {"status": status, "reason": "needs radar", "file": "a.tif"}
        files = {"a.tif": raster.sha256(path)}
        record |= {"scene": "a", "made": {"from": {"model": "m"}, "files": files}}
        if harm:
            path.write_bytes(content[:-1])
        rows, reason = shard.score_record(
            SimpleNamespace(id="a"),
            record,
            model="m",
            predictions=path.parent,
            scores=tmp_path / "scores",
            weights=known,
            land_cover=None,
            made_from={"scene": made_from},
            predicted_by="infer_on_cpu",
        )
        return rows, reason, len(calls)

    return go


def test_the_same_pair_is_scored_once(score):
    assert score() == ([ROW], None, 1)
    assert score() == ([ROW], None, 1)


def test_another_prediction_scene_or_code_is_scored_again(score):
    score()
    assert score(b"another image")[2] == 2
    assert score(b"another image", made_from="another scene")[2] == 3


def test_a_copy_of_the_truth_is_a_statement_about_that_prediction_alone(score):
    rows, (scene, model, stage, reason), _ = score(b"the truth")
    assert (rows, scene, model, stage) == ([], "a", "m", "metrics")
    assert "equals the reference" in reason
    assert score(b"another image")[0] == [ROW]


def test_broken_kept_scores_are_not_trusted(score, tmp_path):
    score()
    kept = tmp_path / "scores/a.json"
    kept.write_text(kept.read_text()[:-5])
    assert score() == ([ROW], None, 2)


def test_edited_kept_scores_are_not_trusted(score, tmp_path):
    score()
    kept = tmp_path / "scores/a.json"
    kept.write_text(kept.read_text().replace("0.5", "0.6"))
    assert score() == ([ROW], None, 2)


def test_reasons_are_kept_too(score):
    reason = ("a", "m", "metrics", "the truth is not known")
    assert score(b"no truth") == ([], reason, 1)
    assert score(b"no truth") == ([], reason, 1)
    assert score(status="skipped") == ([], ("a", "m", "inference", "needs radar"), 1)


def test_a_harmed_prediction_is_refused_although_its_scores_are_kept(score):
    score()
    with pytest.raises(InputError, match=r"not as the model wrote it.*--forcerun infer_on_cpu"):
        score(harm=True)


def test_a_place_that_the_weights_were_made_on_is_a_recorded_skip(score):
    rows, reason, calls = score(known="its weights were trained on a")
    assert (rows, calls) == ([], 0)
    assert reason == ("a", "m", "metrics", "its weights were trained on a")
