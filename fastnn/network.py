"""The network: checks what the user gives, owns the buffers, trains and predicts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastnn import (
    _threads,
    compiled,
    export,
    export_c,
    files,
    lbfgs,
    losses,
    metrics,
    optimizers,
    reference,
    sources,
    training,
)
from fastnn._check import number, one_of, whole
from fastnn.callbacks import Chain, LambdaCallback
from fastnn.kernels._op import LOSS, METRIC, RULE, Buffers, op_of
from fastnn.kernels.gemm import SCRATCH
from fastnn.kernels.optimizers import RULES
from fastnn.layers import Input, Layer
from fastnn.layers import input_shape as sample_shape
from fastnn.plan import Plan
from fastnn.sources import Source
from fastnn.training import History, Reporter, Slice

__all__ = ["Network"]

_BACKENDS: dict[str, ModuleType] = {"compiled": compiled, "numpy": reference}
_DTYPES = ("float32", "float64")
_CLIPS = ("clip_value", "clip_norm", "global_clip_norm")
_BLOCK = 256  # rows that go through the network together where nothing is learnt


class Network:
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
        self.seed = None if seed is None else whole("seed", seed, least=0)
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
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
        self._plan: Plan | None = None
        self._few: compiled.Few | None = None
        self._crew: tuple[Any, _threads.Crew] | None = None
        for layer in chain:
            layer._owner = self
        if shape is not None:
            self._build(shape)

    # -- what the network is ------------------------------------------------

    def _build(self, shape: tuple[int, ...]) -> None:
        """Lay out the plan and draw the initial parameters."""
        plan = Plan(self.layers, shape, self._loss, self._metric)
        params = _aligned(plan.size, self.dtype)
        for parameter in plan.parameters:
            layer, width = self.layers[parameter.layer], plan.widths[parameter.layer]
            initial = layer.initial(parameter.name, self._weights_rng, width)
            parameter.of(params)[...] = initial
        self._plan, self._params, self._few, self._crew = plan, params, None, None
        self._hand_out_views()
        self._reset_optimizer()

    def _hand_out_views(self) -> None:
        """Give every layer its views of the parameters."""
        for parameter in self.plan.parameters:
            view = parameter.of(self._params)
            self.layers[parameter.layer]._views[parameter.name] = view

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: addresses are those of one process."""
        return self.__dict__ | {"_few": None, "_crew": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Join the layers of a copy to its parameters again."""
        self.__dict__.update(state)
        if self._plan is not None:
            self._hand_out_views()

    def _reset_optimizer(self) -> None:
        """Forget velocities, moments and the number of steps."""
        rule, plan = self._optimizer.rule, self.plan
        self._rule = np.zeros(1, RULE).view(np.recarray)
        self._rule.kind = list(RULES).index(rule)
        self._rule.parameters = plan.size
        self._rule.seed = self._noise_seed
        self._state = _aligned(RULES[rule][1] * plan.size, self.dtype)
        self._grads = _aligned(plan.size, self.dtype)
        self._pairs: lbfgs.Pairs = []

    def _follow_optimizer(self) -> None:
        """Take over hyper-parameters that were changed since the last step."""
        if list(RULES)[self._rule.kind[0]] != self._optimizer.rule:
            self._reset_optimizer()  # another update, with another memory
        for name, value in self._optimizer.fields().items():
            self._rule[name] = value
        for name in _CLIPS:
            self._rule[name] = getattr(self._optimizer, name) or 0
        self.plan.follow(self.layers)
        self._grads[...] = 0  # of a layer that is no longer trained nothing must be left

    def _terms(self, rule: np.recarray) -> np.recarray:
        """Penalties, constraints and what limits apply to; empty where there is none of them."""
        terms = self.plan.terms(self.layers)
        weighs = any(terms[name].any() for name in ("l1", "l2", "max_norm", "non_negative"))
        clips = any(rule[name].any() for name in _CLIPS)
        return (terms if weighs or clips else terms[:0]).view(np.recarray)

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Its hyper-parameters may be changed; a new one begins at step 0."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: str | optimizers.Optimizer) -> None:
        self._optimizer = optimizers.get(value)
        if self._plan is not None:
            self._reset_optimizer()

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
        new = np.asarray(value, self.dtype)
        if new.shape != self.params.shape:
            raise ValueError(f"params must have shape {self.params.shape}, got {new.shape}")
        self._params[...] = new

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name: ``"0.weight"``, ``"0.bias"``, ...

        Names are PyTorch's; a weight is (fan_in, fan_out), where PyTorch has (fan_out, fan_in).
        """
        return {p.title: p.of(self.params).copy() for p in self.plan.parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over parameters; all of them or, where something does not fit, none.

        Parameters
        ----------
        state : mapping of str to array
            As `state_dict` gives them.

        Raises
        ------
        TypeError, ValueError
            Where a name is missing or unknown, or an array has another shape.
        """
        wanted = {p.title: p for p in self.plan.parameters}
        missing = [name for name in wanted if name not in state]
        unknown = [name for name in state if name not in wanted]
        if missing or unknown:
            raise ValueError(
                f"the state must have the names {', '.join(wanted)}; "
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
            )
        params = self.params.copy()
        for name, parameter in wanted.items():
            array = np.asarray(state[name])
            if array.shape != parameter.shape:
                raise ValueError(f"{name} must have shape {parameter.shape}, got {array.shape}")
            parameter.of(params)[...] = array
        self.params = params

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write all parameters to a safetensors file, whole or not at all; see `fastnn.files`.

        Examples
        --------
        >>> import tempfile, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save_weights(f"{folder}/net.safetensors")
        ...     twin = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=1)
        ...     twin.load_weights(f"{folder}/net.safetensors")
        >>> bool((net.params == twin.params).all())
        True
        """
        files.write(path, self.state_dict(), {"format": "np", "fastnn_format": "1"})

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Take over the parameters of a file; all of them or, where something is wrong, none.

        Raises
        ------
        FormatError
            Where the file is damaged or not of the safetensors format.
        ValueError
            Where it is another network's.
        """
        self.load_state_dict(files.read(path)[0])

    def export_c(
        self, path: str | os.PathLike[str], *, name: str | None = None, x: Any = None
    ) -> None:
        """Write the network as one header of C99 or C++, which needs ``math.h`` alone.

        ``name_predict(x, out)`` computes one sample. Nothing is allocated, and nothing kept
        between calls. With ``NAME_MAIN`` defined the header is a program that tests itself; its
        first lines say how.

        Parameters
        ----------
        path : str or PathLike
            The header; an old one is replaced.
        name : str, optional
            What every name in it begins with, an identifier; by default the file's.
        x : array (n, fan_in), optional
            Rows of the test; by default three of random normal numbers.

        Raises
        ------
        ValueError
            Where ``name`` is no identifier, or a parameter or an output is not finite.
        AttributeError
            Where the network knows no input shape yet.

        Notes
        -----
        Numbers are written so that every bit comes back. Dense layers that the C compiler gives
        fused multiply-adds (``-O2 -march=native -ffp-contract=fast``) have the bits of `predict`;
        exponentials and their kin are those of ``math.h`` and may differ in the last places.

        Examples
        --------
        >>> import pathlib, tempfile, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(8, "relu"), fnn.Dense(2)], input_shape=(4,), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     header = pathlib.Path(folder, "policy.h")
        ...     net.export_c(header)
        ...     "void policy_predict(const float *x, float *out)" in header.read_text()
        True
        """
        export_c.write_c(self, path, name, x)

    def export_numpy(self, path: str | os.PathLike[str], *, x: Any = None) -> None:
        """Write the network as one Python file that needs numpy alone, with ``predict(x)``.

        Its code is the formulas of the layers, as `fastnn.explain` shows them. As a program it
        tests itself.

        Parameters
        ----------
        path, x
            As in `export_c`, and so are the errors.

        Examples
        --------
        >>> import tempfile, runpy, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(8, "relu"), fnn.Dense(2)], input_shape=(4,), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.export_numpy(f"{folder}/policy.py")
        ...     policy = runpy.run_path(f"{folder}/policy.py")
        >>> x = np.ones((1, 4), np.float32)
        >>> bool(abs(policy["predict"](x) - net.predict(x)).max() < 1e-6)
        True
        """
        export.write_numpy(self, path, x)

    def export_njit(self, path: str | os.PathLike[str], *, x: Any = None) -> None:
        """Write the network as one Python file that needs numpy and numba, with ``predict(x)``.

        Its code is the kernels of the layers; ``predict`` can be called from other compiled code.

        Parameters
        ----------
        path, x
            As in `export_numpy`, and so are the errors.
        """
        export.write_njit(self, path, x)

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
            width = [*plan.widths, plan.fan_out][place + 1]
            lines.append((f"{place} {layer!r}", width, size))
        lines.append(("total", "", plan.size))
        wide = max(len(line[0]) for line in lines)
        texts = [
            f"{name:<{wide}}  {out if isinstance(out, str) else format(out, ','):>6}"
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
        plan = self._plan or Plan(self.layers, np.shape(x)[1:], self._loss, self._metric)
        if len(plan.out_shape) > 1 and np.shape(y)[1:] == plan.out_shape:
            y = np.reshape(y, (len(y), plan.fan_out))
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

    def _buffers(self, capacity: int, threads: int, training: bool) -> Buffers:
        """Buffers for batches of so many rows; parameters and optimizer are shared.

        Threads that train share a batch, those that only look have one each.
        """
        none = np.empty(0, self.dtype)
        batches = 1 if training else threads
        work = _aligned(batches * capacity * self.plan.row_size, self.dtype)
        scratch = _aligned(threads * SCRATCH, self.dtype) if self.backend == "compiled" else none
        if not training:
            return Buffers(self._params, none, work, none, none, scratch)
        grad_work = _aligned(len(work), self.dtype)
        grads = self._grads
        if self.backend == "compiled":
            parts = compiled.parts_of(self.plan)
            grads = _aligned(parts * self.plan.size, self.dtype) if parts > 1 else grads
        return Buffers(self._params, grads, work, grad_work, self._state, scratch)

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
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: dict[int, float] | str | None = None,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float = 0.0,
        callbacks: Any = None,
        verbose: int | str = "auto",
    ) -> History:
        """Train on data; a second call goes on from the first, optimizer state included.

        Parameters
        ----------
        x : array (n, fan_in)
            Real numbers of any dtype, strides and byte order; a memmap may be larger than
            memory. Never changed and never copied whole.
        y : array (n,) or (n, fan_out)
            Class labels, or what the outputs should be.
        epochs : int, default 1
            Passes over the data; with `LBFGS` iterations, fewer where it is done before.
        batch_size : int, optional
            Rows for each update; the last batch holds what is left. By default 32, as in Keras,
            and with `LBFGS` all rows, which takes nothing less.
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
        verbose : {"auto", 0, 1, 2}
            0 silent, 1 a bar, 2 a line for each epoch; "auto" a bar in a terminal, some
            lines elsewhere.

        Returns
        -------
        History
            Loss and metric of every epoch.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit; nothing has changed then.
        DivergenceError
            Where a loss or a parameter is no longer finite.
        """
        epochs = whole("epochs", epochs)
        if batch_size is not None:
            batch_size = whole("batch_size", batch_size)
        self._optimizer.check()
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
        chain = Chain(callbacks, self)
        if number("validation_split", validation_split, least=0, below=1):
            if validation_data is not None:
                raise ValueError("validation_split and validation_data exclude each other")
            x, y, sample_weight, validation_data = _split(x, y, sample_weight, validation_split)
        pair, plan = self._pair(x, y, sample_weight, class_weight)
        self._check_trainable(plan)
        samples = len(pair[0].array)
        batch_size = self._batch_size(batch_size, samples)
        validation = None
        if validation_data is not None:
            validation = _validation(validation_data)
            self._check_validation(validation, plan)
        if self._plan is None:
            self._build(plan.in_shape)
        self._follow_optimizer()
        plan, metric = self.plan, self._metric_op(pair)
        capacity = _capacity(min(batch_size, samples))
        crew = self._crew_for(capacity)
        buffers = self._buffers(capacity, crew.most, training=True)
        engine, terms = self._engine(), self._terms(self._rule)

        def steps(piece: Slice, rates: np.ndarray, scores: np.ndarray) -> int:
            batches = (piece.order, piece.starts, piece.stops, rates, *scores)
            threads, began = crew.threads, time.perf_counter()
            done = engine.train(
                plan, metric, self._rule, terms, pair, buffers, capacity, *batches, threads
            )
            crew.learn(len(piece.starts), time.perf_counter() - began)
            return done

        def train(piece: Slice, scores: np.ndarray) -> int:
            rates = self.optimizer.rates(int(self._rule.step[0]), len(piece.starts))
            return steps(piece, rates, scores)

        take, plateau = train, self._optimizer.plateau
        if plateau is not None:
            chain.members.append(
                LambdaCallback(
                    on_epoch_end=lambda epoch, logs: plateau.epoch_ended(
                        logs.get("val_loss", logs["loss"])
                    )
                )
            )
        if isinstance(self._optimizer, optimizers.LBFGS):
            grads = buffers.grads[: plan.size]
            search = lbfgs.Trainer(
                steps, self._params, grads, self._rule, self._pairs, self._optimizer
            )
            take = search.train
            chain.members.append(search)

        return training.run(
            train=take,
            diverged=lambda finite: self._first_bad(buffers, capacity, finite),
            validate=None if validation is None else lambda: self.evaluate(*validation),
            samples=samples,
            batch_size=batch_size,
            epochs=epochs,
            rng=self._shuffle_rng if shuffle else None,
            metric=self._metric.name if metric else "",
            penalized=bool(terms.l1.any() or terms.l2.any()),
            reporter=Reporter(verbose, epochs),
            callbacks=chain,
        )

    def _check_trainable(self, plan: Plan) -> None:
        """Refuse a plan that has an activation without a gradient."""
        for row in plan.rows:
            op = op_of(row)
            if op.role == "activation" and op.backward is None:
                raise ValueError(
                    f"layer {row.layer}, {self.layers[row.layer]!r}: {op.name} has no gradient "
                    "and can only predict; to train, take sigmoid or another activation"
                )

    def _batch_size(self, asked: int | None, samples: int) -> int:
        """Rows of a batch: what was asked for, or what suits the optimizer."""
        if not isinstance(self._optimizer, optimizers.LBFGS):
            return 32 if asked is None else asked
        if asked is not None and asked < samples:
            raise ValueError(
                f"LBFGS needs all {samples} rows at once: leave batch_size out, got {asked}"
            )
        if any(layer.term("weight")[2:] != (0, False) for layer in self.layers):
            raise ValueError("LBFGS knows no max_norm and no non_negative; leave them out")
        return samples

    def _check_validation(self, validation: tuple[Any, Any], plan: Plan) -> None:
        """Check validation data as x and y are, under their own name."""
        known, self._plan = self._plan, plan
        try:
            self._pair(*validation)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None
        finally:
            self._plan = known

    def _first_bad(self, buffers: Buffers, capacity: int, finite_loss: bool) -> str:
        """Where the first number lies that is not finite, in the order of the computation."""
        if not finite_loss:
            for row in self.plan.rows:
                start = int(row.out) * capacity
                values = buffers.work[start : start + int(row.fan_out) * capacity]
                if row.layer != METRIC and not np.isfinite(values).all():
                    if row.layer == LOSS:
                        break
                    name = op_of(row).name
                    layer = self.layers[row.layer]
                    return f"the output of {name} in layer {row.layer}, {layer!r}, is not finite"
            return "the loss is not finite"
        for parameter in self.plan.parameters:
            if not np.isfinite(parameter.of(self._params)).all():
                layer = self.layers[parameter.layer]
                return f"{parameter.name} of layer {parameter.layer}, {layer!r}, is not finite"
        return "a parameter is not finite"

    def predict(self, x: Any) -> np.ndarray:
        """Output of the network for each row of ``x``.

        Parameters
        ----------
        x : array (n, fan_in)
            As in `fit`.

        Returns
        -------
        array (n, fan_out), the network's dtype
            Or (n, *shape) behind a `Reshape`. A row's bits are the same alone or in any batch.

        Raises
        ------
        TypeError, ValueError
            Where ``x`` does not fit.
        """
        if self._few is not None and type(x) is np.ndarray:
            few = self._few(x)
            if few is not None:
                return few
        plan = self.plan
        source = self._inputs(x, checked=False)  # the engine looks, where the rows are cached
        samples = len(source.array)
        capacity = _capacity(min(_BLOCK, samples))
        out = np.empty((samples, plan.fan_out), self.dtype)
        threads = _threads.looking(self.threads, plan, samples)
        buffers, engine = self._buffers(capacity, threads, training=False), self._engine()
        for rows in _row_slices(samples, plan):
            if not engine.predict(plan, [source], buffers, capacity, rows, out[rows[0] :], threads):
                sources.check_finite("x", source.array, self.dtype)
        if len(plan.out_shape) > 1:
            out = out.reshape(samples, *plan.out_shape)
        plain = (source.scale, source.offset) == (1, 0) and self.backend == "compiled"
        plain = plain and len(plan.in_shape) == len(plan.out_shape) == 1
        plain = plain and type(self.layers[0]).check is Layer.check
        if self._few is None and plain and samples <= compiled.FEW and compiled.LOCKED:
            self._few = compiled.Few(plan, self._params)  # for the next call
        return out

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
        plan = self.plan
        pair, _ = self._pair(x, y, sample_weight)
        metric = self._metric_op(pair)
        samples = len(pair[0].array)
        capacity = _capacity(min(_BLOCK, samples))
        threads = _threads.looking(self.threads, plan, samples)
        buffers, engine = self._buffers(capacity, threads, training=False), self._engine()
        sums = np.zeros(2)
        for order in _row_slices(samples, plan):
            sums += engine.evaluate(plan, metric, pair, buffers, capacity, order, threads)
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

    def _differentiate(
        self, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """The loss as training sees it, penalties included, and its gradients."""
        plan = self.plan
        plan.follow(self.layers)
        pair, _ = self._pair(x, y, sample_weight)
        self._check_trainable(plan)
        samples = len(pair[0].array)
        capacity = _capacity(samples)
        rule = self._rule.copy()
        for name in _CLIPS:
            rule[name] = 0
        terms, order = self._terms(rule), np.arange(samples)
        threads = _threads.training(self.threads, plan, capacity).most
        shared = self._buffers(capacity, threads, training=True)
        buffers = shared._replace(grads=_aligned(plan.size, self.dtype))
        self._engine().gradients(plan, "", rule, terms, pair, buffers, capacity, order, threads)
        result = {p.title: p.of(buffers.grads) for p in plan.parameters}
        result["x"] = buffers.grad_work[: samples * plan.fan_in].reshape(samples, *plan.in_shape)
        ops = plan.for_metric("", len(pair) > 2)
        losses = buffers.work[int(ops[-1].out) * capacity :][:samples]
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
            raise TypeError(f"layers[{place}] must be a layer, got {layer!r}{hint}")
        if isinstance(layer, Input) and place > 0:
            raise ValueError(f"layers[{place}]: an Input can only come first")
        if layer._owner is not None or any(layer is other for other in chain[:place]):
            raise ValueError(f"layers[{place}]: {layer!r} is already part of a network")
    if all(isinstance(layer, Input) for layer in chain):
        raise ValueError("layers must hold at least one Dense or Activation, got none")
    return chain


def _validation(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"validation_data must be (x, y), got {type(value).__name__}")
    return value[0], value[1]


def _split(x: Any, y: Any, sample_weight: Any, share: float) -> tuple[Any, Any, Any, Any]:
    """Rows to train on, their targets and weights, and the last rows to validate with."""
    x, y = np.asarray(x), np.asarray(y)
    rows = len(x) if x.ndim else 0
    kept = rows - int(rows * share)
    if kept == rows or len(y) != rows:
        raise ValueError(
            f"validation_split={share:g} of {rows} rows leaves none to validate with"
            if kept == rows
            else f"x and y must have as many rows, got {rows} and {len(y)}"
        )
    weights = None if sample_weight is None else np.asarray(sample_weight)[:kept]
    return x[:kept], y[:kept], weights, (x[kept:], y[kept:])


def _aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that begin on a cache line."""
    raw = np.zeros(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


def _capacity(rows: int) -> int:
    """Rows of room, a multiple of 16, so that every region begins on a cache line."""
    return -(-rows // 16) * 16


def _row_slices(samples: int, plan: Plan) -> Any:
    """Row numbers in pieces of some tens of milliseconds, so that Ctrl-C is heard."""
    step = max(_BLOCK, (1 << 28) // (plan.size + plan.row_size) // _BLOCK * _BLOCK)
    for start in range(0, samples, step):
        yield np.arange(start, min(start + step, samples))
