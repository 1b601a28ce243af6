"""The gallery of a report as HTML: queries, and what each objective retrieved for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from symile_m3.gallery import Answer, Gallery, ShownQuery, smaller_clip, smaller_image
from symile_m3.languages import language_name
from symile_m3.pages import data_uri
from symile_m3.pages.words import text_in, words_line
from symile_m3.shown import attributes
from symile_m3.wording import listed, objective_title

_SAID = 4  # ways to be right and wrong whose shares are told


def gallery_section(
    gallery: Gallery, names: Sequence[str], styles: Mapping[str, str], label: str, *, several: bool
) -> str:
    """The queries with their filter; nothing where none were drawn.

    Args:
        names: of the objectives.
        styles: classes of the languages.
        label: the language that names of classes are in.
        several: whether there are more runs than are shown.
    """
    if not gallery.queries:
        return ""
    of = " Of the first run of each." if several else ""
    total = sum(gallery.outcomes.values())
    buttons = []
    for right in gallery.outcomes:
        here = sum(query.outcome == right for query in gallery.queries)
        if not here:  # with many objectives there are more ways than queries to show
            continue
        marks = " ".join("✓" if name in right else "✗" for name in names)
        buttons.append(
            f'<li><button type="button" aria-pressed="false" class="outcome" data-outcome="{_outcome(right)}">'
            f'<span class="code marks" aria-hidden="true">{marks}</span>'
            f"<span>{escape(_outcome_title(right, names))}</span>"
            f'<span class="count">{here}<span class="hidden"> here</span></span></button></li>'
        )
    commonest = list(gallery.outcomes.items())[:_SAID]
    shares = ", ".join(f"{_outcome_title(right, names)} {100 * count / total:.1f}%" for right, count in commonest)
    if len(gallery.outcomes) > _SAID:
        shares += f", and {len(gallery.outcomes) - _SAID} rarer ways"
    return f"""<div class="browse">
<aside aria-labelledby="legend-title">
<h2 id="legend-title">Hits and misses</h2>
<p class="hint">Choose who is right. Drawn evenly; of all {total:,} queries: {escape(shares)}.{of}</p>
<ul class="legend" data-filters="outcome">
{"".join(buttons)}
</ul>
<button type="button" class="all" hidden>Show all queries</button>
</aside>
<section class="samples" aria-labelledby="samples-title">
<div class="heading"><h2 id="samples-title">Queries</h2>
<p class="status" role="status">{len(gallery.queries)} samples</p></div>
<p class="hint">Each with its own image at the top, and below it what was retrieved for it.</p>
<p class="none" hidden>No query on this page is of what you chose.</p>
<ul class="cards">
{"".join(_card(query, styles, label) for query in gallery.queries)}
</ul>
</section>
</div>"""


def _outcome(right: Sequence[str]) -> str:
    return "-".join(right) or "none"


def _outcome_title(right: Sequence[str], names: Sequence[str]) -> str:
    titles = listed([objective_title(name) for name in right])
    if len(names) == 1:
        return "right" if right else "wrong"
    if not right:
        return "none right"
    return f"{'both' if len(names) == 2 else 'all'} right" if len(right) == len(names) else f"only {titles} right"


def _card(query: ShownQuery, styles: Mapping[str, str], label: str) -> str:
    sample, record = query.sample, query.sample.record
    code = record["lang"]
    clip = attributes(record, "clip_attributes")
    quote = f"<figcaption>{text_in(clip['text'], code)}</figcaption>" if "text" in clip else ""
    name = escape(language_name(code))
    return f"""<li class="card" data-outcome="{_outcome(query.outcome)}" id="{escape(sample.key)}">
<div class="top">
<img src="{data_uri("image/jpeg", smaller_image(sample.jpg))}" alt="{escape(record["class_name"])}">
<div class="what">
<h3>{text_in(record["class_name"], label)}</h3>
<p class="key">{escape(record["class_key"])}</p>
<p class="spoken"><span>Speech in</span> {_named_badge(code, styles)}</p>
</div>
</div>
<p class="words">{words_line(record, styles)}</p>
<figure><audio controls preload="metadata" aria-label="Speech in {name}" \
src="{data_uri(*smaller_clip(sample.flac))}"></audio>{quote}</figure>
<ul class="answers">
{"".join(_answer(answer, code, styles, label) for answer in query.answers)}
</ul>
</li>"""


def _answer(answer: Answer, spoken: str, styles: Mapping[str, str], label: str) -> str:
    title = objective_title(answer.objective)
    if answer.language is None:
        because = "named by no word of the text"
    else:
        word = "target word" if answer.language == spoken else "word"
        because = f"named by the {word} in {_named_badge(answer.language, styles)}"
    if not answer.right:
        because += f"; the first right image is at place {answer.rank:,}" if answer.rank else "; no candidate is right"
    alt = f"Retrieved by {title}: {answer.class_name}"
    return f"""<li class="answer {"right" if answer.right else "wrong"}">
<img src="{data_uri("image/jpeg", smaller_image(answer.jpg))}" alt="{escape(alt)}">
<div><p class="who">{escape(title)}<span class="verdict">{"✓ right" if answer.right else "✗ wrong"}</span></p>
<p>{text_in(answer.class_name, label)}</p><p class="because">{because}</p></div></li>"""


def _named_badge(code: str, styles: Mapping[str, str]) -> str:
    """The name of a language in its colour."""
    return f'<span class="badge {styles.get(code, "")}">{escape(language_name(code))}</span>'
