"""Predictions: fastnn and its peers, grouped by workload.

``pytest benches/bench_inference.py --benchmark-enable -k "one row"``
"""

import pytest
from threadpoolctl import threadpool_limits

from benches.measure import ready
from benches.peers import able, absent
from benches.workloads import INFERENCE

ABSENT = absent()
# Other people's libraries warn of what they like.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.benchmark(min_rounds=5, max_time=0.5)
@pytest.mark.parametrize("peer", able("inference"))
@pytest.mark.parametrize("name", INFERENCE)
def test_inference(benchmark, name, peer, threads):
    calls, left_out = ready(INFERENCE[name], threads, ABSENT, only=("fastnn", peer))
    if peer in left_out:
        pytest.skip(f"{peer}: {left_out[peer]}")
    benchmark.group = name
    with threadpool_limits(threads, "blas"):
        benchmark(calls[peer], 1)
