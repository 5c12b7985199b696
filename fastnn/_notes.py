"""Where the two books treat each thing, and mistakes that others have made with it.

One entry for each name that `fastnn.explain` knows; a test walks the registries for names without
one. An empty chapter means that the book does not have it. The mistakes were read in the sources
of the books and of other libraries, or found by running them.
"""

from typing import NamedTuple

__all__ = ["NOTES", "Note"]


class Note(NamedTuple):
    """Chapters in *Neural Networks from Scratch* and in Nielsen's book, and mistakes to avoid."""

    nnfs: str = ""
    nielsen: str = ""
    mistakes: tuple[str, ...] = ()


_KINK = "Where the function has a kink, formula and code must agree on the derivative at 0 itself."
_NAN = (
    "`x if x > 0 else 0` turns NaN into 0 and hides a training gone wrong; `0 if x <= 0 else x` "
    "keeps it, as numpy's maximum does."
)
_OVERFLOW = (
    "exp(-x) overflows for x below -88 in float32 (-709 in float64). Take the exponential of -|x| "
    "and choose the form by the sign of x."
)
_EPSILON = (
    "Epsilon outside the root (nnfs, torch) and inside it (Keras) are different optimizers where "
    "gradients are tiny. Say which one a figure was made with."
)
_ROW_MEAN = (
    "Report the very function whose gradient is taken. scikit-learn's MLP with k outputs reports a "
    "mean over them and follows the gradient of k times that."
)
_STEPS = (
    "Count updates, not parameter arrays and not epochs. A step count that grows once for each "
    "array, as in tiny-dnn, makes every array's correction a different one."
)
_DECAY = (
    "Know what the decay counts: updates in nnfs and here, samples in scikit-learn's invscaling, "
    "nothing in Keras, which now ignores `decay=`."
)
_ZERO_ONE = (
    "Targets outside of 0..1 make the loss unbounded below: the network is rewarded for ever "
    "larger outputs. They are refused before training."
)

_ACTIVATIONS = {
    "linear": Note("chapter 17 (and chapter 4, why it is not enough)", "chapter 3"),
    "relu": Note(
        "chapter 4; backward in chapter 9",
        "chapter 3, Other models of artificial neuron; chapter 6",
        (_NAN, _KINK + " It is 0 here, for -0.0 as well."),
    ),
    "leaky_relu": Note(mistakes=(_NAN, _KINK + " It is alpha here.")),
    "elu": Note(
        mistakes=("exp(x) - 1 loses all digits for x near 0 and overflows above: use expm1, below",)
    ),
    "selu": Note(
        mistakes=(
            "Its two constants go with weights drawn by lecun_normal; with others nothing "
            "normalises itself.",
        )
    ),
    "sigmoid": Note(
        "chapter 16 (chapter 4 introduces it)",
        "chapter 1, Sigmoid neurons",
        (
            _OVERFLOW,
            "With the quadratic cost a saturated sigmoid learns slowly however wrong it is; with "
            "binary_cross_entropy the gradient is output minus target (Nielsen, chapter 3).",
        ),
    ),
    "tanh": Note(
        "",
        "chapter 3, Other models of artificial neuron",
        ("(exp(x) - exp(-x)) / (exp(x) + exp(-x)) is inf / inf for large x, and 0 near 0.",),
    ),
    "softmax": Note(
        "chapter 4; backward in chapter 9",
        "chapter 3, Softmax",
        (
            "Subtract the row's maximum before the exponential, or a logit of 89 overflows in "
            "float32.",
            "Its derivative mixes the outputs of a row: it is a matrix, not one number for each "
            "output. Train it with cross_entropy, where the two become output minus target.",
        ),
    ),
    "softplus": Note(
        mistakes=("log(1 + exp(x)) overflows: use max(x, 0) + log1p(exp(-|x|)).",),
    ),
    "softsign": Note(),
    "gelu": Note(
        mistakes=(
            "There is an exact form with erf and an approximation with tanh; they differ by up to "
            "5e-4, so weights must be run with the one they were trained with.",
        )
    ),
    "silu": Note(mistakes=(_OVERFLOW,)),
    "mish": Note(
        mistakes=("tanh(log(1 + exp(x))) overflows if it is written as it stands; see softplus.",)
    ),
    "exponential": Note(
        mistakes=(
            "Nothing bounds it: as an output it belongs with the poisson loss, whose gradient is "
            "output minus target where the two are fused.",
        )
    ),
    "step": Note(
        "chapter 4, The step activation function",
        "chapter 1, Perceptrons",
        ("Its derivative is 0 wherever there is one: gradient descent learns nothing through it.",),
    ),
}

