"""Where models and data come from: versions, weights, licences, citations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from unveil.report.findings import Findings


def provenance_context(findings: Findings) -> dict[str, Any]:
    """Return versions, models, licences, configuration, as written in the manifest."""
    manifest = findings.manifest
    licences: dict[tuple[str, str], list[str]] = {}
    for scene_id, facts in manifest.get("scenes", {}).items():
        key = (str(facts.get("licence", "")), str(facts.get("attribution", "")))
        licences.setdefault(key, []).append(scene_id)
    known = ("versions", "hardware", "command", "config", "models", "scenes", "costs")
    return {
        "command": manifest.get("command", ""),
        "versions": manifest.get("versions", {}),
        "hardware": manifest.get("hardware", {}),
        "other": {k: v for k, v in manifest.items() if k not in known},
        "config": yaml.safe_dump(manifest.get("config", {}), sort_keys=False, allow_unicode=True),
        "methods": list(findings.methods.values()),
        "speed": {model: _speed(cost) for model, cost in manifest.get("costs", {}).items()},
        "licences": [
            {"licence": licence, "attribution": attribution, "scenes": scene_ids}
            for (licence, attribution), scene_ids in licences.items()
        ],
    }


def bibtex(findings: Findings, citations: Mapping[str, str]) -> str:
    """Return the BibTeX entries of the models and data that ran, each work once."""
    scored = set(findings.scores["model"])
    kinds = [m.kind for m in findings.methods.values() if m.id in scored]
    sources = [str(scene.facts.get("source", "")) for scene in findings.scenes.values()]
    works: dict[str, str] = {}
    for key in dict.fromkeys([*kinds, *sources]):
        if key in citations:
            _, _, body = citations[key].partition(",")
            works.setdefault(body, citations[key])
    return "\n\n".join(works.values())


def _speed(cost: Mapping[str, Any]) -> str:
    """Return the time per megapixel of a model, with the devices it ran on."""
    if not cost.get("pixels"):
        return "–"
    seconds = cost["model_seconds"] / cost["pixels"] * 1e6
    return f"{seconds:.3g} s/Mpx, {', '.join(cost.get('devices', []))}".rstrip(", ")
