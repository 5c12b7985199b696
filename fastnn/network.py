"""The network: checks what the user gives, owns the buffers, trains and predicts."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastnn import (
    _threads,
    compiled,
    desk,
    fitting,
    inside,
    lbfgs,
    losses,
    metrics,
    optimizers,
    reference,
    sources,
    steps,
    training,
)
from fastnn._check import got, one_of, parameter, whole
from fastnn._in_compiled_code import InCompiledCode
from fastnn._in_files import InFiles
from fastnn._turns import Turns
from fastnn.kernels._op import RULE, TERM, Buffers
from fastnn.kernels.gemm import SCRATCH
from fastnn.kernels.noise import key_of
from fastnn.kernels.optimizers import RULES
from fastnn.layers import Input, Layer
from fastnn.layers import input_shape as sample_shape
from fastnn.plan import Plan
from fastnn.schedules import Schedule
from fastnn.sources import Source
from fastnn.training import History, Progress, Training

__all__ = ["Network"]

_BACKENDS: dict[str, ModuleType] = {"compiled": compiled, "numpy": reference}
_DTYPES = ("float32", "float64")
_CLIPS = ("clip_value", "clip_norm", "global_clip_norm")
_SAMPLES = (1 << 64) - 1  # a step that no training reaches: what samples draw is their own
_PIECE = 1 << 31  # multiplications, on one thread, after which Python has its say
_BLOCK = 256  # rows that go through the network together where nothing is learnt


class Network(InFiles, InCompiledCode):
    """A chain of layers with a loss and an optimizer.

    Parameters
    ----------
    layers : sequence of Layer
        `Dense` and `Activation`, an `Input` in front if wanted.
    loss : str or Loss, default "mse"
        Of numbers: ``mse``, ``mae``, ``huber``, ``log_cosh``, ``quantile`` (means over batch
        and outputs), ``quadratic`` (half the sum over the outputs, mean over the batch:
        Nielsen's cost), ``gaussian_nll`` (two outputs for each target: first all the means,
        then all the logarithms of the variances). Of counts: ``poisson`` (the output is the
        rate; exact after an exponential). Of classes: ``cross_entropy`` (class labels or rows
        of probabilities; exact after a softmax), ``kl_divergence`` (the same less what it is at
        best), ``binary_cross_entropy`` (0..1 for each output; exact after a sigmoid), ``hinge``
        (0 and 1 or -1 and 1 for each output, or class labels, one against the rest; a linear
        output says yes above 0). Or an object with options, see `fastnn.losses`.
    metric : str, default "accuracy"
        What is shown beside the loss: ``accuracy`` (where the targets are classes or chances),
        ``top_3_accuracy`` (any number: the true class is among the largest outputs), ``mae``,
        ``mse`` or ``rmse``. More of them, for predictions, are in `fastnn.metrics`.
    optimizer : str or Optimizer, default "adam"
        ``sgd``, ``adagrad``, ``rmsprop``, ``adam``, ``adamw``, ``nadam``, ``lion`` or ``lbfgs``
        with its defaults, or an object with options.
    input_shape : tuple of int, optional
        ``(fan_in,)``, or more sizes in front of a `Flatten`. Without it, and without an
        `Input`, the network is built at the first `fit`, from the data.
    seed : int or None, default None
        Decides initial weights and shuffling; the same seed gives the same bits. None
        draws one.
    dtype : {"float32", "float64"}
        Of parameters and arithmetic; losses and metrics are summed in float64.
    backend : {"compiled", "numpy"}
        Numba kernels, or their numpy references: slow, for reading and debugging.
    threads : int, optional
        Threads of the compiled backend; any number gives the same bits. By default the
        environment variable ``FASTNN_NUM_THREADS``, or as many of the processors this
        process may use as turn out to train fastest: few for small networks.

    Attributes
    ----------
    layers : list of Layer
        Without the `Input`; ``net.layers[0].weight`` is a view of ``params``.
    params : array
        All parameters in one flat buffer, which may be written in place.
    plan : Plan
        The network as a list of ops; ``print(net.plan)`` shows it.
    classes : list or None
        What the outputs stand for, texts or numbers: yours to set, kept in files.
    history : History or None
        Of the last training, also where it was interrupted.
    unfinished : bool
        Whether a training was interrupted that ``fit(..., resume=True)`` can go on with.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not what it must be; the text says what came instead.

    Examples
    --------
    >>> import fastnn as fnn
    >>> x, y = fnn.datasets.xor()
    >>> net = fnn.Network(
    ...     [fnn.Dense(8, "tanh"), fnn.Dense(1, "sigmoid")],
    ...     loss="binary_cross_entropy", optimizer=fnn.Adam(0.1), seed=0,
    ... )
    >>> history = net.fit(x, y, epochs=200, verbose=0)
    >>> net.predict(x).round().ravel()
    array([0., 1., 1., 0.], dtype=float32)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        loss: str | losses.Loss = "mse",
        metric: str = "accuracy",
        optimizer: str | optimizers.Optimizer = "adam",
        input_shape: tuple[int, ...] | None = None,
        seed: int | None = None,
        dtype: str | np.dtype | type = "float32",
        backend: str = "compiled",
        threads: int | None = None,
    ) -> None:
        chain = _chain(layers)
        self._input = chain[0] if isinstance(chain[0], Input) else None
        chain = chain if self._input is None else chain[1:]
        self._loss = losses.get(loss)
        self._metric = metrics.get(metric)
        self._optimizer = optimizers.get(optimizer)
        self.seed = None if seed is None else whole("seed", seed, least=0, most=(1 << 128) - 1)
        name = np.dtype(dtype).name if isinstance(dtype, np.dtype | type) else dtype
        self.dtype = np.dtype(one_of("dtype", name, _DTYPES))
        self.backend = one_of("backend", backend, _BACKENDS)
        self.threads = None if threads is None else whole("threads", threads)
        shape = None if input_shape is None else sample_shape("input_shape", input_shape)
        if self._input is not None:
            if shape not in (None, self._input.shape):
                raise ValueError(f"input_shape must agree with {self._input}, got {shape}")
            shape = self._input.shape
        self.layers = chain
        streams = np.random.SeedSequence(self.seed).spawn(3)
        self._weights_rng, self._shuffle_rng = map(np.random.default_rng, streams[:2])
        self._noise_seed = streams[2].generate_state(1, np.uint64)[0]
        self.classes: list[Any] | None = None
        self._pairs: lbfgs.Pairs = []  # what L-BFGS remembers
        self._plan: Plan | None = None
        self._progress: Progress | None = None  # of the last training
        self.__dict__.update(self._passing())
        for layer in chain:
            layer._owned = True
        if shape is not None:
            self._build(self._plan_for(shape))

    # -- what the network is ------------------------------------------------

    # What belongs to one process and to the moment, and to no copy.
    _few: compiled.Few | None  # the fast road of `predict`
    _desk: desk.Desk | None  # what compiled code finds of the network
    _crew: tuple[Any, _threads.Crew] | None  # threads that train, and what is known about them
    _steps: steps.Steps | None  # what `train_on_batch` needs
    _training: Training | None  # the one that runs
    _turns: Turns  # who may move the parameters, and when

    @staticmethod
    def _passing() -> dict[str, Any]:
        """The moment's attributes, as they are where nothing happens."""
        nothing = dict.fromkeys(("_few", "_desk", "_crew", "_steps", "_training"))
        return nothing | {"_turns": Turns()}

    def _plan_for(self, shape: tuple[int, ...]) -> Plan:
        """The plan for samples of a shape."""
        return Plan(self.layers, shape, self._loss, self._metric)

    def _build(self, plan: Plan) -> None:
        """Take a plan and draw the initial parameters."""
        self._lay_out(plan)
        for place in self.plan.parameters:
            layer, shape = self.layers[place.layer], self.plan.shapes[place.layer]
            initial = layer.initial(place.name, self._weights_rng, shape)
            place.of(self._params)[...] = parameter(place.title, initial, place.shape, self.dtype)

    def _lay_out(self, plan: Plan) -> None:
        """Make room for a plan's parameters."""
        self._params = _aligned(plan.size, self.dtype)
        self._plan, self._few, self._crew = plan, None, None
        self._hand_out_views()
        self._reset_optimizer(self._optimizer)

    def _forget(self, generator: Any) -> None:
        """Undo `_build`."""
        self._plan, self._weights_rng.bit_generator.state = None, generator
        for layer in self.layers:
            layer._views.clear()

    def _hand_out_views(self) -> None:
        """Give every layer its views of the parameters."""
        for place in self.plan.parameters:
            self.layers[place.layer]._views[place.name] = place.of(self._params)

    def _move_to(self, params: np.ndarray) -> None:
        """Keep the parameters in another array of that size from now on."""
        params[...] = self._params
        self._params, self._few, self._crew, self._steps = params, None, None, None
        self._hand_out_views()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: addresses are those of one process."""
        self._turns.refuse_others()
        return self.__dict__ | self._passing()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Join the layers of a copy to it and its parameters again."""
        self.__dict__.update(state)
        for layer in self.layers:
            layer._owned = True
        if self._plan is not None:
            self._hand_out_views()

    def _reset_optimizer(self, optimizer: optimizers.Optimizer) -> None:
        """Forget velocities, moments and the number of steps."""
        plan, rule = self.plan, np.zeros(1, RULE)
        rule["kind"] = list(RULES).index(optimizer.rule)
        rule["parameters"] = plan.size
        rule["seed"] = self._noise_seed
        state = _aligned(RULES[optimizer.rule][1] * plan.size, self.dtype)
        grads = _aligned(plan.size, self.dtype)
        # A rule without its memory would write anywhere: all of this, or none.
        self._optimizer, self._rule, self._state, self._grads = optimizer, rule, state, grads
        self._steps, self._pairs = None, []

    def _settings(self) -> tuple[Any, ...]:
        """All that a user may change between two steps; equal where nothing was changed."""
        rate = self._optimizer.learning_rate
        return (
            *(self._optimizer, *vars(self._optimizer).items()),
            *(vars(rate).items() if isinstance(rate, Schedule) else ()),
            *(self.layers[p.layer].trainable for p in self.plan.parameters),
            *(self.layers[p.layer].term(p.name) for p in self.plan.parameters),
        )

    def _follow_optimizer(self) -> None:
        """Take over hyper-parameters that were changed since the last step."""
        if list(RULES)[self._rule["kind"][0]] != self._optimizer.rule:
            self._reset_optimizer(self._optimizer)  # another update, with another memory
        for name, value in self._optimizer.fields().items():
            self._rule[name] = value
        for name in _CLIPS:
            self._rule[name] = getattr(self._optimizer, name) or 0
        self._follow_average()
        if not all(p.trainable for p in self.plan.parameters):
            self._grads[...] = 0  # of a layer that is no longer trained nothing must be left

    def _follow_average(self) -> None:
        """Begin or end the moving average of the weights, as the optimizer says."""
        before, ema = self.plan.parameters, self._optimizer.ema
        self._plan = self.plan.following(self.layers)
        self._keep_average(ema is not None)
        for old, new in zip(before, self.plan.parameters, strict=True):
            if new.trainable and not old.trainable and self._average is not None:
                new.of(self._average)[...] = new.of(self._params)  # it moves from now on
        self._rule["ema"] = -1 if ema is None else ema
        self._rule["average_at"] = self._rule_memory

    def _keep_average(self, wanted: bool) -> None:
        """Make room for an average behind the moments, or take it away."""
        if wanted != (self._average is not None):
            own = self._rule_memory
            state = _aligned(own + wanted * self.plan.size, self.dtype)
            state[:own], state[own:] = self._state[:own], self._params[: state.size - own]
            self._state, self._steps = state, None

    @property
    def _rule_memory(self) -> int:
        """Numbers of ``_state`` that are the optimizer's own."""
        return list(RULES.values())[self._rule["kind"][0]][1] * self.plan.size

    @property
    def _average(self) -> np.ndarray | None:
        """The moving average of the parameters, if there is one."""
        behind = self._state[self._rule_memory :]
        return behind if behind.size else None

    def _terms(self, rule: np.ndarray) -> np.ndarray:
        """Penalties, constraints and what limits apply to; empty where there is none of them."""
        moving = [p for p in self.plan.parameters if p.trainable]
        weighs = any(any(self.layers[p.layer].term(p.name)) for p in moving)
        needed = weighs or compiled.some(rule, *_CLIPS)
        return self.plan.terms(self.layers) if needed else np.empty(0, TERM)

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Its hyper-parameters may be changed; a new one begins at step 0."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: str | optimizers.Optimizer) -> None:
        self._turns.refuse_others()
        optimizer = optimizers.get(value)
        if self._plan is None:
            self._optimizer = optimizer
        else:
            self._reset_optimizer(optimizer)

    @property
    def plan(self) -> Plan:
        """The network as a list of ops over flat buffers."""
        if self._plan is None:
            raise AttributeError(
                "plan and params exist once the network knows the width of its input: "
                "give Network(..., input_shape=(fan_in,)) or call fit"
            )
        return self._plan

    @property
    def params(self) -> np.ndarray:
        """All parameters, (size,): the buffer itself, which may be written in place."""
        return self._params if self.plan else np.empty(0)

    @params.setter
    def params(self, value: Any) -> None:
        new = parameter("params", value, self.params.shape, self.dtype)
        self._turns.refuse_others()
        with self._turns.moving():
            self._params[...] = new

    @property
    def history(self) -> History | None:
        """Of the last training."""
        return None if self._progress is None else self._progress.history

    @property
    def unfinished(self) -> bool:
        """Whether a training was interrupted."""
        return self._progress is not None and self._progress.unfinished

    def summary(self) -> None:
        """Print the layers with their output widths and numbers of parameters.

        Examples
        --------
        >>> import fastnn as fnn
        >>> fnn.Network([fnn.Dense(3, "relu"), fnn.Dense(1)], input_shape=(2,)).summary()
        layer               output  parameters
        Input((2,))              2           0
        0 Dense(3, 'relu')       3           9
        1 Dense(1)               1           4
        total                               13  (52 bytes of float32)
        """
        plan = self.plan
        lines = [("layer", "output", "parameters"), (f"Input({plan.in_shape})", plan.fan_in, 0)]
        if self._input is not None:
            lines[1] = (repr(self._input), plan.fan_in, 0)
        for place, layer in enumerate(self.layers):
            size = sum(p.size for p in plan.parameters if p.layer == place)
            shape = [*plan.shapes, plan.out_shape][place + 1]
            lines.append((f"{place} {layer!r}", shape[0] if len(shape) == 1 else str(shape), size))
        lines.append(("total", "", plan.size))
        wide = max(len(line[0]) for line in lines)
        broad = max(6, *(len(str(line[1])) for line in lines))
        texts = [
            f"{name:<{wide}}  {out if isinstance(out, str) else format(out, ','):>{broad}}"
            f"  {size if isinstance(size, str) else format(size, ','):>10}"
            for name, out, size in lines
        ]
        bytes_ = plan.size * self.dtype.itemsize
        print("\n".join(texts) + f"  ({bytes_:,} bytes of {self.dtype})")

    def __repr__(self) -> str:
        size = "" if self._plan is None else f", {self.plan.size:,} parameters"
        layers = ", ".join(map(repr, self.layers))
        return f"Network([{layers}], loss={self._loss!r}{size}, {self.dtype})"

    # -- what goes in -------------------------------------------------------

    def _inputs(self, x: Any, checked: bool = True) -> Source:
        shape = None if self._plan is None else self._plan.in_shape
        scale, offset = (self._input.scale, self._input.offset) if self._input else (1.0, 0.0)
        source = sources.inputs(x, self.dtype, shape, scale, offset, checked=checked)
        self.layers[0].check(source.array)
        return source

    def _pair(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> tuple[list[Source], Plan]:
        """Check what is given before anything changes; build nothing that it does not allow."""
        first = self._inputs(x)
        plan = self._plan or self._plan_for(np.shape(x)[1:])
        if len(plan.out_shape) > 1:
            y = sources.rows_of("y", y)
            y = y.reshape(len(y), -1) if y.shape[1:] == plan.out_shape else y
        second = sources.targets(
            y, self.dtype, len(first.array), plan.fan_out, plan.target, self._loss
        )
        third = sources.weights(sample_weight, class_weight, second, self.dtype, plan.sample_weight)
        return [first, second] if third is None else [first, second, third], plan

    def _metric_op(self, pair: list[Source]) -> str:
        """Op of the metric for these targets: labels can always be counted."""
        if self._metric.op:
            return self._metric.op
        if pair[1].kernel == "gather_labels":
            return "categorical_accuracy"
        return self.plan.loss.metric

    def _training_buffers(self, capacity: int, threads: int) -> Buffers:
        """Buffers for batches of so many rows; parameters and optimizer are shared."""
        work, grad_work = (_aligned(capacity * self.plan.row_size, self.dtype) for _ in range(2))
        grads = self._grads
        if self.backend == "compiled":
            parts = compiled.parts_of(self.plan)
            grads = _aligned(parts * self.plan.size, self.dtype) if parts > 1 else grads
        scratch = self._scratch(threads)
        return Buffers(self._params, grads, work, grad_work, self._state, scratch)

    def _looking_buffers(self, params: np.ndarray, capacity: int, threads: int) -> Buffers:
        """Buffers for each of so many threads, that only look."""
        none = np.empty(0, self.dtype)
        work = _aligned(threads * capacity * self.plan.row_size, self.dtype, np.empty)
        return Buffers(params, none, work, none, none, self._scratch(threads))

    def _scratch(self, threads: int) -> np.ndarray:
        """What products of the compiled backend need."""
        size = threads * SCRATCH if self.backend == "compiled" else 0
        return _aligned(size, self.dtype, np.empty)

    def _crew_for(self, capacity: int) -> _threads.Crew:
        """Who trains; what was found out by an earlier `fit` of such batches is not forgotten."""
        key = (self.threads, _threads.asked(), capacity)
        if self._crew is None or self._crew[0] != key:
            self._crew = key, _threads.training(self.threads, self.plan, capacity)
        return self._crew[1]

    def _engine(self) -> ModuleType:
        return _BACKENDS[self.backend]

    # -- what it does -------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        initial_epoch: int = 0,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: dict[int, float] | str | None = None,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float = 0.0,
        callbacks: Any = None,
        resume: bool | str | os.PathLike[str] = False,
        rollback: bool = False,
        verbose: int | str = "auto",
    ) -> History:
        """Train on data; a second call goes on from the first, optimizer state included.

        Parameters
        ----------
        x : array (n, fan_in)
            Real numbers of any dtype, strides and byte order; a memmap may be larger than
            memory. Never changed and never copied whole. Or, without ``y``, an iterable of
            batches ``(x, y)`` or ``(x, y, sample_weight)``, a step each.
        y : array (n,) or (n, fan_out)
            Class labels, or what the outputs should be.
        epochs : int, optional
            The number at which the training ends, by default 1: passes over the data; with
            `LBFGS` iterations, fewer where it is done before.
        initial_epoch : int, default 0
            The number of the first epoch, as in Keras: ``epochs - initial_epoch`` are trained.
        batch_size : int, optional
            Rows for each update; the last batch holds what is left. By default 32, as in Keras,
            and with `LBFGS` all rows, which takes nothing less.
        steps_per_epoch : int, optional
            Where batches come one by one, how many make an epoch; by default all of them. An
            iterator that ends with its first epoch can serve no second one.
        shuffle : bool, default True
            A fresh permutation of the rows for each epoch, from the network's seed.
        sample_weight : array (n,), optional
            What each row's loss counts, at least 0: the loss of a batch is the sum of weight
            times loss over its rows, divided by their number, as in Keras. Metrics count
            every row alike.
        class_weight : dict of int to float, or "balanced", optional
            Likewise for each class, times ``sample_weight``; classes left out count 1.
            "balanced" takes rows / (classes * rows of the class), as scikit-learn does.
        validation_data : (x, y), optional
            Evaluated after every epoch.
        validation_split : float, default 0
            Share of the rows, the last ones, that are not trained on but evaluated after every
            epoch, from 0 to below 1; instead of ``validation_data``.
        callbacks : list of Callback or callable, optional
            See `fastnn.callbacks`; a function is called as ``f(epoch, logs)`` after each epoch.
        resume : bool or path, default False
            Go on with the training that was interrupted, True for the one of this network, or the
            one in a file that `save` or a `Checkpoint` has written: the end is, byte for byte,
            what it would have been without the interruption, also in the middle of an epoch, in
            another process or with another number of threads. Data, batch size, shuffling and
            callbacks must be the same.
        rollback : bool, default False
            Whether a training that diverges leaves the network as it was before the slice (some
            30 ms) in which it did; ``resume=True`` then goes on from there. The price, each
            slice: two copies of the parameters and the optimizer's memory, and one more step, by
            which a slice is known to end well.
        verbose : {"auto", 0, 1, 2}
            0 silent; 1 a bar, by tqdm (the extra ``progress``); 2 a line for each epoch. "auto"
            is a bar in terminals and notebooks, without tqdm lines, at most ten a second;
            elsewhere a line for about every tenth of the training.

        Returns
        -------
        History
            Loss and metric of every epoch.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit; nothing has changed then.
        ImportError
            Where ``verbose=1`` asks for a bar, without tqdm.
        FormatError, OSError
            Where the file to go on from cannot be read.
        RuntimeError
            Where the network is being fitted already, by another thread or by its own callback.
        DivergenceError
            Where a loss or a parameter is no longer finite.
        KeyboardInterrupt
            After Ctrl-C, between two slices: the network can be used, and go on.
        """
        return fitting.fit(
            self,
            x,
            y,
            epochs=epochs,
            initial_epoch=initial_epoch,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            callbacks=callbacks,
            resume=resume,
            rollback=rollback,
            verbose=verbose,
        )

    def averaged(self) -> Network:
        """A copy whose weights are the moving average that the optimizer's ``ema`` asks for.

        What training does not move by gradients, as the running means of `BatchNorm`, is as it is
        here. The copy's optimizer begins anew.

        Returns
        -------
        Network

        Raises
        ------
        ValueError
            Where there is no average.
        RuntimeError
            Where another thread fits the network.

        Examples
        --------
        >>> import fastnn as fnn
        >>> x, y = fnn.datasets.xor()
        >>> net = fnn.Network([fnn.Dense(1)], optimizer=fnn.Adam(0.01, ema=0.999), seed=0)
        >>> history = net.fit(x, y, epochs=20, verbose=0)
        >>> net.averaged().evaluate(x, y)["loss"] < history.history["loss"][0]
        True
        """
        average = None if self._plan is None else self._average
        if average is None:
            raise ValueError(
                "there is no average of the weights: give the optimizer ema=0.999, say, and call "
                "fit"
            )
        self._turns.refuse_others()
        self._turns.refuse_halves()
        twin = copy.deepcopy(self)
        for array in twin.plan.parameters:
            if array.trainable:
                array.of(twin._params)[...] = array.of(average)
        twin._reset_optimizer(twin._optimizer)
        twin._progress = None
        return twin

    def partial_fit(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | str | None = None,
    ) -> Network:
        """Train for one epoch without a word, as scikit-learn names it; the optimizer goes on.

        Parameters
        ----------
        x, y, batch_size, sample_weight, class_weight
            As in `fit`.

        Returns
        -------
        Network
            This one.
        """
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        self.fit(x, y, batch_size=batch_size, verbose=0, **weights)
        return self

    def train_on_batch(
        self,
        x: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
    ) -> dict[str, float]:
        """Take one step, all rows in one batch; the optimizer goes on.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            As in `fit`.

        Returns
        -------
        dict of str to float
            Loss and metric before the step.

        Raises
        ------
        TypeError, ValueError, RuntimeError, DivergenceError
            As in `fit`.

        Examples
        --------
        >>> import fastnn as fnn
        >>> x, y = fnn.datasets.xor()
        >>> net = fnn.Network([fnn.Dense(1)], seed=0)
        >>> net.train_on_batch(x, y)["loss"] > net.train_on_batch(x, y)["loss"]
        True
        """
        return fitting.train_on_batch(self, x, y, sample_weight, class_weight)

    def _become(self, other: Network) -> None:
        """Take over everything from a network of the same architecture that is given up."""
        if self._plan is None:
            self._lay_out(self._plan_for(other.plan.in_shape))
        self.params = other._params
        self._crew = self._steps = None
        for name in ("seed", "classes", "_optimizer", "_rule", "_state", "_grads", "_pairs",
                     "_shuffle_rng", "_noise_seed", "_progress"):  # fmt: skip
            setattr(self, name, getattr(other, name))

    def predict(self, x: Any, samples: int | None = None) -> np.ndarray:
        """Output of the network for each row of ``x``.

        Parameters
        ----------
        x : array (n, fan_in)
            As in `fit`.
        samples : int, optional
            So many predictions for each row with `Dropout` and `GaussianNoise` at work as in
            training (`BatchNorm` takes its running means): how far they lie apart says how little
            the network knows. They depend on the network's seed, parameters and ``x`` alone:
            the same call gives the same bits, and the first of 100 samples are those of 50.

        Returns
        -------
        array (n, fan_out), the network's dtype
            Or (n, *shape) behind a `Reshape`. A row's bits are the same alone or in any batch.
            With ``samples`` an array (samples, n, fan_out), where a row's place decides what is
            dropped.

        Raises
        ------
        TypeError, ValueError
            Where ``x`` does not fit, or where nothing in the network is random.

        Notes
        -----
        Samples: Gal and Ghahramani (2016), "Dropout as a Bayesian approximation: representing
        model uncertainty in deep learning", ICML.

        Examples
        --------
        >>> import fastnn as fnn
        >>> layers = [fnn.Dense(16, "relu"), fnn.Dropout(0.2), fnn.Dense(1)]
        >>> net = fnn.Network(layers, input_shape=(2,), seed=0)
        >>> net.predict([[1.0, 2.0]], samples=50).std(axis=0).shape
        (1, 1)
        """
        version = self._turns.version
        if self._few is not None and samples is None and type(x) is np.ndarray:
            few = self._few(x)
            if few is not None and self._turns.version == version and version % 2 == 0:
                return few
        if samples is not None:
            first = key_of(self._noise_seed, _SAMPLES)
            keys = [key_of(first, i) >> 1 for i in range(whole("samples", samples))]
            return self._outputs(self._inputs(x, checked=False), self.plan.noisy(), keys)
        plan = self.plan
        source = self._inputs(x, checked=False)  # the engine looks, where the rows are cached
        out = self._outputs(source, plan)
        plain = (source.scale, source.offset) == (1, 0) and self.backend == "compiled"
        plain = plain and len(plan.in_shape) == len(plan.out_shape) == 1
        plain = plain and type(self.layers[0]).check is Layer.check
        if self._few is None and plain and len(out) <= compiled.FEW and compiled.LOCKED:
            self._few = compiled.Few(plan, self._params)  # for the next call
        return out

    def _outputs(self, source: Source, plan: Plan, keys: Sequence[int] = ()) -> np.ndarray:
        """What the network says, (n, *out_shape); for each key of what is random, if there are."""
        samples = len(source.array)
        shape = (len(keys), samples) if keys else (samples,)
        capacity = steps.capacity_of(min(_BLOCK, samples))
        threads, engine = _threads.looking(self.threads, plan, samples), self._engine()

        def look(params: np.ndarray) -> np.ndarray:
            out = np.empty((*shape, plan.fan_out), self.dtype)
            room = self._looking_buffers(params, capacity, threads)
            for said, key in zip(out if keys else [out], keys or [0], strict=True):
                # What is drawn depends on where a piece begins: threads must not move that.
                for rows in _row_slices(samples, plan, 1 if keys else threads):
                    own = key and key_of(key, rows[0]) >> 1  # an int64, like the key
                    part = said[rows[0] :]
                    if not engine.predict(plan, [source], room, capacity, rows, part, threads, own):
                        sources.check_finite("x", source.array, self.dtype)
            return out

        out = self._turns.steadily(look, self._params)
        return out if len(plan.out_shape) == 1 else out.reshape(*shape, *plan.out_shape)

    def evaluate(self, x: Any, y: Any, *, sample_weight: Any = None) -> dict[str, float]:
        """Mean loss and metric over data, without learning from them.

        Parameters
        ----------
        x, y, sample_weight : array
            As in `fit`. Penalties are not part of the loss.

        Returns
        -------
        dict of str to float
            ``loss``, and the metric: ``accuracy`` where the targets are classes.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit.
        """
        return self._figures(*self._looks(x, y, sample_weight))

    def _looks(self, x: Any, y: Any, sample_weight: Any = None) -> tuple[list[Source], Buffers]:
        """What `_figures` needs: checked data, and room."""
        pair, _ = self._pair(x, y, sample_weight)
        samples = len(pair[0].array)
        threads = _threads.looking(self.threads, self.plan, samples)
        capacity = steps.capacity_of(min(_BLOCK, samples))
        return pair, self._looking_buffers(self._params, capacity, threads)

    def _figures(self, pair: list[Source], room: Buffers) -> dict[str, float]:
        """Mean loss and metric."""
        plan, metric, samples = self.plan, self._metric_op(pair), len(pair[0].array)
        capacity = steps.capacity_of(min(_BLOCK, samples))
        threads, engine = len(room.work) // (capacity * plan.row_size), self._engine()

        def look(params: np.ndarray) -> np.ndarray:
            sums, buffers = np.zeros(2), room._replace(params=params)
            for order in _row_slices(samples, plan, threads):
                sums += engine.evaluate(plan, metric, pair, buffers, capacity, order, threads)
            return sums

        sums = self._turns.steadily(look, self._params)
        names = ["loss", self._metric.name] if metric else ["loss"]
        return {
            name: float(training.figure(name, total, samples))
            for name, total in zip(names, sums, strict=False)
        }

    def gradients(self, x: Any, y: Any, *, sample_weight: Any = None) -> dict[str, np.ndarray]:
        """Derivatives of the mean loss of one batch and of the penalties; nothing is changed.

        What is random in training is so here, as in the next step of `fit`.

        Parameters
        ----------
        x, y, sample_weight : array
            As in `fit`; all rows are one batch.

        Returns
        -------
        dict of str to array
            ``"0.weight"``, ``"0.bias"``, ... in the shapes of the parameters, and ``"x"``
            (n, fan_in): with respect to what the network saw, after an `Input`'s scale. Zeros
            where a layer is not trainable.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit.
        """
        return self._differentiate(x, y, sample_weight)[1]

    def activations(self, x: Any) -> dict[str, np.ndarray]:
        """What every layer makes of the rows of ``x``, as `predict` sees them.

        Dropout and noise are at rest, `BatchNorm` takes its running means.

        Parameters
        ----------
        x : array (n, fan_in)
            As in `fit`; all rows are one batch, whose outputs are all kept.

        Returns
        -------
        dict of str to array
            ``"x"`` (n, fan_in), what the network saw, after an `Input`'s scale. Then by number
            of the layer and name of the operation, in the order of the layers:
            ``"0.dense"`` (n, units), the sum before the activation, ``"0.relu"`` (n, units),
            ``"1.dropout"``, ``"2.flatten"``, ... The last is what `predict` returns. Copies, in
            the network's dtype.

        Raises
        ------
        TypeError, ValueError
            Where ``x`` does not fit.

        Examples
        --------
        >>> import fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2, "relu"), fnn.Dense(1)], input_shape=(2,), seed=0)
        >>> net.layers[0].weight = [[1, -1], [1, -1]]
        >>> seen = net.activations([[1.0, 2.0]])
        >>> list(seen)
        ['x', '0.dense', '0.relu', '1.dense']
        >>> seen["0.dense"], seen["0.relu"]
        (array([[ 3., -3.]], dtype=float32), array([[3., 0.]], dtype=float32))
        """
        return inside.activations(self, x)

    def step_through(self, x: Any, y: Any, *, sample_weight: Any = None) -> Iterator[inside.Moment]:
        """One step of training in slow motion, by the numpy formulas; nothing is changed.

        Forward, backward, gradients, and the update that `fit` would make of the same rows in
        one batch, on a copy of the network. (`LBFGS` has no update that is a formula.)

        Parameters
        ----------
        x, y, sample_weight : array
            As in `fit`; all rows are one batch.

        Yields
        ------
        Moment
            ``phase``, ``layer``, ``name``, ``formula``, and copies of the arrays that the
            operation ``reads`` and ``writes``, by name; ``print`` shows them all. What is written
            in the phase ``"gradient"`` is what `gradients` gives.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit, before the first is asked for.

        Examples
        --------
        >>> import fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(1)], optimizer="sgd", input_shape=(2,), seed=0)
        >>> net.layers[0].weight = [[1], [2]]
        >>> for moment in net.step_through([[1.0, 1.0]], [[5.0]]):
        ...     if moment.name in ("dense", "mse"):
        ...         print(moment)
        forward, 0 dense: out = x @ weight + bias
            reads   x            1x2  [[1 1]]
                    weight       2x1  [[1] [2]]
                    bias           1  [0]
            writes  out          1x1  [[3]]
        forward, loss mse: out = mean of (x - target)**2
            reads   x            1x1  [[3]]
                    target       1x1  [[5]]
            writes  out            1  [4]
        backward, loss mse: grad_x = 2 (x - target) * grad_out / n
            reads   x              1x1  [[3]]
                    target         1x1  [[5]]
                    grad_out         1  [1]
            writes  grad_x         1x1  [[-4]]
        backward, 0 dense: grad_x = grad_out @ weight.T
            reads   grad_out       1x1  [[-4]]
                    weight         2x1  [[1] [2]]
            writes  grad_x         1x2  [[-4 -8]]
        gradient, 0 dense: grad_weight = x.T @ grad_out and grad_bias = sum of grad_out, over
            the batch
            reads   grad_out          1x1  [[-4]]
                    x                 1x2  [[1 1]]
            writes  grad_weight       2x1  [[-4] [-4]]
                    grad_bias           1  [-4]
        """
        return inside.step_through(self, x, y, sample_weight)

    def _differentiate(
        self, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss as training sees it, penalties included, and its gradients."""
        self._plan = plan = self.plan.following(self.layers)
        pair, _ = self._pair(x, y, sample_weight)
        fitting.check_trainable(self, plan)
        samples = len(pair[0].array)
        capacity = steps.capacity_of(samples)
        rule = self._rule.copy()
        for name in _CLIPS:
            rule[name] = 0
        terms, order = self._terms(rule), np.arange(samples)
        threads = _threads.training(self.threads, plan, capacity).most
        shared = self._training_buffers(capacity, threads)
        engine = self._engine()

        def look(params: np.ndarray) -> Buffers:
            grads = _aligned(plan.size, self.dtype)
            buffers = shared._replace(params=params, grads=grads)
            engine.gradients(plan, "", rule, terms, pair, buffers, capacity, order, threads)
            return buffers

        buffers = self._turns.steadily(look, self._params)
        result = {p.title: p.of(buffers.grads) for p in plan.parameters}
        result["x"] = buffers.grad_work[: samples * plan.fan_in].reshape(samples, *plan.in_shape)
        ops = plan.for_metric("", len(pair) > 2)
        losses = buffers.work[ops[-1].out * capacity :][:samples]
        loss = losses.mean(dtype=np.float64) + reference.penalty(terms, buffers)
        return float(loss), result


def _chain(layers: Any) -> list[Layer]:
    """The layers, each once, an Input only in front, something to compute behind it."""
    if isinstance(layers, Layer) or not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a list of layers, got {type(layers).__name__}")
    chain = list(layers)
    for place, layer in enumerate(chain):
        if not isinstance(layer, Layer):
            hint = f"; write {layer.__name__}(...)" if isinstance(layer, type) else ""
            raise TypeError(f"layers[{place}] must be a layer, {got(layer)}{hint}")
        if isinstance(layer, Input) and place > 0:
            raise ValueError(f"layers[{place}]: an Input can only come first")
        if layer._owned or any(layer is other for other in chain[:place]):
            raise ValueError(f"layers[{place}]: {layer!r} is already part of a network")
    if all(isinstance(layer, Input) for layer in chain):
        raise ValueError("layers must hold at least one Dense or Activation, got none")
    return chain


def _aligned(size: int, dtype: np.dtype, made: Callable = np.zeros) -> np.ndarray:
    """Zeros that begin on a cache line; with `numpy.empty` anything.

    Fresh zeros are memory that the system has to make ready, page by page, at every call.
    """
    raw = made(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


def _row_slices(samples: int, plan: Plan, threads: int) -> Any:
    """Row numbers in pieces of some tens of milliseconds, so that Ctrl-C is heard."""
    blocks = _PIECE // ((plan.products + plan.row_size) * _BLOCK)  # that one thread does in a piece
    step = max(1, blocks) * threads * _BLOCK
    for start in range(0, samples, step):
        yield np.arange(start, min(start + step, samples))
