"""What a ladder of tunings shows: tables, CSV, plot and page, from the JSON of ``ladder.json``."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lateen.files import write_text
from lateen.report import Page
from lateen.report.page import made_with
from lateen.report.tables import (
    INTERVAL,
    STAR,
    Cell,
    Column,
    TableData,
    difference_range,
    interval_cell,
    over_seeds,
    rounded,
    signed,
)
from lateen.report.trade_plot import Trade, trade_plot
from lateen.tuning.page import data_remarks, name_of, words_of
from lateen.tuning.summary import has_limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV, PAGE = "ladder.csv", "report.html"
Results = Mapping[str, Any]
_Variant = Mapping[str, Any]
_ORDER = (
    "knn_encoder", "knn_embedding", "zero_shot", "retrieval", "linear_probe_encoder",
    "linear_probe_embedding", "mmvp",
)  # fmt: skip
_ACROSS, _UP = "knn_embedding", "retrieval"  # of the plot
_FEWEST = 3  # points of a line


class _Gain(NamedTuple):
    """A difference from the start, over all seeds.

    Attributes:
        value: the mean.
        spread: the standard deviation over seeds; ``None`` of one seed.
        interval: from the lowest to the highest end of the seeds' own.
        significant: whether every seed's difference is, on the same side of 0.
    """

    value: float
    spread: float | None
    interval: tuple[float, float] | None
    significant: bool


def write_ladder_report(results: Results, out: Path) -> None:
    """Write ``ladder.csv`` (a row for each tuning) and ``report.html`` into ``out``.

    Args:
        results: the content of ``ladder.json``, which may have tunings that are not there yet.
        out: the folder.
    """
    write_text(out / CSV, _csv(results))
    names = [name_of({"name": results[side]}) for side in ("model", "target")]
    count = len(results["variants"])
    page = Page(
        f"{names[0]} tuned to {names[1]} in {count} ways" if count > 1 else
        f"{names[0]} tuned to {names[1]}",
        "All from the same start, judged on the same images.",
    )  # fmt: skip
    if remarks := list(_remarks(results)):
        page.text("\n\n".join(remarks))
    page.section("What each gained and what it cost")
    for table in ladder_tables(results):
        page.table(table)
    if (figure := ladder_figure(results)) is not None:
        page.section("Gain against loss").figure(figure, _how_to_read(results))
    page.section("In words").facts(_verdicts(results))
    page.section("Conditions").facts(_facts(results) | made_with())
    page.save(out / PAGE)


def failures(results: Results) -> dict[str, str]:
    """Why a tuning failed, by the name of its variant with its seed."""
    return {name: run["error"] for name, run in _every_run(results) if "error" in run}


def ladder_tables(results: Results) -> list[TableData]:
    """What every variant gained or lost, and what that took.

    Args:
        results: the content of ``ladder.json``.
    """
    measures = _measures(results)
    return [*([_gains(results, measures)] if measures else []), _costs(results)]


def ladder_figure(results: Results) -> Figure | None:
    """Gain in nearest neighbours against loss in retrieval; without either there is none."""
    shown = {}
    for at, variant in enumerate(results["variants"]):
        across, up = _gain(variant, _ACROSS), _gain(variant, _UP)
        if across is not None and up is not None:
            shown[at] = Trade(variant["name"], across.value, up.value, across.interval, up.interval)
    if not shown:
        return None
    trade_of = {at: index for index, at in enumerate(shown)}
    lines = [
        [trade_of[at] for at in line if at in trade_of]
        for line in _lines(results["variants"]).values()
    ]
    labels = [_start(results)[name]["label"] for name in (_ACROSS, _UP)]
    return trade_plot(
        list(shown.values()), "Each variant with its 95 % intervals",
        f"{labels[0]}, points above the start", f"{labels[1]}, points above the start", lines,
    )  # fmt: skip


def _done(variant: _Variant) -> list[Mapping[str, Any]]:
    return [run for run in variant["runs"] if "error" not in run]


def _every_run(results: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every tuning that has ended, by its name; of a variant with several seeds, that too."""
    for variant in results["variants"]:
        for run in variant["runs"]:
            several = len(variant["runs"]) > 1
            yield variant["name"] + (f", seed {run['seed']}" if several else ""), run


def _first(results: Results) -> Mapping[str, Any]:
    """Any tuning: the start is the same for all."""
    return next((run for _, run in _every_run(results) if "error" not in run), {})


def _start(results: Results) -> Mapping[str, Any]:
    """What was measured of the start."""
    start: Mapping[str, Any] = _first(results).get("before", {})
    return start


