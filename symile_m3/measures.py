"""What is measured of one trained model: the rank of the right candidate, for every query and question asked.

Suffix: Q queries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from symile_m3.exact import RETRIEVED
from symile_m3.gap import ModalityGap, modality_gap
from symile_m3.information import Bound, unseen_bound
from symile_m3.model import Model
from symile_m3.objectives import Objective
from symile_m3.questions import Encoded, Questions
from symile_m3.ranking import Representations, first_candidate, first_right
from symile_m3.repstore import Mapped, Replaced
from symile_m3.retrieval import QUERY
from symile_m3.shards import missing_mask
from symile_m3.standins import LEARNED, learned_representations, mean_origin, mean_representations
from symile_m3.towers.tokens import TextTokeniser


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured beside the retrieval of the image from audio and text.

    Attributes:
        missing: probabilities with which each query modality is hidden.
        directions: every modality from the other two and from each of them alone.
        gap: the modality gap.
        bound: the bound of the total correlation.
        retrieved: which image each query retrieves.
        seed: of what is hidden, and of the batches of the bound.
    """

    missing: tuple[float, ...] = ()
    directions: bool = False
    gap: bool = False
    bound: bool = False
    retrieved: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What was measured; ranks are (Q,) of the best right candidate, as `first_right` has them.

    Attributes:
        ranks_Q: of the image from audio and text.
        missing: p -> ranks with query modalities hidden.
        directions: (what is retrieved, from what) -> ranks.
        fill: what stands for a hidden modality; empty where none was hidden.
        single_fill: what stands for the other modality of a query of one alone; empty where none was asked.
        gap, bound: where asked for; the bound only where it holds.
        retrieved_Q: the candidate image that each query retrieves; None where not asked for.
    """

    ranks_Q: Tensor
    missing: dict[float, Tensor] = field(default_factory=dict)
    directions: dict[tuple[str, tuple[str, ...]], Tensor] = field(default_factory=dict)
    fill: str = ""
    single_fill: str = ""
    gap: ModalityGap | None = None
    bound: Bound | None = None
    retrieved_Q: Tensor | None = None


def hidden(questions: Questions, p: float, seed: int) -> dict[str, Tensor]:
    """Query modality -> (Q,) True where it is hidden."""
    return {modality: torch.from_numpy(missing_mask(questions.keys, modality, p, seed)) for modality in QUERY}


@torch.inference_mode()
def measure(
    model: Model,
    objective: Objective,
    questions: Questions,
    tokeniser: TextTokeniser,
    asked: Asked,
    *,
    learned: Collection[str] = (),
    on_bad_sample: str = "stop",
) -> Measures:
    """Encode all images, clips and texts once, and rank them for every question asked.

    Args:
        learned: the modalities that were missing in training, so that the model has learned what stands for them;
            for the others it is the mean representation over the training samples.
    """
    encoded = questions.encode(model)
    queries = {name: Mapped(rep, objective.term) for name, rep in encoded.queries.items()}

    def ranks(retrieved: str, reps: Mapping[str, Representations]) -> Tensor:
        scores = model.scores(objective, retrieved, tuple(reps), terms=True)
        candidates, answers = encoded.candidates[retrieved], questions.answers[retrieved]
        return first_right(scores, list(reps.values()), candidates, answers)

    # The cosine of a pair needs no third modality; a product does.
    in_pairs = bool(objective.alone) and not learned
    needed = {*QUERY} if asked.missing else set()
    if asked.directions and not in_pairs:
        needed = {*RETRIEVED}
    standins: Mapping[str, Tensor] = {}
    if needed:
        if needed & set(learned):
            found = learned_representations(model, questions)
            standins = {name: objective.term(rep_D) for name, rep_D in found.items()}
        others = sorted(needed - set(learned))
        if others:
            means = mean_representations(model, objective, questions, tokeniser, others, on_bad_sample=on_bad_sample)
            standins = {**standins, **means}
    missing = {}
    for p in asked.missing:
        masks = hidden(questions, p, asked.seed)
        missing[p] = ranks("image", {name: Replaced(queries[name], masks[name], standins[name]) for name in QUERY})
    complete_Q = ranks("image", {name: queries[name] for name in QUERY})
    directions = (
        {
            (retrieved, given): complete_Q
            if retrieved == "image" and given == QUERY
            else ranks(retrieved, _reps(queries, RETRIEVED[retrieved], given, {} if in_pairs else standins))
            for retrieved, both in RETRIEVED.items()
            for given in (both, *((name,) for name in both))
        }
        if asked.directions
        else {}
    )
    mean = mean_origin(model, objective, len(questions.dataset.readers["train"]))

    def fill(modalities: Collection[str]) -> str:
        found = {LEARNED if name in learned else mean for name in modalities}
        return found.pop() if len(found) == 1 else f"{LEARNED} or {mean}"

    return Measures(
        ranks_Q=complete_Q,
        missing=missing,
        directions=directions,
        fill=fill(QUERY) if asked.missing else "",
        single_fill=(objective.alone if in_pairs else fill(RETRIEVED)) if asked.directions else "",
        gap=modality_gap(model.scores(objective, "image", QUERY), questions, encoded) if asked.gap else None,
        bound=_bound(model, objective, encoded, asked),
        retrieved_Q=(
            first_candidate(
                model.scores(objective, "image", QUERY, terms=True),
                [queries[name] for name in QUERY],
                encoded.candidates["image"],
                questions.answers["image"],
            )
            if asked.retrieved
            else None
        ),
    )


def _reps(
    queries: Mapping[str, Representations],
    modalities: Sequence[str],
    given: Sequence[str],
    standins: Mapping[str, Tensor],
) -> dict[str, Representations]:
    """What is given, and what stands for the rest where there is something."""
    return {
        name: queries[name]
        if name in given
        else Replaced(queries[name], torch.ones(len(queries[name]), dtype=torch.bool), standins[name])
        for name in modalities
        if name in given or name in standins
    }


def _bound(model: Model, objective: Objective, encoded: Encoded, asked: Asked) -> Bound | None:
    """Of a model that is scored by the product, a critic of all modalities at once; cosines see only the pairs."""
    if not asked.bound or not objective.multilinear or len(encoded.queries["text"]) < 3:
        return None
    return unseen_bound(model, encoded, asked.seed)
