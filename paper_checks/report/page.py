"""An HTML page: sections, tables, plots (inline, or in files beside it), one style sheet for screen and print."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from paper_checks.core.outcome import number

__all__ = ["STYLE", "Section", "escape", "image", "linked_image", "number", "page", "png", "table"]

STYLE = """
:root { --ink: #1d2733; --soft: #5c6b73; --line: #dfe4e8; --paper: #ffffff; --wash: #f5f7f8; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.08rem; margin: 2rem 0 .35rem; }
a { color: #1b4f8a; text-decoration: none; } a:hover { text-decoration: underline; }
p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .88rem; }
pre { background: var(--wash); padding: .75rem 1rem; overflow-x: auto; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; margin: .6rem 0; }
th, td { text-align: left; padding: .32rem .6rem .32rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } th.number { text-align: right; }
img { max-width: 100%; height: auto; display: block; margin: .75rem 0; }
details { margin: .5rem 0; } summary { cursor: pointer; color: #1b4f8a; font-size: .92rem; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; font-size: .8rem; font-weight: 600;
  white-space: nowrap; background: #e8ecef; color: #44525c; }
.good { background: #dcf1e6; color: #17603f; } .fixed { background: #fdeccb; color: #7a4d00; }
.bad { background: #f9dcdf; color: #97202f; }
.scroll { overflow-x: auto; }
nav { position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line);
  padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .3rem .6rem; align-items: center; font-size: .85rem; }
nav button { font: inherit; font-size: .8rem; border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .6rem;
  background: var(--paper); color: var(--ink); cursor: pointer; }
nav button[aria-pressed="true"] { background: var(--ink); color: var(--paper); }
article { border-bottom: 1px solid var(--line); padding-bottom: .8rem; scroll-margin-top: 5.5rem; }
article p, article summary, td { overflow-wrap: anywhere; }
.answer { font-size: 1.02rem; } [hidden] { display: none !important; }
.score td:nth-child(2) { white-space: nowrap; }
@media (max-width: 640px) { body { padding: 1rem .8rem 3rem; } nav { position: static; }
  .score thead { display: none; } .score tr { display: block; padding: .45rem 0; border-bottom: 1px solid var(--line); }
  .score td { display: block; border: 0; padding: .08rem 0; } td.number { white-space: normal; } }
.rule { border-left: 3px solid var(--line); padding-left: .8rem; color: var(--soft); font-size: .88rem; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } section { break-inside: avoid-page; }
  details::details-content { content-visibility: visible; } a { color: inherit; } }
"""


@dataclass(frozen=True)
class Section:
    """One part of a page: an anchor, a title, and its content as HTML."""

    anchor: str
    title: str
    body: str


def page(title: str, lead: str, sections: Iterable[Section]) -> str:
    """The whole page; ``lead`` is HTML below the title."""
    parts = [
        f'<section id="{escape(section.anchor)}"><h2>{escape(section.title)}</h2>\n{section.body}\n</section>'
        for section in sections
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{lead}\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def escape(text: Any) -> str:
    """``text`` safe inside HTML text and attributes."""
    return html.escape(str(text), quote=True)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] = (),
    *,
    style: str = "",
    marks: Iterable[str] = (),
) -> str:
    """A table; cells are HTML already, columns in ``numbers`` are set flush right.

    ``style`` is its class, ``marks`` are attributes of its rows.
    """
    right, attributes = set(numbers), iter(marks)

    def line(tag: str, cells: Sequence[str], attribute: str = "") -> str:
        looks = (' class="number"' if index in right else "" for index in range(len(cells)))
        inner = "".join(f"<{tag}{look}>{cell}</{tag}>" for look, cell in zip(looks, cells, strict=True))
        return f"<tr{attribute and ' ' + attribute}>{inner}</tr>"

    body = "\n".join(line("td", row, next(attributes, "")) for row in rows)
    kind = f' class="{style}"' if style else ""
    content = f"<table{kind}>\n<thead>{line('th', head)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{content}</div>'


def png(figure: Any) -> tuple[bytes, str]:
    """A matplotlib Figure as PNG, the same bytes for the same figure, and its size as attributes of an image.

    Legends go below the curves; 64 colours keep pages small.
    """
    from PIL import Image

    from rmt.plot import legends_below

    legends_below(figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    width, height = picture.size
    return small.getvalue(), f'width="{width * 2 // 3}" height="{height * 2 // 3}"'


def image(figure: Any, alternative: str) -> str:
    """A matplotlib Figure as an inline image of a page that is one file."""
    data, size = png(figure)
    return _img(f"data:image/png;base64,{base64.b64encode(data).decode()}", size, alternative)


def linked_image(source: str, size: str, alternative: str) -> str:
    """An image in a file of its own, beside the page: fetched when its fold is opened, and large behind its link."""
    return f'<a href="{escape(source)}">{_img(source, size, alternative)}</a>'


def _img(source: str, size: str, alternative: str) -> str:
    return f'<img loading="lazy" decoding="async" {size} alt="{escape(alternative)}" src="{escape(source)}">'
