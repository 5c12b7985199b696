"""Tests of fastnn.datasets."""

import doctest
import gzip
import hashlib
import os
import re
import tracemalloc

import numpy as np
import pytest

from fastnn import datasets

FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def idx_bytes(array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def message(error, call, *args, **kwargs):
    """The text of the `error` that the call raises, which is one line."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def data_root():
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA is not set: tests on real MNIST skipped")
    return os.environ["FASTNN_DATA"]


def test_doctests():
    failed, attempted = doctest.testmod(datasets)
    assert failed == 0
    assert attempted > 20


def test_all_is_what_is_public():
    public = {
        name
        for name, value in vars(datasets).items()
        if getattr(value, "__module__", None) == datasets.__name__ and not name.startswith("_")
    }
    assert public == set(datasets.__all__)
    assert datasets.__all__ == sorted(datasets.__all__)


# -- spiral, vertical, sine: nnfs ---------------------------------------------------------------

# Made by nnfs 0.5.1 itself: nnfs.init(), numpy.random.seed(seed), then spiral_data(samples,
# classes) or vertical_data; the same on numpy 1.24.4 and 2.4.6. What is compared is the sha256 of
# the bytes of x. sin, cos, log and sqrt are in float64 and may differ by last bits between CPUs;
# for these seeds every float64 that is rounded to float32 is more than 100 float64 ulp from where
# the rounding would go the other way, so the float32 bits cannot differ.
NNFS = [
    ("spiral", 0, 100, 3, "ce93f1d0d63e477e04d5e149c49fa550a73cb87f5404c6e9977bf5c90a383e5e"),
    ("spiral", 7, 37, 4, "ecfa0b218ef4021d60d16e50e443363fb1e74775d3296e9b7de14c9f44e11807"),
    ("spiral", 42, 50, 2, "c6adc8a69592a9a236bc19922d71f86d26f7920a12f81dbc93ee918e3a553a7f"),
    ("vertical", 0, 100, 3, "223606dae4955350e468b87347f0672b62dbfd4a83d771ab9321b981b6c37bfb"),
    ("vertical", 7, 37, 4, "cb44ee602b03262405a2104c9f745587f963e6d293f33d1b5b13c58e7eccf859"),
    ("vertical", 42, 50, 2, "999d12bbe37c7cc7b1fd0fd726b01e8ceaf5ee123f7c610574565fabb207bbff"),
]


@pytest.mark.parametrize(("name", "seed", "samples", "classes", "digest"), NNFS)
def test_same_bits_as_nnfs(name, seed, samples, classes, digest):
    x, y = getattr(datasets, name)(samples=samples, classes=classes, seed=seed)
    assert x.dtype == np.float32
    assert x.shape == (samples * classes, 2)
    assert sha256(x.tobytes()) == digest
    assert y.dtype == np.uint8
    assert y.tolist() == [label for label in range(classes) for _ in range(samples)]


def test_rows_of_nnfs():
    # Rows 1 and 299 of nnfs, seed 0: readable where the digests above are not.
    x, _ = datasets.spiral()
    assert [v.hex() for v in x[1].tolist()] == ["0x1.88a2360000000p-9", "0x1.3c199c0000000p-7"]
    assert [v.hex() for v in x[-1].tolist()] == ["-0x1.e2b5360000000p-1", "0x1.55645e0000000p-2"]
    x, _ = datasets.vertical()
    assert [v.hex() for v in x[1].tolist()] == ["0x1.47cf0e0000000p-5", "0x1.75fd4e0000000p-2"]
    assert [v.hex() for v in x[-1].tolist()] == ["0x1.5158e00000000p-1", "0x1.edb6640000000p-2"]


def test_first_layer_of_the_nnfs_book():
    # Layer_Dense(2, 3) on spiral_data(100, 3) after nnfs.init(): what the book prints, and what
    # nnfs 0.5.1 gives. The weights continue the stream that made the spiral; the product is in
    # float64 and rounded to float32, as with nnfs.init().
    x, _ = datasets.spiral(samples=100, classes=3, seed=0)
    stream = np.random.RandomState(0)
    stream.randn(300)
    weights = (0.01 * stream.randn(2, 3).astype(np.float32)).astype(np.float64)
    output = (x.astype(np.float64) @ weights).astype(np.float32)
    published = np.array(
        [
            [0.0, 0.0, 0.0],
            [-1.0475188e-04, 1.1395361e-04, -4.7983500e-05],
            [-2.7414842e-04, 3.1729150e-04, -8.6921798e-05],
            [-4.2188365e-04, 5.2666257e-04, -5.5912682e-05],
            [-5.7707680e-04, 7.1401405e-04, -8.9430439e-05],
        ],
        np.float32,
    )
    np.testing.assert_array_max_ulp(output[:5], published, maxulp=1)


def test_sine_is_that_of_nnfs():
    # From nnfs 0.5.1: x exact; y to 1e-15, as numpy 1.24 and 2.4 differ in the last bit of sin.
    x, y = datasets.sine()
    assert (x.dtype, y.dtype, x.shape, y.shape) == (np.float64, np.float64, (1000, 1), (1000, 1))
    assert sha256(x.tobytes()) == "01ee92da61cd90712f1172ec47e93dfb0f0b6e20c995fd668f1e697a287bde01"
    known = {
        0: "0x0.0p+0",
        1: "0x1.9bc5a9d91f679p-8",
        100: "0x1.2cf2304755a5ep-1",
        250: "0x1.0000000000000p+0",
        333: "0x1.bbf0b0e1a47e1p-1",
        999: "-0x1.9bc5a9d91f5d1p-8",
    }
    expected = [float.fromhex(value) for value in known.values()]
    np.testing.assert_allclose(y[list(known), 0], expected, rtol=1e-15, atol=0)
    assert datasets.sine(1)[1].tolist() == [[0.0]]


@pytest.mark.parametrize("name", ["spiral", "vertical", "moons", "circles"])
def test_seed_is_all_that_counts(name):
    make = getattr(datasets, name)
    np.random.seed(3)  # noqa: NPY002 - the global state, which is not to matter
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()
    assert make()[0].tobytes() == make(seed=0)[0].tobytes()


def test_limits_of_spiral_and_vertical():
    for make in (datasets.spiral, datasets.vertical):
        assert make(1, 1)[0].shape == (1, 2)
        assert make(2, 256, 2**32 - 1)[1][-1] == 255
        # The product of the two numpy integers would not fit them.
        assert make(np.uint8(200), np.uint8(2))[0].shape == (400, 2)


# -- xor, moons, circles ------------------------------------------------------------------------


def test_xor():
    x, y = datasets.xor()
    assert (x.dtype, x.shape, y.dtype) == (np.float32, (4, 2), np.uint8)
    assert y.tolist() == [int(a) ^ int(b) for a, b in x.tolist()]
    assert len({tuple(row) for row in x.tolist()}) == 4


@pytest.mark.parametrize("samples", [1, 2, 7, 200])
def test_moons_without_noise(samples):
    x, y = datasets.moons(samples, noise=0, seed=5)
    assert (x.dtype, x.shape) == (np.float32, (samples, 2))
    assert (y.dtype, y.shape) == (np.uint8, (samples,))
    assert np.bincount(y, minlength=2).tolist() == [samples // 2, samples - samples // 2]
    centre = np.where(y[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(np.linalg.norm(x - centre, axis=1), 1, atol=1e-6)
    up = np.where(y == 0, 1, -1) * (x - centre)[:, 1]
    assert up.min() > -1e-6


@pytest.mark.parametrize("samples", [1, 2, 7, 200])
def test_circles_without_noise(samples):
    x, y = datasets.circles(samples, noise=0, factor=0.3, seed=5)
    assert (x.dtype, x.shape) == (np.float32, (samples, 2))
    assert (y.dtype, y.shape) == (np.uint8, (samples,))
    assert np.bincount(y, minlength=2).tolist() == [samples // 2, samples - samples // 2]
    np.testing.assert_allclose(np.hypot(*x.T), np.where(y == 0, 1, 0.3), atol=1e-6)
    if samples == 200:  # evenly spread
        np.testing.assert_allclose(x[y == 0].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(x[y == 1].mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize("make", [datasets.moons, datasets.circles])
def test_noise_and_order(make):
    x, y = make(20000, noise=0, seed=4)
    noisy, labels = make(20000, noise=0.25, seed=4)
    assert (labels == y).all()
    np.testing.assert_allclose((noisy - x).std(axis=0), 0.25, rtol=0.03)
    np.testing.assert_allclose((noisy - x).mean(axis=0), 0, atol=0.01)
    assert abs(y[:2000].mean() - 0.5) < 0.05  # shuffled: the first rows are of both classes
    assert (make(seed=1)[1] != make(seed=2)[1]).any()


# -- arguments ----------------------------------------------------------------------------------

FROM_0 = "expected an integer of at least 0"
FROM_1 = "expected an integer, 1 to 1099511627776"
TO_256 = "expected an integer, 1 to 256"
SEED = "expected an integer, 0 to 4294967295"
NOISE = "expected a number from 0 to 1e+30"
FACTOR = "expected a number above 0 and below 1"
REAL = "expected a real number"
WRONG = [
    ("spiral", {"samples": 0}, ValueError, f"samples: {FROM_1}, got 0"),
    ("spiral", {"samples": 1.0}, TypeError, f"samples: {FROM_1}, got float"),
    ("spiral", {"classes": 0}, ValueError, f"classes: {TO_256}, got 0"),
    ("spiral", {"classes": 257}, ValueError, f"classes: {TO_256}, got 257"),
    ("spiral", {"seed": -1}, ValueError, f"seed: {SEED}, got -1"),
    ("spiral", {"seed": None}, TypeError, f"seed: {SEED}, got NoneType"),
    ("vertical", {"samples": -5}, ValueError, f"samples: {FROM_1}, got -5"),
    ("vertical", {"classes": "3"}, TypeError, f"classes: {TO_256}, got str"),
    ("vertical", {"seed": 2**32}, ValueError, f"seed: {SEED}, got 4294967296"),
    ("sine", {"samples": 0}, ValueError, f"samples: {FROM_1}, got 0"),
    ("sine", {"samples": True}, TypeError, f"samples: {FROM_1}, got bool"),
    ("moons", {"samples": 0}, ValueError, f"samples: {FROM_1}, got 0"),
    ("moons", {"seed": -1}, ValueError, f"seed: {FROM_0}, got -1"),
    ("moons", {"seed": 0.5}, TypeError, f"seed: {FROM_0}, got float"),
    ("moons", {"noise": -0.1}, ValueError, f"noise: {NOISE}, got -0.1"),
    ("moons", {"noise": "a"}, TypeError, f"noise: {REAL}, got str"),
    ("circles", {"samples": np.ones((9, 9))}, TypeError, f"samples: {FROM_1}, got ndarray"),
    ("circles", {"noise": np.nan}, ValueError, f"noise: {NOISE}, got nan"),
    ("circles", {"noise": np.float32(np.inf)}, ValueError, f"noise: {NOISE}, got inf"),
    ("circles", {"noise": False}, TypeError, f"noise: {REAL}, got bool"),
    ("circles", {"factor": 0}, ValueError, f"factor: {FACTOR}, got 0.0"),
    ("circles", {"factor": 1.0}, ValueError, f"factor: {FACTOR}, got 1.0"),
    ("circles", {"factor": np.nan}, ValueError, f"factor: {FACTOR}, got nan"),
    ("circles", {"factor": None}, TypeError, f"factor: {REAL}, got NoneType"),
]


@pytest.mark.parametrize(("name", "arguments", "error", "text"), WRONG)
def test_wrong_argument(name, arguments, error, text):
    assert message(error, getattr(datasets, name), **arguments) == text


# -- digits -------------------------------------------------------------------------------------


def test_digits():
    x, y = datasets.digits()
    assert (x.dtype, x.shape, y.dtype, y.shape) == (np.uint8, (1797, 64), np.uint8, (1797,))
    assert x.flags.c_contiguous
    assert (x.min(), x.max()) == (0, 16)
    # The counts that the UCI data's own description gives for its test set.
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # Of scikit-learn's load_digits(), turned to uint8.
    assert sha256(x.tobytes()) == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert sha256(y.tobytes()) == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    assert x[0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


# -- mnist, fashion_mnist -----------------------------------------------------------------------


def test_real_mnist(data_root):
    x_train, y_train, x_test, y_test = datasets.mnist()
    for x, y, n in ((x_train, y_train, 60000), (x_test, y_test, 10000)):
        assert (x.dtype, x.shape, y.dtype, y.shape) == (np.uint8, (n, 784), np.uint8, (n,))
        assert x.flags.c_contiguous
    # The digests are of the whole unpacked file, header and pixels.
    train = idx_bytes(x_train.reshape(60000, 28, 28))
    test = idx_bytes(x_test.reshape(10000, 28, 28))
    assert sha256(train).startswith("ba891046e6505d7a")
    assert sha256(test).startswith("0fa7898d509279e4")
    # The well-known counts of each digit.
    assert np.bincount(y_train).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert y_train[:5].tolist() == [5, 0, 4, 1, 9]


def test_real_fashion_mnist(data_root):
    x_train, y_train, x_test, y_test = datasets.fashion_mnist(data_root)
    assert (x_train.shape, x_test.shape) == ((60000, 784), (10000, 784))
    assert np.bincount(y_train).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert y_train[:5].tolist() == [9, 0, 0, 3, 0]
    assert sha256(idx_bytes(x_train.reshape(-1, 28, 28))).startswith("c59f468a2f672dc8")
    assert sha256(idx_bytes(x_test.reshape(-1, 28, 28))).startswith("5b4141f0afbad91e")


def make_set(folder, first=0, suffix="", dotted=False):
    """Write four little files; the first pixel of all is `first`. Return what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    images[0, 0, 0] = first
    labels = np.array([7, 8, 9], np.uint8)
    for name, array in zip(FILES, (images, labels, images[:2], labels[:2]), strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        content = idx_bytes(array)
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return images.reshape(3, 4), labels, images[:2].reshape(2, 4), labels[:2]


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("load", "folder"),
    [
        (datasets.mnist, "."),
        (datasets.mnist, "mnist"),
        (datasets.mnist, "MNIST/raw"),
        (datasets.fashion_mnist, "."),
        (datasets.fashion_mnist, "fashion-mnist"),
        (datasets.fashion_mnist, "fashion_mnist"),
        (datasets.fashion_mnist, "FashionMNIST/raw"),
    ],
)
def test_folders_and_spellings(tmp_path, monkeypatch, load, folder, suffix, dotted):
    expected = make_set(tmp_path / folder, suffix=suffix, dotted=dotted)
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path))
    for loaded in (load(), load(tmp_path), load(str(tmp_path))):
        for got, want in zip(loaded, expected, strict=True):
            np.testing.assert_array_equal(got, want, strict=True)
            assert got.flags.c_contiguous
            assert got.flags.writeable


