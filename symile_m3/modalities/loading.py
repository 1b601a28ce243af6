"""A model of declared modalities in use: raw samples encoded as training prepared them, and scores, without the data.

Suffixes: N items, Q queries, K best candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symile_m3.assembly import load_best
from symile_m3.errors import SourceError, UsageError
from symile_m3.modalities.declaration import TOWERS, DeclaredConfig
from symile_m3.modalities.prepare import Prepared
from symile_m3.modalities.rawitems import items_of, values_of
from symile_m3.modalities.saved import read_declared
from symile_m3.modalities.towers import new_model
from symile_m3.model import Inputs, Model
from symile_m3.objectives import get_objective
from symile_m3.portable import Portable, read_portable, weights_file
from symile_m3.towers.device import device
from symile_m3.trained import Given, Trained, in_parts


class DeclaredModel(Trained):
    """A model that was trained on declared modalities, and what it takes to use it.

    Made by `symile_m3.load`. Representations are float32 and on the CPU, whatever the towers run on.

    What is raw depends on the member that was declared:

    - `.npy`, or numbers of a JSON member: an array of NumPy's of the declared shape, a number, or the path of an
      `.npy` file; where several are joined, a tuple of them.
    - images: a file, an image of Pillow's, or pixels (H, W, 3) of bytes.
    - audio: a file, or a pair of a waveform (T,) and its sample rate in Hz.
    - text: a string.

    Several come as a list, or as an array with another axis in front. None stands for an item that is missing. A tensor
    of PyTorch's is taken for representations. Give queries that have None among them as raw items: of CLIP a mean of
    normalised representations stands for it, which among encoded ones cannot be told from the rest.

    Attributes:
        directory: its files.
        config: the recipe it was trained by, with the modalities as they were declared.
        dataset: facts of the samples it was trained on.
        objective: its name.
        standins: modality -> what takes its place where a query gives nothing of it.
    """

    def __init__(self, directory: Path, config: DeclaredConfig, portable: Portable, model: Model) -> None:
        super().__init__(
            directory,
            model,
            get_objective(portable.objective, config.negatives),
            standins=portable.standins,
            origins=portable.origins,
            learned=config.learned,
        )
        self.config = config
        self.dataset = portable.dataset
        self._prepared = {modality.name: Prepared(modality) for modality in config.modalities}

    def scores(self, *, retrieve: str, **given: Given | None) -> Tensor:
        """Scores (Q, N) of the candidates for each query; the higher, the better they go together.

        Candidates are what is given of the modality `retrieve`; queries are what is given of the others. Of these some
        may be left out: `standins` says what takes their place. One item goes with any number of the others. Where a
        query has None, what was learned for a missing one stands in its place, or the mean over training samples.

        Args:
            retrieve: the modality of the candidates.
            given: modality -> raw items, one or several, or representations (N, D).

        Raises:
            UsageError: no candidates, no query, or numbers of queries that do not go together.
            SourceError: an item cannot be used.
        """
        return self._scores(self._checked(given, retrieve), retrieve)

    def rank(self, *, retrieve: str, k: int | None = None, **given: Given | None) -> tuple[Tensor, Tensor]:
        """The best k candidates of each query, in memory that does not grow with the number of candidates.

        Args:
            retrieve, given: as for `scores`.
            k: how many; all by default.

        Returns:
            Their scores (Q, K), best first, and which of the candidates they are (Q, K), from 0.

        Raises:
            UsageError: as for `scores`, or k is less than 1.
            SourceError: an item cannot be used.
        """
        return self._rank(self._checked(given, retrieve), retrieve, k)

    def _checked(self, given: dict[str, Given | None], retrieve: str) -> dict[str, Given | None]:
        """What is given, if it holds no candidate that is missing."""
        given = {name: list(value) if isinstance(value, Iterator) else value for name, value in given.items()}
        candidates = given.get(retrieve)
        if isinstance(candidates, list | tuple) and any(item is None for item in candidates):
            raise UsageError(f"{retrieve}: a candidate is missing (None); leave it out")
        return given

    @torch.no_grad()
    def _encode_raw(self, modality: str, given: Any) -> Tensor:
        prepared = self._prepared[modality]
        try:
            items = items_of(given, prepared.config)
        except ValueError as error:
            raise SourceError(f"{modality}: {error}") from error
        found = []
        for part in in_parts(list(enumerate(items))):
            made = [self._made(prepared, item, f"item {i} of {len(items)}") for i, item in part]
            absent_B = torch.tensor([one is None for one in made])
            learned = modality in self.config.learned
            missing = {modality: absent_B} if learned else None
            rep_BD = self._encode(modality, Inputs(given={modality: prepared.together(made)}, missing=missing))
            if absent_B.any() and not learned:
                rep_BD = torch.where(absent_B[:, None], self._standins[modality], rep_BD)
            found.append(rep_BD)
        return self._joined(found)

    def _terms(self, modality: str, given: Any, rep_QD: Tensor) -> Tensor:
        term_QD = super()._terms(modality, given, rep_QD)
        if modality in self.config.learned or not isinstance(given, list | tuple):
            return term_QD
        absent_Q = torch.tensor([item is None for item in given])
        return torch.where(absent_Q[:, None], self._standin(modality), term_QD) if absent_Q.any() else term_QD

    @staticmethod
    def _made(prepared: Prepared, item: Any, which: str) -> Any:
        """An item as its tower takes it; None where it is missing."""
        try:
            return None if item is None else prepared.made(values_of(item, prepared.config))
        except ValueError as error:
            raise SourceError(f"{prepared.config.name}, {which}: {error}") from error


def open_declared(directory: Path, *, own_towers: bool = True) -> DeclaredModel:
    """The model of declared modalities in the directory of a run, or in a folder it was exported to.

    Args:
        own_towers: whether factories of the user's, which are code, may be imported.

    Raises:
        NotBuiltError: the run is not finished.
        UsageError: a tower of the user's is not to be had, or not wanted.
        TrainingError: something is damaged.
    """
    portable = read_portable(directory)
    config, _ = read_declared(directory)
    theirs = [modality.tower for modality in config.modalities if modality.tower not in TOWERS]
    if theirs and not own_towers:
        raise UsageError(
            f"{directory}: the tower {theirs[0]} is code of its author's, and a model from the Hub runs none; "
            "where you have that module, load this folder by its path"
        )
    model = new_model(config, get_objective(portable.objective, config.negatives))
    load_best(model, weights_file(directory))
    return DeclaredModel(directory, config, portable, model.to(device()))
