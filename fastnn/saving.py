"""Whole networks in files: architecture, parameters, optimizer, and a training under way.

A file is a safetensors file (`fastnn.files`) whose metadata hold two texts of JSON, ``network`` and
``training``, and whose arrays are the parameters under PyTorch's names (``0.weight``), the
optimizer's memory and the history. Whatever reads safetensors can read the parameters.

Files are data and nothing else: a class is looked up in a closed table and made by its own
constructor, which checks what it is given; sizes are compared with what the architecture needs
before anything is allocated. All that is wrong with a file is a `FormatError`.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import (
    files,
    images,
    layers,
    losses,
    noise,
    normalization,
    optimizers,
    schedules,
    shapes,
)
from fastnn.files import FormatError
from fastnn.layers import Input, Layer
from fastnn.losses import Loss
from fastnn.optimizers import Optimizer
from fastnn.schedules import Schedule
from fastnn.training import History, Progress

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["CLASSES", "architecture", "load", "save"]

VERSION = "1"  # of the format
LAYERS, LARGEST = 10_000, 1 << 31  # limits of what a file may describe
MEMORY, STEPS, CHANGES = "optimizer.memory", "optimizer.steps", "optimizer.changes"
SCORES = "training.scores"

CLASSES: dict[str, type] = {
    name: kind
    for module in (images, layers, noise, normalization, shapes, losses, optimizers, schedules)
    for name, kind in vars(module).items()
    if name in module.__all__ and not inspect.isabstract(kind) and kind is not Layer
}


# -- describing -------------------------------------------------------------------------


def describe(value: Any) -> dict[str, Any]:
    """A layer, loss, optimizer or schedule as its class and the arguments that make it again.

    Initializers are left out: what they had to do is done.

    Raises
    ------
    TypeError
        For objects of classes that are not fastnn's own.

    Examples
    --------
    >>> describe(schedules.Constant(0.1))
    {'class': 'Constant', 'learning_rate': 0.1}
    """
    kind = type(value).__name__
    if CLASSES.get(kind) is not type(value):
        raise TypeError(
            f"{kind} is a class of your own, which no file can hold; "
            "save_weights writes the parameters alone"
        )
    result: dict[str, Any] = {"class": kind}
    for name in inspect.signature(type(value)).parameters:
        if not name.endswith("_initializer"):
            part = getattr(value, name)
            known = isinstance(part, Layer | Loss | Schedule)
            result[name] = describe(part) if known else part
    if isinstance(value, schedules.ReduceOnPlateau):
        result["memory"] = value.memory
    return result


def build(text: Any, wanted: type) -> Any:
    """What `describe` has described.

    Raises
    ------
    FormatError
        For anything that is not exactly that.
    """
    if not isinstance(text, dict) or not isinstance(text.get("class"), str):
        raise FormatError(f"a {wanted.__name__} must be described by its class, got {text!r:.80}")
    options = dict(text)
    kind = CLASSES.get(options.pop("class"))
    if kind is None or not issubclass(kind, wanted):
        raise FormatError(f"{text['class'][:80]!r} is no {wanted.__name__} that fastnn knows")
    memory = options.pop("memory", None) if kind is schedules.ReduceOnPlateau else None
    known = {n for n in inspect.signature(kind).parameters if not n.endswith("_initializer")}
    if set(options) != known:
        raise FormatError(
            f"{kind.__name__} must have {', '.join(sorted(known)) or 'nothing'}, "
            f"got {', '.join(map(repr, sorted(options))):.80}"
        )
    for name, value in options.items():
        if isinstance(value, dict):
            options[name] = build(value, layers.Activation if name == "activation" else Schedule)
        elif isinstance(value, list):
            value = options[name] = tuple(value)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) >= LARGEST:
                raise FormatError(f"{name} of {kind.__name__} must be below 2**31, got {number}")
    try:
        made = kind(**options)
        if isinstance(made, schedules.ReduceOnPlateau) and memory is not None:
            made.memory = memory
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{kind.__name__}: {error}") from None
    return made


def architecture(network: Network) -> dict[str, Any]:
    """What two networks must share for one to take over the other's parameters."""
    chain = network.layers if network._input is None else [network._input, *network.layers]
    return {
        "layers": [describe(layer) for layer in chain],
        "input_shape": None if network._plan is None else list(network.plan.in_shape),
        "loss": describe(network._loss),
        "metric": network._metric.name,
        "dtype": network.dtype.name,
    }


