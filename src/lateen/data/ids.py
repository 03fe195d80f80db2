"""Sample ids: the same image gets the same id from a folder, a table and a shard."""

from __future__ import annotations

import posixpath
import unicodedata


def sample_id(text: str) -> str:
    """``text`` as an id: POSIX separators, no ``./``, ``//`` or outer spaces, composed Unicode.

    >>> sample_id("./a//b.jpg"), sample_id("a\\\\b.jpg")
    ('a/b.jpg', 'a/b.jpg')
    """
    text = unicodedata.normalize("NFC", text.strip())
    return posixpath.normpath(text.replace("\\", "/")) if text else ""


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8 (file names and JSON can hold half characters)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
