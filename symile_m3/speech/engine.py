"""espeak-ng, through the library and data of the package `espeakng-loader`.

The library keeps state from one utterance to the next (the phase of its pitch flutter, of its noise and
of its echo) and offers no call that clears all of it. So it is loaded afresh for each utterance, which
takes about half a millisecond; then the same arguments give the same samples, whatever was said before.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import MissingDependencyError, SourceError

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples reach the callback before espeak_Synth returns
_BUFFER_MS = 1000
_DONT_EXIT = 1 << 15  # espeakINITIALIZE_DONT_EXIT: report a missing data folder instead of ending the process
_POSITION_CHARACTER = 1
_UTF8 = 1
_IPA = 2
_RANDOM_SEED = 1
_RATE, _VOLUME, _PITCH, _RANGE, _PUNCTUATION, _CAPITALS, _WORD_GAP = range(1, 8)
_VOLUME_PERCENT = 60  # of espeak-ng's default, which drives its louder voices into clipping

_CRASHING = frozenset({"kl"})  # voices that end the process

_SAMPLES_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_lock = threading.Lock()  # the library's state is global: one utterance at a time in a process


@functools.cache
def _installed() -> tuple[str, Path]:
    """The path of the shared library, and of its data folder.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed, or not complete.
    """
    try:
        import espeakng_loader

        library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"the espeak clip pool needs espeak-ng ({error}): pip install espeakng-loader"
        ) from error
    if not library.is_file():
        raise MissingDependencyError(
            f"espeakng-loader has no library at {library}: pip install --force-reinstall espeakng-loader"
        )
    return str(library), data


def variants() -> tuple[str, ...]:
    """Names of the voice variants that are installed, sorted.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
    """
    return tuple(sorted(path.name for path in (_installed()[1] / "voices" / "!v").iterdir()))


@functools.cache
def language_voices() -> dict[str, str]:
    """Code of a language, in lower case -> identifier of the voice that speaks it best.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
    """
    data = _installed()[1]
    found: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in (data / "lang").rglob("*") if path.is_file()):
        lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        dictionary = next((line[1] for line in lines if line[:1] == ["dictionary"]), path.name.partition("-")[0])
        if path.name in _CRASHING or not (data / f"{dictionary}_dict").is_file():  # without one it cannot read
            continue
        for _, code, *rest in (line for line in lines if line[:1] == ["language"]):
            rank = (int(rest[0]) if rest and rest[0].isdecimal() else 5, path.name)  # espeak-ng's own default
            found[code.lower()] = min(found.get(code.lower(), rank), rank)
    return {code: voice for code, (_, voice) in found.items()}


def synthesize(
    text: str, *, voice: str, variant: str = "", rate_wpm: int = 165, pitch: int = 50
) -> tuple[NDArray[np.float32], int]:
    """Speech of `text`: samples of shape (n,) in [-1, 1], and their rate in Hz (22,050).

    The same arguments give the same samples, in any order of calls and in any process.

    Args:
        text: what to say, in the voice's language.
        voice: espeak-ng's name of a language, such as `el`.
        variant: which speaker, such as `f3`; empty for the language's own.
        rate_wpm: words a minute, 80 to 450.
        pitch: 0 to 100; 50 is the speaker's own.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
        SourceError: espeak-ng does not know the voice or the variant, or cannot run.
    """
    if variant and variant not in variants():
        raise SourceError(f"espeak-ng has no voice variant {variant!r}; it has {', '.join(variants())}")
    pieces: list[NDArray[np.int16]] = []

    def receive(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _SAMPLES_CALLBACK(receive)  # referenced until the last sample has come
    settings = {
        _RATE: rate_wpm,
        _VOLUME: _VOLUME_PERCENT,
        _PITCH: pitch,
        _RANGE: 50,
        _PUNCTUATION: 0,
        _CAPITALS: 0,
        _WORD_GAP: 0,
    }
    encoded = text.encode() + b"\0"
    with _loaded(f"{voice}+{variant}" if variant else voice) as (espeak, sample_rate_hz):
        espeak.espeak_SetSynthCallback(callback)
        for parameter, value in settings.items():
            espeak.espeak_SetParameter(parameter, value, 0)
        failed = espeak.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, _UTF8, None, None
        )
        if failed:
            raise SourceError(f"espeak-ng failed ({failed}) on {text!r} in voice {voice!r}")
        espeak.espeak_Synchronize()
    joined = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    return joined.astype(np.float32) / np.float32(32768), sample_rate_hz


def phonemes(text: str, *, voice: str) -> str:
    """How espeak-ng reads `text`, in the International Phonetic Alphabet.

    Where it cannot read a word in the voice's language it switches, and says so in parentheses: `(en)`.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
        SourceError: espeak-ng does not know the voice, or cannot run.
    """
    rest = ctypes.c_char_p(text.encode())
    clauses: list[str] = []
    with _loaded(voice) as (espeak, _):
        espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
        while rest.value is not None:  # moved on by a clause each time, and to null after the last
            clauses.append((espeak.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA) or b"").decode())
    return " ".join(clauses)


@contextlib.contextmanager
def _loaded(voice: str) -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library as new, speaking with a voice, and its sample rate in Hz; for one caller at a time."""
    library, data = _installed()
    with _lock:
        espeak = ctypes.CDLL(library)
        try:
            sample_rate_hz = espeak.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(data), _DONT_EXIT)
            if sample_rate_hz <= 0:
                raise SourceError(f"espeak-ng cannot start with the data in {data}")
            espeak.espeak_ng_SetRandSeed(ctypes.c_long(_RANDOM_SEED))
            if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
                raise SourceError(f"espeak-ng has no voice {voice!r}")
            yield espeak, sample_rate_hz
        finally:
            espeak.espeak_Terminate()
            _unload(espeak, library)


def _unload(espeak: ctypes.CDLL, library: str) -> None:
    """Let go of the library, and make sure that it is gone: else its state would outlive the utterance."""
    _ctypes.dlclose(espeak._handle)
    try:
        ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return
    raise SourceError(
        f"another module of this process holds {library}, so speech would depend on what was said before: "
        "build in a process of its own"
    )