def test_own_subfolder_goes_before_root(tmp_path):
    make_set(tmp_path, first=100)
    make_set(tmp_path / "mnist", first=101)
    make_set(tmp_path / "fashion-mnist", first=102)
    assert datasets.mnist(tmp_path)[0][0, 0] == 101
    assert datasets.fashion_mnist(tmp_path)[0][0, 0] == 102
    (tmp_path / "mnist" / FILES[3]).unlink()  # not whole: the four of root, none of these
    assert datasets.mnist(tmp_path)[0][0, 0] == 100


def test_root_goes_before_the_variable(tmp_path, monkeypatch):
    make_set(tmp_path / "a", first=100)
    make_set(tmp_path / "b", first=101)
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path / "a"))
    assert datasets.mnist(tmp_path / "b")[0][0, 0] == 101


WANTED = f"expected {', '.join(FILES)}, plain or .gz, in one folder, got none with all four: "
NAMING = "name the folder with root= or the environment variable FASTNN_DATA; files: "
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"


@pytest.mark.parametrize("value", [None, ""])
def test_no_folder_named(monkeypatch, value):
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("FASTNN_DATA", value)
    text = message(FileNotFoundError, datasets.mnist)
    assert text == f"MNIST: {WANTED}looked in no folder; {NAMING}{MNIST_URL}"
    text = message(FileNotFoundError, datasets.fashion_mnist)
    assert text == (
        f"Fashion-MNIST: {WANTED}looked in no folder; {NAMING}"
        "https://github.com/zalandoresearch/fashion-mnist"
    )


