"""Data sets: small generated ones, the UCI digits, and readers of MNIST and Fashion-MNIST.

Nothing here uses the network or numpy's global random state. Labels are uint8 throughout.

Generated from a seed
    `spiral`, `vertical`, `sine`: bit for bit those of the PyPI package ``nnfs`` 0.5.1 (H. Kinsley,
    D. Kukieła, "Neural Networks from Scratch in Python", https://nnfs.io, MIT). The spiral, and
    the vertical data made from it, are A. Karpathy's of Stanford's CS231n
    (https://cs231n.github.io/neural-networks-case-study/, MIT, Copyright (c) 2015 Andrej Karpathy).
    `xor`, `moons`, `circles`: the usual toy problems, the last two shaped as in scikit-learn.
Stored in the package
    `digits`: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.
Read from files that the caller has
    `mnist`: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits",
    CC BY-SA 3.0.
    `fashion_mnist`: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747, MIT.
    `read_idx`: any file in MNIST's IDX format.
"""

import gzip
import math
import os
import zlib
from importlib import resources
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from fastnn._check import file_path

__all__ = [
    "circles",
    "digits",
    "fashion_mnist",
    "mnist",
    "moons",
    "read_idx",
    "sine",
    "spiral",
    "vertical",
    "xor",
]

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_MAX_DIMS = 32  # what every numpy can hold
_PIECE = 1 << 20  # bytes read at a time
_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MAX_SEED = 2**32 - 1  # numpy.random.RandomState takes no larger one
_MAX_SAMPLES = 1 << 40  # what numpy can be asked for, if hardly given
_MAX_NOISE = 1e30  # points are float32
_MAX_CLASSES = 256  # labels are uint8


