"""Readers of weights on small files made here, honest and hostile."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unveil.errors import InputError
from unveil.weights import arrays as weights
from unveil.weights.arrays import NamedArrays, check_shapes, check_values
from unveil.weights.keras_hdf5 import read_keras_hdf5
from unveil.weights.read import format_of, read_weights
from unveil.weights.torch_zip import read_torch_zip
from unveil.workflow.manifest import count_parameters

# ---------------------------------------------------------------- checkpoints made by hand

TORCH = types.ModuleType("torch")
UTILS = types.ModuleType("torch._utils")
DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
for _name in DTYPES:
    setattr(TORCH, _name, type(_name, (), {"__module__": "torch"}))


def _rebuild_tensor_v2(*_arguments):
    """Stand in for PyTorch's function of this name, so that it can be pickled."""


_rebuild_tensor_v2.__module__ = "torch._utils"
UTILS._rebuild_tensor_v2 = _rebuild_tensor_v2


class Storage:
    """A run of numbers that tensors view."""

    def __init__(self, kind: str, values: np.ndarray) -> None:
        self.kind, self.values = kind, np.asarray(values, DTYPES[kind]).ravel()


class Tensor:
    """A view of a storage; offset and strides count elements."""

    def __init__(self, storage: Storage, *, size, stride, offset: int = 0) -> None:
        self.arguments = (storage, offset, tuple(size), tuple(stride), False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


def tensor_of(values: np.ndarray, kind: str = "FloatStorage") -> Tensor:
    """Return a contiguous tensor."""
    values = np.asarray(values)
    strides = [step // values.itemsize for step in np.empty_like(values, order="C").strides]
    return Tensor(Storage(kind, values), size=values.shape, stride=strides)


class _Pickler(pickle.Pickler):
    def __init__(self, stream) -> None:
        super().__init__(stream, protocol=2)
        self.storages: list[Storage] = []

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        key = str(self.storages.index(obj))
        return ("storage", getattr(TORCH, obj.kind), key, "cpu", obj.values.size)


def write_checkpoint(
    path: Path,
    content,
    *,
    order: str | None = "little",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write ``content`` in the layout of ``torch.save``."""
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": TORCH, "torch._utils": UTILS}
    try:
        pickler.dump(content)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", stream.getvalue())
        if order:
            archive.writestr("net/byteorder", order)
        for key, storage in enumerate(pickler.storages):
            mark = ">" if order == "big" else "<"
            data = storage.values.astype(storage.values.dtype.newbyteorder(mark)).tobytes()
            archive.writestr(f"net/data/{key}", data)
        archive.writestr("net/version", "3\n")
    return path


def write_program(path: Path, program: bytes) -> Path:
    """Write a checkpoint with a given pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", program)
    return path


# --------------------------------------------------------------------- PyTorch, honest files


@pytest.mark.parametrize("kind", [kind for kind in DTYPES if kind != "BFloat16Storage"])
@pytest.mark.parametrize("order", ["little", "big", None])
def test_every_dtype_is_read_in_either_byte_order(tmp_path, kind, order):
    values = np.array([[0, 1, 2], [100, 5, 1]], DTYPES[kind])
    path = write_checkpoint(tmp_path / "w.pth", {"x": tensor_of(values, kind)}, order=order)
    found = read_torch_zip(path).arrays["x"]
    assert found.dtype == values.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, values)


def test_bfloat16_becomes_the_same_numbers_in_float32(tmp_path):
    exact = np.array([0.0, 1.0, -2.5, 3.140625, 2.0**100], np.float32)
    upper = (exact.view(np.uint32) >> 16).astype(np.uint16)
    path = write_checkpoint(tmp_path / "w.pth", {"x": tensor_of(upper, "BFloat16Storage")})
    np.testing.assert_array_equal(read_torch_zip(path).arrays["x"], exact)


@settings(max_examples=25)
@given(data=st.data())
def test_a_strided_view_reads_as_the_view_it_was(tmp_path_factory, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    axes = data.draw(st.permutations(range(len(shape))))
    step = data.draw(st.integers(1, 2))
    base = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    view = base.transpose(axes)[::step]
    tensor = Tensor(
        Storage("FloatStorage", base), size=view.shape, stride=[s // 4 for s in view.strides]
    )
    path = write_checkpoint(tmp_path_factory.mktemp("view") / "w.pth", {"x": tensor})
    np.testing.assert_array_equal(read_torch_zip(path).arrays["x"], view)


def test_nested_containers_give_joined_names_and_scalars_are_passed_over(tmp_path):
    shared = Storage("FloatStorage", np.arange(6))
    content = {
        "epoch": 3,
        "state": OrderedDict(a=Tensor(shared, size=(2, 2), stride=(2, 1))),
        "optimizer": {"steps": [tensor_of([1.0]), {"b": Tensor(shared, size=(2,), stride=(1,))}]},
        "milestones": Counter({10: 1}),
        "loss": float("inf"),
        "frozen": {"yes"},
    }
    read = read_torch_zip(write_checkpoint(tmp_path / "w.pth", content))
    assert list(read.arrays) == ["state/a", "optimizer/steps/0", "optimizer/steps/1/b"]
    assert np.shares_memory(read.arrays["state/a"], read.arrays["optimizer/steps/1/b"])
    assert list(read.under("state/").arrays) == ["a"]


def test_a_group_that_is_absent_is_named_with_those_there_are(tmp_path):
    read = read_torch_zip(write_checkpoint(tmp_path / "w.pth", {"netG": {"a": tensor_of([1.0])}}))
    with pytest.raises(InputError, match=r"state_dict.*netG"):
        read.under("state_dict/")


def test_a_state_dict_with_metadata_reads_like_one_without(tmp_path):
    state = OrderedDict(x=tensor_of([1.0, 2.0]))
    state._metadata = OrderedDict({"": {"version": 1}})
    read = read_torch_zip(write_checkpoint(tmp_path / "w.pth", state))
    np.testing.assert_array_equal(read.arrays["x"], [1.0, 2.0])


# -------------------------------------------------------------------- PyTorch, hostile files


class _RunsCommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path):
    witness = tmp_path / "witness"
    content = {"x": tensor_of([1.0]), "y": _RunsCommand(f"touch {witness}")}
    path = write_checkpoint(tmp_path / "w.pth", content)
    with pytest.raises(InputError, match=r"(posix|nt)\.system") as caught:
        read_torch_zip(path)
    assert str(path) in str(caught.value)
    assert not witness.exists()


@pytest.mark.parametrize(
    "value", [np.float64(1.5), np.arange(3.0), Path("x"), complex(1, 2), len, bytearray(b"x")]
)
def test_python_objects_are_refused(tmp_path, value):
    path = write_checkpoint(tmp_path / "w.pth", {"x": tensor_of([1.0]), "y": value})
    with pytest.raises(InputError, match="more than plain tensors"):
        read_torch_zip(path)


@pytest.mark.parametrize(
    "lent", [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"]
)
@pytest.mark.parametrize(
    "state", [b"}X\x08\x00\x00\x00functionNs", b"N}X\x08\x00\x00\x00functionNs\x86"]
)
def test_what_the_reader_lends_to_a_pickle_cannot_be_altered(tmp_path, lent, state):
    # A BUILD instruction sets attributes of whatever object is on the stack.
    path = write_program(tmp_path / "bad.pth", b"\x80\x02" + lent + state + b"b.")
    with pytest.raises(InputError, match="attempt to alter"):
        read_torch_zip(path)
    good = write_checkpoint(tmp_path / "good.pth", {"x": tensor_of([1.0, 2.0])})
    np.testing.assert_array_equal(read_torch_zip(good).arrays["x"], [1.0, 2.0])


def test_classes_that_the_reader_lends_cannot_be_altered(tmp_path):
    program = b"\x80\x02ccollections\nOrderedDict\nN}X\x06\x00\x00\x00updateNs\x86b."
    with pytest.raises(InputError, match="damaged PyTorch checkpoint"):
        read_torch_zip(write_program(tmp_path / "w.pth", program))


def test_containers_inside_themselves_end(tmp_path):
    loop: dict = {}
    loop["again"] = loop
    with pytest.raises(InputError, match="nested too deeply"):
        read_torch_zip(write_checkpoint(tmp_path / "w.pth", loop))


def test_a_memo_index_that_only_fills_memory_is_refused(tmp_path):
    program = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(InputError, match="memo index"):
        read_torch_zip(write_program(tmp_path / "w.pth", program))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((5,), (1,), 0), ((2, 2), (3, 1), 1), ((2,), (1,), 3), ((-1,), (1,), 0), ((2,), (-1,), 2)],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset):
    storage = Storage("FloatStorage", np.arange(4))
    content = {"x": Tensor(storage, size=size, stride=stride, offset=offset)}
    with pytest.raises(InputError, match="damaged"):
        read_torch_zip(write_checkpoint(tmp_path / "w.pth", content))


def test_a_tensor_that_repeats_one_number_without_bound_is_refused(tmp_path):
    content = {"x": Tensor(Storage("FloatStorage", [1.0]), size=(2**20, 2**20), stride=(0, 0))}
    with pytest.raises(InputError, match="over a storage of 1"):
        read_torch_zip(write_checkpoint(tmp_path / "w.pth", content))


def test_compressed_entries_are_refused(tmp_path):
    path = write_checkpoint(
        tmp_path / "w.pth", {"x": tensor_of(np.zeros(999))}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(InputError, match="compressed"):
        read_torch_zip(path)


def test_a_flipped_byte_is_noticed(tmp_path):
    values = np.linspace(1, 2, 50, dtype=np.float32)
    path = write_checkpoint(tmp_path / "w.pth", {"x": tensor_of(values)})
    content = bytearray(path.read_bytes())
    content[content.find(values.tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="CRC"):
        read_torch_zip(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>quota exceeded</body></html>", "HTML page"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before PyTorch 1.6"),
    ],
)
def test_files_that_are_no_checkpoint_are_named_for_what_they_are(tmp_path, content, found):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        read_torch_zip(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "w.pth", {"x": tensor_of(np.arange(100.0))})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="not a complete PyTorch zip"):
        read_torch_zip(path)


# ---------------------------------------------------------------------------- legacy Keras


def write_keras(path: Path, layers: dict[str, dict[str, np.ndarray]], *, top: str = "") -> Path:
    """Write weights in the layout of Keras 2, groups in reverse order of the layers."""
    with h5py.File(path, "w") as file:
        root = file.require_group(top) if top else file
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, values in reversed(layers.items()):
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}".encode() for key in values]
            for key, array in values.items():
                group[f"{name}/{key}"] = array
    return path


