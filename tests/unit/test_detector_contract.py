"""The contract that every registered detector keeps, alone and beside the others."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from tests.unit.test_masks import classes_of, cloud_and_shadow, deliver, painted, scene_of
from tests.unit.test_masks import write_frame as write_image

from unveil.bands import CLOUD, NODATA
from unveil.config import load_schema
from unveil.masks.detectors.base import Votes
from unveil.masks.detectors.registry import DETECTORS
from unveil.masks.mask_scene import mask_scene
from unveil.masks.options import MaskOptions
from unveil.masks.series import SERIES
from unveil.scene import Frame, read_reflectance

SHAPE = (64, 72)
EVERY = pytest.mark.parametrize("detector", DETECTORS.values(), ids=list(DETECTORS))
KINDS = {field.name: "uint8" if field.name == "percent" else "bool" for field in fields(Votes)}


def image():
    """Forest with a cumulus and its shadow, and a corner without data."""
    labels = cloud_and_shadow(SHAPE)
    data = painted(labels)
    data[:, :4, :4] = np.nan
    return data, labels


@pytest.fixture
def scene(tmp_path):
    """A scene to which every detector applies."""
    data, labels = image()
    frame = write_image(tmp_path, data)
    scl = np.choose(labels, [4, 9, 3])
    scl[:4, :4] = 0
    return scene_of(replace(frame, mask=deliver(tmp_path, scl, "SCL")))


def data_of(scene, window):
    return read_reflectance(scene.target, scene.target.bands, window)


def test_the_config_knows_the_registered_detectors_and_no_other():
    rule = load_schema("config")["properties"]["masks"]["properties"]["detectors"]
    assert rule["items"]["enum"] == [*DETECTORS, SERIES]
    assert MaskOptions().detectors == tuple(rule["default"]) == tuple(DETECTORS)
    assert all(detector.name == name for name, detector in DETECTORS.items())


@EVERY
def test_it_says_why_it_refuses_what_it_cannot_judge(detector, scene):
    assert detector.refusal(scene.target, scene.level) is None
    poor = Frame("2020-06-01", "target", Path("x.tif"), ("B02", "B08"))
    reason = detector.refusal(poor, "L1C")
    assert reason and "\n" not in reason


@EVERY
def test_its_votes_are_of_the_window_and_of_what_it_says_it_tells(detector, scene):
    found = detector(scene.target, scene.grid, MaskOptions(), level=scene.level)
    window = Window(0, 0, 48, 60)
    votes = found.vote(data_of(scene, window), window, found.tells)
    nothing = Votes.none((60, 48))
    for name, dtype in KINDS.items():
        values = getattr(votes, name)
        assert values.shape == (60, 48) and values.dtype == dtype
        if name not in detector.tells:
            np.testing.assert_array_equal(values, getattr(nothing, name))
    assert detector.tells <= set(KINDS) and "cloud" in detector.tells
    assert votes.cloud[12:28, 12:28].mean() > 0.9


@EVERY
def test_the_middle_of_a_window_with_its_halo_does_not_depend_on_the_window(detector, scene):
    found = detector(scene.target, scene.grid, MaskOptions(s2cloudless_m=20), level=scene.level)
    height, width = SHAPE
    whole = Window(0, 0, width, height)
    expected = found.vote(data_of(scene, whole), whole, found.tells)
    halo = found.step * -(-found.halo_px // found.step)  # whole coarse pixels
    left = 18  # inside the cloud
    part = Window(left, 0, width - left, height)
    votes = found.vote(data_of(scene, part), part, found.tells)
    for name in detector.tells:
        np.testing.assert_array_equal(
            getattr(votes, name)[:, halo:], getattr(expected, name)[:, left + halo :]
        )


@EVERY
def test_it_makes_a_mask_alone_and_grows_it_as_the_config_says(detector, scene, tmp_path):
    covers = []
    for number, growth in enumerate((0, 3)):
        options = MaskOptions(
            detectors=(detector.name,), target_growth_m=10 * growth, context_growth_m=0
        )
        target = mask_scene(scene, tmp_path / str(number), options).target
        classes = classes_of(target)
        assert (classes[:4, :4] == NODATA).all()
        assert target.facts["unveil:mask_sources"] != []
        covers.append(int((classes == CLOUD).sum()))
    assert 0 < covers[0] < covers[1]


@EVERY
def test_of_what_two_can_tell_the_first_is_asked(detector, scene, tmp_path):
    if detector.alone:
        target = mask_scene(scene, tmp_path, MaskOptions(combine="first")).target
        assert len(target.facts["unveil:mask_sources"]) == 1
        return
    bare = replace(scene, frames=(replace(scene.target, mask=None),))
    every = MaskOptions(
        detectors=tuple(DETECTORS), combine="first", target_growth_m=0, context_growth_m=0
    )
    target = mask_scene(bare, tmp_path / "all", every).target
    first = next(d for d in DETECTORS.values() if "cloud" in d.tells and not d.alone)
    options = MaskOptions(detectors=(first.name,), target_growth_m=0, context_growth_m=0)
    alone = mask_scene(bare, tmp_path / "first", options).target
    np.testing.assert_array_equal(classes_of(target) == CLOUD, classes_of(alone) == CLOUD)
