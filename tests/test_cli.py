"""Tests of the command ``fastnn``: its arguments, exit codes, demos and pictures."""

import doctest
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn as fnn
from fastnn import cli, demo, plot
from fastnn.kernels import _cache
from fastnn.kernels._kernel import JIT

needs_compiler = pytest.mark.skipif(
    not JIT, reason="NUMBA_DISABLE_JIT is set: demos that need the speed of compiled code skipped"
)
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as in POSIX")

IDX_FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def process(*arguments, folder, stdout=subprocess.PIPE, **environment):
    """The command in a process of its own, started in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastnn", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(fnn.__file__).parent.parent),
            "PYTHONIOENCODING": "utf-8",
            "PYTHONUNBUFFERED": "",
            **environment,
        },
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def printed_by(running):
    """What a process that went well has printed; it complained about nothing."""
    printed, errors = running.communicate(timeout=300)
    assert (running.returncode, errors) == (0, "")
    return printed


def figures(capsys, *arguments):
    """What a demo prints with --json, which is all that it prints."""
    assert cli.main(["demo", "--json", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    result = json.loads(printed.out)
    numbers = [value for value in result.values() if isinstance(value, float)]
    assert numbers and all(math.isfinite(value) for value in numbers)
    return result


def shown(capsys, *arguments):
    """What a demo prints for people: at most 80 columns, but for a path."""
    assert cli.main(["demo", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert max(len(line) for line in lines if os.sep not in line) < demo.WIDTH
    return printed.out


def headings(text):
    return [line[3:].rstrip("─ ") for line in text.splitlines() if line.startswith("── ")]


def fake_mnist(folder, samples=40):
    """Files of MNIST's format, with random pixels."""
    rng = np.random.default_rng(0)
    for name in IDX_FILES:
        shape = (samples, 28, 28) if "images" in name else (samples,)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        values = rng.integers(0, 256 if "images" in name else 10, shape, np.uint8)
        (folder / name).write_bytes(header + values.tobytes())
    return folder


# -- arguments ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("", "fastnn: error: a command is needed: demo, warmup, explain, export; see"),
        ("dmo", "fastnn: error: argument COMMAND: invalid choice: 'dmo'"),
        ("--sed", "fastnn: error: unknown argument --sed; see fastnn --help"),
        ("--vers", "fastnn: error: unknown argument --vers"),
        ("demo --sed 3", "fastnn demo: error: unknown argument --sed 3; see fastnn demo --help"),
        ("demo digits", "fastnn demo: error: unknown argument digits"),
        ("demo --data", "fastnn demo: error: argument --data: expected one argument"),
        (
            "demo --data spirl",
            "fastnn demo: error: --data must be one of spiral, mnist, digits; got 'spirl'",
        ),
        ("demo --seed -1", "fastnn demo: error: --seed must be at least 0, got -1"),
        ("demo --seed x", "fastnn demo: error: argument --seed: invalid int value: 'x'"),
        ("demo --seed 4294967296", "fastnn demo: error: --seed must be at most 4294967295"),
        ("demo --epochs 0", "fastnn demo: error: --epochs must be at least 1, got 0"),
        ("demo --epochs 1.5", "fastnn demo: error: argument --epochs: invalid int value: '1.5'"),
        ("demo --json=3", "fastnn demo: error: argument --json: "),
        ("demo --root .", "fastnn demo: error: --root goes with --data mnist, got --data digits"),
        ("demo --plot x.png", "fastnn demo: error: --plot goes with --data spiral"),
        ("demo --data spiral --plot x.pdf", "fastnn demo: error: --plot must name a .png file"),
        ("demo --data mnist --root no/such/folder", "fastnn demo: error: MNIST: expected train-"),
    ],
)
def test_wrong_arguments_take_one_line(capsys, arguments, message):
    assert cli.main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n")


