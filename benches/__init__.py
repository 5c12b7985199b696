"""Benches: how fast the kernels are, and the training that runs on them.

    python -m benches                   fastnn and its peers: training, predictions, starts, memory
    python -m benches --only mnist      some of it; --quick: short
    python -m benches.many              a population of networks against one after another
    python -m benches.cartpole          a policy evolved from a population's parameters
    python -m benches.published         the results that the books print, trained again
    python -m benches.readme            the figures of both into the README
    python -m benches.size              cost against size
    python -m benches.whole             the books' runs from end to end
    python -m benches.njit              a network in the user's compiled code, against one by hand
    python -m benches.bench_gemm        the matrix product against numpy's BLAS
    pytest benches --benchmark-enable   every kernel against its numpy reference; every workload

Speed is printed and never asserted: a machine with other work to do is slow in its own way. What
is compared is therefore measured in turns, see `benches.timing.interleaved`, and only where the
peers' losses and outputs agree with fastnn's, see `benches.peers`.
"""

import os
from pathlib import Path

os.environ.setdefault("FASTNN_CACHE_DIR", str(Path(__file__).parent.parent / ".fastnn_cache"))
