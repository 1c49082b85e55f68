"""Config and tables: what is wrong is named, with the file, the field and the remedy."""

from __future__ import annotations

import re

import pytest
import yaml

from unveil.assembly.scene_table import read_scenes
from unveil.config import (
    fill_defaults,
    load_config,
    load_schema,
    read_models,
    require_yaml,
    select_models,
)
from unveil.errors import InputError
from unveil.guarded import read_yaml

HEADER = "scene\tsource\tpath\ttarget_date\tprotocol"
ROW = "alps\tlocal\tdata/alps\t2020-06-01\tpaired"


def table(tmp_path, text, *, encoding="utf-8"):
    path = tmp_path / "scenes.tsv"
    path.write_bytes(text.encode(encoding))
    return path


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_scenes(path)
    message = str(caught.value)
    for word in (path.name, "Remedy", *words):
        assert word in message, message


def test_a_table_saved_by_excel_with_bom_and_crlf_reads_like_any_other(tmp_path):
    plain = read_scenes(table(tmp_path, f"{HEADER}\n{ROW}\n"))
    excel = read_scenes(
        table(tmp_path, f'{HEADER}\t\r\n{ROW}\t\r\n"{"	" * 0}"\t\t\r\n', encoding="utf-8-sig")
    )
    assert plain == excel
    assert plain[0].scene == "alps"
    assert plain[0].n_context == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (HEADER + "\n", ["no scenes"]),
        (f"{HEADER}\n{ROW}\n{ROW}\n", ["'alps'", "twice"]),
        (f"{HEADER}\n{ROW.replace('alps', 'al/ps', 1)}\n", ["al/ps", "scene", "line 2"]),
        (f"{HEADER}\n{ROW.replace('local', 'locl')}\n", ["locl", "source"]),
        (f"{HEADER}\n{ROW.replace('2020-06-01', '2020-13-01')}\n", ["2020-13-01", "target_date"]),
        (f"{HEADER}\n{ROW.replace('2020-06-01', '01.06.2020')}\n", ["01.06.2020", "target_date"]),
        (f"{HEADER}\n{ROW.replace('paired', 'simulate')}\n", ["cloud_level"]),
        (f"{HEADER}\n{ROW.replace('paired', 'transplant')}\n", ["cloud_date"]),
        (f"{HEADER}\n{ROW[:20]}\tauto\tsimulate\n", ["auto", "transplant"]),
        (f"{HEADER}\tplce\n{ROW}\tx\n", ["plce", "place"]),
        (f"{HEADER}\tscene\n{ROW}\tx\n", ["twice", "scene"]),
        (f"{HEADER}\n{ROW}\textra\n", ["line 2", "6 cells"]),
        ((HEADER + "\n" + ROW).replace("\t", ","), ["commas"]),
        (f"{HEADER.replace('protocol', '')}\n{ROW}\n", ["protocol", "missing"]),
        (f"{HEADER}\n{ROW.rsplit(chr(9), 1)[0]}\n", ["protocol", "missing", "line 2"]),
        (f"{HEADER}\tcloud_level\n{ROW}\t1.5\n", ["cloud_level", "1.5"]),
        (f"{HEADER}\tcloud_level\n{ROW}\thalf\n", ["cloud_level", "half"]),
    ],
)
def test_a_bad_table_ends_in_one_clear_error(tmp_path, text, words):
    refused(table(tmp_path, text), *words)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    refused(table(tmp_path, f"{HEADER}\n{ROW}\n", encoding="utf-16"), "UTF-8")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.tsv.*not found"):
        read_scenes(tmp_path / "nowhere.tsv")


def test_the_shipped_config_states_the_defaults_of_the_schema(root):
    shipped = yaml.safe_load((root / "config/config.yaml").read_text())
    schema = load_schema("config")
    defaults = fill_defaults({}, schema)
    assert load_config(shipped) == shipped, "config.yaml leaves a key out"
    for key in defaults:
        assert shipped[key] == defaults[key], key


def described(schema, path=""):
    for key, rule in schema.get("properties", {}).items():
        yield f"{path}{key}", rule
        yield from described(rule, f"{path}{key}.")


