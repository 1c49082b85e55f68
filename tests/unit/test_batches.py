"""How scenes and models are divided among jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.workflow.batches import check_targets, divide, models_of, scenes_of, with_networks
from unveil.workflow.tables import Tables

SETTINGS = {"shard_size": 2, "shard_mb": 100, "light_network_mb": 10}


def tables(**sizes):
    rows = {scene: SceneRow(scene, "local", "p", "2020-01-01", "none") for scene in sizes}
    return Tables(
        models={
            "mean": {"kind": "damped"},
            "small": {"kind": "dsen2cr", "weights": "s.npz"},
            "large": {"kind": "dsen2cr", "weights": "l.npz"},
            "absent": {"kind": "dsen2cr", "weights": "a.npz"},
        },
        networks=frozenset({"small", "large", "absent"}),
        training={},
        stac={},
        scenes=rows,
        sizes={scene: size * 10**6 for scene, size in sizes.items()},
        weights={"s.npz": 5 * 10**6, "l.npz": 50 * 10**6},
        command="",
    )


def test_small_networks_share_a_job_and_one_without_weights_counts_as_a_method():
    division = divide(tables(a=1), SETTINGS)
    assert division.batches == {
        "large": ("large",),
        "_networks": ("small",),
        "_methods": ("mean", "absent"),
    }
    assert division.networks == ("small", "large")


def test_an_own_model_has_a_job_to_itself_unless_it_shares_an_environment():
    run = tables(a=1)
    own = {"kind": "mine.py:Mine"}
    models = {
        "mean": {"kind": "damped"},
        "mine": own,
        "torch": own | {"conda": "torch.yaml", "weights": "s.npz"},
        "torch-2": own | {"conda": "torch.yaml"},
        "boxed": own | {"container": "docker://box"},
    }
    division = divide(replace(run, models=models, networks=frozenset({"torch"})), SETTINGS)
    assert division.batches == {
        "_methods": ("mean",),
        "mine": ("mine",),
        "boxed": ("boxed",),
        "_environment-1": ("torch", "torch-2"),
    }
    assert with_networks(division) == ("_environment-1",)
    assert models_of("_environment-1", division, run) == ("torch", "torch-2")


def test_scenes_fill_shards_in_order_and_a_large_one_has_a_job_a_model():
    division = divide(tables(a=1, b=1, c=1, huge=200), SETTINGS)
    assert list(division.shards.values()) == [("a", "b"), ("c",), ("huge",)]
    jobs = {shard: [b for b, s in division.jobs if s == shard] for shard in division.shards}
    assert jobs["shard-0000"] == ["large", "_networks", "_methods"]
    assert jobs["shard-0002"] == ["mean", "small", "large", "absent"]


def test_a_scene_or_a_model_is_a_job_by_itself_when_it_is_asked_for():
    run = tables(a=1, b=1)
    division = divide(run, SETTINGS)
    assert scenes_of("scene-b", division, run) == ("b",)
    assert scenes_of("shard-0000", division, run) == ("a", "b")
    assert models_of("small", division, run) == ("small",)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("results/only/scene/aa.csv", "'a'"),
        ("elsewhere/only/model/lrge.csv", "'large'"),
        ("results/only/model/lrge.skipped.csv", "'large'"),
    ],
)
def test_what_is_asked_for_alone_must_be_in_the_tables(target, words):
    run = tables(a=1)
    division = divide(run, SETTINGS)
    with pytest.raises(InputError, match=words):
        check_targets(["--cores", target], division, run)
    check_targets(["results/only/scene/a.csv", "results/only/model/large.csv"], division, run)
