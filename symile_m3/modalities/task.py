"""Training on declared modalities: batches from the user's samples, and validation by retrieval."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from symile_m3.modalities.declaration import Declaration
from symile_m3.modalities.encoded import encode_split, inputs_of
from symile_m3.modalities.prepare import DeclaredBatch, open_loader
from symile_m3.modalities.questions import Question, answer, ask, scores_of
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective
from symile_m3.seeds import philox_key
from symile_m3.shards import Loader, Source


class DeclaredTask:
    """What a run on declared modalities trains on and is validated by; see `symile_m3.run.Task`.

    Args:
        declaration: of the modalities.
        sources: the samples of train and val.
        on_bad_sample: stop, or skip.
    """

    def __init__(self, declaration: Declaration, sources: dict[str, Source], *, on_bad_sample: str = "stop") -> None:
        self._data = declaration.data
        self._config = declaration.config
        self._sources = sources
        self._on_bad_sample = on_bad_sample
        names = self._config.modality_names
        retrieve = self._data.retrieve or names[0]
        self.question = Question(retrieve=retrieve, given=tuple(name for name in names if name != retrieve))

    def to(self, device: torch.device) -> None:
        """Samples are read anew for each validation, and moved as they come."""

    def loader(self, *, rank: int, world: int) -> Loader[DeclaredBatch]:
        """Shuffled training batches, of each this process's share."""
        return open_loader(
            self._sources["train"],
            self._config,
            self._data,
            batch_size=self._config.batch_size // world,
            training=True,
            on_bad_sample=self._on_bad_sample,
            rank=rank,
            world=world,
        )

    def inputs(self, batch: DeclaredBatch, generator: torch.Generator, *, rank: int, world: int) -> Inputs:
        """What the towers take for a batch."""
        return inputs_of(batch)

    def labels(self, batch: DeclaredBatch) -> list[Tensor]:
        """(B,) numbers of each modality: those of the label, or else of the key."""
        named = batch.labels or batch.keys
        numbers_B = torch.tensor([philox_key("label", name) % 2**63 for name in named], dtype=torch.int64)
        return [numbers_B] * len(self._config.modalities)

    def words(self, batch: DeclaredBatch) -> Tensor:
        """(B, W) the words of each sample's texts, of all modalities that are texts."""
        assert batch.words is not None
        return batch.words

    def groups(self, model: Model) -> list[dict[str, Any]]:
        """All that is trained at one rate; the scale without weight decay."""
        config = self._config
        rest = [
            parameter
            for parameter in model.parameters()
            if parameter is not model.log_scale and parameter.requires_grad
        ]
        return [
            {"params": rest, "peak": config.lr, "weight_decay": config.weight_decay},
            {"params": [model.log_scale], "peak": config.lr, "weight_decay": 0.0},
        ]

    def validate(self, model: Model, objective: Objective) -> dict[str, float]:
        """Top-1 of retrieving one modality from all the others on the validation samples that have them all."""
        split = encode_split(model, self._sources["val"], self._config, self._data, on_bad_sample=self._on_bad_sample)
        asked = ask(self.question, split, candidates=self._data.candidates, seed=self._config.seed)
        # What a query lacks has what its tower learned in its place already.
        fill = {name: split.reps[name][(~split.observed[name]).nonzero()[:1, 0]] for name in self.question.given}
        ranks_Q = answer(self.question, asked, split, scores_of(model, objective), fill)
        return {"val_top1": float((ranks_Q == 1).float().mean())}