KERAS_LAYERS = {
    "input_1": {},
    "conv2d_10": {"kernel:0": np.full((3, 3, 2, 4), 0.5, np.float32), "bias:0": np.zeros(4)},
    "lambda_1": {},
    "conv2d_2": {"kernel:0": np.ones((3, 3, 4, 2), np.float32), "bias:0": np.ones(2)},
}


@pytest.mark.parametrize("top", ["", "model_weights"])
def test_keras_layers_come_in_the_order_of_layer_names(tmp_path, top):
    read = read_keras_hdf5(write_keras(tmp_path / "w.hdf5", KERAS_LAYERS, top=top))
    assert list(read.arrays) == [
        "conv2d_10/kernel:0",
        "conv2d_10/bias:0",
        "conv2d_2/kernel:0",
        "conv2d_2/bias:0",
    ]
    np.testing.assert_array_equal(read.arrays["conv2d_2/bias:0"], [1, 1])


def test_long_lists_of_layers_that_keras_splits_are_joined(tmp_path):
    path = write_keras(tmp_path / "w.hdf5", KERAS_LAYERS)
    whole = list(read_keras_hdf5(path).arrays)
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    assert list(read_keras_hdf5(path).arrays) == whole


def test_a_layer_that_is_listed_but_absent_is_named(tmp_path):
    path = write_keras(tmp_path / "w.hdf5", KERAS_LAYERS)
    with h5py.File(path, "a") as file:
        del file["conv2d_2"]
    with pytest.raises(InputError, match=r"'conv2d_2': listed in 'layer_names'"):
        read_keras_hdf5(path)


