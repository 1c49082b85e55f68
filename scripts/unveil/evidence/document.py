"""A document of headings, paragraphs and tables, as Markdown and as one HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
:root {
  color-scheme: light dark; --paper: Canvas; --line: color-mix(in srgb, CanvasText 25%, Canvas);
  --shade: color-mix(in srgb, CanvasText 22%, transparent);
}
html { scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body {
  font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 0 auto; padding: 0 1rem 3rem;
}
nav {
  position: sticky; top: 0; z-index: 2; display: flex; gap: .2rem 1.2rem; overflow-x: auto;
  padding: .7rem 0; background: var(--paper); border-bottom: 1px solid var(--line);
  white-space: nowrap;
}
nav a { color: inherit; }
h1, h2 { line-height: 1.2; }
p { max-width: 46rem; }
.wide {
  overflow-x: auto;
  background: linear-gradient(90deg, var(--paper) 40%, transparent) 0 0 / 3rem 100% no-repeat local,
    linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 3rem 100% no-repeat local,
    linear-gradient(90deg, var(--shade), transparent) 0 0 / 1rem 100% no-repeat scroll,
    linear-gradient(270deg, var(--shade), transparent) 100% 0 / 1rem 100% no-repeat scroll;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
th, td { vertical-align: top; min-width: 4rem; }
td:first-child, th:first-child { white-space: nowrap; }
code { font-size: .9em; }
small { white-space: nowrap; font-size: .9em; opacity: .8; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text with ``**bold**``, code in backticks and ``[links](address)`` from ``docs``.

    The page lies elsewhere, so it has the words of a link alone.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """Rows below a head; cells as the text of a paragraph."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Paragraph | Table


def to_markdown(blocks: Sequence[Block]) -> str:
    """Return the document as Markdown."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def to_html(blocks: Sequence[Block], *, title: str) -> str:
    """Return the document as one page without any other file."""
    body = "\n".join(map(_html, blocks))
    parts = [block for block in blocks if isinstance(block, Heading) and block.level > 1]
    bar = "".join(f'<a href="#{_anchor(part)}">{_inline(part.text)}</a>' for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><nav aria-label="Contents">{bar}</nav><main>\n{body}\n</main></body></html>\n'
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    lines = [block.head, ["---"] * len(block.head), *block.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{_anchor(block)}">{_inline(block.text)}</h{block.level}>'
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in block.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in block.rows)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _anchor(heading: Heading) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", heading.text.lower()))


def _cell(text: str) -> str:
    shown = re.sub(r"\(([^()]+ to [^()]+)\)", r"<small>(\1)</small>", _inline(text))
    return f"<td>{shown}</td>"


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1", escaped)
