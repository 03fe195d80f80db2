"""What the site has beyond docs/: the README as its front page, the examples, and the public names.

Every link is written for the repository; here it leads to the page made of that file, or, of a
file that is no page, to the repository. Used by mkdocs.yml.
"""

import ast
import importlib
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(\]\(|\bsrc=\")([^)\s\"#:]+)(?=[)\"#])")
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([\w.]+)</code>")
_CELL = re.compile(r"^# %%.*$", flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of something else."""

    def add(uri: str, content: str) -> None:
        files.append(File.generated(config, uri, content=content))

    for source, uri in BESIDE.items():
        add(uri, (ROOT / source).read_text(encoding="utf-8"))
    for script in sorted((ROOT / "examples").glob("*.py")):
        add(f"examples/{script.stem}.md", example_page(script))
    for uri in api_pages(config):
        add(uri, api_page(Path(uri).stem))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, which are between files of the repository, to pages."""
    uri = page.file.src_uri
    sources = {made: source for source, made in BESIDE.items()}
    here = (ROOT / sources.get(uri, f"docs/{uri}")).parent

    def turned(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / link[2]))
        if not target.exists():
            return link[0]  # strict: mkdocs refuses it
        name = target.relative_to(ROOT).as_posix()
        made = BESIDE.get(name, name.removeprefix("docs/"))
        if files.get_file_from_path(made) is None:
            return f"{link[1]}{repository(config)}/blob/main/{name}"
        start = os.path.relpath(made, Path(uri).parent)
        return link[1] + start

    return _LINK.sub(turned, markdown)


def repository(config: MkDocsConfig) -> str:
    """Where the repository is."""
    [place] = [one["link"] for one in config.extra["social"]]
    return str(place)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn Sphinx's roles, by which docstrings name things, to links where the site has them."""
    package = Path(page.file.src_uri).stem

    def linked(role: re.Match[str]) -> str:
        name = role[1] if "." in role[1] else f"{package}.{role[1]}"
        shown = role[1].rpartition(".")[2]
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(linked, html)


def example_page(script: Path) -> str:
    """A script of cells as a page: comments that begin a cell as text, the rest as code."""
    source = script.read_text(encoding="utf-8")
    summary, _, rest = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    cells = _CELL.split(source)[1:]
    parts = [f"# {summary.rstrip('.')}", rest.strip()]
    for cell in cells:
        text, code = [], []
        for line in cell.strip().splitlines():
            (text if line.startswith("#") and not code else code).append(line)
        parts.append("\n".join(line.removeprefix("#").strip() for line in text))
        parts.append("```python\n" + "\n".join(code).strip() + "\n```")
    name = script.relative_to(ROOT).as_posix()
    parts.append(f"The script: [{name}](../../{name})")
    return "\n\n".join(parts)


def api_pages(config: MkDocsConfig) -> list[str]:
    """The pages of the navigation whose names are those of packages."""
    [pages] = [entry["API"] for entry in config.nav or () if "API" in entry]
    return [uri for page in pages for uri in page.values()]


def api_page(package: str) -> str:
    """The public names of a package, documented by their docstrings.

    Args:
        package: its dotted name.
    """
    module = importlib.import_module(package)
    names = (f"::: {package}.{name}" for name in sorted(module.__all__, key=str.casefold))
    return "\n\n".join([f"# {package}", module.__doc__ or "", *names])
