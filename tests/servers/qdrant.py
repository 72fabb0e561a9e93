"""Qdrant's REST protocol, as much of it as the store speaks, over the client's own embedded engine, in memory.

Requests are read with Qdrant's own models, so one that a server would not understand fails here too. `python -m tests.servers.qdrant PORT`
is one to be frozen and killed; its entries are gone then, as those of a lost machine.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from qdrant_client import AsyncQdrantClient, models


@dataclass
class Rest:
    url: str
    engine: AsyncQdrantClient
    indexes: dict[str, Any] = field(default_factory=dict)
    """The payload indexes that were asked for."""
    api_keys: set[str | None] = field(default_factory=set)
    deaf: bool = False
    """Answers searches as if they had no filter."""
    searches: bool = True
    """Else they fail."""


def _result(value: Any, status: int = 200) -> web.Response:
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return web.json_response({"result": plain, "status": "ok", "time": 0.0}, status=status)


@asynccontextmanager
async def qdrant_over_rest(port: int = 0) -> AsyncIterator[Rest]:
    """Serves on 127.0.0.1; port 0 takes a free one."""
    rest = Rest("", AsyncQdrantClient(location=":memory:"))
    routes = web.RouteTableDef()
    engine = rest.engine

    @routes.get("/collections/{name}/exists")
    async def exists(request: web.Request) -> web.Response:
        rest.api_keys.add(request.headers.get("api-key"))
        return _result({"exists": await engine.collection_exists(request.match_info["name"])})

    @routes.get("/collections/{name}")
    async def info(request: web.Request) -> web.Response:
        return _result(await engine.get_collection(request.match_info["name"]))

    @routes.put("/collections/{name}")
    async def create(request: web.Request) -> web.Response:
        asked = models.CreateCollection.model_validate(await request.json())
        if await engine.collection_exists(request.match_info["name"]):
            return _result(None, status=409)
        assert asked.vectors is not None
        return _result(await engine.create_collection(request.match_info["name"], vectors_config=asked.vectors))

    @routes.put("/collections/{name}/index")
    async def index(request: web.Request) -> web.Response:
        asked = models.CreateFieldIndex.model_validate(await request.json())
        rest.indexes[asked.field_name] = asked.field_schema
        return _result(models.UpdateResult(status=models.UpdateStatus.COMPLETED))

    @routes.put("/collections/{name}/points")
    async def upsert(request: web.Request) -> web.Response:
        asked = models.PointsList.model_validate(await request.json())
        return _result(await engine.upsert(request.match_info["name"], asked.points))

    @routes.post("/collections/{name}/points")
    async def retrieve(request: web.Request) -> web.Response:
        asked = models.PointRequest.model_validate(await request.json())
        records = await engine.retrieve(request.match_info["name"], asked.ids, with_payload=asked.with_payload or False)
        return _result([record.model_dump(mode="json") for record in records])

    @routes.post("/collections/{name}/points/query/batch")
    async def query(request: web.Request) -> web.Response:
        if not rest.searches:
            return _result(None, status=500)
        asked = models.QueryRequestBatch.model_validate(await request.json())
        if rest.deaf:
            asked.searches = [search.model_copy(update={"filter": None}) for search in asked.searches]
        responses = await engine.query_batch_points(request.match_info["name"], asked.searches)
        return _result([response.model_dump(mode="json") for response in responses])

    @routes.post("/collections/{name}/points/count")
    async def count(request: web.Request) -> web.Response:
        asked = models.CountRequest.model_validate(await request.json())
        return _result(await engine.count(request.match_info["name"], count_filter=asked.filter, exact=bool(asked.exact)))

    @routes.post("/collections/{name}/points/delete")
    async def delete(request: web.Request) -> web.Response:
        asked = models.FilterSelector.model_validate(await request.json())
        return _result(await engine.delete(request.match_info["name"], asked))

    @web.middleware
    async def missing_is_404(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except ValueError as e:
            if "not found" not in str(e):
                raise
            return _result(None, status=404)
        return answer

    app = web.Application(middlewares=[missing_is_404])
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    rest.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield rest
    finally:
        await runner.cleanup()
        await engine.close()


async def main(port: int) -> None:
    warnings.simplefilter("ignore")  # the embedded engine says that it is no server
    async with qdrant_over_rest(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
