"""What a finished run gathers from its dataset, so that its model can be used where the dataset is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symile_m3.assembly import Shapes, load_best, new_model, new_tokeniser
from symile_m3.card import source_counts
from symile_m3.checkpoints import BEST
from symile_m3.exact import ExactValues
from symile_m3.features import Dataset, Features, fitted_audio_net, load_features
from symile_m3.model import MODALITIES, Model
from symile_m3.objectives import Objective
from symile_m3.portable import Portable, is_portable, write_portable
from symile_m3.progress import Progress
from symile_m3.questions import Questions
from symile_m3.recipe import TrainConfig
from symile_m3.standins import LEARNED, learned_representations, mean_origin, mean_representations
from symile_m3.towers.device import device


def make_portable(
    directory: Path,
    dataset: Dataset,
    objective: Objective,
    config: TrainConfig,
    progress: Progress,
    *,
    features: Features | None = None,
    on_bad_sample: str = "stop",
) -> None:
    """Write what `symile_m3.load` needs beside the best weights of a run, unless it is there.

    Args:
        features: of the dataset, where they are loaded already.

    Raises:
        TrainingError: the weights do not fit the recipe.
        SymileM3Error: the dataset or the weights of a tower cannot be read.
    """
    if not (directory / BEST).is_file() or is_portable(directory):
        return
    if features is None:
        features = load_features(dataset, config.features, progress)
    model = new_model(dataset, features, objective, config)
    load_best(model, directory / BEST)
    model.to(device())
    learned = {name for name, p in config.missing.items() if p}
    mean = mean_origin(model, objective, len(dataset.readers["train"]))
    shapes = Shapes.of(dataset, features)
    standins = _standins(model, objective, dataset, features, config, learned, on_bad_sample)
    conv = config.features.audio_tower.kind == "conv" and not config.features.audio_tower.trained
    write_portable(
        directory,
        Portable(
            objective=objective.name,
            image_features=shapes.image_features,
            audio_features=shapes.audio_features,
            words=() if config.model.text_tower.pretrained else tuple(shapes.words),
            audio_net=fitted_audio_net(dataset, config.features) if conv else None,
            standins=standins,
            origins={name: LEARNED if name in learned else mean for name in MODALITIES},
            dataset=dataset_facts(dataset),
        ),
    )


def _standins(
    model: Model,
    objective: Objective,
    dataset: Dataset,
    features: Features,
    config: TrainConfig,
    learned: set[str],
    on_bad_sample: str,
) -> dict[str, Any]:
    """Modality -> (D,): what the model has learned, or the mean of `mean_representations`."""
    tokeniser = new_tokeniser(dataset, config)
    questions = Questions.of_split(dataset, features, "val", tokeniser, on_bad_sample)
    found = learned_representations(model, questions) if learned else {}
    others = [name for name in MODALITIES if name not in learned]
    if others:
        means = mean_representations(model, objective, questions, tokeniser, others, on_bad_sample=on_bad_sample)
        found = {**found, **means}
    return {name: found[name] for name in MODALITIES}


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What people, and whoever prepares media for the model, should know of the dataset."""
    plan = dataset.plan
    config, exact = plan.config, ExactValues.of_plan(plan)
    return {
        "fingerprint": plan.fingerprint,
        "languages": list(plan.lexicon.languages),
        "classes": len(plan.lexicon),
        "words": config.words,
        "samples": dict(config.sizes),
        "split_by": config.split_by,
        "text": config.text,
        "image_px": config.image_size,
        "crop": config.crop,
        "sources": [
            {"media": kind, "source": source, "licence": licence, "count": count}
            for kind, source, licence, count in source_counts(plan)
        ],
        "class_from_text": exact.class_from_text,
        "class_from_speech": exact.class_from_speech,
    }
