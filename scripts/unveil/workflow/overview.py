"""Where each scene of a run stands: its shard, its state, what was skipped, its logs."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from unveil import raster
from unveil.workflow.shards import DOWNLOAD, MASKS, READY

COLUMNS = ("scene", "shard", "state", "predicted", "scored", "skips", "logs")
STATES = {DOWNLOAD: "assembled", MASKS: "masked", READY: "ready"}
"""File of a scene -> what it shows, in the order in which they are written."""
SHARD_RULES = ("assemble_scene", "mask_scene", "coregister_scene")
BATCH_RULES = ("infer", "score")


def write_overview(
    path: Path,
    shards: Mapping[str, Sequence[str]],
    *,
    records: Iterable[Path],
    skipped: Iterable[Path],
    logs: str,
    home: Path | None = None,
) -> None:
    """Write a table with one row per scene.

    ``state`` is the furthest that a scene came: ``waiting``, ``assembled``, ``masked``, ``ready``,
    then ``predicted`` or, where no model had an answer, ``skipped``, then ``scored``. ``skips`` is
    ``MODEL: reason`` of every pair without scores; ``logs`` are the paths of the jobs' logs.

    Args:
        path: the table (CSV).
        shards: shard -> ids of its scenes.
        records: records of inference, ``BATCH/SHARD.json``; those that are missing are passed over.
        skipped: tables of pairs without scores, ``BATCH/SHARD.skipped.csv``, likewise.
        logs: folder of the logs.
        home: folder of the scenes, where some may not be ready.
    """
    predicted, batches = _read_records(records)
    scored_jobs, reasons = _read_skipped(skipped)
    with raster.replacing(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for shard, scenes in shards.items():
            for scene in scenes:
                answers = predicted[scene]
                scored = [
                    model
                    for model, batch in answers.items()
                    if (batch, shard) in scored_jobs and model not in reasons[scene]
                ]
                state = _state(home and home / scene, batches[shard], answers, scored)
                skips = "; ".join(f"{model}: {why}" for model, why in reasons[scene].items())
                names = " ".join(_logs(logs, shard, batches[shard]))
                writer.writerow([scene, shard, state, len(answers), len(scored), skips, names])


def _read_records(
    paths: Iterable[Path],
) -> tuple[defaultdict[str, dict[str, str]], defaultdict[str, list[str]]]:
    """Return scene -> model -> batch of every prediction, and shard -> its batches."""
    predicted: defaultdict[str, dict[str, str]] = defaultdict(dict)
    batches: defaultdict[str, list[str]] = defaultdict(list)
    for path in filter(Path.is_file, paths):
        batch, shard = path.parent.name, path.stem
        batches[shard].append(batch)
        for model, records in json.loads(path.read_text())["models"].items():
            for record in records:
                if record["status"] == "predicted":
                    predicted[record["scene"]][model] = batch
    return predicted, batches


def _read_skipped(
    paths: Iterable[Path],
) -> tuple[set[tuple[str, str]], defaultdict[str, dict[str, str]]]:
    """Return the jobs (batch, shard) that scored, and scene -> model -> why it has no scores."""
    jobs: set[tuple[str, str]] = set()
    reasons: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in filter(Path.is_file, paths):
        jobs.add((path.parent.name, path.name.removesuffix(".skipped.csv")))
        with open(path, newline="") as stream:
            for row in csv.DictReader(stream):
                reasons[row["scene"]][row["model"]] = row["reason"]
    return jobs, reasons


def _state(
    folder: Path | None, batches: Sequence[str], answers: Mapping[str, str], scored: Sequence[str]
) -> str:
    if scored:
        return "scored"
    if answers:
        return "predicted"
    if batches:
        return "skipped"
    if folder is None:
        return STATES[READY]
    there = [state for file, state in STATES.items() if (folder / file).is_file()]
    return there[-1] if there else "waiting"


def _logs(folder: str, shard: str, batches: Sequence[str]) -> Iterator[str]:
    for rule in SHARD_RULES:
        yield f"{folder}/{rule}/{shard}.log"
    for batch in batches:
        for rule in BATCH_RULES:
            yield f"{folder}/{rule}/{batch}/{shard}.log"
