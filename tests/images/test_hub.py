"""Data sets of a hub: listed and made by range requests; gated, missing and unreachable ones."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_files import image_rows, write_parquet, write_webdataset
from hub_server import REVISION, serving_hub
from image_files import jpeg

from symile_m3.images.prepare import prepare
from symile_m3.media import ImageOptions

CLIENT = Path(__file__).with_name("hub_client.py")
LABELS = [0, 1] * 6
CARD = """---
license: cc-by-4.0
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': dog
  splits:
  - name: train
---
"""


# One process opens all of these in turn; each has a name of its own, to tell its requests.
FIRST = {
    "whole": "hf:me/photos",
    "three": "hf:me/three+3",
    "six": "hf:me/six+6",
    "tars": "hf:me/tars,label=cls+4",
    "refused": "hf:me/refused",
    "gated": "hf:me/gated",
    "missing": "hf:me/nothing",
    "revision": "hf:me/photos,revision=v9",
    "split": "hf:me/photos,split=test",
    "wrong": "HF_TOKEN=hf_wrong hf:me/gated",
    "right": "HF_TOKEN=hf_right hf:me/gated+3",
}


def client(url: str, home: Path, specs: Mapping[str, str]) -> dict[str, Any]:
    """What `hub_client.py` prints of each."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, CLIENT, *specs.values()],
        env={
            **inherited,
            "HF_ENDPOINT": url,
            "HF_HOME": str(home / "hf"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=240,  # only so that nothing hangs
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(specs, map(json.loads, done.stdout.splitlines()), strict=True))


def digests(rows: range, seed: int) -> list[str]:
    return [hashlib.sha256(prepare(jpeg(seed + row), ImageOptions(size_px=40))).hexdigest() for row in rows]


def fetched(requests: list[tuple[str, str, str]], name: str) -> set[str]:
    """Which files of images of a data set were asked for."""
    files = (path.rpartition("/")[2] for method, path, _ in requests if method == "GET" and f"/{name}/resolve/" in path)
    return {file for file in files if file.endswith((".parquet", ".tar"))}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What two processes, one after the other, had from one hub."""

    first: dict[str, Any]
    requests: list[tuple[str, str, str]]
    second: dict[str, Any]
    second_requests: list[tuple[str, str, str]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("hub")
    shards = [image_rows(LABELS, ["cat", "dog"], 100 * n) for n in range(5)]
    write_parquet(root / "photos", shards)
    (root / "photos" / "README.md").write_text(CARD)
    write_webdataset(root / "tars" / "train-0.tar", LABELS, 50)
    names = ("photos", "three", "six", "refused", "gated")
    repositories = {"me/tars": root / "tars", **{f"me/{name}": root / "photos" for name in names}}
    with serving_hub(repositories, gated=("me/gated",), token="hf_right") as hub:
        hub.failing.add(f"me/refused/resolve/{REVISION}/data/train-00003")
        first, requests = client(hub.url, root, FIRST), list(hub.requests)
        hub.requests.clear()
        hub.failing.clear()
        second = client(hub.url, root, {name: FIRST[name] for name in ("whole", "tars", "refused")})
    return Session(first=first, requests=requests, second=second, second_requests=hub.requests)


def test_data_sets_are_read_row_by_row(session: Session) -> None:
    whole = session.first["whole"]
    assert whole["classes"] == {"cat": 30, "dog": 30}
    assert whole["made"] == [digest for n in range(5) for digest in digests(range(12), 100 * n)]
    assert whole["source"] == f"hf:me/photos@{REVISION[:12]}"
    assert whole["licence"] == "cc-by-4.0"
    assert whole["attributes"] == {"file": "data/train-00000-of-00005.parquet", "row": "0"}


def test_other_formats_are_passed_through(session: Session) -> None:
    tars = session.first["tars"]
    assert tars["classes"] == {"0": 4, "1": 4}
    assert tars["made"] == digests(range(8), 50)
    assert tars["licence"] == "as its page says: https://huggingface.co/datasets/me/tars"


def test_no_stream_is_left_open(session: Session) -> None:
    """Closed by the garbage collector in the midst of another request, it would stop the process for ever."""
    assert {name: line["streams"] for name, line in session.first.items()} == dict.fromkeys(FIRST, 0)


def test_few_images_of_each_class_do_not_take_every_file(session: Session) -> None:
    for name, count in (("three", 3), ("six", 6)):
        assert session.first[name]["classes"] == {"cat": count, "dog": count}
        assert session.first[name]["made"] == session.first["whole"]["made"][: 2 * count]
        assert fetched(session.requests, f"me/{name}") == {"train-00000-of-00005.parquet"}
    assert len(fetched(session.requests, "me/photos")) == 5


def test_another_process_finds_in_the_cache_what_was_listed(session: Session) -> None:
    assert session.second["whole"] == session.first["whole"]
    assert session.second["tars"] == session.first["tars"]
    # Each file is read to make its images, and no more for its labels.
    reads = [path for method, path, asked in session.second_requests if method == "GET" and "me/photos/resolve" in path]
    assert len([path for path in reads if path.endswith(".parquet")]) == 5


def test_files_that_fail_leave_what_was_read_in_the_cache(session: Session) -> None:
    assert "train-00000-of-00005.parquet or one of the next 4 files" in session.first["refused"]["error"]
    assert "run the same command again when it can" in session.first["refused"]["error"]
    assert session.second["refused"]["classes"] == {"cat": 30, "dog": 30}


def test_gated_and_missing_data_sets_say_how_to_get_access(session: Session) -> None:
    gated = session.first["gated"]["error"]
    assert gated == (
        "--images hf:me/gated: gated: accept its terms at https://huggingface.co/datasets/me/gated, then log in "
        "with an account that may read it, `hf auth login` or HF_TOKEN=..."
    )
    assert session.first["wrong"]["error"] == gated
    assert session.first["right"]["classes"] == {"cat": 3, "dog": 3}
    missing = session.first["missing"]["error"]
    assert "there is no such data set on the Hub, or it is private: check https://" in missing
    assert "HF_TOKEN" in missing
    assert "Revision 'v9' doesn't exist" in session.first["revision"]["error"]
    assert "no split test; choose with split=, of train" in session.first["split"]["error"]


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        answer = client(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path, {"photos": "hf:me/photos"})["photos"]
    assert "--images hf:me/photos: the Hub cannot be reached" in answer["error"]
    assert "\n" not in answer["error"]