_LOSSES = {
    "cross_entropy": Note(
        "chapter 5; with softmax in chapter 9",
        "chapter 3, Softmax (the log-likelihood cost, eq. 80)",
        (
            "Take the logarithm of the softmax as x - max - log(sum of exp(x - max)). Clipping "
            "probabilities at 1e-7, as nnfs and Keras do, makes 16.12 the largest loss there is, "
            "and the loss no longer the function whose gradient is taken.",
            "The mean of log(p + epsilon), as in skorch, is another function again.",
            "Labels out of range must be an error: as an index, -1 is the last class.",
            "A row of logits that are all -inf has no softmax: its loss is NaN, not 0.",
        ),
    ),
    "binary_cross_entropy": Note(
        "chapter 16",
        "chapter 3, The cross-entropy cost function (eq. 57, 63)",
        (
            "Do not clip the probabilities and then differentiate: for a sigmoid that is sure and "
            "wrong, x = -40 and target 1, nnfs's gradient is -4e-11 where it should be -1, and the "
            "neuron stops learning. From the logit: max(x, 0) - x * target + log1p(exp(-|x|)).",
            "0 * log(0) is NaN; `nan_to_num`, as in network2, also turns a true infinity into "
            "1.8e308.",
            "Nielsen sums over the outputs, here as in nnfs it is the mean: see "
            "fastnn.conventions.loss_scale.",
            _ZERO_ONE,
        ),
    ),
    "mse": Note("chapter 17", "", (_ROW_MEAN, "Half of it, a sum, a mean: see conventions.")),
    "quadratic": Note(
        "",
        "chapter 1, eq. 6; chapter 2",
        (
            "With sigmoid outputs it learns slowly where it is most wrong, as the derivative of a "
            "saturated sigmoid is nearly 0 (chapter 3).",
        ),
    ),
    "mae": Note(
        "chapter 17",
        "",
        (
            "The gradient is sign(output - target). nnfs has sign(target - output): with it, "
            "training climbs.",
            "0 where they are equal, neither +1 nor -1.",
        ),
    ),
    "huber": Note(
        mistakes=("Both pieces and their slopes must meet at delta: delta * (|e| - delta / 2).",)
    ),
    "log_cosh": Note(
        mistakes=("cosh overflows for errors of 90: |e| + log1p(exp(-2 |e|)) - log 2 does not.",)
    ),
    "quantile": Note(
        mistakes=(
            "Under-prediction costs q, over-prediction 1 - q; exchanged, the 0.9 quantile becomes "
            "the 0.1 one.",
        )
    ),
    "poisson": Note(
        mistakes=(
            "It takes a rate above 0, as the exponential activation gives, not its logarithm.",
            "Targets are counts: below 0 they are an error.",
        )
    ),
    "gaussian_nll": Note(
        mistakes=(
            "Let the network say the logarithm of the variance: a variance itself can become 0 or "
            "less.",
        )
    ),
    "hinge": Note(
        mistakes=(
            "Targets are -1 and 1: used as a factor, a 0 makes the row cost 1 whatever the output.",
        )
    ),
    "kl_divergence": Note(
        mistakes=(
            "0 * log(0) is 0, not NaN.",
            "It is not symmetric: the target comes first.",
        )
    ),
}

_SHARES = ("A class that is never said, or never there, divides 0 by 0: say what that counts as.",)
_METRICS = {
    "accuracy": Note("chapter 5, Accuracy calculation; chapter 18", "chapter 1"),
    "categorical_accuracy": Note(
        "chapter 5, Accuracy calculation",
        "chapter 1",
        ("Weigh batches by their rows: a mean of batch means counts a short last batch too much.",),
    ),
    "binary_accuracy": Note("chapter 16", "", ("An output of exactly 0.5 counts as no.",)),
    "top_k_accuracy": Note(mistakes=("Equal outputs must not all count as among the largest.",)),
    "regression_accuracy": Note(
        "chapter 17, Accuracy",
        "",
        (
            "The share of outputs within std(target) / 250 of their target is the book's own; it "
            "says as much about the data as about the network.",
            "Divide by values, not by rows: nnfs's can print 3.0 for three outputs.",
        ),
    ),
    "rmse": Note(mistakes=("The root of the mean, not the mean of the batches' roots.",)),
    "r2": Note(mistakes=("The mean in the denominator is that of all targets, not of a batch.",)),
    "confusion_matrix": Note(mistakes=("Rows are the truth, columns what was said; some swap.",)),
    "precision": Note(mistakes=_SHARES),
    "recall": Note(mistakes=_SHARES),
    "f1": Note(mistakes=_SHARES),
    "auc": Note(mistakes=("Equal scores count half: how they are sorted must not matter.",)),
    "log_loss": Note(
        "chapters 5 and 16, as losses",
        "chapter 3",
        (
            "It takes probabilities: of those that were rounded to 0 it can only say inf. The loss "
            "cross_entropy, from logits, is exact.",
        ),
    ),
}

