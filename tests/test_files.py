"""Files: whole or not at all, read by the safetensors package and back, never trusted."""

import contextlib
import json
import os
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn as fnn
from fastnn import files
from fastnn.kernels._kernel import JIT
from tests import attacks
from tests.campaign import corrupt


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
        "bytes": np.arange(3, dtype=np.uint8),
        "large": np.array([2**64 - 1], np.uint64),
        "negative": np.array([[-(2**63)]], ">i8"),
    }
    files.write(tmp_path / "a", arrays, {"note": "ü"})
    read, metadata = files.read(tmp_path / "a")
    assert metadata == {"note": "ü"} and list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].shape == array.shape and read[name].dtype.isnative
        np.testing.assert_array_equal(read[name], array)
        assert read[name].flags.owndata and read[name].flags.writeable
    content = (tmp_path / "a").read_bytes()
    assert files.parse(content, "a")[1] == metadata
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for name in arrays:  # each at a multiple of its size, for readers that map the file
        assert header[name]["data_offsets"][0] % arrays[name].itemsize == 0
    package = pytest.importorskip("safetensors.numpy")
    for name, array in package.load_file(tmp_path / "a").items():
        np.testing.assert_array_equal(array, arrays[name])
    package.save_file({"i": np.arange(5), "b": arrays["bytes"]}, tmp_path / "b", {"note": "y"})
    read, metadata = files.read(tmp_path / "b")
    assert metadata == {"note": "y"} and read["i"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arrays", "metadata", "error", "message"),
    [
        ({"a": np.zeros(2, bool)}, {}, TypeError, "'a' .* float32, .* got bool"),
        ({"a": np.zeros(2, object)}, {}, TypeError, "got object"),
        ({1: np.zeros(2)}, {}, TypeError, "1 must be a text"),
        ({}, {"a": 1}, TypeError, "texts by name"),
        ({"__metadata__": np.zeros(2)}, {}, ValueError, "taken"),
        ({}, {"sha256": ""}, ValueError, "taken"),
        ({"\ud800": np.zeros(2)}, {}, ValueError, "surrogates"),
        ({"a" * 1001: np.zeros(2)}, {}, files.FormatError, "1000 of a name"),
        ({}, {"a": "b" * (1 << 23)}, files.FormatError, "8388608 bytes of metadata"),
    ],
)
def test_what_could_not_be_read_is_not_written(arrays, metadata, error, message, tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error, match=message):
        files.write(tmp_path / "a", arrays, metadata)
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


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


def test_a_terabyte_of_nothing_is_not_read(tmp_path):
    path = tmp_path / "sparse"
    path.write_bytes(attacks.GOOD)
    os.truncate(path, 1 << 40)
    with pytest.raises(files.FormatError, match="there are 1099511627"):
        files.read(path)


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
    for end in range(len(small)):
        with pytest.raises(files.FormatError):
            files.parse(small[:end], "cut")
    path = tmp_path / "cut"
    assert loads(small, path) and not loads(small + b"\0", path)
    assert not any(loads(small[:end], path) for end in range(0, len(small), 100))


def test_every_flipped_bit_is_found(small):
    """In names and metadata as in the data; all but the word that says that there is a checksum."""
    arrays, metadata = files.parse(small, "small")
    word = small.index(b"sha256")
    for place in range(len(small)):
        content = bytearray(small)
        content[place] ^= 1 << (place % 8)
        if word <= place < word + 6:
            with contextlib.suppress(files.FormatError):
                taken, others = files.parse(bytes(content), "flipped")
                assert others.items() > metadata.items() and list(taken) == list(arrays)
                assert all(np.array_equal(taken[name], arrays[name]) for name in arrays)
        else:
            with pytest.raises(files.FormatError):
                files.parse(bytes(content), "flipped")


@settings(max_examples=200 if JIT else 50, deadline=None)
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
    content = len(text).to_bytes(8, "little") + text + bytes(8)
    with contextlib.suppress(fnn.FormatError):
        assert set(files.parse(content, "mutated")[0]) <= {"a"}


