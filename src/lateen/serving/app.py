"""The app: an index, what answers for it, and what stands before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI

from lateen.serving.engine import VERSION, Engine, model_name
from lateen.serving.failures import install_failures
from lateen.serving.guard import Guard
from lateen.serving.limits import RateLimit
from lateen.serving.metrics import Counted, Metrics
from lateen.serving.pages import page_routes
from lateen.serving.routes import api_routes
from lateen.serving.settings import ServeSettings

if TYPE_CHECKING:
    from lateen.indexing.photo_index import Index


def create_app(index: Index, settings: ServeSettings | None = None) -> FastAPI:
    """An app that serves an index; for :mod:`lateen.serving.run`, or a server of one's own.

    Args:
        index: the index; its encoder is replaced by one whose callers share forward passes.
        settings: how it is served; on this machine alone if not given.
    """
    chosen = settings or ServeSettings()
    engine = Engine(index, chosen)
    metrics = _metrics(engine)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.warm)
        tasks = [
            asyncio.create_task(engine.warm_pictures_when_idle()),
            asyncio.create_task(engine.keep_fresh()),
        ]
        try:
            yield
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="lateen", version=VERSION, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", lifespan=life,
        description="Photographs found by sentences and pictures.",
    )  # fmt: skip
    app.state.engine = engine
    install_failures(app)
    app.include_router(api_routes(engine, metrics))
    app.include_router(page_routes(engine, app))
    app.add_middleware(Guard, settings=chosen, limit=RateLimit(chosen.rate))
    app.add_middleware(Counted, metrics=metrics)
    return app


def _metrics(engine: Engine) -> Metrics:
    about = engine.index.about
    texts, pictures = engine.encoder.lanes
    thumbnails = engine.thumbnails
    gauges = {
        "lateen_photographs": ("Photographs of the index.", lambda: engine.count),
        "lateen_queue_searches": ("Searches at work or waiting.", lambda: engine.searches.count),
        "lateen_queue_pictures": ("Pictures at work or waiting.", lambda: engine.pictures.count),
        "lateen_queue_texts": ("Texts that wait for a pass.", lambda: texts.waiting),
    }
    counters = {
        "lateen_text_passes_total": ("Forward passes of texts.", lambda: texts.passes),
        "lateen_text_rows_total": ("Texts that went through them.", lambda: texts.rows_done),
        "lateen_picture_passes_total": ("Forward passes of pictures.", lambda: pictures.passes),
        "lateen_thumbnails_made_total": ("Thumbnails that were made.", lambda: thumbnails.made),
        "lateen_thumbnails_kept_total": ("Thumbnails that were kept.", lambda: thumbnails.kept),
    }
    info = {
        "version": VERSION, "model": model_name(about.model), "index": about.name,
    }  # fmt: skip
    return Metrics(gauges, counters, info)
