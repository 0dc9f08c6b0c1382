"""Settings come from the environment, all faults are told at once, and no value is repeated."""

from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("SEGUE_")]:
        monkeypatch.delenv(name)


def test_environment_overrides_defaults_and_empty_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_PORT", "9000")
    monkeypatch.setenv("SEGUE_REDIS_URL", "")
    settings = load_settings()
    assert (settings.port, settings.redis_url, settings.host) == (9000, None, "127.0.0.1")


def test_all_faults_are_told_at_once_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_WROKERS", "2")
    monkeypatch.setenv("SEGUE_SHARDS", "0")
    monkeypatch.setenv("SEGUE_LOG_LEVEL", "loud")
    monkeypatch.setenv("SEGUE_REDIS_URL", "http://u:hunter2@h")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert "SEGUE_WROKERS: no such setting; did you mean SEGUE_WORKERS?" in message
    for name in ("SEGUE_SHARDS", "SEGUE_LOG_LEVEL", "SEGUE_REDIS_URL"):
        assert name in message
    assert "hunter2" not in message
    assert "loud" not in message.replace("'", "")


def test_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_REDIS_URL", "redis://u:hunter2@h")
    settings = load_settings()
    assert "hunter2" not in f"{settings!r} {settings}"


def test_namespace_has_its_own_folder_of_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_ARTIFACTS_DIR", "/models")
    assert load_settings().namespace_artifacts == Path("/models")
    monkeypatch.setenv("SEGUE_NAMESPACE", "shoes")
    assert load_settings().namespace_artifacts == Path("/models/shoes")
