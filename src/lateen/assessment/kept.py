"""Results that are kept, so that a further encoder costs that encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lateen.files import content_key, read_json, write_json
from lateen.store.manifest import library_versions


def kept(
    folder: Path, kind: str, decides: Any, work: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """What ``work`` gives, or gave an earlier call for which the same decided the result.

    Args:
        folder: of the results, a JSON file each.
        kind: what is worked out.
        decides: JSON values of everything that decides the result; versions of libraries do, too.
        work: gets a name that goes by all of that.
    """
    key = content_key([kind, decides, library_versions()])
    name = f"{kind}-{key[:16]}"
    path = folder / f"{name}.json"
    if not path.is_file():
        write_json(path, work(name))
    found: dict[str, Any] = read_json(path)
    return found
