"""Another Python environment, and the process in it that runs an encoder (``_worker.py``)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lateen.encoders import _worker
from lateen.encoders.resolve import find_python
from lateen.errors import EncoderEndedError, EncoderError

_KEPT = 40  # last lines of what it says on stderr
_MOST_PRINTED = 1 << 20  # bytes before the worker's first message
_SECONDS = 5.0  # for a process that has closed its output to end
# What is our own interpreter's, and would have another look for packages in the wrong place.
_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")
_GOES_ON = "what was encoded before is kept, and the same command goes on from there"
_NOISE = re.compile(r"\s|\S*Warning\b|\d+%\|")


class OtherPython:
    """A process in another environment that runs one encoder.

    It ends with this object, or with the process that made it, in the middle of a batch, too. How
    long it takes for an answer is left to it.

    Args:
        python: as for :func:`~lateen.encoders.resolve.find_python`.
        name: of the encoder, for errors.
        device: ``auto``, ``cpu``, ``cuda``, …, of that environment's torch.

    Attributes:
        python: its path.
        name: as given.
        versions: of the Python and of the packages there that can influence features.
        device: that its torch uses.
        bfloat16: whether it computes in that; ``None`` of a CPU, which is the one here.

    Raises:
        UsageError: there is no such Python.
        EncoderError: it is none, or its environment has no torch, no transformers or no such
            device.
    """

    def __init__(self, python: str | Path, name: str, device: str = "auto") -> None:
        self.python = find_python(python)
        self.name = name
        self._lock = threading.Lock()
        self._doing = "starting"
        kept = {key: value for key, value in os.environ.items() if key not in _OURS}
        try:
            self._process = subprocess.Popen(
                [self.python, _worker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=kept,
            )  # fmt: skip
        except OSError as error:
            raise EncoderError(
                f"{self.python} cannot be run: {error.strerror}", _NO_PYTHON
            ) from error
        requests, answers, errors = (
            self._process.stdin, self._process.stdout, self._process.stderr
        )  # fmt: skip
        assert requests is not None and answers is not None and errors is not None
        self._requests, self._answers = requests, answers
        self._said: deque[str] = deque(maxlen=_KEPT)
        self._listener = threading.Thread(target=_listen, args=(errors, self._said), daemon=True)
        self._listener.start()
        self._end = weakref.finalize(self, _end, self._process, self._listener)
        self._await_worker()
        here = self.ask("begin", device=device)[0]
        self.versions: Mapping[str, str] = here["versions"]
        self.device: str = here["device"]
        self.bfloat16: bool | None = here["bfloat16"]

    def ask(
        self, op: str, arrays: Sequence[Any] = (), *, doing: str = "starting", **asked: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        """What the worker answers to a request: a header and arrays.

        Args:
            op: of the request; see ``_worker.py``.
            arrays: NumPy arrays that go with it.
            doing: what this is for, for errors.
            asked: what else the request says.

        Raises:
            EncoderEndedError: it is gone.
            EncoderError: it refuses, or fails.
        """
        with self._lock:
            if not self._end.alive:
                raise EncoderEndedError(
                    f"the process of {self.name} in {self.python} has ended before",
                    "Load the encoder again.",
                )
            self._doing = doing
            try:
                _worker.write_message(self._requests, {"op": op, **asked}, arrays)
                header, given = _worker.read_message(self._answers)
            except (EOFError, OSError, ValueError) as error:
                raise self._gone() from error
            except BaseException:
                self.close()  # half of an answer is no beginning of the next
                raise
        if "refused" in header:
            raise self._refusal(op, *header["refused"])
        if "failed" in header:
            raise EncoderError(
                f"{self.name} failed while {doing} in {self.python}: {header['failed']}",
                "It is that environment's own error: see that it has what the model needs, and "
                "that the model's folder is whole.",
            )
        return header, given

    def close(self) -> None:
        """End the process."""
        self._end()

    def _await_worker(self) -> None:
        """Read over what the environment prints when Python starts.

        Raises:
            EncoderError: it is no Python.
        """
        printed = 0
        while (line := self._answers.readline(_MOST_PRINTED)) and printed < _MOST_PRINTED:
            if line.endswith(_worker.MAGIC):
                return
            printed += len(line)
        if printed >= _MOST_PRINTED:
            self._process.kill()
        status, last = self._ended()
        raise EncoderError(
            f"{self.python} does not run as a Python: it ended at once, {status}{last}", _NO_PYTHON
        )

    def _gone(self) -> EncoderEndedError:
        """The error that the worker is no longer there."""
        status, last = self._ended()
        memory = " (so ends what takes more memory than there is)" if "SIGKILL" in status else ""
        remedy = f"Lower --batch-size where memory was short; {_GOES_ON}."
        if self._doing != "encoding":
            remedy = "See that the model fits in memory, and loads in that environment by itself."
        return EncoderEndedError(
            f"{self.name}, which runs in {self.python}, ended while {self._doing}, "
            f"{status}{memory}{last}", remedy,
        )  # fmt: skip

    def _ended(self) -> tuple[str, str]:
        """How the process ended, and the last thing it said that matters, each in words."""
        try:
            code = self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join(_SECONDS)
        last = next((line for line in reversed(self._said) if not _NOISE.match(line)), "")
        self.close()
        return _status(code), f": {last}" if last else ""

    def _refusal(self, op: str, problem: str, remedy: str) -> EncoderError:
        if op == "begin":
            install = f"Install what is missing: {self.python} -m pip install {remedy}."
            return EncoderError(
                f"the environment of {self.python} {problem}",
                install if remedy else "Choose another --device.",
            )
        return EncoderError(f"{self.name} {problem}", remedy.replace("PYTHON", self.python))


_NO_PYTHON = "Give the other environment's Python, 3.9 or later: ENVIRONMENT/bin/python."


def _listen(stream: IO[bytes], said: deque[str]) -> None:
    """Keep the last lines of a stream until it ends."""
    with contextlib.suppress(ValueError, OSError):  # it was closed
        for line in stream:
            said.extend(part for part in line.decode(errors="replace").splitlines() if part.strip())


def _status(code: int) -> str:
    """An exit status in words; a shell between has 128 and the signal's number."""
    number = -code if code < 0 else code - 128
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(number).name}"
    return f"with exit status {code}"


def _end(process: subprocess.Popen[bytes], listener: threading.Thread) -> None:
    """End a process that has nothing to save."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()  # which ends it where a wrapper stands between
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    listener.join(_SECONDS)
    if process.stderr is not None and not listener.is_alive():
        process.stderr.close()
