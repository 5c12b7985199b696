"""One thread for BLAS, and the machine in the header: figures mean nothing without it."""

import pytest
from threadpoolctl import threadpool_limits

from benches.timing import machine


def pytest_report_header():
    return machine()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield
