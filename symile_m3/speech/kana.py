"""Japanese as espeak-ng can read it: kana, words apart."""

from __future__ import annotations

import datetime
import re

import num2words

_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fc ]+")
# espeak-ng 1.52 knows no sound for these and says "Japanese letter" in English instead.
_UNREAD = re.compile("[ウう][ァィェォぁぃぇぉ]|[ゥヵヶヮぅゎゔゕゖ・]")
_MONTHS = (
    "いちがつ にがつ さんがつ しがつ ごがつ ろくがつ しちがつ はちがつ くがつ じゅうがつ じゅういちがつ じゅうにがつ"
)
_DAYS = (
    "ついたち ふつか みっか よっか いつか むいか なのか ようか ここのか とおか "
    "じゅういちにち じゅうににち じゅうさんにち じゅうよっか じゅうごにち じゅうろくにち じゅうしちにち "
    "じゅうはちにち じゅうくにち はつか にじゅういちにち にじゅうににち にじゅうさんにち にじゅうよっか "
    "にじゅうごにち にじゅうろくにち にじゅうしちにち にじゅうはちにち にじゅうくにち さんじゅうにち "
    "さんじゅういちにち"
)
_WEEKDAYS = "げつようび かようび すいようび もくようび きんようび どようび にちようび"


def number_in_kana(number: int) -> str:
    """A number of things, with its irregular hundreds and thousands: 300 is さんびゃく."""
    return str(num2words.num2words(number, lang="ja", reading=True))


def year_in_kana(year: int) -> str:
    """A year of the common era; four is よ before 年."""
    return re.sub("よん$", "よ", number_in_kana(year)) + "ねん"


def date_in_kana(day: datetime.date) -> str:
    """Year, month, day and weekday, as they are said."""
    return " ".join(
        (
            year_in_kana(day.year),
            _MONTHS.split()[day.month - 1],
            _DAYS.split()[day.day - 1],
            _WEEKDAYS.split()[day.weekday()],
        )
    )


def is_kana(text: str) -> bool:
    """Whether a text is kana and spaces, all of which espeak-ng reads."""
    return bool(_KANA.fullmatch(text)) and not _UNREAD.search(text)
