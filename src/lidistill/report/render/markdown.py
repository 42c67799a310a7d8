"""The page as Markdown, and its first table as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lidistill.report.page_blocks import (
    Block,
    Bullets,
    Code,
    Figure,
    Figures,
    Fold,
    Gallery,
    Missing,
    Page,
    Paragraph,
    Table,
)

FIGURES = "figures"  # folder beside the Markdown file

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_"}


def page_as_markdown(page: Page) -> str:
    """The whole page; pictures are links into the folder `figures`."""
    badge = f"**{_text(page.badge)}** · " if page.badge else ""
    tiles = " · ".join(
        f"**{_text(figure.value)}** {_text(figure.name)} ({_text(figure.note)})" for figure in page.key_figures
    )
    parts = [f"# {_text(page.title)}", f"{badge}**{_text(page.headline)}**", _text(page.lead), tiles]
    for section in page.sections:
        parts += [f"## {_text(section.title)}", *(_block(block) for block in section.blocks)]
    parts.append(_text(page.footer))
    return "\n\n".join(part for part in parts if part) + "\n"


def table_as_markdown(table: Table) -> str:
    """A pipe table under its caption; stressed cells are bold."""
    lines = [_row([_text(column) for column in table.columns])]
    lines.append(_row([":---" if column < table.text_columns else "---:" for column in range(len(table.columns))]))
    for row, cells in enumerate(table.rows):
        lines.append(
            _row(
                [
                    f"**{_text(cell)}**" if cell and (row, column) in table.strong else _text(cell)
                    for column, cell in enumerate(cells)
                ]
            )
        )
    return "\n".join([*([_text(table.caption) + ":", ""] if table.caption else []), *lines])


def table_as_latex(table: Table) -> str:
    """A `tabular` in the style of the booktabs package, with the caption as its last line so that it is not lost."""
    columns = "".join("l" if column < table.text_columns else "r" for column in range(len(table.columns)))
    body = []
    for row, cells in enumerate(table.rows):
        written = [
            rf"\textbf{{{_latex(cell)}}}" if (row, column) in table.strong else _latex(cell)
            for column, cell in enumerate(cells)
        ]
        body.append(" & ".join(written) + r" \\")
    heading = " & ".join(_latex(column) for column in table.columns) + r" \\"
    note = (
        [rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\footnotesize {_latex(table.caption)}}} \\"]
        if table.caption
        else []
    )
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *body,
            r"\bottomrule",
            *note,
            r"\end{tabular}",
            "",
        ]
    )


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return _text(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_text(item)}" for item in block.items)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
        return f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"
    if isinstance(block, Missing):
        return f"> {_text(block.text)} `{block.command}`"
    if isinstance(block, Table):
        return table_as_markdown(block)
    if isinstance(block, Figures):
        return _joined([*(_image(figure) for figure in block.figures), _text(block.caption)])
    if isinstance(block, Gallery):
        heading = [_row(["", *(_text(column) for column in block.columns)]), _row([":---"] * (len(block.columns) + 1))]
        rows = [_row([_text(title), *(_image(figure) for figure in figures)]) for title, figures in block.rows]
        return _joined(["\n".join([*heading, *rows]), _text(block.caption)])
    if isinstance(block, Fold):
        return _joined([f"### {_text(block.title)}", *(_block(inner) for inner in block.blocks)])
    raise TypeError(f"no Markdown for a {type(block).__name__}")


def _image(figure: Figure) -> str:
    return f"![{_text(figure.alt)}]({FIGURES}/{figure.name}.png)"


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
