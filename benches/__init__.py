"""Benches: how fast the kernels are, and the training that runs on them.

    python -m benches.bench_gemm        the matrix product against numpy's BLAS
    python -m benches.bench_training    steps of training, small networks to wide ones
    pytest benches --benchmark-enable   every kernel against its numpy reference

Everything runs on one thread, BLAS included. Speed is printed and never asserted: a
machine with other work to do is slow in its own way. What is compared is therefore
measured in turns, see `benches.timing.interleaved`.
"""

import os
from pathlib import Path

os.environ.setdefault("FASTNN_CACHE_DIR", str(Path(__file__).parent.parent / ".fastnn_cache"))
