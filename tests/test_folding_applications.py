"""The fifteen families of keras.applications: at least as much folded as was ever measured, nothing wrong.

Statistics are those of a batch, then disturbed, so that neither dead nor exploding activations hide an error; the
outputs are logits, since a softmax would hide one too.
"""

import keras
import numpy as np
import pytest
import test_folding_oracle as oracle
from test_folding_oracle import L

from edgeml.folding import fold_batch_norm

pytestmark = pytest.mark.slow

# name: input size, batch norms, of them folded at least, other affine layers that stay at most
FAMILIES = {
    "MobileNet": (96, 27, 27, 0),
    "MobileNetV2": (96, 52, 52, 0),
    "MobileNetV3Small": (96, 34, 34, 1),
    "MobileNetV3Large": (96, 46, 46, 1),
    "EfficientNetB0": (96, 49, 49, 1),
    "EfficientNetV2B0": (96, 59, 59, 1),
    "ResNet50": (64, 53, 53, 0),
    "ResNet50V2": (64, 49, 32, 0),
    "Xception": (71, 40, 40, 0),
    "InceptionV3": (75, 94, 94, 0),
    "InceptionResNetV2": (75, 204, 204, 0),
    "DenseNet121": (64, 121, 59, 0),
    "NASNetMobile": (64, 192, 192, 0),
    "VGG16": (32, 0, 0, 0),
    "ConvNeXtTiny": (32, 0, 0, 0),
}


def batch_norms(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]


def settle(model, x, rng):
    """Take the statistics of ``x`` and disturb them; give scales, shifts and biases values that matter."""
    for layer in model._flatten_layers():
        if getattr(layer, "bias", None) is not None and hasattr(layer.bias, "assign"):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    norms = batch_norms(model)
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.gamma is not None:
            norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        if norm.beta is not None:
            norm.beta.assign(rng.normal(0, 0.5, norm.beta.shape))
    model(x, training=True)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (norm.moving_mean, norm.moving_variance))
        norm.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * rng.normal(size=mean.shape))
        norm.moving_variance.assign(variance * rng.uniform(0.5, 2, variance.shape) + 1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, dtype):
    size, total, folded, others = FAMILIES[family]
    rng = np.random.default_rng(0)
    with oracle.precision(dtype):
        options = {"weights": None, "classes": 100, "classifier_activation": None}
        model = getattr(keras.applications, family)(input_shape=(size, size, 3), **options)
        x = rng.uniform(0, 255, (8, size, size, 3)).astype(dtype)
        settle(model, x, rng)
        result = fold_batch_norm(model)
        left = len(batch_norms(result.model))
        assert len(batch_norms(model)) == total
        assert total - left >= folded
        assert len(result.kept) - left <= others
        assert oracle.range_error(model, result.model, x) <= {"float64": 1e-12, "float32": 1e-5}[dtype]
    keras.backend.clear_session()
