"""Small text files: ids, class names, prompts, JSON. Every such file is read here.

A byte order mark and the line ends of other systems are no part of what a file says.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from pathlib import Path
from typing import Any

from lateen.errors import DataError

# One line of a Python list that was pasted: the text, perhaps made by a function, and a comma.
_PASTED = re.compile(
    r"""(?:lambda\s+(?P<name>\w+)\s*:\s*)?(?P<text>[rRuUfF]{0,2}("([^"\\]|\\.)*"|'([^'\\]|\\.)*'))\s*,?"""
)
# A list in a cell begins with a quotation mark within brackets, "array(" perhaps before it.
_LIST = re.compile(
    r"""(?P<array>array\()?(?P<list>\[\s*["'].*\])(?(array)(,\s*dtype=\w+)?\))""", re.DOTALL
)
# Around such lines: "templates = [", "[", "],", ")".
_BRACKETS = re.compile(r"(\w+\s*=\s*)?[\[(]|[\])],?")


def read_utf8(path: Path) -> str:
    """A text file's content, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is in another encoding; the message names the line.
    """
    try:
        data = path.read_bytes()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is in UTF-16, line 1", "Save it as UTF-8.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line} of {path} is not UTF-8 (byte 0x{error.object[error.start]:02x})",
            "Save the file as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8.",
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", "Check the path, and its permissions."
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        DataError: it cannot be read, is not UTF-8, or no JSON.
    """
    try:
        return json.loads(read_utf8(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})", "Download it again.") from error


def by_key(content: Any, path: Path) -> dict[Any, Any]:
    """What a JSON file lists: a mapping as it is, a list by the numbers from 0.

    Raises:
        DataError: it is neither.
    """
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise DataError(f"{path} is neither a list nor a mapping", "Download it again.")
    return content


def read_list(path: Path) -> list[str]:
    """The texts that a file lists: JSON, lines pasted from Python, or one text a line.

    JSON may be a list; a mapping of the numbers from 0 to texts, or of texts to these numbers; or a
    mapping with one such value (ImageNet's pairs of a WordNet id and a name are the name, behind a
    tab the id). Empty lines between others are kept, as the number of a line may mean something.

    Raises:
        DataError: it cannot be read, is not UTF-8, is JSON of another form, or has some lines in
            Python's quotes and some without.
    """
    content = read_utf8(path)
    if path.suffix.lower() == ".json" or content.lstrip()[:1] in ("[", "{"):
        try:
            return _listed(json.loads(content), path)
        except (json.JSONDecodeError, RecursionError) as error:
            if path.suffix.lower() == ".json":
                raise DataError(
                    f"{path} is not valid JSON ({error})", "Correct it, or write one text a line."
                ) from error
    return _unquoted(_lines(content), path)


def _lines(content: str) -> list[str]:
    """Lines without their ends; empty ones at the end are left out.

    Only line feeds and carriage returns end a line: U+2028 and its like stand within texts.
    """
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _listed(content: Any, path: Path) -> list[str]:
    """The texts of a JSON value."""
    if isinstance(content, dict):
        content = _in_mapping(content)
    if isinstance(content, list) and content:
        texts = [_text(each) for each in content]
        if None not in texts:
            return [text for text in texts if text is not None]
    raise DataError(
        f"{path} is JSON, but not one list of texts",
        'Write ["…", "…"], or one text a line.',
    )


def _in_mapping(content: dict[str, Any]) -> Any:
    """The list that a mapping means; ``None`` if it means none."""
    count = len(content)
    numbers = [str(number) for number in range(count)]
    if sorted(content) == sorted(numbers):
        return [content[number] for number in numbers]
    values = list(content.values())
    if all(type(value) is int for value in values) and sorted(values) == list(range(count)):
        return sorted(content, key=lambda text: content[text])
    return values[0] if count == 1 else None


def _text(entry: Any) -> str | None:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry):
        return "\t".join(reversed(entry))
    return None


def _unquoted(lines: list[str], path: Path) -> list[str]:
    """Lines as they are, or what they say in Python if all of them are Python."""
    inner = [line.strip() for line in lines]
    matches = {i: _PASTED.fullmatch(i) for i in inner if i and not _BRACKETS.fullmatch(i)}
    quoted = [line for line, match in matches.items() if match]
    plain = [line for line, match in matches.items() if not match]
    if not quoted:
        return lines
    if plain:
        raise DataError(
            f"{path} has the line {quoted[0]} in quotation marks, and {plain[0]!r} without",
            "Take the marks away, or write a JSON list.",
        )
    found = (matches.get(line) for line in inner)
    return [_python_text(match["text"], match["name"]) for match in found if match]


def _python_text(literal: str, name: str | None) -> str:
    """The text of a Python literal; what a function puts in at ``{name}`` goes in at ``{}``."""
    text = str(ast.literal_eval(literal.lstrip("fF") if name else literal))
    return text.replace(f"{{{name}}}", "{}") if name else text


def list_in_text(text: str) -> list[Any] | None:
    """The entries of a list that is written within one text; ``None`` where it is none.

    JSON, Python's form, and NumPy's without commas, which is what tables have where a program put a
    list into a cell.

    >>> list_in_text('["a dog", "a black dog"]')
    ['a dog', 'a black dog']
    >>> list_in_text("['a dog' 'a black dog']")
    ['a dog', 'a black dog']
    >>> list_in_text("[laughs] a dog")

    Raises:
        ValueError: it begins and ends like one, and cannot be read.
    """
    match = _LIST.fullmatch(text.strip())
    if match is None:
        return None
    inner = match["list"]
    try:
        return list(json.loads(inner))
    except (json.JSONDecodeError, RecursionError):
        return _python_strings(inner)


def _python_strings(text: str) -> list[str | None]:
    """The texts in brackets, with commas or without; ``None`` for what stands for no text.

    Python itself would join texts that have no comma between them.
    """
    texts: list[str | None] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                texts.append(str(ast.literal_eval(token.string)))
            elif token.string in ("None", "nan"):
                texts.append(None)
            elif token.string.strip() not in ("", "[", "]", ","):
                raise ValueError(text)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(text) from error
    return texts
