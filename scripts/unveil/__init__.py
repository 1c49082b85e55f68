"""Unveil: cloud removals on Sentinel-2 scenes, run and judged alike.

All ideas of the workflow live here; the layout follows its stages (see INTERFACE.yaml).
"""

import os

from unveil.gdal import set_up

set_up(os.environ)  # before anything loads rasterio
