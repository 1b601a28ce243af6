"""What stands for a modality that a query lacks: what was learned for it, or the mean over the training samples.

Suffix: D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.batches import open_loader
from symile_m3.model import Inputs, Model, learns_missing
from symile_m3.objectives import Objective
from symile_m3.questions import Questions
from symile_m3.towers.tokens import TextTokeniser
from symile_m3.towers.tower import BackboneTower

LEARNED, MEAN = "what was learned for it", "mean training representation"
MEAN_UNIT = "mean normalised training representation"
NOT_EXPECTED = ", whose score is not the expected one"
APPROXIMATE = MEAN + NOT_EXPECTED
MOST, MOST_OF_BACKBONES = 20_000, 2_000
"""Training samples that a mean is over, at most: of towers on features, and of those with a backbone to run."""


def most_samples(model: Model) -> int:
    """How many training samples the means of a model are over, at most."""
    return MOST_OF_BACKBONES if any(isinstance(part, BackboneTower) for part in model.modules()) else MOST


def mean_origin(model: Model, objective: Objective, samples: int) -> str:
    """What the means of a model are, of so many training samples; it says where they are not over all of them."""
    most, words = most_samples(model), mean_words(objective)
    return words if samples <= most else f"{words} (over {most:,} of {samples:,} samples)"


def mean_words(objective: Objective) -> str:
    """What the mean is that stands for a missing modality, for tables."""
    if objective.unit_scores is not None:
        return MEAN_UNIT
    return MEAN if objective.multilinear else APPROXIMATE


@torch.inference_mode()
def learned_representations(model: Model, questions: Questions) -> dict[str, Tensor]:
    """Modality -> (D,) representation of a missing one, for those that the model was trained without at times.

    On the CPU, wherever the model is.
    """
    model.eval()
    found = {}
    for modality, parts in (
        ("image", questions.image_inputs()),
        ("audio", questions.clip_inputs()),
        ("text", questions.text_inputs()),
    ):
        if not learns_missing(model.towers[modality]):
            continue
        inputs = next(iter(parts))
        every = torch.ones(len(inputs), dtype=torch.bool)
        inputs = moved(replace(inputs, missing={modality: every}), model.device)
        found[modality] = model.encode(modality, inputs)[0].float().cpu()
    return found


@torch.inference_mode()
def mean_representations(
    model: Model,
    objective: Objective,
    questions: Questions,
    tokeniser: TextTokeniser,
    modalities: Sequence[str],
    *,
    seed: int = 0,
    on_bad_sample: str = "stop",
    most: int | None = None,
) -> dict[str, Tensor]:
    """Modality -> (D,) mean of `Objective.term` over the training samples, or over the first of very many; on the CPU.

    Evaluation and `symile_m3.load` take the same means.

    For a model that never saw a missing modality. The MIP is multilinear, so its value at the mean is its
    expectation over the missing modality; a sum of cosines is linear in the normalised representations, so it takes
    their mean as it is (`scores_with(..., terms=True)`), without normalising it. No other score is linear: of fusions,
    gates, areas and volumes it is the score of an average medium, and says so in the table (`APPROXIMATE`).

    Args:
        most: samples, rounded up to a batch; by default `most_samples`.
    """
    model.eval()
    most = most or most_samples(model)
    features = questions.features
    totals = {modality: torch.zeros(model.dim, dtype=torch.float64) for modality in modalities}
    uses = {"image": torch.zeros(len(features.image_NVF)), "audio": torch.zeros(len(features.clip_NF))}
    count = 0
    for batch in open_loader(
        questions.dataset,
        "train",
        tokeniser=tokeniser,
        batch_size=min(500, most),
        seed=seed,
        on_bad_sample=on_bad_sample,
    ):
        uses["image"] += torch.bincount(batch.image_rows, minlength=len(uses["image"]))
        uses["audio"] += torch.bincount(batch.clip_rows, minlength=len(uses["audio"]))
        if "text" in totals:
            inputs = moved(Inputs(given={"text": (batch.texts,)}), model.device)
            rep_BD = objective.term(model.encode("text", inputs))
            totals["text"] += rep_BD.sum(dim=0, dtype=torch.float64).cpu()
        count += len(batch.keys)
        if count >= most:  # they are drawn independently, so that any of them will do
            break
    for modality in set(totals) - {"text"}:  # each distinct image and clip once, as often as it is used
        for rows in torch.split(uses[modality].nonzero()[:, 0], 500):
            given = features.image_inputs(rows) if modality == "image" else features.clip_inputs(rows)
            inputs = moved(Inputs(given={modality: given}), model.device)
            rep_ND = objective.term(model.encode(modality, inputs))
            totals[modality] += uses[modality][rows].double() @ rep_ND.double().cpu()
    return {modality: (total_D / count).float() for modality, total_D in totals.items()}
