"""ALS of LibRecommender behind libserving, where LibRecommender is installed; nothing of Segue is imported here.

PEER_PYTHON librecommender_als.py FOLDER reads FOLDER/settings.json (`store`: path of a Valkey or Redis server, `port`,
`dim`) and FOLDER/data.npz (`users`, `items`: of events, oldest first). It trains, saves with libserving's functions,
and serves POST /embed/recommend {"user": 7, "n_rec": 10} until SIGTERM: one worker, started as libserving's guide says
for production.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import libserving
import numpy as np
import pandas as pd
from libreco.algorithms import ALS
from libreco.data import DatasetPure
from libserving.serialization import embed2redis, save_embed, save_faiss_index


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    store_port = _free_port()
    options = ["--port", str(store_port), "--save", "", "--dir", str(folder), "--logfile", "store.log"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with subprocess.Popen([settings["store"], *options]) as store:
        try:
            package = _save(folder, store_port, settings["dim"])
            _serve(package, store_port, settings["port"])
        finally:
            store.terminate()


def _save(folder: Path, store_port: int, dim: int) -> Path:
    """The folder that holds a copy of libserving: its server looks for the index beside its own code."""
    package = folder / "package"
    shutil.copytree(Path(libserving.__file__).parent, package / "libserving")
    data = np.load(folder / "data.npz")
    table = pd.DataFrame({"user": data["users"], "item": data["items"], "label": 1.0})
    events, info = DatasetPure.build_trainset(table)
    model = ALS("ranking", info, embed_size=dim, n_epochs=2, reg=5.0)
    model.fit(events, neg_sampling=True, verbose=0)
    save_embed(str(folder / "model"), model)
    save_faiss_index(str(package / "libserving"), model)
    _wait_for(store_port)
    embed2redis(str(folder / "model"), host="127.0.0.1", port=store_port)
    return package


def _serve(package: Path, store_port: int, port: int) -> None:
    command = [sys.executable, "-m", "sanic", "libserving.sanic_serving.embed_deploy:app", "--no-access-logs"]
    command += ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "REDIS_HOST": f"127.0.0.1:{store_port}"}
    with subprocess.Popen(command, cwd=package, env=environment) as server:
        try:
            server.wait()
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
