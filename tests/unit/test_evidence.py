"""Evidence: the place is the unit, methods meet on the same scenes, who knew a place is said."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from unveil.evidence.document import Heading, Paragraph, Table, to_html, to_markdown
from unveil.evidence.ranking import COLUMNS, rank, to_tsv
from unveil.evidence.scores import Evidence, agreement, best_of, gaps, ratios, summarise
from unveil.evidence.write import SILENT, Context, Method, by_cover, numbers, write_blocks
from unveil.metrics.intervals import date_interval, error_intervals
from unveil.places.table import read_places

METHODS = [f"m{number}" for number in range(10)]
PLACES = {"romania": 9, "sweden": 2, "antwerp": 1, "hungary": 3}
"""Place -> number of its real pairs."""


def error(place, model, scene=0):
    """An error that grows with the method's number, and differs by place and scene."""
    number = int(model[1:])
    return round(0.01 * (1 + list(PLACES).index(place)) + 0.002 * number + 0.001 * scene, 6)


def rows(protocol, *, order=1, level=0.5, bands=("B02", "B04")):
    """Scores of all methods; ``order`` -1 turns their order around."""
    table, by_band = [], []
    for place, count in PLACES.items():
        for scene in range(count):
            for model in METHODS:
                value = error(place, model if order == 1 else f"m{9 - int(model[1:])}", scene)
                facts = {
                    "scene": f"{place}-{protocol}-{scene}",
                    "place": place,
                    "day": 737_000 + 9 * scene,
                    "protocol": protocol,
                    "level": level,
                    "model": model,
                }
                table.append(facts | {"MAE": value, "MAE_level_removed": value / 2, "answered": 1})
                by_band += [facts | {"band": band, "MAE": value} for band in bands]
    return pd.DataFrame(table), pd.DataFrame(by_band)


@pytest.fixture(scope="module")
def context():
    parts = [rows("paired", level=0.6), rows("transplant", level=0.8)]
    parts.append(rows("transplant_clean", order=-1, level=1.0))
    floors = pd.DataFrame(
        {
            "scene": ["a", "b"],
            "place": ["romania", "sweden"],
            "floor": [0.02, np.nan],
            "floor_after_line": [0.01, np.nan],
        }
    )
    families = {"m0": "series network", "m9": "image network"}
    methods = [
        Method(name, families.get(name, "simple"), ("hungary",) if name == "m0" else ())
        for name in METHODS
    ]
    skipped = pd.DataFrame(
        [
            ("s1", "far", "inference", "weights not fetched: run it"),
            ("s2", "far", "inference", "weights not fetched: run it"),
            ("s1", "m9", "inference", "no clear pixel in the target"),
        ],
        columns=["scene", "model", "stage", "reason"],
    )
    table, bands = (pd.concat(part) for part in zip(*parts, strict=True))
    nothing = {
        "scene": "overcast",
        "place": "romania",
        "protocol": "paired",
        "level": 1.0,
        "day": 737_500,
    }
    silent = pd.DataFrame([nothing | {"model": "m9", "MAE": np.nan, "answered": 0.0}])
    table = pd.concat([table, silent])
    places = list(read_places().values())
    return Context(Evidence(table, bands, floors), methods, places, skipped)


@pytest.fixture(scope="module")
def blocks(context):
    return write_blocks(context)


def test_a_place_with_many_scenes_weighs_as_much_as_one_with_a_single_scene():
    table, _ = rows("paired")
    mean = summarise(table, "MAE")["m1"]
    each = [np.mean([error(p, "m1", scene) for scene in range(n)]) for p, n in PLACES.items()]
    assert (mean.mean, mean.n_places) == (pytest.approx(np.mean(each)), 4)
    (expected,) = error_intervals(np.array(each)[:, None])
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high))


def test_methods_are_held_against_each_other_on_scenes_and_bands_that_both_answer():
    _, bands = rows("paired")
    hard = (bands["scene"] == "romania-paired-0") | (bands["band"] == "B04")
    fewer = bands[~((bands["model"] == "m3") & hard)]
    bands.loc[hard, "MAE"] += 0.5  # what m3 leaves out is hard for all
    some = bands.loc[fewer.index]
    difference = gaps(some, "m1")["m3"]
    assert difference.mean == pytest.approx(2 * 0.002)
    assert gaps(some, "nobody") == {}


