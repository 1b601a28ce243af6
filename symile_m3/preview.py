"""The preview: one HTML file with samples of a split to look at and listen to, and charts of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from symile_m3.card import source_counts
from symile_m3.errors import DamagedSampleError, UsageError
from symile_m3.exact import BEST_ACCURACIES, INFORMATION, ExactValues
from symile_m3.info import SplitCounts, count_split, load_dataset, open_root
from symile_m3.languages import LANGUAGES
from symile_m3.pages import assemble, data_uri
from symile_m3.pages.charts import rank_chart, share_bars
from symile_m3.pages.palette import palette
from symile_m3.plan import SPLITS, Plan
from symile_m3.seeds import generator
from symile_m3.shards import DatasetReader, decode_json, decode_text

_ALL_BARS = 16  # so many classes have a bar each; of more, the first and last few have
_SOME_BARS = 5
_REQUESTS = 8  # at a time, of a remote dataset
_STRINGS = ("class_key", "class_name", "lang", "image_source", "image_licence", "clip_source", "clip_licence")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    """One sample of the page, as the shard has it."""

    key: str
    jpg: bytes
    flac: bytes
    text: str
    record: Mapping[str, Any]


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
        drawn = list(pool.map(partial(_read, reader), np.sort(chosen).tolist()))
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
            "cards": "\n".join(_card(sample, styles, _label_language(plan)) for sample in drawn),
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
        style=_colours(len(codes)),
    )
    return PreviewPage(html=html, keys=tuple(sample.key for sample in drawn), available=len(reader))


def language_name(code: str) -> str:
    """The English name of a language; its code where it has none that we know."""
    if code in LANGUAGES:
        return LANGUAGES[code].name
    locale = _locale(code)
    return str(locale.english_name or code) if locale else code


def direction(code: str) -> str:
    """The `dir` of text in a language: ltr or rtl, or auto where the language is not known."""
    locale = _locale(code)
    return str(locale.text_direction) if locale else "auto"


@cache
def _locale(code: str) -> Any:
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(code, sep="-")
    except (UnknownLocaleError, ValueError):
        return None


def _read(reader: DatasetReader, i: int) -> _Drawn:
    """Sample `i`, checked for what the page needs of it."""
    members = reader.read(i, ("jpg", "flac", "txt", "json"))
    try:
        record, text = decode_json(members["json"]), decode_text(members["txt"])
        words, langs, target = record.get("words"), record.get("word_langs"), record.get("target")
        if not (isinstance(words, list) and isinstance(langs, list) and len(words) == len(langs)):
            raise ValueError("json: words and word_langs are not two lists of one length")
        if type(target) is not int or not 0 <= target < len(words):
            raise ValueError(f"json: target {target!r} is not the position of a word")
        wrong = [name for name in _STRINGS if not isinstance(record.get(name), str)]
        if wrong:
            raise ValueError(f"json: {', '.join(wrong)} missing or no text")
    except ValueError as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), str(error)) from error
    return _Drawn(key=reader.key(i), jpg=members["jpg"], flac=members["flac"], text=text, record=record)


def _label_language(plan: Plan) -> str:
    """The language that `class_name` is in; see `symile_m3.build.describe`."""
    return "en" if "en" in plan.lexicon.languages else plan.lexicon.languages[0]


def _colours(count: int) -> str:
    """The colours of the languages, as classes `l0`, `l1`, ... that set `--hue` and `--tint`."""
    swatches = palette(count)
    light = [f".l{i}{{--hue:{s.light_ink};--tint:{s.light_ground}}}" for i, s in enumerate(swatches)]
    dark = [f".l{i}{{--hue:{s.dark_ink};--tint:{s.dark_ground}}}" for i, s in enumerate(swatches)]
    return "\n".join([*light, "@media (prefers-color-scheme: dark){", *dark, "}\n"])


def _text(content: str, code: str) -> str:
    """Text in a language, kept apart from the direction of what is around it."""
    return f'<bdi lang="{escape(code)}" dir="{direction(code)}">{escape(content)}</bdi>'


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


def _legend(codes: Sequence[str], styles: Mapping[str, str], drawn: Sequence[_Drawn]) -> str:
    spoken = Counter(sample.record["lang"] for sample in drawn)
    return "\n".join(
        f'<li><button type="button" aria-pressed="false" data-lang="{escape(code)}" class="{styles[code]}">'
        f'<span class="code">{escape(code)}</span><span class="language">{escape(language_name(code))}</span>'
        f'<span class="count">{spoken[code]}<span class="hidden"> samples</span></span></button></li>'
        for code in codes
    )


def _card(sample: _Drawn, styles: Mapping[str, str], label: str) -> str:
    record = sample.record
    code = record["lang"]
    clip = _attributes(record, "clip_attributes")
    quote = f"<figcaption>{_text(clip['text'], code)}</figcaption>" if "text" in clip else ""
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
<h3>{_text(record["class_name"], label)}</h3>
<p class="key">{escape(record["class_key"])}</p>
<p class="spoken"><span>Speech in</span> <span class="badge {styles.get(code, "")}">{name}</span></p>
</div>
</div>
<p class="words">{_words(record, styles)}</p>{differs}
<figure><audio controls preload="metadata" aria-label="Speech in {name}" \
src="{data_uri("audio/flac", sample.flac)}"></audio>{quote}</figure>
<dl class="origin"><div><dt>image</dt><dd>{_listed(record["image_source"], record["image_licence"])}</dd></div>
<div><dt>speech</dt><dd>{_listed(record["clip_source"], voice, record["clip_licence"])}</dd></div>
<div><dt>key</dt><dd>{escape(sample.key)}</dd></div></dl>
</li>"""


