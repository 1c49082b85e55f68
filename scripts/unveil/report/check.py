"""The page of one model's checks: what it keeps, what it breaks, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def render_check(document: Mapping[str, Any]) -> str:
    """Return the page of the record that ``check_model`` writes.

    Args:
        document: ``model``, ``title``, ``kind``, ``citation``, ``origin``, ``checks`` (each
            ``check``, ``holds``, ``passed``, ``found``), ``run`` (the record of a prediction, or
            None), ``versions`` and ``hardware``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    broken = [check for check in document["checks"] if not check["passed"]]
    run = document["run"]
    per_mpx = run["model_seconds"] / run["pixels"] * 1e6 if run else None
    page = environment.get_template("check_model.html.j2")
    return page.render(**document, broken=broken, per_mpx=per_mpx)
