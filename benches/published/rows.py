"""What the books print: source, network, hyper-parameters, figures, and what counts as the same.

Sources: "nnfs" is H. Kinsley and D. Kukieła, *Neural Networks from Scratch in Python* (2020), and
the code published with it; "Nielsen" is M. Nielsen, *Neural Networks and Deep Learning* (2015),
with the per-epoch curves published beside its figures. "rerun" is a third party's run of nnfs's
code where the book prints a picture only (A. J. Kumar, ajkumar-13/NNFS, posts 22 to 27).

On the spiral, Adam makes whole steps of rounding errors, so that after some hundred epochs the
book's own seed leads elsewhere on every machine: the book's code, run in float64, ends where fastnn
does in float64, and neither where the book has ended. What is left to compare is the range of many
seeds. A figure drawn from the same distribution is better than all of 5 seeds one time in 6, and
than all of 20 one time in 21.
"""

from itertools import pairwise
from typing import NamedTuple

from fastnn import conventions

# Rules, by which a figure counts as the published one. `ours` are the figures of all seeds.
RULES = {
    "range": "inside the range of our seeds, or ours better",
    "at least": "every seed at least this",
    "peak": "mean of our seeds within 0.4 points, or better",
    "best": "best of our seeds (as in the book) within 0.4 points, or better",
    "start": "within 1.5 points of our seeds",
    "end": "within 0.5 points of our seeds",
    "seed 0": "from the book's own data and weights, within 0.01",
    "fails": "no seed above 50 %: the learning rate is wrong",
    "descends": "every seed below this",
}


class Claim(NamedTuple):
    """A printed figure: of what, after which epoch, and by which rule it is compared.

    ``when`` is an epoch, counted from 0, "last", "peak", or "best" for the test accuracy of the
    epoch whose validation accuracy is the highest.
    """

    figure: str
    when: int | str
    published: float
    rule: str


class Row(NamedTuple):
    """One training, and all that is claimed of it.

    ``l2`` is in fastnn's scale: of all weights where the book is Nielsen's; of weights and biases
    of the first layer where it is nnfs.
    """

    name: str
    source: str
    data: str
    widths: tuple[int, ...]
    activations: tuple[str, str]
    loss: str
    initializer: str
    optimizer: tuple[str, dict[str, float]]
    epochs: int
    batch: int
    claims: tuple[Claim, ...]
    seeds: int
    samples: int = 0
    l2: float = 0.0
    dropout: float = 0.0
    shuffle: bool = True
    watch: tuple[str, ...] = ()  # sets that are measured: after every epoch, or only at the end
    every_epoch: bool = False

    @property
    def work(self) -> float:
        """About how long it takes: multiplications, and what a batch costs beside them."""
        rows = self.samples or 60_000
        weights = sum(a * b for a, b in pairwise(self.widths))
        return self.epochs * (rows * weights + 1e5 * rows / self.batch)

    @property
    def quick(self) -> int:
        """Epochs of the quick form."""
        return min(self.epochs, 1 if self.data in ("mnist", "fashion") else 101)


# -- nnfs: the spiral ---------------------------------------------------------------


def spiral(name, source, optimizer, claims, **others):
    """2-64-3 on the spiral, 10,001 epochs of one batch."""
    classes = others.pop("classes", 3)
    samples = others.pop("samples", 100)
    options = {
        "data": f"spiral {classes}",
        "widths": (2, 64, 3),
        "activations": ("relu", "softmax"),
        "loss": "cross_entropy",
        "initializer": "nnfs 0.01",
        "epochs": 10_001,
        "batch": samples * classes,
        "samples": samples,
        "seeds": 20 if samples == 100 else 5,
        "watch": ("validation",) if any(c.figure.startswith("val") for c in claims) else (),
    }
    return Row(
        name=name, source=source, optimizer=optimizer, claims=tuple(claims), **options | others
    )


