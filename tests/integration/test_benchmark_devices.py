"""`python -m scripts.benchmark devices`: a row for each device, told by the lists it gives."""

import re
from pathlib import Path

import onnxruntime as ort
import pytest

from scripts.benchmark import main
from scripts.benchmarks import devices


def test_every_device_has_a_row_for_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "ROUNDS", 2)
    assert main(["devices", "--items", "300", "500", "--page", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    names = ["cpu", "cuda"] if "CUDAExecutionProvider" in ort.get_available_providers() else ["cpu"]
    assert re.findall(r"^\| (\d+ items, \w+) \| 100\.00% \|", page, re.MULTILINE) == [
        f"{size} items, {name}" for size in (300, 500) for name in names
    ]
    assert f"onnxruntime {ort.__version__}" in page
