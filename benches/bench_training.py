"""Steps of training: fastnn and its peers, grouped by workload.

``pytest benches/bench_training.py --benchmark-enable -k mnist``; ``python -m benches`` measures
the same in turns.
"""

import math

import pytest
from threadpoolctl import threadpool_limits

from benches.measure import ready
from benches.peers import able, absent
from benches.workloads import TRAINING

STEPS = 100  # at the least, in one round
ABSENT = absent()
# Other people's libraries warn of what they like.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.benchmark(min_rounds=5, max_time=0.5, warmup=False)
@pytest.mark.parametrize("peer", able("training"))
@pytest.mark.parametrize("name", TRAINING)
def test_training(benchmark, name, peer, threads):
    work = TRAINING[name]
    calls, left_out = ready(work, threads, ABSENT, only=("fastnn", peer))
    if peer in left_out:
        pytest.skip(f"{peer}: {left_out[peer]}")
    epochs = math.ceil(STEPS / work.steps)
    benchmark.group = f"{name}: {epochs * work.steps} steps"
    with threadpool_limits(threads, "blas"):
        benchmark(calls[peer], epochs)
