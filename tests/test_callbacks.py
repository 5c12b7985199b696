"""Callbacks: told at each occasion, able to stop, never in the way of the arithmetic."""

import csv

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks as cb


def build(**options):
    options = {"dtype": "float64", "seed": 0, "loss": "mse", **options}
    return fnn.Network([fnn.Dense(6, "tanh"), fnn.Dense(2)], **options)


def data(rows=40):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 3)), rng.standard_normal((rows, 2))


class Diary(cb.Callback):
    def __init__(self):
        self.lines = []

    def on_train_begin(self, logs):
        self.lines.append(("begin", logs))

    def on_train_end(self, logs):
        self.lines.append(("end", dict(logs)))

    def on_epoch_begin(self, epoch, logs):
        self.lines.append(("epoch", epoch, logs))

    def on_epoch_end(self, epoch, logs):
        self.lines.append(("done", epoch, dict(logs)))

    def on_slice_end(self, batches, logs):
        self.lines.append(("slice", batches))


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_every_occasion_in_its_order(backend):
    x, y = data()
    diary, net = Diary(), build(backend=backend)
    history = net.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[diary], verbose=0)
    lines = [line for line in diary.lines if line[0] != "slice"]
    figures = [
        {name: values[epoch] for name, values in history.history.items()} for epoch in range(3)
    ]
    assert lines == [
        ("begin", {}),
        *(line for e in range(3) for line in (("epoch", e, {}), ("done", e, figures[e]))),
        ("end", figures[2]),
    ]
    assert [line[1] for line in diary.lines if line[0] == "slice"].count(2) >= 3  # 2 batches
    assert diary.network is net and "val_loss" in figures[0]


def test_callbacks_change_no_bit():
    x, y = data()
    alone, watched = build(), build()
    alone.fit(x, y, epochs=5, verbose=0)
    watched.fit(x, y, epochs=5, callbacks=lambda epoch, logs: None, verbose=0)
    assert alone.params.tobytes() == watched.params.tobytes()