def trained(accuracy, loss, val_accuracy=None, val_loss=None):
    """Claims on the last epoch, and on points that were not trained with."""
    claims = [
        Claim("accuracy", "last", accuracy, "range"),
        Claim("loss", "last", loss, "range"),
    ]
    if val_accuracy is not None:
        claims.append(Claim("validation accuracy", "last", val_accuracy, "range"))
    if val_loss is not None:
        claims.append(Claim("validation loss", "last", val_loss, "range"))
    return claims


def at(epoch, accuracy, loss):
    """Claims on an early epoch of the run with the book's own seed."""
    claims = [] if accuracy is None else [Claim("accuracy", epoch, accuracy, "seed 0")]
    return [*claims, *([] if loss is None else [Claim("loss", epoch, loss, "seed 0")])]


def sgd(**options):
    return "SGD", {"learning_rate": 1.0, **options}


def adam(rate, decay):
    return "Adam", {"learning_rate": rate, "decay": decay, "epsilon": 1e-7}


RERUN = "nnfs, chapter 10 (rerun)"
ADAGRAD = "Adagrad", {"learning_rate": 1.0, "decay": 1e-4, "epsilon": 1e-7}
RMSPROP = "RMSprop", {"learning_rate": 0.02, "decay": 1e-5, "rho": 0.999, "epsilon": 1e-7}
BOTH_L2 = {"l2": 5e-4}

SPIRAL = [
    spiral("nnfs-10-sgd", RERUN, sgd(), trained(0.647, 0.8737)),
    spiral("nnfs-10-decay-2", RERUN, sgd(decay=1e-2), trained(0.397, 1.07)),
    spiral("nnfs-10-decay-3", RERUN, sgd(decay=1e-3), trained(0.647, 0.7612)),
    spiral("nnfs-10-decay-4", RERUN, sgd(decay=1e-4), trained(0.590, 0.97)),
    spiral("nnfs-10-momentum-5", RERUN, sgd(decay=1e-3, momentum=0.5), trained(0.78, 0.55)),
    spiral("nnfs-10-momentum-9", RERUN, sgd(decay=1e-3, momentum=0.9), trained(0.957, 0.1209)),
    spiral("nnfs-10-adagrad", RERUN, ADAGRAD, trained(0.840, 0.3847)),
    spiral("nnfs-10-rmsprop", RERUN, RMSPROP, trained(0.900, 0.2379)),
    spiral(
        "nnfs-10-adam",
        RERUN,
        adam(0.02, 1e-5),
        [*at(100, None, 0.7692), *trained(0.963, 0.0806)],
    ),
    spiral("nnfs-11", "nnfs, chapter 11", adam(0.05, 5e-7), trained(0.983, 0.074, 0.803, 0.858)),
    spiral(
        "nnfs-14",
        "nnfs, chapter 14",
        adam(0.02, 5e-7),
        [
            *trained(0.947, 0.217, 0.830, 0.435),
            Claim("data loss", "last", 0.157, "range"),
        ],
        **BOTH_L2,
    ),
    spiral(
        "nnfs-15",
        "nnfs, chapter 15",
        adam(0.05, 5e-5),
        [*trained(0.688, 0.727, 0.757, 0.712), Claim("data loss", "last", 0.711, "range")],
        samples=1000,
        dropout=0.1,
        **BOTH_L2,
    ),
    spiral(
        "nnfs-16",
        "nnfs, chapter 16",
        adam(0.001, 5e-7),
        [
            *at(0, 0.500, 0.693),
            *at(100, 0.630, 0.674),
            *at(1500, 0.805, 0.503),
            *at(2500, 0.855, 0.430),
            *trained(0.965, 0.219, 0.945, 0.207),
            Claim("data loss", "last", 0.156, "range"),
        ],
        classes=2,
        widths=(2, 64, 1),
        activations=("relu", "sigmoid"),
        loss="binary_cross_entropy",
        **BOTH_L2,
    ),
    spiral(
        "nnfs-17",
        "nnfs, chapter 17 (nothing printed: it must learn the sine)",
        adam(0.005, 1e-3),
        [Claim("loss", "last", 1e-3, "descends")],
        data="sine",
        samples=1000,
        batch=1000,
        widths=(1, 64, 64, 1),
        activations=("relu", "linear"),
        loss="mse",
        initializer="nnfs 0.1",
    ),
    spiral(
        "nnfs-17-mae",
        "nnfs, chapter 17 (the book's gradient has the wrong sign: it must descend)",
        adam(0.005, 1e-3),
        [Claim("loss", "last", 0.05, "descends")],
        data="sine",
        samples=1000,
        batch=1000,
        widths=(1, 64, 64, 1),
        activations=("relu", "linear"),
        loss="mae",
        initializer="nnfs 0.1",
    ),
    spiral(
        "nnfs-18",
        "nnfs, chapter 18 (rerun)",
        adam(0.05, 5e-5),
        trained(0.859, 0.451, 0.843, 0.385),
        samples=1000,
        widths=(2, 512, 3),
        dropout=0.1,
        **BOTH_L2,
    ),
]

