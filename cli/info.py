"""`symile-m3 info`: what is in a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from symile_m3.cli.build import DATA
from symile_m3.cli.options import DatasetOption, JsonOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from symile_m3.info import DatasetInfo


def info(data: DatasetOption = DATA, json_to: JsonOption = None) -> None:
    """Show what is in a dataset: samples, languages, media, durations, sources, licences, exact values.

    Nothing is decoded: the figures come from the plan, the list of shards, and the headers of the clips. Of a
    very large dataset some are from a part, and say so; of a dataset behind a URL no shard is fetched, and the
    durations are those of some clips.
    """
    from symile_m3.cli.output import show
    from symile_m3.info import describe_dataset

    found = describe_dataset(data)
    show(info_tables(found), found.to_json(), json_to)


def info_tables(found: DatasetInfo) -> list[RenderableType]:
    """The tables of `info`."""
    from symile_m3.cli.output import size
    from symile_m3.cli.tables import facts, figures
    from symile_m3.exact import BEST_ACCURACIES, INFORMATION
    from symile_m3.languages import language_label

    splits = found.splits
    parts = [
        facts(
            "Dataset",
            [
                ("place", found.data),
                ("languages, L", f"{len(found.languages)}: {', '.join(found.languages)}"),
                ("classes, K", f"{found.classes:,}"),
                ("words a text, w", str(found.words)),
                ("text", found.text),
                ("split by", found.split_by),
                ("seed", str(found.seed)),
                ("images, speech, names", f"{found.image_source}, {found.speech_source}, {found.name_source}"),
                ("fingerprint", found.fingerprint),
            ],
        ),
        figures(
            "Splits",
            ("", "samples", "shards", "size", "bytes"),
            [
                (name, f"{one.samples:,}", f"{one.shards:,}", size(one.bytes), f"{one.bytes:,}")
                for name, one in splits.items()
            ],
        ),
        figures(
            "What the samples use, of what there is for the split",
            ("", "classes", "samples a class", "images", "clips"),
            [
                (
                    name,
                    f"{one.classes['used']:,} of {found.classes:,}",
                    f"{one.classes['rarest']:,} to {one.classes['most_frequent']:,}",
                    f"{one.images['used']:,} of {one.images['planned']:,}",
                    f"{one.clips['used']:,} of {one.clips['planned']:,}",
                )
                for name, one in splits.items()
            ],
        ),
        figures(
            "Speech",
            ("", "hours of all samples", "hours of distinct clips", "shortest", "median", "longest"),
            [
                (
                    name,
                    f"{one.speech.total_hours:,.3f}",
                    f"{one.speech.distinct_hours:,.3f}",
                    *(f"{value:.2f} s" for value in (one.speech.min_s, one.speech.median_s, one.speech.max_s)),
                )
                for name, one in splits.items()
            ],
        ),
        figures(
            "Samples by spoken language",
            ("", *splits),
            [
                (
                    language_label(code),
                    *(f"{one.by_language[code]:,}" for one in splits.values()),
                )
                for code in found.languages
            ],
        ),
        figures(
            "Sources and licences of the distinct media",
            ("media", "source", "licence", "count"),
            [
                (*(str(row[name]) for name in ("media", "source", "licence")), f"{row['count']:,}")
                for row in found.sources
            ],
            names=3,
        ),
        figures(
            f"Exact values: K = {found.classes}, L = {len(found.languages)}, w = {found.words}",
            ("information", "", "nats"),
            _exact(found, INFORMATION),
            names=2,
        ),
        figures(
            None,
            ("best accuracy for", "", ""),
            _exact(found, BEST_ACCURACIES),
            names=2,
        ),
    ]
    return [*parts, *notes(found)]


def _exact(found: DatasetInfo, fields: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Name, formula and value of each field of the exact values."""
    values = [(name, formula, getattr(found.exact, field)) for field, name, formula in fields]
    return [
        (name, "", "not known") if value is None else (name, formula, f"{value:.4f}") for name, formula, value in values
    ]


def notes(found: DatasetInfo) -> list[str]:
    """What the figures do not say by themselves, a line each: which are from a part of the dataset, and why."""
    lines = []
    for name, one in found.splits.items():
        if one.counted < one.samples:
            lines.append(
                f"{name}: classes, languages and media are counted over {one.counted:,} of {one.samples:,} samples, "
                "in shards spread over the split"
            )
        if one.speech.measured < one.speech.clips:
            lines.append(f"{name}: durations are from {one.speech.measured:,} of {one.speech.clips:,} distinct clips")
    if found.text == "overlap":
        lines.append(
            "An overlap text may repeat classes and languages, so what it says alone has no simple exact value"
        )
    return lines
