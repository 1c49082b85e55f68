"""What the code of a model does wrong is said of that model and that scene."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.test_inference import Blur, make_scene

from unveil.errors import InputError, ModelError
from unveil.inference.engine import InferenceOptions, run_shard
from unveil.models.base import ModelSpec, Prediction


def mine(**hooks):
    return type("Mine", (Blur,), hooks)(ModelSpec("mine", "mine.py:Mine"))


def divide(self, *_):
    return 1 / 0


def returning(make):
    return lambda self, inputs: make(inputs.target)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (mine(predict=divide), ["scene s", "ZeroDivisionError", "test_blame.py, line", "divide"]),
        (mine(prepare=divide), ["scene s", "ZeroDivisionError"]),
        (mine(skip=divide), ["scene s", "ZeroDivisionError"]),
        (mine(load=divide), ["ZeroDivisionError"]),
        (mine(predict=returning(lambda t: t)), ["scene s", "ndarray instead of a Prediction"]),
        (
            mine(predict=returning(lambda t: Prediction(t[:1]))),
            ["(1, 70, 95) instead of (2, 70, 95) (B02, B04)"],
        ),
        (mine(predict=returning(lambda t: Prediction(t, std=t[0]))), ["std has the shape"]),
        (mine(predict=returning(lambda t: Prediction(t.astype(str)))), ["array of <U"]),
        (mine(predict=returning(lambda t: Prediction(None))), ["NoneType instead of numbers"]),
    ],
)
def test_a_model_that_fails_is_named_with_its_scene_and_its_line(tmp_path, model, words):
    scene = make_scene(tmp_path)
    with pytest.raises(ModelError) as caught:
        run_shard(model, [scene], tmp_path / "p", InferenceOptions(), code="c")
    for word in ("model 'mine' (kind mine.py:Mine) failed", "run_models", *words):
        assert word in str(caught.value), caught.value
    assert "report" not in str(caught.value)
    assert not list((tmp_path / "p").glob("*.tif")), "half an image is left"


def test_bad_input_that_a_model_finds_keeps_its_words(tmp_path):
    def predict(self, inputs):
        raise InputError("median reflectance 640", file="delivery.tif")

    with pytest.raises(InputError, match=r"^delivery.tif: median reflectance 640$"):
        run_shard(
            mine(predict=predict),
            [make_scene(tmp_path)],
            tmp_path / "p",
            InferenceOptions(),
            code="c",
        )


def test_numbers_of_any_type_are_a_prediction(tmp_path):
    model = mine(predict=returning(lambda t: Prediction(np.asarray(t, np.float64))))
    records = run_shard(model, [make_scene(tmp_path)], tmp_path / "p", InferenceOptions(), code="c")
    assert records[0]["status"] == "predicted"
