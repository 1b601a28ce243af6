"""A dataset with names and languages of one's own, written from the media of another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from symile_m3.build import describe
from symile_m3.plan import SPLITS, Plan, load_plan, save_plan
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader, RawSample, decode_json, shard_name, write_shard


def rewrite(
    source: Path, root: Path, languages: Sequence[str], rename: Callable[[str], str], *, text: str = "disjoint"
) -> Path:
    """Write the samples of a plan whose names are `rename` of the first language's, followed by the language.

    The clips are dealt out to the languages in turn, and shared by the splits.
    """
    plan = load_plan(DatasetLayout(source).plan)
    media: dict[str, bytes] = {}
    for split in SPLITS:
        reader = DatasetReader(source, split)
        for i in range(len(reader)):
            members = reader.read(i)
            record = decode_json(members["json"])
            media |= {record["image_id"]: members["jpg"], record["clip_id"]: members["flac"]}
    languages = tuple(sorted(languages))
    clips = [clip for clip in plan.clips if clip.id in media]
    plan = Plan(
        config=replace(plan.config, languages=languages, split_by="sample", text=text),
        lexicon=replace(
            plan.lexicon,
            languages=languages,
            class_keys=tuple(map(rename, plan.lexicon.class_keys)),
            names=tuple(tuple(f"{rename(row[0])} {code}" for code in languages) for row in plan.lexicon.names),
        ),
        images=tuple(
            replace(image, recipe=replace(image.recipe, group=rename(image.recipe.group), licence=rename("licence")))
            for image in plan.images
            if image.id in media
        ),
        clips=tuple(
            replace(
                clip,
                recipe=replace(
                    clip.recipe,
                    group=languages[i % len(languages)],
                    source=rename("source"),
                    attributes={"voice": rename("voice"), "text": rename("said")},
                ),
            )
            for i, clip in enumerate(clips)
        ),
    )
    layout = DatasetLayout(root)
    layout.data.mkdir(parents=True)
    layout.meta.mkdir()
    save_plan(plan, layout.plan)
    shards = []
    for split in SPLITS:
        for i in range(plan.shard_count(split)):
            start, stop = plan.shard_range(split, i)
            rows = plan.rows(split, start, stop)
            records = [describe(plan, rows, n) for n in range(stop - start)]
            samples = [
                RawSample(
                    f"{split}-{start + n:08d}",
                    {
                        "jpg": media[record["image_id"]],
                        "flac": media[record["clip_id"]],
                        "txt": "_".join(record["words"]).encode(),
                        "json": json.dumps(record, ensure_ascii=False).encode(),
                    },
                )
                for n, record in enumerate(records)
            ]
            shards.append(write_shard(layout.shard(shard_name(split, i, plan.shard_count(split))), samples))
    DatasetIndex(name=rename(root.name), fingerprint=plan.fingerprint, shards=shards).save(layout.index)
    return root
