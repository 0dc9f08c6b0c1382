"""docs/settings.md is made from the settings. To write it anew: python -m tests.contract.test_settings_documented"""

from pathlib import Path
from typing import Any

from app.settings import PREFIX, Settings

FILE = Path(__file__).parent.parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Every setting is an environment variable. A name that does not exist, or a value out of range, stops the start with one
message that lists all faults. An empty value counts as not set. Settings are read once, when the service starts.

Kubernetes injects variables named after every Service of the namespace: one called `segue` would give the pods
`SEGUE_SERVICE_HOST` and the like, which are no settings. Set `enableServiceLinks: false` in the pod, or take another
name.

| variable | default | allowed | meaning |
|---|---|---|---|
"""


def text() -> str:
    properties = Settings.model_json_schema()["properties"]
    return HEAD + "".join(
        f"| `{PREFIX}{name.upper()}` | {default_of(name)} | {allowed(properties[name])} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


def default_of(name: str) -> str:
    default = Settings.model_fields[name].default
    return "" if default is None else f"`{default}`"


def allowed(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "minimum" in schema:
        return f"{schema['minimum']} – {schema['maximum']}"
    return f"`{schema['pattern']}`" if "pattern" in schema else ""


def test_file_lists_every_setting_as_it_is() -> None:
    assert FILE.read_text() == text(), f"run: python -m {__name__}"


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


if __name__ == "__main__":
    FILE.write_text(text())
    print(FILE)