@pytest.mark.parametrize("name", ["config", "scenes", "models", "local"])
def test_every_key_is_described_and_every_mapping_closed(name):
    schema = load_schema(name)
    closed = re.compile(r"'additionalProperties': (False|\{)")
    assert closed.search(str(schema))
    for key, rule in described(schema):
        assert rule.get("description"), key
        if "properties" in rule:
            assert rule["additionalProperties"] is False, key


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"run_model": ["cloudy"]}, ["run_model", "'run_models'"]),
        ({"masks": {"combined": "first"}}, ["masks.combined", "'combine'"]),
        ({"masks": {"dilate_px": 3}}, ["masks.dilate_px", "target_growth_m", "context_growth_m"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"inference": {"gpu": "yes"}}, ["inference.gpu", "required"]),
        ({"run_models": []}, ["run_models"]),
        ({"zzz": 1}, ["zzz", "use one of"]),
    ],
)
def test_a_bad_config_names_key_and_remedy(config, words):
    with pytest.raises(InputError) as caught:
        load_config(config, file="mine.yaml")
    for word in ("mine.yaml", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("place", ["selection.target_cloud", "sen12mscrts.input_cloud"])
def test_a_range_that_ends_before_it_begins_is_refused(place):
    section, key = place.split(".")
    with pytest.raises(InputError, match=rf"mine.yaml.*sources.{place}.*smaller number first"):
        load_config({"sources": {section: {key: [0.5, 0.1]}}}, file="mine.yaml")


def test_an_unknown_model_is_refused_with_the_nearest(tmp_path):
    models = {"mosaic": {"kind": "mosaic"}}
    with pytest.raises(InputError, match=r"'mosiac'.*use 'mosaic'"):
        select_models(models, ["mosiac"], file="mine.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mosaic: {kindd: mosaic}", ["kindd", "'kind'"]),
        ("mosaic: {title: x}", ["kind", "missing"]),
        ("a/b: {kind: mosaic}", ["a/b"]),
        ("- mosaic", ["mapping"]),
        ("mosaic: {", ["YAML"]),
        ("001: {kind: mosaic}", ["int 1", "in quotes"]),
        ("on: {kind: mosaic}", ["True", "in quotes"]),
        ("2020-01-01: {kind: mosaic}", ["datetime.date", "in quotes"]),
        ("~: {kind: mosaic}", ["None", "in quotes"]),
        ("mosaic: {kind: mosaic, on: 1}", ["True", "in quotes"]),
    ],
)
def test_a_bad_model_table_is_refused(tmp_path, text, words):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_models(path)
    for word in ("models.yaml", *words):
        assert word in str(caught.value)


def test_models_named_like_numbers_keep_their_names_in_quotes(tmp_path):
    path = tmp_path / "models.yaml"
    names = ["001", "NA", "NaN", "null", "1e5", "True", "on"]
    path.write_text("".join(f'"{name}": {{kind: mosaic}}\n' for name in names))
    assert list(read_models(path)) == names


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"metrics": {"cloud_levels": [0.6, 0.3]}}, ["metrics.cloud_levels", "0.6 to 0.3"]),
        ({"metrics": {"cloud_levels": [0.3, 0.3]}}, ["metrics.cloud_levels", "0.3 to 0.3"]),
        ({"report": {"stretch_percentiles": [98, 2]}}, ["report.stretch_percentiles", "98 to 2"]),
        ({"report": {"stretch_percentiles": [float("nan"), 98]}}, ["stretch_percentiles.0", "nan"]),
        ({"masks": {"cloud_probability": float("nan")}}, ["masks.cloud_probability", "nan"]),
        ({"sources": {"stac": {"timeout_s": float("inf")}}}, ["sources.stac.timeout_s", "inf"]),
        (
            {"coregistration": {"min_shift_px": 6}},
            ["coregistration.min_shift_px", "6 to 5.0", "min_shift_px below max_shift_px"],
        ),
        ({"metrics": {"land_cover_classes": {"a": 1, "b": 1}}}, ["land_cover_classes.b", "code 1"]),
    ],
)
def test_numbers_that_contradict_each_other_are_found_before_the_first_job(config, words):
    with pytest.raises(InputError) as caught:
        load_config(config, file="mine.yaml")
    for word in ("mine.yaml", "Remedy", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [c\nd: 1\n", ["line 3, column 2", "begun in line 2"]),
        ("a: 1\n\tb: 2\n", ["line 2, column 1", "cannot start any token"]),
        ("a: 1\nb: 2\na: 3\n", ["line 3, column 1", "'a' stands twice"]),
        ("a: {b: 1, b: 2}\n", ["line 1, column 11", "'b' stands twice"]),
    ],
)
def test_wrong_yaml_is_named_with_its_line(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        require_yaml([path, tmp_path / "absent.yaml"])
    for word in ("mine.yaml", "Remedy", *words):
        assert word in str(caught.value)


def test_a_merged_key_may_be_written_over(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {b: 1}\nc: {<<: *a, b: 2}\n")
    assert read_yaml(path)["c"] == {"b": 2}


def test_ids_that_differ_in_capitals_only_are_refused_as_they_become_names_of_files(tmp_path):
    refused(
        table(tmp_path, f"{HEADER}\n{ROW}\n{ROW.replace('alps', 'Alps', 1)}\n"),
        "'Alps' differs from 'alps' in capitals",
    )
    path = tmp_path / "models.yaml"
    path.write_text("mosaic: {kind: mosaic}\nMosaic: {kind: mosaic}\n")
    with pytest.raises(InputError, match=r"models.yaml.*'Mosaic' differs from 'mosaic'"):
        read_models(path)
