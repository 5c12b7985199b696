"""``python -m benches.cartpole``: a policy for the cart-pole, evolved from flat parameters.

The pole and its rollouts are compiled code of this file; every candidate is a member of a
`fastnn.Population`, whose ``params`` (n, size) are drawn anew in each generation around the mean of
the best quarter, a cross-entropy method. No gradient is asked for.

Sources: the equations, Barto, Sutton and Anderson (1983), "Neuronlike adaptive elements that can
solve difficult learning control problems", IEEE Transactions SMC-13; the method, Rubinstein (1999),
"The cross-entropy method for combinatorial and continuous optimization".
"""

import argparse
import sys
import time

import numpy as np
from numba import njit

import fastnn as fnn

HIDDEN, MEMBERS, STEPS = 8, 64, 500  # STEPS is as long as a pole need stand
GRAVITY, CART, POLE, HALF, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
FAR, TILT = 2.4, 12 * np.pi / 180


def policy():
    """Four numbers of the pole in; the sign of what comes out is the push."""
    layers = [fnn.Dense(HIDDEN, "tanh"), fnn.Dense(1)]
    return fnn.Network(layers, input_shape=(4,), seed=0)


@njit
def push(params, state):
    """What the policy says, from its flat parameters: as `print(policy().plan)` has them.

    A network that can be called in compiled code would stand in the place of this function.
    """
    bias, out = 4 * HIDDEN, 5 * HIDDEN
    total = params[out + HIDDEN]
    for h in range(HIDDEN):
        value = params[bias + h]
        for i in range(4):
            value += np.float32(state[i]) * params[i * HIDDEN + h]
        total += np.tanh(value) * params[out + h]
    return total


@njit
def move(state, force):
    """The pole, a tick later."""
    x, speed, angle, turn = state
    mass = CART + POLE
    inner = (force + POLE * HALF * turn**2 * np.sin(angle)) / mass
    top = GRAVITY * np.sin(angle) - np.cos(angle) * inner
    bend = top / (HALF * (4 / 3 - POLE * np.cos(angle) ** 2 / mass))
    rush = inner - POLE * HALF * bend * np.cos(angle) / mass
    return x + TICK * speed, speed + TICK * rush, angle + TICK * turn, turn + TICK * bend


@njit
def stands(params, start):
    """For how many ticks the pole stands."""
    state = (start[0], start[1], start[2], start[3])
    for tick in range(STEPS):
        if abs(state[0]) > FAR or abs(state[2]) > TILT:
            return tick
        state = move(state, FORCE if push(params, state) > 0 else -FORCE)
    return STEPS


@njit
def scores(params, starts):
    """Mean over the starts, for every row of parameters."""
    result = np.empty(len(params))
    for i in range(len(params)):
        total = 0
        for start in starts:
            total += stands(params[i], start)
        result[i] = total / len(starts)
    return result


def evolve(generations=30, episodes=8, seed=0, told=print):
    """A population whose last generation is told from its scores; and these."""
    rng = np.random.default_rng(seed)
    population = fnn.Population(policy(), MEMBERS)
    for generation in range(generations):
        starts = rng.uniform(-0.05, 0.05, (episodes, 4))
        found = scores(population.params, starts)
        told(f"generation {generation}: mean {found.mean():.1f}, best {found.max():.1f}")
        if found.mean() > 0.95 * STEPS or generation == generations - 1:
            return population, found
        elite = population.params[np.argsort(found)[-MEMBERS // 4 :]]
        spread = elite.std(axis=0) + 0.1 / (1 + generation)
        population.params = elite.mean(axis=0) + spread * rng.standard_normal(
            population.params.shape
        )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benches.cartpole")
    parser.add_argument("--generations", type=int, default=30)
    arguments = parser.parse_args(argv)
    scores(np.zeros((1, policy().plan.size), np.float32), np.zeros((1, 4)))  # compiles
    began = time.perf_counter()
    population, found = evolve(arguments.generations)
    seconds = time.perf_counter() - began
    best = population[int(found.argmax())]  # a network like any other
    starts = np.random.default_rng(1).uniform(-0.05, 0.05, (100, 4))
    (score,) = scores(best.params[None], starts)
    print(f"{seconds:.2f} s; the best stands for {score:.0f} of {STEPS} ticks from 100 new starts")


if __name__ == "__main__":
    sys.exit(main())
