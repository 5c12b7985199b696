"""From what `Network.fit` is given to a training that runs: checks, data, buffers, steps."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn import compiled, lbfgs, saving, training
from fastnn._callback import Callback, Chain
from fastnn._check import file_path, flag, number, whole
from fastnn.checkpoints import Checkpoint
from fastnn.interrupts import Interrupts
from fastnn.kernels._op import op_of
from fastnn.optimizers import LBFGS, Optimizer
from fastnn.plan import Plan
from fastnn.progress import watcher_of
from fastnn.schedules import ReduceOnPlateau
from fastnn.sources import row_weights, rows_of
from fastnn.steps import Pair, Steps
from fastnn.training import (
    Arrays,
    Batches,
    DivergenceError,
    Feed,
    History,
    Pace,
    Progress,
    Slice,
    Training,
    Watcher,
)

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["fit", "train_on_batch"]

_WHOLE = 1 << 26  # bytes of an array that are looked at to know it again; of larger ones, samples


class _Plateau(Callback):
    """Tells a schedule of every epoch's loss."""

    brief = True

    def __init__(self, schedule: ReduceOnPlateau) -> None:
        self.schedule = schedule

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """The loss of the validation data, if there are some."""
        self.schedule.epoch_ended(logs.get("val_loss", logs["loss"]))