_OPTIMIZERS = {
    "sgd": Note(
        "chapter 10; with momentum there, too",
        "chapter 1, Learning with gradient descent (eq. 20-21); chapter 3, Momentum-based gradient "
        "descent (eq. 107-108), which names Nesterov's",
        (
            _DECAY,
            "Shuffle anew in every epoch, and not the caller's own arrays: nnfs never shuffles, "
            "Nielsen's code shuffles the list it was given.",
            "torch keeps a velocity without the learning rate in it: the same steps only while "
            "that stays constant.",
        ),
    ),
    "adagrad": Note(
        "chapter 10, AdaGrad",
        "",
        (_EPSILON, "Keras begins its sum of squares at 0.1, nnfs, torch and fastnn at 0."),
    ),
    "rmsprop": Note("chapter 10, RMSProp", "", (_EPSILON,)),
    "adam": Note(
        "chapter 10, Adam",
        "",
        (
            _STEPS,
            "The first step is number 1: with 0 the correction divides by 0. Multiplying by "
            "1 - beta**t, as in convnetjs, makes it 10 times too large.",
            "Moments belong to the optimizer. nnfs leaves them on the layer: a new optimizer then "
            "takes old moments for step 1, and Adam after Adagrad fails outright.",
            "Epsilon is added to the corrected root (paper, nnfs, torch) or to the raw one (Keras, "
            "scikit-learn), where it counts 31.6 times as much at step 1: epsilon_mode says which.",
            "Powers of beta2 = 0.999 want float64; in float32, 1 - beta2 itself is off by 5e-5.",
            _DECAY,
        ),
    ),
    "adamw": Note(
        mistakes=(
            "Its weight_decay is no L2 penalty: it is not divided by the root of the second "
            "moment. torch's Adam(weight_decay=...) is the penalty.",
            "Say whether it is multiplied by the learning rate: torch, Keras and fastnn do so.",
        )
    ),
    "nadam": Note(mistakes=(_STEPS, _EPSILON)),
    "lion": Note(
        mistakes=(
            "Its step is a sign: of the size of the learning rate everywhere. Take a third to a "
            "tenth of Adam's rate, and three to ten times its weight decay.",
        )
    ),
    "lbfgs": Note(
        "",
        "chapter 3 names it, under Variations on stochastic gradient descent",
        (
            "It believes its loss: with dropout, noise, or a batch that changes between two "
            "evaluations, the curvature it learns is noise.",
        ),
    ),
}

_SCALED = "fan_in counts the values that come in, however the array is laid out."
_INITIALIZERS = {
    "zeros": Note(
        "chapter 3, for biases",
        "chapter 6 (network3), for softmax layers",
        ("Weights that are all alike stay alike: every neuron of a layer learns the same.",),
    ),
    "ones": Note(),
    "constant": Note(
        mistakes=("Weights that are all alike stay alike: every neuron of a layer learns the same",)
    ),
    "normal": Note(
        "chapter 3, with 0.01; chapter 17, with 0.1, as 0.01 does not train its sine",
        "chapter 1, with 1, for weights and biases",
        (
            "With a deviation of 1 and 784 inputs, sums have one of 28: sigmoids begin saturated "
            "(Nielsen, chapter 3).",
        ),
    ),
    "truncated_normal": Note(
        mistakes=(
            "Cutting at two deviations makes the deviation 0.88 of what was asked; scaled variants "
            "must make up for it.",
        )
    ),
    "orthogonal": Note(
        mistakes=("The signs of a QR decomposition are not random: multiply by those of R.",)
    ),
    "fan_out_normal": Note(
        "", "chapter 6, in the fully connected layers of network3", ("See lecun_normal.",)
    ),
    "glorot_normal": Note("chapter 4 names it", "", (_SCALED,)),
    "glorot_uniform": Note("chapter 4 names it", "", (_SCALED,)),
    "he_normal": Note("", "", (_SCALED, "For relu: half of its inputs are lost, hence the 2.")),
    "he_uniform": Note("", "", (_SCALED,)),
    "lecun_normal": Note(
        "",
        "chapter 3, Weight initialization: his default, with biases from N(0, 1)",
        (_SCALED, "network3 of chapter 6 divides by fan_out instead."),
    ),
}