# -- writing ----------------------------------------------------------------------------


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network; see `Network.save`."""
    arrays = network.state_dict()
    about = architecture(network) | {
        "optimizer": describe(network._optimizer),
        "seed": network.seed,
        "classes": _classes(network.classes),
        "step": int(network._rule["step"][0]),
        "noise_seed": str(network._noise_seed),
        "generator": _generator(network._shuffle_rng.bit_generator.state),
    }
    if network._state.size:
        arrays[MEMORY] = network._state.reshape(-1, network.plan.size)
    if network._pairs:
        arrays[STEPS], arrays[CHANGES] = map(np.stack, zip(*network._pairs, strict=True))
    metadata = {"format": "np", "fastnn_format": VERSION, "network": _text(about)}
    if network._training is not None:
        network._training.settle()
    if network._progress is not None:
        metadata["training"] = _text(_progress(network._progress, arrays))
    files.write(path, arrays, metadata)


def _classes(value: Any) -> list[Any] | None:
    """What outputs stand for, as JSON has it."""
    if value is None:
        return None
    plain = [each.item() if isinstance(each, np.generic) else each for each in value]
    if not all(isinstance(each, str | int | float) for each in plain):
        raise TypeError(f"classes must be texts or numbers, got {value!r:.80}")
    return plain


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _generator(state: Mapping[str, Any]) -> list[str]:
    """State of a PCG64 generator: numbers that JSON's readers elsewhere would round."""
    numbers = (*state["state"].values(), state["has_uint32"], state["uinteger"])
    return [str(number) for number in numbers]


def _progress(progress: Progress, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A training as JSON; what is long goes to ``arrays``."""
    for name, values in progress.history.history.items():
        arrays[f"history.{name}"] = np.array(values, np.float64)
    if progress.scores:
        arrays[SCORES] = np.concatenate(progress.scores, axis=1)
    states = None
    if progress.callbacks is not None:
        states = [
            {"kind": kind, "state": _state(kind, f"callbacks.{i}.", state, arrays)}
            for i, (kind, state) in enumerate(progress.callbacks)
        ]
    plain = {name: getattr(progress, name) for name in _PLAIN}
    return plain | {
        "generator": _generator(progress.generator),
        "first_epoch": progress.history.epoch[0] if progress.history.epoch else 0,
        "figures": list(progress.history.history),
        "callbacks": states,
    }


_PLAIN: dict[str, type] = {
    "epochs": int, "batch_size": int, "shuffle": bool, "samples": int, "epoch": int, "batch": int,
    "rows": int, "over": bool, "told": int, "stopped": bool, "ended": bool,
    "data": str,
}  # fmt: skip


def _state(
    kind: str, prefix: str, state: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """A callback's memory as JSON; numbers with fractions, which may be infinite, are arrays."""
    plain = {}
    for name, value in state.items():
        if isinstance(value, float | np.ndarray) and not isinstance(value, np.generic):
            arrays[prefix + name] = np.asarray(value)
        else:
            plain[name] = value
    try:
        _text(plain)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"state() of {kind} must hold numbers, texts, lists of them and arrays: {error}"
        ) from None
    return plain


# -- reading ----------------------------------------------------------------------------


