"""A network inside the user's own compiled code, and derivatives: part of `fastnn.network`.

What compiled code finds there stands in `fastnn.kernels.in_njit`; the methods here are the same for
Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import derivatives, desk

__all__ = ["InCompiledCode"]


class InCompiledCode:
    """What can be called in Python and in ``@njit`` functions alike."""

    dtype: np.dtype
    _turns: Any
    _few: Any

    @property
    def _numba_type_(self) -> Any:
        """What numba takes the network for."""
        return desk.type_of(self.dtype)

    @property
    def _numba_desk_(self) -> int:
        """What compiled code knows the network by."""
        return desk.desk_of(self).address

    def __call__(self, x: Any) -> np.ndarray:
        """Output for one row or for many, here and inside your own ``@njit`` functions.

        A function that numba compiles takes a network as it takes an array. It is compiled once
        for all networks of a dtype, may be kept with ``cache=True``, and sees every change of
        the parameters. Calls in several threads do not disturb each other.

        Parameters
        ----------
        x : array (fan_in,) or (n, fan_in)
            One row, or a batch; or in the shape that samples have. In compiled code real numbers
            of any dtype and strides, always flat, and not looked at: what is not finite goes
            through the network.

        Returns
        -------
        array (fan_out,) or (n, fan_out), the network's dtype
            The bits of `predict`.

        Raises
        ------
        TypeError, ValueError
            Where ``x`` does not fit; in compiled code ValueError for a row of another length,
            and numba's TypingError for what is no array of one or two dimensions.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> from numba import njit
        >>> @njit
        ... def rollout(policy, state):
        ...     for _ in range(100):
        ...         state = 0.9 * state + policy(state)
        ...     return state
        >>> net = fnn.Network([fnn.Dense(16, "tanh"), fnn.Dense(3)], input_shape=(3,), seed=0)
        >>> rollout(net, np.ones(3)).shape
        (3,)
        """
        version = self._turns.version
        if self._few is not None and type(x) is np.ndarray:
            row = self._few.row(x)
            if row is not None and self._turns.version == version and version % 2 == 0:
                return row
        return desk.call(self, x)

    def scratch_size(self, rows: int = 1) -> int:
        """Numbers that `predict_into` needs beside its output, for so many rows.

        For few rows about as many as the network has neurons, from 12 or so on some hundred
        thousand more, for the matrix products; more than 256 rows need no more than 256.

        Examples
        --------
        >>> import fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(64, "relu"), fnn.Dense(2)], input_shape=(4,), seed=0)
        >>> net.scratch_size() < 400
        True
        """
        return desk.scratch_size(self, rows)

    def predict_into(self, x: Any, out: np.ndarray, scratch: np.ndarray) -> None:
        """Write what ``self(x)`` gives to ``out``; in compiled code nothing is allocated.

        Parameters
        ----------
        x : array (fan_in,) or (n, fan_in)
            One row, or a batch.
        out : array (fan_out,) or (n, fan_out), the network's dtype, C-contiguous
            Is overwritten.
        scratch : array (net.scratch_size(n),) or larger, the network's dtype, C-contiguous
            Is overwritten. One for each thread.

        Raises
        ------
        TypeError, ValueError
            Where one of them does not fit.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> out, scratch = np.empty(2, np.float32), np.empty(net.scratch_size(), np.float32)
        >>> net.predict_into(np.ones(3), out, scratch)
        >>> bool((out == net(np.ones(3))).all())
        True
        """
        desk.predict_into(self, x, out, scratch)

    def vjp(self, x: Any, grad_out: Any) -> np.ndarray:
        """Gradient of ``sum(out * grad_out)`` with respect to ``x``, here and in compiled code.

        Of what `predict` computes: nothing is dropped, running means stand still.

        Parameters
        ----------
        x : array (fan_in,) or (n, fan_in)
            One row, or a batch; or in the shape of the network's samples.
        grad_out : array (fan_out,) or (n, fan_out)
            What each output counts: the *v* of a vector-Jacobian product.

        Returns
        -------
        array of the shape of ``x``, the network's dtype
            With respect to ``x`` as it is given, before an `Input`'s scale.

        Raises
        ------
        TypeError, ValueError
            Where the shapes do not fit, or the network has a step or an `Embedding`, which have
            no gradient.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> grad_x = net.vjp(np.ones(3), np.array([1.0, 0.0]))
        >>> bool((grad_x == net.layers[0].weight[:, 0]).all())
        True
        """
        return derivatives.vjp(self, x, grad_out)

    def jacobian(self, x: Any) -> np.ndarray:
        """Derivative of every output with respect to every input, here and in compiled code.

        Parameters
        ----------
        x : array (fan_in,) or (n, fan_in)
            One row, or a batch; or in the shape of the network's samples.

        Returns
        -------
        array (fan_out, fan_in) or (n, fan_out, fan_in), the network's dtype
            As of `vjp`.

        Raises
        ------
        TypeError, ValueError
            As `vjp`.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> bool((net.jacobian(np.ones(3)) == net.layers[0].weight.T).all())
        True
        """
        return derivatives.jacobian(self, x)

    def jvp(self, x: Any, v: Any) -> np.ndarray:
        """How the output changes as ``x`` moves along ``v``: the Jacobian times ``v``.

        One forward pass of the numpy formulas with dual numbers, see `fastnn.dual`; exact.

        Parameters
        ----------
        x, v : array (fan_in,) or (n, fan_in)
            One row, or a batch, and a direction for each.

        Returns
        -------
        array (fan_out,) or (n, fan_out), the network's dtype

        Raises
        ------
        TypeError, ValueError
            As `vjp`.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> bool((net.jvp(np.ones(3), [1, 0, 0]) == net.layers[0].weight[0]).all())
        True
        """
        return derivatives.jvp(self, x, v)

    def hessian_vector_product(self, x: Any, y: Any, v: Any) -> np.ndarray:
        """The Hessian of the loss, as `loss_and_gradient` has it, times ``v``.

        How the gradient changes as the parameters move along ``v``, at the price of a few
        gradients in numpy; exact. Rows and columns of what is not trained are zero.

        Parameters
        ----------
        x, y : array
            As in `loss_and_gradient`.
        v : array (net.params.size,)
            A direction, in the map of `params`.

        Returns
        -------
        array (net.params.size,), the network's dtype

        Raises
        ------
        TypeError, ValueError
            Where the data or ``v`` do not fit.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(1)], input_shape=(1,), seed=0)
        >>> x, y = np.array([[3.0]]), np.array([[1.0]])  # loss (3 w + b - 1)**2
        >>> net.hessian_vector_product(x, y, [1, 0])
        array([18.,  6.], dtype=float32)
        """
        return derivatives.hessian_vector_product(self, x, y, v)

    def loss_and_gradient(self, x: Any, y: Any) -> tuple[float, np.ndarray]:
        """Mean loss and its gradient as one flat array, here and in compiled code.

        As `gradients`, for those who move `params` themselves: penalties are part of both, and
        what is random in training is so here, as in the next step.

        Parameters
        ----------
        x : array (fan_in,) or (n, fan_in)
            One row, or a batch.
        y : array (n, targets) or (n,); for one row (targets,) or a number
            Targets or class labels, as in `fit`. Compiled code looks whether labels are
            labels, but not whether probabilities are such.

        Returns
        -------
        loss : float
        gradient : array (net.params.size,)
            In the map of `params`.

        Raises
        ------
        TypeError, ValueError
            Where the data do not fit.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(1)], input_shape=(2,), dtype="float64", seed=0)
        >>> loss, gradient = net.loss_and_gradient(np.ones((3, 2)), np.zeros(3))
        >>> bool(np.isclose(gradient[-1], 2 * net(np.ones(2))[0]))  # of the bias
        True
        """
        return desk.loss_and_gradient(self, x, y)

    def train_step(self, x: Any, y: Any) -> float:
        """One step of the optimizer, all rows in one batch, here and in compiled code.

        The step that `fit` or `train_on_batch` would take: they go on where it ends, with the
        same bits. One thread at a time trains a network; in compiled code those that predict
        meanwhile see parameters in motion, and a loss that is not finite is returned, not raised,
        and changes nothing. Schedules of the learning rate are known for 32,768 steps or more
        from the start of the compiled call.

        Parameters
        ----------
        x, y
            As in `loss_and_gradient`.

        Returns
        -------
        float
            Loss before the step, penalties included.

        Raises
        ------
        TypeError, ValueError, RuntimeError, DivergenceError
            As `train_on_batch`; in compiled code ValueError and RuntimeError alone.

        Examples
        --------
        >>> import numpy as np, fastnn as fnn
        >>> from numba import njit
        >>> @njit
        ... def learn(net, x, y):
        ...     for i in range(len(x)):
        ...         loss = net.train_step(x[i], y[i])
        ...     return loss
        >>> net = fnn.Network([fnn.Dense(1)], input_shape=(1,), optimizer=fnn.SGD(0.1), seed=0)
        >>> x = np.linspace(-1, 1, 200).reshape(-1, 1)
        >>> bool(learn(net, x, 3 * x) < 1e-3)
        True
        """
        return desk.train_step(self, x, y)

    def cfunc(
        self, signature: str = "int (double *, intptr_t, double *, void *)"
    ) -> desk.CFunction:
        """The network as a C function, for scipy's ``LowLevelCallable`` or any C library.

        It predicts one row, may run in any thread, and sees every change of the parameters. One
        compiled function serves all networks: its last argument, ``user_data``, says which.

        Parameters
        ----------
        signature : str
            ``int f(double *x, intptr_t n, double *out, void *user_data)`` writes the outputs for
            the ``n`` inputs and returns 1, or 0 where there are not ``n`` inputs (of
            `scipy.ndimage`, whose ``out`` has room for a network of one output). Or
            ``"double (int, double *, void *)"``, which returns the single output, NaN where the
            number is wrong (of `scipy.integrate`).

        Returns
        -------
        CFunction
            With ``address``, ``user_data``, ``ctypes`` and ``low_level_callable()``; the network
            lives as long as it does.

        Raises
        ------
        ValueError
            For another signature, or where a single output is asked of a network of several.

        Examples
        --------
        >>> import ctypes, fastnn as fnn
        >>> net = fnn.Network([fnn.Dense(2)], input_shape=(3,), seed=0)
        >>> f, x, out = net.cfunc(), (ctypes.c_double * 3)(1, 1, 1), (ctypes.c_double * 2)()
        >>> f.ctypes(x, 3, out, f.user_data), [*out] == [*net([1, 1, 1])]
        (1, True)
        """
        return desk.CFunction(self, signature)