@settings(max_examples=200 if JIT else 20, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        st.tuples(
            st.sampled_from([*files.DTYPES.values()]), st.lists(st.integers(0, 4), max_size=4)
        ),
        max_size=5,
    ),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])),
        max_size=5,
    ),
)
def test_any_names_texts_and_shapes_come_back(shapes, metadata):
    shapes.pop("__metadata__", None)
    metadata.pop("sha256", None)
    rng = np.random.default_rng(0)
    arrays = {n: (rng.random(shape) * 99).astype(dtype) for n, (dtype, shape) in shapes.items()}
    read, found = files.parse(b"".join(files._content("a", arrays, metadata)), "a")
    assert found == metadata and list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seven bytes", "or cut: a header of 0 bytes in a file of 7"),
        ("a header of 2^63 bytes", "at most 16777216 are read"),
        ("cut in the data", "describes 8 bytes of data, and there are 7"),
        ("no object", "must be an object of JSON"),
        ("two headers", "something follows its end at byte 61"),
        ("comma too many", "nothing stands before the comma or brace at its byte 61"),
        ("not closed", "neither an array nor .* at its byte 1"),
        ("hole", "one behind another, not at 5 after 4"),
        ("negative shape", "'a' needs lists of whole numbers"),
        ("shape of 2^63", "'a' is larger than any array"),
        ("offsets backwards", "'a' does not fit its place"),
        ("dtype BF16", "'a' must be one of F32, F64, I64, U64, U8, got 'BF16'"),
        ("dtype missing", "'a' must have dtype, shape, data_offsets"),
        ("same name in two spellings", "'a' stands twice"),
        ("same field twice", "a name stands twice"),
        ("metadata of numbers", "metadata must be texts by name, got 1 for 'a'"),
        ("checksum of one letter", "its checksum does not fit"),
    ],
)
def test_errors_say_what_is_wrong(name, message):
    with pytest.raises(files.FormatError, match=message) as caught:
        files.parse(attacks.ATTACKS[name](), "attack")
    assert str(caught.value).startswith("'attack'")


def test_what_is_refused_and_what_is_taken():
    for name, content in attacks.ATTACKS.items():
        if not re.search("MB|0,000 arrays", name):  # these take their time, and a process each
            with (
                contextlib.nullcontext()
                if name in attacks.TAKEN
                else pytest.raises(files.FormatError)
            ):
                files.parse(content(), name)


def test_no_arrays_and_too_many(monkeypatch):
    assert files.parse(attacks.ATTACKS["nothing"](), "nothing") == ({}, {})
    assert len(files.parse(attacks.tiny(3), "three")[0]) == 3
    monkeypatch.setattr(files, "LONGEST", len(attacks.tiny(3)) - 12)
    with pytest.raises(files.FormatError, match="at most"):
        files.parse(attacks.tiny(3), "three")
    monkeypatch.undo()
    monkeypatch.setattr(files, "MOST", 2)
    with pytest.raises(files.FormatError, match="at most 2 arrays"):
        files.parse(attacks.tiny(3), "three")


def test_the_campaign_of_damage_finds_careless_loaders():
    def no_checksum(content):
        return corrupt.load(attacks.sealed(content))

    def no_shapes(content):
        return corrupt.load(content.replace(b"shape", b"SHAPE"))

    for load, message in (
        (no_checksum, "a flipped byte went unseen"),
        (no_shapes, "a good file is refused"),
        (lambda content: corrupt.load(content[:1] and attacks.GOOD), "a part is taken"),
        (lambda content: content[80], "IndexError"),
    ):
        figures = corrupt.run(1, load=load)
        assert figures["failures"] and message in figures["first failure"]


once = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not JIT or os.environ.get("NUMBA_BOUNDSCHECK") == "1",
    reason="once on Linux, whose figures it reads: no compiled code is in it",
)


@once
def test_attacks():
    """Nothing is run, opened or reached; memory and time are bounded by the size of the file."""
    for name, report in attacks.run("fastnn.files:read").items():
        assert not attacks.faults(report), (name, report)
        assert (report["outcome"] == "FormatError") == (name in attacks.REFUSED), (name, report)


@once
def test_attacks_find_a_careless_loader():
    some = {"good": lambda: attacks.GOOD, "pickle": attacks.ATTACKS["pickle"]}
    good, pickled = attacks.run("tests.attacks:careless", some).values()
    assert [fault.split()[0] for fault in attacks.faults(good)] == [
        "RuntimeError:", "an", "it", "it", "it"
    ]  # fmt: skip
    assert "write" in str(good["deeds"]) or "open" in str(good["deeds"])
    assert "os.system" in str(attacks.faults(pickled))
