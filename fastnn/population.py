"""Many networks of one architecture, trained at the same time.

Every member is a `Network` of its own that trains in one thread; as many members train at once as
there are processors, for compiled code runs beside other threads. A small network cannot use a
second processor: its steps are too short to be worth waiting for one another. Many of them can.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastnn import _threads, fitting
from fastnn._callback import Monitor
from fastnn._check import one_of, whole
from fastnn.interrupts import Interrupts
from fastnn.layers import Layer
from fastnn.network import Network, _aligned
from fastnn.plan import Plan
from fastnn.progress import Silent, watcher_of
from fastnn.training import DivergenceError, History, Pace, Progress

__all__ = ["Population"]

_LINE = 64  # bytes of a line of the cache, which two threads should not both write to
# Options of layers that leave the shapes of parameters as they are.
_OPTIONS = ("weight_l1", "weight_l2", "bias_l1", "bias_l2", "max_norm", "non_negative", "rate",
            "stddev", "trainable")  # fmt: skip
_PERIOD = 0.1  # seconds from one look at the members to the next


class Population:
    """``n`` networks like one, with other seeds, hyper-parameters or data.

    A member ends with the same bits as the same network trained alone, for any number of threads.
    ``population[i]`` is that `Network`, with ``threads=1``; what it is and does can also be
    changed there.

    Parameters
    ----------
    network : Network
        What the members are like. It stays as it is: members begin with weights of their own,
        as their seed decides.
    n : int
        How many members there are.
    vary : dict of str to sequence, optional
        ``n`` values for each thing in which members differ: ``seed``; hyper-parameters of the
        optimizer by their names (``learning_rate``, ``beta1``, ...); of layers ``weight_l1``,
        ``weight_l2``, ``bias_l1``, ``bias_l2``, ``max_norm``, ``non_negative``, ``rate``,
        ``stddev`` and ``trainable``, for all layers that have it, or ``"2.rate"`` for layer 2.
        By default the seeds are drawn from the network's, the same ones for any ``n``.
    threads : int, optional
        Members that train at once. By default the environment variable ``FASTNN_NUM_THREADS``,
        or as many as this process may use processors.

    Attributes
    ----------
    members : list of Network
        All of them; ``len(population)``, ``population[i]`` and ``for net in population``.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not what it must be; the text says which member it is about.

    Notes
    -----
    Means and spreads of such ensembles: Lakshminarayanan, Pritzel and Blundell (2017), "Simple
    and scalable predictive uncertainty estimation using deep ensembles", NeurIPS.

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.spiral()
    >>> net = fnn.Network(
    ...     [fnn.Dense(32, "relu"), fnn.Dense(3, "softmax")], loss="cross_entropy", seed=0)
    >>> rates = [0.001, 0.01, 0.1]
    >>> population = fnn.Population(net, 3, vary={"learning_rate": rates, "seed": [0, 0, 0]})
    >>> histories = population.fit(x, y, epochs=30, verbose=0)
    >>> population.predict(x).shape
    (3, 300, 3)
    >>> population.best("accuracy").optimizer.learning_rate > 0.001
    True
    """

    def __init__(
        self,
        network: Network,
        n: int,
        vary: Mapping[str, Sequence[Any]] | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network must be a Network, got {type(network).__name__}")
        count = whole("n", n)
        self.threads = None if threads is None else whole("threads", threads)
        values = _values(network, count, vary)
        # Members whose layers have the same options share one plan.
        self._alike = not any(name.rpartition(".")[2] in _OPTIONS for name in values)
        self.members: list[Network] = []
        shared = None
        for i in range(count):
            with _named(i):
                member = _like(network, {name: each[i] for name, each in values.items()}, shared)
            self.members.append(member)
            shared = member._plan if self._alike else None
        self._left: dict[int, bool] = {}  # who is to go on, and whether it has begun
        self._join()

    # -- what it is ---------------------------------------------------------

    def _join(self) -> None:
        """Lay the parameters of all members into one array, if they have some yet."""
        first = self.members[0]
        if first._plan is None:
            return
        size, number = first.plan.size, first.dtype.itemsize
        width = -(-size * number // _LINE) * _LINE // number
        overall = _aligned(len(self) * width, first.dtype).reshape(len(self), width)
        self._params = overall[:, :size]
        for member, row in zip(self.members, self._params, strict=True):
            member._move_to(row)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's parameters lie in one array, too."""
        self.__dict__.update(state)
        self._join()

    @property
    def params(self) -> np.ndarray:
        """All parameters, (n, size): the members' own, which may be written in place."""
        return self._params if self.members[0].plan else np.empty(0)

    @params.setter
    def params(self, value: Any) -> None:
        new = np.asarray(value, self.members[0].dtype)
        if new.shape != self.params.shape:
            raise ValueError(f"params must have shape {self.params.shape}, got {new.shape}")
        for member, row in zip(self.members, new, strict=True):
            member.params = row

    @property
    def histories(self) -> list[History | None]:
        """Of each member's last training; None of one that has diverged or not trained."""
        return [member.history for member in self.members]

    @property
    def unfinished(self) -> bool:
        """Whether a training was interrupted that ``fit(..., resume=True)`` can go on with."""
        return bool(self._left)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, number: Any) -> Any:
        return self.members[number]

    def __iter__(self) -> Iterator[Network]:
        return iter(self.members)

    def __repr__(self) -> str:
        return f"Population({len(self)} of {self.members[0]!r})"

    # -- what it does -------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        rows: Sequence[Any] | None = None,
        per_member: bool = False,
        epochs: int | None = None,
        batch_size: int | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: dict[int, float] | str | None = None,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float = 0.0,
        callbacks: Callable[[int], Any] | None = None,
        resume: bool = False,
        verbose: int | str = "auto",
    ) -> list[History | None]:
        """Train every member; a second call goes on from the first.

        Parameters
        ----------
        x, y : array
            As in `Network.fit`, for all members.
        rows : sequence of array, optional
            Numbers of the rows that each member trains with, say those of a fold.
        per_member : bool, default False
            Whether ``x``, ``y`` and ``sample_weight`` have an entry for each member in place of
            one for all; ``[x] * n`` costs nothing.
        epochs, batch_size, shuffle, sample_weight, class_weight, validation_data, validation_split
            As in `Network.fit`, for all members.
        callbacks : callable, optional
            ``callbacks(i)`` gives the list for member ``i``: they have memories of their own and
            are called in the threads that train.
        resume : bool, default False
            Go on with the training that was interrupted, of those members that were not done, to
            the bytes it would have ended with.
        verbose : {"auto", 0, 1, 2}
            0 silent, 1 a bar, 2 a line for each member that is done; "auto" a bar in a terminal,
            some lines elsewhere.

        Returns
        -------
        list of History
            Of each member, see `histories`.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit; no member has changed then.
        DivergenceError
            Where members diverge, which the text names: once all others are trained.
        KeyboardInterrupt
            After Ctrl-C, when every thread has ended its slice of some 30 ms: all members can be
            used, and ``resume=True`` goes on.
        """
        data = self._data(x, y, sample_weight, rows, per_member)
        if callbacks is not None and not callable(callbacks):
            raise TypeError(
                "callbacks must be a function that gives member i its list, lambda i: [...], "
                f"got {type(callbacks).__name__}"
            )
        if resume and not self._left:
            raise ValueError("there is no training to go on with: none was interrupted")
        self._build(data, per_member)
        left = self._left = self._left if resume else dict.fromkeys(range(len(self)), False)
        board, overall = watcher_of(verbose, "member"), Progress(len(left), 1, False, 1000)
        watchers = {i: _Watcher() for i in left}
        pace = Pace()  # one member's slices tell how long the next one's may be

        def train(i: int) -> None:
            again = resume and left[i] and self.members[i].unfinished
            left[i] = True
            features, targets, weights = data[i].taken()
            fitting.fit(
                self.members[i], features, targets,
                epochs=epochs, initial_epoch=0, batch_size=batch_size, steps_per_epoch=None,
                shuffle=shuffle, sample_weight=weights, class_weight=class_weight,
                validation_data=validation_data, validation_split=validation_split,
                callbacks=callbacks(i) if callbacks else None, resume=again,
                rollback=False, verbose=verbose, watcher=watchers[i], pace=pace,
            )  # fmt: skip
            del left[i]

        def show() -> None:
            losses = [w.values["loss"] for w in watchers.values() if "loss" in w.values]
            mean = float(np.mean(losses)) if losses else 0.0
            done = overall.epochs - len(left) - overall.epoch
            if done:
                overall.history.extend(overall.epoch, {"loss": [mean] * done})
                overall.epoch += done
                board.ended(done)
            share = sum(watcher.share for watcher in watchers.values())
            overall.rows = max(0, int(overall.samples * (share - overall.epoch)))
            board.progress({"loss": mean})

        def stop() -> None:
            for watcher in watchers.values():
                watcher.stop = True

        board.begin(overall)
        try:
            errors = self._together(train, list(left), show, stop)
            show()
        finally:
            board.close()
        for i, error in errors.items():
            if isinstance(error, DivergenceError):
                del left[i]  # it would only do so again
        _raise_first(errors)
        return self.histories

    def _build(self, data: list[_Data], per_member: bool) -> None:
        """Check everything before anything changes; build members that wait for their data."""
        shapes = set()
        for i in range(len(self) if per_member else 1):
            with _named(i if per_member else None):
                shapes.add(self.members[i]._pair(*data[i].given)[1].in_shape)
        if len(shapes) > 1:
            raise ValueError(f"all members must take samples of one shape, got {shapes}")
        if self.members[0]._plan is None:
            shared = self.members[0]._plan_for(*shapes) if self._alike else None
            for member in self.members:
                member._build(shared or member._plan_for(*shapes))
            self._join()

    def _data(self, x: Any, y: Any, sample_weight: Any, rows: Any, per_member: bool) -> list[_Data]:
        """What each member is given."""
        count = len(self)
        weights = [None] * count if sample_weight is None or not per_member else sample_weight
        each = {"x": x, "y": y, "sample_weight": weights} if per_member else {}
        for name, value in (each | ({} if rows is None else {"rows": rows})).items():
            if _length(name, value) != count:
                raise ValueError(
                    f"{name} must have an entry for each of {count} members, got {len(value)}"
                )
        given = list(zip(*each.values(), strict=True)) or [(x, y, sample_weight)] * count
        chosen = [None] * count if rows is None else rows
        return [_Data.of(i, *pair) for i, pair in enumerate(zip(given, chosen, strict=True))]

    def _together(
        self,
        work: Callable[[int], None],
        numbers: list[int],
        show: Callable[[], None],
        stop: Callable[[], None],
    ) -> dict[int, BaseException]:
        """Call ``work(i)`` for every number, some at once; what went wrong, by number.

        This thread looks on, hears Ctrl-C, and ``stop``s the others then, or where one fails:
        but for one that diverges, which may be what is looked for.
        """
        queue, gate, errors = iter(numbers), threading.Lock(), dict[int, BaseException]()
        over, ended = threading.Event(), threading.Semaphore(0)

        def end() -> None:
            over.set()
            stop()

        def loop() -> None:
            while not over.is_set():
                with gate:
                    number = next(queue, None)
                if number is None:
                    break
                try:
                    work(number)
                except BaseException as error:
                    errors[number] = error
                    if not isinstance(error, DivergenceError):
                        end()
            ended.release()

        crew = [
            threading.Thread(target=loop, name=f"fastnn-members-{seat}", daemon=True)
            for seat in range(min(_threads.everyone(self.threads), len(numbers)))
        ]
        with Interrupts() as interrupts:
            try:
                for thread in crew:
                    thread.start()
                for _ in crew:  # a join that Ctrl-C interrupts takes the thread for dead
                    while not ended.acquire(timeout=_PERIOD):
                        show()
            finally:
                with interrupts.held():
                    end()
                    for thread in crew:
                        if thread.ident is not None:
                            thread.join()
        return errors

    def _each(self, look: Callable[[int], None], rows: int) -> None:
        """Call ``look(i)`` for every member; in several threads where that is worth their start."""
        plan, numbers = self.members[0].plan, list(range(len(self)))
        if _threads.looking(self.threads, plan, rows * len(self)) == 1:
            for i in numbers:
                with _named(i):
                    look(i)
        else:
            _raise_first(self._together(look, numbers, lambda: None, lambda: None))

    def predict(self, x: Any) -> np.ndarray:
        """What every member says.

        Parameters
        ----------
        x : array (rows, fan_in)
            As in `Network.predict`, the same for all.

        Returns
        -------
        array (n, rows, fan_out), the networks' dtype
            The bits of each member's own `Network.predict`.

        Raises
        ------
        TypeError, ValueError
            Where ``x`` does not fit.
        """
        first = self.members[0].predict(x)
        out = np.empty((len(self), *first.shape), first.dtype)

        def look(i: int) -> None:
            out[i] = self.members[i].predict(x) if i else first

        self._each(look, len(first))
        return out

    def mean_and_std(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the members of what they say.

        Parameters
        ----------
        x : array (rows, fan_in)
            As in `predict`.

        Returns
        -------
        tuple of array (rows, fan_out)
            In the networks' dtype, summed in float64. Where members are far apart, they know
            little of such rows.
        """
        said = self.predict(x)
        mean, std = (f(axis=0, dtype=np.float64).astype(said.dtype) for f in (said.mean, said.std))
        return mean, std

    def evaluate(
        self,
        x: Any,
        y: Any,
        *,
        rows: Sequence[Any] | None = None,
        per_member: bool = False,
        sample_weight: Any = None,
    ) -> dict[str, np.ndarray]:
        """Mean loss and metric of every member.

        Parameters
        ----------
        x, y, rows, per_member, sample_weight
            As in `fit`: ``rows`` may be those that each member has not trained with.

        Returns
        -------
        dict of str to array (n,)
            As in `Network.evaluate`.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit.
        """
        data = self._data(x, y, sample_weight, rows, per_member)
        found: list[dict[str, float]] = [{}] * len(self)

        def look(i: int) -> None:
            features, targets, weights = data[i].taken()
            found[i] = self.members[i].evaluate(features, targets, sample_weight=weights)

        self._each(look, len(data[0].given[0]))
        return {name: np.array([figures[name] for figures in found]) for name in found[0]}

    def best(self, metric: str | None = None, x: Any = None, y: Any = None) -> Network:
        """The member with the best figure.

        Parameters
        ----------
        metric : str, optional
            The figure's name in `histories`, or in `evaluate`: the larger the better for
            accuracies, else the smaller. By default ``val_loss``, or ``loss`` where there is none.
        x, y : array, optional
            Data to judge by; by default the last epoch of each member's training says it.

        Returns
        -------
        Network
            The first of the best; members that have diverged take no part.

        Raises
        ------
        ValueError
            Where no member has trained, or none has such a figure.

        Examples
        --------
        >>> import fastnn as fnn
        >>> x, y = fnn.datasets.xor()
        >>> population = fnn.Population(fnn.Network([fnn.Dense(1)], seed=0), 5)
        >>> histories = population.fit(x, y, epochs=3, verbose=0)
        >>> best = population.best("loss", x, y)
        >>> best.evaluate(x, y)["loss"] == min(population.evaluate(x, y)["loss"].tolist())
        True
        """
        if x is None:
            figures = [{} if past is None else past.last() for past in self.histories]
        else:
            columns = self.evaluate(x, y)
            figures = [{k: v[i] for k, v in columns.items()} for i in range(len(self))]
        known = {name: None for each in figures for name in each}
        if not known:
            raise ValueError("no member has a history to judge by: call fit, or give x and y")
        name = metric or ("val_loss" if "val_loss" in known else "loss")
        sign = Monitor(one_of("metric", name, known), "auto").sign
        able = [i for i, each in enumerate(figures) if name in each]
        return self.members[min(able, key=lambda i: sign * figures[i][name])]


class _Watcher(Silent):
    """Watches the training of one member, and ends it between two slices where it must."""

    def __init__(self) -> None:
        self.share, self.values, self.stop = 0.0, dict[str, float](), False

    def begin(self, training: Progress) -> None:
        """Know how far it is."""
        self.training = training

    def progress(self, values: dict[str, float]) -> None:
        """Take note; a training that is at its end need not be ended."""
        self.share, self.values = self.training.share, values
        if self.stop and self.share < 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        """It may have ended before its last epoch."""
        self.share = self.share if self.stop else 1.0


# -- what members are -------------------------------------------------------------------


def _values(
    network: Network, count: int, vary: Mapping[str, Sequence[Any]] | None
) -> dict[str, Sequence[Any]]:
    """What is varied, checked but for the values themselves; and seeds."""
    if vary is not None and not isinstance(vary, Mapping):
        raise TypeError(f"vary must be a dict of names and values, got {type(vary).__name__}")
    known = ["seed", *(field.name for field in dataclasses.fields(network.optimizer))]
    for number, layer in enumerate(network.layers):
        for name in set(_OPTIONS) & vars(layer).keys():
            known += [name, f"{number}.{name}"]
    for name, values in (vary or {}).items():
        one_of("name in vary", name, set(known))
        got = _length(f"vary[{name!r}]", values)
        if got != count:
            raise ValueError(
                f"vary[{name!r}] must have a value for each of {count} members, got {got}"
            )
    # The network's own streams are spawned from the same seed: this is another child.
    stream = np.random.SeedSequence(network.seed, spawn_key=(1 << 31,))
    seeds = {"seed": stream.generate_state(count, np.uint64).tolist()}
    return seeds | dict(vary or {})


def _like(network: Network, values: Mapping[str, Any], plan: Plan | None) -> Network:
    """A network with the same options but for these values, and weights of its own."""
    optimizer = copy.deepcopy(network.optimizer)
    layers = [copy.deepcopy(layer) for layer in network.layers]
    for name, value in values.items():
        number, _, option = name.rpartition(".")
        if option in _OPTIONS:
            for layer in [layers[int(number)]] if number else layers:
                if option in vars(layer):
                    setattr(layer, option, _checked(layer, option, value))
        elif name != "seed":
            setattr(optimizer, name, value)
    optimizer.check()
    member = Network(
        layers, loss=network._loss, metric=network._metric.name, optimizer=optimizer,
        seed=values["seed"], dtype=network.dtype, backend=network.backend, threads=1,
    )  # fmt: skip
    member._input, member.classes = copy.deepcopy(network._input), copy.copy(network.classes)
    if network._plan is not None:
        member._build(plan or member._plan_for(network._plan.in_shape))
    return member


def _checked(layer: Layer, option: str, value: Any) -> Any:
    """The value as a layer that was made with it has it."""
    names = inspect.signature(type(layer)).parameters
    given = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    return getattr(type(layer)(**given | {option: value}), option)


# -- what they are given, and what goes wrong -------------------------------------------


def _length(name: str, value: Any) -> int:
    """How many entries."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        raise TypeError(f"{name} must be a sequence, got {type(value).__name__}: {value!r:.80}")
    return len(value)


class _Data(NamedTuple):
    """Of one member."""

    given: tuple[Any, Any, Any]  # x, y and the weights of their rows
    rows: np.ndarray | None  # that it takes of them

    @classmethod
    def of(cls, number: int, given: tuple[Any, Any, Any], rows: Any) -> _Data:
        """With numbers of rows that there are."""
        if rows is None:
            return cls(given, None)
        chosen, samples = np.asarray(rows), _length("x", given[0])
        if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
            raise TypeError(
                f"rows[{number}] must be numbers of rows, got {chosen.dtype} {chosen.shape}"
            )
        if not 0 <= chosen.min() <= chosen.max() < samples:
            raise ValueError(
                f"rows[{number}] must lie from 0 to {samples - 1}, "
                f"got {chosen.min()} to {chosen.max()}"
            )
        return cls(given, chosen)

    def taken(self) -> tuple[Any, ...]:
        """The rows: copies, made when they are needed, and not for long."""
        if self.rows is None:
            return self.given
        return tuple(each if each is None else np.asarray(each)[self.rows] for each in self.given)


@contextmanager
def _named(number: int | None) -> Iterator[None]:
    """Errors say which member they are about."""
    try:
        yield
    except Exception as error:
        if number is not None:
            _raise(number, error)
        raise


def _raise(number: int, error: BaseException, others: str = "") -> NoReturn:
    """Raise an error with the member's number in its text, or in a note to it."""
    if type(error) in (TypeError, ValueError, RuntimeError, DivergenceError):
        raise type(error)(f"member {number}: {error}{others}") from error
    error.add_note(f"This was in member {number} of a population.")
    raise error


def _raise_first(errors: Mapping[int, BaseException]) -> None:
    """Raise what went wrong, if anything: rather a mistake than a divergence."""
    real = {i: e for i, e in errors.items() if not isinstance(e, KeyboardInterrupt)} or errors
    diverged = [i for i, e in real.items() if isinstance(e, DivergenceError)]
    for i, error in real.items():
        if i not in diverged:
            _raise(i, error)
    if diverged:
        first, *others = sorted(diverged)
        more = f"; so did members {', '.join(map(str, others))}" if others else ""
        _raise(first, real[first], more)
