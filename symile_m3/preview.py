"""The preview: one HTML file with samples of a split to look at and listen to, and charts of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from symile_m3.card import source_counts
from symile_m3.errors import UsageError
from symile_m3.exact import BEST_ACCURACIES, INFORMATION, ExactValues
from symile_m3.info import SplitCounts, count_split, load_dataset, open_root
from symile_m3.languages import language_name
from symile_m3.pages import assemble, data_uri
from symile_m3.pages.charts import rank_chart, share_bars
from symile_m3.pages.words import badge, language_colours, listed, text_in, words_line
from symile_m3.plan import SPLITS, Plan
from symile_m3.seeds import generator
from symile_m3.shards import DatasetReader
from symile_m3.shown import ShownSample, attributes, label_language, read_shown

_ALL_BARS = 16  # so many classes have a bar each; of more, the first and last few have
_SOME_BARS = 5
_REQUESTS = 8  # at a time, of a remote dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewPage:
    """A page, and what is on it.

    Attributes:
        html: the whole file.
        keys: of its samples, in their order.
        available: samples of the split.
    """

    html: str
    keys: tuple[str, ...]
    available: int


def preview_page(data: Path | str, split: str = "train", *, samples: int = 24, seed: int = 0) -> PreviewPage:
    """A page of samples of a dataset; a pure function of the dataset and the arguments.

    Of a remote dataset only these samples are asked for, where the server gives parts of files; otherwise their
    shards come through the cache.

    Args:
        data: directory or URL of the dataset.
        samples: how many to draw, without replacement; a split with fewer is shown whole.
        seed: of the draw.

    Raises:
        UsageError: the split is unknown, or `samples` is below 1.
        NotBuiltError: there is no dataset, or its build has not ended.
        PlanError, ShardError: the dataset is damaged, has no samples of the split, or cannot be reached.
        DamagedSampleError: a sample drawn is damaged.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: give {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    if samples < 1:
        raise UsageError(f"--samples {samples}: at least one")
    root = open_root(data)
    plan, index = load_dataset(root)
    reader = DatasetReader(root, split, whole=False)
    chosen = generator(seed, "preview", split).choice(len(reader), min(samples, len(reader)), replace=False)
    with ThreadPoolExecutor(1 if isinstance(root, Path) else _REQUESTS) as pool:
        drawn = list(pool.map(partial(read_shown, reader), np.sort(chosen).tolist()))
    counts = count_split(plan, split)
    codes = plan.lexicon.languages
    styles = {code: f"l{i}" for i, code in enumerate(codes)}
    part = "" if counts.counted == counts.samples else f" Counted over {counts.counted:,} of them."
    html = assemble(
        "preview",
        {
            "name": escape(index.name),
            "split": split,
            "lead": f"{len(drawn):,} of {len(reader):,} samples, drawn with seed {seed}. {_rule(plan)}",
            "facts": _facts(plan, len(reader)),
            "legend": _legend(codes, styles, drawn),
            "shown": f"{len(drawn):,} samples",
            "cards": "\n".join(_card(sample, styles, label_language(plan)) for sample in drawn),
            "languages_note": f"Samples of the {split} split by spoken language.{part}",
            "languages": _language_chart(codes, styles, counts),
            "classes_note": _class_note(plan, counts) + part,
            "classes": _class_chart(plan, counts),
            "values_note": (
                f"What a perfect reader could know of K = {len(plan.lexicon):,} classes and L = {len(codes)} "
                f"languages from speech and texts of w = {plan.config.words} words."
            ),
            "values": _values(plan),
            "sources": _sources(plan),
            "fingerprint": plan.fingerprint,
        },
        style=language_colours(len(codes)),
    )
    return PreviewPage(html=html, keys=tuple(sample.key for sample in drawn), available=len(reader))


def _rule(plan: Plan) -> str:
    """What a text says of the image, in one sentence."""
    only = "only " if plan.config.text == "disjoint" else ""  # an overlap text may name the class more than once
    return f"Of the words of a text, {only}the one in the spoken language names the image."


def _facts(plan: Plan, samples: int) -> str:
    facts = (
        ("samples", f"{samples:,}"),
        ("classes", f"{len(plan.lexicon):,}"),
        ("languages", str(len(plan.lexicon.languages))),
        ("words a text", str(plan.config.words)),
    )
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)


def _legend(codes: Sequence[str], styles: Mapping[str, str], drawn: Sequence[ShownSample]) -> str:
    spoken = Counter(sample.record["lang"] for sample in drawn)
    return "\n".join(
        f'<li><button type="button" aria-pressed="false" data-lang="{escape(code)}" class="{styles[code]}">'
        f'<span class="code">{escape(code)}</span><span class="language">{escape(language_name(code))}</span>'
        f'<span class="count">{spoken[code]}<span class="hidden"> samples</span></span></button></li>'
        for code in codes
    )


