"""The contract that every protocol keeps: what is exact is exact, and nothing is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.windows import Window

from unveil.assembly.assemble import assemble
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.protocols.registry import MAKERS
from unveil.bands import CLEAR, NODATA
from unveil.config import SceneRow, load_schema
from unveil.masks.mask_scene import judge_frame
from unveil.protocols import PROTOCOLS, TABLED, clean_variant, title_of
from unveil.raster import Grid
from unveil.scene import is_occluded, read_occlusion
from unveil.sources.base import SourceSeries, from_array

SHAPE = (48, 40)
GRID = Grid("EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), *SHAPE)
WHOLE = Window(0, 0, SHAPE[1], SHAPE[0])
BANDS = ("B02", "B03", "B04", "B08")
DATES = ("2020-05-01", "2020-06-01", "2020-07-01")
SETTINGS = ProtocolSettings(seed=3)
EVERY = pytest.mark.parametrize("maker", MAKERS.values(), ids=list(MAKERS))


@pytest.fixture(scope="module")
def series():
    """Three dates of one place: clear, cloudy in the middle, clear."""
    rng = np.random.default_rng(1)
    optical, masks = {}, {}
    for number, date in enumerate(DATES):
        data = rng.integers(300, 900, (4, *SHAPE)).astype(np.uint16) + 100 * number
        scl = np.full(SHAPE, 4, np.uint8)
        if number == 1:
            data[:, 10:30, 8:24], scl[10:30, 8:24], scl[32:36, 8:24] = 6500, 9, 3
        optical[date] = from_array(data, BANDS)
        masks[date] = from_array(scl[None], ("SCL",))
    return SourceSeries(GRID, "p", optical, masks)


def row_of(maker):
    """A row that fits the protocol: a cloudy target of its own clouds, a clear one otherwise."""
    protocol = maker.protocol
    row = SceneRow("s", "local", "here", DATES[0], protocol.id, cloud_level=0.4)
    if protocol.clouds == "real":
        row = replace(row, target_date=DATES[1], cloud_level=None)
    return replace(row, reference_date=DATES[0]) if protocol.truth == "another date" else row


def test_the_scene_table_knows_the_protocols_and_no_other():
    known = load_schema("scenes")["properties"]["protocol"]["enum"]
    assert tuple(known) == TABLED
    assert list(PROTOCOLS) == [protocol.id for protocol in PROTOCOLS.values()]
    assert sorted(MAKERS) == sorted(TABLED)
    assert {p.variant_of for p in PROTOCOLS.values()} <= {"", *TABLED}


def test_docs_name_the_protocols_in_order_of_trust(root):
    text = (root / "config/README.md").read_text()
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in TABLED][-len(TABLED) :] == list(TABLED)


@EVERY
def test_what_readers_are_told_is_a_title_and_half_a_sentence(maker):
    protocol = maker.protocol
    assert title_of(protocol.id) == protocol.title != protocol.id
    assert protocol.explanation[0].islower() and not protocol.explanation.endswith(".")
    assert title_of("of tomorrow") == "of tomorrow"


@EVERY
def test_a_row_that_fits_has_nothing_to_complain_of(maker):
    row = row_of(maker)
    assert maker.complaint(row) is None
    bad = maker.complaint(replace(row, cloud_level=None, cloud_date=""))
    if maker.protocol.clouds == "real":
        assert bad is None
    else:
        assert bad.column in load_schema("scenes")["properties"]
        assert maker.protocol.id in bad.message and bad.remedy


@EVERY
def test_the_target_has_bands_of_the_series_and_the_same_pixels_again(maker, series):
    row = row_of(maker)
    first, again = (maker.make(row, series, SETTINGS) for _ in range(2))
    image = first.raster.read(WHOLE)
    assert first.raster.bands == BANDS
    assert image.dtype == np.uint16 and image.shape == (4, *SHAPE)
    np.testing.assert_array_equal(image, again.raster.read(WHOLE))
    part = Window(5, 7, 20, 30)
    np.testing.assert_array_equal(first.raster.read(part), image[(slice(None), *part.toslices())])


@EVERY
def test_an_exact_truth_is_the_target_wherever_nothing_is_hidden(maker, series):
    row, protocol = row_of(maker), maker.protocol
    made = maker.make(row, series, SETTINGS)
    assert (made.occlusion is not None) == protocol.exact
    assert (made.reference is not None) == (protocol.truth != "none")
    if protocol.exact:
        assert made.reference_date == row.target_date
        truth, image = made.reference.read(WHOLE), made.raster.read(WHOLE)
        np.testing.assert_array_equal(truth, series.optical[row.target_date].read(WHOLE))
        hidden = is_occluded(made.occlusion.read(WHOLE)[0])
        assert 0.1 < hidden.mean() < 0.9
        thickest = (np.abs(image.astype(int) - truth) > 3000).any(axis=0)
        assert not (thickest & ~hidden).any()
        if protocol.clouds == "lent":
            clean = maker.make(replace(row, veil=False), series, SETTINGS).raster.read(WHOLE)
            np.testing.assert_array_equal(clean[:, ~hidden], truth[:, ~hidden])
            np.testing.assert_array_equal(clean[:, hidden], image[:, hidden])
    elif made.reference is not None:
        assert made.reference_date != row.target_date


@EVERY
def test_where_the_truth_is_cloudy_nothing_is_judged(maker, series, tmp_path):
    if maker.protocol.truth == "none":
        return
    cloudy = replace(row_of(maker), target_date=DATES[1])
    cloudy = replace(cloudy, cloud_date=DATES[2] if maker.protocol.clouds == "lent" else "")
    if maker.protocol.truth == "another date":
        cloudy = replace(cloudy, target_date=DATES[0], reference_date=DATES[1])
    scene = assemble(cloudy, series, tmp_path, SETTINGS, judge=judge_frame)
    occlusion = read_occlusion(scene)
    assert (occlusion[10:30, 8:24] == NODATA).all()
    assert (occlusion == CLEAR).any()


@EVERY
def test_the_lender_of_clouds_is_told_so_that_no_model_sees_it(maker, series):
    made = maker.make(row_of(maker), series, SETTINGS)
    assert bool(made.donor_date) == (maker.protocol.clouds == "lent")
    assert made.donor_date in ("", DATES[1])


def test_scenes_without_a_veil_have_a_name_of_their_own_that_says_so():
    for protocol in ("transplant", "simulate"):
        clean, veiled = PROTOCOLS[clean_variant(protocol)], PROTOCOLS[protocol]
        assert clean.title == f"{veiled.title}, clean rim" and clean.exact
        assert "flatters methods that learn from the target" in clean.explanation
        assert list(PROTOCOLS).index(clean.id) > list(PROTOCOLS).index(protocol)


@pytest.mark.parametrize("protocol", ["transplant", "simulate"])
def test_a_scene_without_a_veil_is_never_pooled_with_those_that_have_one(
    protocol, series, tmp_path
):
    row = row_of(MAKERS[protocol])
    for veil, expected in ((True, protocol), (False, clean_variant(protocol))):
        row = replace(row, veil=veil)
        scene = assemble(row, series, tmp_path / str(veil), SETTINGS, judge=judge_frame)
        assert scene.protocol == expected