FASHION = [
    Row(
        name="nnfs-19",
        source="nnfs, chapter 19: Fashion-MNIST",
        data="fashion",
        widths=(784, 128, 128, 10),
        activations=("relu", "softmax"),
        loss="cross_entropy",
        initializer="nnfs 0.01",
        optimizer=adam(0.001, 1e-3),
        epochs=10,
        batch=128,
        claims=(Claim("test accuracy", "last", 0.865, "at least"),),
        seeds=3,
        shuffle=False,  # the book shuffles once, before the training
        watch=("test",),
        every_epoch=True,
    )
]

# -- Nielsen: MNIST -----------------------------------------------------------------

LARGE, DEFAULT = "Nielsen large", "Nielsen default"
CE = "binary_cross_entropy"


def mnist(name, chapter, hidden, loss, initializer, eta, claims, lmbda=0.0, **others):
    """Sigmoid layers, batches of 10, gradient descent; eta and lmbda are the book's."""
    options = {
        "data": "mnist",
        "activations": ("sigmoid", "sigmoid"),
        "epochs": 30,
        "batch": 10,
        "seeds": 3,
        "samples": 50_000,
        "every_epoch": True,
    } | others
    watch = {claim.figure.split()[0] for claim in claims}
    watch |= {"validation"} if any(claim.when == "best" for claim in claims) else set()
    scale = conventions.loss_scale("nielsen", loss, outputs=10)
    return Row(
        name=name,
        source=f"Nielsen, chapter {chapter}",
        widths=(784, *hidden, 10),
        loss=loss,
        initializer=initializer,
        optimizer=("SGD", {"learning_rate": eta * scale}),
        l2=conventions.l2_from_nielsen(lmbda, options["samples"], scale),
        claims=tuple(claims),
        watch=tuple(sorted(watch)),
        **options,
    )


def curve(measured, first, last):
    """Claims on a published curve: its first epoch and its last."""
    figure = f"{measured} accuracy"
    return Claim(figure, 0, first, "start"), Claim(figure, "last", last, "end")


def peak(measured, published, rule="peak"):
    """A claim on the best epoch."""
    return Claim(f"{measured} accuracy", "peak", published, rule)


def fails(published):
    """A claim that a learning rate does not work."""
    return [Claim("test accuracy", "last", published, "fails")]


FEW = {"samples": 1_000, "epochs": 400, "seeds": 10}  # after 100 updates they lie 3 points apart
MORE = {100: 0.6909, 200: 0.7637, 500: 0.8529, 1_000: 0.8885, 2_000: 0.9127, 5_000: 0.9324,
        10_000: 0.9489, 20_000: 0.9585, 50_000: 0.9597}  # fmt: skip

