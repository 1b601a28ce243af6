"""The immutable plan of a dataset: sample i of a split is a pure function of (plan, split, i).

The generative process of Symile-M3 (Saporta et al. 2024, section 5.1): a class and a language drawn
independently and uniformly, an image of the class, a clip of the language, and a text of w words in
which only the word in the clip's language names the image.

Array suffixes: N samples, W words a text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.draws import below, draw_texts, draws_per_text
from symile_m3.errors import NotBuiltError, PlanError, UsageError
from symile_m3.lexicon import Lexicon
from symile_m3.media import Medium
from symile_m3.plan_json import json_parts, media_of, medium_to_json, plan_from_text
from symile_m3.seeds import philox_key

SPLITS = ("train", "val", "test")
FORMAT_VERSION = 2
MAX_SHARD_SAMPLES = 1_000_000
"""More make tars of many tens of gigabytes, which few stores and no cache take well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What a user decides about a dataset; everything else of its plan follows.

    Attributes:
        languages: language codes, sorted.
        words: words a text, target included; at most the number of languages for disjoint text.
        classes: how many classes to draw.
        images, speech, names: source specs.
        corrections: a file of names that take the place of those of `names`; empty for none. Like a file of names it
            is read when the plan is made, which keeps what was in it.
        drop_unnamed: whether classes without a name in one of the languages are left out; else they are an error.
        clips: distinct clips a language that a synthesiser makes for train, val and test; sources with
            recordings of their own take what is there.
        image_size: length of the shorter side of images in pixels, for sources of photographs.
        crop: "centre" (a square) or "whole", for the same.
        images_per_class: at most, for the same; None for all.
        clip_seconds: longest clip; sources of recordings cut longer ones.
        train, val, test: samples a split.
        split_by: "media" (an image or clip is in one split only) or "sample" (the paper's: they recur).
        text: "disjoint" (distractors of distinct languages and classes, other than the target's) or
            "overlap" (any words of the other languages).
        seed: of every draw.
        shard_samples: samples a shard; at most `MAX_SHARD_SAMPLES`.
    """

    languages: tuple[str, ...]
    words: int
    classes: int
    images: str = "emoji"
    speech: str = "espeak"
    names: str = "builtin"
    corrections: str = ""
    drop_unnamed: bool = False
    clips: tuple[int, int, int] = (480, 40, 60)
    image_size: int = 224
    crop: str = "centre"
    images_per_class: int | None = None
    clip_seconds: float = 10.0
    train: int
    val: int
    test: int
    split_by: str = "media"
    text: str = "disjoint"
    seed: int = 0
    shard_samples: int = 1000

    def __post_init__(self) -> None:
        if len(self.languages) < 2:
            raise UsageError(f"{len(self.languages)} language: at least two are needed")
        if self.words < 1:
            raise UsageError(f"--words {self.words}: a text has at least one word")
        if self.text == "disjoint" and self.words > len(self.languages):
            raise UsageError(
                f"--words {self.words}: more words than the {len(self.languages)} languages; each word is in "
                f"a language of its own, so ask for at most {len(self.languages)}, or use --text overlap"
            )
        if self.classes < 2 or (self.text == "disjoint" and self.classes < self.words):
            raise UsageError(
                f"--classes {self.classes}: at least {max(2, self.words)} are needed for texts of {self.words} words"
            )
        if self.split_by not in ("media", "sample"):
            raise UsageError(f"--split-by {self.split_by}: give media or sample")
        if self.text not in ("disjoint", "overlap"):
            raise UsageError(f"--text {self.text}: give disjoint or overlap")
        for split, count in self.sizes.items():
            if count < 1:
                raise UsageError(f"--{split} {count}: a split has at least one sample")
        if min(self.clips) < 1:
            raise UsageError(f"{self.clips} clips a language: each split needs at least one")
        if self.crop not in ("centre", "whole"):
            raise UsageError(f"--crop {self.crop}: give centre or whole")
        if self.image_size < 16:
            raise UsageError(f"--image-size {self.image_size}: at least 16 pixels")
        if self.images_per_class is not None and self.images_per_class < 3:
            raise UsageError(f"--images-per-class {self.images_per_class}: at least 3, one for each split")
        if not 0.5 <= self.clip_seconds <= 60:
            raise UsageError(f"--clip-seconds {self.clip_seconds:g}: from 0.5 to 60 seconds")
        if not 1 <= self.shard_samples <= MAX_SHARD_SAMPLES:
            raise UsageError(f"--shard-samples {self.shard_samples}: give a number from 1 to {MAX_SHARD_SAMPLES:,}")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: seeds are not negative")

    @property
    def sizes(self) -> dict[str, int]:
        """Samples a split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def differences(self, other: PlanConfig) -> list[str]:
        """What differs, in words: `classes 250 (here: 300)`."""
        ours, theirs = asdict(self), asdict(other)
        return [f"{name} {theirs[name]} (asked: {ours[name]})" for name in ours if ours[name] != theirs[name]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Consecutive samples of a split, as arrays.

    Attributes:
        class_ids, language_ids: (N,).
        image_rows, clip_rows: (N,) positions in the plan's `images` and `clips`.
        word_class_ids, word_language_ids: (N, W), in the order the words are written.
        targets: (N,) position of the target word.
    """

    class_ids: NDArray[np.int64]
    language_ids: NDArray[np.int64]
    image_rows: NDArray[np.int64]
    clip_rows: NDArray[np.int64]
    word_class_ids: NDArray[np.int64]
    word_language_ids: NDArray[np.int64]
    targets: NDArray[np.int64]


class _Groups:
    """Media rows by group, for one split: row j of group g is `rows[starts[g] + j]`."""

    def __init__(self, media: Sequence[Medium], groups: Sequence[str], split: str, split_by: str) -> None:
        by_group: dict[str, list[int]] = {group: [] for group in groups}
        for row, medium in enumerate(media):
            if split_by == "sample" or medium.recipe.split == split:
                by_group[medium.recipe.group].append(row)
        for group, members in by_group.items():
            if not members:
                raise PlanError(
                    f"no image or clip of {group} for {split}; give the source more, or use --split-by sample"
                )
        self.counts = np.array([len(by_group[group]) for group in groups], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.rows = np.array([row for group in groups for row in by_group[group]], dtype=np.int64)

    def choose(self, raw: NDArray[np.uint64], group_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen: NDArray[np.int64] = self.rows[self.starts[group_ids] + below(raw, self.counts[group_ids])]
        return chosen


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A dataset before it is written: the classes with their names, the distinct media, and every sample.

    Attributes:
        config: what the user decided.
        lexicon: the classes; class id = position.
        images, clips: the distinct media, sorted by group and name.
    """

    config: PlanConfig
    lexicon: Lexicon
    images: tuple[Medium, ...]
    clips: tuple[Medium, ...]
    _groups: dict[tuple[str, str], _Groups] = field(default_factory=dict, repr=False, compare=False)

    def _group(self, kind: str, split: str) -> _Groups:
        if (kind, split) not in self._groups:
            media, groups = (
                (self.images, self.lexicon.class_keys) if kind == "image" else (self.clips, self.lexicon.languages)
            )
            self._groups[kind, split] = _Groups(media, groups, split, self.config.split_by)
        return self._groups[kind, split]

    def rows(self, split: str, start: int, stop: int) -> Rows:
        """Samples [start, stop) of a split; each is the same whichever range it is asked for in."""
        if not 0 <= start <= stop <= self.config.sizes[split]:
            raise ValueError(f"rows [{start}, {stop}) of {split}, which has {self.config.sizes[split]}")
        words = self.config.words
        draws = 4 + draws_per_text(words)
        blocks = math.ceil(draws / 4)  # Philox makes four 64-bit words a counter step
        philox = np.random.Philox(key=philox_key(self.config.seed, "plan", split))
        philox.advance(start * blocks)
        raw = philox.random_raw((stop - start) * blocks * 4).reshape(stop - start, blocks * 4)
        class_ids = below(raw[:, 0], len(self.lexicon))
        language_ids = below(raw[:, 1], len(self.lexicon.languages))
        word_class_ids, word_language_ids, targets = draw_texts(
            raw[:, 4:draws],
            class_ids,
            language_ids,
            words=words,
            classes=len(self.lexicon),
            languages=len(self.lexicon.languages),
            overlap=self.config.text == "overlap",
        )
        return Rows(
            class_ids=class_ids,
            language_ids=language_ids,
            image_rows=self._group("image", split).choose(raw[:, 2], class_ids),
            clip_rows=self._group("clip", split).choose(raw[:, 3], language_ids),
            word_class_ids=word_class_ids,
            word_language_ids=word_language_ids,
            targets=targets,
        )

    def shard_count(self, split: str) -> int:
        """Shards of a split."""
        return math.ceil(self.config.sizes[split] / self.config.shard_samples)

    def shard_range(self, split: str, shard: int) -> tuple[int, int]:
        """The samples [start, stop) of a shard."""
        start = shard * self.config.shard_samples
        return start, min(start + self.config.shard_samples, self.config.sizes[split])

    def to_json(self) -> dict[str, Any]:
        """Everything that shapes the dataset's bytes."""
        return {
            "version": FORMAT_VERSION,
            "config": asdict(self.config),
            "lexicon": asdict(self.lexicon),
            "images": [medium_to_json(medium) for medium in self.images],
            "clips": [medium_to_json(medium) for medium in self.clips],
        }

    def json_parts(self, **more: str) -> Iterator[bytes]:
        """`to_json`, and more fields, as text with sorted keys, in parts; see `symile_m3.plan_json`."""
        fields = {"version": FORMAT_VERSION, "config": asdict(self.config), "lexicon": asdict(self.lexicon), **more}
        return json_parts(fields, {"images": self.images, "clips": self.clips})

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over everything that shapes the bytes."""
        if "_fingerprint" not in self.__dict__:
            digest = hashlib.sha256()
            for part in self.json_parts():
                digest.update(part)
            object.__setattr__(self, "_fingerprint", digest.hexdigest()[:32])
        return str(self.__dict__["_fingerprint"])


def _config_from_json(record: dict[str, Any]) -> PlanConfig:
    return PlanConfig(**{**record, "languages": tuple(record["languages"]), "clips": tuple(record["clips"])})


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan with its fingerprint, atomically."""
    from symile_m3.shards import replacing

    with replacing(path) as file:
        for part in plan.json_parts(fingerprint=plan.fingerprint):
            file.write(part)


def _content(path: Path | str) -> str:
    if isinstance(path, Path):
        return path.read_text(encoding="utf-8")
    from symile_m3.shards import open_storage

    folder, _, name = path.rpartition("/")
    return open_storage(folder).read_bytes(name).decode()


def load_plan(path: Path | str) -> Plan:
    """Read a plan from a path or URL.

    Raises:
        NotBuiltError: there is none.
        PlanError: it is of another format, damaged, or its fingerprint does not match.
        ShardError: its URL is refused or cannot be reached.
    """
    try:
        record = plan_from_text(_content(path))
    except FileNotFoundError:
        root = str(path).rsplit("/", 2)[0]
        raise NotBuiltError(
            f"no dataset in {root}: run `symile-m3 build` first, or name its directory with --data"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"{path}: unreadable ({error}); build again with --overwrite") from error
    if not isinstance(record, dict):
        raise PlanError(f"{path}: not a plan; build again with --overwrite")
    if record.get("version") != FORMAT_VERSION:
        raise PlanError(
            f"{path}: format {record.get('version')}, this is symile-m3 for format {FORMAT_VERSION}; "
            "build again with --overwrite"
        )
    try:
        lexicon = record["lexicon"]
        plan = Plan(
            config=_config_from_json(record["config"]),
            lexicon=Lexicon(
                languages=tuple(lexicon["languages"]),
                class_keys=tuple(lexicon["class_keys"]),
                categories=tuple(lexicon["categories"]),
                names=tuple(tuple(row) for row in lexicon["names"]),
            ),
            images=media_of(record["images"]),
            clips=media_of(record["clips"]),
        )
        fingerprint = plan.fingerprint
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise PlanError(f"{path}: not a plan of this version ({what}); build again with --overwrite") from error
    if fingerprint != record.get("fingerprint"):
        raise PlanError(f"{path}: altered since it was written; build again with --overwrite")
    return plan
