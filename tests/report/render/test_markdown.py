import pytest

from lidistill.report.page_blocks import (
    Bullets,
    Code,
    Figure,
    Figures,
    Fold,
    Gallery,
    Missing,
    Page,
    Paragraph,
    Section,
    Table,
)
from lidistill.report.render.markdown import page_as_markdown, table_as_latex, table_as_markdown

TABLE = Table(("Model", "AP | 3D"), (("a_b", "61.2"), ("<script>", "−3.0")), "Scores, 95%", frozenset({(0, 1)}))
FIGURE = Figure("curve", "a [curve]", b"png", "<svg></svg>")


def page_of(*blocks):
    return Page(
        "Title", "Headline", "Lead", "SIMULATED DATA", "gain", (), (), (Section("one", "One", blocks),), "Footer"
    )


def test_a_table_is_a_pipe_table_with_figures_to_the_right():
    lines = table_as_markdown(TABLE).splitlines()
    assert lines == [
        "Scores, 95%:",
        "",
        "| Model | AP \\| 3D |",
        "| :--- | ---: |",
        "| a\\_b | **61.2** |",
        "| \\<script\\> | −3.0 |",
    ]


def test_an_empty_table_keeps_its_heading():
    assert table_as_markdown(Table(("a",), ())).splitlines() == ["| a |", "| :--- |"]


def test_latex_escapes_what_it_would_read_as_code():
    text = table_as_latex(
        Table(("Model & co", "100%"), (("a_b\\c {d} ~ ^ # $", "−3.0"), ("4×", "")), "50% of it", frozenset({(0, 1)}))
    )
    assert r"Model \& co & 100\% \\" in text
    assert r"a\_b\textbackslash{}c \{d\} \textasciitilde{} \textasciicircum{} \# \$ & \textbf{$-$3.0} \\" in text
    assert r"4$\times$ &  \\" in text
    assert r"\multicolumn{2}{l}{\footnotesize 50\% of it}" in text
    assert text.startswith(r"\begin{tabular}{lr}")
    assert text.endswith("\\end{tabular}\n")


def test_every_kind_of_block_is_written():
    blocks = (
        Paragraph("plain *text*"),
        Bullets(("one", "two")),
        Code("run `this`", "sh"),
        Missing("Not there.", "lidistill evaluate x"),
        TABLE,
        Figures((FIGURE,), "caption"),
        Gallery(("A",), (0,), (("frame 1", (FIGURE,)),), "views"),
        Fold("More", (Paragraph("inside"),)),
    )
    text = page_as_markdown(page_of(*blocks))
    for wanted in (
        "# Title",
        "**SIMULATED DATA** · **Headline**",
        "## One",
        "plain \\*text\\*",
        "- one\n- two",
        "```sh\nrun `this`\n```",
        "> Not there. `lidistill evaluate x`",
        "![a \\[curve\\]](figures/curve.png)",
        "| frame 1 | ![a",
        "### More\n\ninside",
        "Footer",
    ):
        assert wanted in text


def test_code_with_fences_is_fenced_more():
    assert "````\n```\ninner\n```\n````" in page_as_markdown(page_of(Code("```\ninner\n```")))


def test_line_breaks_do_not_leave_a_cell():
    assert "| a b |" in table_as_markdown(Table(("x",), (("a\nb",),)))


def test_a_block_without_a_rendering_is_a_mistake():
    with pytest.raises(TypeError, match="no Markdown"):
        page_as_markdown(page_of(FIGURE))
