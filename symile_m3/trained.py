"""What every trained model in use can do, whatever its modalities: score candidates for queries, and rank them.

Suffixes: Q queries, N candidates, K best of them, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.errors import UsageError
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective, best_candidates
from symile_m3.objectives.scores import Scores
from symile_m3.standins import MEAN_UNIT

_BATCH = 32

Given = Tensor | Any
"""Of one modality: raw media, one or several, or representations (N, D) as the encoders return them."""


class Trained(ABC):
    """A model that was trained, and what stands for the modalities that a query lacks.

    Representations are float32 and on the CPU, whatever the towers run on.

    Args:
        directory: its files.
        model: with the trained weights, where it is to run.
        objective: that it was trained by.
        standins: modality -> (D,) what stands for a missing one.
        origins: modality -> what that is.
        learned: the modalities for which the model has learned it.

    Attributes:
        directory: its files.
        objective: its name.
        standins: modality -> what takes its place in a query that lacks it.
    """

    def __init__(
        self,
        directory: Path,
        model: Model,
        objective: Objective,
        *,
        standins: Mapping[str, Tensor],
        origins: Mapping[str, str],
        learned: frozenset[str],
    ) -> None:
        self.directory = directory
        self.objective = objective.name
        self._objective = objective
        self._model = model.eval()
        self._device = next(model.parameters()).device
        # As in evaluation: the cosine of a pair needs no third modality; a product does.
        alone = "" if learned else objective.alone
        self._in_pairs = bool(alone)
        self._standins, self._origins = standins, origins
        self.standins: Mapping[str, str] = dict.fromkeys(self.modalities, alone) if alone else dict(origins)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the order of the model's."""
        return self._model.modalities

    @property
    def dim(self) -> int:
        """D of the representations."""
        return self._model.dim

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r}, objective={self.objective!r}, dim={self.dim})"

    def encode(self, modality: str, given: Given) -> Tensor:
        """Representations (N, D) of raw media of a modality; representations are returned as they are.

        Raises:
            UsageError: an unknown modality, or representations of another width.
            SourceError: a medium cannot be used.
        """
        self._check_modality(f"{modality!r}", modality)
        if isinstance(given, Tensor):
            if given.ndim != 2 or given.shape[1] != self.dim:
                raise UsageError(f"{modality}: representations are (N, {self.dim}), not {tuple(given.shape)}")
            return given.detach().float().cpu()
        return self._encode_raw(modality, given)

    @abstractmethod
    def _encode_raw(self, modality: str, given: Any) -> Tensor:
        """Representations (N, D) of raw media of a modality."""

    @torch.no_grad()
    def _scores(self, given: Mapping[str, Given | None], retrieve: str) -> Tensor:
        """Scores (Q, N) of the candidates for each query."""
        scores, queries, candidates_ND = self._asked(given, retrieve)
        return scores(queries, candidates_ND).cpu()

    @torch.no_grad()
    def _rank(self, given: Mapping[str, Given | None], retrieve: str, k: int | None) -> tuple[Tensor, Tensor]:
        """Scores (Q, K) of the best k candidates of each query, best first, and which these are (Q, K)."""
        scores, queries, candidates_ND = self._asked(given, retrieve)
        if k is not None and k < 1:
            raise UsageError(f"k = {k}: at least 1")
        most = len(candidates_ND)
        best_QK, rows_QK = best_candidates(scores, queries, candidates_ND, min(k or most, most))
        return best_QK.cpu(), rows_QK.cpu()

    def _asked(self, given: Mapping[str, Given | None], retrieve: str) -> tuple[Scores, list[Tensor], Tensor]:
        """What scores them, and the representations of the queries, one (Q, D) a modality, and of the candidates."""
        self._check_modality(f"retrieve={retrieve!r}", retrieve)
        for name in given:
            self._check_modality(f"{name}=", name)
        others = [name for name in self.modalities if name != retrieve]
        if given.get(retrieve) is None:
            raise UsageError(f"no candidates: give {retrieve}=, or another modality to retrieve=")
        if all(given.get(name) is None for name in others):
            more = ["", ", or both", ", or several"][min(len(others), 3) - 1]
            raise UsageError(f"no query: give {' or '.join(f'{name}=' for name in others)}{more}")
        found = {name: self.encode(name, value) for name, value in given.items() if value is not None}
        if not len(found[retrieve]):
            raise UsageError(f"no candidates: {retrieve}= is empty")
        count = max(len(found[name]) for name in others if name in found)
        queries: dict[str, Tensor] = {}
        for name in others:
            if name not in found and self._in_pairs:
                continue
            rep_QD = self._terms(name, given[name], found[name]) if name in found else self._standin(name)[None]
            if len(rep_QD) not in (1, count):
                numbers = " and ".join(f"{len(found[name])} of {name}" for name in others if name in found)
                raise UsageError(f"queries of {numbers}: give as many of each, or one of one of them")
            queries[name] = rep_QD.expand(count, -1).to(self._device)
        scores = self._model.scores(self._objective, retrieve, tuple(queries), terms=True)
        return scores, list(queries.values()), found[retrieve].to(self._device)

    def _terms(self, modality: str, given: Any, rep_QD: Tensor) -> Tensor:
        """Representations of queries as they enter the scores; `given` is what they were made of."""
        return self._objective.term(rep_QD)

    def _standin(self, modality: str) -> Tensor:
        """(D,) as it enters the scores; a mean of normalised ones is not normalised again."""
        rep_D = self._standins[modality]
        return rep_D if self._origins[modality].startswith(MEAN_UNIT) else self._objective.term(rep_D)

    def _check_modality(self, what: str, name: str) -> None:
        if name not in self.modalities:
            raise UsageError(f"{what}: no modality; known: {', '.join(self.modalities)}")

    def _encode(self, modality: str, inputs: Inputs) -> Tensor:
        rep_ND = self._model.encode(modality, moved(inputs, self._device))
        return rep_ND.float().cpu()

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts)) if parts else torch.empty(0, self.dim)


def in_parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    """The items, as many at a time as are encoded together."""
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