def load(path: str | os.PathLike[str], **options: Any) -> Network:
    """Read a whole network from a file that `Network.save` has written.

    Parameters
    ----------
    path : str or PathLike
        The file.
    **options
        ``backend`` and ``threads`` of `Network`, which are no part of a file.

    Returns
    -------
    Network
        With parameters, optimizer and its memory, and the training that was under way, which
        ``fit(..., resume=True)`` goes on with.

    Raises
    ------
    FormatError
        Where the file is damaged or holds no network. Nothing in it is executed.
    OSError
        Where the system cannot read.

    Examples
    --------
    >>> import tempfile, fastnn as fnn
    >>> net = fnn.Network([fnn.Dense(2, "relu"), fnn.Dense(1)], input_shape=(3,), seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(f"{folder}/net.safetensors")
    ...     twin = fnn.load(f"{folder}/net.safetensors")
    >>> twin
    Network([Dense(2, 'relu'), Dense(1)], loss='mse', 11 parameters, float32)
    >>> bool((twin.predict([[1, 2, 3]]) == net.predict([[1, 2, 3]])).all())
    True
    """
    arrays, metadata = files.read(path)
    try:
        return network_of(arrays, metadata, **options)
    except (FormatError, RecursionError) as error:
        raise FormatError(f"{Path(path).name!r}: {error}") from None


def network_of(arrays: dict[str, np.ndarray], metadata: dict[str, str], **options: Any) -> Network:
    """The network in what `files.read` has read; ``arrays`` is used up."""
    from fastnn.network import Network

    names = {"format", "fastnn_format", "network"}
    if metadata.get("fastnn_format") != VERSION or not names <= set(metadata) <= names | {
        "training"
    }:
        raise FormatError(
            "there is no network in it, or one of another version of fastnn; "
            "parameters alone are read by load_weights"
        )
    about = _object("network", metadata["network"])
    keys = "layers input_shape loss metric dtype optimizer seed classes step noise_seed generator"
    _exactly("network", about, keys.split())
    texts = about["layers"]
    if not isinstance(texts, list) or not 0 < len(texts) <= LAYERS:
        raise FormatError(f"a network must have 1 to {LAYERS} layers")
    chain = [build(text, Layer) for text in texts]
    first = chain.pop(0) if isinstance(chain[0], Input) else None
    shape = tuple(_list_of(int, "input_shape", about["input_shape"]))
    if first is not None and first.shape != shape:
        raise FormatError("the input's shape and the network's differ")
    seed = about["seed"]
    try:
        network = Network(
            chain,
            loss=build(about["loss"], Loss),
            metric=about["metric"],
            optimizer=build(about["optimizer"], Optimizer),
            seed=None if seed is None else _natural("seed", seed, 1 << 128),
            dtype=about["dtype"],
            **options,
        )
        plan = network._plan_for(layers.input_shape("input_shape", shape))
    except FormatError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(str(error)) from None
    network._input = first
    params = [_take(arrays, p.title, p.shape, network.dtype).ravel() for p in plan.parameters]
    network._lay_out(plan)
    network.params = np.concatenate([*params, np.empty(0, network.dtype)])
    try:
        network.classes = _classes(about["classes"])
    except TypeError as error:
        raise FormatError(str(error)) from None
    _optimizer_memory(network, about, arrays)
    if "training" in metadata:
        network._progress = _training(_object("training", metadata["training"]), network, arrays)
    if arrays:
        raise FormatError(f"arrays that no network has: {', '.join(map(repr, arrays)):.200}")
    return network


