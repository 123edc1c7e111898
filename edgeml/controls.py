"""What an ensemble has to beat: networks that are trained for comparison alone. None of them ships.

    equal params   the best single network of the search with about as many params as the whole ensemble
    equal MACs     likewise
    copies         one network from as many seeds as the ensemble has members: little diversity, the same training
    distilled      the best single network, which learns what the ensemble says

They are chosen by what validation and blend said, and trained as finalists are; what is a finalist already is not
trained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from edgeml import costs, pipeline
from edgeml.assembly import Assembled, Field, graph_of
from edgeml.ensemble import Blend
from edgeml.ensemble.charge import total
from edgeml.records import Cost, Event
from edgeml.run_folder import RunFolder
from edgeml.search.candidates import Candidate
from edgeml.search.engine import Engine

EQUAL = 0.8  # of the ensemble's cost: from here on a single network counts as of equal cost
TEACHER = "ensemble/teacher.keras"


@dataclass(frozen=True)
class Controls:
    """Networks trained to the end; None and () where there is none, or none was asked for. ``cost``: the ensemble's."""

    cost: Cost | None = None
    equal_params: Candidate | None = None
    equal_macs: Candidate | None = None
    copies: tuple[Candidate, ...] = ()
    distilled: tuple[Candidate, ...] = ()


def trained(
    run: RunFolder,
    engine: Engine,
    assembled: Assembled,
    candidates: Sequence[Candidate],
    on_event: pipeline.OnEvent,
) -> Controls:
    """Train what the best ensemble is compared with."""
    field, choice = assembled.field, assembled.choice
    best, config = choice.ensemble, run.recipe.ensemble
    asked = config.controls == "always" or (config.controls == "when_kept" and len(choice.members) > 1)
    if best is None or not (asked or config.distill):
        return Controls()
    graph = graph_of(field, best, run.recipe.export.files)
    networks = _networks(run, field, candidates)
    objective = run.recipe.search.objective
    params, macs = ((_of_equal(networks, graph.cost, key, objective) if asked else None) for key in ("params", "macs"))
    copies = _copies(run, field, networks, best) if asked else ()
    students, lessons = list[Candidate](), {}
    if config.distill:
        path = run.path(*TEACHER.split("/"))
        graph.folding.model.save(path)
        for number, (temperature, hard) in enumerate(product(config.temperature, config.hard_labels), 1):
            student = replace(networks[0], id=f"{pipeline.trial_of(networks[0].id)}-d{number}")
            students.append(student)
            lessons[student.id] = {"teacher": TEACHER, "temperature": temperature, "hard_labels": hard}
    finalists = {c.id for c in field.finalists}
    more = {c.id: c for c in (params, macs, *copies, *students) if c is not None and c.id not in finalists}
    if more:
        text = f"{len(more)} networks more to compare the ensemble with, none of which ships: {', '.join(more)}"
        on_event(Event("controls", text))
    sharing = run.recipe.train.finalists * run.recipe.train.seeds  # as much time each as the finalists had
    ended = pipeline.train_to_the_end(run, engine, list(more.values()), on_event, sharing=sharing, lessons=lessons)
    done = finalists | {c.id for c in ended}

    def kept(some: Iterable[Candidate | None]) -> list[Candidate]:
        return [c for c in some if c is not None and c.id in done]

    return Controls(
        graph.cost,
        next(iter(kept([params])), None),
        next(iter(kept([macs])), None),
        tuple(kept(copies)),
        tuple(kept(students)),
    )


def _networks(run: RunFolder, field: Field, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return every network that was tried: finalists by their blend log-loss, then trials by the objective."""
    order = np.argsort(field.losses, kind="stable")
    finalists = [field.finalists[i] for i in order if field.finalists[i].space in run.recipe.search.space]
    known = {pipeline.trial_of(c.id) for c in finalists}
    objective = run.recipe.search.objective
    rest = [c for c in candidates if c.status == "completed" and c.id not in known]
    return [*finalists, *sorted(rest, key=lambda c: -c.metrics[objective])]


def _of_equal(networks: Sequence[Candidate], cost: Cost, key: str, objective: str) -> Candidate | None:
    """Return the best network, by the search, that costs about as much; else the one that comes nearest from below."""
    limit = getattr(cost, key)
    below = [c for c in networks if getattr(c.cost, key) <= limit]
    equal = [c for c in below if getattr(c.cost, key) >= EQUAL * limit]
    if equal:
        return max(equal, key=lambda c: c.metrics[objective])
    return max(below, key=lambda c: getattr(c.cost, key), default=None)


def _copies(run: RunFolder, field: Field, networks: Sequence[Candidate], best: Blend) -> tuple[Candidate, ...]:
    """Return the best network of which as many as there are members fit the budget, from as many seeds."""
    members, classes = len(best.members), field.blend.shape[2]
    for network in networks:
        cost = total([costs.charged(network.cost)] * members, field.input_elements, classes)
        if not run.recipe.budget.violations(cost):
            first = replace(network, id=pipeline.trial_of(network.id))
            return tuple(pipeline.seeded(first, number) for number in range(1, members + 1))
    return ()
