"""scikit-learn's multi-layer perceptrons, with nothing that would end their training early."""

import warnings

from benches.peers import Unavailable
from benches.workloads import BETA1, BETA2, EPSILON


def estimator(work, kind, **options):
    settings = {
        "hidden_layer_sizes": work.widths[1:-1],
        "activation": "logistic" if work.hidden == "sigmoid" else work.hidden,
        "alpha": 0,
        "tol": 0,
        "shuffle": False,
        "random_state": 0,
    }
    return kind(**settings, **options)


def training(work, weights, data, threads):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if work.image:
        raise Unavailable("has no convolution")
    x, y = data
    if work.loss == "quadratic":
        y = y.argmax(axis=1)  # it has no quadratic cost: softmax and cross-entropy
    if y.shape[1:] == (1,):
        y = y.ravel()
    options = {
        "solver": work.optimizer,
        "learning_rate_init": work.rate,
        "momentum": 0,
        "beta_1": BETA1,
        "beta_2": BETA2,
        "epsilon": EPSILON,
        "batch_size": work.batch,
        "n_iter_no_change": 10**9,
    }

    def fit(epochs):
        kind = MLPRegressor if work.loss == "mse" else MLPClassifier
        model = estimator(work, kind, max_iter=epochs, **options)
        with warnings.catch_warnings(action="ignore"):  # says that it has not converged
            return model.fit(x, y).loss_

    return fit


def inference(work, weights, x, threads):
    import numpy as np
    from sklearn.neural_network import MLPRegressor

    model = estimator(work, MLPRegressor, max_iter=1)
    with warnings.catch_warnings(action="ignore"):
        model.fit(np.zeros((2, work.widths[0]), np.float32), np.zeros((2, work.widths[-1])))
    model.coefs_ = [weight for weight, _ in weights]
    model.intercepts_ = [bias for _, bias in weights]
    return lambda: model.predict(x)
