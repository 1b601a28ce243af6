"""The preview page as a parser of HTML reads it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from html_page import Page
from rewritten_dataset import rewrite

from symile_m3.errors import DamagedSampleError, NotBuiltError, ShardError, UsageError
from symile_m3.languages import language_name
from symile_m3.pages.charts import rank_chart, share_bars
from symile_m3.pages.palette import palette
from symile_m3.pages.words import direction
from symile_m3.plan import load_plan
from symile_m3.preview import preview_page
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader, ShardReader, decode_json, write_shard
from symile_m3.shards.writer import RawSample

HOSTILE = """<script>alert("x")</script>'"&amp;$name ${x} </style><img src=x onerror=alert(1)>"""


@pytest.fixture(scope="module")
def hostile(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of twelve languages, one with a code that is no code, whose every name is hostile."""
    codes = ("ar", "de", "en", "fa", "fr", "he", "ja", "pt", "tlh", "ur", "zh", 'x"><b>')
    root = tmp_path_factory.mktemp("hostile") / "data"
    return rewrite(tiny_dataset, root, codes, lambda name: f"{HOSTILE}{name}")


def read(uri: str, mime: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == f"data:{mime};base64"
    return base64.b64decode(body, validate=True)


def test_media_and_records_are_those_of_the_shards(tiny_dataset: Path) -> None:
    page = preview_page(tiny_dataset, "train", samples=10, seed=3)
    reader = DatasetReader(tiny_dataset, "train")
    stored = {reader.key(i): reader.read(i) for i in range(len(reader))}
    cards = Page(page.html).of_class("card")
    assert [card.attributes["id"] for card in cards] == list(page.keys)
    assert (len(set(page.keys)), page.available) == (10, 64)
    for card, key in zip(cards, page.keys, strict=True):
        members = stored[key]
        record = decode_json(members["json"])
        (image,) = [e for e in card.within if e.tag == "img"]
        (audio,) = [e for e in card.within if e.tag == "audio"]
        assert read(image.attributes["src"], "image/jpeg") == members["jpg"]
        assert read(audio.attributes["src"], "audio/flac") == members["flac"]
        assert image.attributes["alt"] == record["class_name"]
        words = card.find("word")
        bdis = [next(e for e in word.within if e.tag == "bdi") for word in words]
        assert [bdi.text for bdi in bdis] == record["words"] == members["txt"].decode().split("_")
        assert [bdi.attributes["lang"] for bdi in bdis] == record["word_langs"]
        targets = [i for i, word in enumerate(words) if "target" in word.attributes["class"].split()]
        assert targets == [i for i, word in enumerate(words) if "target" in word.text] == [record["target"]]
        assert len(card.find("joint")) == len(words) - 1
        assert card.attributes["data-lang"] == record["lang"]
        for shown in (
            *(record[name] for name in ("class_name", "class_key", "image_source", "image_licence", "clip_source")),
            *(record["clip_licence"], record["clip_attributes"]["voice"], record["clip_attributes"]["text"], key),
        ):
            assert shown in card.text


def test_same_seed_same_bytes_and_other_seeds_other_samples(tiny_dataset: Path, tmp_path: Path) -> None:
    page = preview_page(tiny_dataset, "train", samples=6, seed=1)
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_dataset, copy)
    assert preview_page(copy, "train", samples=6, seed=1) == page
    assert preview_page(tiny_dataset, "train", samples=6, seed=2).keys != page.keys


def test_a_split_smaller_than_asked_for_is_shown_whole(tiny_dataset: Path) -> None:
    page = preview_page(tiny_dataset, "test", samples=1000)
    assert page.keys == tuple(f"test-{i:08d}" for i in range(16))


def test_hostile_names_stay_text(hostile: Path) -> None:
    page = Page(preview_page(hostile, "train", samples=64).html)
    assert [e.attributes.get("src", "") for e in page.all("script")] == [""]
    assert "alert" not in page.all("script")[0].text
    assert len(page.all("img")) == 64
    assert all(e.attributes["src"].startswith("data:image/jpeg;") for e in page.all("img"))
    assert page.all("b") == [e for e in page.all("b") if e.text == "target"]
    assert not [name for e in page.elements for name in e.attributes if name.startswith("on") or name == "style"]
    card = page.of_class("card")[0]
    assert card.find("key")[0].text.startswith(HOSTILE)
    assert all(HOSTILE in word.text for word in card.find("word"))
    assert next(e for e in card.within if e.tag == "img").attributes["alt"].startswith(HOSTILE)
    assert HOSTILE in card.find("origin")[0].text
    assert HOSTILE in page.all("title")[0].text
    assert page.of_class("sources")[0].text.count(HOSTILE) > 2


@pytest.mark.parametrize("which", ["tiny", "hostile"])
def test_nothing_is_loaded_from_elsewhere(tiny_dataset: Path, hostile: Path, which: str) -> None:
    html = preview_page(tiny_dataset if which == "tiny" else hostile, "val").html
    page = Page(html)
    loading = [
        e.attributes[name] for e in page.elements for name in ("src", "href", "srcset", "data") if name in e.attributes
    ]
    assert loading
    assert [address[:40] for address in loading if not address.startswith("data:")] == []
    style = page.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style
    assert re.findall(r"https?:", html) == []
    (policy,) = [e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_any_number_of_languages_with_their_directions(hostile: Path) -> None:
    page = Page(preview_page(hostile, "train", samples=40).html)
    codes = load_plan(DatasetLayout(hostile).plan).lexicon.languages
    buttons = [e for e in page.all("button") if "data-lang" in e.attributes]
    assert [button.attributes["data-lang"] for button in buttons] == list(codes)
    assert {button.attributes["aria-pressed"] for button in buttons} == {"false"}
    expected = {code: "rtl" if code in ("ar", "fa", "he", "ur") else "ltr" for code in codes}
    expected |= {"tlh": "auto", 'x"><b>': "auto"}
    found = {e.attributes["lang"]: e.attributes["dir"] for e in page.all("bdi") if "lang" in e.attributes}
    assert found == expected
    colours = {e.attributes["data-lang"]: e.attributes["class"] for e in buttons}
    assert len(set(colours.values())) == len(codes)
    for word in page.of_class("word"):
        (bdi,) = [e for e in word.within if e.tag == "bdi"]
        assert colours[bdi.attributes["lang"]] in word.attributes["class"].split()


def test_names_and_directions_of_languages() -> None:
    assert (language_name("te"), language_name("fa"), language_name("tlh")) == ("Telugu", "Persian", "tlh")
    assert (direction("ar"), direction("ko"), direction("no such")) == ("rtl", "ltr", "auto")


def test_charts_count_every_sample_of_the_split(tiny_dataset: Path) -> None:
    reader = DatasetReader(tiny_dataset, "train")
    records = [decode_json(reader.read(i, ("json",))["json"]) for i in range(len(reader))]
    languages, classes = Page(preview_page(tiny_dataset, "train", samples=1).html).of_class("bars")
    shown = [int(e.text) for e in languages.find("count")]
    assert shown == [sum(r["lang"] == code for r in records) for code in ("el", "en")]
    by_class = Counter(r["class_name"] for r in records)
    names = [e.text for e in classes.within if e.tag == "th"]
    assert dict(zip(names, [int(e.text) for e in classes.find("count")], strict=True)) == by_class
    assert [int(e.text) for e in classes.find("count")] == sorted(by_class.values(), reverse=True)


def test_bars_are_as_long_as_their_counts() -> None:
    page = Page(share_bars([("a", 20, "l0"), ("b", 5, "l1"), ("c", 0, "l2")], note="n"))
    assert [e.attributes["width"] for e in page.all("rect")] == ["100.00", "25.00", "0.00"]
    page = Page(share_bars([("b", 5, "l1")], note="n", longest=20))
    assert [e.attributes["width"] for e in page.all("rect")] == ["25.00"]


def test_ranks_step_down_from_the_most_frequent() -> None:
    page = Page(rank_chart([1, 4, 2], 2.0, label='"x"'))
    area, line = page.all("path")
    assert area.attributes["d"] == "M0 100L0 0.00L1 0.00L1 50.00L2 50.00L2 75.00L3 75.00L3 100Z"
    assert line.attributes["d"] == "M0 50.00H3"
    assert page.all("svg")[0].attributes["aria-label"] == '"x"'


def test_many_classes_have_a_chart_of_all_and_bars_of_the_first_and_last(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symile_m3.preview._ALL_BARS", 7)
    monkeypatch.setattr("symile_m3.preview._SOME_BARS", 2)
    page = Page(preview_page(tiny_dataset, "train", samples=1).html)
    assert len(page.of_class("ranks")) == 1
    _, most, least = ([int(e.text) for e in table.find("count")] for table in page.of_class("bars"))
    assert (len(most), len(least)) == (2, 2)
    assert most == sorted(most, reverse=True)
    assert min(most) >= max(least)


def test_exact_values_are_shown_or_said_to_be_unknown(tiny_dataset: Path, tmp_path: Path) -> None:
    text = " ".join(e.text for e in Page(preview_page(tiny_dataset, "val", samples=1).html).of_class("values"))
    assert "ln K - ln w1.3863" in text
    assert "not known" not in text
    overlap = rewrite(tiny_dataset, tmp_path / "overlap", ("el", "en"), str, text="overlap")
    text = " ".join(e.text for e in Page(preview_page(overlap, "val", samples=1).html).of_class("values"))
    assert text.count("not known") == 6


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("count", [1, 2, 10, 60])
def test_colours_are_distinct_and_readable(count: int) -> None:
    swatches = palette(count)
    assert len(set(swatches)) == count
    for swatch in swatches:
        assert contrast(swatch.light_ink, swatch.light_ground) >= 4.5
        assert contrast(swatch.dark_ink, swatch.dark_ground) >= 4.5


@pytest.mark.parametrize("split", ["dev", "", "Train", "../train"])
def test_unknown_split(tiny_dataset: Path, split: str) -> None:
    with pytest.raises(UsageError, match="give train, val or test"):
        preview_page(tiny_dataset, split)


def test_no_samples_asked_for(tiny_dataset: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        preview_page(tiny_dataset, samples=0)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="symile-m3 build"):
        preview_page(tmp_path)


def test_split_without_shards(tiny_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    path = DatasetLayout(data).index
    index = DatasetIndex.load(path)
    shards = [shard for shard in index.shards if shard.split != "val"]
    DatasetIndex(name=index.name, fingerprint=index.fingerprint, shards=shards).save(path)
    with pytest.raises(ShardError, match="no shards of the split 'val'"):
        preview_page(data, "val")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": 2}, "target 2 is not the position of a word"),
        ({"target": True}, "target True is not"),
        ({"words": "a_b"}, "words and word_langs"),
        ({"word_langs": ["en"]}, "words and word_langs"),
        ({"lang": None, "clip_source": 3}, "lang, clip_source missing or no text"),
    ],
)
def test_a_record_that_lacks_what_the_page_needs_is_named(
    tiny_dataset: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(DamagedSampleError, match=rf"val-00000003: json: .*{says}"):
        preview_page(altered(tiny_dataset, tmp_path / "data", change), "val")


def test_a_text_that_is_not_its_words_is_shown_as_it_is(tiny_dataset: Path, tmp_path: Path) -> None:
    html = preview_page(altered(tiny_dataset, tmp_path / "data", {"words": ["<i>", "two"]}), "val").html
    differing = Page(html).of_class("differs")
    assert len(differing) == 1
    assert "<i>" not in html


def altered(source: Path, data: Path, change: dict[str, object]) -> Path:
    """A copy of a dataset whose sample val-00000003 has another json."""
    shutil.copytree(source, data)
    layout = DatasetLayout(data)
    (info,) = DatasetIndex.load(layout.index).of_split("val")
    reader = ShardReader(layout.shard(info.name))
    samples = [RawSample(reader.key(i), reader.read(i)) for i in range(len(reader))]
    reader.close()
    record = {**decode_json(samples[3].members["json"]), **change}
    samples[3] = RawSample(samples[3].key, {**samples[3].members, "json": json.dumps(record).encode()})
    index = DatasetIndex.load(layout.index)
    shards = [
        write_shard(layout.shard(info.name), samples) if shard.name == info.name else shard for shard in index.shards
    ]
    DatasetIndex(name=index.name, fingerprint=index.fingerprint, shards=shards).save(layout.index)
    return data
