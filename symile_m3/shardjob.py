"""One shard of a dataset: its samples as a pure function of the plan, and what says that it is made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from symile_m3.errors import PlanError
from symile_m3.mediastore import MediaStore
from symile_m3.plan import SPLITS, Plan, Rows, load_plan
from symile_m3.shards import DatasetLayout, RawSample, ShardInfo, shard_name, write_shard, write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """The encoded media of a plan, by the names of their recipes."""

    images: MediaStore
    clips: MediaStore


def describe(plan: Plan, rows: Rows, n: int) -> dict[str, Any]:
    """The json member of sample `n` of `rows`: the same keys in every sample, no nulls."""
    lexicon = plan.lexicon
    class_id, language_id = int(rows.class_ids[n]), int(rows.language_ids[n])
    image, clip = plan.images[rows.image_rows[n]], plan.clips[rows.clip_rows[n]]
    word_classes, word_languages = rows.word_class_ids[n].tolist(), rows.word_language_ids[n].tolist()
    label = lexicon.languages.index("en") if "en" in lexicon.languages else 0
    return {
        "class_id": class_id,
        "class_key": lexicon.class_keys[class_id],
        "class_name": lexicon.names[class_id][label],
        "lang": lexicon.languages[language_id],
        "words": [
            lexicon.names[word_class][word_language]
            for word_class, word_language in zip(word_classes, word_languages, strict=True)
        ],
        "word_langs": [lexicon.languages[word_language] for word_language in word_languages],
        "word_class_ids": word_classes,
        "target": int(rows.targets[n]),
        "image_id": image.id,
        "image_source": image.recipe.source,
        "image_licence": image.recipe.licence,
        "image_attributes": dict(sorted(image.recipe.attributes.items())),
        "clip_id": clip.id,
        "clip_source": clip.recipe.source,
        "clip_licence": clip.recipe.licence,
        "clip_synthetic": clip.recipe.synthetic,
        "clip_attributes": dict(sorted(clip.recipe.attributes.items())),
    }


def shard_samples(plan: Plan, split: str, i: int, media: Media) -> Iterator[RawSample]:
    """The samples of shard `i` of a split, one at a time.

    A pure function: the same plan and media give the same samples to the byte on any machine, and nothing
    of any other shard is needed. Memory is that of the shard's rows, which depends on neither the number of
    shards nor what came before.
    """
    start, stop = plan.shard_range(split, i)
    rows = plan.rows(split, start, stop)
    encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
    for n in range(stop - start):
        record = describe(plan, rows, n)
        yield RawSample(
            f"{split}-{start + n:08d}",
            {
                "jpg": media.images.read(plan.images[rows.image_rows[n]].recipe.name),
                "flac": media.clips.read(plan.clips[rows.clip_rows[n]].recipe.name),
                "txt": "_".join(record["words"]).encode(),
                "json": encode(record).encode(),
            },
        )


def store_shard(layout: DatasetLayout, name: str, samples: Iterable[RawSample], fingerprint: str) -> ShardInfo:
    """Put a shard in its place, and then the marker that says that it is made, and from which plan.

    Everything that a build writes of a shard is written here.

    Raises:
        ShardError: the place does not take it.
    """
    info = write_shard(layout.shard(name), samples)
    write_text(layout.marker(name), json.dumps({"fingerprint": fingerprint, "shard": asdict(info)}))
    return info


def build_shard(plan: Plan, split: str, i: int, media: Media, layout: DatasetLayout) -> ShardInfo:
    """Make shard `i` of a split: `shard_samples`, stored with its checksums and its marker.

    Args:
        plan: of the dataset; all that decides on the bytes besides the media.
        split, i: which of its shards, from 0 to `plan.shard_count(split) - 1`.
        media: the media that the plan names, made ahead (`symile_m3.mediastore.make_media`).
        layout: where to; a shard that is there is replaced, by the same bytes if it was of this plan.

    Returns:
        Name, length, checksum and number of samples: the same wherever and however often it is made.

    Raises:
        ShardError: a medium cannot be read, or the shard cannot be written.
    """
    name = shard_name(split, i, plan.shard_count(split))
    return store_shard(layout, name, shard_samples(plan, split, i, media), plan.fingerprint)


@lru_cache(maxsize=1)
def _loaded(path: Path, fingerprint: str) -> Plan:
    plan = load_plan(path)
    if plan.fingerprint != fingerprint:
        raise PlanError(f"{path}: replaced while its dataset was being built; run the same build again")
    return plan


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """`build_shard` for processes elsewhere, which read the plan from disk, once: called with (split, i).

    Attributes:
        fingerprint: of the plan that has to be there.
    """

    layout: DatasetLayout
    fingerprint: str
    media: Media

    def __call__(self, shard: tuple[str, int]) -> ShardInfo:
        return build_shard(_loaded(self.layout.plan, self.fingerprint), *shard, self.media, self.layout)


def every_shard(plan: Plan) -> list[tuple[str, int]]:
    """The (split, number) of all shards, in the order in which samples are numbered and ranks count."""
    return [(split, i) for split in SPLITS for i in range(plan.shard_count(split))]


def marked_shard(marker: bytes, fingerprint: str) -> ShardInfo | None:
    """The shard that a marker, by its content, says is complete; None if it is of another plan.

    Raises:
        ValueError, KeyError, TypeError: it is no marker.
    """
    content = json.loads(marker)
    return ShardInfo(**content["shard"]) if content["fingerprint"] == fingerprint else None


def listed_shards(layout: DatasetLayout, plan: Plan) -> set[tuple[str, int]]:
    """The shards of which tar, sidecar and marker are there by name: three listings, and no look into any file.

    Listing a directory makes network file systems look again; opening a name may answer from memory.
    """
    marked, tars, sidecars = (_names(folder) for folder in (layout.done, layout.data, layout.meta))
    names = {shard: shard_name(*shard, plan.shard_count(shard[0])) for shard in every_shard(plan)}
    return {
        shard
        for shard, name in names.items()
        if f"{name}.json" in marked and name in tars and layout.sidecar(name).name in sidecars
    }


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def finished_shard(layout: DatasetLayout, plan: Plan, shard: tuple[str, int]) -> ShardInfo | None:
    """A listed shard, if it is complete: its marker is of this plan, and its tar of the right size."""
    name = shard_name(*shard, plan.shard_count(shard[0]))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        info = marked_shard(layout.marker(name).read_bytes(), plan.fingerprint)
        if info is not None and layout.shard(name).stat().st_size == info.filesize:
            return info
    return None