_LAYERS = {
    "dense": Note(
        "chapter 3; backward in chapter 9",
        "chapter 1; backward in chapter 2 (BP1-BP4)",
        (
            "The gradient of a bias is the sum over the batch, not its mean: the mean is already "
            "in the gradient that comes in.",
            "L1 has slope 0 at 0. nnfs takes +1 there and so pushes biases that begin at 0.",
            "Penalties are scaled in six ways by six libraries: see fastnn.conventions.",
        ),
    ),
    "activation": Note("chapter 4", "chapter 1"),
    "input": Note(
        "chapter 18, Layer_Input; chapter 19, scaling",
        "chapter 1, The architecture of neural networks",
        ("Scale new data as the training data were: let the network do it.",),
    ),
    "dropout": Note(
        "chapter 15",
        "chapter 3, Dropout; chapter 6",
        (
            "The rate is the share that is *dropped*: tiny-dnn keeps that share.",
            "Divide by 1 - rate in training, forward and backward alike, and do nothing in "
            "predictions; Nielsen's network3 multiplies weights when it predicts instead.",
            "A stream of random numbers for each layer: network3 seeds every one with 0, so all "
            "drop the same.",
            "A rate of 1 divides by 0.",
        ),
    ),
    "gaussian_noise": Note(mistakes=("Only in training; predictions see the values themselves.",)),
    "batch_norm": Note(
        mistakes=(
            "Say whose share `momentum` is: that of the old mean here and in Keras, of the new one "
            "in torch.",
            "Divide by the biased variance; torch keeps the unbiased one for predictions, fastnn "
            "and Keras the biased one.",
            "Running variances begin at 1, not at 0 as in tiny-dnn.",
            "The running means change once for each training step and never in predictions.",
            "A batch of 1 has no variance: its normalised value is 0 for any input.",
        )
    ),
    "layer_norm": Note(
        mistakes=("Means are over the values of a row, so predictions need no running means.",)
    ),
    "embedding": Note(
        mistakes=(
            "Numbers out of the vocabulary must be an error: as an index, -1 is the last row.",
            "A row that occurs twice in a batch takes the sum of both gradients.",
        )
    ),
    "conv2d": Note(
        mistakes=(
            "The gradient of a weight is the sum over all places it was used at, as well as over "
            "the batch.",
            "Initialize by what a sum has, channels times taps, not by the size of the image: "
            "Nielsen's network3 divides the number going out by the size of the pool.",
            "Say how weights lie: (channels, height, width, filters) here, (filters, channels, "
            "height, width) in torch, (height, width, channels, filters) in Keras.",
        ),
        nielsen="chapter 6, Introducing convolutional networks",
    ),
    "max_pool2d": Note(
        nielsen="chapter 6, Introducing convolutional networks: pooling layers",
        mistakes=(
            "Of several largest values one takes the gradient, not each of them.",
            "Where windows overlap, a value takes the gradients of all that it is the largest of.",
        ),
    ),
    "average_pool2d": Note(nielsen="chapter 6 names L2 pooling, which is another one"),
    "flatten": Note("", "chapter 6 (inside of its fully connected layer)"),
    "reshape": Note(),
    "normalization": Note(
        "chapter 13 (why), chapter 19 (by hand)",
        "",
        ("Adapt it to the training data alone: the test data's mean is knowledge of them.",),
    ),
    "rescaling": Note("chapter 19, by hand: (x - 127.5) / 127.5", "chapter 1: bytes to 0..1"),
}

_OPS = {
    "weighted": Note(
        mistakes=(
            "Weigh loss and gradient alike, and divide both by the same number: scikit-learn "
            "averages the losses of its batches by rows even where the rows have weights.",
        )
    ),
}

NOTES: dict[str, Note] = (
    _ACTIVATIONS | _LOSSES | _METRICS | _OPTIMIZERS | _INITIALIZERS | _LAYERS | _OPS
)
