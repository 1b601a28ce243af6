"""The modality gap: how far apart the modalities lie on the sphere, and what it does to retrieval.

Liang et al., "Mind the Gap", NeurIPS 2022, found the representations of two modalities in separate cones. Here it is
the distance between the centroids of the normalised representations of the same samples. What it does is told by
scoring these, before and after the centroids are taken away: a score of representations as they are, of any length,
would change by the lengths too. Suffixes: Q queries, D dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from symile_m3.objectives.scores import Scores
from symile_m3.questions import Encoded, Questions
from symile_m3.ranking import Representations, first_right

_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class ModalityGap:
    """The gap of one model.

    Attributes:
        distances: two modalities, joined by "-" -> the distance of their centroids, from 0 to 2.
        normalised_Q: (Q,) rank of the right image from audio and text, all representations normalised.
        centred_Q: (Q,) the same once each modality's centroid has been subtracted from these.
    """

    distances: dict[str, float]
    normalised_Q: Tensor
    centred_Q: Tensor


class Normalised:
    """Normalised representations, with or without their centroid.

    Args:
        source: the representations.
        centroid_D: (D,) what is subtracted from the normalised ones; None for nothing.
    """

    def __init__(self, source: Representations, centroid_D: Tensor | None = None) -> None:
        self._source, self._centroid_D = source, centroid_D

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        reps = F.normalize(self._source[rows], dim=1)
        return reps if self._centroid_D is None else reps - self._centroid_D


@torch.inference_mode()
def centroid(reps: Representations) -> Tensor:
    """(D,) mean of the normalised rows, of which there is at least one."""
    total: Tensor | None = None
    for rows in torch.split(torch.arange(len(reps)), _ROWS):
        part = F.normalize(reps[rows], dim=1).sum(dim=0, dtype=torch.float64)
        total = part if total is None else total + part
    assert total is not None
    return (total / len(reps)).float()


@torch.inference_mode()
def modality_gap(scores: Scores, questions: Questions, encoded: Encoded) -> ModalityGap:
    """The gap between the modalities of the samples, and retrieval of images with and without it.

    Args:
        scores: of images from audio and text.
    """
    centroids = {modality: centroid(reps) for modality, reps in encoded.queries.items()}

    def ranks(centred: Mapping[str, Tensor]) -> Tensor:
        return first_right(
            scores,
            [Normalised(encoded.queries[modality], centred.get(modality)) for modality in ("audio", "text")],
            Normalised(encoded.candidates["image"], centred.get("image")),
            questions.answers["image"],
        )

    return ModalityGap(
        distances={
            f"{first}-{second}": float((centroids[first] - centroids[second]).norm())
            for first, second in itertools.combinations(centroids, 2)
        },
        normalised_Q=ranks({}),
        centred_Q=ranks(centroids),
    )
