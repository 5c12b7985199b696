"""Every campaign, with few cases; whole ones are run by ``python -m tests.campaign NAME``."""

import importlib
import os

import pytest

from tests.campaign.__main__ import NAMES


@pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1" or os.environ.get("NUMBA_BOUNDSCHECK") == "1",
    reason="as users run it",
)
@pytest.mark.parametrize("name", NAMES)
def test_a_small_campaign_has_no_failures(name):
    campaign = importlib.import_module(f"tests.campaign.{name}")
    figures = campaign.run(campaign.SMALL)
    assert figures["failures"] == 0, figures
    assert figures["cases"] >= campaign.SMALL
