"""The page at /, the documentation at /docs, and the files of both: all from this folder, nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

CONSOLE = Path(__file__).parent.parent / "console"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask whether it has changed: an update must not meet yesterday's scripts
}


class ConsoleFiles(StaticFiles):
    """The files with the headers of pages."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def console() -> Response:
        return FileResponse(CONSOLE / "index.html", headers=HEADERS)

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def docs() -> Response:
        return FileResponse(CONSOLE / "docs.html", headers=HEADERS)

    return routes