def test_a_weight_of_text_is_refused(tmp_path):
    layers = {"conv2d_1": {"kernel:0": np.array([b"code"])}}
    with pytest.raises(InputError, match="not an array of numbers"):
        read_keras_hdf5(write_keras(tmp_path / "w.hdf5", layers))


def test_an_hdf5_file_of_something_else_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        file["temperature"] = np.arange(3)
    with pytest.raises(InputError, match=r"layer_names.*temperature"):
        read_keras_hdf5(tmp_path / "w.hdf5")


def test_a_file_that_declares_endless_weights_is_refused(tmp_path):
    path = write_keras(tmp_path / "w.hdf5", {"conv2d_1": {}})
    with h5py.File(path, "a") as file:
        file["conv2d_1"].attrs["weight_names"] = ["kernel:0"]
        file["conv2d_1"].create_dataset("kernel:0", (2**20, 2**20), "f4", chunks=(256, 256))
    with pytest.raises(InputError, match="GiB"):
        read_keras_hdf5(path)


# --------------------------------------------------------------------- named arrays and checks


@settings(max_examples=20)
@given(
    values=st.lists(
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64]),
            hnp.array_shapes(max_dims=4, max_side=4),
            elements=st.integers(-100, 100),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_back_in_its_order(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("npz") / "w.npz"
    written = {f"array_{len(values) - n}": value for n, value in enumerate(values)}
    weights.write_arrays(path, written)
    read = weights.read_arrays(path).arrays
    assert list(read) == list(written)
    for name, value in written.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def test_the_same_weights_give_the_same_file(tmp_path):
    content = {"kernel_01": np.arange(12.0).reshape(3, 4)}
    for name in ("a.npz", "b.npz"):
        weights.write_arrays(tmp_path / name, content)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_python_objects_in_an_npz_are_refused_in_both_directions(tmp_path):
    path = tmp_path / "w.npz"
    with pytest.raises(ValueError, match="objects"):
        weights.write_arrays(path, {"x": np.array([{}])})
    np.savez(path, x=np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="plain arrays"):
        weights.read_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    for read in (weights.read_arrays, read_keras_hdf5, read_torch_zip):
        with pytest.raises(InputError, match=r"absent\.bin: weights file not found"):
            read(tmp_path / "absent.bin")


def named(**arrays: np.ndarray) -> NamedArrays:
    return NamedArrays(arrays, Path("w.npz"), "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(value):
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 2] = value
    with pytest.raises(InputError, match=r"'kernel'.*1 of 9 values are not finite"):
        check_values(named(bias=np.zeros(3), kernel=kernel))


def test_zero_biases_pass_and_zero_kernels_do_not():
    check_values(named(kernel=np.ones((2, 2)), bias=np.zeros(2)))
    with pytest.raises(InputError, match="zero"):
        check_values(named(kernel=np.zeros((2, 2)), bias=np.ones(2)))


def test_missing_unknown_and_misshapen_arrays_are_all_named():
    found = named(a=np.zeros(2), c=np.zeros((2, 3)))
    check_shapes(found, {"a": (2,), "c": (2, 3)})
    with pytest.raises(InputError, match=r"missing: b; 1 unknown: c; 1 misshapen: a \(2,\)"):
        check_shapes(found, {"a": (3,), "b": (1,)})


# ------------------------------------------------------------------ formats told by content


def test_the_format_is_told_by_content_whatever_the_name(tmp_path):
    values = np.arange(6, dtype=np.float32)
    paths = {name: tmp_path / f"{name}.weights" for name in ("numpy", "torch", "keras")}
    weights.write_arrays(paths["numpy"], {"conv/kernel": values})
    write_checkpoint(paths["torch"], {"conv": {"kernel": tensor_of(values)}})
    write_keras(paths["keras"], {"conv": {"kernel": values}})
    for name, path in paths.items():
        assert format_of(path) == name
        np.testing.assert_array_equal(read_weights(path).arrays["conv/kernel"], values)


def test_a_web_page_under_the_name_of_weights_is_called_one(tmp_path):
    page = tmp_path / "weights.hdf5"
    page.write_text("<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(InputError, match=r"weights\.hdf5.*HTML page.*download the weights again"):
        read_weights(page)


# ------------------------------------------------------------------ numbers that are learned


def test_parameters_are_counted_without_what_is_not_learned(tmp_path):
    path = tmp_path / "net.npz"
    named = {
        "conv/kernel": np.zeros((3, 3, 2, 4), np.float32),
        "norm/running_mean": np.zeros(4, np.float32),
        "optimizer/step": np.zeros(7, np.float32),
    }
    weights.write_arrays(path, named)
    assert count_parameters(path) == 3 * 3 * 2 * 4
    path.with_suffix(".json").write_text('{"architecture": {"parameters": 71}}')
    assert count_parameters(path) == 71, "the card knows best"


def test_the_parameters_of_a_small_dsen2cr_are_those_of_its_layers(golden):
    """15 channels in, 16 blocks of two convolutions with 8 features, 13 bands out."""
    path = golden / "A5_legacy_hdf5" / "good_sar_F8_B16_conv2d_1_34.hdf5"
    first, block, last = 9 * 15 * 8 + 8, 2 * (9 * 8 * 8 + 8), 9 * 8 * 13 + 13
    assert count_parameters(path) == first + 16 * block + last