def test_a_ratio_is_the_same_at_easy_and_at_hard_places():
    _, bands = rows("paired")
    hard = bands["place"] == "antwerp"
    bands.loc[bands["model"] == "m3", "MAE"] = 1.5 * bands.loc[bands["model"] == "m1", "MAE"].values
    bands.loc[hard, "MAE"] *= 20
    found = ratios(bands, "m1")["m3"]
    assert (found.mean, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.n_places == len(PLACES)
    assert ratios(bands, "nobody") == {}


def test_one_hard_place_does_not_decide_whether_protocols_agree():
    pairs, _ = rows("paired")
    other, _ = rows("transplant")
    backwards, _ = rows("transplant", order=-1)
    antwerp = other["place"] == "antwerp"
    other.loc[antwerp, "MAE"] = backwards.loc[antwerp, "MAE"] * 20
    assert agreement(pairs, other)[0] > 0.9


def test_recommended_is_by_places_without_training_and_methods_that_answer_them_all(context):
    found = rank(context)
    assert tuple(found.columns) == COLUMNS
    assert set(found["place"]) == {"antwerp", "sweden"}
    assert "m9" not in set(found["model"])  # of one image
    m2 = found.set_index(["model", "place"]).loc[("m2", "sweden")]
    assert (m2["pairs"], m2["mae"]) == (2, pytest.approx(error("sweden", "m2") + 0.0005))
    table = context.evidence.table
    partly = table[~((table["model"] == "m2") & (table["scene"] == "sweden-paired-1"))]
    fewer = replace(context, evidence=replace(context.evidence, table=partly))
    assert "m2" not in set(rank(fewer)["model"])
    lines = [line for line in to_tsv(found).splitlines() if not line.startswith("#")]
    assert lines[0] == "model\tplace\tpairs\tmae"


def test_the_best_simple_method_is_one_of_those_on_most_places():
    table, _ = rows("paired")
    table = table[~((table["model"] == "m0") & (table["place"] == "hungary"))]
    assert best_of(summarise(table, "MAE"), METHODS) == "m1"
    assert best_of({}, METHODS) == ""


def test_protocols_that_order_methods_alike_agree_and_the_reverse_does_not():
    pairs, _ = rows("paired")
    for order, rho in ((1, 1.0), (-1, -1.0)):
        other, _ = rows("transplant", order=order)
        assert agreement(pairs, other) == (pytest.approx(rho), 10)
    few = pairs[pairs["model"].isin(METHODS[:5])]
    assert np.isnan(agreement(few, other)[0])


def test_real_pairs_come_first_and_are_binned_by_their_own_cover(context, blocks):
    titles = [b.text for b in blocks if isinstance(b, Heading)]
    assert titles[1] == "Real pairs"
    assert list(by_cover(context.rows("paired"), "paired")) == ["35–65 %"]
    assert list(by_cover(context.rows("transplant"), "transplant")) == ["80 %"]


def tables(blocks, title):
    """Return the tables below a heading."""
    found, inside = [], False
    for block in blocks:
        if isinstance(block, Heading):
            inside = block.text == title
        elif isinstance(block, Table) and inside:
            found.append(block)
    return found


def test_every_method_stands_with_its_places_scenes_and_what_it_knew(blocks):
    table = tables(blocks, "Real pairs")[0]
    records = [dict(zip(table.head, line, strict=True)) for line in table.rows]
    first = records[0]
    assert (first["method"], first["places"], first["scenes"]) == ("`m0`", "4", "15")
    assert first["knew"] == "hungary"
    unknown = np.mean([np.mean([error(p, "m0", s) for s in range(PLACES[p])]) for p in
                       ("romania", "sweden", "antwerp")])  # fmt: skip
    assert first["MAE at other places"].startswith(f"{unknown:.4f} (")
    assert records[1]["method"] == "**`m1`**" and records[1]["minus `m1`"] == "–"
    assert records[1]["MAE at other places"] == "the same"
    assert records[0]["minus `m1`"].startswith("−0.0020")
    ratios = [(error(p, "m0"), error(p, "m1")) for p in PLACES]
    assert records[0]["times `m1`"].startswith("0.9") and all(a < b for a, b in ratios)
    assert first["answered"] == "all"


def test_every_place_is_shown_by_itself(blocks):
    table = tables(blocks, "Real pairs")[1]
    assert table.head[1:] == [f"{p} ({n} scene{'s' * (n > 1)})" for p, n in sorted(PLACES.items())]
    (row,) = (row for row in table.rows if row[0] == "`m2`")
    assert row[1] == f"{error('antwerp', 'm2'):.4f}"
    # Nine dates of one place have an interval over dates, three have none.
    errors = [error("romania", "m2", scene) for scene in range(9)]
    dates = date_interval(errors, [9 * scene for scene in range(9)])
    assert row[3] == f"{np.mean(errors):.4f} ({dates.low:.4f} to {dates.high:.4f})"
    assert "(" not in row[2]


def test_places_that_judge_stand_apart_with_their_scenes(blocks):
    (table,) = tables(blocks, "Places that judge")
    assert table.head[1:3] == ["antwerp, real pairs", "sweden, real pairs"]
    antwerp, sweden = dict((row[0], row) for row in table.rows)["`m0`"][1:3]
    assert antwerp == f"{error('antwerp', 'm0'):.4f}; 1"
    assert sweden.endswith("; 2")


def test_rows_without_weights_are_named_once_and_other_skips_with_their_reason(blocks):
    text = to_markdown(blocks)
    assert "without their weights, which were not judged: `far`." in text
    (table,) = tables(blocks, "What did not run")
    first, second = table.rows
    assert first[:2] == ["`m9`", SILENT] and first[2] == "1"
    assert second == ["`m9`", "no clear pixel in the target", "1"]


def test_the_floor_is_of_the_pairs_that_have_one(blocks):
    text = to_markdown(blocks)
    assert "differ by 0.0200 (mean of 1 place, 1 pair; romania 0.0200), and by 0.0100" in text


def test_every_number_of_the_tables_is_in_the_csv(context):
    table = numbers(context)
    one = table[(table["model"] == "m2") & (table["metric"] == "MAE") & (table["cover"] == "80 %")]
    assert one[["n_places", "n_scenes"]].to_numpy().tolist() == [[4, 15]]


class Cells(HTMLParser):
    """The texts of a page's cells."""

    def __init__(self):
        super().__init__()
        self.found, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.found.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.found[-1] += data


def test_page_and_document_hold_the_same_cells(blocks):
    page = Cells()
    page.feed(to_html(blocks, title="x"))
    plain = [
        cell.replace("`", "").replace("**", "")
        for block in blocks
        if isinstance(block, Table)
        for cells in (block.head, *block.rows)
        for cell in cells
    ]
    assert page.found == plain


def test_text_is_escaped_and_links_lead_somewhere():
    blocks = [Heading("A < B", 1), Paragraph("see [docs](a.md), `x < y` and **z**")]
    page = to_html(blocks, title="<t>")
    assert "<title>&lt;t&gt;</title>" in page and "A &lt; B</h1>" in page
    assert "<p>see docs, <code>x &lt; y</code> and <strong>z</strong>" in page
    assert to_markdown(blocks) == "# A < B\n\nsee [docs](a.md), `x < y` and **z**\n"


def test_the_contents_bar_leads_to_every_part(blocks):
    page = to_html(blocks, title="x")
    parts = [block.text for block in blocks if isinstance(block, Heading) and block.level > 1]
    bar = page.split("<nav", 1)[1].split("</nav>")[0]
    anchors = re.findall(r'href="#([^"]+)"', bar)
    assert len(anchors) == len(parts) == len(set(anchors))
    assert all(f' id="{anchor}"' in page for anchor in anchors)


def test_ranks_by_protocol_stand_side_by_side_with_how_far_they_agree(blocks):
    ranks, places = tables(blocks, "Do the protocols agree?")
    assert ranks.head[1:] == ["Real pairs, 4 places", "Veiled transplants, 4 places",
                              "Clean transplants, 4 places"]  # fmt: skip
    first, last = ranks.rows[0], ranks.rows[-1]
    assert [cell.split(" ")[0] for cell in first[1:]] == ["1", "1", "10"]
    assert [cell.split(" ")[0] for cell in last[1:]] == ["10", "10", "1"]
    assert places.rows[0] == ["**all places**", "1.00 (10)", "−1.00 (10)"]
    assert [row[0] for row in places.rows[1:]] == sorted(PLACES)
