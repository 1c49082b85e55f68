"""The registry of models."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from unveil.errors import InputError
from unveil.models import registry
from unveil.models.base import ModelSpec

WRITTEN = [
    kind
    for kind in registry.kinds()
    if importlib.util.find_spec(registry._CLASSES[kind].partition(":")[0])
]


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_kind_names_the_class_that_says_so_itself(kind):
    module, _, name = registry._CLASSES[kind].partition(":")
    implementation = getattr(importlib.import_module(module), name)
    assert implementation.kind == kind
    assert implementation.citation


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown kind 'dsen2-cr'.*use 'dsen2cr'"):
        registry.create(ModelSpec("m", "dsen2-cr"))


def test_a_network_can_be_asked_for_its_needs_without_tensorflow():
    code = (
        "import sys; from unveil.models.registry import create;"
        "from unveil.models.base import ModelSpec;"
        "model = create(ModelSpec('m', 'dsen2cr')); assert model.needs.bands;"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
