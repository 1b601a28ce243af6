"""The model card of an exported model of declared modalities."""

from __future__ import annotations

import json
from typing import Any

from symile_m3._version import __version__
from symile_m3.modalities.declaration import TOWERS, DeclaredConfig, ModalityConfig
from symile_m3.model_card import CardFacts, card_header, objective_words, table
from symile_m3.wording import objective_title


def declared_card(facts: CardFacts[DeclaredConfig]) -> str:
    """README.md of the folder. Its bytes depend on the facts alone: no dates, and no paths."""
    parts = (
        f"---\n{_header(facts)}\n---",
        f"# {_title(facts)}",
        _what(facts),
        "## Modalities",
        _modalities(facts.config),
        "## Use",
        usage(facts.name, facts.config, str(facts.dataset["retrieve"])),
        "## Figures",
        _figures(facts),
        "## How it was trained",
        _training(facts),
        "## Limits",
        _limits(facts.config),
        "## Files",
        table(("file", "SHA-256"), [(f"`{name}`", f"`{found}`") for name, found in sorted(facts.files.items())]),
    )
    return "\n\n".join(parts) + "\n"


def _title(facts: CardFacts[DeclaredConfig]) -> str:
    names = facts.config.modality_names
    return f"{objective_title(str(facts.record['objective']))} on {', '.join(names[:-1])} and {names[-1]}"


def _questions(facts: CardFacts[DeclaredConfig]) -> list[dict[str, Any]]:
    return list(facts.test["questions"]) if facts.test else []


def _header(facts: CardFacts[DeclaredConfig]) -> str:
    names = facts.config.modality_names
    figures = [
        (kind, f"{name}, {question['retrieve']} from {', '.join(question['from'])}", float(question[key]))
        for question in _questions(facts)
        if len(question["from"]) == len(names) - 1
        for key, kind, name in (("top1", "accuracy", "Top-1"), ("mrr", "mrr", "Mean reciprocal rank"))
    ]
    return card_header(
        facts,
        title=_title(facts),
        task=f"Retrieval among {', '.join(names)}",
        dataset="own",
        tags=sorted({modality.kind for modality in facts.config.modalities} - {"array"}),
        figures=figures,
    )


def _what(facts: CardFacts[DeclaredConfig]) -> str:
    count, objective = len(facts.config.modalities), str(facts.record["objective"])
    score = {
        "symile": "the product of all, summed over the dimensions (the multilinear inner product)",
        "clip": "the sum of the cosines of each with the candidate",
    }.get(objective, f"that of the objective `{objective}` of symile-m3")
    return (
        f"Encoders of {count} modalities into one space of {facts.config.dim:,} dimensions, and a score of how well\n"
        f"samples of them go together: {score}.\n\n"
        f"Made with symile-m3 {__version__}, after Saporta et al., *Contrasting with Symile: Simple Model-Agnostic\n"
        "Representation Learning for Unlimited Modalities*, NeurIPS 2024."
    )


def _modalities(config: DeclaredConfig) -> str:
    rows = []
    for one in config.modalities:
        shape = f" {list(one.shape)}" if one.shape else ""
        members = " and ".join(f"`{member}`" for member in one.member)
        rows.append((f"`{one.name}`", f"{one.kind}{shape}", members, f"`{one.tower}`", "yes" if one.missing else ""))
    head = ("", "takes", "member", "tower", "may be missing")
    return table(head, rows) + "\n\n`declaration.toml` declares them as for training."


def usage(name: str, config: DeclaredConfig, retrieve: str) -> str:
    """Loading and ranking."""
    items = [(one.name, _example(one)) for one in config.modalities if one.name != retrieve]
    [retrieved] = [one for one in config.modalities if one.name == retrieve]
    query = ", ".join(f'"{other}": {item}' for other, item in items)
    numpy = "import numpy as np\n\n" if "np." in query + _example(retrieved) else ""
    return f"""```python
{numpy}import symile_m3

model = symile_m3.load("{name}")
print(model.modalities, model.standins)

candidates = model.encode("{retrieve}", [{_example(retrieved)}])  # (N, D), once for many queries
# Some may be left out: `standins` says what takes their place.
query = {{{query}}}
scores, rows = model.rank(retrieve="{retrieve}", **{{"{retrieve}": candidates}}, **query)
```"""


def _example(modality: ModalityConfig) -> str:
    """An item of a modality, in Python."""
    if modality.kind == "text":
        return '"a text"'
    if modality.kind != "array":
        return json.dumps(modality.member[0])
    parts = [json.dumps(member) if member.endswith(".npy") else "" for member in modality.member]
    if len(parts) > 1:
        return f"({', '.join(part or '[0.0]' for part in parts)})"
    return parts[0] or ("0.0" if modality.shape == (1,) else f"np.zeros({modality.shape})")


def _figures(facts: CardFacts[DeclaredConfig]) -> str:
    retrieve, label = facts.dataset["retrieve"], facts.dataset["label"]
    right = "when the label is right" if label else "when it is of the same sample"
    rows = [
        (
            f"{question['retrieve']} from {', '.join(question['from'])}",
            f"{question['top1']:.3f}",
            "{:.3f} to {:.3f}".format(*question["ci95"]),
            f"{question['top5']:.3f}",
            f"{question['mrr']:.3f}",
            f"{question['chance']:.3f}",
            f"{question['candidates']:,}",
            f"{question['n']:,}",
        )
        for question in _questions(facts)
    ]
    parts = [f"A retrieval is right {right}."]
    if rows:
        parts.append(table(("test", "top-1", "95% interval", "top-5", "MRR", "chance", "of", "queries"), rows))
    else:
        parts.append(
            "Not measured on the test samples here; `symile-m3 eval --json` does, and `symile-m3 export --eval` takes "
            "it."
        )
    if facts.validation is not None:
        parts.append(
            f"Top-1 of {retrieve} from all others on the validation samples, by which these weights were chosen: "
            f"{facts.validation:.3f}."
        )
    return "\n\n".join(parts)


def _training(facts: CardFacts[DeclaredConfig]) -> str:
    config, dataset = facts.config, facts.dataset
    samples = ", ".join(f"{count:,} {split}" for split, count in dataset["samples"].items())
    rows = [
        ("objective", objective_words(str(facts.record["objective"]), config)),
        ("dimensions", f"{config.dim:,}"),
        ("steps, batch", f"{config.steps:,} of {config.batch_size:,} samples"),
        ("hidden in training, with which probability", _listed({k: f"{p:g}" for k, p in config.missing.items() if p})),
        ("stands for a missing modality", _listed(facts.record["standins"])),
        ("seed", str(config.seed)),
        ("samples", f"`{facts.fingerprint}`: {samples}"),
    ]
    return table(("", ""), rows) + "\n\n`config.json` has every setting."


def _listed(values: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in values.items()) or "none"


def _limits(config: DeclaredConfig) -> str:
    limits = [
        "It knows samples like those it was trained on, prepared as the declaration says.",
        "A score ranks candidates for a query. Those of different queries are not on one scale; none is a probability.",
    ]
    limits += [
        f"The tower of {one.name} is code that is not in this folder: `{one.tower}` must be importable, and the folder "
        "be loaded by its path."
        for one in config.modalities
        if one.tower not in TOWERS
    ]
    return "\n".join(f"- {limit}" for limit in limits)
