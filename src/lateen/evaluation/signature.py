"""What a task takes, read from its file: its options are known before anything heavy is loaded."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lateen.evaluation import tasks
from lateen.evaluation.task import TASKS

# They load neither torch nor transformers: tests/cli/test_light.py.
_LIGHT = ("lateen.data", "lateen.encoders.base", "lateen.evaluation.task")


class TaskSignature(NamedTuple):
    """The options of a task.

    Attributes:
        parameters: the keyword arguments of the function that runs it, with their types.
        docstring: of that function.
    """

    parameters: tuple[inspect.Parameter, ...]
    docstring: str


def task_signature(name: str) -> TaskSignature:
    """The options of a task.

    Its file is read and not run, as long as types and defaults are plain: literals, and names of
    the file itself, of the standard library, and of modules of lateen that load quickly. Otherwise
    the task is loaded.

    Args:
        name: in :data:`~lateen.evaluation.task.TASKS`.
    """
    try:
        return _read(_source_of(name))
    except (LookupError, NameError, TypeError, ValueError):
        run = TASKS[name].run
        given = tuple(inspect.signature(run, eval_str=True).parameters.values())[1:]
        return TaskSignature(given, run.__doc__ or "")


def _source_of(name: str) -> Path:
    file = f"{name.replace('-', '_')}.py"
    return next(path for folder in tasks.__path__ if (path := Path(folder, file)).is_file())


def _read(path: Path) -> TaskSignature:
    """The signature of the function that ``TASK = Task(function, …)`` names.

    Raises:
        LookupError, NameError, TypeError: it has not the form that is expected here.
    """
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = _Names(body)
    task = names.assigned["TASK"]
    if not (isinstance(task, ast.Call) and task.args and isinstance(task.args[0], ast.Name)):
        raise LookupError("TASK")
    wanted = task.args[0].id
    run = next((e for e in body if isinstance(e, ast.FunctionDef) and e.name == wanted), None)
    if run is None or run.args.kwarg is not None:
        raise LookupError(wanted)
    parameters = []
    for argument, default in zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True):
        if argument.annotation is None:
            raise TypeError(argument.arg)
        kind = _evaluate(argument.annotation, _Types(names))
        if Any in (kind, *get_args(kind)) and str not in get_args(kind):
            raise NameError(argument.arg)  # of a type that only loading would tell
        value = inspect.Parameter.empty if default is None else _evaluate(default, names)
        parameters.append(
            inspect.Parameter(
                argument.arg, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind
            )
        )
    return TaskSignature(tuple(parameters), ast.get_docstring(run) or "")


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    code = compile(ast.Expression(node), "<task>", "eval")
    return eval(code, {"__builtins__": {}}, names)


class _Names(dict[str, Any]):
    """The names of a module that is not run, each looked up when it is asked for."""

    def __init__(self, body: list[ast.stmt]) -> None:
        super().__init__()
        self.assigned = {
            target.id: statement.value
            for statement in body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        self.imported = {
            alias.asname or alias.name: (statement.module or "", alias.name)
            for statement in body
            if isinstance(statement, ast.ImportFrom) and not statement.level
            for alias in statement.names
        }

    def __missing__(self, name: str) -> Any:
        if name in self.assigned:
            return _evaluate(self.assigned[name], self)
        if name in self.imported:
            module, attribute = self.imported[name]
            standard = module.partition(".")[0] in sys.stdlib_module_names
            if standard or any(f"{module}.".startswith(f"{light}.") for light in _LIGHT):
                return getattr(importlib.import_module(module), attribute)
        return vars(builtins)[name]


class _Types(dict[str, Any]):
    """The same for types, of which those that are not known stand for any."""

    def __init__(self, names: _Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            return Any
