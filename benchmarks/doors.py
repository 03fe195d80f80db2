"""How many files a photograph passes on its way from disk to a retrieval score.

Runs a command of lateen and lists the files of the library in which a function ran, in the order
in which they were entered, without what only ran while a module was imported:

    python benchmarks/doors.py evaluate retrieval MODEL --captions FILE --images DIR
    python benchmarks/doors.py evaluate MODEL --task retrieval --captions FILE --images DIR

Features must not be in the cache already (set LATEEN_CACHE to a new folder), or what encodes them
does not run. The marks of issue and design count files, since a reader has to open each of them.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


def main() -> None:
    """Trace one command and print the files, in the order in which they were first entered."""
    import lateen

    root = str(Path(lateen.__file__).parent)
    entered: dict[str, int] = {}
    importing = {"<module>"}

    def enter(frame: FrameType, event: str, _: Any) -> None:
        code: CodeType = frame.f_code
        if event != "call" or not code.co_filename.startswith(root) or _only_imports(frame):
            return
        name = code.co_filename.removeprefix(root + "/")
        entered[name] = entered.get(name, 0) + 1

    def _only_imports(frame: FrameType | None) -> bool:
        """Whether a module is being imported: the frame itself or one that called it."""
        while frame is not None:
            if frame.f_code.co_name in importing and frame.f_code.co_filename.startswith(root):
                return not frame.f_code.co_filename.endswith("__main__.py")
            frame = frame.f_back
        return False

    from lateen.cli import main as run

    threading.setprofile(enter)
    sys.setprofile(enter)
    try:
        run(sys.argv[1:])
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ground = [name for name in entered if "/" not in name]
    for name, calls in entered.items():
        print(f"{name:40} {calls:7} calls{'  (ground)' if name in ground else ''}")
    print(f"{len(entered) - len(ground)} files, and {len(ground)} of the ground below them all")


if __name__ == "__main__":
    main()