class Data(NamedTuple):
    """What a training learns from, checked."""

    pair: Pair  # of all rows, or of the first batch
    plan: Plan  # the network's, or the one it will have
    stream: Any  # an iterable of batches, None where there are arrays
    validation: tuple[Any, ...]  # x and y of the validation, or nothing

    @property
    def samples(self) -> int:
        """Rows, 0 where batches come one by one."""
        return 0 if self.stream is not None else len(self.pair[0].array)

    def fingerprint(self, network: Network) -> str:
        """What tells these data from others; of batches that come one by one nothing is known."""
        pairs = [] if self.stream is not None else [self.pair]
        if self.validation:
            pairs.append(network._pair(*self.validation)[0])
        digest = hashlib.sha256()
        for source in itertools.chain(*pairs):
            array = source.array
            digest.update(repr((array.shape, array.dtype.str, source[1:])).encode())
            row = max(1, array[:1].nbytes)
            step = -(-array.nbytes // _WHOLE)
            block = max(1, (1 << 20) // row) * step
            for start in range(0, len(array), block):  # never a second copy of all
                digest.update(np.ascontiguousarray(array[start : start + block : step]).data)
        return digest.hexdigest()


def fit(
    network: Network,
    x: Any,
    y: Any,
    *,
    epochs: int | None,
    initial_epoch: int,
    batch_size: int | None,
    steps_per_epoch: int | None,
    shuffle: bool,
    sample_weight: Any,
    class_weight: Any,
    validation_data: Any,
    validation_split: float,
    callbacks: Any,
    resume: bool | str | os.PathLike[str],
    rollback: bool,
    verbose: int | str,
    watcher: Watcher | None = None,
    pace: Pace | None = None,
) -> History:
    """Train a network; see `Network.fit`.

    Another watcher takes the place of what is shown; a pace is of trainings like this one.
    """
    network._optimizer.check()
    watcher, rollback = watcher or watcher_of(verbose), flag("rollback", rollback)
    chain = Chain(callbacks, network)
    past = _past(network, resume, chain)
    optimizer = network._optimizer if past is None else past._optimizer
    if optimizer.plateau is not None:
        chain.members.append(_Plateau(optimizer.plateau))
    search = lbfgs.Trainer(network, optimizer) if isinstance(optimizer, LBFGS) else None
    if search is not None:
        chain.members.append(search)
    if number("validation_split", validation_split, least=0, below=1):
        if validation_data is not None or y is None:
            other = "batches that come one by one" if y is None else "validation_data"
            raise ValueError(f"validation_split and {other} exclude each other")
        x, y, sample_weight, validation_data = _split(
            x, y, sample_weight, validation_split, network.dtype
        )
    data = _data(network, x, y, sample_weight, class_weight, validation_data)
    if steps_per_epoch is not None:
        steps_per_epoch = whole("steps_per_epoch", steps_per_epoch)
    if (steps_per_epoch if data.stream is None else batch_size) is not None:
        names = ("steps_per_epoch", "arrays") if data.stream is None else ("batch_size", "batches")
        raise ValueError(f"{names[0]} has no meaning for {names[1]}; leave it out")
    progress = Progress(
        1 if epochs is None else whole("epochs", epochs),
        _batch_size(network, optimizer, batch_size, data, past),
        flag("shuffle", shuffle),
        data.samples,
        epoch=whole("initial_epoch", initial_epoch, least=0),
    )
    if progress.epoch >= progress.epochs:
        raise ValueError(f"initial_epoch must be below epochs={epochs or 1}, got {initial_epoch}")
    if past is not None:
        _check_past(network, past, progress, data, chain)
    with Interrupts() as interrupts, network._turns.alone():
        if past not in (None, network):
            with interrupts.held():
                network._become(past)
        with interrupts.held():  # an interrupt within numba leaves it unable to compile
            steps, looks = _prepared(network, data, progress.batch_size)
            steps.compile(data.pair)
        if past is None:
            progress.generator = network._shuffle_rng.bit_generator.state
        else:
            assert past._progress is not None
            past._progress.epochs = progress.epochs if epochs else past._progress.epochs
            progress = past._progress
            network._shuffle_rng.bit_generator.state = progress.generator
        take = steps.step
        if search is not None:
            search.steps, take = steps, search.train
        backup = _Backup(network) if rollback else None

        def train(piece: Slice, scores: np.ndarray) -> int:
            pair = data.pair if piece.data is None else piece.data
            if backup is None:
                return take(pair, piece, scores)
            backup.take()
            done = take(pair, piece, scores)
            if search is None and done == len(piece.starts):
                done -= _ends_badly(network, steps, pair, piece)
                scores[0, done:] = np.nan
            return done

        run = Training(
            progress=progress,
            feed=_feed(network, data, progress, steps_per_epoch, class_weight),
            train=train,
            moving=network._turns.moving,
            diverged=steps.first_bad,
            validate=partial(network._figures, *looks) if looks else None,
            fingerprint=partial(data.fingerprint, network),
            metric=network._metric.name if network._metric_op(data.pair) else "",
            penalized=compiled.some(steps.terms, "l1", "l2"),
            watcher=watcher,
            callbacks=chain,
            interrupts=interrupts,
            pace=pace or Pace(),
        )
        return _run(network, run, backup)


def _run(network: Network, run: Training, backup: _Backup | None) -> History:
    """Run a training, and leave a network that can go on if that ends too early."""
    try:
        network._progress, network._training = run.progress, run
        return run.run()
    except DivergenceError:
        if backup is None:
            network._progress = None  # there is nothing to go on with
        else:
            with network._turns.moving():
                backup.give_back()
        raise
    finally:
        with run.interrupts.held():
            network._training = None
            if network.unfinished:
                run.settle()


class _Backup:
    """What a slice of training moves, as it was before."""

    def __init__(self, network: Network) -> None:
        self.arrays = network._params, network._state, network._rule
        self.copies: list[np.ndarray] = []

    def take(self) -> None:
        """Copy it."""
        self.copies = [array.copy() for array in self.arrays]

    def give_back(self) -> None:
        """Put it back."""
        for array, copy in zip(self.arrays, self.copies, strict=True):
            array[...] = copy


def _ends_badly(network: Network, steps: Steps, pair: Pair, piece: Slice) -> bool:
    """Whether the next step would fail: finite parameters may be too large for a finite loss.

    A step of rate 0 with the slice's last batch is taken, and taken back: else the slice would
    count as a good one to go back to, and going on from there would diverge at once.
    """
    end = _Backup(network)
    end.take()
    last = Slice(piece.order, piece.starts[-1:], piece.stops[-1:], False)
    bad = steps.take(pair, last, np.zeros(1), np.zeros((3, 1))) == 0
    if not bad:
        end.give_back()
    return bad


def train_on_batch(
    network: Network, x: Any, y: Any, sample_weight: Any, class_weight: Any
) -> dict[str, float]:
    """Take one step; see `Network.train_on_batch`."""
    optimizer, steps, scores = network._optimizer, network._steps, np.zeros((3, 1))
    changed = steps is None or steps.settings != network._settings()
    turns = network._turns
    if steps is not None and steps.again and not changed and sample_weight is class_weight is None:
        with Interrupts() as interrupts, interrupts.held(), turns.alone():
            rows = steps.again.bring(x, y)
            if rows:
                with turns.moving():
                    done = steps.step_again(rows, scores)
                return _figures(network, steps, steps.again.pair, rows, scores, done)
    if changed:
        optimizer.check()
        if isinstance(optimizer, LBFGS):
            raise ValueError("LBFGS cannot take single steps: call fit with all rows")
    data = _data(network, x, y, sample_weight, class_weight, None)
    rows = len(data.pair[0].array)
    with Interrupts() as interrupts, interrupts.held(), turns.alone():
        if changed:
            if network._plan is not None:
                network._follow_optimizer()  # which may need other buffers
            steps = network._steps
        if steps is None:
            steps = network._steps = _prepared(network, data, rows)[0]
        if changed:
            steps.terms, steps.settings = network._terms(network._rule), network._settings()
            steps.again = None
        piece = Slice(np.arange(rows), np.array([0]), np.array([rows]), True)
        with turns.moving():
            done = steps.step(data.pair, piece, scores)
        figures = _figures(network, steps, data.pair, rows, scores, done)
        steps.remember(data.pair)
    return figures


def _figures(
    network: Network, steps: Steps, pair: Pair, rows: int, scores: np.ndarray, done: int
) -> dict[str, float]:
    """Loss and metric of a step that was taken; raises where it did not go well."""
    if not done:
        raise DivergenceError(
            f"training diverged: {steps.first_bad(bool(np.isfinite(scores[0, 0])))}; "
            "a smaller learning rate may help"
        )
    figures = {"loss": scores[0, 0] + scores[2, 0]}
    if network._metric_op(pair):
        figures[network._metric.name] = scores[1, 0]
    return {name: float(training.figure(name, sum_, rows)) for name, sum_ in figures.items()}


# -- what is given ----------------------------------------------------------------------


def _data(
    network: Network, x: Any, y: Any, sample_weight: Any, class_weight: Any, validation_data: Any
) -> Data:
    """Check everything before anything changes."""
    stream = None
    if y is None:
        if sample_weight is not None or class_weight == "balanced":
            raise ValueError(
                "sample_weight and class_weight='balanced' belong to arrays; batches that come one "
                "by one are (x, y, sample_weight)"
            )
        stream, (x, y, *weights) = _first_of(x)
        sample_weight = weights[0] if weights else None
    pair, plan = network._pair(x, y, sample_weight, class_weight)
    if plan is not network._plan or network._steps is None:  # else it was looked at before
        check_trainable(network, plan)
    validation: tuple[Any, ...] = ()
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            kind = type(validation_data).__name__
            raise ValueError(f"validation_data must be (x, y), got {kind}")
        validation = validation_data[0], validation_data[1]
        _check_validation(network, validation, plan)
    return Data(pair, plan, stream, validation)


def _first_of(batches: Any) -> tuple[Iterable[Any], Any]:
    """The batches, and the first of them."""
    if not isinstance(batches, Iterable) or hasattr(batches, "__array__"):
        raise TypeError(
            f"y is missing: fit takes x and y, or an iterable of batches (x, y), "
            f"got {type(batches).__name__}"
        )
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise ValueError("x gave no batches; give at least one (x, y)")
    if iterator is batches:  # it cannot be asked again
        batches = itertools.chain([first], iterator)
    return batches, _batch(first)


def _batch(batch: Any) -> Any:
    """A batch, if it is one."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise ValueError(
            f"a batch must be (x, y) or (x, y, sample_weight), got {type(batch).__name__}"
        )
    return batch


def _pair_of(network: Network, batch: Any, class_weight: Any) -> Pair:
    """The sources of one batch."""
    x, y, *weights = _batch(batch)
    return network._pair(x, y, weights[0] if weights else None, class_weight)[0]


def _feed(
    network: Network, data: Data, progress: Progress, per_epoch: int | None, class_weight: Any
) -> Feed:
    """Where slices come from."""
    rng = network._shuffle_rng
    if data.stream is None:
        return Arrays(progress.samples, progress.batch_size, rng, progress.shuffle)
    return Batches(
        data.stream,
        per_epoch,
        rng,
        lambda batch: _pair_of(network, batch, class_weight),
    )


def _prepared(network: Network, data: Data, batch_size: int) -> tuple[Steps, Any]:
    """Build the network if need be and make room; where memory does not do, nothing changes."""
    unbuilt, generator = network._plan is None, network._weights_rng.bit_generator.state
    try:
        if unbuilt:
            network._build(data.plan)
        network._follow_optimizer()
        rows = len(data.pair[0].array)
        steps = Steps(network, min(batch_size or rows, rows))
        return steps, network._looks(*data.validation) if data.validation else None
    except BaseException:
        if unbuilt:
            network._forget(generator)
        raise


def check_trainable(network: Network, plan: Plan) -> None:
    """Refuse a plan that has an activation without a gradient."""
    for row in plan.rows:
        op = op_of(row)
        if op.role == "activation" and op.backward is None:
            raise ValueError(
                f"layer {row.layer}, {network.layers[row.layer]!r}: {op.name} has no gradient "
                "and can only predict; to train, take sigmoid or another activation"
            )


def _check_validation(network: Network, validation: tuple[Any, ...], plan: Plan) -> None:
    """Check validation data as x and y are, under their own name."""
    known, network._plan = network._plan, plan
    try:
        network._pair(*validation)
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation_data: {error}") from None
    finally:
        network._plan = known


def _split(
    x: Any, y: Any, sample_weight: Any, share: float, dtype: np.dtype
) -> tuple[Any, Any, Any, Any]:
    """Rows to train on, their targets and weights, and the last rows to validate with."""
    x, y = rows_of("x", x), rows_of("y", y)
    rows = len(x)
    kept = rows - int(rows * share)
    if kept == rows or len(y) != rows:
        raise ValueError(
            f"validation_split={share:g} of {rows} rows leaves none to validate with"
            if kept == rows
            else f"x and y must have as many rows, got {rows} and {len(y)}"
        )
    weights = None if sample_weight is None else row_weights(sample_weight, rows, dtype)[:kept]
    return x[:kept], y[:kept], weights, (x[kept:], y[kept:])


def _batch_size(
    network: Network,
    optimizer: Optimizer,
    asked: int | None,
    data: Data,
    past: Network | None,
) -> int:
    """Rows of a batch: what was asked for or was before, or what suits the optimizer."""
    if asked is not None:
        asked = whole("batch_size", asked)
    if not isinstance(optimizer, LBFGS):
        if asked is None and past is not None and past._progress is not None:
            return past._progress.batch_size
        return 0 if data.stream is not None else asked or 32
    samples = data.samples
    if data.stream is not None or (asked is not None and asked < samples):
        raise ValueError(
            f"LBFGS needs all {samples or ''} rows at once: leave batch_size out, got {asked}"
            if data.stream is None
            else "LBFGS needs all rows at once: give arrays"
        )
    if any(layer.term("weight")[2:] != (0, False) for layer in network.layers):
        raise ValueError("LBFGS knows no max_norm and no non_negative; leave them out")
    return samples


# -- what is gone on with ---------------------------------------------------------------


def _past(network: Network, resume: Any, chain: Chain) -> Network | None:
    """The network as it was when its training was interrupted; None to begin anew."""
    if resume is False:
        there = [c.path for c in chain.members if isinstance(c, Checkpoint) and c.waits]
        resume = there[0] if there else False
    if resume is False:
        return None
    if resume is not True:
        file_path("resume", resume)
    past = network if resume is True else saving.load(resume, backend=network.backend)
    if past._progress is None:
        raise ValueError(
            "there is no training to go on with: none was interrupted"
            if past is network
            else f"{str(resume)!r} holds a network, but no training to go on with"
        )
    then, now = saving.architecture(past), saving.architecture(network)
    for name, value in now.items():
        if value != then[name] and not (name == "input_shape" and value is None):
            raise ValueError(f"to go on, {name} must be {then[name]}, got {value}")
    return past


def _check_past(
    network: Network, past: Network, progress: Progress, data: Data, chain: Chain
) -> None:
    """Whether a training can go on with what is given."""
    then = past._progress
    assert then is not None
    if progress.epoch:
        raise ValueError("initial_epoch and resume exclude each other")
    for name in ("batch_size", "shuffle", "samples"):
        if getattr(then, name) != getattr(progress, name):
            raise ValueError(
                f"to go on, {name} must be {getattr(then, name)}, got {getattr(progress, name)}"
            )
    chain.check(then.callbacks)
    if then.data is None:
        raise ValueError("that training has come to its end: call fit without resume")
    if then.data != data.fingerprint(network):
        raise ValueError(
            "to go on, the data must be those of the training so far; these are others"
        )
