"""What a browser is shown: the page at ``/``, the API's description, and their style and script."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from lateen.report.palette import THEME
from lateen.serving.engine import Engine
from lateen.serving.guard import cookie_name, is_token
from lateen.serving.thumbnails import SIZES

_FOREVER = "public, max-age=31536000, immutable"  # its address changes with it
_TOKEN_BYTES = 1 << 12
_YEAR = 365 * 24 * 3600


def page_routes(engine: Engine, app: FastAPI) -> APIRouter:
    """The routes of pages.

    Args:
        engine: knows what is served.
        app: whose API is described.
    """
    router = APIRouter(include_in_schema=False)
    settings = engine.settings

    def page(request: Request, template: str, **values: Any) -> Response:
        if not request.scope.get("lateen.known", True):
            return _asks_for_token(request)
        answer = HTMLResponse(_render(template, **values), headers={"cache-control": "no-store"})
        given = request.query_params.get("token", "")
        if settings.token is not None and is_token(given, settings):
            _remember(answer, request, given)
        return answer

    @router.get("/")
    async def start(request: Request) -> Response:
        about = await engine.searches.run(engine.about)
        return page(request, "index.html.j2", about=about, sizes=SIZES)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        base, schema = str(request.base_url).rstrip("/"), app.openapi()
        return page(
            request, "docs.html.j2", base=base, operations=list(_operations(schema)),
            photograph=_fields({"$ref": "Hit"}, schema),
            about=await engine.searches.run(engine.about), token=settings.token is not None,
        )  # fmt: skip

    @router.post("/enter")
    async def enter(request: Request) -> Response:
        """Take the token from a form, and remember it."""
        body = (await request.body())[:_TOKEN_BYTES].decode("latin-1")
        given = parse_qs(body).get("token", [""])[0].strip()
        if not is_token(given, settings):
            return _asks_for_token(request, wrong=True)
        answer = RedirectResponse("/", 303)
        _remember(answer, request, given)
        return answer

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        known = static_files().get(name)
        if known is None:
            return Response("there is nothing here", 404, media_type="text/plain")
        text, kind, _ = known
        return Response(text, media_type=kind, headers={"cache-control": _FOREVER})

    return router


@functools.cache
def static_files() -> Mapping[str, tuple[str, str, str]]:
    """Text, media type and version of what the pages load, by name."""
    folder = importlib.resources.files(__package__).joinpath("static")
    css, script, icon = (
        folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js", "icon.svg")
    )
    found = {
        "page.css": (f"{_palette()}\n{css}", "text/css"),
        "page.js": (script, "text/javascript"),
        "icon.svg": (icon, "image/svg+xml"),
    }
    return {
        name: (text, kind, hashlib.sha256(text.encode()).hexdigest()[:12])
        for name, (text, kind) in found.items()
    }


def _palette() -> str:
    """The colours of lateen's pages, as CSS variables."""
    light, dark = (
        "".join(f"--{name}: {pair[side]}; " for name, pair in THEME.items()) for side in (0, 1)
    )
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"


def _asks_for_token(request: Request, *, wrong: bool = False) -> Response:
    # Browsers keep the cookie back where a link on another site led here. Asked again by this
    # page itself, they send it.
    again = request.headers.get("sec-fetch-site", "") in ("cross-site", "same-site")
    again = again and request.method == "GET"
    text = _render("token.html.j2", wrong=wrong, again=again)
    return HTMLResponse(text, 401, {"cache-control": "no-store"})


def _remember(answer: Response, request: Request, token: str) -> None:
    answer.set_cookie(
        cookie_name(request.scope), token, max_age=_YEAR, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def _operations(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the API can be asked, as its page shows it."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {})
            yield {
                "method": method.upper(), "path": path, "what": operation.get("description", ""),
                "parameters": [_parameter(each) for each in operation.get("parameters", ())],
                "json": _fields(body.get("application/json", {}).get("schema", {}), schema),
                "form": _fields(body.get("multipart/form-data", {}).get("schema", {}), schema),
                "answer": _fields(_answer(operation), schema),
            }  # fmt: skip


def _answer(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    found: Mapping[str, Any] = content.get("application/json", {}).get("schema", {})
    return found


def _parameter(given: Mapping[str, Any]) -> dict[str, Any]:
    schema = given.get("schema", {})
    return {
        "name": given["name"], "required": given.get("required", False),
        "what": given.get("description") or schema.get("description", ""),
        "default": schema.get("default"), "parts": [],
    }  # fmt: skip


def _fields(given: Mapping[str, Any], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of an object, those of objects in it included."""
    known = {**schema.get("components", {}).get("schemas", {}), **given.get("$defs", {})}
    own = _resolved(given, known)
    rows = []
    for name, field in own.get("properties", {}).items():
        inner = _resolved(field.get("items", field), known)
        parts = [] if inner is field else list(inner.get("properties", {}))
        rows.append({
            "name": name, "required": name in own.get("required", ()),
            "what": field.get("description") or inner.get("description", ""),
            "default": field.get("default"), "parts": parts,
        })  # fmt: skip
    return rows


def _resolved(field: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in (field, *field.get("anyOf", ())):
        if name := str(each.get("$ref", "")).rpartition("/")[2]:
            found: Mapping[str, Any] = known.get(name, {})
            return found
    return field


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lateen.serving"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip
    environment.globals["static"] = lambda name: f"/static/{name}?v={static_files()[name][2]}"
    return environment
