"""Neural networks from scratch: every formula in numpy, every loop compiled by numba."""

from fastnn import conventions as conventions
from fastnn import datasets as datasets
from fastnn import initializers as initializers
from fastnn.checking import Report as Report
from fastnn.checking import check as check
from fastnn.explain import explain as explain
from fastnn.layers import Activation as Activation
from fastnn.layers import Dense as Dense
from fastnn.layers import Dropout as Dropout
from fastnn.layers import GaussianNoise as GaussianNoise
from fastnn.layers import Input as Input
from fastnn.network import Network as Network
from fastnn.optimizers import SGD as SGD
from fastnn.optimizers import Adam as Adam
from fastnn.plan import Plan as Plan
from fastnn.training import DivergenceError as DivergenceError
from fastnn.training import History as History

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "Dense",
    "DivergenceError",
    "Dropout",
    "GaussianNoise",
    "History",
    "Input",
    "Network",
    "Plan",
    "Report",
    "check",
    "conventions",
    "datasets",
    "explain",
    "initializers",
]
