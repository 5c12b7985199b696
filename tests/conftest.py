"""Compiled code of the tests goes to a folder of its own, unless the environment names one."""

import os
from pathlib import Path

os.environ.setdefault("FASTNN_CACHE_DIR", str(Path(__file__).parent.parent / ".fastnn_cache"))