def test_not_found(tmp_path):
    looked = ", ".join(repr(str(tmp_path / folder)) for folder in ("mnist", "MNIST/raw", "."))
    text = message(FileNotFoundError, datasets.mnist, tmp_path)
    assert text == f"MNIST: {WANTED}looked in {looked}; {NAMING}{MNIST_URL}"


def test_not_all_found(tmp_path):
    make_set(tmp_path)
    (tmp_path / FILES[1]).unlink()
    (tmp_path / FILES[3]).unlink()
    (tmp_path / FILES[3]).mkdir()  # a folder is no file
    text = message(FileNotFoundError, datasets.mnist, tmp_path)
    assert f"{str(tmp_path)!r} (lacks {FILES[1]}, {FILES[3]}); name the folder" in text


def test_images_and_labels_that_do_not_fit(tmp_path):
    make_set(tmp_path)
    labels = tmp_path / FILES[1]
    labels.write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    text = message(ValueError, datasets.mnist, tmp_path)
    assert text == f"{str(labels)!r}: expected labels, uint8 (3,), got uint8 (4,)"
    labels.write_bytes(idx_bytes(np.zeros(3, np.int32), 0x0C))
    text = message(ValueError, datasets.mnist, tmp_path)
    assert text == f"{str(labels)!r}: expected labels, uint8 (3,), got int32 (3,)"
    images = tmp_path / FILES[0]
    images.write_bytes(idx_bytes(np.zeros((3, 4), np.uint8)))
    text = message(ValueError, datasets.mnist, tmp_path)
    assert text == f"{str(images)!r}: expected images, uint8 of 3 dimensions, got uint8 (3, 4)"


