"""Results of an assessment that are kept by what decides them: a JSON file each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lateen.files import content_key, library_versions, read_json, write_json


def cached_json(
    folder: Path, kind: str, decides: Any, work: Callable[[str], dict[str, Any]],
    whole: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> dict[str, Any]:  # fmt: skip
    """What ``work`` gives, or gave an earlier call for which the same decided the result.

    Args:
        folder: of the results, a JSON file each.
        kind: what is worked out.
        decides: JSON values of everything that decides the result; versions of libraries do, too.
        work: gets a name that goes by all of that.
        whole: whether an earlier call's result has everything that is asked for now.
    """
    key = content_key([kind, decides, library_versions()])
    name = f"{kind}-{key[:16]}"
    path = folder / f"{name}.json"
    if not path.is_file() or not whole(read_json(path)):
        write_json(path, work(name))
    result: dict[str, Any] = read_json(path)
    return result
