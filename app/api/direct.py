"""A route that FastAPI documents and that is otherwise called as it stands."""

from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """For an async endpoint that takes the Request and returns a Response.

    It has no dependencies to solve and no parameters to parse; what FastAPI prepares for those around each call takes
    longer than many a ranking. The schema is made from the same declaration as for any other route.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if self.dependant.request_param_name is None or self.dependant.query_params or self.dependant.path_params:
            raise TypeError(f"{path}: a direct route takes the request and nothing else")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # answers 405
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