def _measures(results: Results) -> list[str]:
    return [name for name in _ORDER if name in _start(results)]


def _gain(variant: _Variant, name: str) -> _Gain | None:
    """What a variant gained, or lost, in a measure; ``None`` where not every seed has it."""
    runs = _done(variant)
    differences = [run["after"][name]["difference"] for run in runs if name in run["after"]]
    if not differences or len(differences) < len(runs):
        return None
    values = [one["value"] for one in differences]
    intervals = [one["interval"] for one in differences]
    ends = None
    if all(intervals):
        ends = (min(low for low, _ in intervals), max(high for _, high in intervals))
    return _Gain(
        statistics.mean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        ends,
        all(one["told"] for one in differences) and (min(values) > 0 or max(values) < 0),
    )


def _gains(results: Results, measures: Sequence[str]) -> TableData:
    start, several = _start(results), len(results["seeds"]) > 1
    rows: list[list[Cell]] = [
        ["start", *(start[name]["value"] for name in measures)],
        [INTERVAL, *(interval_cell(start[name]["interval"]) for name in measures)],
        ["n", *(f"{start[name]['n']:,}" for name in measures)],
        ["chance", *(start[name]["chance"] for name in measures)],
    ]
    reference, count = [1, 2, 3], 0
    for variant in results["variants"]:
        gains = [_gain(variant, name) for name in measures]
        count += sum(gain is not None for gain in gains)
        rows.append([_row_name(variant), *map(_shown, gains)])
        ends = [difference_range(gain.interval) if gain else "" for gain in gains]
        if any(ends):
            reference.append(len(rows))
            rows.append([INTERVAL, *ends])
    note = (
        "Points of percent above the start, whose own values are in the first row; below each the "
        "paired interval, over images drawn anew. "
    )
    note += (
        f"Mean ± standard deviation over {len(results['seeds'])} seeds; the interval goes from the "
        f"lowest to the highest end of the seeds' own. {STAR}: each seed's has 0 outside, on the "
        "same side and on six images or more."
        if several else f"{STAR}: 0 is outside, on six images or more. One seed of training."
    )  # fmt: skip
    if count > 1:
        note += (
            f" Of {count} differences, about one in twenty would be outside by chance where "
            "nothing changed."
        )
    columns = [Column("variant"), *(Column(_heading(start[name]), 1) for name in measures)]
    return TableData("Against the start", columns, rows, note, reference=reference)


def _row_name(variant: _Variant) -> str:
    """A variant's name; where some of its seeds failed, with how many did not."""
    done, every = len(_done(variant)), len(variant["runs"])
    return f"{variant['name']}" + (f" ({done} of {every} seeds)" if 0 < done < every else "")


def _heading(measure: Mapping[str, Any]) -> str:
    return str(measure["label"]).replace(", ", ",\n")


def _shown(gain: _Gain | None) -> str | None:
    if gain is None:
        return None
    spread = "" if gain.spread is None else f" ± {gain.spread:.1f}"
    return f"{signed(gain.value)}{spread}{f' {STAR}' if gain.significant else ''}"


