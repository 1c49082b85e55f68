"""A user's own model: one file, found, checked and blamed by name; its file is its identity."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unveil.errors import InputError
from unveil.inference.contract import CHECKS, BrokenError, Case, draw_scene_for, run_checks
from unveil.models.base import Facts, ModelSpec, Needs
from unveil.models.own import own_files
from unveil.models.registry import create, facts_of, is_own, kinds
from unveil.workflow.own_code import code_of_row, files_to_send

MINE = """
from dataclasses import dataclass

from unveil.models.base import Model, Needs, Prediction


@dataclass(frozen=True)
class Options:
    factor: float = 1.0


class Mine(Model):
    options_type = Options

    @property
    def needs(self):
        return Needs(min_context=1)

    def predict(self, inputs):
        return Prediction(inputs.target * self.options.factor)
"""
KIND = "my_models/mine.py:Mine"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file of models into a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models").mkdir()

    def write(text=MINE, name="mine.py"):
        (tmp_path / "my_models" / name).write_text(text)

    write()
    return write


def test_no_kind_of_ours_is_taken_for_a_file():
    assert not any(map(is_own, kinds()))


def test_a_class_in_a_file_is_all_there_is_to_a_model(write):
    model = create(ModelSpec("m", KIND, options={"factor": 2}))
    assert (model.options.factor, model.needs.min_context) == (2, 1)
    assert facts_of(model.spec) == Facts(False, f"Own method, {KIND}", "none", series=True)
    assert not list(Path().rglob("__pycache__"))


def test_an_edit_counts_at_once_even_within_a_second(write):
    assert create(ModelSpec("m", KIND)).options.factor == 1
    write(MINE.replace("= 1.0", "= 3.0"))
    assert create(ModelSpec("m", KIND)).options.factor == 3


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("my_models/nowhere.py:Mine", MINE, ["nowhere.py", "file not found", "working directory"]),
        ("my_models/mine.py", MINE, ["name the class in it, too: my_models/mine.py:CLASS"]),
        ("my_models/mine.py:Mime", MINE, ["has no class 'Mime'", "use 'Mine'"]),
        (KIND, "def f(:\n", ["mine.py", "line 1", "is no Python"]),
        (KIND, MINE.replace("(Model)", ""), ["mine.py", "'Mine'", "is no model"]),
        (KIND, MINE.replace("def predict", "def predicts"), ["'Mine.predict'", "is missing"]),
        (KIND, MINE.replace("def needs", "def need"), ["'Mine.needs'", "is missing"]),
        (KIND, "import torchh\n" + MINE, ["imports 'torchh', which is not installed", "conda:"]),
        (KIND, MINE + "\n1 / 0\n", ["mine.py", "ZeroDivisionError", "line"]),
        (KIND, MINE + "    receptive_field = 'all'\n", ["'Mine.receptive_field'", "'all'"]),
        (KIND, MINE + "    radar_dates = 'some'\n", ["'Mine.radar_dates'", "target, paired, all"]),
        (KIND, MINE + "    network = 1\n", ["'Mine.network'", "True or False"]),
        (KIND, MINE.replace("min_context=1", "bands=('B2',)"), ["'Mine.needs.bands'", "B02"]),
        (KIND, MINE.replace("Needs(min_context=1)", "3"), ["'Mine.needs'", "found 3"]),
        (
            KIND,
            MINE.replace("min_context=1", "min_context=3, max_context=2"),
            ["'Mine.needs'", "min_context 3 and max_context 2"],
        ),
        (
            KIND,
            MINE
            + "\n    def __init__(self, spec):\n        super().__init__(spec)\n        [][0]\n",
            ["'Mine.__init__'", "IndexError", "mine.py, line"],
        ),
        ("my_package.models:Mine", MINE, ["no installed package names", "unveil.models"]),
    ],
)
def test_what_is_wrong_with_a_model_is_said_of_its_file_class_and_field(write, kind, text, words):
    write(text)
    with pytest.raises(InputError) as caught:
        facts_of(ModelSpec("m", kind))
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"facto": 2}, "unknown option 'facto'.*use 'factor'"), ({"factor": "x"}, "give a number")],
)
def test_options_of_an_own_class_are_checked_as_those_of_ours(write, options, words):
    with pytest.raises(InputError, match=words):
        create(ModelSpec("m", KIND, options=options))


def test_a_class_with_an_environment_of_its_own_is_read_where_its_packages_are_not(write):
    network = MINE.replace("(Model):", "(Model):\n    network = True\n    citation = 'A 2026'")
    write("import torchh\n" + network)
    spec = ModelSpec("m", KIND, environment="torch.yaml")
    assert facts_of(spec) == Facts(True, "A 2026", "none", here=False)
    write("import torchh\n" + network.replace("def predict", "def predicts"))
    with pytest.raises(InputError, match=r"'Mine.predict'.*is missing"):
        facts_of(spec)
    write("import torchh\n" + network.replace("network = True", "network = 'yes'"))
    with pytest.raises(InputError, match=r"'Mine.network'.*found 'yes'"):
        facts_of(spec)


def test_its_file_those_beside_it_and_ours_that_it_imports_are_its_identity(write):
    row = {"kind": KIND}
    first = code_of_row(row)
    write("VALUE = 1\n", "other.py")
    assert code_of_row(row) == first, "nobody imports it"
    write(MINE + "\nfrom .other import VALUE\n")
    assert own_files(KIND) == [Path("my_models/mine.py"), Path("my_models/other.py")]
    assert files_to_send({"m": row}) == ["my_models/mine.py", "my_models/other.py"]
    second = code_of_row(row)
    assert create(ModelSpec("m", KIND)).options.factor == 1, "it can be imported so"
    write("VALUE = 2\n", "other.py")
    third = code_of_row(row)
    write(MINE + "\nfrom unveil.models.classical import clear_looks\n")
    assert len({first, second, third, code_of_row(row)}) == 4


def test_an_environment_of_its_own_is_its_identity_and_is_sent_with_it(write):
    Path("env.yaml").write_text("dependencies: [python]\n")
    row = {"kind": KIND, "conda": "env.yaml"}
    first = code_of_row(row)
    Path("env.yaml").write_text("dependencies: [python, numpy]\n")
    assert first != code_of_row(row) != code_of_row({"kind": KIND})
    assert files_to_send({"m": row}) == ["env.yaml", "my_models/mine.py"]


def test_a_class_of_an_installed_package_is_found_by_its_entry_point(write, tmp_path, monkeypatch):
    (tmp_path / "site/cloudaway").mkdir(parents=True)
    (tmp_path / "site/cloudaway/__init__.py").write_text("")
    (tmp_path / "site/cloudaway/models.py").write_text(MINE)
    facts = tmp_path / "site/cloudaway-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cloudaway\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[unveil.models]\nmine = cloudaway.models:Mine\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    row = {"kind": "cloudaway.models:Mine"}
    assert create(ModelSpec("m", row["kind"])).needs.min_context == 1
    with pytest.raises(InputError, match=r"use 'cloudaway.models:Mine'"):
        create(ModelSpec("m", "cloudaway.models:Mime"))
    before = code_of_row(row)
    (tmp_path / "site/cloudaway/models.py").write_text(MINE + "#\n")
    assert code_of_row(row) != before
    for name in ("cloudaway", "cloudaway.models"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A drawn place, for all models of this file."""
    return draw_scene_for(Needs(min_context=1), tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize(
    ("line", "check", "words"),
    [
        ("inputs.context[:] = 0", "inputs", "writes into inputs.context"),
        ("inputs.target[:] = inputs.target.mean()", "tiles", "receptive_field"),
        ("inputs.target[:] *= 100", "reflectance", "no reflectance"),
        ("inputs.target[:, 9:] = float('nan')", "reflectance", "no finite answer"),
        ("import random; inputs.target[:] *= random.random()", "repeats", "fixed seed"),
        ("return 3", "reflectance", "instead of a Prediction"),
        ("[][0]", "reflectance", "IndexError"),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_how(write, place, line, check, words):
    last = "        return Prediction"
    write(MINE.replace(last, f"        {line}\n{last}"))
    with pytest.raises((BrokenError, InputError), match=words):
        CHECKS[check](Case(ModelSpec("m", KIND), place))


def test_a_class_that_keeps_the_contract_is_told_so(write, place):
    results = run_checks(Case(ModelSpec("m", KIND), place))
    assert [check["check"] for check in results] == list(CHECKS)
    assert [check["found"] for check in results if not check["passed"]] == []


@pytest.mark.parametrize("check", ["reflectance", "tiles"])
def test_a_class_that_sees_the_veil_is_given_it_and_the_distance_from_cloud(write, place, check):
    text = MINE.replace("options_type = Options", "options_type = Options\n    sees_veil = True")
    clearer = "inputs.target - (inputs.target_veil * (inputs.target_distance > 0))[None]"
    write(text.replace("inputs.target * self.options.factor", clearer))
    CHECKS[check](Case(ModelSpec("m", KIND), place))


def test_a_place_is_drawn_with_what_a_model_needs(tmp_path):
    scene = draw_scene_for(Needs(min_context=9, levels=("L2A",)), tmp_path)
    assert (len(scene.context), scene.level, "B10" in scene.bands) == (9, "L2A", False)


@pytest.mark.slow
def test_the_program_of_the_documentation_keeps_the_contract(write, root, place):
    page = (root / "docs/add-a-model.md").read_text()
    for name in ("clear.py", "program.py"):
        write(re.search(rf"file my_models/{name} -->\n\n```python\n(.+?)```", page, re.S)[1], name)
    case = Case(ModelSpec("m", "my_models/program.py:Program"), place)
    assert all(CHECKS[check](case) for check in ("reflectance", "inputs"))


def test_a_gpu_is_claimed_without_tensorflow(write):
    """The model finds the claimed one as the only one; TensorFlow is never imported."""
    network = MINE.replace("(Model):", "(Model):\n    network = True\n    backend = 'torch'")
    write(network)
    Path("small.pt").write_bytes(b"weights")
    program = f"""
import os, sys
from pathlib import Path
from unveil.inference.engine import InferenceOptions, start
from unveil.models.base import ModelSpec
from unveil.models.registry import create
model = create(ModelSpec("m", {KIND!r}, weights=Path("small.pt")))
device = start(model, InferenceOptions())
print(device.kind, device.name[:5], os.environ["CUDA_VISIBLE_DEVICES"], model.backend)
print(start(model, InferenceOptions()) is device, len(model.weights_checksum), model.precision)
assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3,4", "TMPDIR": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "GPU GPU 3 3 torch\nTrue 64 float32\n", done.stderr[-2000:]
