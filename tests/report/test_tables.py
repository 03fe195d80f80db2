import io
import re

import pytest
from rich.console import Console

from lateen.report.tables import (
    Column,
    TableData,
    classification_table,
    fact,
    hits_table,
    inspect_table,
    per_class_table,
    retrieval_table,
    rounded,
)

RETRIEVAL = {
    "task": "retrieval",
    "text_to_image": {"R@1": 19.04, "R@5": 44.06, "R@10": 59.4, "median_rank": 7.0},
    "image_to_text": {"R@1": 26.1, "R@5": 52.1, "R@10": 65.25, "median_rank": 4.5},
    "images": 1000,
    "captions": 5000,
}
CLASSIFICATION = {
    "task": "classification",
    "top1": 70.0,
    "top5": 100.0,
    "per_class": {"church": 90.0, "gas pump": 50.0},
}


def on_terminal(table: TableData, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(table.rich())
    return stream.getvalue()


def test_retrieval_rows_are_the_input_with_chance_below_each_direction():
    table = retrieval_table(RETRIEVAL, "Flickr8k test")
    assert [column.name for column in table.columns] == [
        "", "R@1 (%)", "R@5 (%)", "R@10 (%)", "median rank",
    ]  # fmt: skip
    assert table.cells() == [
        ["text → image", "19.0", "44.1", "59.4", "7.0"],
        ["chance", "0.1", "0.5", "1.0", "500.0"],
        ["image → text", "26.1", "52.1", "65.2", "4.5"],
        ["chance", "0.1", "0.5", "1.0", "647.0"],
    ]
    assert table.reference == (1, 3)
    assert table.note == "1,000 images, 5,000 captions."


def test_chance_of_image_to_text_counts_the_captions_of_an_image():
    both = {"text_to_image": {"R@2": 1.0}, "image_to_text": {"R@2": 2.0}}
    cells = retrieval_table({**both, "images": 2, "captions": 4}).cells()
    assert cells[1] == ["chance", "100.0", "1.0"]
    assert cells[3] == ["chance", "83.3", "1.0"]  # 1 − (2/4)(1/3)
    assert cells[0] == ["text → image", "1.0", "–"]  # no median rank given


def test_classification_shows_accuracy_chance_and_the_lowest_class():
    assert classification_table(CLASSIFICATION).cells() == [
        ["zero-shot", "70.0", "100.0", "50.0"],
        ["chance", "50.0", "100.0", "–"],
    ]


def test_chance_counts_the_classes_that_no_image_was_of():
    table = classification_table({**CLASSIFICATION, "classes": 8, "images": 1200})
    assert table.cells()[1] == ["chance", "12.5", "62.5", "–"]
    assert table.note == "1,200 images, 8 classes."


def test_per_class_lists_the_lowest_first_and_says_what_it_leaves_out():
    table = per_class_table({"a": 3.0, "b": 1.0, "c": 2.0}, limit=2)
    assert table.cells() == [["b", "1.0"], ["c", "2.0"]]
    assert table.note == "The lowest 2 of 3 classes."
    assert per_class_table({"a": 3.0}).note == ""


def test_hits_are_ranked_as_given():
    table = hits_table([{"id": "x", "path": "p/x.jpg", "score": 0.31249}])
    assert table.cells() == [["1", "0.312", "x", "p/x.jpg"]]
    assert hits_table([]).note == "No hits."


def test_facts_group_counts_and_leave_words_and_strings_alone():
    assert fact(30000) == "30,000"
    assert fact("12345") == "12345"
    assert fact(True) == "True"
    assert fact(None) == "–"
    assert inspect_table({"rows": 30000, "dtype": "float16"}).cells() == [
        ["rows", "30,000"],
        ["dtype", "float16"],
    ]


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        TableData("", [Column("a"), Column("b")], [("only one",)]).cells()


def test_terminal_markdown_and_html_show_the_same_cells():
    table = retrieval_table(RETRIEVAL, "Flickr8k test")
    shown = on_terminal(table)
    html = re.findall(r"<t[dh](?: [^>]*)?>([^<]*)</t[dh]>", table.html())
    markdown = table.markdown()
    for cell in (cell for row in table.cells() for cell in row):
        assert cell in shown
        assert cell in html
        assert f"| {cell} |" in markdown
    for text in (shown, table.html(), markdown):
        assert "Flickr8k test" in text
        assert "1,000 images, 5,000 captions." in text


def test_markdown_is_a_table_with_numbers_to_the_right():
    table = TableData("T", [Column("name"), Column("n", 0)], [("a|b", 1234)], "note")
    assert table.markdown() == (
        "**T**\n\n| name | n |\n| --- | ---: |\n| a\\|b | 1,234 |\n\nnote\n"
    )


def test_html_escapes_every_text():
    evil = '<script>alert("1")</script>'
    html = TableData(evil, [Column(evil), Column("n", 1)], [(evil, evil)], evil).html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;") == 5


def test_html_marks_the_rows_of_reference_and_the_columns_of_numbers():
    html = classification_table(CLASSIFICATION).html()
    assert html.count('<tr class="reference">') == 1
    assert '<td class="number">70.0</td>' in html
    assert '<th scope="row">zero-shot</th>' in html


def test_tables_without_headings_have_no_heading_row():
    table = inspect_table({"rows": 3})
    assert "<thead>" not in table.html()
    assert "─" not in on_terminal(table)


def test_the_terminal_shows_markup_and_escape_sequences_as_text():
    shown = on_terminal(
        hits_table([{"id": "[red]\x1b[31mx", "path": ":smile: \ud800", "score": 0}])
    )
    assert "\x1b" not in shown
    assert "[red]�[31mx" in shown
    assert ":smile: �" in shown


def test_a_narrow_terminal_folds_long_paths_and_loses_nothing():
    path = "folder/" * 12 + "photo.jpg"
    lines = on_terminal(hits_table([{"id": "x", "path": path, "score": 0.5}]), width=60).split("\n")
    assert max(map(len, lines)) <= 60
    assert path in "".join(line.split()[-1] for line in lines[2:] if line.split())


@pytest.mark.parametrize("width", [30, 45])
def test_a_narrow_terminal_cuts_no_number_and_no_name(width):
    columns = [Column("model"), Column("interval", 1, whole=True), Column("n", 0, whole=True)]
    table = TableData("", columns, [["编码器 of a long name", "86.7–100.0", 12_345]])
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(table.rich(), crop=False)
    assert "86.7–100.0   12,345" in stream.getvalue()
    assert "编码器" in stream.getvalue()


def latex(cell: str, note: str = "", title: str = "") -> list[str]:
    """The lines of a table of one cell below ``model``, and of a number beside it."""
    columns = [Column("model"), Column("R@1 (%)", 1)]
    return TableData(title, columns, [[cell, "22.4"]], note).latex().splitlines()


def test_latex_is_a_booktabs_table_with_title_and_note_as_its_caption():
    columns = [Column("model"), Column("n", 0), Column("d", 2)]
    rows = [["a", 1234, -0.5], ["chance", None, 0.25]]
    table = TableData("Retrieval", columns, rows, "Percent.", reference=(1,))
    assert (
        table.latex()
        == r"""% needs \usepackage{booktabs}
\begin{table}[tbp]
  \centering
  \caption{Retrieval. Percent.}
  \begin{tabular}{lrr}
    \toprule
    model & n & d \\
    \midrule
    a & 1,234 & $-$0.50 \\
    chance & -- & 0.25 \\
    \bottomrule
  \end{tabular}
\end{table}
"""
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a & b", r"a \& b"),
        ("50 %", r"50 \%"),
        ("x_1 #2 $y$", r"x\_1 \#2 \$y\$"),
        ("{a}", r"\{a\}"),
        ("~ ^", r"\textasciitilde{} \textasciicircum{}"),
        ("C:\\dir", r"C:\textbackslash{}dir"),
        ("≥ ≤ → ± × −", r"$\geq$ $\leq$ $\rightarrow$ $\pm$ $\times$ $-$"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ('`--out` "x"', r"\textasciigrave{}-{}-out\textasciigrave{} ''x''"),
        ("a---b", "a-{}-{}-b"),
        ("B² · naïve Łódź", r"B$^2$ $\cdot$ naïve Łódź"),
        ("[b]", "{}[b]"),
        ("*b", "{}*b"),
        ("two\nlines", "two lines"),
    ],
)
def test_latex_escapes_what_is_not_text(text, escaped):
    assert rf"    {escaped} & 22.4 \\" in latex(text)
    caption = escaped.removeprefix("{}")
    assert rf"  \caption{{{caption}. {caption}.}}" in latex("a", note=text + ".", title=text)
    head = TableData("", [Column(text)], [["a"]]).latex().splitlines()
    assert rf"    {escaped} \\" in head


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("22.4 ★", r"\textbf{22.4}"),
        ("22.4 [19.8, 25.1] ★", r"\textbf{22.4} [19.8, 25.1]"),
        ("22.4 ± 0.4 ★", r"\textbf{22.4} $\pm$ 0.4"),
        ("★ 1,022.4 (19.8–25.1)", r"\textbf{1,022.4} (19.8--25.1)"),
        ("Ada (1815) ★", r"\textbf{Ada (1815)}"),
        ("★ -3.5", r"\textbf{$-$3.5}"),
        ("Ada Lovelace ★", r"\textbf{Ada Lovelace}"),
        ("22.4 [-1.0, 2.0]", "22.4 [$-$1.0, 2.0]"),
    ],
)
def test_latex_has_the_best_in_bold_in_place_of_its_star(cell, shown):
    lines = TableData("", [Column("a"), Column("b", 1)], [["x", cell]], "★ is best.").latex()
    assert rf"    x & {shown} \\" in lines.splitlines()
    assert r"\caption{Bold is best.}" in lines
    assert "★" not in lines


def test_latex_names_what_pdflatex_cannot_set():
    assert latex("编码 ½ ẑ")[1] == "% needs XeLaTeX or LuaLaTeX, and a font that has 编码ẑ"
    assert not any("XeLaTeX" in line for line in latex("é"))


def test_latex_without_headings_or_title_has_neither():
    table = inspect_table({"rows": 3}).latex()
    assert "midrule" not in table
    assert "caption" not in table


def test_numbers_for_files_have_six_digits():
    assert [rounded(x) for x in (0.1 * 413.0, 1234567.0, 0.000123456789)] == [
        41.3, 1234570.0, 0.000123457,
    ]  # fmt: skip