# -- read_idx -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 1, 3, 2), (1,) * 32, (0,), (0, 3)])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [
        (0x08, np.uint8),
        (0x09, np.int8),
        (0x0B, np.int16),
        (0x0C, np.int32),
        (0x0D, np.float32),
        (0x0E, np.float64),
    ],
)
def test_idx_types_and_shapes(tmp_path, code, dtype, shape, suffix):
    array = (np.arange(np.prod(shape)) * 5 - 11).astype(dtype).reshape(shape)
    content = idx_bytes(array, code)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    got = datasets.read_idx(path)
    np.testing.assert_array_equal(got, array, strict=True)
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(datasets.read_idx(str(path)), array, strict=True)


def test_idx_of_several_pieces(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(5, 700, 1000), dtype=np.uint8)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array), compresslevel=1))
    np.testing.assert_array_equal(datasets.read_idx(tmp_path / "a"), array, strict=True)
    np.testing.assert_array_equal(datasets.read_idx(tmp_path / "a.gz"), array, strict=True)


def test_idx_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        datasets.read_idx(tmp_path / "no-such-file")
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        datasets.read_idx(tmp_path / "no-such-file.gz")


ANY_TYPE = "expected an IDX type of 0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E"
IDX_START = "expected an IDX file, which begins with 0000 and two more bytes"
SIZES = "truncated: expected 8 bytes for the sizes of 2 dimensions"
DATA = "expected 6 bytes of data for shape (2, 3) of uint8"
GOOD = "0000 0802 00000002 00000003 010203040506"
BAD_IDX = [
    ("", f"{IDX_START}, got no bytes"),
    ("000008", f"{IDX_START}, got 000008"),
    ("00010802", f"{IDX_START}, got 00010802"),
    ("1f8b0800", f"{IDX_START}, got 1f8b0800"),  # gzip's own
    ("00000A01", f"{ANY_TYPE}, got 0x0A"),
    ("00000001", f"{ANY_TYPE}, got 0x00"),
    ("00000800", "expected 1 to 32 dimensions, got 0"),
    ("00000821", "expected 1 to 32 dimensions, got 33"),
    ("00000802", f"{SIZES}, got 0"),
    ("00000802 00000002 000000", f"{SIZES}, got 7"),
    (GOOD[:-2], f"truncated: {DATA}, got 5"),
    (GOOD + "07", f"trailing bytes: {DATA}, got 7"),
    (GOOD + "07" * 20, f"trailing bytes: {DATA}, got 26"),
]


