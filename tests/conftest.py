"""Compiled code of the tests goes to a folder of its own, unless the environment names one."""

import faulthandler
import os
import threading
from pathlib import Path

import pytest

os.environ.setdefault("FASTNN_CACHE_DIR", str(Path(__file__).parent.parent / ".fastnn_cache"))

DEADLOCK = 300  # seconds after which a test is one; the first compiles everything


@pytest.fixture
def end_of_a_deadlock(capfd):
    """Threads that wait for one another hear no Python: the process ends, and says where."""
    with capfd.disabled():
        error = os.fdopen(os.dup(2), "w")
    with error:
        faulthandler.dump_traceback_later(DEADLOCK, exit=True, file=error)
        yield
        faulthandler.cancel_dump_traceback_later()
    alive = [thread.name for thread in threading.enumerate() if thread.is_alive()]
    assert not [name for name in alive if name.startswith("fastnn-")]
