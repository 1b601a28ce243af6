"""All samples of a split as representations. Suffixes: N samples, D dimensions, B batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.errors import TrainingError
from symile_m3.modalities.declaration import DataConfig, DeclaredConfig
from symile_m3.modalities.prepare import DeclaredBatch, open_loader
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective
from symile_m3.shards import Source
from symile_m3.standins import LEARNED, mean_words

MEAN_OF = 10_000
"""Training samples whose mean representation stands for a missing modality that a model never learned to miss."""
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """A split as a model sees it.

    Attributes:
        keys: of the samples.
        reps: modality -> (N, D); rows of what is missing hold what the tower learned for it.
        observed: modality -> (N,) whether the sample has it.
        label_ids_N: (N,) which samples have one label; each its own where there are no labels.
        lists: the candidates of each query as the data gives them; see `ArraySource`.
    """

    keys: tuple[str, ...]
    reps: Mapping[str, Tensor]
    observed: Mapping[str, Tensor]
    label_ids_N: Tensor
    lists: Tensor | None = None


def inputs_of(batch: DeclaredBatch) -> Inputs:
    """What the towers take for a batch."""
    return Inputs(given=batch.given, missing=batch.missing or None)


@torch.inference_mode()
def encode_split(
    model: Model, source: Source, config: DeclaredConfig, data: DataConfig, *, on_bad_sample: str = "stop"
) -> EncodedSplit:
    """Encode all samples of a split once, read from it in order.

    Raises:
        TrainingError: no sample of the split has a modality.
    """
    model.eval()
    device = model.log_scale.device
    loader = open_loader(source, config, data, batch_size=_BATCH, training=False, on_bad_sample=on_bad_sample)
    keys: list[str] = []
    labels: list[str] = []
    reps: dict[str, list[Tensor]] = {name: [] for name in model.modalities}
    observed: dict[str, list[Tensor]] = {name: [] for name in model.modalities}
    for batch in loader:
        inputs = moved(inputs_of(batch), device)
        for name in model.modalities:
            reps[name].append(model.encode(name, inputs).float().cpu())
            absent = batch.missing.get(name)
            observed[name].append(torch.ones(len(batch.keys), dtype=torch.bool) if absent is None else ~absent)
        keys += batch.keys
        labels += batch.labels
    seen = {name: torch.cat(masks) for name, masks in observed.items()}
    for modality in config.modalities:
        if not seen[modality.name].any():
            raise TrainingError(f"no sample has {' and '.join(modality.member)}, so none has {modality.name}")
    ids_N = np.unique(labels, return_inverse=True)[1] if labels else np.arange(len(keys))
    lists = getattr(source, "lists", None)
    return EncodedSplit(
        keys=tuple(keys),
        reps={name: torch.cat(parts) for name, parts in reps.items()},
        observed=seen,
        label_ids_N=torch.from_numpy(ids_N.astype(np.int64)),
        lists=None if lists is None or loader.bad_samples else torch.from_numpy(lists),
    )


@torch.inference_mode()
def stand_ins(
    model: Model,
    objective: Objective,
    source: Source,
    config: DeclaredConfig,
    data: DataConfig,
    modalities: Sequence[str],
    most: int,
    *,
    on_bad_sample: str = "stop",
) -> dict[str, Tensor]:
    """Modality -> (D,) that stands for a missing one: what was learned, or the mean over training samples.

    Both are as `Objective.term` makes them.

    Args:
        most: training samples that the mean is of, drawn by the recipe's seed.
    """
    model.eval()
    device = model.log_scale.device
    size = min(_BATCH, len(source))
    loader = open_loader(source, config, data, batch_size=size, training=True, on_bad_sample=on_bad_sample)
    found: dict[str, Tensor] = {}
    totals = {name: torch.zeros(model.dim, dtype=torch.float64) for name in modalities if name not in config.learned}
    counts = 0
    for batch in loader:
        inputs = moved(inputs_of(batch), device)
        if not counts:
            every = torch.ones(len(batch.keys), dtype=torch.bool, device=device)
            for name in modalities:
                if name in config.learned:
                    alone = Inputs(given=inputs.given, missing={name: every})
                    found[name] = objective.term(model.encode(name, alone)[0].float()).cpu()
        for name, total in totals.items():
            total += objective.term(model.encode(name, inputs).double()).sum(dim=0).cpu()
        counts += len(batch.keys)
        if not totals or counts >= most:
            break
    return {**found, **{name: (total / counts).float() for name, total in totals.items()}}


def origins(modalities: Sequence[str], config: DeclaredConfig, objective: Objective, samples: int) -> dict[str, str]:
    """Modality -> in words what `stand_ins` gives for it, of so many training samples and at most `MEAN_OF`."""
    mean = mean_words(objective)
    if samples > MEAN_OF:
        mean += f" (over {MEAN_OF:,} of {samples:,} samples)"
    return {name: LEARNED if name in config.learned else mean for name in modalities}
