"""The sections of a recipe about the files: which are written, how they are quantized, verified and timed."""

from __future__ import annotations

from dataclasses import dataclass

from edgeml.precisions import IO, NATIVE, PRECISIONS, File, files, programs
from edgeml.recipe_rule import rule

LADDER = ("equalization", "bias_correction", "qat", "float_layers")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Which files are written."""

    targets: tuple[str, ...] = rule(("tflite", "onnx"), "file formats", plugin="targets", min_items=1)
    precision: tuple[str, ...] = rule(
        ("float32", "int8"), "number formats; each target writes those that it has", choices=tuple(PRECISIONS),
        min_items=1,
    )  # fmt: skip
    io: str = rule(
        NATIVE, "what enters and leaves int8 and int16x8 files: integers (of ONNX files, uint8 in and real numbers"
        " out), or float32 at both ends", choices=IO,
    )  # fmt: skip
    calibration_samples: int = rule(
        256, "training samples that ranges of int8 and int16x8 are taken from", min=32, max=100_000
    )

    @property
    def files(self) -> tuple[File, ...]:
        """Of every target those of the precisions that it writes."""
        return files(self.targets, self.precision, self.io)

    @property
    def programs(self) -> list[tuple[str, str]]:
        """Target and precision of what is made of the files."""
        return programs(self.targets, self.precision)


@dataclass(frozen=True, kw_only=True)
class Compress:
    """What is done to the kernels of the graph that ships, by fine-tuning it."""

    prune: float | str | None = rule(
        None, "share of zeros in every kernel, or `2:4`", above=0.0, max=0.95, one_of=("2:4",)
    )
    cluster: int | None = rule(None, "distinct values in every kernel", min=3, max=256)
    qat: bool = rule(False, "train under int8 rounding")
    epochs: int | None = rule(
        None, "epochs of each step; if left out, as many as it needs: 10 or 20, 5 and 3", min=1, max=1000
    )

    @property
    def is_asked(self) -> bool:
        """Tell whether anything is to be done."""
        return self.prune is not None or self.cluster is not None or self.qat


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """How far integer files may fall, and what is done against it."""

    max_accuracy_drop: float = rule(
        0.005, "loss of accuracy on blend, against float32, from which the next step is taken", min=0.0, max=1.0
    )
    steps: tuple[str, ...] = rule(
        LADDER, "steps that may be taken after plain post-training quantization, in this order", choices=LADDER
    )
    qat_epochs: int = rule(5, "epochs of training under quantization noise", min=1, max=1000)


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Gates; the defaults are stated in the report."""

    float32_max_range_error: float = rule(2e-5, "largest logit difference, as a share of the output range", above=0.0)
    float32_max_probability_error: float = rule(
        1e-6, "largest probability difference, where there are no logits; up to ten times as much where four of the"
        " model's own roundings are more", above=0.0,
    )  # fmt: skip
    float16_max_range_error: float = rule(
        2e-3, "largest difference of logits, or of probabilities where there are none, as a share of their range",
        above=0.0,
    )  # fmt: skip
    float16_max_accuracy_drop: float = rule(0.01, "largest loss of accuracy", min=0.0, max=1.0)
    dynamic_min_sqnr_db: float = rule(15.0, "least signal-to-quantization-noise ratio", min=0.0)
    dynamic_min_cosine: float = rule(0.99, "least cosine similarity", min=0.0, max=1.0)
    dynamic_max_accuracy_drop: float = rule(0.01, "largest loss of accuracy", min=0.0, max=1.0)
    int8_min_sqnr_db: float = rule(15.0, "least signal-to-quantization-noise ratio", min=0.0)
    int8_warn_sqnr_db: float = rule(20.0, "a lower ratio is told as a warning", min=0.0)
    int8_min_cosine: float = rule(0.99, "least cosine similarity", min=0.0, max=1.0)
    int8_max_accuracy_drop: float = rule(0.01, "largest loss of accuracy", min=0.0, max=1.0)
    int16x8_min_sqnr_db: float = rule(30.0, "least signal-to-quantization-noise ratio", min=0.0)
    int16x8_min_cosine: float = rule(0.999, "least cosine similarity", min=0.0, max=1.0)
    int16x8_max_accuracy_drop: float = rule(0.01, "largest loss of accuracy", min=0.0, max=1.0)

    tflm_min_equal_rows: float = rule(
        0.98, "share of inputs that TFLM and LiteRT's reference kernels make equal integers of; less is a warning",
        min=0.0, max=1.0,
    )  # fmt: skip
    tflm_min_top1: float = rule(0.999, "least share of inputs that both decide alike", min=0.0, max=1.0)
    program_max_range_error: float = rule(
        1e-6, "largest difference of a float32 program's outputs from those of the file it is made from, as a share of"
        " their range", above=0.0,
    )  # fmt: skip

    def of(self, precision: str, gate: str) -> float | None:
        """Return the limit of a gate for files of one precision, ``max_accuracy_drop`` say; None if it has none."""
        limit: float | None = getattr(self, f"{precision}_{gate}", None)
        return limit


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How latency is measured."""

    threads: int = rule(1, "threads of each runtime", min=1, max=256)