MNIST = [
    mnist("nielsen-1", 1, (30,), "quadratic", LARGE, 3.0, [peak("test", 0.9542, "best")]),
    mnist(
        "nielsen-2",
        "1, of which the book says that some runs are quite a bit worse",
        (100,),
        "quadratic",
        LARGE,
        3.0,
        [peak("test", 0.9659, "best")],
        seeds=10,
    ),
    mnist("nielsen-3", 1, (100,), "quadratic", LARGE, 0.001, fails(0.2142)),
    mnist("nielsen-4", 1, (30,), "quadratic", LARGE, 100.0, fails(0.0982)),
    mnist(
        "nielsen-5",
        "3, and its curve overfitting_full",
        (30,),
        CE,
        LARGE,
        0.5,
        [peak("test", 0.9549), *curve("test", 0.9136, 0.9531)],
    ),
    mnist("nielsen-6", 3, (100,), CE, LARGE, 0.5, [peak("test", 0.9682)]),
    mnist(
        "nielsen-7",
        "3, 1,000 images, and its curve overfitting",
        (30,),
        CE,
        LARGE,
        0.5,
        [peak("test", 0.8227), *curve("test", 0.5887, 0.8223)],
        **FEW,
    ),
    mnist(
        "nielsen-7-l2",
        "3, 1,000 images, lmbda 0.1, and its curve regularized",
        (30,),
        CE,
        LARGE,
        0.5,
        [peak("test", 0.871), *curve("test", 0.5898, 0.8695)],
        lmbda=0.1,
        **FEW,
    ),
    mnist(
        "nielsen-8",
        "3, lmbda 5, and its curve regularized_full",
        (30,),
        CE,
        LARGE,
        0.5,
        [peak("test", 0.9649), *curve("test", 0.9212, 0.9561)],
        lmbda=5.0,
    ),
    mnist("nielsen-9", "3, lmbda 5", (100,), CE, LARGE, 0.5, [peak("validation", 0.9792)], 5.0),
    mnist(
        "nielsen-10",
        "3, lmbda 5",
        (100,),
        CE,
        DEFAULT,
        0.1,
        [peak("validation", 0.9804)],
        lmbda=5.0,
        epochs=60,
    ),
    *(
        mnist(
            f"nielsen-11-{len(hidden)}",
            f"5, {len(hidden)} hidden, lmbda 5",
            hidden,
            CE,
            DEFAULT,
            0.1,
            [peak("validation", published)],
            lmbda=5.0,
        )
        for hidden, published in (
            ((30,), 0.9648),
            ((30, 30), 0.9690),
            ((30, 30, 30), 0.9657),
            ((30, 30, 30, 30), 0.9653),
        )
    ),
    mnist(
        "nielsen-12",
        6,
        (100,),
        "cross_entropy",
        "Nielsen network3",
        0.1,
        [Claim("test accuracy", "best", 0.9780, "best")],
        activations=("sigmoid", "softmax"),
        epochs=60,
        shuffle=False,
    ),
    *(
        mnist(
            f"nielsen-start-{hidden}-{which}",
            f"3, lmbda 5, curve weight_initialization_{hidden}, {which}",
            (hidden,),
            CE,
            initializer,
            0.1,
            curve("validation", *published),
            lmbda=5.0,
        )
        for hidden, which, initializer, published in (
            (30, "default", DEFAULT, (0.9270, 0.9650)),
            (30, "large", LARGE, (0.8643, 0.9637)),
            (100, "default", DEFAULT, (0.9295, 0.9781)),
            (100, "large", LARGE, (0.8994, 0.9742)),
        )
    ),
    *(
        mnist(
            f"nielsen-more-{samples}",
            f"3, curve more_data, {samples:,} images",
            (30,),
            CE,
            LARGE,
            0.5,
            [Claim("validation accuracy", "last", published, "end")],
            lmbda=samples * 1e-4,
            samples=samples,
            epochs=1_500_000 // samples,
            every_epoch=False,
        )
        for samples, published in MORE.items()
    ),
]

ROWS = {row.name: row for row in (*SPIRAL, *FASHION, *MNIST)}
