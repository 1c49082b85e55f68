"""`snakemake cloudfree`: images that other software opens, of all dates that are asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests import safe_products
from tests.small_run import ALL_CLOUD, GRID, snakemake, write_config, write_place

from unveil import raster

NO_LOOK = "2020-09-21"
"""A day without an acquisition, ten days behind one that is all cloud."""


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    """Make the images of two dates: one all cloud, and one without an acquisition."""
    folder = tmp_path_factory.mktemp("product")
    write_place(folder / "place")
    delivered = {"detectors": ["source"]}
    write_config(folder, [], cloudfree={"model": "damped"}, run_models=["damped"], masks=delivered)
    header = ["scene", "source", "path", "target_date", "start", "end", "protocol"]
    row = ["autumn", "local", "place", "10D", ALL_CLOUD, NO_LOOK, "none"]
    (folder / "scenes.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    done = snakemake(folder, "cloudfree")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "results" / "cloudfree" / "autumn"


def document(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_each_date_has_its_files_and_the_collection_names_them(product):
    names = {path.name for path in product.iterdir()}
    assert names == {"collection.json", "index.html", ALL_CLOUD, NO_LOOK}
    for date in (ALL_CLOUD, NO_LOOK):
        found = {path.name for path in (product / date).iterdir()}
        assert found == {"bands.tif", "provenance.tif", "browse.png", f"{date}.json"}
    links = document(product / "collection.json")["links"]
    assert [x["title"] for x in links if x["rel"] == "item"] == [ALL_CLOUD, NO_LOOK]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bands.tif", "provenance.tif"])
def test_images_are_cloud_optimised_in_the_judgement_of_rio_cogeo(product, name):
    from rio_cogeo.cogeo import cog_validate

    valid, errors, notes = cog_validate(str(product / ALL_CLOUD / name))
    assert (valid, errors, notes) == (True, [], [])


@pytest.mark.slow
def test_the_image_says_its_scale_bands_colours_statistics_date_and_model(product):
    with rasterio.open(product / ALL_CLOUD / "bands.tif") as image:
        data = image.read(masked=True)
        assert image.dtypes[0] == "uint16"
        assert image.nodata == 0
        assert set(image.scales) == {1e-4}
        assert set(image.offsets) == {0}
        assert image.descriptions == ("B02", "B03", "B04", "B08", "B8A", "B11")
        assert [c.name for c in image.colorinterp[:3]] == ["blue", "green", "red"]
        assert image.tags()["DATE"] == ALL_CLOUD
        assert image.tags()["MODEL"] == "damped"
        told = {key: float(value) for key, value in image.tags(4).items() if key[:4] == "STAT"}
    assert told["STATISTICS_MINIMUM"] == data[3].min()
    assert told["STATISTICS_MEAN"] == pytest.approx(data[3].mean())
    assert told["STATISTICS_STDDEV"] == pytest.approx(data[3].std())


@pytest.mark.slow
def test_under_cloud_all_over_every_pixel_is_filled_from_the_nearest_month(product):
    classes, days, looks = raster.read(product / ALL_CLOUD / "provenance.tif")
    assert (classes == 3).all()
    assert (days == 30).all()
    assert looks.max() == 8
    shares = document(product / ALL_CLOUD / f"{ALL_CLOUD}.json")["properties"]["unveil:shares"]
    assert shares["filled"] == 1
    assert document(product / NO_LOOK / f"{NO_LOOK}.json")["properties"]["unveil:no_acquisition"]


@pytest.mark.slow
def test_items_and_collection_are_valid_in_the_judgement_of_stac_validator(product, tmp_path):
    """Core schemas are those that pystac ships, so that nothing is asked of a network."""
    import pystac.validation as shipped

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from stac_validator.validate import StacValidate

    folder = Path(shipped.__file__).parent / "jsonschemas"
    known = {
        f"https://schemas.stacspec.org/v1.1.0/{part}/json-schema/{path.name}": str(path)
        for path in (folder / "stac-spec" / "v1.1.0").glob("*.json")
        for part in ("item-spec", "collection-spec", "catalog-spec")
    }
    known |= {
        f"https://geojson.org/schema/{path.name}": str(path)
        for path in (folder / "geojson").glob("*.json")
    }
    for path in (product / "collection.json", product / NO_LOOK / f"{NO_LOOK}.json"):
        judged = StacValidate(str(path), core=True, schema_map=known)
        assert judged.run(), judged.message
        assert judged.message[0]["valid_stac"]


@pytest.mark.slow
def test_odc_stac_reads_the_pixels_of_all_dates_into_xarray(product):
    import pystac
    from odc.geo.geobox import GeoBox
    from odc.stac import load

    items = list(pystac.Collection.from_file(str(product / "collection.json")).get_items())
    for item in items:
        sources = [Path(link.get_absolute_href()) for link in item.get_links("derived_from")]
        assert len(sources) >= 8
        assert all(path.is_file() for path in sources)
    geobox = GeoBox(GRID.shape, GRID.affine, GRID.crs)
    cube = load(items, bands=["bands.4"], geobox=geobox)
    assert cube.sizes["time"] == 2
    image = raster.read(product / ALL_CLOUD / "bands.tif")
    np.testing.assert_array_equal(next(iter(cube.data_vars.values())).values[0], image[3])


@pytest.mark.slow
def test_the_page_shows_before_and_after_and_says_that_nothing_is_known(product):
    page = (product / "index.html").read_text()
    assert page.count('class="swipe"') == 1
    assert "no acquisition on this day" in page
    assert "of other places" in page
    assert "There is no answer" not in page


GROWN_PX = 14
"""More than masks grow by: pixels nearer to the edge of cloud are asked nothing."""
SAFE_DATES = ("2023-08-01", "2023-08-11", "2023-08-21")


@pytest.fixture(scope="module")
def of_products(tmp_path_factory, shared) -> Path:
    """Make images of three products as ESA delivers them; of the second the upper half is cloud."""
    folder = tmp_path_factory.mktemp("safe")
    template = shared / "data/stac/safe_metadata" / safe_products.L2A_0509
    pixels = safe_products.real_pixels(shared)
    size = safe_products.SIZE
    for number, date in enumerate(SAFE_DATES):
        stored = {
            band: np.where(image > 0, image + 1000 + 100 * number, 0).astype(np.uint16)
            for band, image in pixels.items()
        }
        scl = np.full((size, size), 4, np.uint8)
        if number == 1:
            scl[: size // 2] = 9
            for image in stored.values():
                image[: size // 2] = 9000
        safe_products.write_product(folder / "products", template, stored, scl=scl, date=date)
    write_config(
        folder,
        [],
        cloudfree={"model": "damped"},
        run_models=["damped"],
        masks={"detectors": ["source"]},
        inference={"tile_px": 64},
    )
    header = ["scene", "source", "path", "target_date", "protocol"]
    row = ["tile", "safe", "products", "every", "none"]
    (folder / "scenes.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    done = snakemake(folder, "cloudfree")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "results" / "cloudfree" / "tile"


@pytest.mark.slow
def test_products_of_esa_become_images_of_every_date_without_seams(of_products, shared):
    """Under cloud the answer is the mean of the dates before and after, ten days from it each."""
    assert {p.name for p in of_products.iterdir() if p.is_dir()} == set(SAFE_DATES)
    images = [raster.read(of_products / date / "bands.tif") for date in SAFE_DATES]
    half = safe_products.SIZE // 2
    with rasterio.open(of_products / SAFE_DATES[1] / "bands.tif") as image:
        red = image.descriptions.index("B04")
    truth = safe_products.real_pixels(shared)["B04"].astype(int)
    whole = (truth > 0).all(axis=1)
    assert whole.all()
    for number, image in enumerate(images):
        rows = slice(half + GROWN_PX, None) if number == 1 else slice(None)
        np.testing.assert_array_equal(image[red][rows], truth[rows] + 100 * number)
    mean = truth[:half] + 100  # of 0 and 200
    np.testing.assert_allclose(images[1][red][:half], mean, atol=1)


@pytest.mark.slow
def test_the_provenance_of_a_product_says_what_was_filled(of_products):
    half, clear = safe_products.SIZE // 2, safe_products.SIZE // 2 + GROWN_PX
    classes, days, looks = raster.read(of_products / SAFE_DATES[1] / "provenance.tif")
    assert (classes[:half] == 3).all() and (days[:half] == 10).all() and (looks[:half] == 2).all()
    assert (days[clear:] == 0).all() and (looks[clear:] == 3).all()
