"""GDAL as this package uses it: its own data, no drivers that lead elsewhere, no side files.

GDAL reads its settings from the environment, some of them only once, so they are made before
rasterio is loaded; processes that are started from here have them, too.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import MutableMapping
from pathlib import Path

SKIPPED = (
    *(
        "VRT",
        "GTI",
        "STACIT",
        "STACTA",
        "DERIVED",
        "MRF",
        "Rasterlite",
        "MBTiles",
        "KMLSUPEROVERLAY",
    ),
    *("HTTP", "WMS", "WMTS", "WCS", "DAAS", "EEDA", "EEDAI", "PLMOSAIC", "OGCAPI", "NGW"),
)
"""Drivers of files that name other files, and of addresses; builds of GDAL lack some of them."""
LACKING = "Unable to find driver"
"""How GDAL says of each that it has none to leave out."""
SETTINGS = {
    "GDAL_SKIP": ",".join(SKIPPED),
    # Neither .aux.xml, .ovr, .msk nor world files beside a raster, which replace what it says.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "PROJ_NETWORK": "OFF",
}
OWN_DATA = {"proj_data": ("PROJ_DATA", "PROJ_LIB"), "gdal_data": ("GDAL_DATA",)}
"""Folders of tables that a wheel of rasterio brings, and what makes GDAL look elsewhere."""


def set_up(environ: MutableMapping[str, str]) -> None:
    """Make the settings of GDAL and PROJ in an environment.

    Tables of another installation (QGIS, PostGIS, conda), which shells often name, fit another
    version: where rasterio brings its own, these are used.
    """
    environ.update(SETTINGS)
    logging.getLogger("rasterio._env").addFilter(_is_no_lack)
    found = importlib.util.find_spec("rasterio")
    home = Path(found.origin).parent if found and found.origin else None
    for folder, names in OWN_DATA.items():
        if home and (home / folder).is_dir():
            for name in names:
                environ.pop(name, None)


def _is_no_lack(record: logging.LogRecord) -> bool:
    """Let no warning pass that a driver which should be off is not there."""
    return LACKING not in record.getMessage()
