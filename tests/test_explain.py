"""Every registered thing has its page, and a page shows what runs."""

import inspect

import pytest

import fastnn as fnn
from fastnn import cli, initializers, layers, losses, metrics, optimizers
from fastnn._notes import NOTES
from fastnn.explain import fused_ops, page, topics
from fastnn.kernels._kernel import KERNELS
from fastnn.kernels._op import OPS
from fastnn.kernels.optimizers import RULES

CLASSES = [
    name
    for name, thing in vars(fnn).items()
    if inspect.isclass(thing) and issubclass(thing, (layers.Layer, optimizers.Optimizer))
]
REGISTERED = [
    *(*OPS, *RULES, *optimizers.OPTIMIZERS, *initializers.INITIALIZERS, *CLASSES),
    *(*losses.known(), *(name for name in losses.__all__ if name != "Loss"), *metrics.__all__),
]
SECTIONS = ("Formula", "In the books", "Mistakes to avoid")


@pytest.mark.parametrize("name", dict.fromkeys(REGISTERED))
def test_everything_registered_has_its_page(name):
    text = page(name)
    for section in SECTIONS:
        assert f"\n\n{section}\n    " in text, section
    title = text.partition(":")[0]
    assert title in NOTES, f"fastnn/_notes.py has no entry {title!r}"
    assert text.count("numpy") or topics()[title].thing is not None


@pytest.mark.parametrize("name", topics())
def test_a_page_says_what_runs(name):
    text, topic = page(name), topics()[name]
    for kernel in topic.kernels:
        assert f"def {kernel}(" in text and f"{kernel}: " in text
    for kernel in topic.kernels.values():
        reference = kernel.reference.__name__
        assert reference == "<lambda>" or f"def {reference}(" in text
    assert "@kernel" not in text and "``" not in text.partition("In the books")[0]
    assert max(map(len, text.splitlines())) <= 4 + 100
    if topic.kind in ("activation", "loss"):
        assert topic.kernels, "an op without kernels"


def test_no_note_is_about_nothing():
    assert set(NOTES) == set(topics())


def test_every_op_belongs_to_a_page():
    shown = {kernel for topic in topics().values() for kernel in topic.kernels}
    ops = {f"{op}_{part}" for op in OPS for part in ("forward", "backward", "gradient")}
    assert ops & set(KERNELS) <= shown


def test_a_loss_shows_its_fused_form_first():
    text = page("binary_cross_entropy")
    assert text.index("def sigmoid_binary_cross_entropy_forward(") < text.index(
        "def binary_cross_entropy_forward("
    )
    assert fused_ops()["softmax_cross_entropy"] == "cross_entropy"
    assert page("softmax_cross_entropy") == page("cross_entropy")


@pytest.mark.parametrize("spelling", ["leaky_relu", "LeakyReLU", "leaky-relu", " Leaky ReLU "])
def test_case_and_marks_do_not_matter(spelling):
    assert page(spelling).startswith("leaky_relu: an activation\n")


def test_chapters_and_their_absence_are_said_plainly():
    assert "(nnfs.io): chapter 10" in page("adam") and ": not in Nielsen" in page("adam")
    assert ": not in nnfs" in page("quadratic") and "chapter 1" in page("quadratic")


def test_mistakes_of_the_books_are_told():
    assert "nnfs has sign(target - output)" in page("mae")
    assert "-4e-11" in page("binary_cross_entropy")


def test_a_lambda_is_shown_as_a_function():
    shown = "    def relu_forward_reference(x):\n        return np.maximum(x, 0)\n"
    assert shown in page("relu")


def test_unknown_names_list_the_known_ones_nearest_first(capsys):
    with pytest.raises(ValueError, match=r"name must be one of adam, .*; got 'adm'"):
        fnn.explain("adm")
    with pytest.raises(TypeError, match=r"name must be one of .*, got int: 3"):
        fnn.explain(3)
    assert cli.main(["explain", "sofmax"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("fastnn explain: error: name must be one of softmax, ")


def test_the_command_prints_the_page(capsys):
    assert cli.main(["explain", "adam"]) == 0
    assert capsys.readouterr().out == page("adam") + "\n"
    assert cli.main(["explain"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in topics())
    fnn.explain()
    assert capsys.readouterr().out == listed
