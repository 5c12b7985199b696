"""A network inside the user's own compiled code, against a hand-written one: ratios of one run.

    python -m benches.njit

The network is 4-64-64-2 of float32. What is compared is timed in turns.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numba import njit
from numba.core import event

import fastnn as fnn
from benches.fresh import installed
from benches.timing import interleaved, machine

BATCH, BATCHES = 32, 100
USER = """
import time
began = time.perf_counter()
import numpy as np
import fastnn as fnn
from numba import njit

@njit(cache=True)
def user(net, x):
    return net(x)

layers = [fnn.Dense(64, "relu"), fnn.Dense(64, "relu"), fnn.Dense(2)]
net = fnn.Network(layers, input_shape=(4,), seed=0)
user(net, np.ones(4, np.float32))
print(time.perf_counter() - began)
"""


def network(*widths):
    """A policy of 4 inputs and 2 outputs."""
    layers = [*(fnn.Dense(w, "relu") for w in widths), fnn.Dense(2)]
    return fnn.Network(layers, input_shape=(4,), seed=0, threads=1)


@njit
def layer(x, weight, bias):
    """What one writes by hand."""
    out = bias.copy()
    for i in range(x.size):
        for o in range(out.size):
            out[o] += x[i] * weight[i, o]
    return out


@njit
def relu(x):
    for i in range(x.size):
        x[i] = max(x[i], np.float32(0))
    return x


@njit
def by_hand(arrays, x, number):
    for _ in range(number):
        hidden = relu(layer(x, arrays[0], arrays[1]))
        hidden = relu(layer(hidden, arrays[2], arrays[3]))
        x[:2] = layer(hidden, arrays[4], arrays[5])


@njit
def rollout(net, x, number):
    for _ in range(number):
        x[:2] = net(x)


@njit
def into(net, x, out, scratch, number):
    for _ in range(number):
        net.predict_into(x, out, scratch)
        x[:2] = out


@njit
def steps(net, x, y, number):
    for i in range(number * BATCHES):
        start = i % BATCHES * BATCH
        net.train_step(x[start : start + BATCH], y[start : start + BATCH])


def single_steps(net, x, y, number):
    """From Python, as a program does whose rows come one batch at a time."""
    for i in range(number * BATCHES):
        start = i % BATCHES * BATCH
        net.train_on_batch(x[start : start + BATCH], y[start : start + BATCH])


def python_calls(function, x):
    def calls(number):
        for _ in range(number):
            function(x)

    return calls


def best(calls, turn=0.02, rounds=30):
    """The shortest turn of each, in seconds."""
    times = interleaved(calls, turn, rounds)
    return {name: float(np.min(each)) for name, each in times.items()}


def second_process():
    """Seconds from the start of a program to what its own compiled function returns."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(USER)
        options = {"capture_output": True, "text": True, "check": True}
        runs = [
            subprocess.run([sys.executable, program], env=installed(), **options) for _ in range(4)
        ]
    return min(float(run.stdout) for run in runs[1:])


def main():
    print(machine())
    net = network(64, 64)
    arrays = tuple(a for dense in net.layers for a in (dense.weight, dense.bias))
    x = np.random.default_rng(0).standard_normal(4).astype(np.float32)
    out, scratch = np.empty(2, np.float32), np.empty(net.scratch_size(), np.float32)
    rollout(net, x.copy(), 1)
    times = best(
        {
            "by hand": lambda number: by_hand(arrays, x.copy(), number),
            "net(x)": lambda number: rollout(net, x.copy(), number),
            "net.predict_into": lambda number: into(net, x.copy(), out, scratch, number),
        }
    )
    print("\none row in compiled code")
    for name, seconds in times.items():
        print(f"  {name:18}{seconds * 1e6:8.3f} us {seconds / times['by hand']:6.2f} x by hand")
    net.predict(x[None]), net.predict(x[None])
    times = best(
        {
            "net(x)": python_calls(net, x),
            "net.predict(x)": python_calls(net.predict, x[None]),
        }
    )
    print("one row from Python")
    for name, seconds in times.items():
        print(f"  {name:18}{seconds * 1e6:8.3f} us")

    rng = np.random.default_rng(0)
    data = rng.standard_normal((BATCH * BATCHES, 4)).astype(np.float32)
    targets = rng.standard_normal((len(data), 2)).astype(np.float32)
    twin, third = network(64, 64), network(64, 64)
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    times = best(
        {
            "fit": lambda number: twin.fit(data, targets, epochs=number, **options),
            "net.train_step": lambda number: steps(net, data, targets, number),
            "train_on_batch": lambda number: single_steps(third, data, targets, number),
        },
        turn=0.5,  # a call of fit has its own price, and is not what is compared
        rounds=6,
    )
    print(f"a step of Adam, batch {BATCH}; train_on_batch from Python")
    for name, seconds in times.items():
        each = seconds / BATCHES
        print(f"  {name:18}{each * 1e6:8.3f} us {seconds / times['fit']:6.2f} x fit")

    other = network(7, 9, 5)
    rollout(other, x.copy(), 1)  # its ops, if they are new
    with event.install_recorder("numba:compile") as recorder:
        for one in (network(3), network(100, 20), other):
            rollout(one, x.copy(), 1), steps(one, data, targets, 1)
    print(f"compilations for three other architectures: {len(recorder.buffer)}")
    print(f"import, build and call in a second process: {second_process():.2f} s")


if __name__ == "__main__":
    main()
