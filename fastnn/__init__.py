"""Neural networks from scratch: every formula in numpy, every loop compiled by numba."""

# First, and from here: numba's own import takes a tenth of a second longer from the depth of a
# chain of imports (`fastnn.kernels` says why).
from fastnn import kernels as kernels  # isort: skip

from fastnn import callbacks as callbacks
from fastnn import conventions as conventions
from fastnn import datasets as datasets
from fastnn import initializers as initializers
from fastnn import losses as losses
from fastnn import metrics as metrics
from fastnn import schedules as schedules
from fastnn.checking import Report as Report
from fastnn.checking import check as check
from fastnn.explain import explain as explain
from fastnn.files import FormatError as FormatError
from fastnn.images import AveragePool2D as AveragePool2D
from fastnn.images import Conv2D as Conv2D
from fastnn.images import MaxPool2D as MaxPool2D
from fastnn.importing import from_sklearn as from_sklearn
from fastnn.importing import from_torch as from_torch
from fastnn.keras_file import from_keras as from_keras
from fastnn.layers import Activation as Activation
from fastnn.layers import Dense as Dense
from fastnn.layers import Input as Input
from fastnn.network import Network as Network
from fastnn.noise import Dropout as Dropout
from fastnn.noise import GaussianNoise as GaussianNoise
from fastnn.normalization import BatchNorm as BatchNorm
from fastnn.normalization import LayerNorm as LayerNorm
from fastnn.normalization import Normalization as Normalization
from fastnn.normalization import Rescaling as Rescaling
from fastnn.optimizers import LBFGS as LBFGS
from fastnn.optimizers import SGD as SGD
from fastnn.optimizers import Adagrad as Adagrad
from fastnn.optimizers import Adam as Adam
from fastnn.optimizers import AdamW as AdamW
from fastnn.optimizers import Lion as Lion
from fastnn.optimizers import Nadam as Nadam
from fastnn.optimizers import RMSprop as RMSprop
from fastnn.plan import Plan as Plan
from fastnn.population import Population as Population
from fastnn.saving import load as load
from fastnn.shapes import Embedding as Embedding
from fastnn.shapes import Flatten as Flatten
from fastnn.shapes import Reshape as Reshape
from fastnn.training import DivergenceError as DivergenceError
from fastnn.training import History as History

__version__ = "0.1.0"
__all__ = [
    "LBFGS",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragePool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "DivergenceError",
    "Dropout",
    "Embedding",
    "Flatten",
    "FormatError",
    "GaussianNoise",
    "History",
    "Input",
    "LayerNorm",
    "Lion",
    "MaxPool2D",
    "Nadam",
    "Network",
    "Normalization",
    "Plan",
    "Population",
    "RMSprop",
    "Report",
    "Rescaling",
    "Reshape",
    "callbacks",
    "check",
    "conventions",
    "datasets",
    "explain",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "initializers",
    "load",
    "losses",
    "metrics",
    "schedules",
]