def test_error_is_one_line_whatever_the_argument(capsys):
    assert cli.main(["demo", "two\nlines"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_mnist_without_a_folder(capsys, monkeypatch):
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    assert cli.main(["demo", "--data", "mnist", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "looked in no folder" in printed.err and printed.err.count("\n") == 1


def test_damaged_mnist(capsys, tmp_path):
    fake_mnist(tmp_path)
    with open(tmp_path / IDX_FILES[0], "ab") as file:
        file.write(b"?")
    assert cli.main(["demo", "--data", "mnist", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--help"], ["usage: fastnn ", "demo", "--version"]),
        (
            ["demo", "--help"],
            ["usage: fastnn demo ", "--data", "--seed", "--epochs", "--json", "--root", "--plot"],
        ),
    ],
)
def test_help(capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) < 80


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastnn {fnn.__version__}\n"


def test_every_data_set_has_a_demo_and_epochs():
    assert list(cli.EPOCHS) == list(demo.DEMOS)


# -- how it ends ----------------------------------------------------------------


@pytest.mark.parametrize(
    "error, code, line",
    [
        (fnn.DivergenceError("gone"), 1, "fastnn demo: error: gone\n"),
        (demo.DemoError("no", 1), 1, "fastnn demo: error: no\n"),
        (KeyboardInterrupt(), 130, "fastnn: interrupted\n"),
    ],
)
def test_a_demo_that_fails(capsys, monkeypatch, error, code, line):
    def fail(writer, **options):
        writer.line("begun", end="")
        raise error

    monkeypatch.setitem(demo.DEMOS, "digits", fail)
    assert cli.main(["demo"]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("begun\n", line)


@pytest.mark.parametrize("module", ["llvmlite.binding.executionengine", "numba.core.compiler"])
def test_interrupt_waits_for_llvm(monkeypatch, module):
    later = []

    class Timer:
        def __init__(self, seconds, function):
            self.function = function

        def start(self):
            later.append(self.function)

    monkeypatch.setattr(cli.threading, "Timer", Timer)
    names = {"__name__": module, "interrupt": cli.interrupt, "frame": sys._getframe}
    if module.startswith("llvmlite"):
        exec("interrupt(2, frame())", names)
        assert later == [cli._thread.interrupt_main]
    else:
        with pytest.raises(KeyboardInterrupt):
            exec("interrupt(2, frame())", names)
        assert later == []


def test_interrupts_that_someone_else_handles():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with cli.interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@needs_posix
def test_ctrl_c(tmp_path):
    running = process("demo", "--epochs", "1000000000", folder=tmp_path)
    for line in running.stdout:
        if line.startswith("── Training"):
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (130, "fastnn: interrupted\n")


@needs_posix
@pytest.mark.parametrize("arguments", [["demo", "--data", "spiral"], ["demo", "--help"]])
def test_reader_that_goes_away(tmp_path, arguments):
    running = process(*arguments, folder=tmp_path)
    running.stdout.close()
    with running.stderr:
        assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written(tmp_path):
    with open("/dev/full", "w") as full:
        running = process("--version", folder=tmp_path, stdout=full)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert errors.startswith("fastnn: error: ") and errors.count("\n") == 1


# -- the demos ------------------------------------------------------------------


@needs_compiler
def test_digits(capsys):
    found = figures(capsys)
    assert (found["dataset"], found["seed"], found["epochs"]) == ("digits", 0, 20)
    assert (found["train_samples"], found["test_samples"]) == (1437, 360)
    assert found["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    assert found["accuracy"] >= 0.96
    assert 0 <= found["difference"] < 0.01
    assert found["ratio"] == found["numpy_seconds"] / found["compiled_seconds"] > 1


@needs_compiler
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_digits_of_other_seeds(capsys, monkeypatch, seed):
    monkeypatch.setattr(demo, "COMPARED", 1)
    found = figures(capsys, "--seed", str(seed))
    assert found["seed"] == seed
    assert found["accuracy"] >= 0.96
    assert found["compared_epochs"] == 1 and found["difference"] < 1e-3


@needs_compiler
def test_digits_for_people(capsys):
    text = shown(capsys, "--epochs", "2")
    assert headings(text) == [
        "The network",
        "Its plan, without the columns of its work buffer",
        "Training: batches of 32, cross-entropy, Adam(0.003)",
        "The digits that it has never seen",
        "The same training by the numpy reference",
        "Some of the held-out digits",
    ]
    assert "epoch 2/2" in text
    assert "2 epochs, 3 times with each" in text
    last = text.splitlines()[-1]
    assert last.count("read ") == 4 and 0 < last.count("(!)") <= 2


@needs_compiler
@needs_posix
def test_bar_in_a_terminal(tmp_path):
    import pty

    pytest.importorskip("tqdm")
    inside, outside = pty.openpty()
    with os.fdopen(inside, "rb", buffering=0) as terminal:
        running = process("demo", "--epochs", "2", folder=tmp_path, stdout=outside, COLUMNS="120")
        os.close(outside)
        written = b""
        try:
            while piece := terminal.read(65536):
                written += piece
        except OSError:  # Linux says so that the other end is closed
            pass
        assert running.communicate(timeout=60)[1] == ""
    text = written.decode()
    assert running.returncode == 0
    assert "\repoch 2/2: 100%|" in text
    assert "── Its plan ──" in text


@needs_compiler
def test_mnist(capsys):
    if not os.environ.get("FASTNN_DATA"):
        pytest.skip("FASTNN_DATA is not set: tests on real MNIST skipped")
    found = figures(capsys, "--data", "mnist", "--epochs", "1")
    assert (found["train_samples"], found["test_samples"]) == (50_000, 10_000)
    assert found["parameters"] == 23_860
    assert 0.89 < found["accuracy"] < 0.93
    assert found["epoch_accuracy"] == [found["accuracy"]] == [found["best_accuracy"]]
    assert found["best_epoch"] == 0


@needs_compiler
def test_mnist_for_people(capsys, tmp_path):
    root = fake_mnist(tmp_path)
    text = shown(capsys, "--data", "mnist", "--root", str(root), "--epochs", "12")
    lines = text.splitlines()
    at = lines.index("Per cent of the test digits read correctly after each epoch, ten to a line:")
    assert [len(line.split()) for line in lines[at + 1 : at + 3]] == [1 + 10, 1 + 2]
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["0:", "10:"]
    assert "95.42%" in text and "91.29%" in text
    assert lines[-1].count("read ") == 3 and lines[-1].count("(!)") == 1


@needs_compiler
def test_spiral_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("matplotlib")
    running = process("demo", "--data", "spiral", "--epochs", "50", "--json", folder=tmp_path)
    out, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (0, "")
    found = json.loads(out)
    assert (found["dataset"], found["epochs"], found["parameters"]) == ("spiral", 50, 387)
    assert 0.4 < found["accuracy"] <= 1
    assert found["plot"] == str(tmp_path / "fastnn-spiral.png")
    assert os.listdir(tmp_path) == ["fastnn-spiral.png"]


@needs_compiler
def test_spiral_for_people(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "a.png"
    picture.write_bytes(b"old")
    text = shown(capsys, "--data", "spiral", "--epochs", "25", "--plot", str(picture))
    rows = text[text.index(" epoch ") :].splitlines()[1:11]
    assert [int(row.split()[0]) for row in rows] == [2, 5, 7, 10, 12, 15, 17, 20, 22, 25]
    assert text.splitlines()[-1] == f"drawn in {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")


@needs_compiler
def test_fewer_epochs_than_rows(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = shown(capsys, "--data", "spiral", "--epochs", "3")
    rows = text[text.index(" epoch ") :].splitlines()[1:5]
    assert [row.split()[:1] for row in rows] == [["1"], ["2"], ["3"], []]


@needs_compiler
def test_spiral_without_matplotlib(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = shown(capsys, "--data", "spiral", "--epochs", "1")
    assert text.splitlines()[-1] == "a plot needs matplotlib: install 'fastnn-numba[plot]'"
    assert figures(capsys, "--data", "spiral", "--epochs", "1")["plot"] is None


@needs_compiler
@pytest.mark.parametrize("name", ["missing/a.png", "folder.png"])
def test_picture_that_cannot_be_written(capsys, tmp_path, name):
    pytest.importorskip("matplotlib")
    (tmp_path / "folder.png").mkdir()
    picture = tmp_path / name
    arguments = ["demo", "--data", "spiral", "--epochs", "1", "--json", "--plot", str(picture)]
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"fastnn demo: error: cannot write {picture}: ")
    assert printed.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["folder.png"]


# -- what is drawn --------------------------------------------------------------


def test_doctests():
    assert doctest.testmod(demo) == doctest.TestResults(failed=0, attempted=1)


def test_draw():
    images = np.array([[[0, 0.25, 0.5], [0.75, 1, 0.1]], np.ones((2, 3))])
    assert demo.draw(images, ["one", "2"], gap=2).splitlines() == [" ░▒  ███", "▓█   ███", "one  2"]


@pytest.mark.parametrize(
    "encoding, lines",
    [
        ("utf-8", ["░▒▓█", "── é ──"]),
        ("cp437", ["░▒▓█", "── é ──"]),
        ("latin-1", [".+#@", "-- é --"]),
        ("ascii", [".+#@", "-- \\xe9 --"]),
    ],
)
def test_ascii_where_the_output_takes_no_more(monkeypatch, encoding, lines):
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", output)
    writer = demo.Writer()
    writer.line("░▒▓█")
    writer.line("── é ──")
    assert written.getvalue().decode(encoding).splitlines() == lines


def test_quiet_writer(capsys):
    with demo.Writer(quiet=True) as writer:
        writer.heading("a")
        with writer.step("b"):
            writer.line("c", end="")
    assert capsys.readouterr().out == ""


def test_plan_text():
    layers = [fnn.Dense(3, "relu"), fnn.Dense(2, "softmax")]
    net = fnn.Network(layers, input_shape=(4,), loss="cross_entropy")
    assert demo.plan_text(net.plan, 200) == (str(net.plan), True)
    text, whole = demo.plan_text(net.plan, 80)
    *table, total = text.splitlines()
    assert not whole and max(map(len, text.splitlines())) < 80
    assert total == str(net.plan).splitlines()[-1]
    cells = [re.split("  +", line) for line in table]
    assert cells[0] == ["#", "op", "layer", "when", "weight", "bias", "fan_in", "fan_out"]
    assert cells[1] == ["0", "dense relu", "0", "always", "0", "12", "4", "3"]
    assert {len(row) for row in cells} == {8}


def two_class_net(activation="sigmoid", units=1):
    """A network of the numpy path, whose class is 1 right of the vertical axis."""
    loss = "binary_cross_entropy" if units == 1 else "cross_entropy"
    layer = fnn.Dense(units, activation)
    net = fnn.Network([layer], loss=loss, input_shape=(2,), backend="numpy")
    layer.weight = [[9.0], [0.0]] if units == 1 else [[-9.0, 9.0], [0.0, 0.0]]
    return net


@pytest.mark.parametrize("activation, units", [("sigmoid", 1), ("softmax", 2)])
def test_decision_boundary(tmp_path, activation, units):
    image = pytest.importorskip("matplotlib.image")
    x = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    path = tmp_path / "boundary.png"
    plot.decision_boundary(two_class_net(activation, units), x, np.array([0, 0, 1, 1]), path)
    assert os.listdir(tmp_path) == ["boundary.png"]
    pixels = image.imread(path)[..., :3]
    assert pixels.shape == (960, 960, 3)
    left, right = pixels[400, 300], pixels[400, 800]
    assert left[2] > left[0] + 0.2  # class 0 is blue
    assert right[0] > right[2] + 0.2  # class 1 is orange
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_decision_boundary_where_there_is_none(tmp_path):
    pytest.importorskip("matplotlib")
    net = two_class_net()
    net.layers[0].weight, net.layers[0].bias = [[0.0], [0.0]], [1.0]
    plot.decision_boundary(net, [[3, 4]], [1], str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.zeros((3, 1)), np.zeros(3), r"x must have shape \(n, 2\), got \(3, 1\)"),
        (np.zeros((3, 2)), np.zeros((3, 2)), r"y must have shape \(3,\), got \(3, 2\)"),
    ],
)
def test_decision_boundary_of_other_shapes(tmp_path, x, y, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message):
        plot.decision_boundary(two_class_net(), x, y, tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_decision_boundary_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastnn-numba\[plot\]"):
        plot.decision_boundary(two_class_net(), np.zeros((1, 2)), np.zeros(1), tmp_path / "a.png")


# -- filling the cache ------------------------------------------------------------


@pytest.mark.skipif(not JIT, reason="nothing is compiled, so nothing is kept")
def test_warmup(tmp_path):
    """A network then finds everything; the second time there is nothing to do."""
    cache = {"FASTNN_CACHE_DIR": str(tmp_path)}
    printed = printed_by(process("warmup", "--dtype", "float32", folder=tmp_path, **cache))
    found = re.fullmatch(r"(\d+) compiled functions in .*, (\d+) of them new, in .* s\n", printed)
    assert found and found[1] == found[2] and int(found[1]) > 40
    again = printed_by(process("warmup", "--dtype", "float32", folder=tmp_path, **cache))
    assert f"{found[1]} compiled functions" in again and " 0 of them new" in again
    before = sorted(tmp_path.rglob("*"))
    printed_by(process("demo", "--json", "--epochs", "1", folder=tmp_path, **cache))
    assert [file for file in tmp_path.rglob("*.fastnn") if file not in before] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float16"], "--dtype must be one of float64, float32; got 'float16'"),
        (["float32"], "unknown argument float32; see fastnn warmup --help"),
    ],
)
def test_wrong_arguments_of_warmup(capsys, arguments, message):
    assert cli.main(["warmup", *arguments]) == 2
    assert capsys.readouterr().err == f"fastnn warmup: error: {message}\n"


def test_warmup_without_a_cache(capsys, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE_DIR", "")
    _cache.folder.cache_clear()
    assert cli.main(["warmup"]) == 1
    assert "FASTNN_CACHE_DIR is empty" in capsys.readouterr().err
    _cache.folder.cache_clear()
