"""What a network and files have to do with each other: part of `fastnn.network`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnn import export, export_c, files, saving
from fastnn._check import got, parameter, shown

__all__ = ["InFiles"]


class InFiles:
    """Parameters by name, and the network in files of several kinds."""

    plan: Any
    params: Any
    _turns: Any
    dtype: np.dtype

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name: ``"0.weight"``, ``"0.bias"``, ...

        Names are PyTorch's; a weight is (fan_in, fan_out), where PyTorch has (fan_out, fan_in).
        """
        places = self.plan.parameters
        return self._turns.steadily(
            lambda params: {p.title: p.of(params).copy() for p in places}, self.params
        )

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
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping of names to arrays, {got(state)}")
        wanted = {p.title: p for p in self.plan.parameters}
        missing = [name for name in wanted if name not in state]
        unknown = [name for name in state if name not in wanted]
        if missing or unknown:
            raise ValueError(
                f"the state must have the names of state_dict(); missing: {_listed(missing)}; "
                f"unknown: {_listed(unknown)}"
            )
        params = self.params.copy()
        for name, place in wanted.items():
            place.of(params)[...] = parameter(name, state[name], place.shape, self.dtype)
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

        The file may hold a whole network.

        Raises
        ------
        FormatError
            Where the file is damaged or not of the safetensors format.
        ValueError
            Where it is another network's.
        """
        arrays, metadata = files.read(path)
        if "network" in metadata:  # a whole network: numbers are layers, names something else
            arrays = {name: array for name, array in arrays.items() if name[0].isdigit()}
        self.load_state_dict(arrays)

    def save(self: Any, path: str | os.PathLike[str]) -> None:
        """Write the whole network to a safetensors file, whole or not at all: see `fastnn.files`.

        Architecture, parameters, optimizer and its memory, random generators, history, classes,
        and where `fit` was interrupted. `fastnn.load` reads it; initializers are left out.

        Parameters
        ----------
        path : str or PathLike
            The file; an old one is replaced.

        Raises
        ------
        TypeError
            Where a layer, schedule or a callback's memory is of a kind that no file can hold.
        OSError
            Where the system cannot write; an old file is as it was.
        RuntimeError
            Where another thread fits the network: a callback of that training may save it.
        """
        self._turns.refuse_others()
        saving.save(self, path)

    def export_c(
        self: Any, path: str | os.PathLike[str], *, name: str | None = None, x: Any = None
    ) -> None:
        """Write the network as one header of C99 or C++, which needs ``math.h`` alone.

        ``name_predict(x, out)`` computes one sample. Nothing is allocated, and nothing kept
        between calls. With ``NAME_MAIN`` defined the header is a program that tests itself; its
        first lines say how.

        Parameters
        ----------
        path : str or PathLike
            The header; an old one is replaced when all is written.
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
        OSError
            Where the system cannot write; an old file is as it was.

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

    def export_numpy(self: Any, path: str | os.PathLike[str], *, x: Any = None) -> None:
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

    def export_njit(self: Any, path: str | os.PathLike[str], *, x: Any = None) -> None:
        """Write the network as one Python file that needs numpy and numba, with ``predict(x)``.

        Its code is the kernels of the layers; ``predict`` can be called from other compiled code.

        Parameters
        ----------
        path, x
            As in `export_numpy`, and so are the errors.
        """
        export.write_njit(self, path, x)


def _listed(names: list[str]) -> str:
    """Names as an error shows them."""
    more = ", ..." if len(names) > 5 else ""
    return (
        ", ".join(n if isinstance(n, str) and n.isprintable() else shown(n) for n in names[:5])
        + more
        or "none"
    )
