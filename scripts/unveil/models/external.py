"""External: results that someone else's system delivered, checked and taken as they are.

``options.folder`` holds ``SCENE.tif`` for every scene, or ``options.pattern`` names the file with
``{scene}``, ``{place}`` and ``{date}``; or ``options.collection`` is a STAC Collection or
ItemCollection, of which an Item has the scene's id, or alone the target's date. Bands are described
by ESA names, values are uint16 DN x 10000 or float reflectance, on the grid of the target; pixels
that hold fill (:mod:`unveil.stored`) count as unanswered. A delivery that does not fit is skipped
with its reason: that is a fact about it alone, and the others go on. This is how results of
CloudlessEO, or of any closed service, enter the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import normalise_band_name
from unveil.errors import InputError, SceneSkipped
from unveil.guarded import read_json
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.scene import Inputs, Scene
from unveil.stored import Stored, read_dn, stored_in

OFFSET, OFFSET_MARGIN = 0.1, 0.03
"""Reflectance of the offset that ESA adds, and how near to it the median of a band lies."""
FEWEST_CLEAR, MOST_ASKED = 100, 50_000
"""Clear pixels that tell anything, and about the most that are looked at in a window."""
UNFIT = "the delivery does not fit"


@dataclass(frozen=True)
class ExternalOptions:
    """Where deliveries are.

    Attributes:
        folder: folder of the GeoTIFFs.
        pattern: their names, with ``{scene}``, ``{place}`` and ``{date}`` filled in.
        collection: STAC Collection or ItemCollection that names them instead.
    """

    folder: str = ""
    pattern: str = "{scene}.tif"
    collection: str = ""


class External(Model):
    """Reads delivered GeoTIFFs; skips those on another grid or with bands without names."""

    kind = "external"
    citation = "Results delivered from outside, taken as they are."
    origin = "external"
    receptive_field = 0

    @property
    def needs(self) -> Needs:
        """Nothing but the delivered file."""
        return Needs(target=False)

    options_type = ExternalOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        if bool(self.options.folder) == bool(self.options.collection):
            raise InputError(
                "option 'folder' is missing"
                if not self.options.folder
                else "names a folder and a collection",
                file="models table",
                field=f"{spec.id}.options.folder",
                remedy="name the folder of the delivered GeoTIFFs, or else the STAC collection",
            )
        unknown = set(re.findall(r"{([^}]*)}?", self.options.pattern)) - {"scene", "place", "date"}
        if unknown or ".." in Path(self.options.pattern).parts:
            raise InputError(
                f"{self.options.pattern!r} names {', '.join(sorted(unknown)) or 'another folder'}",
                file="models table",
                field=f"{spec.id}.options.pattern",
                remedy="use {scene}, {place} and {date} only, and no '..'",
            )

    def path(self, scene: Scene) -> Path:
        """Return the delivered file of a scene.

        Raises:
            InputError: if a collection is missing or damaged.
        """
        if self.options.collection:
            return delivered_in(Path(self.options.collection), scene)
        name = self.options.pattern
        for key, value in (
            ("scene", scene.id),
            ("place", scene.place),
            ("date", scene.target.date),
        ):
            name = name.replace(f"{{{key}}}", value)
        return Path(self.options.folder) / name

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that the delivery last looked at answers, in the order of the scene."""
        return self._bands

    @property
    def stored(self) -> Stored:
        """How its numbers are stored."""
        return self._stored

    @property
    def delivered(self) -> Path:
        """Its file."""
        return self._path

    def raw(self, window: Window) -> np.ndarray:
        """Read its numbers as they are stored, ``(B, H, W)``.

        Raises:
            InputError: if it is damaged there.
        """
        return raster.read(self._path, window=window)[self._order]

    def skip(self, scene: Scene) -> str | None:
        """A file that was not delivered, or that does not fit the scene, is a recorded fact."""
        try:
            path = self.path(scene)
            if not path.exists():
                return f"not delivered: {path} does not exist"
            self._open(scene)
        except InputError as error:
            return f"{UNFIT}: {error}"
        return None

    def files_beside(self, scene: Scene) -> tuple[Path, ...]:
        """The delivered file."""
        return (self.path(scene),)

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Look at the delivered file, and hold its numbers against the scene.

        Raises:
            SceneSkipped: if they cannot be reflectance.
        """
        self._open(scene)
        self.notes = tuple(filter(None, [self._shift_note(tiles)]))

    def _open(self, scene: Scene) -> None:
        """Look up how the delivery of a scene is laid out.

        Raises:
            InputError: naming the file, what does not fit, and the remedy.
        """
        self._path = self.path(scene)
        with raster.open_raster(self._path) as dataset:
            difference = scene.grid.difference(raster.grid_of(dataset))
            descriptions, stored = dataset.descriptions, stored_in(dataset, self._path)
        if difference:
            raise InputError(
                f"lies on another grid than the target: {difference}",
                file=self._path,
                field="grid",
                remedy=f"deliver it on the grid of results/scenes/{scene.id}/frames",
            )
        names = self._names(descriptions)
        self._order = [names.index(band) for band in scene.bands if band in names]
        if not self._order:
            raise InputError(
                f"bands {', '.join(names)}, the scene has {', '.join(scene.bands)}",
                file=self._path,
                field="band description",
                remedy="deliver at least one band of the scene",
            )
        self._bands = tuple(names[k] for k in self._order)
        self._stored = stored.of(self._order)

    def _shift_note(self, tiles: Sequence[Inputs]) -> str:
        """Say if the delivery misses the scene's own clear pixels by the offset of ESA."""
        misses = [self._misses(tile) for tile in tiles]
        if sum(part.shape[1] for part in misses) < FEWEST_CLEAR:
            return ""
        found = np.concatenate(misses, axis=1)
        middle = np.median(found, axis=1)
        for sign, fault in ((1, "was not taken off"), (-1, "was taken off twice")):
            if (np.abs(middle - sign * OFFSET) < OFFSET_MARGIN).all():
                return (
                    f"at the scene's own clear pixels it lies {sign * OFFSET:+.1f} reflectance off "
                    f"in every band: the offset of 1000 DN {fault}; correct it and deliver it again"
                )
        return ""

    def _misses(self, tile: Inputs) -> np.ndarray:
        """Return delivered minus observed reflectance at some clear pixels, ``(B, n)``."""
        given = self._read(tile)
        seen = tile.target[[tile.bands.index(band) for band in self._bands]]
        use = tile.target_clear & np.isfinite(given).all(axis=0)
        difference = (given - seen)[:, use]
        return difference[:, :: 1 + difference.shape[1] // MOST_ASKED]

    def _read(self, inputs: Inputs) -> np.ndarray:
        """Read the window of the delivered file, ``(B, H, W)`` reflectance, NaN unanswered.

        Raises:
            SceneSkipped: if it is damaged there, or its numbers cannot be reflectance.
        """
        rows, cols = inputs.shape
        window = Window(inputs.origin[1], inputs.origin[0], cols, rows)
        try:
            numbers = self.raw(window)
            return raster.to_reflectance(read_dn(numbers, self._stored, file=self._path))
        except InputError as error:
            raise SceneSkipped(f"{UNFIT}: {error}") from error

    def _names(self, descriptions: tuple[str | None, ...]) -> list[str]:
        try:
            return [normalise_band_name(text or "") for text in descriptions]
        except ValueError as error:
            raise InputError(
                f"band descriptions {descriptions}: {error}",
                file=self._path,
                field="band description",
                remedy="describe every band by its ESA name",
            ) from error

    def predict(self, inputs: Inputs) -> Prediction:
        """Read the window of the delivered file; fill and impossible numbers are no answer."""
        return Prediction(self._read(inputs), bands=self._bands)


def delivered_in(collection: Path, scene: Scene) -> Path:
    """Return the file that a STAC Collection or ItemCollection names for a scene.

    The Item has the scene's id, or is the only one of the target's date; the file is its only asset
    that is a GeoTIFF, or the only one of role ``data``.

    Raises:
        InputError: if it cannot be read, or an Item has no such asset.
    """
    items = _items_of(collection)
    chosen = [pair for pair in items if pair[1].get("id") == scene.id]
    if not chosen:
        date = scene.target.date
        chosen = [pair for pair in items if str(_datetime(pair[1])).startswith(date)]
    if len(chosen) != 1:
        return collection.parent / f"{scene.id} (no Item of this id, and {len(chosen)} of its date)"
    [(folder, item)] = chosen
    assets = [a for a in item.get("assets", {}).values() if "tiff" in str(a.get("type", ""))]
    data = [asset for asset in assets if "data" in asset.get("roles", ())]
    found = data if len(data) == 1 else assets
    if len(found) != 1:
        raise InputError(
            f"Item {item.get('id')} has {len(found)} GeoTIFFs",
            file=collection,
            field="assets",
            remedy="give one asset the role 'data'",
        )
    return folder / str(found[0].get("href", ""))


def _items_of(collection: Path) -> list[tuple[Path, dict[str, Any]]]:
    remedy = "deliver it again"
    document = read_json(collection, kind="a STAC collection", remedy=remedy)
    if "features" in document:
        return [(collection.parent, item) for item in document["features"]]
    links = [link["href"] for link in document.get("links", ()) if link.get("rel") == "item"]
    paths = [collection.parent / href for href in links]
    return [(p.parent, read_json(p, kind="a STAC Item", remedy=remedy)) for p in paths]


def _datetime(item: dict[str, Any]) -> str | None:
    return item.get("properties", {}).get("datetime")