def _attributes(record: Mapping[str, Any], name: str) -> dict[str, str]:
    value = record.get(name)
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _listed(*parts: str) -> str:
    return " · ".join(f"<bdi>{escape(part)}</bdi>" for part in parts if part)


def _badge(code: str, styles: Mapping[str, str]) -> str:
    return f'<span class="badge {styles.get(code, "")}">{escape(code)}</span>'


def _words(record: Mapping[str, Any], styles: Mapping[str, str]) -> str:
    """The words in their order, with the separator of the text between them, each with its language."""
    words = []
    for i, (word, code) in enumerate(zip(record["words"], record["word_langs"], strict=True)):
        target = i == record["target"]
        joint = "" if i == len(record["words"]) - 1 else '<span class="joint">_</span>'
        words.append(
            f'<span class="unit"><span class="word {"target " if target else ""}{styles.get(str(code), "")}">'
            f"{_text(str(word), str(code))}"
            f'<span class="tag">{escape(str(code))}{"<b>target</b>" if target else ""}</span></span>{joint}</span>'
        )
    return "".join(words)


def _language_chart(codes: Sequence[str], styles: Mapping[str, str], counts: SplitCounts) -> str:
    rows = [
        (f"{_badge(code, styles)} {escape(language_name(code))}", int(count), styles[code])
        for code, count in zip(codes, counts.by_language, strict=True)
    ]
    return share_bars(rows, note="Samples by spoken language")


def _class_note(plan: Plan, counts: SplitCounts) -> str:
    return (
        f"{len(plan.lexicon):,} classes, {counts.by_class.min():,} to {counts.by_class.max():,} samples each; "
        f"{counts.counted / len(plan.lexicon):,.1f} are expected."
    )


def _class_chart(plan: Plan, counts: SplitCounts) -> str:
    label = _label_language(plan)
    column = plan.lexicon.languages.index(label)
    order = np.argsort(-counts.by_class, kind="stable").tolist()
    rows = [(_text(plan.lexicon.names[c][column], label), int(counts.by_class[c]), "plain") for c in order]
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