def _costs(results: Results) -> TableData:
    columns = [
        Column("variant"), Column("images", 0), Column("kernel term left (%)", 0),
        Column("mean cosine with the start", 3), Column("kept step", 0), Column("minutes", 1),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for variant in results["variants"]:
        runs = _done(variant)
        if not runs:
            state = "failed" if variant["runs"] else "not yet"
            rows.append([variant["name"], None, None, None, state, None])
            continue
        terms = _term_percents(runs)
        cosines = [run["drift"]["cosine"]["mean"] for run in runs if run["drift"]]
        rows.append(
            [_row_name(variant), runs[0]["images"], over_seeds(terms, 0) if terms else None,
             over_seeds(cosines, 3) if cosines else None, _step_range(variant, runs),
             statistics.mean(run["seconds"] for run in runs) / 60]
        )  # fmt: skip
    note = (
        "The kernel term, on held-out images, in percent of its value at the start; of feature its "
        "own distance. A cosine of 1 is the start. Minutes of one tuning with everything that was "
        "measured; of one that was cut off, those of its last part."
    )
    return TableData("What it took", columns, rows, note)


def _term_percents(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """The kernel term at the kept step, in percent of the start's."""
    terms = [(run["kernel"].get("start"), run["kernel"].get("end")) for run in runs]
    return [100 * end / start for start, end in terms if start and end is not None]


def _step_range(variant: _Variant, runs: Sequence[Mapping[str, Any]]) -> str | None:
    """``80 of 94``; of several seeds ``72–94 of 94``."""
    if variant["tune"]["method"] == "projection":  # nothing is trained
        return None
    steps = [run["kept_step"] for run in runs]
    kept = f"{min(steps):,}" if len(set(steps)) == 1 else f"{min(steps):,}–{max(steps):,}"
    return f"{kept} of {runs[0]['steps']:,}"


def _lines(variants: Sequence[_Variant]) -> dict[str, list[int]]:
    """Places of the variants that differ in one number alone, in its order, by the number's key."""
    lines: dict[str, list[int]] = {}
    every = [variant["tune"] for variant in variants]
    for key in every[0] if every else ():
        groups: dict[str, list[int]] = {}
        for at, tune in enumerate(every):
            if isinstance(tune[key], int | float) and not isinstance(tune[key], bool):
                others = {name: value for name, value in tune.items() if name != key}
                groups.setdefault(repr(others), []).append(at)
        longest = max(groups.values(), key=len, default=[])
        if len(longest) >= _FEWEST:
            lines[key] = sorted(longest, key=lambda at: every[at][key])
    return lines


def _how_to_read(results: Results) -> str:
    text = (
        "To the right more is gained in nearest neighbours, to the bottom more is lost in "
        "retrieval; the start is where the lines cross. Bars are the intervals of the table."
    )
    if joined := list(_lines(results["variants"])):
        text += f" A dashed line joins variants that differ in {' or '.join(joined)} alone."
    return text


def _remarks(results: Results) -> Iterator[str]:
    """What has to be known before the numbers are believed."""
    failed = failures(results)
    if failed:
        total = sum(1 for _ in _every_run(results))
        yield f"{len(failed)} of {total} tunings failed: see In words."
    if missing := [variant["name"] for variant in results["variants"] if not variant["runs"]]:
        yield f"Not yet done: {', '.join(missing)}."
    yield from data_remarks([_first(results)], has_limits(results["base"]["stop"]))


def _verdicts(results: Results) -> dict[str, str]:
    return {
        name: f"failed: {run['error']}" if "error" in run else run["verdict"]
        for name, run in _every_run(results)
    }


def _facts(results: Results) -> dict[str, Any]:
    """What all share, and then what each sets."""
    base = results["base"]
    facts = {
        "student": base["model"], "target": words_of(base["target"]), "images": base["images"],
        "measured on": words_of(base["eval"]), "stop": words_of(base["stop"]),
        "preset": base["preset"], "seeds": ", ".join(map(str, results["seeds"])),
    }  # fmt: skip
    facts |= {
        f"setting {key}": words_of(value) for key, value in base["tune"].items() if key != "seed"
    }
    facts |= {
        f"variant {variant['name']}": words_of(variant["set"]) for variant in results["variants"]
    }
    return {name: value for name, value in facts.items() if value}


def _csv(results: Results) -> str:
    measures = _measures(results)
    heads = [
        f"{name} {part}" for name in measures
        for part in ("start", "after", "difference", "low", "high", "told")
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["variant", "seed", *heads, "kernel start", "kernel end", "mean cosine", "images",
         "kept step", "steps", "stopped at", "seconds", "folder", "error"]
    )  # fmt: skip
    for variant in results["variants"]:
        for run in variant["runs"]:
            writer.writerow([variant["name"], run["seed"], *_csv_numbers(run, measures)])
    return text.getvalue()


def _csv_numbers(run: Mapping[str, Any], measures: Sequence[str]) -> Iterator[Any]:
    if "error" in run:
        yield from [""] * (6 * len(measures) + 8)
        yield from (run["folder"], run["error"])
        return
    for name in measures:
        after = run["after"].get(name)
        difference = after["difference"] if after else {}
        yield f"{run['before'][name]['value']:.4f}"
        yield f"{after['value']:.4f}" if after else ""
        yield f"{difference['value']:.4f}" if difference else ""
        yield from (f"{end:.4f}" for end in difference.get("interval") or ())
        yield from ("" for _ in range(0 if difference.get("interval") else 2))
        told = difference.get("told")
        yield "" if told is None else "yes" if told else "no"
    cosine = run["drift"]["cosine"]["mean"] if run["drift"] else None
    for value in (run["kernel"].get("start"), run["kernel"].get("end"), cosine):
        yield rounded(value) if value is not None else ""
    yield run["images"]
    yield from (run["kept_step"], run["steps"], (run["stopped"] or {}).get("step"))
    yield from (run["seconds"], run["folder"], "")
