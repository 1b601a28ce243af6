"""Training on triples: batches from the shards of a dataset, and validation by retrieval from audio and text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.batches import Batch, labels_of, open_loader, training_inputs
from symile_m3.features import Dataset, Features
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective
from symile_m3.recipe import TrainConfig
from symile_m3.retrieval import QUERY, Retrieval, retrieve
from symile_m3.shards import Loader, missing_mask
from symile_m3.towers.tokens import TextTokeniser


class TripleTask:
    """What a run on triples trains on and is validated by; see `symile_m3.run.Task`."""

    def __init__(
        self,
        dataset: Dataset,
        features: Features,
        config: TrainConfig,
        tokeniser: TextTokeniser,
        *,
        on_bad_sample: str = "stop",
    ) -> None:
        self._dataset = dataset
        self._features = features
        self._config = config
        self._tokeniser = tokeniser
        self._on_bad_sample = on_bad_sample
        self.validation = Retrieval.of_split(dataset, features, "val", tokeniser, on_bad_sample)
        self.hidden: dict[str, Tensor] = {
            modality: torch.from_numpy(missing_mask(self.validation.keys, modality, p, config.seed))
            for modality, p in config.missing.items()
            if p and modality in QUERY
        }

    def to(self, device: torch.device) -> None:
        """Validate on a device."""
        if device.type != "cpu":
            task = self.validation
            self.validation = replace(
                task,
                batches=tuple(moved(inputs, device) for inputs in task.batches),
                image_NF=task.image_NF.to(device),
                candidate_class_ids=task.candidate_class_ids.to(device),
                class_ids=task.class_ids.to(device),
            )
            self.hidden = {name: mask.to(device) for name, mask in self.hidden.items()}

    def loader(self, *, rank: int, world: int) -> Loader[Batch]:
        """Shuffled training batches, of each this process's share."""
        config = self._config
        return open_loader(
            self._dataset,
            "train",
            tokeniser=self._tokeniser,
            batch_size=config.batch_size // world,
            seed=config.seed,
            training=True,
            redraw=config.redraw,
            missing_p=config.missing_p,
            words=config.soft_targets == "texts",
            on_bad_sample=self._on_bad_sample,
            rank=rank,
            world=world,
        )

    def inputs(self, batch: Batch, generator: torch.Generator, *, rank: int, world: int) -> Inputs:
        """What the towers take for a batch: a random view of each image."""
        return training_inputs(batch, self._features, generator, rank=rank, world=world)

    def labels(self, batch: Batch) -> list[Tensor]:
        """(B,) labels of image, audio and text: the class, the language, and both."""
        return labels_of(batch)

    def words(self, batch: Batch) -> Tensor:
        """(B, W) the words of the texts, as they are drawn in this epoch."""
        assert batch.words is not None
        return batch.words

    def groups(self, model: Model) -> list[dict[str, Any]]:
        """The parameters that are trained, with their peak rate and weight decay."""
        config = self._config
        net = [parameter for part in model.trained_nets() for parameter in part.parameters() if parameter.requires_grad]
        nets = {id(parameter) for parameter in net}
        image = [parameter for parameter in model.towers["image"].parameters() if id(parameter) not in nets]
        head = list(model.head.parameters())
        own = {id(parameter) for parameter in [*image, *net, *head, model.log_scale]}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in own and parameter.requires_grad]
        return [
            {"params": image, "peak": config.image_lr, "weight_decay": config.image_weight_decay},
            {"params": rest, "peak": config.lr, "weight_decay": config.weight_decay},
            {"params": [model.log_scale], "peak": config.lr, "weight_decay": 0.0},
            *([{"params": net, "peak": config.net_lr, "weight_decay": config.weight_decay}] if net else []),
            *([{"params": head, "peak": config.net_lr, "weight_decay": config.weight_decay}] if head else []),
        ]

    def validate(self, model: Model, objective: Objective) -> dict[str, float]:
        """Top-1 of the validation queries, complete and, where training hides something, with as much hidden."""
        hits = retrieve(model, objective, self.validation, (1,))
        record = {"val_top1": float(hits[1].float().mean())}
        if self.hidden:
            hits = retrieve(model, objective, self.validation, (1,), missing=self.hidden)
            record["val_top1_missing"] = float(hits[1].float().mean())
        return record
