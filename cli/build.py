"""`symile-m3 build`: from sources to shards."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.options import (
    ALL,
    CorrectionsOption,
    DatasetOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    WorkersOption,
    class_count,
    clip_counts,
    shown_root,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from symile_m3.build import BuildResult
    from symile_m3.engines import WorkConfig
    from symile_m3.plan import PlanConfig

DATA = Path("data/m3")

_SAMPLES = "Samples"
_SOURCES = "Sources"
_SCALE = "At scale"


def build(
    langs: Annotated[
        str,
        typer.Option(
            "--langs", metavar="10|5|2|CODES", help="Languages: one of the paper's sets, or codes: en,fr,pt-BR."
        ),
    ] = "10",
    words: Annotated[
        int | None,
        typer.Option("--words", min=1, show_default="one a language", help="Words a text, the target word included."),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            metavar="N|all",
            parser=class_count,
            show_default="250 of the emoji, all of other sources",
            help="Classes, drawn from those usable.",
        ),
    ] = None,
    data: DatasetOption = DATA,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    train: Annotated[int, typer.Option("--train", help="Training samples.", rich_help_panel=_SAMPLES)] = 20_000,
    val: Annotated[int, typer.Option("--val", help="Validation samples.", rich_help_panel=_SAMPLES)] = 2_000,
    test: Annotated[int, typer.Option("--test", help="Test samples.", rich_help_panel=_SAMPLES)] = 2_000,
    split_by: Annotated[
        str,
        typer.Option(
            "--split-by",
            metavar="media|sample",
            help="media: an image or clip is in one split only; sample: they recur, as in the paper.",
            rich_help_panel=_SAMPLES,
        ),
    ] = "media",
    text: Annotated[
        str,
        typer.Option(
            "--text",
            metavar="disjoint|overlap",
            help="disjoint: the words of a text differ in language and class; overlap: drawn freely.",
            rich_help_panel=_SAMPLES,
        ),
    ] = "disjoint",
    images: Annotated[
        str,
        typer.Option(
            "--images",
            metavar="SOURCE",
            help="emoji; folder:DIR, a directory a class; imagenet:DIR, as Kaggle packs it, or a tar a synset; "
            "hf:NAME, a data set of the Hugging Face Hub or a local one, with choices such as ,split=train.",
            rich_help_panel=_SOURCES,
        ),
    ] = "emoji",
    speech: Annotated[
        str,
        typer.Option(
            "--speech",
            metavar="SOURCE",
            help="Speech: espeak, gtts (online), recordings:DIR (DIR/en/*.mp3) or common-voice:DIR.",
            rich_help_panel=_SOURCES,
        ),
    ] = "espeak",
    clips: Annotated[
        Any,
        typer.Option(
            "--clips",
            metavar="N,N,N",
            parser=clip_counts,
            help="Distinct clips a language for train, val and test: how many are synthesised, or taken at most.",
            rich_help_panel=_SOURCES,
        ),
    ] = "480,40,60",
    image_size: Annotated[
        int,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="Shorter side of photographs; smaller ones are not enlarged.",
            rich_help_panel=_SOURCES,
        ),
    ] = 224,
    crop: Annotated[
        str,
        typer.Option(
            "--crop",
            metavar="centre|whole",
            help="Photographs: cut to a square at the centre, or whole.",
            rich_help_panel=_SOURCES,
        ),
    ] = "centre",
    images_per_class: Annotated[
        int | None,
        typer.Option(
            "--images-per-class",
            show_default="all",
            help="Photographs of a class, at most.",
            rich_help_panel=_SOURCES,
        ),
    ] = None,
    clip_seconds: Annotated[
        float,
        typer.Option("--clip-seconds", help="Longest clip; longer recordings are cut.", rich_help_panel=_SOURCES),
    ] = 10.0,
    names: Annotated[
        str,
        typer.Option(
            "--names",
            metavar="SOURCE",
            help="Class names: builtin, emoji, imagenet, file:PATH, google.",
            rich_help_panel=_SOURCES,
        ),
    ] = "builtin",
    corrections: CorrectionsOption = None,
    drop_unnamed: Annotated[
        bool,
        typer.Option(
            "--drop-unnamed",
            help="Leave out classes that lack a name in a language, in place of failing.",
            rich_help_panel=_SOURCES,
        ),
    ] = False,
    shard_samples: Annotated[
        int,
        typer.Option(
            "--shard-samples",
            metavar="N",
            help="Samples a shard, each about 75 kB; a part of the plan: another number is another dataset.",
            rich_help_panel=_SCALE,
        ),
    ] = 1000,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="local|ray",
            help="local: processes of this machine; ray: a Ray cluster, that of RAY_ADDRESS or one started here.",
            rich_help_panel=_SCALE,
        ),
    ] = "local",
    rank: Annotated[
        int,
        typer.Option(
            "--rank",
            metavar="R",
            help="Make only the shards R, R+W, R+2W, ...; in a job array, $SLURM_ARRAY_TASK_ID.",
            rich_help_panel=_SCALE,
        ),
    ] = 0,
    world: Annotated[
        int,
        typer.Option("--world", metavar="W", help="Jobs that share the build, ranks 0 to W-1.", rich_help_panel=_SCALE),
    ] = 1,
    overwrite: OverwriteOption = False,
    json_to: JsonOption = None,
) -> None:
    """Build a dataset of image, speech and text as WebDataset shards.

    An interrupted build goes on where it stopped when the same command is run again; a finished one is
    left as it is. The same options give the same bytes, whatever the number of workers, jobs or machines.

    Jobs of an array share one --data directory and need not run at the same time. The one that makes the
    last shard completes the dataset; so does the command without --rank, which makes what is missing.

    With a URL that can be written, such as s3://bucket/m3, each shard is made in the cache directory, uploaded
    and removed there. Interrupted, the build goes on from any machine; a second one beside it is refused. Jobs on
    machines with a cache each make the images and clips anew; XDG_CACHE_HOME names a directory that they share.
    """
    from symile_m3.cli.output import command, show
    from symile_m3.engines import WorkConfig
    from symile_m3.languages import parse_languages
    from symile_m3.plan import PlanConfig

    work = WorkConfig(engine=engine, workers=workers, rank=rank, world=world)
    languages = parse_languages(langs)
    config = PlanConfig(
        languages=languages,
        words=words if words is not None else len(languages),
        classes=classes or (250 if images == "emoji" and classes is None else max(2, words or len(languages))),
        images=images,
        speech=speech,
        clips=clip_counts(clips),
        image_size=image_size,
        crop=crop,
        images_per_class=images_per_class,
        clip_seconds=clip_seconds,
        names=names,
        corrections=str(corrections or ""),
        drop_unnamed=drop_unnamed,
        train=train,
        val=val,
        test=test,
        split_by=split_by,
        text=text,
        seed=seed,
        shard_samples=shard_samples,
    )
    if classes == ALL or (classes is None and images != "emoji"):
        config = replace(config, classes=all_classes(data, config, overwrite=overwrite))
    result, seconds = run_build(data, config, work=work, overwrite=overwrite)
    if result.plan is None:
        show(["Nothing to do: there are fewer shards than ranks."], figures(result, data, seconds), json_to)
        return
    following = f"Next: {command('train', data=(shown_root(data), str(DATA)))}"
    if result.missing:
        following = (
            f"{len(result.missing)} shards of other ranks are still missing. The rank that makes the last one "
            "completes the dataset; the same command without --rank and --world makes all that is missing."
        )
    show(
        [summary(result, data, seconds), following],
        figures(result, data, seconds),
        json_to,
    )


def all_classes(data: Path | str, config: PlanConfig, *, overwrite: bool) -> int:
    """How many classes are usable; where the dataset has been begun, how many it has.

    Raises:
        SourceError: fewer are usable than a text has words.
    """
    from symile_m3.build import open_images, usable_lexicon
    from symile_m3.cli.progress import open_progress
    from symile_m3.errors import NotBuiltError, SourceError
    from symile_m3.plan import load_plan
    from symile_m3.progress import TasksOnly
    from symile_m3.shards import DatasetLayout
    from symile_m3.storeplace import PLAN

    if not overwrite:
        plan = DatasetLayout(data).plan if isinstance(data, Path) else f"{data.rstrip('/')}/{PLAN}"
        with suppress(NotBuiltError):
            return load_plan(plan).config.classes
    count = len(usable_lexicon(open_images(config), config, TasksOnly(open_progress())))
    if count < config.words:
        raise SourceError(
            f"--images {config.images}: classes that have images, and names in all languages: {count}; texts of "
            f"{config.words} words need {config.words}: add classes or their names, or ask for fewer with --words"
        )
    return count


def run_build(data: Path | str, config: PlanConfig, *, work: WorkConfig, overwrite: bool) -> tuple[BuildResult, float]:
    """Build with progress on standard error; the result and the seconds it took."""
    from symile_m3.build import build as build_dataset
    from symile_m3.cli.progress import open_progress

    progress = open_progress()
    began = time.monotonic()
    result = build_dataset(data, config, work=work, overwrite=overwrite, progress=progress)
    if result.plan is None:
        pass  # it has been said why
    elif result.missing and not result.built:
        progress.say(f"{shown_root(data)}: the shards of this rank are there: nothing to do")
    elif not result.built:
        progress.say(f"{shown_root(data)} is complete: nothing to do (--overwrite builds it anew)")
    return result, time.monotonic() - began


def figures(result: BuildResult, data: Path | str, seconds: float) -> dict[str, Any]:
    """What `build --json` writes."""
    from symile_m3.plan import SPLITS

    plan, index = result.plan, result.index
    if plan is None:  # a rank without a shard
        return {"data": shown_root(data), "shards_built": 0, "seconds": round(seconds, 1)}
    config = plan.config
    bounds = {"text_only": 1 / config.words, "audio_only": 1 / config.classes} if config.text == "disjoint" else {}
    return {
        "data": shown_root(data),
        "fingerprint": plan.fingerprint,
        "languages": list(config.languages),
        "words": config.words,
        "classes": config.classes,
        "split_by": config.split_by,
        "text": config.text,
        "images": len(plan.images),
        "clips": len(plan.clips),
        "samples": {split: sum(shard.nsamples for shard in index.of_split(split)) for split in SPLITS},
        "shards": len(index.shards),
        "shards_built": result.built,
        "shards_missing": len(result.missing),
        "bytes": sum(shard.filesize for shard in index.shards),
        "seconds": round(seconds, 1),
        "bounds": bounds,
    }


def summary(result: BuildResult, data: Path | str, seconds: float) -> RenderableType:
    """What came out, as a small table."""
    from symile_m3.cli.output import duration, size
    from symile_m3.cli.tables import facts

    values = figures(result, data, seconds)
    samples = ", ".join(f"{split} {count:,}" for split, count in values["samples"].items())
    rows = [
        ("classes", f"{values['classes']:,}"),
        ("languages", f"{len(values['languages'])}: {' '.join(values['languages'])}"),
        ("words a text", f"{values['words']} ({values['text']})"),
        ("distinct images", f"{values['images']:,}"),
        ("distinct clips", f"{values['clips']:,}"),
        ("samples", f"{samples}; split by {values['split_by']}"),
        (
            "on disk" if isinstance(data, Path) else "stored",
            f"{size(values['bytes'])} in {values['shards']} shards, {values['shards_built']} made now",
        ),
        ("time", duration(seconds)),
    ]
    if values["bounds"]:
        rows += [
            ("text alone", f"1/{values['words']} = {values['bounds']['text_only']:.4g} at best (exact)"),
            ("audio alone", f"1/{values['classes']} = {values['bounds']['audio_only']:.4g} at best (exact)"),
        ]
    return facts(shown_root(data), rows)
