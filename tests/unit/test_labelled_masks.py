"""Detectors against drawn clouds, in the layout of CloudSEN12."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from benchmarks.labelled_masks import count_agreement, find_labelled, labelled_table
from tests.unit.test_masks import cloud_and_shadow, painted

from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(data), "dtype": data.dtype}
    height, width = data.shape[1:]
    with rasterio.open(path, "w", height=height, width=width, **profile) as dataset:
        dataset.write(data)


@pytest.fixture
def folder(tmp_path):
    """One image with a painted cloud that is drawn as thick, and one that nobody has drawn."""
    labels = cloud_and_shadow((96, 96))
    image = np.rint(painted(labels) * 10000).astype(np.int16)
    write(tmp_path / "ROI_1" / "20200101" / "S2L1C.tif", image)
    drawn = np.select([labels == 1, labels == 2], [1, 3], 0).astype(np.uint8)
    write(tmp_path / "ROI_1" / "20200101" / "labels" / "manual_hq.tif", drawn[None])
    write(tmp_path / "ROI_2" / "20200101" / "S2L1C.tif", image)
    return tmp_path


def test_only_images_with_labels_are_found(folder):
    (item,) = find_labelled(folder)
    assert (item.level, item.image.parent.parent.name) == ("L1C", "ROI_1")


def test_a_painted_cloud_is_found_by_a_detector(folder):
    table = labelled_table(find_labelled(folder), {"L1C": [("ukis",)]})
    header, _, row = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    )
    found = dict(zip(header, row, strict=True))
    assert (found["detector"], found["images"]) == ("ukis", "1")
    assert min(float(found["cloud found"]), float(found["cloud true"])) > 0.7


def test_agreement_is_counted_where_there_are_data_thin_cloud_included():
    classes = np.array([[CLOUD, CLOUD, CLEAR, SHADOW, NODATA, SHADOW]])
    labels = np.array([[1, 0, 2, 3, 1, 0]])
    assert count_agreement(classes, labels).tolist() == [[1, 2, 2], [1, 2, 1]]
