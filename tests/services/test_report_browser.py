"""The report in a real browser: it works offline, by mouse and by keyboard, at any width.

Needs Chromium and its driver (Debian: ``chromium`` and ``chromium-driver``). Screenshots go
to the folder named by ``UNVEIL_ARTIFACTS``. With ``UNVEIL_AXE`` naming a copy of
``axe.min.js``, accessibility is checked too.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.synthetic_results import HOSTILE_TITLE, make_results

from unveil.report import ReportOptions, render

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.services

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = (360, 800, 1400)


def find_browser() -> tuple[str, str]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its driver; install chromium and chromium-driver")
    return binary, driver


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    results = make_results(tmp_path_factory.mktemp("results"), size=64)
    inputs = results.inputs()
    render(**inputs, options=ReportOptions())
    return inputs["output"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    yield session
    session.quit()


@pytest.fixture
def opened(browser, page):
    """The page, freshly loaded at desk width, logs emptied."""
    set_width(browser, 1400)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    return browser


def set_width(browser, width: int, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requested(browser) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def column(browser, table: str, position: int) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[position].text for row in rows]


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0]) for text in texts]


def test_the_page_loads_without_error_and_without_network(opened, page):
    urls = [url for url in requested(opened) if not url.startswith("data:")]
    assert urls == [page.as_uri()]
    assert opened.get_log("browser") == []


def test_the_picture_has_a_cell_for_each_scene_and_column(opened):
    heads = opened.find_elements(By.CSS_SELECTOR, "#picture-table thead th")
    rows = opened.find_elements(By.CSS_SELECTOR, "#picture-table tbody tr")
    titles = [head.get_attribute("textContent") for head in heads]
    assert titles[1:3] == ["Cloudy", "SAR"] and titles[-1] == "Cloud-free"
    assert titles[3] == "Regressed", "the best model comes first"
    assert len(rows) == 6
    for row in rows:
        assert len(row.find_elements(By.CSS_SELECTOR, "td")) == len(heads) - 1
    images = opened.execute_async_script(
        "const done = arguments[0], images = [...document.querySelectorAll('.chip img')];"
        "for (const image of images) image.loading = 'eager';"
        "Promise.all(images.map(image => image.decode())).then("
        "() => done(images.map(image => [image.naturalWidth, image.alt])))"
    )
    assert len(images) > 20
    assert all(width > 0 and text for width, text in images)


def test_the_picture_opens_on_the_protocol_of_the_first_answer(opened):
    chosen = opened.find_element(By.ID, "pick-protocol").get_attribute("value")
    rows = opened.find_elements(By.CSS_SELECTOR, "#picture-table tbody tr")
    shown = [row.get_attribute("data-protocol") for row in rows if row.is_displayed()]
    assert chosen == "transplant" and shown == ["transplant"] * 3


@pytest.mark.parametrize("protocol", ["transplant", "simulate"])
def test_rows_of_a_protocol_are_ordered_by_cloud_cover(opened, protocol):
    Select(opened.find_element(By.ID, "pick-protocol")).select_by_value(protocol)
    notes = opened.find_elements(By.CSS_SELECTOR, "#picture-table tbody th small:first-of-type")
    covers = [float(note.text.split()[0]) for note in notes if note.is_displayed()]
    assert len(covers) > 1 and covers == sorted(covers)


def test_two_images_stand_beside_the_scene_on_a_telephone(opened):
    set_width(opened, 400)
    seen = opened.execute_script(
        "const row = document.querySelector('#picture-table tbody tr:not([hidden])');"
        "const width = document.documentElement.clientWidth;"
        "const edge = row.cells[0].getBoundingClientRect().right;"
        "return [...row.querySelectorAll('.chip')].map((chip) => chip.getBoundingClientRect())"
        ".filter((box) => box.left >= edge - 1 && box.right <= width).length"
    )
    assert seen >= 2


def test_the_contents_bar_follows(opened):
    opened.execute_script("document.querySelector('#scenes').scrollIntoView()")
    current = "return document.querySelector('nav a[aria-current]')?.hash"
    WebDriverWait(opened, 5).until(lambda page: page.execute_script(current) == "#scenes")
    assert opened.find_element(By.CSS_SELECTOR, "nav").rect["y"] >= 0


def test_a_title_with_a_script_is_inert(opened):
    assert opened.execute_script("return window.hacked === undefined")
    titles = [e.text for e in opened.find_elements(By.CSS_SELECTOR, "#picture-table tbody th a")]
    assert HOSTILE_TITLE in titles


def test_a_table_sorts_by_click(opened):
    button = opened.find_element(By.CSS_SELECTOR, "#levels-transplant thead th:last-child button")
    button.click()
    rising = numbers(column(opened, "levels-transplant", 4))
    assert rising == sorted(rising)
    button.click()
    falling = numbers(column(opened, "levels-transplant", 4))
    assert falling == sorted(falling, reverse=True) and falling != rising


def test_a_table_sorts_by_keyboard_and_says_so(opened):
    head = opened.find_element(By.CSS_SELECTOR, "#levels-transplant thead th:nth-child(2)")
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    values = numbers(column(opened, "levels-transplant", 1))
    assert values == sorted(values)


def test_a_metric_for_which_higher_is_better_sorts_the_best_first(opened):
    Select(opened.find_element(By.ID, "pick-metric")).select_by_value("PSNR")
    opened.find_element(By.CSS_SELECTOR, "#levels-transplant thead th:last-child button").click()
    values = numbers(column(opened, "levels-transplant", 4))
    assert values == sorted(values, reverse=True)
    assert column(opened, "levels-transplant", 0)[0] == "Regressed"


def test_the_region_picker_changes_the_scores(opened):
    before = column(opened, "levels-transplant", 4)
    Select(opened.find_element(By.ID, "pick-region")).select_by_value("clear")
    after = column(opened, "levels-transplant", 4)
    assert len(after) == len(before) and after != before
    caption = opened.find_element(By.CSS_SELECTOR, "#levels-transplant caption").text
    assert "clear pixels" in caption


def test_redrawn_tables_equal_those_written_by_the_workflow(opened):
    written = opened.find_element(By.ID, "metrics-transplant").get_attribute("innerText")
    picker = Select(opened.find_element(By.ID, "pick-region"))
    picker.select_by_value("all")
    picker.select_by_value("occluded")
    assert opened.find_element(By.ID, "metrics-transplant").get_attribute("innerText") == written


def test_the_view_picker_changes_the_images_and_their_stretch(opened):
    first = "return document.querySelector('.chip[data-column=Cloud-free] img').src"
    note = opened.find_element(By.CSS_SELECTOR, "[data-stretch]")
    before, stretch = opened.execute_script(first), note.text
    Select(opened.find_element(By.ID, "pick-view")).select_by_value("nir")
    assert opened.execute_script(first) != before
    assert note.text != stretch and "B08" in note.text


def test_the_protocol_picker_hides_columns_without_images(opened):
    Select(opened.find_element(By.ID, "pick-protocol")).select_by_value("simulate")
    heads = opened.find_elements(By.CSS_SELECTOR, "#picture-table thead th")
    shown = [head.text for head in heads if head.is_displayed()]
    assert "Regressed" not in shown and "SAR" in shown


@pytest.mark.parametrize("width", WIDTHS)
def test_the_truth_stays_in_sight_while_the_methods_scroll(opened, width):
    set_width(opened, width)
    edge = (
        "const box = document.querySelector('#picture .scroll'); box.scrollLeft = arguments[0];"
        "return document.querySelector('#picture-table thead th:last-child')"
        ".getBoundingClientRect().right - box.getBoundingClientRect().right"
    )
    assert opened.execute_script(edge, 0) <= 1
    assert opened.execute_script(edge, 80) <= 1


def chart(browser, name: str) -> dict:
    """Titles of the series drawn, their colours, and the share of the canvas that is drawn on."""
    return browser.execute_script(
        "const chart = document.getElementById(arguments[0]).chart, canvas = chart.ctx.canvas;"
        "const pixels = chart.ctx.getImageData(0, 0, canvas.width, canvas.height).data;"
        "let drawn = 0; for (let i = 3; i < pixels.length; i += 4) drawn += pixels[i] > 0;"
        "return {titles: chart.series.slice(1).map(s => s.label), x: chart.data[0],"
        " values: chart.data.slice(1), drawn: drawn / canvas.width / canvas.height}",
        name,
    )


def test_the_spectrum_of_a_pixel_is_drawn_and_listed(opened):
    found = chart(opened, "spectrum-chart")
    assert found["titles"][:2] == ["Truth", "Cloudy input"] and "Regressed" in found["titles"]
    assert found["drawn"] > 0.01
    assert found["x"] == sorted(found["x"]) and found["x"][0] == 492.2
    table = opened.find_elements(By.CSS_SELECTOR, "#spectrum-table tbody tr:first-child td")
    assert [float(cell.text) for cell in table[:-1]] == pytest.approx(found["values"][0])
    pixels = Select(opened.find_element(By.ID, "pick-pixel"))
    pixels.select_by_index(2)
    assert chart(opened, "spectrum-chart")["values"][0] != found["values"][0]
    assert opened.get_log("browser") == []


def test_a_method_is_left_out_of_the_charts_by_keyboard(opened):
    opened.find_element(By.XPATH, "//summary[.='Models in the charts']").send_keys(Keys.ENTER)
    opened.find_element(By.CSS_SELECTOR, "[data-method=regressed]").send_keys(Keys.SPACE)
    for name in ("spectrum-chart", "explore-chart"):
        assert "Regressed" not in chart(opened, name)["titles"]


def test_the_chart_of_scenes_shows_the_metric_chosen(opened):
    before = chart(opened, "explore-chart")
    assert before["drawn"] > 0.01 and before["x"] == [20, 50, 90]
    Select(opened.find_element(By.ID, "explore-metric")).select_by_value("PSNR")
    Select(opened.find_element(By.ID, "explore-x")).select_by_value("days")
    after = chart(opened, "explore-chart")
    assert after["x"] == [12, 12, 12] and min(map(min, after["values"])) > 1


def test_a_comparison_sorts_and_citations_can_be_copied(opened):
    heads = opened.find_elements(By.CSS_SELECTOR, "#against-transplant thead th button")
    heads[1].click()
    found = numbers(column(opened, "against-transplant", 1))
    assert found == sorted(found) and len(found) == 4
    opened.execute_script(
        "window.copied = '';"
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) =>"
        " { window.copied = text; }}})"
    )
    opened.find_element(By.CSS_SELECTOR, "[data-copy=bibtex]").click()
    assert "@article{dsen2cr" in opened.execute_script("return window.copied")


def test_the_slider_moves_by_keyboard_and_closes(opened):
    chip = opened.find_element(By.CSS_SELECTOR, ".chip[data-column=regressed]")
    chip.send_keys(Keys.ENTER)
    dialog = opened.find_element(By.ID, "swipe")
    assert dialog.get_attribute("open") is not None
    assert opened.find_element(By.ID, "swipe-left").get_attribute("value") == "regressed"
    assert opened.find_element(By.ID, "swipe-right").get_attribute("value") == "Cloud-free"
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT * 5)
    clip = "return document.querySelector('#image-right').style.clipPath"
    assert "55%" in opened.execute_script(clip)
    opened.find_element(By.ID, "swipe-next").click()
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    WebDriverWait(opened, 5).until(lambda _: dialog.get_attribute("open") is None)
    assert opened.get_log("browser") == []


def test_the_slider_follows_the_mouse(opened):
    opened.find_element(By.CSS_SELECTOR, ".chip[data-column=mosaic]").click()
    stage = opened.find_element(By.CSS_SELECTOR, ".stage")
    actions = webdriver.ActionChains(opened)
    actions.move_to_element(stage).click_and_hold().move_by_offset(-stage.size["width"] // 4, 0)
    actions.release().perform()
    assert int(opened.find_element(By.ID, "swipe-range").get_attribute("value")) in range(20, 31)


def test_a_link_to_a_scene_opens_it(opened):
    opened.find_element(By.CSS_SELECTOR, "#picture-table tbody th a").click()
    scene = opened.find_element(By.ID, "scene-romania-20")
    WebDriverWait(opened, 5).until(lambda _: scene.get_attribute("open") is not None)
    assert "2020-06-15" in scene.text and "applied" in scene.text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(opened, width, tmp_path):
    set_width(opened, width)
    needed = opened.execute_script("return document.documentElement.scrollWidth")
    height = opened.execute_script("return document.documentElement.scrollHeight")
    set_width(opened, width, min(height, 8000))
    folder = Path(os.environ.get("UNVEIL_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    opened.save_screenshot(str(folder / f"report-{width}.png"))
    assert needed <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened, scheme):
    script = os.environ.get("UNVEIL_AXE")
    if not script:
        pytest.skip("set UNVEIL_AXE to a copy of axe.min.js to check accessibility")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    opened.execute_script(Path(script).read_text(encoding="utf-8"))
    faults = opened.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(r.violations.map("
        "v => [v.impact, v.id, v.nodes.map(n => n.html).slice(0, 3)])))"
    )
    assert [fault for fault in faults if fault[0] in ("serious", "critical")] == []
