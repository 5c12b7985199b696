"""Files: whole or not at all, read by the safetensors package and back, never trusted."""

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn as fnn
from fastnn import files
from fastnn.kernels._kernel import JIT


def build(**options):
    layers = [fnn.Dense(4, "relu"), fnn.BatchNorm(), fnn.Dense(2)]
    options = {"input_shape": (3,), "seed": 0, "backend": "numpy", **options}
    return fnn.Network(layers, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_come_back_bit_by_bit(dtype, tmp_path):
    path = tmp_path / "net.safetensors"
    net, twin = build(dtype=dtype), build(dtype=dtype, seed=1)
    net.save_weights(path)
    twin.load_weights(path)
    assert net.params.tobytes() == twin.params.tobytes()
    assert os.listdir(tmp_path) == [path.name]
    other = build(dtype="float64", seed=2)
    other.load_weights(path)
    np.testing.assert_array_equal(other.params, net.params)


def test_the_safetensors_package_reads_and_writes_the_same(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    path, net = tmp_path / "net.safetensors", build()
    net.save_weights(path)
    read = package.load_file(path)
    assert list(net.state_dict()) == sorted(read, key=list(net.state_dict()).index)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(read[name], array)
    package.save_file({name: array + 1 for name, array in read.items()}, path)
    twin = build()
    twin.load_weights(path)
    np.testing.assert_array_equal(twin.params, net.params + 1)


def test_arrays_of_any_layout(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    arrays = {
        "transposed": base.T,
        "backwards": base[::-1, ::2],
        "fortran": np.asfortranarray(base),
        "big endian": base.astype(">f4"),
        "nothing": np.zeros((0, 3)),
        "a number": np.array(2.5),
    }
    files.write(tmp_path / "a", arrays, {"note": "ü"})
    read, metadata = files.read(tmp_path / "a")
    assert metadata == {"note": "ü"} and list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].shape == array.shape and read[name].dtype.isnative
        np.testing.assert_array_equal(read[name], array)


def test_a_state_that_does_not_fit_changes_nothing(tmp_path):
    net = build()
    before = net.params.copy()
    state = net.state_dict()
    short = {name: array for name, array in state.items() if name != "0.bias"}
    for wrong, message in (
        (short, "missing: 0.bias; unknown: none"),
        (state | {"9.weight": before}, "missing: none; unknown: 9.weight"),
        (state | {"2.bias": np.zeros(3)}, r"2.bias must have shape \(2,\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            net.load_state_dict({name: np.ones_like(array) for name, array in wrong.items()})
        np.testing.assert_array_equal(net.params, before)


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_write_that_fails_leaves_the_old_file(call, code, tmp_path, monkeypatch):
    path, net = tmp_path / "net.safetensors", build()
    net.save_weights(path)
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    net.params[...] += 1
    if call == "open":
        monkeypatch.setattr(Path, "open", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        net.save_weights(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "net.safetensors"
    build().save_weights(path)
    return path.read_bytes()


def loads(content, path):
    """Whether a file is taken; anything but a FormatError is a bug."""
    path.write_bytes(content)
    net = build()
    before = net.params.copy()
    try:
        net.load_weights(path)
    except ValueError:
        np.testing.assert_array_equal(net.params, before)
        return False
    return True


def test_every_truncation_is_refused(small, tmp_path):
    path = tmp_path / "cut"
    for end in range(len(small)):
        assert not loads(small[:end], path), end
    assert loads(small, path) and not loads(small + b"\0", path)


def test_every_flipped_byte_is_refused_or_harmless(small, tmp_path):
    path = tmp_path / "flipped"
    length = 8 + int.from_bytes(small[:8], "little")
    for place in range(len(small)):
        content = bytearray(small)
        content[place] ^= 1 << (place % 8)
        taken = loads(bytes(content), path)
        # In the data the checksum notices; in the header, only what nobody reads may change.
        assert not taken or place < length, place


@settings(max_examples=500 if JIT else 50, deadline=None)
@given(st.data())
def test_mutations_never_do_harm(data):
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=5,
    )
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]))
    value = data.draw(junk)
    (header if field in ("a", "__metadata__") else header["a"])[field] = value
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
        with contextlib.suppress(fnn.FormatError):
            assert set(files.read(path)[0]) <= {"a"}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "must be an object"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', "described by"),
        (b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "described by"),
        (b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', "described by"),
        (b'{"a":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}', "described by"),
        (
            b'{"a":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}}',
            "described",
        ),
        (b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', "must be F32 or F64, got I64"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "one behind another"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "8 bytes of data"),
        (b'{"__metadata__":{"a":1}}', "texts by name"),
        (b'{"__metadata__":{"sha256":"0"}}', "checksum"),
    ],
)
def test_attacks(header, message, tmp_path):
    path = tmp_path / "attack"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(fnn.FormatError, match=message):
        files.read(path)
    path.write_bytes((1 << 63).to_bytes(8, "little") + header)
    with pytest.raises(fnn.FormatError, match="or cut"):
        files.read(path)
