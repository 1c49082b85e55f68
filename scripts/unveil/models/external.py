"""External: results that someone else's system delivered, checked and taken as they are.

``options.folder`` holds ``SCENE.tif`` for every scene, or ``options.pattern`` names the
file with ``{scene}``, ``{place}`` and ``{date}``. Bands are described by ESA names, values
are uint16 DN x 10000 or float reflectance, on the grid of the target. This is how results
of CloudlessEO, or of any closed service, enter the comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import REFLECTANCE_SCALE, normalise_band_name
from unveil.errors import InputError
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.options import parse_options
from unveil.scene import Inputs, Scene


@dataclass(frozen=True)
class ExternalOptions:
    """Where deliveries are.

    Attributes:
        folder: folder of the GeoTIFFs.
        pattern: their names, with ``{scene}``, ``{place}`` and ``{date}`` filled in.
    """

    folder: str = ""
    pattern: str = "{scene}.tif"


class External(Model):
    """Reads delivered GeoTIFFs; refuses another grid or bands without names."""

    kind = "external"
    citation = "Results delivered from outside, taken as they are."
    origin = "external"
    receptive_field = 0

    @property
    def needs(self) -> Needs:
        """Nothing but the delivered file."""
        return Needs()

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.options = parse_options(ExternalOptions, spec)
        if not self.options.folder:
            raise InputError(
                "option 'folder' is missing",
                file="models table",
                field=f"{spec.id}.options.folder",
                remedy="name the folder of the delivered GeoTIFFs",
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
        """Return the delivered file of a scene."""
        name = self.options.pattern
        for key, value in (
            ("scene", scene.id),
            ("place", scene.place),
            ("date", scene.target.date),
        ):
            name = name.replace(f"{{{key}}}", value)
        return Path(self.options.folder) / name

    def skip(self, scene: Scene) -> str | None:
        """A file that was not delivered is a recorded fact."""
        path = self.path(scene)
        return None if path.exists() else f"not delivered: {path} does not exist"

    def files_beside(self, scene: Scene) -> tuple[Path, ...]:
        """The delivered file."""
        return (self.path(scene),)

    def prepare(self, scene: Scene, tiles) -> None:
        """Check grid and bands of the delivered file.

        Raises:
            InputError: naming the file, what differs, and the remedy.
        """
        self._path = self.path(scene)
        with raster.open_raster(self._path) as dataset:
            difference = scene.grid.difference(raster.grid_of(dataset))
            descriptions, dtype = dataset.descriptions, np.dtype(dataset.dtypes[0])
        if difference:
            raise InputError(
                f"lies on another grid than the target: {difference}",
                file=self._path,
                field="grid",
                remedy="deliver it on the grid of results/scenes/SCENE/frames",
            )
        self._bands = self._names(descriptions)
        self._order = [self._bands.index(b) for b in scene.bands if b in self._bands]
        if not self._order:
            raise InputError(
                f"bands {self._bands}, the scene has {scene.bands}",
                file=self._path,
                field="band description",
                remedy="deliver at least one band of the scene",
            )
        self._scale = REFLECTANCE_SCALE if np.issubdtype(dtype, np.integer) else 1

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
        """Read the window of the delivered file."""
        rows, cols = inputs.shape
        window = Window(inputs.origin[1], inputs.origin[0], cols, rows)
        data = raster.read(self._path, window=window)[self._order].astype(np.float32)
        values = np.where(data == 0, np.nan, data / self._scale).astype(np.float32)
        if np.nanmedian(values) > 2 if np.isfinite(values).any() else False:
            raise InputError(
                f"median reflectance {np.nanmedian(values):.3g}",
                file=self._path,
                field="unit",
                remedy="deliver uint16 reflectance x 10000 or float reflectance",
            )
        return Prediction(values, bands=tuple(self._bands[i] for i in self._order))
