"""The code of a result: an edit of whatever a stage imports changes it, any other edit does not."""

from __future__ import annotations

import ast
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from unveil.code import SCRIPTS, _parse_imports, code_files, code_of
from unveil.models.registry import class_path, kinds

STAGES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of scripts, package and tables; returns its folder of scripts."""
    top = tmp_path_factory.mktemp("checkout")
    shutil.copytree(SCRIPTS, top / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (top / "resources").mkdir()
    for path in (SCRIPTS.parent / "resources").iterdir():
        if path.is_file():
            shutil.copy(path, top / "resources")
    return top / "scripts"


def codes(scripts: Path) -> dict[str, str]:
    return {stage: code_of(stage, scripts=scripts) for stage in STAGES}


def test_a_copy_has_the_same_code_wherever_it_lies(checkout):
    assert codes(checkout) == {stage: code_of(stage) for stage in STAGES}


@contextmanager
def edited(*paths: Path):
    """Add a line to files, and take it back."""
    whole = {path: path.read_bytes() for path in paths}
    for path, data in whole.items():
        path.write_bytes(data + b"\n#\n")
    yield
    for path, data in whole.items():
        path.write_bytes(data)


@pytest.mark.slow
def test_an_edit_of_any_file_changes_the_stages_that_reach_it_and_no_other(checkout):
    before = codes(checkout)
    reached = {stage: set(code_files(stage, scripts=checkout)) for stage in STAGES}
    files = {path for path in checkout.rglob("*") if path.is_file()}
    files |= set((checkout.parent / "resources").iterdir())
    assert len(files) > 100
    for path in set().union(*reached.values()):
        first = next(stage for stage in STAGES if path in reached[stage])
        with edited(path):
            assert code_of(first, scripts=checkout) != before[first], path
    for stage in STAGES:
        with edited(*(files - reached[stage])):
            assert code_of(stage, scripts=checkout) == before[stage]


def test_an_import_within_a_function_and_a_table_by_name_are_reached(checkout):
    def names(stage):
        found = code_files(stage, scripts=checkout)
        return {path.relative_to(checkout.parent).as_posix() for path in found}

    assert "scripts/unveil/weights/arrays.py" in names("infer")
    assert "resources/published_weights.tsv" in names("infer")
    assert "resources/stac_presets.yaml" in names("assemble_scene")
    assert "resources/citations.bib" in names("render_report")
    assert "scripts/unveil/report/templates/page.html.j2" in names("render_report")
    assert not any("report" in name for name in names("infer"))


def imports_in(tree: ast.Module) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return {ast.dump(node) for node in nodes}


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_cut_out_of_a_file_are_those_of_the_whole_file(path):
    text = path.read_text()
    assert imports_in(_parse_imports(text)) == imports_in(ast.parse(text))


PROSE, BROKEN = '"""Of all:\nimport what is whole.\n"""', "from m import \\\n  n"


@pytest.mark.parametrize("first", ["", PROSE, BROKEN], ids=["plain", "prose", "broken line"])
def test_imports_are_found_wherever_the_language_allows_them(first):
    text = f"""{first}
if True: import a.b
x = 1; from . import c
class K:
    def f(self):
        from ..d import (  # not all of it
            e,
            f as g,
        )
import j, k as l
"""
    assert imports_in(_parse_imports(text)) == imports_in(ast.parse(text))
    assert len(imports_in(ast.parse(text))) >= 4


def test_a_new_file_of_a_package_is_found_without_a_list(checkout):
    package = checkout / "unveil"
    before = codes(checkout)
    (package / "novelty.py").write_text("VALUE = 1\n")
    assert codes(checkout) == before, "nobody imports it"
    raster = (package / "raster.py").read_text()
    (package / "raster.py").write_text(raster + "\n\ndef new():\n    from .novelty import VALUE\n")
    imported = code_of("infer", scripts=checkout)
    (package / "novelty.py").write_text("VALUE = 2\n")
    assert code_of("infer", scripts=checkout) != imported
    (package / "novelty.py").unlink()
    (package / "raster.py").write_text(raster)


@pytest.mark.parametrize("kind", kinds())
def test_the_code_of_a_model_is_no_code_of_another(checkout, kind):
    """Another row of the registry, and another model's file, leave its predictions alone."""
    mine = class_path(kind)
    before = code_of("infer", mine, scripts=checkout)
    reached = code_files("infer", mine, scripts=checkout)
    own = checkout.joinpath(*mine.partition(":")[0].split(".")).with_suffix(".py")
    registry = checkout / "unveil/models/registry.py"
    assert {own, registry} <= set(reached)
    whole = registry.read_text()
    first = next(line for line in whole.splitlines() if '"unveil.models.' in line)
    new = first.replace("cloudy", "newest").replace("Cloudy", "Newest")
    registry.write_text(whole.replace(first, f"{first}\n{new}"))
    assert code_of("infer", mine, scripts=checkout) == before
    registry.write_text(whole.replace("return model_class(", "return 1 * model_class("))
    assert code_of("infer", mine, scripts=checkout) != before
    registry.write_text(whole)


def test_a_stage_without_a_script_is_refused(checkout):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        code_of("nowhere", scripts=checkout)


PINNED = {
    "search_scene": "a lock is made once, and again when it is asked for or its request changes",
    "fetch_scene": "bytes of a catalogue's files, chosen by the lock",
    "send": "files as they are",
}
"""Scripts that make nothing of their own which another version of them would make differently."""


@pytest.mark.parametrize("stage", STAGES)
def test_every_rule_has_the_code_of_its_script_among_its_parameters(root, stage):
    # Of the models table each row has its own, told by the code of its kind.
    files = [*root.glob("rules/*.smk"), root / "scripts/unveil/workflow/own_code.py"]
    rules = "".join(path.read_text() for path in files)
    assert f"scripts/{stage}.py" in rules
    if "code_of_row(" in rules:  # what a rule calls for the code behind a row
        rules += (SCRIPTS / "unveil/workflow/own_code.py").read_text()
    assert (f'code_of("{stage}"' in rules) == (stage not in PINNED)


@pytest.mark.parametrize("stage", STAGES)
def test_every_script_takes_the_package_beside_it_before_it_imports_any_of_it(stage):
    own = "sys.path.insert(0, snakemake.scriptdir)"
    text = (SCRIPTS / f"{stage}.py").read_text()
    assert 0 < text.index(own) < text.index("from unveil")