def test_early_stopping_stops_and_gives_back_the_best():
    x, y = data()
    losses, kept = iter([5.0, 3.0, 4.0, 2.9, 3.5, 3.6, 3.7, 0.0]), []

    class Script(cb.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["val_loss"] = next(losses)
            kept.append(self.network.params.copy())

    stop = cb.EarlyStopping(patience=2, min_delta=0.05)
    net = build()
    history = net.fit(x, y, epochs=50, callbacks=[Script(), stop], verbose=0)
    assert (stop.best_epoch, stop.best, len(history.epoch)) == (3, 2.9, 7)
    np.testing.assert_array_equal(net.params, kept[3])
    losses = iter([5.0, 3.0, 2.99, 2.98])
    kept.clear()
    stop = cb.EarlyStopping(patience=1, min_delta=0.05, restore_best_weights=False)
    net.fit(x, y, epochs=50, callbacks=[Script(), stop], verbose=0)
    assert (stop.best_epoch, len(kept)) == (1, 4)
    np.testing.assert_array_equal(net.params, kept[-1])


def test_trap_13_the_best_weights_come_back_also_after_the_last_epoch():
    x, y = data()
    losses, kept = iter([1.0, 2.0, 3.0]), []

    def script(epoch, logs):
        logs["val_loss"] = next(losses)
        kept.append(net.params.copy())

    net = build()
    net.fit(x, y, epochs=3, callbacks=[script, cb.EarlyStopping(patience=9)], verbose=0)
    np.testing.assert_array_equal(net.params, kept[0])


def test_modes_follow_the_name_of_the_figure():
    stop = cb.EarlyStopping("val_accuracy", start_from_epoch=1)
    stop.network = build(input_shape=(3,))
    stop.on_train_begin({})
    for epoch, accuracy in enumerate((0.99, 0.5, 0.6)):
        stop.on_epoch_end(epoch, {"val_accuracy": accuracy})
    assert (stop.best_epoch, stop.best, stop.stop) == (2, 0.6, False)
    stop.on_epoch_end(3, {"val_accuracy": 0.6})
    assert stop.stop
    with pytest.raises(ValueError, match="'val_loss', but there is only loss; give fit valid"):
        cb.EarlyStopping().on_epoch_end(0, {"loss": 1.0})


def test_targets_and_budgets_end_a_training():
    x, y = data()
    target = cb.TargetReached("loss", 1.0)
    history = build().fit(x, y, epochs=5000, callbacks=target, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] <= 1.0 and all(loss > 1.0 for loss in losses[:-1])
    budget = cb.TimeBudget(1e-9)
    assert len(build().fit(x, y, epochs=50, callbacks=[budget], verbose=0).epoch) == 1


def test_csv_logger(tmp_path):
    x, y = data()
    path = tmp_path / "log.csv"
    net = build()
    first = net.fit(x, y, epochs=2, callbacks=[cb.CSVLogger(path)], verbose=0)
    second = net.fit(x, y, epochs=1, callbacks=[cb.CSVLogger(path, append=True)], verbose=0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "0"]
    losses = first.history["loss"] + second.history["loss"]
    assert [float(row["loss"]) for row in rows] == losses


def test_validation_split_takes_the_last_rows():
    x, y = data()
    split, given = build(), build()
    got = split.fit(x, y, epochs=2, validation_split=0.25, verbose=0)
    want = given.fit(x[:30], y[:30], epochs=2, validation_data=(x[30:], y[30:]), verbose=0)
    assert got.history == want.history
    for share, message in ((0.01, "leaves none to validate with"), (1.0, "below 1")):
        with pytest.raises(ValueError, match=message):
            build().fit(x, y, validation_split=share, verbose=0)
    with pytest.raises(ValueError, match="exclude each other"):
        build().fit(x, y, validation_split=0.5, validation_data=(x, y), verbose=0)


def test_what_is_no_callback():
    x, y = data()
    net = build(input_shape=(3,))
    before = net.params.copy()
    for given, message in ((3, "got int"), (cb.EarlyStopping, r"write EarlyStopping\(\)")):
        with pytest.raises(TypeError, match=message):
            net.fit(x, y, callbacks=[given], verbose=0)
    with pytest.raises(ValueError, match="must be one of on_epoch_end, "):
        cb.LambdaCallback(on_epochend=print)
    with pytest.raises(TypeError, match="must be a function, got int"):
        cb.LambdaCallback(on_epoch_end=1)
    np.testing.assert_array_equal(net.params, before)


def test_a_callback_that_raises_ends_the_training_and_closes_files(tmp_path):
    x, y = data()

    def fail(epoch, logs):
        raise RuntimeError("enough")

    logger = cb.CSVLogger(tmp_path / "log.csv")
    net = build()
    with pytest.raises(RuntimeError, match="enough"):
        net.fit(x, y, epochs=9, callbacks=[logger, fail], verbose=0)
    assert logger.file is None
    net.fit(x, y, verbose=0)


def test_a_lower_rate_where_nothing_gets_better():
    """The same as the schedule that watches the loss, and Keras's own count."""
    x, y = data()
    with_callback, with_schedule = build(), build()
    options = {"factor": 0.5, "patience": 2, "min_delta": 0.05, "cooldown": 1}
    watch = cb.ReduceLROnPlateau("loss", min_lr=0.01, **options)
    with_callback.optimizer = fnn.SGD(0.1)
    plateau = fnn.schedules.ReduceOnPlateau(0.1, min_learning_rate=0.01, **options)
    with_schedule.optimizer = fnn.SGD(plateau)
    with_callback.fit(x, y, epochs=20, callbacks=watch, verbose=0)
    with_schedule.fit(x, y, epochs=20, verbose=0)
    assert with_callback.optimizer.learning_rate == plateau.learning_rate < 0.1
    assert np.array_equal(with_callback.params, with_schedule.params)
    with pytest.raises(TypeError, match="needs a learning rate that is a number"):
        with_schedule.fit(x, y, callbacks=watch, verbose=0)


def test_the_best_networks_are_kept(tmp_path):
    x, y = data()
    net = build()
    best = cb.ModelCheckpoint(tmp_path / "best.safetensors", "loss")
    last = cb.ModelCheckpoint(
        tmp_path / "net-{epoch:02d}-{loss:.1f}.safetensors",
        save_best_only=False,
        every=2,
        keep_last=2,
        save_weights_only=True,
    )
    history = net.fit(x, y, epochs=9, callbacks=[best, last], verbose=0)
    assert best.best == min(history.history["loss"])
    assert np.array_equal(fnn.load(tmp_path / "best.safetensors").params, net.params)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3 and [name[:6] for name in names[1:]] == ["net-06", "net-08"]
    assert [path.name for path in last.paths] == names[1:]
    twin = build(input_shape=(3,))
    twin.load_weights(last.paths[-1])
    with pytest.raises(ValueError, match="monitors 'val_loss', but there is only"):
        net.fit(x, y, callbacks=cb.ModelCheckpoint(tmp_path / "x"), verbose=0)


def test_a_worse_network_does_not_replace_the_best(tmp_path):
    path = tmp_path / "best.safetensors"
    keep = cb.ModelCheckpoint(path, "val_accuracy")
    keep.network = build(input_shape=(3,))
    written = []
    for epoch, value in enumerate([0.5, 0.4, 0.5, 0.6]):
        keep.on_epoch_end(epoch, {"val_accuracy": value})
        written.append(path.exists())
        path.unlink(missing_ok=True)
    assert written == [True, False, False, True] and keep.best == 0.6


def test_figures_go_to_a_writer():
    class Writer:
        def __init__(self):
            self.lines = []

        def add_scalar(self, tag, value, step):
            self.lines.append((tag, value, step))

    x, y = data()
    writer = Writer()
    history = build().fit(x, y, epochs=2, callbacks=cb.ScalarWriter(writer, prefix="a/"), verbose=0)
    losses = [value for tag, value, _ in writer.lines if tag == "a/loss"]
    assert losses == history.history["loss"] and writer.lines[-1][2] == 1
    with pytest.raises(TypeError, match=r"must have add_scalar\(tag, value, step\), got list"):
        cb.ScalarWriter([])
