"""The doors of the house, read from the import statements of every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# Rooms from the outermost to the innermost: a file imports only from its own room and from rooms to the right.
ORDER = ["__main__", "workers", "main", "api", "recommender", "artifacts.registry", "state", "ranking", "artifacts",
         "telemetry", "settings", "background", "times", "errors"]  # fmt: skip
# Whoever else knows one of these has taken over another room's work.
KNOWS = {
    "fastapi": {"main", "api"},
    "starlette": {"main", "api"},
    "redis": {"state"},
    "onnxruntime": {"ranking"},
    "faiss": {"ranking"},
    "uvicorn": {"workers"},
    "prometheus_client": {"telemetry", "api"},
}
OFFLINE = {
    "torch",
    "onnx",
    "onnxscript",
    "polars",
    "scipy",
    "matplotlib",
    "tensorboard",
    "optuna",
    "mlflow",
    "scripts",
    "tests",
}
# What `backfill` needs to do what `POST /events` does.
STORES_EVENTS = {
    "scripts/training/backfilling.py": ("app.api.events", "app.state.history"),
    "scripts/backfill.py": ("app.state.history", "app.state.bookmarks", "app.state.opening"),
}
FOR_SCRIPTS = ("app.artifacts", "app.ranking", "app.state.event_log", "app.state.keys", "app.errors", "app.settings")
MEASURES_THE_SERVICE = {
    f"scripts/benchmarks/{name}.py" for name in ("store", "filters", "backfill")
}  # which is `app.state` itself
PURE = {
    "scripts/training/model.py": {"torch"},
    "scripts/training/attribute_embedding.py": {"torch"},
    "scripts/training/blocks.py": {"torch"},
    "scripts/training/relative_bias.py": {"torch"},
    "scripts/training/temporal.py": {"torch"},
    "scripts/training/losses.py": {"torch"},
    "scripts/training/evaluation.py": {"numpy"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; `from app.state import history` gives `app.state.history`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


def room(module: str) -> str:
    """
    >>> room("app.api.events"), room("app.artifacts.registry"), room("app.errors")
    ('api', 'artifacts.registry', 'errors')
    """
    inside = module.removeprefix("app.")
    return inside if inside == "artifacts.registry" else inside.split(".")[0]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", files("app"), ids=name_of)
def test_service_imports_only_from_inner_rooms(path: Path) -> None:
    if name_of(path) == "app":
        return
    own = room(name_of(path))
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in OFFLINE, f"{module} is not for the service"
        if top in KNOWS:
            assert own in KNOWS[top], f"only {KNOWS[top]} may know {top}"
        if top == "app":
            assert ORDER.index(room(module)) >= ORDER.index(own), f"{own} must not look out to {room(module)}"


@pytest.mark.parametrize("path", files("scripts"), ids=name_of)
def test_scripts_see_only_the_contract_between_training_and_serving(path: Path) -> None:
    file = str(path.relative_to(ROOT))
    if file in MEASURES_THE_SERVICE:
        return
    for module in imports(path):
        if module.split(".")[0] == "app":
            assert module.startswith((*FOR_SCRIPTS, *STORES_EVENTS.get(file, ()))), (
                f"{module} is not part of the contract"
            )


@pytest.mark.parametrize("path", [ROOT / name for name in PURE], ids=name_of)
def test_mathematics_needs_one_library(path: Path) -> None:
    allowed = PURE[str(path.relative_to(ROOT))]
    heavy = {"torch", "numpy", "polars", "onnx", "onnxruntime", "scipy", "tensorboard", "matplotlib", "tqdm"}
    found = {module.split(".")[0] for module in imports(path)} & heavy
    assert found <= allowed


@pytest.mark.parametrize("path", files("scripts/training"), ids=name_of)
def test_training_library_neither_prints_nor_parses_arguments(path: Path) -> None:
    assert "argparse" not in set(imports(path))
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
