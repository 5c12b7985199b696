"""Made the files of Keras and ``keras.npz`` beside this file.

    pip install keras jax h5py
    python tests/data/make_keras.py

The files are Keras's own, zipped anew with compression to be small. The array file has what goes in
and what Keras says to it.
"""

import os
import zipfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def sequential(rng):
    """Every layer of the table that takes a flat sample, float32."""
    import keras
    from keras import layers

    scaling = layers.Normalization()
    scaling.adapt(rng.standard_normal((50, 6)) * 3 + 1)
    given = layers.Normalization(mean=[0.1] * 6, variance=[0.9] * 6)
    return keras.Sequential(
        [
            *(keras.Input((2, 3)), layers.Flatten(), scaling, given),
            *(layers.Dense(5, activation="swish"), layers.BatchNormalization(center=False)),
            *(layers.Dense(4, use_bias=False), layers.LeakyReLU(), layers.LayerNormalization()),
            *(layers.Dropout(0.2), layers.GaussianNoise(0.1), layers.Rescaling(0.5, 0.1)),
            *(layers.Dense(7, activation="leaky_relu"), layers.ELU(0.7), layers.ReLU(None, 0.1)),
            *(layers.Dense(6), layers.Activation("gelu"), layers.BatchNormalization()),
            *(layers.Dense(3), layers.Softmax(), layers.Reshape((3, 1))),
        ]
    )


def functional():
    """A chain that is called, with an embedding, float64 (Keras has no tanh of that)."""
    import keras
    from keras import layers

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    tensor = first = keras.Input((4,), dtype="int32")
    for layer in (layers.Embedding(9, 2), layers.Flatten(), layers.Dense(5, "silu")):
        tensor = layer(tensor)
    return keras.Model(first, layers.Dense(1, "sigmoid")(tensor))


def images():
    """Convolution and pooling of images with channels, which come last in Keras."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            *(keras.Input((9, 8, 3)), layers.Rescaling(0.5)),
            layers.Conv2D(5, (3, 2), padding="same", activation="relu"),
            *(layers.MaxPooling2D((2, 2)), layers.Conv2D(4, 2, strides=(1, 2), use_bias=False)),
            *(layers.LeakyReLU(), layers.AveragePooling2D((2, 1), strides=1)),
            *(layers.Flatten(), layers.Dropout(0.1), layers.Dense(3, activation="softmax")),
        ]
    )


def reshaped():
    """Flat samples that become images with one channel."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            *(keras.Input((30,)), layers.Reshape((6, 5, 1)), layers.Conv2D(3, 2)),
            *(layers.Flatten(), layers.Dense(2)),
        ]
    )


def main():
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"}
    rng, arrays = np.random.default_rng(0), {}
    models = {"images": images(), "reshaped": reshaped(), "sequential": sequential(rng)}
    models["functional"] = functional()  # last: it changes what floats are
    for name, model in models.items():
        model.compile(loss="mse", optimizer="adam")  # what is saved of it is to be passed over
        for weight in model.weights:
            if weight.dtype in ("float32", "float64") and not weight.path.startswith("normal"):
                noise = 0.4 * (rng.random(weight.shape) - 0.5)
                weight.assign(weight + noise.astype(weight.dtype))
        x = rng.standard_normal((8, *model.input_shape[1:])).astype("float32")
        x = rng.integers(0, 9, (8, 4)) if name == "functional" else x
        arrays |= {f"{name}_x": x, f"{name}_y": np.asarray(model(x, training=False))}
        path = FOLDER / f"{name}.keras"
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            contents = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in contents.items():
                archive.writestr(member, content)
    np.savez_compressed(FOLDER / "keras.npz", **arrays)


if __name__ == "__main__":
    main()
