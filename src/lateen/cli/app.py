"""The app, its commands, and how every failure ends: one line, a remedy, an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection

import cyclopts

import lateen
from lateen.cli import (
    assessment,
    captioning,
    doctor,
    evaluation,
    exchange,
    experiments,
    features,
    labelling,
    models,
    multimodal,
    planning,
    searching,
    serving,
    tuning,
)  # fmt: skip
from lateen.cli.keys import wrong_words
from lateen.cli.output import process_leads
from lateen.errors import LateenError, choices, is_out_of_memory, reason
from lateen.files import is_disk_full
from lateen.hardware import wait_asleep_where_busy
from lateen.progress import log, log_to_stderr

_FLAGS = {
    "--debug": "show the trace of an error",
    "--verbose": "say what is done, also where standard error is not a terminal",
    "--quiet": "say nothing but errors and the result",
}

_MEMORY = (
    "there is not enough memory. Take smaller pieces (train.batch, train.micro_batch, "
    "--batch-size) or a smaller model (head.dim, head.width); `lateen plan` predicts what a "
    "recipe needs."
)
app = cyclopts.App(
    name="lateen",
    help="Turn frozen, pretrained vision and language encoders into a CLIP.",
    help_epilogue=(
        "Every command takes --help, --verbose (say what is done also in a pipe), --quiet (say "
        "nothing but errors and the result), --debug (show the trace of an error) and "
        "--max-pixels N (read no image of more; 500,000,000). Exit codes: 0 ok, 1 failed, 2 bad "
        "usage."
    ),
    version=f"lateen {lateen.__version__}",
    default_parameter=cyclopts.Parameter(negative=""),
    suppress_keyboard_interrupt=False,
)


for command in (
    models.demo_command, experiments.init_command, experiments.run_command,
    experiments.keys_command, captioning.caption_command, features.encode_command,
    features.merge_command, features.fuse_command, exchange.import_command, exchange.export_command,
    features.inspect_command, assessment.assess_command,
    planning.plan_command, models.train_command, tuning.tune_command, evaluation.compare_command,
    searching.index_command, searching.search_command, searching.duplicates_command,
    serving.serve_command,
    labelling.classify_command, labelling.embed_command,
    labelling.bank_command,
    experiments.ablate_command, doctor.doctor_command,
):  # fmt: skip
    app.command(command, name=command.__name__.removesuffix("_command"))
app.command(evaluation.app)
app.command(multimodal.app)
app.register_install_completion_command(
    help="Have the shell (bash, zsh, fish, PowerShell) complete commands and options; the file it "
    "starts with gets a line."
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: the words after ``lateen``; those of this process if not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, pixels = _without_value(words, "--max-pixels")
    flags = [word for word in words if word in _FLAGS]
    words = [word for word in words if word not in _FLAGS]
    _log_to_stderr(flags)
    if (
        "torch" not in sys.modules
        and {"--help", "-h"}.isdisjoint(words)
        and wait_asleep_where_busy()
    ):
        log.info(
            "other work has the cores: threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE)"
        )
    if {"--quiet", "--verbose"} <= set(flags):
        sys.exit(_fail("--quiet and --verbose say opposite things. Give one of them.", 2))
    if "" in words:
        sys.exit(_fail("an argument is empty. Is a shell variable unset?", 2))
    if pixels is not None:
        if not pixels.isdecimal() or int(pixels) < 1:
            sys.exit(_fail(f"--max-pixels is {pixels!r}. Give a number of pixels, 1 or more.", 2))
        from lateen.data.images import limit_pixels

        limit_pixels(int(pixels))
    if "" not in sys.path:  # as `python -m` has it: --encoder my_file:factory is found here
        sys.path.insert(0, "")
    sys.exit(_call(words, "--debug" in flags))


def _without_value(words: list[str], flag: str) -> tuple[list[str], str | None]:
    """The words without ``flag VALUE`` or ``flag=VALUE``, and the value; ``None`` for no flag."""
    for position, word in enumerate(words):
        if word == flag:
            value = words[position + 1] if position + 1 < len(words) else ""
            return [*words[:position], *words[position + 2 :]], value
        if word.startswith(f"{flag}="):
            return [*words[:position], *words[position + 1 :]], word.removeprefix(f"{flag}=")
    return words, None


def _call(words: list[str], debug: bool) -> int:
    try:
        words = searching.with_minus(evaluation.in_order(words))
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        return _fail(_usage(error, words), 2)
    except LateenError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped", 130)
    except BrokenPipeError:
        # The reader has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        return _fail(_system(error), 1)
    except Exception as error:
        if debug:
            raise
        if is_out_of_memory(error):
            return _fail(_MEMORY, 1)
        summary = f"{type(error).__name__}: {reason(error)}"
        return _fail(f"unexpected {summary}. Run it again with --debug and report the trace.", 1)
    return 0


def _usage(error: cyclopts.CycloptsError, words: list[str]) -> str:
    if words[:1] == ["evaluate"] and len(words) > 1 and (text := evaluation.unfit(error, words[1])):
        return text
    known = [name for name in app if not name.startswith("-")]
    if words and not words[0].startswith("-") and words[0] not in known:
        return f"unknown command {words[0]!r}. {choices(words[0], known)}"
    text = wrong_words(error) or " ".join(str(error).split()).rstrip(".")
    command = f"lateen {words[0]}" if words and words[0] in known else "lateen"
    return f"{text}. See `{command} --help`."


def _system(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if is_disk_full(error):
        return f"the disk is full{where}. Free some space and run the same command again."
    return f"{error.strerror or error}{where}. Check the path and its permissions."


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code


def _log_to_stderr(words: Collection[str]) -> None:
    """Progress notes on a terminal; in a pipe one line for each stage, and more if asked for."""
    level = logging.INFO
    # Of several processes (torchrun), the first speaks for all.
    if "--quiet" in words:
        level = logging.ERROR
    elif not process_leads() or not (sys.stderr.isatty() or {"--verbose", "--debug"} & set(words)):
        level = logging.WARNING
    log_to_stderr(level, stages="--quiet" not in words and process_leads())
