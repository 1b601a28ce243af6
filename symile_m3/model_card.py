"""The model card of an exported model: what it is, how it was trained, its figures and limits, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from symile_m3._version import __version__
from symile_m3.languages import language_name
from symile_m3.objectives import get_objective
from symile_m3.recipe import LoopConfig, TrainConfig
from symile_m3.wording import objective_title

_METRICS = (("top1", "accuracy", "Top-1"), ("top5", "top_5_accuracy", "Top-5"), ("mrr", "mrr", "Mean reciprocal rank"))


C = TypeVar("C", bound=LoopConfig)


@dataclass(frozen=True, kw_only=True)
class CardFacts(Generic[C]):
    """What a card is written from.

    Attributes:
        record: model.json.
        config: the recipe.
        fingerprint: of the dataset.
        weights: modality -> fingerprint of the weights its tower began with.
        validation: best top-1 on the validation samples; None where it is not known.
        test: what `symile-m3 eval --json` says of it; None where it was not given.
        name: on the Hub, or of the folder.
        licence: of the model, as the Hub calls licences.
        files: name -> SHA-256 of the other files.
    """

    record: Mapping[str, Any]
    config: C
    fingerprint: str
    weights: Mapping[str, str]
    validation: float | None
    test: Mapping[str, Any] | None
    name: str
    licence: str
    files: Mapping[str, str]

    @property
    def dataset(self) -> Mapping[str, Any]:
        """Facts of the dataset."""
        found: Mapping[str, Any] = self.record["dataset"]
        return found


def _title(facts: CardFacts[TrainConfig]) -> str:
    objective = str(facts.record["objective"])
    languages, classes = len(facts.dataset["languages"]), facts.dataset["classes"]
    return f"{objective_title(objective)} on Symile-M3: {languages} languages, {classes} classes"


def model_card(facts: CardFacts[TrainConfig]) -> str:
    """README.md of the folder. Its bytes depend on the facts alone: no dates, and no paths."""
    parts = (
        f"---\n{_header(facts)}\n---",
        f"# {_title(facts)}",
        _what(facts),
        "## Use",
        usage(facts.name),
        "## Figures",
        _figures(facts),
        "## How it was trained",
        _training(facts),
        "## Limits",
        _limits(facts),
        "## What it was trained on, and whose that is",
        _sources(facts),
        "## Files",
        table(("file", "SHA-256"), [(f"`{name}`", f"`{found}`") for name, found in sorted(facts.files.items())]),
    )
    return "\n\n".join(parts) + "\n"


def _header(facts: CardFacts[TrainConfig]) -> str:
    figures = [(kind, name, float(facts.test[key])) for key, kind, name in _METRICS if facts.test and key in facts.test]
    return card_header(
        facts,
        title=_title(facts),
        task="Retrieval of the image from audio and text",
        dataset="symile-m3",
        tags=("image", "audio", "text"),
        figures=figures,
        languages=facts.dataset["languages"],
    )


def card_header(
    facts: CardFacts[C],
    *,
    title: str,
    task: str,
    dataset: str,
    tags: Sequence[str],
    figures: Sequence[tuple[str, str, float]],
    languages: Sequence[str] | None = None,
) -> str:
    """The YAML that the Hugging Face Hub reads.

    Args:
        figures: kind, name and value of each figure on the test samples; without any, that on the validation samples.
    """
    from huggingface_hub import EvalResult, ModelCardData

    split = "test"
    if not figures and facts.validation is not None:
        split, figures = "validation", [("accuracy", "Top-1", facts.validation)]
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name=task,
            dataset_type=dataset,
            dataset_name=title.partition(" on ")[2],
            dataset_split=split,
            dataset_args={"fingerprint": facts.fingerprint},
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in figures
    ]
    return ModelCardData(
        language=None if languages is None else [*languages],
        license=facts.licence,
        library_name="symile-m3",
        pipeline_tag="feature-extraction",
        tags=["symile", "multimodal", "contrastive-learning", *tags, "symile-m3"],
        datasets=[dataset] if languages is not None else None,
        metrics=sorted({kind for kind, _, _ in figures}),
        model_name=title,
        eval_results=results or None,
    ).to_yaml()


def _what(facts: CardFacts[TrainConfig]) -> str:
    languages = ", ".join(map(language_name, facts.dataset["languages"]))
    objective = str(facts.record["objective"])
    score = {
        "symile": "the product of all three, summed over the dimensions (the multilinear inner product)",
        "clip": "the sum of the cosines of each with the candidate",
    }.get(objective, f"that of the objective `{objective}` of symile-m3")
    dataset, dim = facts.dataset, facts.config.model.dim
    return (
        f"Encoders of an image, a recording of speech and a text into one space of {dim:,} dimensions, and a score of\n"
        f"how well the three go together: {score}.\n\n"
        f"The image shows one of {dataset['classes']} classes, the voice speaks one language of: {languages}.\n"
        f"The text is up to {dataset['words']} words, of which the one in the *spoken* language names the image.\n"
        "Speech and text tell the class together; neither does alone.\n\n"
        f"Made with symile-m3 {__version__}, after Saporta et al., *Contrasting with Symile: Simple Model-Agnostic\n"
        "Representation Learning for Unlimited Modalities*, NeurIPS 2024."
    )


def usage(name: str) -> str:
    """Installing, loading and ranking."""
    return f"""```python
from pathlib import Path

import symile_m3

model = symile_m3.load("{name}")
print(model.languages, len(model.vocabulary), model.standins)

photos = sorted(Path("photos").glob("*.jpg"))
images = model.encode_images(photos)  # (N, D), once for many queries
text = "_".join(model.vocabulary[:2])  # words joined by _; the one in the language that is spoken counts

scores, rows = model.rank(image=images, audio="query.flac", text=text, k=5)
for score, row in zip(scores[0].tolist(), rows[0].tolist(), strict=True):
    print(f"{{score:10.2f}}  {{photos[row]}}")

# Without one of the two, what `standins` says takes its place.
print(model.scores(image=images, text=text).shape)
```"""


def _figures(facts: CardFacts[TrainConfig]) -> str:
    rows: list[tuple[str, str, str]] = []
    if facts.test:
        for key, _, name in _METRICS:
            if key in facts.test:
                interval = facts.test.get("ci95") if key == "top1" else None
                shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
                rows.append((f"{name}, {facts.test['n']:,} test queries", f"{facts.test[key]:.3f}", shown))
    if facts.validation is not None:
        rows.append(
            ("Top-1 on the validation samples, by which these weights were chosen", f"{facts.validation:.3f}", "")
        )
    for key, what in (("class_from_text", "text"), ("class_from_speech", "audio")):
        value = facts.dataset.get(key)
        if value is not None:
            rows.append((f"Top-1 that {what} alone can reach, exactly", f"{value:.4g}", ""))
    intro = "Retrieval of the image from audio and text, right when the class is right."
    if not facts.test:
        intro += (
            " Not measured on the test samples here;\n"
            "`symile-m3 eval --json` does, and `symile-m3 export --eval` takes it."
        )
    return f"{intro}\n\n" + table(("", "value", "95% interval"), rows)


def objective_words(name: str, config: LoopConfig) -> str:
    """An objective, with the settings that it has a use for."""
    about = get_objective(name)
    negatives = f", negatives {config.negatives}" if about.takes_negatives else ""
    return name + negatives + (f", soft targets from {config.soft_targets}" if about.wants_labels else "")


def _training(facts: CardFacts[TrainConfig]) -> str:
    config, dataset = facts.config, facts.dataset
    specs = {"image": config.features.image, "audio": config.features.audio, "text": config.model.text}
    samples = ", ".join(f"{count:,} {split}" for split, count in dataset["samples"].items())
    missing = ", ".join(f"{name} {p:g}" for name, p in config.missing.items() if p) or "none"
    standins = "; ".join(f"{name}: {what}" for name, what in facts.record["standins"].items())
    rows = [
        ("objective", objective_words(str(facts.record["objective"]), config)),
        *(
            (f"{name} tower", spec + (f", weights `{facts.weights[name]}`" if name in facts.weights else ""))
            for name, spec in specs.items()
        ),
        ("dimensions", f"{config.model.dim:,}"),
        ("steps, batch", f"{config.steps:,} of {config.batch_size:,} samples"),
        ("distractors", "drawn anew each epoch" if config.redraw else "as stored"),
        ("hidden in training, with which probability", missing),
        ("stands for a missing modality", standins),
        ("seed", str(config.seed)),
        ("dataset", f"`{facts.fingerprint}`: {samples}; split by {dataset['split_by']}, text {dataset['text']}"),
    ]
    return table(("", ""), rows) + "\n\n`config.json` has every setting."


def _limits(facts: CardFacts[TrainConfig]) -> str:
    kinds = {str(row["source"]).partition(":")[0] for row in facts.dataset["sources"]}
    limits = [
        "It knows the classes and languages above and no others; a word outside its vocabulary is refused."
        if facts.config.model.text == "ngram" and not facts.config.model.text_ngrams
        else "It was trained on the classes and languages above and no others.",
        "A score ranks candidates for a query. Those of different queries are not on one scale; none is a probability.",
        "It recognises languages, not what is said: speech never names a class in training.",
    ]
    if "emoji" in kinds:
        limits.append("The images were drawings of emoji: photographs are far from what it has seen.")
    if kinds & {"espeak", "espeak-ng", "gtts"}:
        limits.append("Voices were synthetic: recordings of people are far from what it has heard.")
    return "\n".join(f"- {limit}" for limit in limits)


def _sources(facts: CardFacts[TrainConfig]) -> str:
    rows = [
        (str(row["media"]), _cell(row["source"]), _cell(row["licence"]), f"{row['count']:,}")
        for row in facts.dataset["sources"]
    ]
    return table(("media", "source", "licence", "count"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
