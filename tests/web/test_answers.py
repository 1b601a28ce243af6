"""The cache of what web services answered."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from symile_m3.errors import SourceError
from symile_m3.web import Answers

KEY = {"service": "gtts", "version": "1", "language": "el", "accent": "com", "text": "γεια σου\nκόσμε"}


def test_an_answer_is_kept_for_its_whole_key_only(tmp_path: Path) -> None:
    answers = Answers(directory=tmp_path)
    answers.put(KEY, b"a\nb\x00")
    assert answers.get(KEY) == b"a\nb\x00"
    assert Answers(directory=tmp_path).get(dict(reversed(KEY.items()))) == b"a\nb\x00"
    for name in KEY:
        assert answers.get({**KEY, name: "other"}) is None, name


def test_an_answer_that_was_altered_or_cut_off_is_none(tmp_path: Path) -> None:
    answers = Answers(directory=tmp_path)
    answers.put(KEY, b"0123456789")
    path = answers.path(KEY)
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"x", whole.replace(b"5", b"6", 1), b"", b"\xff", whole[:20]):
        path.write_bytes(content)
        assert answers.get(KEY) is None
    path.write_bytes(whole)
    assert answers.get(KEY) == b"0123456789"


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Answers().directory == tmp_path / "symile-m3" / "web"


def test_a_cache_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("a file")
    answers = Answers(directory=tmp_path / "web")
    with (
        pytest.raises(SourceError, match=r"web: the cache of answers cannot be used: .*XDG_CACHE_HOME"),
        answers.asking(KEY),
    ):
        pass


def ask_slowly(directory: Path) -> float:
    """Ask as `Service.ask` does; when it was asked, 0 if it was kept."""
    answers = Answers(directory=directory)
    with answers.asking(KEY):
        if answers.get(KEY) is not None:
            return 0.0
        began = time.time()
        time.sleep(0.2)
        answers.put(KEY, b"answer")
        return began


def test_of_many_processes_and_threads_one_asks(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = list(threads.map(ask_slowly, [tmp_path / "threads"] * 4))
    assert sum(began > 0 for began in asked) == 1
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
        asked = list(processes.map(ask_slowly, [tmp_path / "processes"] * 4))
    assert sum(began > 0 for began in asked) == 1