def spiral(samples: int = 100, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make interleaved spiral arms, one per class, with noise along the arm.

    Bit-identical to ``nnfs.init()``, ``numpy.random.seed(seed)`` and
    ``nnfs.datasets.spiral_data(samples, classes)`` run on the same numpy.

    Parameters
    ----------
    samples : int, default 100
        Points per class, at least 1; 100 is what the nnfs book uses.
    classes : int, default 3
        Number of arms, 1 to 256; 3 is what CS231n and the nnfs book use.
    seed : int, default 0
        Seed of a private ``numpy.random.RandomState``, 0 to 2**32 - 1; 0 is that of
        ``nnfs.init()``.

    Returns
    -------
    x : numpy.ndarray
        float32, shape ``(samples * classes, 2)``: the points, class by class, from the centre out.
    y : numpy.ndarray
        uint8, shape ``(samples * classes,)``: the class of each point.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If an argument is out of its range.

    Source
    ------
    nnfs 0.5.1, ``nnfs/datasets/spiral.py`` (MIT), after A. Karpathy, CS231n (MIT),
    https://cs231n.github.io/neural-networks-case-study/.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import datasets
    >>> x, y = datasets.spiral(samples=100, classes=3)
    >>> x.shape, x.dtype.name, y.shape, y.dtype.name
    ((300, 2), 'float32', (300,), 'uint8')
    >>> [round(float(np.hypot(*x[row])), 6) for row in (0, 99)]
    [0.0, 1.0]
    """
    samples, classes, seed = _check_points(samples, classes, seed)
    random = np.random.RandomState(seed)
    x = np.empty((samples * classes, 2), np.float32)
    radius = np.linspace(0.0, 1, samples)
    for label in range(classes):
        # nnfs.init() rounds what randn gives to float32; all else but the result is float64.
        noise = random.randn(samples).astype(np.float32) * 0.2
        angle = (np.linspace(label * 4, (label + 1) * 4, samples) + noise) * 2.5
        rows = slice(label * samples, (label + 1) * samples)
        x[rows, 0] = radius * np.sin(angle)
        x[rows, 1] = radius * np.cos(angle)
    return x, _labels(samples, classes)


def vertical(samples: int = 100, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make round clouds of points side by side, one per class, a third apart.

    The clouds are normal with standard deviation 0.1 and centres ``(label / 3, 0.5)``.
    Bit-identical to ``nnfs.init()``, ``numpy.random.seed(seed)`` and
    ``nnfs.datasets.vertical_data(samples, classes)``.

    Parameters
    ----------
    samples : int, default 100
        Points per class, at least 1; 100 is what the nnfs book uses.
    classes : int, default 3
        Number of clouds, 1 to 256; 3 is what the nnfs book uses.
    seed : int, default 0
        Seed of a private ``numpy.random.RandomState``, 0 to 2**32 - 1; 0 is that of
        ``nnfs.init()``.

    Returns
    -------
    x : numpy.ndarray
        float32, shape ``(samples * classes, 2)``: the points, class by class.
    y : numpy.ndarray
        uint8, shape ``(samples * classes,)``: the class of each point.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If an argument is out of its range.

    Source
    ------
    nnfs 0.5.1, ``nnfs/datasets/vertical.py`` (MIT), after A. Karpathy, CS231n (MIT).

    Examples
    --------
    >>> from fastnn import datasets
    >>> x, y = datasets.vertical(samples=1000, classes=2)
    >>> x.shape, x.dtype.name, y.shape, y.dtype.name
    ((2000, 2), 'float32', (2000,), 'uint8')
    >>> [(x[y == label].mean(axis=0, dtype=float).round(1) + 0.0).tolist() for label in range(2)]
    [[0.0, 0.5], [0.3, 0.5]]
    """
    samples, classes, seed = _check_points(samples, classes, seed)
    random = np.random.RandomState(seed)
    x = np.empty((samples * classes, 2), np.float32)
    for label in range(classes):
        rows = slice(label * samples, (label + 1) * samples)
        for column, centre in enumerate((label / 3, 0.5)):
            # nnfs.init() rounds what randn gives to float32, and the sum stays in float32.
            x[rows, column] = random.randn(samples).astype(np.float32) * 0.1 + centre
    return x, _labels(samples, classes)


def sine(samples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Make one period of the sine, for regression.

    Bit-identical to ``nnfs.datasets.sine_data(samples)`` run on the same numpy. As there, both
    arrays are float64, also after ``nnfs.init()``.

    Parameters
    ----------
    samples : int, default 1000
        Number of points, at least 1; the default is that of nnfs.

    Returns
    -------
    x : numpy.ndarray
        float64, shape ``(samples, 1)``: 0, 1 / samples, ..., 1 - 1 / samples.
    y : numpy.ndarray
        float64, shape ``(samples, 1)``: ``sin(2 * pi * x)``.

    Raises
    ------
    TypeError
        If `samples` is not an integer.
    ValueError
        If `samples` is below 1.

    Source
    ------
    nnfs 0.5.1, ``nnfs/datasets/sine.py`` (MIT).

    Examples
    --------
    >>> from fastnn import datasets
    >>> x, y = datasets.sine(samples=4)
    >>> x.ravel().tolist(), (y.ravel().round(6) + 0.0).tolist()
    ([0.0, 0.25, 0.5, 0.75], [0.0, 1.0, 0.0, -1.0])
    """
    samples = _check_int("samples", samples, 1, _MAX_SAMPLES)
    x = np.arange(samples).reshape(-1, 1) / samples
    return x, np.sin(2 * np.pi * x)


def xor() -> tuple[np.ndarray, np.ndarray]:
    """Make the four rows of exclusive or, the smallest problem that no linear model solves.

    Returns
    -------
    x : numpy.ndarray
        float32, shape ``(4, 2)``: the two inputs.
    y : numpy.ndarray
        uint8, shape ``(4,)``: their exclusive or, 0 or 1.

    Source
    ------
    M. Minsky, S. Papert, "Perceptrons", 1969, on what one layer cannot do.

    Examples
    --------
    >>> from fastnn import datasets
    >>> x, y = datasets.xor()
    >>> x.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return x, np.array([0, 1, 1, 0], np.uint8)


def moons(samples: int = 200, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make two interleaved half circles of radius 1.

    Parameters
    ----------
    samples : int, default 200
        Number of points in all, at least 1; an odd one goes to class 1.
    noise : float, default 0.1
        Standard deviation of the normal noise on both coordinates, at least 0. The default, ours
        like that of `samples`, leaves the moons just apart.
    seed : int, default 0
        Seed of ``numpy.random.default_rng`` for the noise and the order of the rows, at least 0.

    Returns
    -------
    x : numpy.ndarray
        float32, shape ``(samples, 2)``: the points, in random order.
    y : numpy.ndarray
        uint8, shape ``(samples,)``: 0 for the upper moon (centre (0, 0)), 1 for the lower (centre
        (1, 0.5)).

    Raises
    ------
    TypeError
        If `samples` or `seed` is not an integer, or `noise` not a real number.
    ValueError
        If an argument is out of its range.

    Source
    ------
    The curves of scikit-learn's ``make_moons``; code and random numbers are our own.

    Examples
    --------
    >>> from fastnn import datasets
    >>> x, y = datasets.moons(samples=5, noise=0)
    >>> x.shape, x.dtype.name, y.dtype.name, sorted(y.tolist())
    ((5, 2), 'float32', 'uint8', [0, 0, 1, 1, 1])
    """
    samples = _check_int("samples", samples, 1, _MAX_SAMPLES)
    upper = np.linspace(0, np.pi, samples // 2)
    lower = np.linspace(0, np.pi, samples - samples // 2)
    zeros = np.column_stack([np.cos(upper), np.sin(upper)])
    ones = np.column_stack([1 - np.cos(lower), 0.5 - np.sin(lower)])
    return _noisy_shuffled(zeros, ones, noise, seed)


def circles(
    samples: int = 200, noise: float = 0.05, factor: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make two circles about the origin, one inside the other.

    Parameters
    ----------
    samples : int, default 200
        Number of points in all, at least 1; an odd one goes to class 1.
    noise : float, default 0.05
        Standard deviation of the normal noise on both coordinates, at least 0. The default, ours
        like those of `samples` and `factor`, leaves the circles well apart.
    factor : float, default 0.5
        Radius of the inner circle, between 0 and 1, both excluded; the outer one has radius 1.
    seed : int, default 0
        Seed of ``numpy.random.default_rng`` for the noise and the order of the rows, at least 0.

    Returns
    -------
    x : numpy.ndarray
        float32, shape ``(samples, 2)``: the points, in random order.
    y : numpy.ndarray
        uint8, shape ``(samples,)``: 0 for the outer circle, 1 for the inner.

    Raises
    ------
    TypeError
        If `samples` or `seed` is not an integer, or `noise` or `factor` not a real number.
    ValueError
        If an argument is out of its range.

    Source
    ------
    The curves of scikit-learn's ``make_circles``; code and random numbers are our own.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import datasets
    >>> x, y = datasets.circles(samples=6, noise=0, factor=0.25)
    >>> bool(np.allclose(np.hypot(x[:, 0], x[:, 1]), np.where(y == 1, 0.25, 1.0)))
    True
    """
    samples = _check_int("samples", samples, 1, _MAX_SAMPLES)
    factor = _check_real("factor", factor)
    if not 0 < factor < 1:
        raise ValueError(f"factor: expected a number above 0 and below 1, got {factor}")
    outer = np.linspace(0, 2 * np.pi, samples // 2, endpoint=False)
    inner = np.linspace(0, 2 * np.pi, samples - samples // 2, endpoint=False)
    zeros = np.column_stack([np.cos(outer), np.sin(outer)])
    ones = factor * np.column_stack([np.cos(inner), np.sin(inner)])
    return _noisy_shuffled(zeros, ones, noise, seed)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Read the UCI handwritten digits of 8 x 8 pixels, stored in the package.

    The same 1,797 rows in the same order as scikit-learn's ``load_digits``: the test set of the
    UCI data.

    Returns
    -------
    x : numpy.ndarray
        uint8, shape ``(1797, 64)``, values 0 (empty) to 16 (full): the pixels, row by row.
    y : numpy.ndarray
        uint8, shape ``(1797,)``: the digit, 0 to 9.

    Source
    ------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.

    Examples
    --------
    >>> from fastnn import datasets
    >>> x, y = datasets.digits()
    >>> x.shape, x.dtype.name, int(x.max()), y.shape, y[:10].tolist()
    ((1797, 64), 'uint8', 16, (1797,), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    folder = resources.files("fastnn") / "data"
    with (
        resources.as_file(folder / "digits-images-idx3-ubyte.gz") as images,
        resources.as_file(folder / "digits-labels-idx1-ubyte.gz") as labels,
    ):
        return _read_pair(images, labels)


def mnist(
    root: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read MNIST's handwritten digits of 28 x 28 pixels, from files that you have.

    The files are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``, also
    spelled ``train-images.idx3-ubyte`` and so on. All four are taken from the first of the folders
    ``root/mnist``, ``root/MNIST/raw`` and ``root`` that holds them.

    Parameters
    ----------
    root : str or os.PathLike, optional
        The folder to look in. The default is the environment variable ``FASTNN_DATA``.

    Returns
    -------
    x_train : numpy.ndarray
        uint8, shape ``(60000, 784)``, C-contiguous: the pixels, row by row, 0 (paper) to 255 (ink).
    y_train : numpy.ndarray
        uint8, shape ``(60000,)``: the digit, 0 to 9.
    x_test : numpy.ndarray
        uint8, shape ``(10000, 784)``, as `x_train`.
    y_test : numpy.ndarray
        uint8, shape ``(10000,)``, as `y_train`.

    Raises
    ------
    FileNotFoundError
        If no folder is given or none holds the four files.
    ValueError
        If a file is damaged, or images and labels do not fit. The numbers of rows and pixels
        above are those of the published files; they are not checked.

    Source
    ------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits",
    CC BY-SA 3.0; the copy that torchvision uses is at
    https://ossci-datasets.s3.amazonaws.com/mnist/.

    Examples
    --------
    >>> from fastnn import datasets
    >>> x_train, y_train, x_test, y_test = datasets.mnist("/data")  # doctest: +SKIP
    >>> x_train.shape, y_train[:5].tolist()  # doctest: +SKIP
    ((60000, 784), [5, 0, 4, 1, 9])
    >>> datasets.mnist("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: MNIST: expected train-images-idx3-ubyte, ...
    """
    return _mnist_like(
        "MNIST",
        ("mnist", "MNIST/raw"),
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        root,
    )


def fashion_mnist(
    root: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read Fashion-MNIST's pictures of clothes of 28 x 28 pixels, from files that you have.

    The files are named as those of `mnist`. All four are taken from the first of the folders
    ``root/fashion-mnist``, ``root/fashion_mnist``, ``root/FashionMNIST/raw`` and ``root`` that
    holds them.

    Parameters
    ----------
    root : str or os.PathLike, optional
        The folder to look in. The default is the environment variable ``FASTNN_DATA``.

    Returns
    -------
    x_train : numpy.ndarray
        uint8, shape ``(60000, 784)``, C-contiguous: the pixels, row by row, 0 to 255.
    y_train : numpy.ndarray
        uint8, shape ``(60000,)``: 0 T-shirt/top, 1 trouser, 2 pullover, 3 dress, 4 coat, 5 sandal,
        6 shirt, 7 sneaker, 8 bag, 9 ankle boot.
    x_test : numpy.ndarray
        uint8, shape ``(10000, 784)``, as `x_train`.
    y_test : numpy.ndarray
        uint8, shape ``(10000,)``, as `y_train`.

    Raises
    ------
    FileNotFoundError
        If no folder is given or none holds the four files.
    ValueError
        If a file is damaged, or images and labels do not fit. The numbers of rows and pixels
        above are those of the published files; they are not checked.

    Source
    ------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", arXiv:1708.07747, MIT; https://github.com/zalandoresearch/fashion-mnist.

    Examples
    --------
    >>> from fastnn import datasets
    >>> x_train, y_train, x_test, y_test = datasets.fashion_mnist("/data")  # doctest: +SKIP
    >>> x_train.shape, y_train[:5].tolist()  # doctest: +SKIP
    ((60000, 784), [9, 0, 0, 3, 0])
    >>> datasets.fashion_mnist("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: Fashion-MNIST: expected train-images-idx3-ubyte, ...
    """
    return _mnist_like(
        "Fashion-MNIST",
        ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
        "https://github.com/zalandoresearch/fashion-mnist",
        root,
    )


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, MNIST's format of arrays.

    A file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
    uint32, and the elements in C order, big-endian. Type codes are 0x08 uint8, 0x09 int8,
    0x0B int16, 0x0C int32, 0x0D float32 and 0x0E float64.

    Safe on files from strangers: memory is taken only for bytes that are there, never for what a
    header merely claims, and no gzip file is unpacked beyond what its header declares. A small
    gzip file can still honestly hold an array about a thousand times its size.

    Parameters
    ----------
    path : str or os.PathLike
        The file; read as gzip if its name ends in ``.gz``.

    Returns
    -------
    numpy.ndarray
        Of the shape that the file declares, 1 to 32 dimensions; C-contiguous, writable, in native
        byte order.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is not a whole IDX file and nothing else: wrong magic number, unknown type,
        truncated, trailing bytes, or damaged gzip.

    Source
    ------
    "The IDX file format", on the MNIST page of Y. LeCun (http://yann.lecun.com/exdb/mnist/).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastnn import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "two-by-two.idx")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 10, 20, 30, 40]))
    ...     datasets.read_idx(file)
    array([[10, 20],
           [30, 40]], dtype=uint8)
    """
    path = file_path("path", path)
    name = repr(str(path))
    zipped = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0":
                raise ValueError(
                    f"{name}: expected an IDX file, which begins with 0000 and two more bytes, "
                    f"got {magic.hex() or 'no bytes'}"
                )
            code, ndim = magic[2:]
            if code not in _IDX_TYPES:
                known = ", ".join(f"0x{known:02X}" for known in _IDX_TYPES)
                raise ValueError(f"{name}: expected an IDX type of {known}, got 0x{code:02X}")
            if not 1 <= ndim <= _IDX_MAX_DIMS:
                raise ValueError(f"{name}: expected 1 to {_IDX_MAX_DIMS} dimensions, got {ndim}")
            sizes = file.read(4 * ndim)
            if len(sizes) < 4 * ndim:
                raise ValueError(
                    f"{name}: truncated: expected {4 * ndim} bytes for the sizes of {ndim} "
                    f"dimensions, got {len(sizes)}"
                )
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            dtype = np.dtype(_IDX_TYPES[code])
            size = math.prod(shape) * dtype.itemsize
            got = None if zipped else os.fstat(file.fileno()).st_size - 4 - 4 * ndim
            body = bytearray()
            if got is None or got == size:  # the size of what gzip holds shows only in unpacking
                while len(body) <= size and (piece := file.read(min(_PIECE, size + 1 - len(body)))):
                    body += piece
                got = len(body)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: expected a whole gzip file, got an error: {error}") from error
    if got != size:
        wrong = "truncated" if got < size else "trailing bytes"
        more = " or more" if zipped and got > size else ""
        raise ValueError(
            f"{name}: {wrong}: expected {size} bytes of data for shape {shape} of {dtype.name}, "
            f"got {got}{more}"
        )
    try:
        array = np.frombuffer(body, dtype).reshape(shape)
    except ValueError as error:  # no elements, yet sizes whose product numpy cannot hold
        raise ValueError(f"{name}: expected a shape for numpy, got {shape}: {error}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _check_int(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` as a plain int, if it is an integer from `low` to `high`."""
    expected = f"an integer of at least {low}" if high is None else f"an integer, {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    number = int(value)  # plain, as the product of two numpy integers may overflow
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def _check_real(name: str, value: object) -> float:
    """Return `value` as a plain float, if it is a real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a real number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that a float can hold") from None


def _check_points(samples: int, classes: int, seed: int) -> tuple[int, int, int]:
    """Return the arguments of `spiral` and `vertical` as plain ints, if they are right."""
    return (
        _check_int("samples", samples, 1, _MAX_SAMPLES),
        _check_int("classes", classes, 1, _MAX_CLASSES),
        _check_int("seed", seed, 0, _MAX_SEED),
    )


def _labels(samples: int, classes: int) -> np.ndarray:
    """Make `samples` times 0, then `samples` times 1, and so on."""
    return np.arange(classes).astype(np.uint8).repeat(samples)


def _noisy_shuffled(
    zeros: np.ndarray, ones: np.ndarray, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of both classes with noise and in an order that come of `seed`."""
    noise = _check_real("noise", noise)
    if not 0 <= noise <= _MAX_NOISE:
        raise ValueError(f"noise: expected a number from 0 to {_MAX_NOISE:g}, got {noise}")
    random = np.random.default_rng(_check_int("seed", seed, 0))
    x = np.concatenate([zeros, ones])
    y = np.arange(len(x)) >= len(zeros)
    x += random.normal(scale=noise, size=x.shape)
    order = random.permutation(len(x))
    return x[order].astype(np.float32), y[order].astype(np.uint8)


def _mnist_like(
    title: str, subfolders: tuple[str, ...], url: str, root: str | os.PathLike[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read the four arrays of the first folder in or at `root` that holds the four files."""
    root = file_path("root", root) if root is not None else os.environ.get("FASTNN_DATA")
    tried = []
    if root:
        for folder in (*(Path(root, subfolder) for subfolder in subfolders), Path(root)):
            found = {name: _find_idx(folder, name) for name in _MNIST_FILES}
            paths = [path for path in found.values() if path is not None]
            if len(paths) == len(found):
                return _read_pair(*paths[:2]) + _read_pair(*paths[2:])
            lacks = ", ".join(name for name, path in found.items() if path is None)
            tried.append(repr(str(folder)) + (f" (lacks {lacks})" if paths else ""))
    raise FileNotFoundError(
        f"{title}: expected {', '.join(_MNIST_FILES)}, plain or .gz, in one folder, "
        f"got none with all four: looked in {', '.join(tried) or 'no folder'}; "
        f"name the folder with root= or the environment variable FASTNN_DATA; files: {url}"
    )


def _find_idx(folder: Path, name: str) -> Path | None:
    """Find the file `name` in `folder`, in any of its spellings."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            path = folder / (spelling + suffix)
            if path.is_file():
                return path
    return None


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images, each flattened to a row, and their labels."""
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.ndim != 3:
        raise ValueError(
            f"{str(images)!r}: expected images, uint8 of 3 dimensions, got {x.dtype} {x.shape}"
        )
    if y.dtype != np.uint8 or y.shape != x.shape[:1]:
        raise ValueError(
            f"{str(labels)!r}: expected labels, uint8 {x.shape[:1]}, got {y.dtype} {y.shape}"
        )
    return x.reshape(len(x), math.prod(x.shape[1:])), y
