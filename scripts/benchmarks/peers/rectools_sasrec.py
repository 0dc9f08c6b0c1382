"""SASRec of RecTools, trained where RecTools is installed; nothing of Segue is imported here.

PEER_PYTHON rectools_sasrec.py FOLDER reads FOLDER/settings.json and FOLDER/data.npz and writes, after every epoch N,
FOLDER/epoch-N.npz: `states` (cases, D) and `item_vectors` (items + 1, D), whose inner products are the model's scores,
and `is_known` (items + 1,), false where training met no event of an item. FOLDER/seconds.jsonl gets a line per epoch:
its seconds, those of writing these files left out.

data.npz holds item indices from 1 on, users one after another, oldest events first: `items`, `offsets` to learn from,
`case_items`, `case_offsets` of the histories that states are wanted for.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

CASES_PER_BATCH = 512
LAYERS = {"sasrec": SASRecTransformerLayers, "ligr": LiGRLayers}


class Export(Callback):  # type: ignore[misc]  # RecTools is not installed where types are checked
    """Takes the time of each epoch, writes what scores are made of, and ends the training when its time is up."""

    def __init__(self, folder: Path, histories: list[Any], num_items: int, max_seconds: float) -> None:
        self.preparator: Any = None
        self._folder = folder
        self._histories = histories
        self._num_items = num_items
        self._max_seconds = max_seconds
        self._spent = 0.0
        self._start = 0.0

    def on_train_epoch_start(self, _trainer: Trainer, _module: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._start
        self._spent += seconds
        epoch = trainer.current_epoch + 1
        module.eval()
        np.savez(self._folder / f"epoch-{epoch}.npz", **self._vectors(module.torch_model))
        module.train()
        with (self._folder / "seconds.jsonl").open("a") as file:
            file.write(json.dumps({"epoch": epoch, "seconds": seconds}) + "\n")
        print(f"epoch {epoch}: {seconds:.1f} s", file=sys.stderr)
        trainer.should_stop = self._spent >= self._max_seconds

    def _vectors(self, model: Any) -> dict[str, Any]:
        inner_of = np.zeros(self._num_items + 1, dtype=np.int64)
        known = self.preparator.get_known_item_ids().astype(np.int64)
        inner_of[known] = self.preparator.item_id_map.convert_to_internal(known)
        length = self.preparator.session_max_len
        states = []
        device = next(model.parameters()).device
        with torch.inference_mode():
            inner_vectors = model.item_model.get_all_embeddings()
            for start in range(0, len(self._histories), CASES_PER_BATCH):
                histories = [inner_of[history] for history in self._histories[start : start + CASES_PER_BATCH]]
                x = np.zeros((len(histories), length), dtype=np.int64)
                for row, history in zip(x, histories, strict=True):
                    newest = history[history > 0][-length:]  # items of no training event are unknown to the model
                    row[length - len(newest) :] = newest
                sessions = {"x": torch.from_numpy(x).to(device)}
                states.append(model.encode_sessions(sessions, inner_vectors)[:, -1, :].float().cpu().numpy())
        return {
            "states": np.concatenate(states),
            "item_vectors": inner_vectors.float().cpu().numpy()[inner_of],
            "is_known": inner_of > 0,
        }


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    data = np.load(folder / "data.npz")
    lengths = np.diff(data["offsets"])
    events = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lengths)), lengths),
            Columns.Item: data["items"].astype(np.int64),
            Columns.Weight: 1.0,
            # Any clock that keeps the order.
            Columns.Datetime: pd.to_datetime(np.arange(len(data["items"])), unit="s"),
        }
    )
    histories = np.split(data["case_items"], data["case_offsets"][1:-1])
    export = Export(folder, histories, settings["num_items"], settings["max_seconds"])

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=settings["max_epochs"],
            accelerator=settings["accelerator"],
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[export],
        )

    seed_everything(settings["seed"])
    layers = LAYERS[settings["layers"]]
    model = SASRecModel(**settings["model"], transformer_layers_type=layers, get_trainer_func=trainer)
    export.preparator = model.data_preparator
    model.fit(Dataset.construct(events))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
