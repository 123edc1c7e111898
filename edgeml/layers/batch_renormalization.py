"""Batch renormalization (Ioffe 2017, arXiv 1702.03275): batch normalization whose training sees what inference will.

    y = γ·((x - μ_B)/σ_B · r + d) + β        r = clip(σ_B/σ, 1/r_max, r_max),   d = clip((μ_B - μ)/σ, -d_max, d_max)

μ and σ are the moving averages, r and d constants to the gradient. Where neither is clipped, that is γ·(x - μ)/σ + β as
at inference, whatever else is in the batch: small batches no longer disturb each other. Limits open slowly, as in the
paper's section 4: none for an eighth of ``ramp_steps`` (plain batch normalization), then linearly to ``d_max`` at five
eighths and ``r_max`` at the end. Keras 3.15's own ``BatchNormalization(renorm=True)`` has fixed limits.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

WARM_UP, OPEN_D = 1 / 8, 5 / 8  # shares of the ramp: steps 5,000 and 25,000 of the paper's 40,000


@keras.saving.register_keras_serializable("edgeml")
class BatchRenormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch renormalization over every axis but ``axis``; at inference it is batch normalization, and folds like it.

    Args:
        r_max: the most by which a batch's deviation may be off, either way, in the end; at least 1.
        d_max: the most by which its mean may be off, in deviations, in the end.
        ramp_steps: training steps until then.
        options: of ``keras.layers.BatchNormalization``.

    Raises:
        ValueError: a limit below its least value.
    """

    def __init__(self, r_max: float = 3.0, d_max: float = 5.0, ramp_steps: int = 40_000, **options: Any) -> None:
        super().__init__(**options)
        for name, value, least in (("r_max", r_max, 1), ("d_max", d_max, 0), ("ramp_steps", ramp_steps, 1)):
            if not value >= least:
                raise ValueError(f"BatchRenormalization: {name} is {value}; at least {least} is due.")
        self.r_max, self.d_max, self.ramp_steps = float(r_max), float(d_max), int(ramp_steps)

    def build(self, input_shape: Any) -> None:
        """Make the variables of batch normalization, and the number of steps trained."""
        super().build(input_shape)
        self.step = self.add_weight(shape=(), name="step", initializer="zeros", trainable=False, autocast=False)

    def limits(self) -> tuple[Any, Any]:
        """Return r_max and d_max of the step that comes."""
        done = self.step / self.ramp_steps
        opened = [ops.clip((done - WARM_UP) / (end - WARM_UP), 0.0, 1.0) for end in (1.0, OPEN_D)]
        return 1.0 + (self.r_max - 1.0) * opened[0], self.d_max * opened[1]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; in training by the batch, corrected towards the moving averages."""
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        if mask is not None:
            raise ValueError(f"BatchRenormalization '{self.name}': takes no mask.")
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = ops.moments(x, axes=self._reduction_axes)
        deviation, moving = (ops.sqrt(v + self.epsilon) for v in (variance, self.moving_variance))
        r_max, d_max = self.limits()
        r = ops.stop_gradient(ops.clip(deviation / moving, 1.0 / r_max, r_max))
        d = ops.stop_gradient(ops.clip((mean - self.moving_mean) / moving, -d_max, d_max))
        for average, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + batch * (1.0 - self.momentum))
        self.step.assign(self.step + 1.0)
        scale, shift = (r, d) if self.gamma is None else (r * self.gamma, d * self.gamma)
        shift = shift if self.beta is None else shift + self.beta
        y = ops.batch_normalization(x, mean, variance, self.axis, shift, scale, self.epsilon)
        return ops.cast(y, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` takes."""
        own = {"r_max": self.r_max, "d_max": self.d_max, "ramp_steps": self.ramp_steps}
        return {**super().get_config(), **own}
