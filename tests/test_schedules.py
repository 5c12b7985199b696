"""Learning rates by step, against PyTorch's schedulers and the formulas of the books."""

import math

import numpy as np
import pytest

import fastnn as fnn
from fastnn import schedules


def of_torch(scheduler, steps, rate=0.1):
    """Rates of the steps as PyTorch would take them."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    plan = scheduler(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            plan.step()
    return rates


def cosine_after_a_rise(torch, optimizer):
    rise = torch.LinearLR(optimizer, start_factor=1 / 6, total_iters=5)
    fall = torch.CosineAnnealingLR(optimizer, T_max=35, eta_min=0.002)
    return torch.SequentialLR(optimizer, [rise, fall], milestones=[5])


PEERS = {
    "constant": (schedules.Constant(0.1), lambda t, o: t.LambdaLR(o, lambda step: 1.0)),
    "inverse time": (
        schedules.InverseTimeDecay(0.1, 0.3),
        lambda t, o: t.LambdaLR(o, lambda step: 1 / (1 + 0.3 * step)),
    ),
    "exponential": (schedules.Exponential(0.1, 0.9), lambda t, o: t.ExponentialLR(o, 0.9)),
    "staircase": (
        schedules.Exponential(0.1, 0.5, steps=7, staircase=True),
        lambda t, o: t.StepLR(o, 7, 0.5),
    ),
    "piecewise": (
        schedules.Piecewise([10, 25], [0.1, 0.05, 0.025]),
        lambda t, o: t.MultiStepLR(o, [10, 25], 0.5),
    ),
    "cosine": (
        schedules.Cosine(0.1, 40, final=0.002),
        lambda t, o: t.CosineAnnealingLR(o, 40, eta_min=0.002),
    ),
    "cosine after a rise": (
        schedules.Cosine(0.1, 40, warmup=5, final=0.002),
        cosine_after_a_rise,
    ),
    "one cycle": (
        schedules.OneCycle(0.1, 41),
        lambda t, o: t.OneCycleLR(o, 0.1, total_steps=41, cycle_momentum=False),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # of torch about itself
@pytest.mark.parametrize("name", PEERS)
def test_schedules_are_those_of_torch(name):
    schedule, scheduler = PEERS[name]
    want = of_torch(scheduler, 41)
    np.testing.assert_allclose(schedule.rates(0, 41), want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", PEERS)
def test_a_rate_depends_on_its_step_alone(name):
    schedule = PEERS[name][0]
    whole = schedule.rates(0, 60)
    assert whole.dtype == np.float64 and whole.shape == (60,) and (whole > 0).all()
    pieces = [schedule.rates(first, count) for first, count in ((0, 1), (1, 6), (7, 30), (37, 23))]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_after_their_end_schedules_stay_where_they_are():
    assert (schedules.Cosine(0.1, 10, final=0.01).rates(10, 50) == 0.01).all()
    cycle = schedules.OneCycle(1.0, 10)
    np.testing.assert_allclose(cycle.rates(9, 50), 1 / 25 / 1e4, rtol=1e-12)
    assert schedules.OneCycle(1.0, 2).rates(0, 2)[0] == 1.0  # no step to go up


class TestReduceOnPlateau:
    def test_is_that_of_torch(self):
        torch = pytest.importorskip("torch")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=2, threshold=1e-3, threshold_mode="abs", min_lr=0.01
        )
        ours = schedules.ReduceOnPlateau(
            0.1, factor=0.5, patience=3, min_delta=1e-3, min_learning_rate=0.01
        )
        rng = np.random.default_rng(0)
        for epoch in range(60):
            loss = 1 / (1 + epoch) + 0.05 * rng.random()
            ours.epoch_ended(loss)
            theirs.step(loss)
            assert ours.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"])
        assert ours.learning_rate == 0.01

    def test_cooldown(self):
        rate = schedules.ReduceOnPlateau(1.0, factor=0.5, patience=1, cooldown=3)
        seen = []
        for _ in range(8):
            rate.epoch_ended(1.0)
            seen.append(rate.learning_rate)
        # The first loss is the best one; then each fall, two epochs that do not count, a third.
        assert seen == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]

    def test_a_loss_that_is_no_number_is_not_lower(self):
        rate = schedules.ReduceOnPlateau(1.0, factor=0.5, patience=1)
        rate.epoch_ended(math.nan)
        assert rate.learning_rate == 0.5

    @pytest.mark.parametrize("backend", ["compiled", "numpy"])
    def test_fit_tells_it_every_epoch(self, backend):
        """Also where many epochs would fit into one slice: the next one has the new rate."""
        x, y = np.zeros((8, 1)), np.ones((8, 1))
        net = fnn.Network([fnn.Dense(1)], input_shape=(1,), backend=backend, dtype="float64")
        net.optimizer = fnn.SGD(schedules.ReduceOnPlateau(1e-30, factor=0.5, patience=2))
        net.fit(x, y, epochs=1, batch_size=4, verbose=0)
        net.fit(x, y, epochs=6, batch_size=4, verbose=0)
        assert net.optimizer.learning_rate.learning_rate == 1e-30 / 8

    def test_validation_data_has_the_word(self):
        x, y = np.zeros((8, 1)), np.ones((8, 1))
        net = fnn.Network([fnn.Dense(1)], input_shape=(1,))
        told = []
        rate = schedules.ReduceOnPlateau(0.1)
        rate.epoch_ended = told.append
        net.optimizer = fnn.SGD(rate)
        history = net.fit(x, y, epochs=3, validation_data=(x, 2 * y), verbose=0).history
        assert told == history["val_loss"] != history["loss"]


def steps_of(optimizer, epochs, samples=20, batch_size=8):
    """Sizes of the steps of plain descent at a gradient of 1."""
    net = fnn.Network([fnn.Dense(1, weight_initializer="zeros")], loss="mae", input_shape=(1,),
                      optimizer=optimizer, dtype="float64")  # fmt: skip
    x, y = np.zeros((samples, 1)), np.full((samples, 1), -1e9)
    moved = []
    for _ in range(epochs):
        net.fit(x, y, batch_size=batch_size, verbose=0)
        moved.append(-net.layers[0].bias[0])
    return np.array(moved)


def test_trap_14_the_clock_of_decay_counts_steps_not_epochs_nor_samples():
    """20 samples in batches of 8 are 3 steps an epoch; the count goes on in the next `fit`."""
    expected = np.cumsum(0.5 / (1 + 0.1 * np.arange(9)))[2::3]
    np.testing.assert_allclose(steps_of(fnn.SGD(0.5, decay=0.1), 3), expected, rtol=1e-12)
    schedule = schedules.InverseTimeDecay(0.5, 0.1)
    np.testing.assert_allclose(steps_of(fnn.SGD(schedule), 3), expected, rtol=1e-12)


def test_schedule_and_decay_multiply():
    optimizer = fnn.SGD(schedules.Exponential(0.8, 0.5), decay=1.0)
    np.testing.assert_allclose(optimizer.rates(0, 3), [0.8, 0.2, 0.2 / 3])


def test_every_optimizer_takes_a_schedule_and_a_decay():
    from fastnn.optimizers import OPTIMIZERS

    for kind in OPTIMIZERS.values():
        optimizer = kind(schedules.Piecewise([1], [0.5, 0.25]), decay=1.0)
        np.testing.assert_allclose(optimizer.rates(0, 2), [0.5, 0.125])


def test_one_of_your_own():
    class Halving(schedules.Schedule):
        def at(self, steps):
            return 0.5**steps

    assert fnn.Adam(Halving()).rates(1, 2).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: schedules.Constant(0), "learning_rate must be above 0, got 0"),
        (lambda: schedules.Exponential(0.1, 0), "factor must be above 0"),
        (lambda: schedules.Exponential(0.1, 0.5, steps=0), "steps must be at least 1"),
        (lambda: schedules.Piecewise([5, 5], [1, 2, 3]), r"boundaries must grow, got \[5, 5\]"),
        (lambda: schedules.Piecewise([5], [1, 2, 3]), "one more than the 1 boundaries, got 3"),
        (lambda: schedules.Cosine(0.1, 5, warmup=5), "warmup must be below steps=5, got 5"),
        (lambda: schedules.OneCycle(0.1, 1), "steps must be at least 2"),
        (lambda: schedules.OneCycle(0.1, 9, pct_start=1), "pct_start must be above 0 and below 1"),
        (lambda: schedules.ReduceOnPlateau(0.1, factor=1), "factor must be above 0 and below 1"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=0), "patience must be at least 1"),
    ],
)
def test_what_makes_no_schedule(make, text):
    with pytest.raises(ValueError, match=text):
        make()
    with pytest.raises(TypeError, match=r"got the class: write Cosine\(\.\.\.\)"):
        fnn.SGD(schedules.Cosine)
