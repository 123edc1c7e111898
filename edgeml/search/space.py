"""The union of the search spaces that a recipe names, as KerasTuner sees it: hyper-parameters in, network out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeml import plugins, scaling, splits
from edgeml.errors import RecipeError
from edgeml.kinds import kind_of
from edgeml.operators import Operator, Shape
from edgeml.recipe import Recipe
from edgeml.run_folder import Arrays, RunFiles
from edgeml.scaling import Scaling
from edgeml.search import narrowing, oracles
from edgeml.search.feasibility import Feasibility, Profiles
from edgeml.search.given import Given

CHOICE = "space"  # the hyper-parameter that names the space, where a recipe gives several
TRAINING = {"optimizer": "adam", "learning_rate": 3e-3}  # for spaces that do not declare these hyper-parameters


class Space:
    """Search spaces for one input shape, with the input scaling in front of every network.

    Raises:
        RecipeError: one of them is made for data of another kind.
    """

    def __init__(
        self, names: Sequence[str], input_shape: Shape, num_classes: int, scaling: Scaling, only: Sequence[str] = ()
    ) -> None:
        self.names, self.only = tuple(names), tuple(only)
        self._modules = {name: plugins.get("search_spaces", name) for name in names}
        for name in names:
            _check_kind(name, input_shape)
        self.arguments = (input_shape, num_classes)
        self._scaling = scaling

    def hyperparameters(self) -> Any:
        """Return KerasTuner hyper-parameters that know every entry of every space, at their defaults.

        Raises:
            RecipeError: ``only`` asks for what the spaces do not have.
        """
        import keras_tuner

        hp = keras_tuner.HyperParameters()
        if len(self.names) == 1:
            self._modules[self.names[0]].operators(hp, *self.arguments)
        else:
            hp.Choice(CHOICE, list(self.names))
            for name in self.names:
                hp.values[CHOICE] = name  # entries of an inactive scope would register without their own conditions
                self._scoped(hp, name, "operators")
        narrowing.narrow(hp, self.only)
        hp.values = {}
        for entry in hp.space:
            if hp.is_active(entry):
                hp.values[entry.name] = entry.default
        return hp

    def drawn(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Return the values of ``count`` random networks, in budget or not."""
        return oracles.drawn(self.hyperparameters().space, count, seed)

    def name_of(self, values: Mapping[str, Any]) -> str:
        """Return the space that these values belong to."""
        return str(values.get(CHOICE, self.names[0]))

    def operators(self, values: Mapping[str, Any]) -> tuple[Operator, ...]:
        """List the operators of the folded graph, scaling included."""
        return self._scaling.operators(self._call("operators", Given(values)))

    def build(self, values: Mapping[str, Any]) -> Any:
        """Build the compiled Keras network, without scaling."""
        import keras_tuner

        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        return self._call("build", hp)

    def model(self, values: Mapping[str, Any]) -> Any:
        """Build the Keras network behind its scaling: raw values in, probabilities out; not compiled."""
        return self._scaling.keras(self.build(values))

    def option(self, values: Mapping[str, Any], key: str) -> Any:
        """Return how a network is trained: ``optimizer`` or ``learning_rate``; a space need not declare them."""
        return values.get(key, values.get(f"{self.name_of(values)}/{key}", TRAINING[key]))

    def _call(self, function: str, hp: Any) -> Any:
        if len(self.names) == 1:
            return getattr(self._modules[self.names[0]], function)(hp, *self.arguments)
        return self._scoped(hp, hp.Choice(CHOICE, list(self.names)), function)

    def _scoped(self, hp: Any, name: str, function: str) -> Any:
        with hp.conditional_scope(CHOICE, [name]), hp.name_scope(name):
            return getattr(self._modules[name], function)(hp, *self.arguments)


def takes(name: str) -> tuple[str, ...]:
    """Return the kinds of data that a space is made for: its ``TAKES``; images, if it does not say."""
    return tuple(getattr(plugins.get("search_spaces", name), "TAKES", ("images",)))


def of_kind(kind: str) -> list[str]:
    """Return the spaces for data of a kind, sorted."""
    return [name for name in plugins.names("search_spaces") if kind in takes(name)]


def _check_kind(name: str, input_shape: Shape) -> None:
    found = kind_of(input_shape).name
    if found in takes(name):
        return
    fit = of_kind(found)
    raise RecipeError(
        f"search.space: {name} takes {' and '.join(takes(name))}, the data are {found} {input_shape}; spaces for"
        f" {found}: {', '.join(fit)}. Take one of these, or set data.kind."
    )


def of_run(run: RunFiles, arrays: Mapping[str, Arrays]) -> Space:
    """Return the search space of a run, with the input scaling fitted on train."""
    about = run.dataset()
    low, high = about["value_range"]
    return of_data(run.recipe, arrays["train"][0], (low, high), len(about["labels"]))


def of_data(recipe: Recipe, x: NDArray[Any], value_range: tuple[float, float], num_classes: int) -> Space:
    """Return the search space of a recipe for training samples ``x`` (N, …)."""
    by_itself = "rescale" if kind_of(x.shape[1:]).name == "images" else "standardize"
    standardized = (by_itself if recipe.data.input == "auto" else recipe.data.input) == "standardize"
    scaled = scaling.standardize(*splits.standardization(x)) if standardized else scaling.rescale(value_range)
    config = recipe.search
    return Space(config.space, scaling.input_shape(x), num_classes, scaled, config.only or ())


def feasibility_of(recipe: Recipe, networks: Space, profiles: Profiles | None = None) -> Feasibility:
    """Return the judge of a recipe's budget, of all member shares or, without an ensemble, of the largest.

    Latency limits are judged as far as there are ``profiles``.
    """
    config = recipe.search
    shares = config.member_share if recipe.ensemble.max_members > 1 else (max(config.member_share),)
    in_turn = config.oracle != "grid"
    files = recipe.export.files
    return Feasibility(
        networks.operators, recipe.budget, shares, config.least_use, files=files, in_turn=in_turn,
        counted=recipe.counted, profiles=profiles,
    )  # fmt: skip
