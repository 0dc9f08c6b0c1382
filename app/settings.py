"""Every knob of the service: its default, unit and limits, read once from the environment (`SEGUE_*`)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, RedisDsn, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SEGUE_"


class Settings(BaseSettings):
    """Frozen after start. `docs/settings.md` is generated from the descriptions below."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` opens the service to the network.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    namespace: str = Field(
        "default",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Prefix of every store key and label of every metric: several shops or scenes share one store.",
    )
    data_dir: Path = Field(Path("data"), description="Folder for the embedded store and the metrics of the workers.")
    artifacts_dir: Path = Field(
        Path("model_artifacts"),
        description="Folder of model versions with the pointer `CURRENT`. Any namespace but `default` uses its subfolder of that name.",
    )
    redis_url: RedisDsn | None = Field(
        None, description="`redis://`, `rediss://` or `unix://` URL. Without it the service starts a Valkey server beside itself."
    )
    redis_timeout_ms: int = Field(500, ge=10, le=60_000, description="Longest wait for one answer of the store, in milliseconds.")
    redis_max_connections: int = Field(64, ge=1, le=10_000, description="Connections to the store per worker.")
    shards: int = Field(
        16, ge=1, le=1024, description="Partitions of users and of the event log; fixed when the store is first used."
    )
    history_cap: int = Field(200, ge=1, le=1000, description="Newest events kept per user.")
    history_ttl_days: int = Field(365, ge=1, le=3650, description="A history expires so many days after its last event.")
    max_future_seconds: int = Field(
        300, ge=0, le=86_400, description="How far ahead of the server's clock an event may lie before it is rejected."
    )
    max_batch_events: int = Field(10_000, ge=1, le=100_000, description="Events in one `POST /events`.")
    max_body_bytes: int = Field(
        8_388_608, ge=1024, le=268_435_456, description="Largest request body in bytes; a larger one is answered 413."
    )
    log_max_entries: int = Field(
        1_000_000, ge=1000, le=1_000_000_000, description="Entries that the event log of one shard keeps; the oldest go first."
    )
    log_max_age_days: int = Field(30, ge=1, le=3650, description="Age at which entries of the event log go.")
    served_sample_rate: float = Field(
        1.0, ge=0, le=1, description="Share of answers whose list is written to the event log as a `served` record; 0 switches it off."
    )
    popularity_half_life_days: float = Field(
        7.0, ge=7, le=365, description="Half-life of the store's own popularity counters, used while no model is live."
    )
    reload_seconds: float = Field(2.0, ge=0.05, le=3600, description="How often a worker looks whether `CURRENT` has changed.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where onnxruntime runs the model.")
    intra_op_threads: int = Field(1, ge=1, le=256, description="onnxruntime threads per worker.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line that is written.")

    @property
    def namespace_artifacts(self) -> Path:
        """The folder that holds this namespace's `CURRENT`."""
        return self.artifacts_dir if self.namespace == "default" else self.artifacts_dir / self.namespace


class SettingsError(ValueError):
    """The environment holds settings that cannot be used; the message lists all of them."""


def load_settings(environ: Annotated[Mapping[str, str] | None, "defaults to os.environ"] = None) -> Settings:
    """Read and check the environment.

    Raises:
        SettingsError: one message with every unknown name and every bad value. Values are not repeated: they may be secrets.
    """
    environ = os.environ if environ is None else environ
    values = {name[len(PREFIX) :].lower(): value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    faults = [
        f"{PREFIX}{name.upper()}: no such setting; known are "
        + ", ".join(PREFIX + known.upper() for known in Settings.model_fields)
        for name in values
        if name not in Settings.model_fields
    ]
    known = {name: value for name, value in values.items() if name in Settings.model_fields}
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            name = str(fault["loc"][0]) if fault["loc"] else "?"
            faults.append(f"{PREFIX}{name.upper()}: {fault['msg']}")
        settings = None
    if faults or settings is None:
        raise SettingsError("the service cannot start with these settings:\n  " + "\n  ".join(faults))
    return settings
