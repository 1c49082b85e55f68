"""Every scene with its frames, and what was skipped and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unveil.metrics.registry import best_first as ranked_by
from unveil.report import images
from unveil.report.findings import (
    Findings,
    errors_on_most_bands,
    frame_cover,
    pick_scenes,
    scene_scores,
)
from unveil.report.images import Row, Shot
from unveil.report.words import percent, pretty, scene_title
from unveil.scene import Frame, Scene, bbox

SHOWN_FACTS = ("title", "protocol", "place", "floor", "floor_after_line", "floor_pixels")
MAX_DETAILS = 200
"""Scenes with a section of their own; the others have their row in the table of scenes."""
MAX_FILMS = 50
"""Scenes whose every frame is shown; spread over the picture where it has more."""


VEIL_QUALITY = 40
"""A veil is smooth."""


def skip_groups(findings: Findings) -> list[dict[str, Any]]:
    """Group the skips by stage, reason and scenes, the most frequent first."""
    groups: dict[tuple, list[str]] = {}
    for (stage, model, reason), rows in findings.skipped.groupby(["stage", "model", "reason"]):
        method = findings.methods.get(model)
        title = method.title if method else (model or "every model")
        groups.setdefault((stage, reason, tuple(sorted(set(rows["scene"])))), []).append(title)
    found = [
        {"stage": stage, "titles": titles, "reason": reason, "scenes": list(scenes)}
        for (stage, reason, scenes), titles in groups.items()
    ]
    return sorted(found, key=lambda g: (-len(g["scenes"]) * len(g["titles"]), g["reason"]))


def scenes_context(findings: Findings, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table of all scenes and the details of as many as the page can hold."""
    every = math.ceil(len(rows) / MAX_FILMS) or 1
    films = {row.scene: row.film if i % every == 0 else () for i, row in enumerate(rows)}
    errors = scene_scores(findings, region="occluded", metric="MAE")
    compared = errors_on_most_bands(findings)
    unseen = scene_scores(findings, region="occluded", metric="never_seen_fraction").max(axis=1)
    days = scene_scores(findings, region="occluded", metric="days_to_clear_look").max(axis=1)
    ordered = [*films, *(s for s in findings.scenes if s not in films)]
    detailed = ordered[:MAX_DETAILS]
    index = []
    for scene_id in pick_scenes(findings.cover, len(findings.cover)):
        scene = findings.scenes[scene_id]
        known = compared.loc[scene_id].dropna().to_dict() if scene_id in errors.index else {}
        order = ranked_by(known, "MAE")
        if all(findings.methods[model].is_baseline for model in order):
            order = []
        index.append(
            {
                "scene": scene,
                "title": scene_title(scene),
                "cover": findings.cover[scene_id],
                "best": findings.methods[order[0]].title if order else "",
                "mae": known[order[0]] if order else float("nan"),
                "linked": scene_id in set(detailed),
                "unseen": unseen.get(scene_id, float("nan")),
                "days": days.get(scene_id, float("nan")),
            }
        )
    details = [_details(findings, findings.scenes[s], errors, films.get(s, ())) for s in detailed]
    return {
        "floors": findings.floors,
        "index": index,
        "details": details,
        "warnings": source_warnings(findings),
        "notes": model_notes(findings),
    }


def source_warnings(findings: Findings) -> list[dict[str, str]]:
    """Return what sources found contradictory about frames, by scene and date."""
    return [
        {"title": scene_title(scene), "date": frame.date, "role": frame.role, "text": text}
        for scene in findings.scenes.values()
        for frame in scene.frames
        for text in frame.facts.get("unveil:warnings", [])
    ]


def model_notes(findings: Findings) -> list[dict[str, Any]]:
    """Return what methods said of their answers, such as a fallback: title, scenes and text."""
    found: dict[tuple[str, str], list[str]] = {}
    for note in findings.manifest.get("notes", []):
        method = findings.methods.get(note["model"])
        key = (method.title if method else note["model"], note["text"])
        found.setdefault(key, []).append(note["scene"])
    return [
        {"title": title, "text": text, "scenes": scenes} for (title, text), scenes in found.items()
    ]


