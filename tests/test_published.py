"""The books' results: what deterministic runs print, digit by digit, and the table of the others.

The trainings themselves take a quarter of an hour: ``python -m benches.published``. Here are the
exact checks, the first epochs of one spiral, and what the table says.
"""

import json

import numpy as np
import pytest

from benches import published
from benches.published import exact, report, runs
from benches.published.__main__ import main, parse
from benches.published.rows import ROWS, RULES, Claim
from benches.report import RESULTS
from fastnn import datasets
from fastnn.kernels._kernel import JIT

needs_compiler = pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT=1: training takes minutes")
KEPT = RESULTS / "published.json"


@pytest.mark.parametrize("check", exact.CHECKS, ids=lambda check: check.name)
def test_nnfs_prints_the_same_digits(check):
    ours, same = check.result()
    assert same, f"{ours} instead of {check.printed}"


def test_a_digit_off_is_found():
    check = exact.Check("", "", "1.25 -3.0e-05", lambda: np.array([1.2549, -3.04e-05]))
    assert check.result() == ("1.25 -0.000030", True)
    assert not check._replace(printed="1.26 -3.0e-05").result()[1]


@needs_compiler
def test_nnfs_chapter_16_begins_as_printed():
    """Epochs 0 and 100 of the book's run: its data, its weights, its penalties."""
    figures, _ = runs.run("nnfs-16", 0, quick=True)
    assert figures == pytest.approx([0.500, 0.693, 0.630, 0.674], abs=0.001)


@needs_compiler
def test_the_command_writes_what_it_found(tmp_path, capsys):
    assert (
        main(["--quick", "--only", "nnfs-16,nnfs-11", "--seeds", "1", "--out", str(tmp_path)]) == 0
    )
    printed = capsys.readouterr().out
    assert "[2/2]" in printed and "8 of 8 published figures come out again" in printed
    results = json.loads((tmp_path / "quick.json").read_text("utf-8"))
    assert list(results["rows"]) == ["nnfs-11", "nnfs-16"]
    assert (tmp_path / "quick.md").read_text("utf-8") == report.markdown(results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--only niels,nope", "no row begins with nope; there are nnfs-10-sgd"),
        ("--seeds 0", "--seeds must be 1 or more"),
        ("--jobs -1", "--jobs must be 1 or more"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_has_a_network_and_claims(row):
    net = runs.network(row, seed=0)
    assert net.plan.fan_in == row.widths[0] and net.plan.fan_out == row.widths[-1]
    assert row.claims and {claim.rule for claim in row.claims} <= set(RULES)
    for claim in row.claims:
        measured = claim.figure.rpartition(" ")[0]
        assert measured in ("", "data", *row.watch)
        made_up = [0.1, 0.3, 0.2] * 1_000
        curves = {claim.figure: made_up, "validation accuracy": made_up}
        assert runs.claimed(claim, curves) in (0.1, 0.2, 0.3)


def test_rows_without_data_are_left_out(monkeypatch):
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    assert "FASTNN_DATA" in runs.lacking(ROWS["nielsen-1"])
    assert not runs.lacking(ROWS["nnfs-11"])


def test_weights_of_nnfs_come_of_its_stream():
    """RandomState(0): 300 numbers for the spiral, then 2 x 64 weights, then 64 x 3."""
    random = np.random.RandomState(0)
    random.randn(300)
    net = runs.network(ROWS["nnfs-11"], seed=0)
    for layer, shape in zip(net.layers, [(2, 64), (64, 3)], strict=True):
        np.testing.assert_allclose(layer.weight, 0.01 * random.randn(*shape), rtol=1e-6)
        assert not layer.bias.any()


def test_points_of_a_stream_are_those_of_the_data_set():
    sets = runs.data(ROWS["nnfs-11"], seed=3)
    for ours, known in zip(sets["train"], datasets.spiral(100, 3, seed=3), strict=True):
        np.testing.assert_array_equal(ours, known)
    assert not np.array_equal(sets["train"][0], sets["validation"][0])


@pytest.mark.parametrize(
    ("rule", "figure", "published", "ours", "good"),
    [
        ("range", "accuracy", 0.8, [0.7, 0.8], True),
        ("range", "accuracy", 0.8, [0.9, 0.95], True),
        ("range", "accuracy", 0.8, [0.7, 0.79], False),
        ("range", "loss", 0.8, [0.7, 0.9], True),
        ("range", "loss", 0.8, [0.81, 0.9], False),
        ("range", "loss", 0.8, [0.8004, 0.9], True),
        ("at least", "test accuracy", 0.8, [0.8, 0.9], True),
        ("at least", "test accuracy", 0.8, [0.79, 0.9], False),
        ("peak", "test accuracy", 0.8, [0.79, 0.803], True),
        ("peak", "test accuracy", 0.8, [0.79, 0.8], False),
        ("best", "test accuracy", 0.8, [0.5, 0.797], True),
        ("best", "test accuracy", 0.8, [0.795, 0.795], False),
        ("start", "test accuracy", 0.8, [0.70, 0.786], True),
        ("start", "test accuracy", 0.8, [0.816, 0.82], False),
        ("end", "test accuracy", 0.8, [0.796, 0.796], True),
        ("end", "test accuracy", 0.8, [0.806, 0.81], False),
        ("seed 0", "loss", 0.8, [0.805, 2.0], True),
        ("seed 0", "loss", 0.8, [0.82, 0.8], False),
        ("fails", "test accuracy", 0.1, [0.3, 0.49], True),
        ("fails", "test accuracy", 0.1, [0.1, 0.51], False),
        ("descends", "loss", 0.1, [0.05, 0.09], True),
        ("descends", "loss", 0.1, [0.05, 0.11], False),
    ],
)
def test_rules(rule, figure, published, ours, good):
    assert report.holds(Claim(figure, "last", published, rule), ours) is good


def test_the_kept_results_are_of_these_rows():
    """What the README shows was made by the rows as they stand, with all their seeds."""
    kept = json.loads(KEPT.read_text("utf-8"))
    assert not kept["left_out"] and list(kept["rows"]) == list(ROWS)
    for name, row in ROWS.items():
        found = kept["rows"][name]
        assert (found["source"], found["what"]) == (row.source, report.described(row))
        for claim, told in zip(row.claims, found["claims"], strict=True):
            assert Claim(*(told[field] for field in Claim._fields)) == claim
            assert len(told["ours"]) == row.seeds
            assert told["pass"] is report.holds(claim, told["ours"])


def test_the_page_says_how():
    assert "--quick" in published.__doc__ and "--only" in published.__doc__
