"""The page of a product: before and after by date, where pixels come from, how sure they are."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from unveil import raster
from unveil.cloudfree import images, provenance
from unveil.cloudfree.choice import Choice
from unveil.cloudfree.item import date_of
from unveil.scene import NO_ACQUISITION, Scene

TEMPLATES = Path(__file__).parent / "templates"
QUALITY = 82
"""Of the images in the page; those in the files lose nothing."""


@dataclass(frozen=True)
class Day:
    """One date on the page.

    Attributes:
        date: ``YYYY-MM-DD``.
        before: the acquisition as an address within the page; empty where there is none.
        after: the cloud-free image.
        size: width and height of both.
        item: its STAC Item.
        files: names of its files.
    """

    date: str
    before: str
    after: str
    size: tuple[int, int]
    item: Mapping[str, Any]
    files: tuple[str, ...]

    @classmethod
    def of(cls, scene: Scene, item: Mapping[str, Any], folder: Path) -> Day:
        """Return what the page shows of a date whose files are written.

        Both images have the stretch of the cloud-free one, so that colours may be compared.
        """
        bands = tuple(band["name"] for band in item["assets"]["bands"]["bands"])
        shown = images.shown_bands(bands)
        after = images.read_small(folder / "bands.tif", bands, shown)
        limits = images.stretch_of(after)
        before = ""
        if NO_ACQUISITION not in scene.target.facts and set(shown) <= set(scene.bands):
            seen = images.read_small(scene.target.path, scene.bands, shown)
            before = _uri(images.paint(seen, limits))
        names = [asset["href"].removeprefix("./") for asset in item["assets"].values()]
        date = date_of(item)
        size = after.shape[2], after.shape[1]
        files = (*names, f"{date}.json")
        return cls(date, before, _uri(images.paint(after, limits)), size, item, files)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Properties of the Item."""
        return self.item["properties"]

    @property
    def spread(self) -> float | None:
        """Median standard deviation of filled pixels, reflectance."""
        return self.item["unveil"]["spread"]


def _uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render_page(
    path: Path,
    product: str,
    scene: Scene,
    days: Sequence[Day],
    *,
    missing: Mapping[str, str],
    choice: Choice,
) -> None:
    """Write the page, one file that loads nothing from anywhere.

    Args:
        path: where to.
        product: id of the row of the scene table.
        scene: any of its scenes, for the place.
        days: its dates with an image.
        missing: date -> why there is none.
        choice: how models were chosen.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": _percent, "error": _error}
    script = (TEMPLATES / "swipe.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("cloudfree.html.j2").render(
        product=product,
        place=scene.place,
        facts=scene.facts,
        days=days,
        missing=missing,
        choice=choice,
        classes=provenance.CLASSES.values(),
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
    )
    with raster.replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "< 1 %"
    return f"{100 * share:.0f} %"


def _error(value: float) -> str:
    return f"{value:.3f}"
