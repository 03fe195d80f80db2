"""The API: what can be asked, and how."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from lateen.errors import UsageError
from lateen.serving.engine import Engine, model_name, parsed_query, with_picture
from lateen.serving.metrics import Metrics
from lateen.serving.pictures import media_type
from lateen.serving.schemas import (
    FAILURES,
    AboutAnswer,
    ClassifyAnswer,
    ClassifyRequest,
    Cut,
    EmbedAnswer,
    EmbedRequest,
    Filter,
    FoldersAnswer,
    HealthAnswer,
    K,
    Offset,
    SearchAnswer,
    SearchRequest,
    Words,
)  # fmt: skip
from lateen.serving.settings import MOST_CONDITION
from lateen.serving.thumbnails import SIZES, VIEW

_FRESH = "private, max-age=600"  # after which a browser asks whether it has changed
_SIZES = " or ".join(map(str, SIZES))
_FILTER = tuple(Filter.model_fields)
_FIELD_BYTES = 1 << 16  # of a form, but for the picture
_Model = TypeVar("_Model", bound=BaseModel)

Since = Annotated[str | None, Query(max_length=10, description="taken then or later")]
Until = Annotated[str | None, Query(max_length=10, description="taken before its end")]
Folder = Annotated[str | None, Query(max_length=1000, description="in that folder or below it")]
Where = Annotated[str | None, Query(
    max_length=MOST_CONDITION, description="a condition in SQL over the columns",
)]  # fmt: skip


def api_routes(engine: Engine, metrics: Metrics) -> APIRouter:
    """The routes of the API.

    Args:
        engine: answers.
        metrics: what is shown at ``/metrics``.
    """
    router = APIRouter(responses=FAILURES)

    @router.get("/api/search", response_model=SearchAnswer)
    async def search(
        q: Annotated[Words, Query(description="what to look for")],
        k: K = 24, offset: Offset = 0, since: Since = None, until: Until = None,
        folder: Folder = None, where: Where = None, cut: Cut = True,
    ) -> Response:  # fmt: skip
        """Photographs that a sentence describes, best first."""
        filters = Filter(since=since, until=until, folder=folder, where=where)
        return JSONResponse(
            await engine.search(parsed_query(q), k=k, offset=offset, filters=filters, cut=cut)
        )

    @router.post("/api/search", response_model=SearchAnswer, openapi_extra=_body(SearchRequest))
    async def search_with(request: Request) -> Response:
        """The same with a body: JSON, or a form with a picture, and words beside it if any."""
        if not _is_form(request):
            asked = await _json(request, SearchRequest)
            query = parsed_query(asked.query)
        else:
            async with request.form(max_files=1, max_fields=16, max_part_size=_FIELD_BYTES) as form:
                asked = _asked(form)
                query = with_picture(asked.query, await engine.picture(await _picture(form)))
        return JSONResponse(
            await engine.search(
                query, k=asked.k, offset=asked.offset, filters=asked.filter, cut=asked.cut
            )
        )

    @router.get("/api/similar/{id:path}", response_model=SearchAnswer)
    async def similar(
        id: str, k: K = 24, offset: Offset = 0, since: Since = None, until: Until = None,
        folder: Folder = None, where: Where = None,
    ) -> Response:  # fmt: skip
        """Photographs like one of the index."""
        filters = Filter(since=since, until=until, folder=folder, where=where)
        return JSONResponse(await engine.similar(id, k=k, offset=offset, filters=filters))

    @router.post("/api/classify", response_model=ClassifyAnswer)
    async def classify(asked: ClassifyRequest) -> Response:
        """Every photograph's best label among some: how many have each, and the surest of them."""
        return JSONResponse(await engine.classify(asked.labels, k=asked.k, filters=asked.filter))

    @router.post("/api/embed", response_model=EmbedAnswer, openapi_extra=_body(EmbedRequest))
    async def embed(request: Request) -> Response:
        """Embeddings of texts (JSON), or of a picture (a form)."""
        if not _is_form(request):
            asked = await _json(request, EmbedRequest)
            vectors = await engine.embed_texts(asked.texts)
        else:
            async with request.form(max_files=1, max_fields=1, max_part_size=_FIELD_BYTES) as form:
                picture = await engine.picture(await _picture(form))
            vectors = await engine.embed_picture(picture)
        model = model_name(engine.index.about.model)
        return JSONResponse({"vectors": vectors, "dim": len(vectors[0]), "model": model})

    @router.get("/api/thumbnail/{id:path}", response_class=Response)
    async def thumbnail(
        request: Request, id: str,
        size: Annotated[int, Query(description=f"pixels: {_SIZES}")] = SIZES[0],
    ) -> Response:  # fmt: skip
        """A photograph, small, as JPEG without metadata."""
        if size not in SIZES:
            raise UsageError(
                f"there are no thumbnails of {size} pixels",
                f"Ask for {_SIZES}.",
            )
        return await _small(engine, request, id, size)

    @router.get("/api/image/{id:path}", response_class=Response)
    async def image(
        request: Request, id: str,
        original: Annotated[bool, Query(description="the file as it is, if allowed")] = False,
    ) -> Response:  # fmt: skip
        """A photograph, at most 2,048 pixels wide and high, as JPEG without metadata."""
        if not original:
            return await _small(engine, request, id, VIEW)
        if not engine.settings.originals:
            return JSONResponse(
                {
                    "error": "Files are not given as they are: they may say where they were taken.",
                    "remedy": "Start the server with --originals.",
                },
                403,
            )
        data = await engine.original(id)
        return Response(data, media_type=media_type(data), headers={"cache-control": _FRESH})

    @router.get("/api/folders", response_model=FoldersAnswer)
    async def folders() -> Response:
        """Every folder, and from when to when photographs were taken."""
        return JSONResponse(await engine.folders())

    @router.get("/api/about", response_model=AboutAnswer)
    async def about() -> Response:
        """What is served."""
        return JSONResponse(await engine.searches.run(engine.about))

    @router.get("/healthz", response_model=HealthAnswer)
    async def health() -> Response:
        """That the server answers. Needs no token."""
        return JSONResponse({"status": "ok", "photographs": engine.count})

    @router.get("/metrics", response_class=PlainTextResponse)
    async def numbers() -> Response:
        """Requests, times, queues, in Prometheus' text format."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


async def _small(engine: Engine, request: Request, id: str, edge: int) -> Response:
    known = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    data, version = await engine.thumbnail(id, edge, known)
    headers = {"etag": f'"{version}"', "cache-control": _FRESH}
    if data is None:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("multipart/form-data", "application/x-www-form-urlencoded")


async def _json(request: Request, model: type[_Model]) -> _Model:
    """The body of a request.

    Raises:
        UsageError: it is no JSON.
        ValidationError: it has something else in it.
    """
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "the request's body is no JSON", "Send JSON, or a form with a picture."
        ) from error
    return model.model_validate(given)


def _asked(form: FormData) -> SearchRequest:
    """What a form asks, but for its picture.

    Raises:
        ValidationError: it has something else in it.
    """
    fields = {name: value for name, value in form.items() if name != "image"}
    filters = {name: fields.pop(name) for name in _FILTER if name in fields}
    return SearchRequest.model_validate({"query": "", **fields, "filter": filters})


async def _picture(form: FormData) -> bytes:
    """The bytes of the picture in a form.

    Raises:
        UsageError: there is none.
    """
    given = form.get("image")
    if not isinstance(given, UploadFile):
        raise UsageError("there is no picture in the form", "Send it as the file `image`.")
    return await given.read()


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """What the documentation says of a body that is JSON or a form."""
    picture = {"type": "string", "format": "binary", "description": "a picture"}
    own = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = own.pop("$defs", {})
    plain = {
        name: value for name, value in own["properties"].items()
        if "$ref" not in json.dumps(value) and value.get("type") != "array"
    }  # fmt: skip
    for each in definitions.values():
        plain |= each.get("properties", {})
    form = {"type": "object", "properties": {"image": picture, **plain}, "required": ["image"]}
    if definitions:
        own = {**own, "$defs": definitions}
        own = json.loads(json.dumps(own).replace("#/components/schemas/", "#/$defs/"))
    content = {
        "application/json": {"schema": own},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}
