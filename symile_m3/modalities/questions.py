"""Retrieving one modality from others: which samples ask, who answers, and at which rank the right one comes.

Suffixes: Q queries, N samples, K candidates of a query, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symile_m3.errors import UsageError
from symile_m3.modalities.candidates import draw_candidates, ranks_among
from symile_m3.modalities.encoded import EncodedSplit
from symile_m3.model import Model
from symile_m3.objectives import Objective
from symile_m3.objectives.scores import Scores
from symile_m3.ranking import Answers, first_right
from symile_m3.shards import missing_mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is retrieved, and from what.

    Attributes:
        retrieve: a modality.
        given: others, in the order of the model's.
    """

    retrieve: str
    given: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.retrieve} from {', '.join(self.given)}"


def all_questions(modalities: Sequence[str]) -> list[Question]:
    """Each modality from all the others and, where these are several, from each alone."""
    found = []
    for retrieve in modalities:
        others = tuple(name for name in modalities if name != retrieve)
        found.append(Question(retrieve=retrieve, given=others))
        if len(others) > 1:
            found += [Question(retrieve=retrieve, given=(name,)) for name in others]
    return found


def parse_question(text: str, modalities: Sequence[str]) -> Question:
    """The question that `RETRIEVED=GIVEN,GIVEN` stands for; without `=`, from all the others.

    Raises:
        UsageError: no such modality, or none is given.
    """
    retrieve, _, rest = text.partition("=")
    given = [name.strip() for name in rest.split(",")] if rest else [one for one in modalities if one != retrieve]
    for name in (retrieve, *given):
        if name not in modalities:
            raise UsageError(f"--retrieve {text}: no modality {name!r}; known: {', '.join(modalities)}")
    if retrieve in given or len(set(given)) < len(given):
        raise UsageError(f"--retrieve {text}: give each modality once")
    return Question(retrieve=retrieve, given=tuple(name for name in modalities if name in given))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question put to a split.

    Attributes:
        queries_Q: rows of the samples that ask: those that have what is retrieved and some of what is given.
        lists_QK: the candidates of each, the right one first; None where all samples are candidates.
        candidates: rows of the samples that have what is retrieved.
        hidden: modality -> (N,) what queries do not show.
        chance: how often a candidate drawn at random is right.
    """

    queries_Q: Tensor
    lists_QK: Tensor | None
    candidates: Tensor
    hidden: Mapping[str, Tensor]
    chance: float


def ask(question: Question, split: EncodedSplit, *, candidates: int, seed: int = 0, missing_p: float = 0.0) -> Asked:
    """Who asks, and who answers.

    Args:
        candidates: of a query; 0 for all samples, or those that the data lists.
        seed: of the candidates and of what is hidden.
        missing_p: hide each given modality of each query with this probability.

    Raises:
        UsageError: no sample can ask, or there are too few candidates.
    """
    hidden = {}
    for name in question.given:
        hidden[name] = ~split.observed[name]
        if missing_p:
            hidden[name] = hidden[name] | torch.from_numpy(missing_mask(split.keys, name, missing_p, seed))
    allowed_N = split.observed[question.retrieve]
    some_N = torch.stack([split.observed[name] for name in question.given]).any(dim=0)
    asking_N = allowed_N & some_N
    lists = split.lists
    if lists is not None:
        lists = lists[asking_N[lists[:, 0]]]
        queries_Q = lists[:, 0]
    else:
        queries_Q = asking_N.nonzero()[:, 0]
    if not len(queries_Q):
        raise UsageError(f"{question}: no sample has what is needed")
    if lists is None and candidates:
        lists = draw_candidates(split.keys, split.label_ids_N, queries_Q, allowed_N, candidates, seed)
    rows = allowed_N.nonzero()[:, 0]
    if lists is None:
        answers = Answers(wanted_Q=split.label_ids_N[queries_Q], labels_NW=split.label_ids_N[rows][:, None])
        chance = answers.chance()
    else:
        chance = float((1 / (lists >= 0).sum(dim=1).double()).mean())
    return Asked(queries_Q=queries_Q, lists_QK=lists, candidates=rows, hidden=hidden, chance=chance)


ScoresOf = Callable[[str, Sequence[str]], Scores]
"""The scores for one modality retrieved from others."""


def scores_of(model: Model, objective: Objective, *, terms: bool = False) -> ScoresOf:
    """The objective's scores under what the model has learned: computed on its device, of and as tensors on the CPU.

    With `terms` they are of queries as `Objective.term` makes them, or of means of such.
    """

    def scores(retrieve: str, given: Sequence[str]) -> Scores:
        there, device = model.scores(objective, retrieve, given, terms=terms), model.device

        def here(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
            return there([rep_QD.to(device) for rep_QD in query_reps_QD], candidates_ND.to(device)).detach().cpu()

        return here

    return scores


@torch.inference_mode()
def answer(
    question: Question, asked: Asked, split: EncodedSplit, scores: ScoresOf, fill: Mapping[str, Tensor]
) -> Tensor:
    """(Q,) ranks of the best right candidate, from 1.

    Args:
        scores: see `scores_of`.
        fill: modality -> (D,) put in place of what a query does not show. What is neither given nor in `fill` is left
            out of the score.
    """
    queries_Q = asked.queries_Q
    reps: dict[str, Tensor] = {}
    for name in split.reps:
        if name == question.retrieve:
            continue
        if name in question.given:
            rep_QD = split.reps[name][queries_Q]
            gone_Q = asked.hidden[name][queries_Q]
            if gone_Q.any():
                rep_QD = torch.where(gone_Q[:, None], fill[name], rep_QD)
            reps[name] = rep_QD
        elif name in fill:
            reps[name] = fill[name].expand(len(queries_Q), -1)
    every_ND = split.reps[question.retrieve]
    score, queries = scores(question.retrieve, list(reps)), list(reps.values())
    if asked.lists_QK is not None:
        return ranks_among(score, queries, every_ND, asked.lists_QK)
    answers = Answers(wanted_Q=split.label_ids_N[queries_Q], labels_NW=split.label_ids_N[asked.candidates][:, None])
    return first_right(score, queries, every_ND[asked.candidates], answers)