def _details(
    findings: Findings, scene: Scene, errors: pd.DataFrame, film: Sequence[Shot]
) -> dict[str, Any]:
    known = errors.loc[scene.id].dropna().to_dict() if scene.id in errors.index else {}
    skips = findings.skipped[findings.skipped["scene"] == scene.id]
    frames = [f for f in scene.frames if f.role in ("target", "context", "radar", "reference")]
    frames.sort(key=lambda f: (f.date, f.role))
    return {
        "scene": scene,
        "title": scene_title(scene),
        "cover": findings.cover[scene.id],
        "scores": [(findings.methods[m].title, known[m]) for m in ranked_by(known, "MAE")],
        "skips": [
            (
                findings.methods[m].title if m in findings.methods else (m or "every model"),
                stage,
                reason,
            )
            for m, stage, reason in skips[["model", "stage", "reason"]].itertuples(index=False)
        ],
        "facts": {k: pretty(v) for k, v in scene.facts.items() if k not in SHOWN_FACTS},
        "frames": [_frame(scene, frame) for frame in frames],
        "timeline": timeline(scene),
        "where": where(scene),
        "film": [
            {
                "date": shot.frame.date,
                "target": shot.frame.role == "target",
                "uri": images.to_data_uri(shot.image, images.FILM_QUALITY),
                "veil": "" if shot.veil is None else images.to_data_uri(shot.veil, VEIL_QUALITY),
                "cover": percent(frame_cover(shot.frame)),
                "shift": moved_by(shot.frame),
            }
            for shot in film
        ],
    }


def where(scene: Scene) -> str:
    """Return the printed centre of a scene; empty without a georeference."""
    box = bbox(scene.grid)
    if box is None:
        return ""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return f"{abs(y):.3f}° {'N' if y >= 0 else 'S'}, {abs(x):.3f}° {'E' if x >= 0 else 'W'}"


def _frame(scene: Scene, frame: Frame) -> dict[str, Any]:
    facts = {key.removeprefix("unveil:"): value for key, value in frame.facts.items()}
    shift = facts.pop("shift_px", None)
    reliability, applied = facts.pop("shift_reliability", None), facts.pop("shift_applied", False)
    note = facts.pop("shift_note", "")
    masks = pretty(facts.pop("mask_sources", []))
    notes = pretty(facts.pop("mask_notes", []))
    for shown in ("eo:cloud_cover", "shadow_cover", "warnings"):
        facts.pop(shown, None)
    scored = frame.role in ("target", "context")
    return {
        "date": frame.date,
        "role": frame.role,
        "days": (frame.day - scene.target.day).days,
        "cover": percent(frame_cover(frame)) if scored else "–",
        "shift": f"{shift[0]:+.2f}, {shift[1]:+.2f}" if shift else "–",
        "reliability": f"{reliability:.2f}" if shift and reliability is not None else "–",
        "applied": "applied" if applied else note,
        "masks": (masks or notes) if scored else "",
        "others": pretty(facts),
    }


def moved_by(frame: Frame) -> str:
    """Return the shift of a frame in pixels down and right, and whether it was undone."""
    shift = frame.facts.get("unveil:shift_px")
    if not shift or not any(shift):
        return ""
    verb = "moved by" if frame.facts.get("unveil:shift_applied") else "lies off by"
    return f"{verb} {shift[0]:+.2f}, {shift[1]:+.2f}"


def timeline(scene: Scene, *, width: float = 100.0) -> list[dict[str, Any]]:
    """Place the optical frames on a line of dates: x in percent, clear share 0...1."""
    frames = [scene.target, *scene.context]
    days = np.array([frame.day.toordinal() for frame in frames], float)
    span = max(days.max() - days.min(), 1.0)
    return [
        {
            "x": float(width * (day - days.min()) / span) if len(frames) > 1 else width / 2,
            "date": frame.date,
            "target": frame.role == "target",
            "clear_share": 1 - cover if not math.isnan(cover := frame_cover(frame)) else None,
        }
        for day, frame in sorted(zip(days, frames, strict=True), key=lambda pair: pair[0])
    ]