def _optimizer_memory(network: Network, about: Any, arrays: dict[str, np.ndarray]) -> None:
    """Take over what the optimizer remembers, and the generators."""
    network._rule["step"] = _natural("step", about["step"], 1 << 62)
    seed = about["noise_seed"]
    network._noise_seed = np.uint64(_decimal("noise_seed", seed, 1 << 64))
    network._rule["seed"] = network._noise_seed
    network._shuffle_rng.bit_generator.state = _generator_state(about["generator"])
    size = network.plan.size
    if size and MEMORY in arrays:  # behind the moments there may be the average of the weights
        network._keep_average(arrays[MEMORY].shape == (network._state.size // size + 1, size))
    if network._state.size:
        shape = network._state.size // size, size
        network._state[...] = _take(arrays, MEMORY, shape, network.dtype).ravel()
    if STEPS in arrays:
        if not isinstance(network._optimizer, optimizers.LBFGS) or arrays[STEPS].ndim != 2:
            raise FormatError(f"{STEPS} belongs to LBFGS, for every parameter")
        shape = len(arrays[STEPS]), network.plan.size
        both = [_take(arrays, n, shape, np.dtype(np.float64)) for n in (STEPS, CHANGES)]
        network._pairs = list(zip(*both, strict=True))


def _training(about: Any, network: Network, arrays: dict[str, np.ndarray]) -> Progress:
    """The training that was under way."""
    _exactly("training", about, [*_PLAIN, "generator", "first_epoch", "figures", "callbacks"])
    plain: dict[str, Any] = {}
    for name, kind in _PLAIN.items():
        value = about[name]
        if kind is int:
            value = _natural(name, value, 1 << 62)
        elif type(value) is not kind and not (kind is str and value is None):
            raise FormatError(f"{name} must be a {kind.__name__}, got {value!r:.80}")
        plain[name] = value
    history, first = History(), _natural("first_epoch", about["first_epoch"], 1 << 62)
    figures = _list_of(str, "figures", about["figures"])
    count = len(arrays.get("history.loss", ()))
    columns = {}
    for name in figures:
        columns[name] = _take(arrays, f"history.{name}", (count,), np.dtype(np.float64)).tolist()
    if figures:
        if "loss" not in columns:
            raise FormatError("a history must have the loss")
        history.extend(first, columns)
    scores = []
    if plain["batch"]:
        shape = 3, plain["batch"]
        scores.append(_take(arrays, SCORES, shape, np.dtype(np.float64)))
    return Progress(
        **plain,
        generator=_generator_state(about["generator"]),
        scores=scores,
        history=history,
        callbacks=_callbacks(about["callbacks"], arrays),
    )


def _callbacks(about: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What the callbacks remember."""
    if about is None:
        return None
    states = []
    for place, text in enumerate(_list_of(dict, "callbacks", about)):
        _exactly("callbacks", text, ["kind", "state"])
        if not isinstance(text["kind"], str) or not isinstance(text["state"], dict):
            raise FormatError("a callback must be described by its kind and state")
        prefix, state = f"callbacks.{place}.", text["state"]
        for name in [name for name in arrays if name.startswith(prefix)]:
            array = arrays.pop(name)
            state[name.removeprefix(prefix)] = array if array.ndim else array.item()
        states.append((text["kind"], state))
    return states


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=files.once, parse_constant=_no_number)


def _object(name: str, text: str) -> dict[str, Any]:
    """A text of JSON, which must be an object."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} must be JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{name} must be an object, got {type(value).__name__}")
    return value


def _exactly(name: str, value: dict[str, Any], keys: list[str]) -> None:
    if set(value) != set(keys):
        raise FormatError(f"{name} must have {', '.join(keys)}, got {', '.join(value):.200}")


def _natural(name: str, value: Any, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise FormatError(f"{name} must be a whole number from 0, got {value!r:.80}")
    return value


def _decimal(name: str, text: Any, below: int) -> int:
    """A natural number as a text."""
    if not isinstance(text, str) or not text.isascii() or not text.isdecimal() or len(text) > 40:
        raise FormatError(f"{name} must be digits, got {text!r:.80}")
    return _natural(name, int(text), below)


def _list_of(kind: type, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or any(type(each) is not kind for each in value):
        raise FormatError(f"{name} must be a list of {kind.__name__}, got {value!r:.80}")
    return value


def _generator_state(texts: Any) -> dict[str, Any]:
    """What `_generator` has written."""
    if len(_list_of(str, "generator", texts)) != 4:
        raise FormatError("generator must be four numbers")
    limits = (1 << 128, 1 << 128, 2, 1 << 32)
    numbers = [_decimal("generator", t, most) for t, most in zip(texts, limits, strict=True)]
    return {
        "bit_generator": "PCG64",
        "state": {"state": numbers[0], "inc": numbers[1]},
        "has_uint32": numbers[2],
        "uinteger": numbers[3],
    }


def _take(
    arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """An array out of the file, exactly as it must be."""
    array = arrays.pop(name, None)
    if array is None or array.shape != shape or array.dtype != dtype:
        got = "none" if array is None else f"{array.shape} of {array.dtype}"
        raise FormatError(f"{name!r:.80} must be an array {shape} of {dtype}, got {got}")
    return array
