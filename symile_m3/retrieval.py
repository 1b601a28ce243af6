"""Retrieval of the image from audio and text: the queries of a split against all of its images.

A query is the (audio, text) of a sample; the candidates are the images of the split. Retrieval is
right when the retrieved image has the query's class. Suffixes: Q queries, N candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from symile_m3.batches import Batch, open_loader
from symile_m3.features import Dataset, Features
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective, best_candidates
from symile_m3.towers.tokens import TextTokeniser

_BATCH = 500
QUERY = ("audio", "text")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """The task on one split.

    Attributes:
        batches: the queries, with their audio inputs and tokenised texts.
        image_NF: (N, F) features of the candidates, as they are (no augmented views).
        candidate_class_ids: (N,).
        class_ids, language_ids: (Q,) of the queries.
        keys: of the queries.
    """

    batches: tuple[Inputs, ...]
    image_NF: Tensor
    candidate_class_ids: Tensor
    class_ids: Tensor
    language_ids: Tensor
    keys: tuple[str, ...]

    @classmethod
    def of_split(
        cls,
        dataset: Dataset,
        features: Features,
        split: str,
        tokeniser: TextTokeniser,
        on_bad_sample: str = "stop",
    ) -> Retrieval:
        """The queries and candidates of a split, read from its shards in order."""
        loader = open_loader(
            dataset, split, tokeniser=tokeniser, batch_size=_BATCH, seed=0, on_bad_sample=on_bad_sample
        )
        read: list[Batch] = list(loader)
        candidates = dataset.candidates(split)
        return cls(
            batches=tuple(query_inputs(batch, features) for batch in read),
            image_NF=features.image_NVF[candidates, 0].float(),
            candidate_class_ids=dataset.images.group_ids[candidates],
            class_ids=torch.cat([batch.class_ids for batch in read]),
            language_ids=torch.cat([batch.language_ids for batch in read]),
            keys=tuple(key for batch in read for key in batch.keys),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def masked(self, missing: Mapping[str, Tensor]) -> Iterator[Inputs]:
        """The queries' inputs with (Q,) masks of what is missing from them."""
        start = 0
        for inputs in self.batches:
            stop = start + len(inputs)
            yield replace(inputs, missing={name: mask[start:stop] for name, mask in missing.items()})
            start = stop


def query_inputs(batch: Batch, features: Features) -> Inputs:
    """The towers' inputs for the (audio, text) of a batch."""
    return Inputs(given={"audio": features.clip_inputs(batch.clip_rows), "text": (batch.texts,)})


@torch.inference_mode()
def retrieve(
    model: Model,
    objective: Objective,
    task: Retrieval,
    ks: Sequence[int] = (1, 5),
    *,
    missing: Mapping[str, Tensor] | None = None,
    fill: Mapping[str, Tensor] | None = None,
) -> dict[int, Tensor]:
    """Whether an image of the query's class is among the k best, for each k and query.

    Args:
        missing: modality -> (Q,) True where a query lacks it.
        fill: modality -> (D,) representation put in its place; by default what the model has learned for it.

    Returns:
        k -> (Q,) bool.
    """
    model.eval()
    candidates_ND = model.encode("image", Inputs(given={"image": (task.image_NF,)}))
    deepest = min(max(ks), len(candidates_ND))
    scores = model.scores(objective, "image", QUERY)
    found = []
    queries = task.batches if missing is None else task.masked(missing)
    for inputs in queries:
        reps = []
        for modality in QUERY:
            masks = inputs.missing or {}
            if fill is not None and modality in masks:
                rep_QD = model.encode(modality, replace(inputs, missing=None))
                rep_QD = torch.where(masks[modality][:, None], fill[modality], rep_QD)
            else:
                rep_QD = model.encode(modality, inputs)
            reps.append(rep_QD)
        _, best_QK = best_candidates(scores, reps, candidates_ND, deepest)
        found.append(task.candidate_class_ids[best_QK])
    hits = torch.cat(found) == task.class_ids[:, None]
    return {k: hits[:, : min(k, deepest)].any(dim=1) for k in ks}