@pytest.mark.parametrize(("content", "text"), BAD_IDX)
def test_idx_errors(tmp_path, content, text):
    path = tmp_path / "bad\nidx"  # the message is one line even so
    path.write_bytes(bytes.fromhex(content))
    assert message(ValueError, datasets.read_idx, path) == f"{str(path)!r}: {text}"
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(bytes.fromhex(content)))
    if "trailing" in text:  # nothing is unpacked beyond the first byte too many
        text = f"trailing bytes: {DATA}, got 7 or more"
    assert message(ValueError, datasets.read_idx, path) == f"{str(path)!r}: {text}"


def test_idx_shape_beyond_numpy(tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(bytes.fromhex("00000803 00000000 FFFFFFFF FFFFFFFF"))
    text = message(ValueError, datasets.read_idx, path)
    shape = (0, 2**32 - 1, 2**32 - 1)
    assert text.startswith(f"{str(path)!r}: expected a shape for numpy, got {shape}: ")


def test_idx_truncated_at_every_length(tmp_path):
    content = idx_bytes(np.arange(6, dtype=np.int16).reshape(2, 1, 3), 0x0B)
    path = tmp_path / "cut"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        text = message(ValueError, datasets.read_idx, path)
        assert text.startswith(f"{str(path)!r}: {'truncated: ' if length >= 4 else IDX_START}")


@pytest.mark.parametrize("position", range(16))
def test_idx_every_value_of_every_header_byte(tmp_path, position):
    content = bytearray(idx_bytes(np.arange(6, dtype=np.int16).reshape(2, 1, 3), 0x0B))
    path = tmp_path / "flipped"
    read = 0
    for value in range(256):
        content[position] = value
        path.write_bytes(content)
        try:
            array = datasets.read_idx(path)
        except ValueError as error:
            assert re.fullmatch(f"{re.escape(repr(str(path)))}: .+", str(error))
        else:
            assert array.shape == (2, 1, 3)
            assert array.dtype == np.int16
            read += 1
    assert read == 1  # only the value that was there: no other gives 12 bytes of data


def test_gzip_truncated_at_every_length(tmp_path):
    content = gzip.compress(idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 20)), mtime=0)
    path = tmp_path / "cut.gz"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        text = message(ValueError, datasets.read_idx, path)
        assert text.startswith(
            f"{str(path)!r}: expected a whole gzip file, got an error: "
            if length
            else f"{str(path)!r}: {IDX_START}, got no bytes"
        )