def _card(sample: ShownSample, styles: Mapping[str, str], label: str) -> str:
    record = sample.record
    code = record["lang"]
    clip = attributes(record, "clip_attributes")
    quote = f"<figcaption>{text_in(clip['text'], code)}</figcaption>" if "text" in clip else ""
    joined = "_".join(map(str, record["words"]))
    differs = (
        "" if sample.text == joined else f'<p class="differs">The text reads: <bdi>{escape(sample.text)}</bdi></p>'
    )
    voice = f"voice {clip['voice']}" if "voice" in clip else ""
    name = escape(language_name(code))
    return f"""<li class="card" data-lang="{escape(code)}" id="{escape(sample.key)}">
<div class="top">
<img src="{data_uri("image/jpeg", sample.jpg)}" alt="{escape(record["class_name"])}">
<div class="what">
<h3>{text_in(record["class_name"], label)}</h3>
<p class="key">{escape(record["class_key"])}</p>
<p class="spoken"><span>Speech in</span> <span class="badge {styles.get(code, "")}">{name}</span></p>
</div>
</div>
<p class="words">{words_line(record, styles)}</p>{differs}
<figure><audio controls preload="metadata" aria-label="Speech in {name}" \
src="{data_uri("audio/flac", sample.flac)}"></audio>{quote}</figure>
<dl class="origin"><div><dt>image</dt><dd>{listed(record["image_source"], record["image_licence"])}</dd></div>
<div><dt>speech</dt><dd>{listed(record["clip_source"], voice, record["clip_licence"])}</dd></div>
<div><dt>key</dt><dd>{escape(sample.key)}</dd></div></dl>
</li>"""


def _language_chart(codes: Sequence[str], styles: Mapping[str, str], counts: SplitCounts) -> str:
    rows = [
        (f"{badge(code, styles)} {escape(language_name(code))}", int(count), styles[code])
        for code, count in zip(codes, counts.by_language, strict=True)
    ]
    return share_bars(rows, note="Samples by spoken language")


def _class_note(plan: Plan, counts: SplitCounts) -> str:
    return (
        f"{len(plan.lexicon):,} classes, {counts.by_class.min():,} to {counts.by_class.max():,} samples each; "
        f"{counts.counted / len(plan.lexicon):,.1f} are expected."
    )


def _class_chart(plan: Plan, counts: SplitCounts) -> str:
    label = label_language(plan)
    column = plan.lexicon.languages.index(label)
    order = np.argsort(-counts.by_class, kind="stable").tolist()
    rows = [(text_in(plan.lexicon.names[c][column], label), int(counts.by_class[c]), "plain") for c in order]
    if len(rows) <= _ALL_BARS:
        return share_bars(rows, note="Samples by class")
    chart = rank_chart(counts.by_class.tolist(), counts.counted / len(rows), label=_class_note(plan, counts))
    return (
        f'<figure class="ranked">{chart}<figcaption><span>most frequent class</span>'
        "<span>least frequent</span></figcaption></figure>"
        f"{share_bars(rows[:_SOME_BARS], note='The most frequent classes')}"
        f'<p class="gap" aria-hidden="true">⋯</p>'
        f"{share_bars(rows[-_SOME_BARS:], note='The least frequent classes', longest=rows[0][1])}"
    )


def _values(plan: Plan) -> str:
    exact = ExactValues.of_plan(plan)
    parts = []
    for title, unit, fields in (
        ("Information", "nats", INFORMATION),
        ("Best accuracy for", "", BEST_ACCURACIES),
    ):
        rows = []
        for field, name, formula in fields:
            value = getattr(exact, field)
            known = ("", "not known") if value is None else (formula, f"{value:.4f}")
            rows.append(f'<tr><th scope="row">{name}</th><td class="formula">{known[0]}</td><td>{known[1]}</td></tr>')
        parts.append(
            f'<table class="values"><thead><tr><th scope="col">{title}</th><td></td><th scope="col">{unit}</th></tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table>"
        )
    return "\n".join(parts)


def _sources(plan: Plan) -> str:
    rows = (
        f'<tr><td>{kind}</td><th scope="row"><bdi>{escape(source)}</bdi></th>'
        f"<td><bdi>{escape(licence)}</bdi></td><td>{count:,}</td></tr>"
        for kind, source, licence, count in source_counts(plan)
    )
    return "\n".join(rows)
