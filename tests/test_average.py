"""The moving average of the weights: a numpy loop by hand, both paths, any threads, any slicing."""

import copy
import threading

import numpy as np
import pytest

import fastnn as fnn

D = fnn.Dense
LAYERS = {
    "plain": lambda: [D(6, "tanh"), D(3)],
    "constrained": lambda: [D(6, "relu", max_norm=0.5, weight_l2=0.01), D(3, non_negative=True)],
    "frozen": lambda: [D(6, "tanh", trainable=False), D(5), fnn.BatchNorm(momentum=0.5), D(3)],
}


def problem(rows=37):
    rng = np.random.default_rng(3)
    return rng.standard_normal((rows, 4)), rng.standard_normal((rows, 3))


def build(name="plain", optimizer=None, **options):
    options = {"dtype": "float64", "seed": 2, "input_shape": (4,), "loss": "mse", **options}
    optimizer = fnn.Adam(0.02, ema=0.9) if optimizer is None else optimizer
    return fnn.Network(LAYERS[name](), optimizer=optimizer, **options)


def everything(net):
    return net.params.tobytes() + net._state.tobytes()


@pytest.mark.parametrize("ema", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_it_is_that_of_a_loop_by_hand(name, backend, ema):
    x, y = problem()
    net = build(name, fnn.SGD(0.1, momentum=0.5, ema=ema), backend=backend)
    moves = np.concatenate([np.full(p.size, p.trainable) for p in net.plan.parameters])
    average = net.params.copy()
    for step in range(1, 31):
        net.train_on_batch(x, y)
        keep = min(ema, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * net.params
    want = np.where(moves, average, net.params)
    np.testing.assert_allclose(net.averaged().params, want, rtol=1e-9, atol=1e-12)
    assert (moves.all() or name == "frozen") and (want != net.params).any() == (ema > 0)


@pytest.mark.parametrize("name", LAYERS)
def test_threads_slices_and_batches_in_parts_change_no_bit(name):
    x, y = problem(70)
    results = set()
    for threads in (1, 2, 3, 8):
        net = build(name, threads=threads)
        watched = [None, lambda epoch, logs: None][threads % 2]  # epochs one by one, or many
        net.fit(x, y, epochs=4, batch_size=33, callbacks=watched, verbose=0)
        results.add(everything(net))
    assert len(results) == 1


@pytest.mark.parametrize("backend", ["compiled", "numpy"])
def test_without_it_training_is_the_same(backend):
    x, y = problem()
    nets = [build(optimizer=fnn.Adam(0.02, ema=ema), backend=backend) for ema in (None, 0.9)]
    for net in nets:
        net.fit(x, y, epochs=3, batch_size=10, verbose=0)
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    size = net.plan.size
    np.testing.assert_array_equal(nets[0]._state, nets[1]._state[: 2 * size])
    assert nets[0]._state.size == 2 * size and nets[1]._state.size == 3 * size


def test_switching_it_keeps_the_moments():
    x, y = problem()
    switched, never = build(), build(optimizer=fnn.Adam(0.02))
    for ema in (0.9, None, 0.99):
        switched.optimizer.ema = ema
        before = switched.params.copy()
        for net in (switched, never):
            net.fit(x, y, epochs=1, batch_size=len(x), verbose=0)
            net.train_on_batch(x, y)
        np.testing.assert_array_equal(switched.params, never.params)
        if ema is None:
            with pytest.raises(ValueError, match=r"no average of the weights: give .* ema="):
                switched.averaged()
    # It began anew, with the weights before its first step; of these there were four before.
    first = copy.deepcopy(never)  # two steps on
    assert np.abs(switched.averaged().params - before).max() > 0
    keep = [min(0.99, (1 + t) / (10 + t)) for t in (5, 6)]
    assert int(first._rule["step"][0]) == 6
    again = build(optimizer=fnn.Adam(0.02))
    for _ in range(4):
        again.train_on_batch(x, y)
    want = again.params.copy()
    for each in keep:
        again.train_on_batch(x, y)
        want += (1 - each) * (again.params - want)
    np.testing.assert_allclose(switched.averaged().params, want, rtol=1e-12)


def test_a_new_optimizer_between_single_steps_has_memory_of_its_own():
    x, y = problem()
    net = build(optimizer=fnn.SGD(0.1))
    net.train_on_batch(x, y)
    net.optimizer = fnn.Adam(0.02, ema=0.9)
    net.train_on_batch(x, y)
    net.optimizer.ema = None
    net.train_on_batch(x, y)
    assert net._steps.buffers.state is net._state and net._state.size == 2 * net.plan.size


def test_a_layer_that_is_set_free_begins_where_it_is():
    x, y = problem()
    net = build("frozen")
    net.fit(x, y, epochs=2, verbose=0)
    net.layers[0].weight += 1.0
    net.layers[0].trainable = True
    before = net.layers[0].weight.copy()
    net.train_on_batch(x, y)
    keep = min(0.9, (1 + 5) / (10 + 5))
    want = before + (1 - keep) * (net.layers[0].weight - before)
    np.testing.assert_allclose(net.averaged().layers[0].weight, want, rtol=1e-12)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_from_a_file_keeps_it_to_the_bit(tmp_path, rule, dtype):
    x, y = problem()
    optimizer = {"sgd": fnn.SGD, "adam": fnn.Adam}[rule]
    path = tmp_path / "net.safetensors"

    def fresh(**options):
        return build("frozen", optimizer(0.02, ema=0.99), dtype=dtype, **options)

    def stop(batches, logs):
        if net._progress.epoch == 3 and batches > 1:
            raise KeyboardInterrupt

    whole, net = fresh(), fresh()
    whole.fit(x, y, epochs=6, batch_size=5, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        net.fit(
            x, y, epochs=6, batch_size=5, verbose=0,
            callbacks=fnn.callbacks.LambdaCallback(on_slice_end=stop),
        )  # fmt: skip
    net.save(path)
    loaded = fnn.load(path)
    assert loaded.optimizer.ema == 0.99
    assert everything(loaded) == everything(net) != everything(whole)
    again = fresh(threads=2)
    again.fit(x, y, resume=path, batch_size=5, verbose=0, callbacks=fnn.callbacks.LambdaCallback())
    assert everything(again) == everything(whole)
    assert again.averaged().params.tobytes() == whole.averaged().params.tobytes()


def test_files_before_the_first_step_and_after_it_was_switched_off(tmp_path):
    x, y = problem()
    path, net = tmp_path / "net.safetensors", build()
    net.save(path)
    with pytest.raises(ValueError, match="there is no average"):
        fnn.load(path).averaged()
    net.fit(x, y, verbose=0)
    net.optimizer.ema = None
    net.save(path)
    loaded = fnn.load(path)
    np.testing.assert_array_equal(loaded.averaged().params, net.averaged().params)
    for each in (loaded, net):
        each.fit(x, y, verbose=0)
    assert everything(loaded) == everything(net)


def test_the_copy_is_a_network_of_its_own():
    x, y = problem()
    net = build("frozen")
    with pytest.raises(ValueError, match="there is no average"):
        net.averaged()
    with pytest.raises(ValueError, match="there is no average"):
        fnn.Network([D(3)], optimizer=fnn.Adam(ema=0.9)).averaged()
    seen = []
    net.fit(x, y, epochs=3, callbacks=lambda *_: seen.append(net.averaged()), verbose=0)
    before, twin = everything(net), net.averaged()
    np.testing.assert_array_equal(seen[-1].predict(x), twin.predict(x))
    assert twin.layers[0].weight.base is not None and twin.history is None
    twin.fit(x, y, verbose=0)
    assert everything(net) == before and twin.layers[1] is not net.layers[1]


def test_another_thread_must_wait_for_the_training():
    x, y = problem()
    net, errors = build(), []
    net.train_on_batch(x, y)

    def ask(epoch, logs):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()

    def attempt():
        try:
            net.averaged()
        except RuntimeError as error:
            errors.append(str(error))

    net.fit(x, y, callbacks=ask, verbose=0)
    assert len(errors) == 1 and "is being fitted" in errors[0]


def test_what_has_faded_is_zero():
    """Weights that are 0 leave no denormal numbers behind, which would make every step slow."""
    x, y = problem()
    net = build("plain", fnn.SGD(1e-30, ema=0.5), dtype="float32")
    net.fit(x, y, verbose=0)
    net._average[...] = 1e-37
    net.params[...] = 0
    net.fit(x, 0 * y, epochs=20, batch_size=len(x), verbose=0)
    assert not net._average.any()


def test_what_it_may_be():
    for kind in fnn.optimizers.OPTIMIZERS.values():
        assert kind().ema is None and "ema" not in repr(kind())
    for given in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="ema must be"):
            fnn.SGD(ema=given)
    with pytest.raises(TypeError, match="ema must be"):
        fnn.SGD(ema="0.9")
    with pytest.raises(ValueError, match="LBFGS keeps no average of the weights: leave ema out"):
        fnn.LBFGS(ema=0.9)