def test_gzip_with_every_bit_flipped(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(3, 20)
    content = gzip.compress(idx_bytes(array), mtime=0)
    path = tmp_path / "flipped.gz"
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            got = datasets.read_idx(path)
        except ValueError as error:
            assert re.fullmatch(f"{re.escape(repr(str(path)))}: .+", str(error))
        else:
            # gzip's header (time, system, ...) or bits that pad the end; all else is checked
            np.testing.assert_array_equal(got, array, strict=True)


def test_gzip_in_name_only(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(bytes.fromhex(GOOD))
    text = message(ValueError, datasets.read_idx, path)
    assert text.startswith(f"{str(path)!r}: expected a whole gzip file, got an error: Not a gzip")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("sizes", "body"),
    [
        ([2**32 - 1], 10),
        ([2**32 - 1] * 32, 10),
        ([2**16, 2**16, 2**16], 10),
        ([2, 3], 2**26),
        ([0, 2**32 - 1], 2**26),
    ],
)
def test_idx_takes_no_memory_for_a_false_size(tmp_path, zipped, sizes, body):
    content = bytes([0, 0, 0x0E, len(sizes)]) + np.array(sizes, ">u4").tobytes() + bytes(body)
    path = tmp_path / ("bomb.gz" if zipped else "bomb")
    path.write_bytes(gzip.compress(content, compresslevel=1) if zipped else content)
    tracemalloc.start()
    try:
        text = message(ValueError, datasets.read_idx, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ": truncated: " in text if body == 10 else ": trailing bytes: " in text
    assert peak < 2**22
