"""Kept or made: what an earlier run left is kept if nothing behind it changed, else made anew."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil import raster
from unveil.errors import InputError
from unveil.records import (
    content_of,
    identify,
    kept,
    read_record,
    record_checksums,
    require_recorded,
    write_record,
)

IDENTITY = identify(input=[1, 2], code="a")
FACTS = st.dictionaries(
    st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists), max_size=4
).map(
    lambda facts: {name: value for name, value in facts.items() if name not in ("made", "unveil")}
)


@pytest.fixture
def record(tmp_path):
    """A record that vouches for one file beside it."""
    (tmp_path / "a.tif").write_bytes(b"pixels")
    files = {"a.tif": raster.sha256(tmp_path / "a.tif")}
    facts = {"seconds": 1.5}
    write_record(tmp_path / "a.json", facts, made_from=IDENTITY, files=files, rule="infer")
    return tmp_path / "a.json"


def test_what_was_made_from_the_same_is_kept(record):
    assert kept(record, IDENTITY)["seconds"] == 1.5


@pytest.mark.parametrize("part", ["input", "code"])
def test_another_input_or_code_is_made_anew_and_the_log_says_which(record, caplog, part):
    with caplog.at_level("INFO"):
        assert kept(record, IDENTITY | identify(**{part: "another"})) is None
    assert f"for another {part}" in caplog.text


def test_a_part_more_or_less_is_another_identity(record):
    assert kept(record, IDENTITY | identify(weights="w")) is None
    assert kept(record, identify(code="a")) is None


def test_a_file_that_is_harmed_or_gone_is_made_anew(record):
    image = record.with_name("a.tif")
    image.write_bytes(b"Pixels")
    assert kept(record, IDENTITY) is None
    image.unlink()
    assert kept(record, IDENTITY) is None


@given(number=st.integers(min_value=0))
def test_no_changed_byte_of_a_record_is_trusted(tmp_path_factory, number):
    path = tmp_path_factory.mktemp("record") / "a.json"
    document = write_record(path, {"rows": [1, "b"]}, made_from=IDENTITY, rule="score")
    data = bytearray(path.read_bytes())
    data[number % len(data)] ^= 1
    path.write_bytes(data)
    found = kept(path, IDENTITY)
    assert found is None or found == document  # white space between words says nothing


@given(facts=FACTS)
def test_a_record_says_what_was_written(tmp_path_factory, facts):
    path = tmp_path_factory.mktemp("record") / "a.json"
    write_record(path, facts, made_from=IDENTITY)
    found = dict(kept(path, IDENTITY))
    found.pop("made")
    assert json.dumps(found) == json.dumps(facts)


def test_the_content_is_what_is_said_and_vouched_for_however_it_came_about(tmp_path):
    one = write_record(tmp_path / "a.json", {"a": 1}, made_from=IDENTITY, rule="infer")
    two = write_record(tmp_path / "a.json", {"a": 1}, made_from={}, rule="infer_on_cpu")
    three = write_record(tmp_path / "a.json", {"a": 1}, files={"a.tif": "0" * 64})
    assert content_of(one) == content_of(two) != content_of(three)


def test_an_edited_record_is_refused_with_the_rule_that_makes_it_again(record):
    record.write_text(record.read_text().replace("1.5", "0.1"))
    with pytest.raises(InputError, match=r"a\.json: is not as it was written.*--forcerun infer:"):
        read_record(record, kind="a record of a prediction")


def test_a_record_cut_short_is_refused_with_the_rule_of_who_asks(record):
    record.write_text(record.read_text()[:-20])
    with pytest.raises(InputError, match=r"cannot be read as a record.*--forcerun score:"):
        read_record(record, kind="a record of a prediction", rule="score")


@pytest.fixture
def tables(tmp_path):
    """Two tables in a folder, with their checksums beside the folder."""
    (tmp_path / "tables").mkdir()
    paths = [tmp_path / "tables" / name for name in ("one.csv", "two words.csv")]
    for path in paths:
        path.write_text(f"{path.name}\n")
    record_checksums(tmp_path / "tables.sha256", paths, rule="compare_models")
    return tmp_path / "tables.sha256", paths


def test_an_edited_or_missing_table_is_refused_with_its_rule(tables):
    checksums, paths = tables
    require_recorded(checksums, paths)
    paths[1].write_text("better\n")
    require_recorded(checksums, paths[:1])
    with pytest.raises(InputError, match=r"two words\.csv: is not.*--forcerun compare_models"):
        require_recorded(checksums, paths)
    paths[1].unlink()
    with pytest.raises(InputError, match=r"two words\.csv: file not found.*compare_models"):
        require_recorded(checksums, paths)


def test_a_table_without_a_checksum_is_refused(tables):
    checksums, [one, _] = tables
    with pytest.raises(InputError, match=r"three\.csv.*--forcerun compare_models"):
        require_recorded(checksums, [shutil.copy(one, one.with_name("three.csv"))])


@pytest.mark.parametrize("text", ["", "no checksums", "\0"])
def test_damaged_checksums_are_refused(tables, text):
    checksums, paths = tables
    checksums.write_text(text)
    with pytest.raises(InputError, match=r"tables\.sha256|one\.csv"):
        require_recorded(checksums, paths)


def test_the_checksums_are_those_of_sha256sum(tables):
    checksums, paths = tables
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("no sha256sum here")
    check = [program, "--check", "--strict", checksums.name]
    assert subprocess.run(check, cwd=checksums.parent).returncode == 0
    paths[0].write_text("edited\n")
    assert subprocess.run(check, cwd=checksums.parent).returncode == 1
