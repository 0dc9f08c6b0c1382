"""The yardstick: a FastAPI route that returns a given body without doing anything.

python -m scripts.benchmarks.serving.empty_route ANSWER.json PORT
"""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response


def create_app(answer: bytes) -> FastAPI:
    app = FastAPI()

    @app.post("/recommend")
    async def recommend() -> Response:
        return Response(answer, media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(Path(sys.argv[1]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
