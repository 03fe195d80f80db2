"""The command that looks at the installation: ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter

from lateen.cli.costs import size
from lateen.cli.keys import takes_hardware
from lateen.cli.output import show_json, show_table
from lateen.errors import LateenError

if TYPE_CHECKING:
    from lateen.installation import Installation
    from lateen.report.tables import TableData


@takes_hardware("device")
def doctor_command(*, json: Annotated[bool, Parameter(help="print JSON")] = False) -> None:
    """Tell what is installed and works, where networks would run, and what brings the rest.

    Every package that lateen needs or uses, and all that is built on torch, is imported: other
    libraries use it where it is there. Nothing is changed or downloaded. The exit code is 1 where
    some of it does not work.
    """
    from lateen.installation import examine

    found = examine(_alone())
    if json:
        show_json(found.as_dict())
    else:
        show_table(_here(found), _packages(found), _doors(found))
    if found.broken:
        listed = "; ".join(f"{each.name}: {each.fault}" for each in found.broken)
        raise LateenError(
            f"not everything works: {listed}",
            "Install these anew, in versions that go together (pip install --upgrade NAME), or "
            "remove what nobody needs.",
        )


def _alone() -> list[str]:
    """What is used where it is installed, and belongs to no extra."""
    try:
        from lateen.indexing.vector_files import FORMATS
        from lateen.training.config import TrackerName
    except ImportError:  # of what is needed: that is told, then
        return []
    written = [each.package for each in FORMATS.values() if each.package is not None]
    return [*written, *get_args(TrackerName)]


def _here(found: Installation) -> TableData:
    from lateen.report.tables import Column, TableData

    rows: list[list[Any]] = [[name, value] for name, value in found.versions.items()]
    if found.machine:
        machine = found.machine
        memory = machine["memory"]
        rows += [
            ["device", machine.get("gpu", machine["device"])],
            ["cores", f"{machine['cores']}, load {machine['load']:.1f}"],
            ["memory", ", ".join(f"{size(n)} {what}" for what, n in memory.items() if n)],
            ["precision", f"{machine['precision']}: {machine['bfloat16']}"],
            ["threads", ", ".join([
                f"{machine['threads']} of torch",
                *(f"{name} {value or 'is not set'}" for name, value in machine.items()
                  if name.startswith("OMP_")),
            ])],
        ]  # fmt: skip
    folders = found.folders
    rows.append(["lateen's cache", f"{folders['cache']}, {size(folders['cache_bytes'])}"])
    if "hub_cache" in folders:
        asked = "not asked (HF_HUB_OFFLINE)" if folders["hub_offline"] else "asked where needed"
        rows += [["hub", asked], ["hub's cache", folders["hub_cache"]]]
    return TableData("Here", [Column("", whole=True), Column("")], rows)


def _packages(found: Installation) -> TableData:
    from lateen.report.tables import Column, TableData

    needed = {each.name for each in found.packages}
    shown = [*found.packages, *(each for each in found.broken if each.name not in needed)]
    rows = [[each.name, each.version, each.wants, each.fault or "works"] for each in shown]
    columns = [Column(name) for name in ("package", "version", "wanted", "state")]
    return TableData("Packages", columns, rows)


def _doors(found: Installation) -> TableData:
    from lateen.report.tables import Column, TableData

    rows = [
        [each.name, f"missing: {', '.join(each.missing)}" if each.missing else "installed",
         each.install if each.missing else ""]
        for each in found.extras
    ]  # fmt: skip
    columns = [Column("for more"), Column("state"), Column("brought by", whole=True)]
    return TableData("Extras", columns, rows)
