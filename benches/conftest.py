"""The machine in the header, figures mean nothing without it; and how many threads there are."""

import pytest
from threadpoolctl import threadpool_limits

from benches.timing import machine
from fastnn._threads import processors


def pytest_addoption(parser):
    parser.addoption(
        "--threads",
        type=int,
        default=processors(),
        help="of each library that trains or predicts in the benches",
    )


def pytest_report_header():
    return machine()


@pytest.fixture(scope="session")
def threads(request):
    return request.config.getoption("--threads")


@pytest.fixture
def one_thread():
    """Of BLAS, beside which kernels are set that run on one."""
    with threadpool_limits(1):
        yield
