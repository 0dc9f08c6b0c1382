"""The service needs nothing that training needs: it starts and ranks where none of that can be imported."""

from pathlib import Path

from tests.distance_model import write_live_distance_artifact
from tests.service import serving

REFUSE = '''
import sys

TRAINING = {"torch", "onnx", "onnxscript", "polars", "scipy", "tensorboard", "matplotlib", "tqdm"}

class Refuse:
    """Found first by Python at every start, in the workers too."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in TRAINING:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
print("refusing", file=open(__file__ + ".used", "a"))
'''


def test_service_ranks_where_no_training_library_can_be_imported(tmp_path: Path) -> None:
    write_live_distance_artifact(tmp_path / "artifacts")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(REFUSE)
    with serving(tmp_path, environment={"PYTHONPATH": str(hook)}) as client:
        answer = client.post("/recommend", json={"history": ["i3"], "k": 1}).json()
        assert (answer["strategy"], answer["items"][0]["item_id"]) == ("model", "i2")
    started = (hook / "sitecustomize.py.used").read_text().splitlines()
    assert len(started) >= 2, "the hook must have run in the parent and in the worker"
