"""The recipe: what data, which search, what budget, what to export. One frozen record per section, one table of rules.

What a finished network becomes is in ``recipe_files``; the rules of fields are those of ``recipe_rule``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from edgeml.kinds import NAMES
from edgeml.recipe_files import Benchmark, Compress, Export, Quantize, Verify
from edgeml.recipe_rule import required, rule
from edgeml.records import COUNTS, Budget

__all__ = [
    "Augment",
    "Benchmark",
    "Compress",
    "Data",
    "Ensemble",
    "Export",
    "Quantize",
    "Recipe",
    "Search",
    "Splits",
    "Train",
    "Verify",
]

SCHEMA_VERSION = 1
ORACLES = ("random", "grid", "bayesian", "hyperband", "tpe", "nsga2")
SEVERAL = ("nsga2",)  # the oracles that take more than one objective
MAXIMISED = ("val_accuracy", "val_balanced_accuracy")
LATENCY = "latency"  # predicted, at the first limit of the budget
MINIMISED = (*COUNTS, LATENCY)
OBJECTIVES = (*MAXIMISED, *MINIMISED)
TREES = ("random_forest", "hist_gradient_boosting")
SCHEDULES = ("cosine", "plateau", "constant")
SHARES = (Fraction(1), Fraction(1, 2), Fraction(1, 3))
PLATEAU_PATIENCE = 5  # epochs without a lower val_loss before schedule plateau lowers the rate


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Shares of the data; train gets the rest."""

    validation: float = rule(0.1, "share that steers the search", above=0.0, max=0.5)
    blend: float = rule(0.1, "share that fits ensemble weights and picks finalists", above=0.0, max=0.5)
    test: float | str = rule(
        0.2, "share that is measured once, or `given` by the source", above=0.0, max=0.5, one_of=("given",)
    )


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of training images; never of any other split."""

    flip: str = rule("none", "mirror images", choices=("none", "horizontal", "vertical", "both"))
    shift: float = rule(0.0, "largest shift, as a share of height and width", min=0.0, max=0.5)
    crop: float = rule(0.0, "largest share of height and width cut away, then resized back", min=0.0, max=0.9)
    rotation: float = rule(0.0, "largest rotation, in degrees", min=0.0, max=180.0)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples come from and how they are split."""

    source: str = required("kind of source", plugin="data")
    name: str | None = rule(None, "name of the data set (keras_dataset, sklearn_table)")
    path: str | None = rule(None, "file or folder (npz, image_folder, csv), relative to the recipe")
    label: str | None = rule(
        None, "column that holds the class (csv); if left out, the last one of a file, and the file's name in a folder"
    )
    columns: tuple[str, ...] | None = rule(
        None, "columns that are learnt from (csv); all with numbers if left out", min_items=1
    )
    window: int | None = rule(None, "consecutive rows that make one sample (csv); each row is one if left out", min=2)
    stride: int | None = rule(None, "rows from one window to the next (csv); `window` if left out", min=1)
    image_size: int | None = rule(None, "images are resized to this height and width (image_folder)", min=4, max=1024)
    channels: str = rule(
        "auto", "colour of images (image_folder); auto: grey only if every image is", choices=("auto", "rgb", "gray")
    )
    common_scale: bool = rule(
        False, "divide each column by a power of two, so that all lie within -1 to 1: an int8 file has one scale for"
        " all columns. Whoever feeds the files has to divide, too; the bundle says by what",
    )  # fmt: skip
    kind: str = rule(
        "auto", "what samples are; auto: told by their shape, (N, A, B) in an npz being grey images",
        choices=("auto", *NAMES),
    )  # fmt: skip
    labels: tuple[str, ...] | None = rule(None, "class names in label order, where the source has none", min_items=2)
    input: str = rule(
        "auto", "input scaling inside the graph; auto: rescale for images, standardize per feature or channel for"
        " vectors and windows", choices=("auto", "rescale", "standardize"),
    )  # fmt: skip
    splits: Splits = rule(Splits(), "shares of the data")
    augment: Augment = rule(Augment(), "random changes of training images")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which networks are tried, how, and how many."""

    space: tuple[str, ...] = rule(
        ("ds_cnn",), "search space, or a list: the search runs over their union", plugin="search_spaces", min_items=1
    )
    only: tuple[str, ...] | None = rule(
        None, "values that hyper-parameters of the space may take, e.g. [residual=true, stage_*_norm=batch,"
        " optimizer=adam|adamw]; --dry-run lists them", pattern=r"[^\s=]+=[^\s=]+", min_items=1,
    )  # fmt: skip
    oracle: str = rule(
        "random", "who proposes the next network; if left out, hyperband from 9 `epochs` on, else random",
        choices=ORACLES, follows=True,
    )  # fmt: skip
    objective: str = rule(
        "val_accuracy", "what the search maximises; balanced: the mean recall of the classes", choices=MAXIMISED
    )
    objectives: tuple[str, ...] | None = rule(
        None, "objectives of nsga2, `objective` among them; if left out, `objective` and macs", choices=OBJECTIVES,
        min_items=1,
    )  # fmt: skip
    max_trials: int = rule(20, "networks to train", min=1, max=100_000)
    time_limit_minutes: float | None = rule(None, "stop after this time, whichever comes first", above=0.0)
    trial_time_limit_minutes: float | None = rule(None, "a trial that takes longer is stopped", above=0.0)
    memory_limit_mb: int | None = rule(
        None, "a network whose training holds more MiB than this is stopped; what is mapped from files does not count",
        min=1,
    )  # fmt: skip
    workers: int = rule(1, "networks trained at once on this machine, which share its cores", min=1, max=1024)
    epochs: int = rule(6, "epochs per trial", min=1, max=10_000)
    train_samples: int | None = rule(
        None, "training samples that a trial sees; all if left out. Finalists always see all", min=1
    )
    early_stopping: int | None = rule(
        None, "a trial ends after so many epochs without a better `objective`; its best epoch counts anyway. If left"
        " out, none with hyperband or up to 10 `epochs`, else 5", min=1, max=10_000, follows=True,
    )  # fmt: skip
    batch_size: int = rule(32, "samples per training step", min=1, max=65_536)
    tensorboard: bool = rule(False, "keep logs for TensorBoard in the run's folder tensorboard/")
    seed: int = rule(1, "seed of everything random", min=0, max=2**31 - 2)
    member_share: tuple[Fraction, ...] = rule(
        SHARES, "shares of every budget key over which trials are stratified; if left out, [1], [1, 1/2] or"
        " [1, 1/2, 1/3], as ensemble.max_members is 1, 2 or more", above=0, max=1, min_items=1, follows=True,
    )  # fmt: skip
    least_use: float = rule(
        0.0,
        "share of its budget, on average over the keys, that a network should use; random draws are mostly tiny",
        min=0.0,
        max=0.95,
    )


@dataclass(frozen=True, kw_only=True)
class Train:
    """How finalists are trained to the end."""

    epochs: int = rule(30, "epochs per finalist", min=1, max=100_000)
    finalists: int = rule(4, "best candidates that are trained to the end", min=1, max=100)
    seeds: int = rule(
        1, "times that each finalist is trained, from other weights each; each may join the ensemble", min=1, max=20
    )
    schedule: str = rule(
        "cosine", "learning rate: to zero over all epochs, less where val_loss stands still, or as it is",
        choices=SCHEDULES,
    )  # fmt: skip
    early_stopping: int | None = rule(
        None, "plateau, constant: end after so many epochs without a better `objective`, and keep the best one's"
        " weights", min=1, max=100_000,
    )  # fmt: skip
    class_weight: str = rule(
        "none", "balanced: classes count alike in the loss of trials and finalists", choices=("none", "balanced")
    )
    time_limit_minutes: float | None = rule(
        None, "train all finalists within this time, by fewer epochs each", above=0.0
    )
    label_smoothing: float = rule(0.0, "share of the target spread over all classes", min=0.0, max=0.5)


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """How finalists become one graph."""

    max_members: int = rule(3, "most networks in the graph", min=1, max=16)
    trees: tuple[str, ...] | None = rule(
        None, "decision trees that may join, or ship alone; float32 only", choices=TREES, min_items=1
    )
    weights: str = rule(
        "nelder-mead", "how blend weights are fitted", choices=("nelder-mead", "greedy", "random", "uniform")
    )
    mean: str = rule(
        "auto", "how members are averaged; auto: as the blend log-loss says",
        choices=("auto", "arithmetic", "geometric", "exponential"),
    )  # fmt: skip
    keep: str = rule(
        "when_better", "when the ensemble ships instead of the best single network", choices=("when_better", "always")
    )
    controls: str = rule(
        "when_kept", "when networks are trained that the ensemble is compared with in the report, and never ship: the"
        " best of equal params, the best of equal MACs, one network from as many seeds as there are members",
        choices=("when_kept", "always", "never"),
    )  # fmt: skip
    distill: bool = rule(False, "train one network on what the ensemble says, to be reported beside it")
    temperature: tuple[float, ...] = rule(
        (2.0,), "temperatures at which it learns; each is tried", above=0.0, max=100.0, min_items=1
    )
    hard_labels: tuple[float, ...] = rule(
        (0.1,), "shares of the true labels in what it learns; each is tried", min=0.0, max=1.0, min_items=1
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run needs to know."""

    schema_version: int = required("version of this format", choices=(SCHEMA_VERSION,))
    name: str = required(
        "names the run and the bundle: up to 64 letters, digits, - and _", pattern=r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
    )
    data: Data = required("where the samples come from")
    search: Search = rule(Search(), "which networks are tried")
    budget: Budget = rule(Budget(), "what the whole exported graph may need; every key optional, all must hold")
    train: Train = rule(Train(), "how finalists are trained")
    ensemble: Ensemble = rule(Ensemble(), "how finalists become one graph")
    compress: Compress = rule(Compress(), "what is done to the kernels of the graph that ships")
    export: Export = rule(Export(), "which files are written")
    quantize: Quantize = rule(Quantize(), "how integer files are made")
    verify: Verify = rule(Verify(), "gates")
    benchmark: Benchmark = rule(Benchmark(), "how latency is measured")

    @property
    def counted(self) -> tuple[str, ...]:
        """The counts that the budget limits or the search minimises."""
        asked = {*self.budget.keys, *(self.search.objectives or ())}
        return tuple(key for key in COUNTS if key in asked)
