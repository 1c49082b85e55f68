"""Where each scene stands, from the files that are there."""

from __future__ import annotations

import csv
import json

from unveil.workflow.overview import write_overview


def listed(tmp_path, shards, home=None):
    write_overview(
        tmp_path / "scenes.csv",
        shards,
        home=home,
        records=sorted(tmp_path.glob("inference/*/*.json")),
        skipped=sorted(tmp_path.glob("metrics/*/*.skipped.csv")),
        logs="logs",
    )
    with open(tmp_path / "scenes.csv", newline="") as stream:
        return {row["scene"]: row for row in csv.DictReader(stream)}


def infer(tmp_path, shard, **answers):
    record = tmp_path / "inference/_methods" / f"{shard}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    models = {}
    for scene, model_status in answers.items():
        for model, status in model_status.items():
            models.setdefault(model, []).append({"scene": scene, "status": status})
    record.write_text(json.dumps({"models": models}))


def score(tmp_path, shard, *rows):
    table = tmp_path / "metrics/_methods" / f"{shard}.skipped.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(["scene,model,stage,reason", *rows]) + "\n")


def test_a_scene_goes_from_waiting_to_ready_by_its_files(tmp_path):
    for scene, files in {"b": ["download"], "c": ["download", "masks"], "d": ["scene"]}.items():
        for name in files:
            (tmp_path / scene).mkdir(exist_ok=True)
            (tmp_path / scene / f"{name}.json").touch()
    table = listed(tmp_path, {"shard-0000": "abcd"}, home=tmp_path)
    states = {scene: row["state"] for scene, row in table.items()}
    assert states == {"a": "waiting", "b": "assembled", "c": "masked", "d": "ready"}


def test_a_scene_is_scored_once_one_model_has_a_score(tmp_path):
    infer(
        tmp_path,
        "shard-0000",
        a={"x": "predicted", "y": "skipped"},
        b={"x": "predicted", "y": "skipped"},
        c={"x": "skipped", "y": "skipped"},
    )
    score(
        tmp_path,
        "shard-0000",
        'a,y,inference,"needs radar, has none"',
        "b,x,metrics,no reference",
        "b,y,inference,needs radar",
    )
    infer(tmp_path, "shard-0001", d={"x": "predicted"})
    table = listed(tmp_path, {"shard-0000": "abc", "shard-0001": "d"})
    assert {scene: row["state"] for scene, row in table.items()} == {
        "a": "scored",
        "b": "predicted",
        "c": "skipped",
        "d": "predicted",
    }
    assert table["a"]["skips"] == "y: needs radar, has none"
    assert table["b"]["skips"] == "x: no reference; y: needs radar"
    assert table["d"]["logs"].split() == [
        "logs/assemble_scene/shard-0001.log",
        "logs/mask_scene/shard-0001.log",
        "logs/coregister_scene/shard-0001.log",
        "logs/infer/_methods/shard-0001.log",
        "logs/score/_methods/shard-0001.log",
    ]
