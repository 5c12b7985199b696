"""What the benches say is what they have measured; nothing here measures."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benches import peers, readme, report
from benches.measure import ready
from benches.peers import PEERS, Disagreement, Peer
from benches.peers.fastnn import initial
from benches.workloads import INFERENCE, TRAINING, Inference, Training

README = Path(__file__).parent.parent / "README.md"
TINY = Training((3, 5, 4), "cross_entropy", 4, 12)
# 13 x 12 places, 11 x 10 behind the first windows, 5 x 5 pooled, 4 x 4, 2 x 2 of four filters.
IMAGES = TINY._replace(widths=(16, 5, 4), image=(2, 13, 12), convolutions=((3, 3), (4, 2)))
LOSSES = {
    "cross_entropy": TINY,
    "mse": TINY._replace(widths=(3, 5, 4, 1), loss="mse"),
    "quadratic": TINY._replace(loss="quadratic", hidden="sigmoid", optimizer="sgd", rate=0.1),
}


def figures(best, own):
    return {
        "best": best,
        "median": best * 1.1,
        "gflops": 1e-9 / best,
        "ratio": best / own,
        "ratio_median": best / own,
    }


def made_up():
    """Results of two workloads, as ``python -m benches`` keeps them."""

    def workload(kind, what, times):
        own = times["fastnn"]
        return {
            "kind": kind,
            "what": what,
            "unit": "step",
            "flop": 1000,
            "rounds": 5,
            "peak_gflops": {"1": 100.0, "2": 199.0},
            "peers": {name: figures(time, own) for name, time in times.items()},
            "share_of_peak": {"2": 0.25, "1": 0.5},
            "left_out": {"JAX": "jax not installed"},
        }

    times = {"fastnn": 1e-5, "fastnn, 1 thread": 1.5e-5, "numpy": 1.2e-4, "torch": 6.54e-4}
    return {
        "date": "2001-02-03",
        "machine": {
            "cpu": "Abacus",
            "processors": 2,
            "vector_bits": 256,
            "system": "Linux",
            "threads": 2,
            "versions": {"numpy": "2.0", "jax": ""},
        },
        "peers": {"torch": "eager", "JAX": "jit"},
        "absent": {"JAX": "jax not installed"},
        "workloads": {
            "spiral": workload("training", "2-64-3", times),
            "small": workload("inference", "one row", {"fastnn": 2e-6, "numpy": 7e-6}),
        },
        "startup": {"import fastnn": 0.4, "import torch": 2.0},
        "memory": {
            "before": 100 * 2**20,
            "peak": 350 * 2**20,
            "grown": 250 * 2**20,
            "rows": 1000,
            "held": {"data": 150 * 2**20, "parameters": 100 * 2**20},
        },
        "whole": {
            "nielsen": {
                "title": "Nielsen",
                "what": "784-30-10",
                "fastnn": 1.2,
                "accuracy": 0.951,
                "torch": 48.0,
                "scaled": True,
            },
            "fashion": {"title": "Fashion", "skipped": "no data"},
        },
    }


def test_flop_worked_by_hand():
    """2-3-1 in batches of 4: products of 2 x 3 and 3 x 1 weights for each row.

    Forward 4 x (6 + 3), gradients of the weights as many, and 4 x 3 back through the last layer
    only: 84 multiplications, each with an addition.
    """
    assert Training((2, 3, 1), "mse", 4, 4).flop == 2 * (36 + 36 + 12) == 168
    assert Inference((2, 3, 1), 4).flop == 2 * 36


def test_flop_of_windows():
    """Two filters of 3 x 3 see 4 x 4 places of a 6 x 6 image, of which 2 x 2 x 2 values are left.

    9 x 2 x 16 = 288 products for a sample, forward and for the weights; 8 x 3 in the dense layer,
    forward, for the weights and back.
    """
    work = Training((8, 3), "mse", 4, 4, image=(1, 6, 6), convolutions=((2, 3),))
    assert work.flop == 2 * 4 * (2 * 288 + 3 * 24)
    assert str(work).startswith("1x6x6, conv 2 of 3x3, pool, 8-3 relu")
    assert work.data()[0].shape == (4, 1, 6, 6)


def test_flop_of_lenet():
    """25 x 6 weights at 24 x 24 places, 6 x 25 x 16 at 8 x 8, and the dense layers."""
    first, others = 86_400, 153_600 + 256 * 120 + 120 * 84 + 84 * 10
    assert TRAINING["lenet"].flop == 2 * 128 * (2 * first + 3 * others) == 194_181_120


@pytest.mark.parametrize("work", [*TRAINING.values(), IMAGES])
def test_widths_are_those_of_the_network(work):
    """The first is what the convolutions leave, of which the count of operations is made."""
    shapes = [weight.shape for weight, _ in initial(work)]
    front, dense = shapes[: len(work.convolutions)], shapes[len(work.convolutions) :]
    assert dense == list(pairwise(work.widths))
    assert [(filters, size) for _, size, _, filters in front] == list(work.convolutions)


def test_every_batch_is_full():
    for work in TRAINING.values():
        assert work.rows % work.batch == 0


@pytest.mark.parametrize("name", TRAINING | INFERENCE)
def test_workloads_have_names_and_data(name):
    work = (TRAINING | INFERENCE)[name]
    data = work.data() if name in TRAINING else (work.data(),)
    assert data[0].shape == (work.rows, *work.in_shape) and data[0].dtype == np.float32
    assert all(len(array) == work.rows for array in data)
    assert str(work.widths[0]) in str(work)


@pytest.mark.parametrize("loss", LOSSES)
def test_numpy_and_fastnn_train_the_same(loss):
    work = LOSSES[loss]
    given = work, initial(work), work.data(), 1
    fits = {name: PEERS[name].maker("training")(*given) for name in ("fastnn", "numpy")}
    peers.agree_on_losses(work, fits)
    assert fits["numpy"](3) == fits["numpy"](3)  # each call starts anew


def test_torch_and_fastnn_train_the_same_on_images():
    pytest.importorskip("torch")
    given = IMAGES, initial(IMAGES), IMAGES.data(), 1
    fits = {name: PEERS[name].maker("training")(*given) for name in ("fastnn", "torch")}
    peers.agree_on_losses(IMAGES, fits)


def test_a_peer_without_convolutions_is_left_out():
    made, left_out = ready(IMAGES, 1, {}, only=("fastnn", "numpy"))
    assert list(made) == ["fastnn"]
    assert left_out == {"numpy": "convolutions are not written out"}


def test_numpy_and_fastnn_predict_the_same():
    work = Inference((4, 6, 2), 5)
    given = work, initial(work), work.data(), 1
    calls = {name: PEERS[name].maker("inference")(*given) for name in ("fastnn", "numpy")}
    peers.agree_on_outputs(calls)


@pytest.mark.parametrize("loss", [1.002, math.nan, math.inf])
def test_a_peer_with_another_loss_is_named(loss):
    fits = {"fastnn": lambda epochs: 1.0, "liar": lambda epochs: loss}
    with pytest.raises(Disagreement, match=r"liar does not train the same.* 12 steps"):
        peers.agree_on_losses(TINY, fits)
    peers.agree_on_losses(TINY, fits | {"liar": lambda epochs: 1.0005})
    peers.agree_on_losses(TINY, {"fastnn": fits["fastnn"], "scikit-learn": lambda epochs: 2.0})


@pytest.mark.parametrize("out", [np.ones((2, 2)), np.zeros((2, 1)), np.full((2, 2), math.nan)])
def test_a_peer_with_other_outputs_is_named(out):
    with pytest.raises(Disagreement, match="liar"):
        peers.agree_on_outputs({"fastnn": lambda: np.zeros((2, 2)), "liar": lambda: out})


def test_absent_peers_are_named():
    nobody = {"nobody": Peer("nobody", ("numpy", "no_such_library"))}
    assert peers.absent(nobody) == {"nobody": "no_such_library not installed"}
    assert not {"fastnn", "numpy"} & set(peers.absent())
    results = made_up()
    assert "JAX: jax not installed" in report.lines("spiral", results["workloads"]["spiral"])
    assert "Left out: JAX (jax not installed)." in report.markdown(results, "chart.png")


def test_peers_that_are_absent_from_a_workload_are_named_with_it():
    results = made_up()
    results["peers"]["numpy"] = "by hand"
    results["workloads"]["small"]["left_out"]["numpy"] = "too slow"
    del results["workloads"]["small"]["peers"]["numpy"]
    text = report.markdown(results, "chart.png")
    assert "Left out: JAX (jax not installed); numpy on small (too slow)." in text
    assert "torch: eager; numpy: by hand." in text


def test_every_peer_has_its_colour():
    assert set(PEERS) <= set(report.COLOURS)
    assert len(set(report.COLOURS.values())) == len(report.COLOURS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234e-6, "1.23 µs"),
        (9.996e-6, "10.0 µs"),
        (0.9996e-3, "1.00 ms"),
        (0.0456, "45.6 ms"),
        (1234.5, "1,230 s"),
    ],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text


def test_markdown_says_what_was_measured():
    text = report.markdown(made_up(), "chart.png")
    rows = [line for line in text.splitlines() if line.startswith("| spiral")]
    assert rows == [
        "| spiral | 2-64-3 | **10.0 µs** | 25% | 15.0 µs (1.50 x) | 120 µs (12.0 x) | "
        "654 µs (65.4 x) |"
    ]
    assert "import fastnn 400 ms, import torch 2.00 s" in text
    assert "1.00 times the 250 MiB" in text
    assert "| Nielsen (95.1% right) | **1.20 s** | 48.0 s * | 40.0 x |" in text
    assert "| Fashion | - | - | no data |" in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_tables_and_charts_are_written(tmp_path):
    report.write(made_up(), tmp_path / "new", "latest")
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert sorted(written) == ["latest.json", "latest.md", "latest.png", "latest.svg"]
    assert json.loads(written["latest.json"]) == made_up()
    assert written["latest.png"].startswith(b"\x89PNG")
    svg = written["latest.svg"].decode()
    assert "654 µs  65.4 x" in svg and "spiral: 2-64-3" in svg


def test_a_long_title_is_broken():
    results = made_up()
    results["workloads"]["spiral"]["what"] = what = str(TRAINING["lenet"])
    title = report.figure(results).axes[0].get_title(loc="left")
    assert title.count("\n") == 1 and title.replace("\n", " ") == f"spiral: {what}"


def test_the_part_of_a_readme_is_replaced():
    begin, end = report.markers("benches")
    text = f"before\n{begin}\nOLD\n{end}\nafter\n"
    new = report.with_part(text, "NEW\n")
    assert new == f"before\n{begin}\nNEW\n{end}\nafter\n"
    assert report.part_of(new) == "NEW\n"
    assert report.with_part(new, "NEW\n") == new


@pytest.mark.parametrize("order", ["", "b", "eb", "bbe"])
def test_a_readme_without_markers_is_an_error(order, tmp_path, monkeypatch):
    begin, end = report.markers("benches")
    text = "".join({"b": begin, "e": end}[letter] + "\n" for letter in order)
    with pytest.raises(ValueError, match=r"README\.md must hold .*benches:begin"):
        report.with_part(text, "NEW\n")
    monkeypatch.setattr(readme, "PARTS", {"benches": readme.PARTS["benches"]})
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert "there is no latest.json" in readme.main()
    (tmp_path / "latest.json").write_text(json.dumps(made_up()))
    assert "must hold" in readme.main()
    assert (tmp_path / "README.md").read_text() == text


@pytest.mark.parametrize("name", readme.PARTS)
def test_the_readme_shows_the_latest_figures(name):
    markdown, file, _ = readme.PARTS[name]
    results = json.loads((report.RESULTS / file).read_text("utf-8"))
    assert report.part_of(README.read_text("utf-8"), name) == markdown(results)
