"""``python -m benches.many``: a population of spirals, against the same networks one by one.

The spiral of *Neural Networks from Scratch*, 2-64-3 with Adam on 300 points at once, for many
seeds: by `fastnn.Population`, by `Network.fit` one after another, and by torch's eager loop one
after another, in turns. The parameters of both of fastnn's must be the same bits. Networks are made
anew each time, which counts, as it does in use.

What threads can gain at all is what they gain without members: one network in each, made before,
takes as many steps in one long training.
"""

import argparse
import sys
import threading
import time

import numpy as np

import fastnn as fnn
from benches import peers
from benches.peak import peak
from benches.peers.fastnn import initial, network
from benches.report import duration
from benches.timing import PAUSE, machine, speedup
from benches.workloads import TRAINING
from fastnn._threads import processors

WORK = TRAINING["spiral"]
BLOCKS = 1000  # of multiply-adds, about a quarter of a second
POPULATION, ALONE, TORCH = "population", "one by one", "torch, one by one"
LONG = "a network each"


def calls(members, threads, data):
    """``call(epochs)`` trains all from their first weights, and returns their parameters."""
    template = network(WORK)
    options = {"batch_size": WORK.batch, "verbose": 0}

    def together(epochs):
        population = fnn.Population(template, members, {"seed": range(members)}, threads=threads)
        population.fit(*data, epochs=epochs, **options)
        return population.params

    def alone(epochs):
        nets = [network(WORK, 1, seed=seed) for seed in range(members)]
        for net in nets:
            net.fit(*data, epochs=epochs, **options)
        return np.stack([net.params for net in nets])

    few = [network(WORK, 1, seed=seed) for seed in range(threads)]

    def long(epochs):
        def fit(net):
            net.fit(*data, epochs=epochs * members // threads, **options)

        crew = [threading.Thread(target=fit, args=(net,)) for net in few]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()

    made = {POPULATION: together, ALONE: alone, LONG: long}
    if "torch" not in peers.absent():
        from benches.peers import torch

        fit = torch.training(WORK, initial(WORK), (data[0], data[1].astype(np.int64)), 1)

        def eager(epochs):
            for _ in range(members):
                fit(epochs)

        made[TORCH] = eager
    return made


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benches.many")
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--epochs", type=int, default=1000, help="torch trains a twentieth")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{machine()}; {arguments.threads} threads", flush=True)
    made = calls(arguments.members, arguments.threads, WORK.data())
    same = np.array_equal(made[POPULATION](20), made[ALONE](20))
    print(f"{arguments.members} of {WORK}: bits {'equal' if same else 'DIFFERENT'}", flush=True)
    epochs, count = arguments.epochs, arguments.threads
    turns = {name: (call, epochs // 20 if name == TORCH else epochs) for name, call in made.items()}
    for threads in (1, count):  # what the machine has to give, at the time
        peak(threads)(1)
        turns[f"peak {threads}"] = peak(threads), BLOCKS
    times = {name: np.empty(arguments.rounds) for name in turns}
    for i in range(arguments.rounds):
        for name, (call, number) in turns.items():
            time.sleep(PAUSE)
            began = time.perf_counter()
            call(number)
            times[name][i] = (time.perf_counter() - began) / number
    for name in made:
        best, median = speedup(times[POPULATION], times[name])
        print(
            f"{name:>18}: {duration(times[name].min())} for an epoch of all, "
            f"{best:.2f} times the population's (median {median:.2f})"
        )
    best, median = speedup(times[f"peak {count}"], count * times["peak 1"])
    print(f"{count} threads of pure arithmetic: {best:.2f} times one's (median {median:.2f})")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
