"""Every knob of the service: its default, unit and limits, read once from the environment (`SEGUE_*`)."""

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "SEGUE_"


class Settings(BaseSettings):
    """Frozen after start. `docs/settings.md` is generated from the descriptions below."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

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
        description="Folder of model versions and the pointer `CURRENT`; other namespaces have subfolders.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="`redis://`, `rediss://` or `unix://` URL. Without it the service starts its own Valkey server.",
    )
    redis_timeout_ms: int = Field(
        500, ge=10, le=60_000, description="Longest wait for one answer of the store, in milliseconds."
    )
    redis_max_connections: int = Field(64, ge=1, le=10_000, description="Connections to the store per worker.")
    shards: int = Field(
        16, ge=1, le=1024, description="Partitions of users and of the event log; fixed when the store is first used."
    )
    history_cap: int = Field(200, ge=1, le=1000, description="Newest events kept per user.")
    history_ttl_days: int = Field(
        365, ge=1, le=3650, description="A history expires so many days after its last event."
    )
    max_future_seconds: int = Field(
        300, ge=0, le=86_400, description="How far ahead of the server's clock an event may lie before it is rejected."
    )
    max_batch_events: int = Field(10_000, ge=1, le=100_000, description="Events in one `POST /events`.")
    max_batch_items: int = Field(10_000, ge=1, le=100_000, description="Items in one `POST /items`.")
    max_live_items: int = Field(
        1_000_000,
        ge=1,
        le=10_000_000,
        description="Items changed live, deleted ones included, that the store and every worker's memory keep.",
    )
    max_body_bytes: int = Field(
        8_388_608, ge=1024, le=268_435_456, description="Largest request body in bytes; a larger one is answered 413."
    )
    max_in_flight: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Requests with a body that a worker has under way at once; another is refused with 503 "
        "`overloaded`.",
    )
    event_types_file: Path | None = Field(
        None,
        description="TOML file that says what each type of event is used for, above what the model's artifact says.",
    )
    scenarios_file: Path | None = Field(
        None, description="TOML file of scenarios: named defaults for the fields of a request."
    )
    log_max_entries: int = Field(
        1_000_000,
        ge=1000,
        le=1_000_000_000,
        description="Entries that the event log of one shard keeps; the oldest go first.",
    )
    log_max_age_days: int = Field(30, ge=1, le=3650, description="Age at which entries of the event log go.")
    served_sample_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of answers whose list is written to the event log as a `served` record; 0 switches it off.",
    )
    popularity_half_life_days: float = Field(
        7.0,
        ge=0.01,
        le=365,
        description="Half-life of the store's own popularity counters.",
    )
    trending_half_life_hours: float = Field(
        24.0,
        ge=0.1,
        le=720,
        description="Half-life of the counters that tell what is trending; shorter than that of popularity.",
    )
    live_rules: bool = Field(
        False,
        description="Carry the model's rules on with the event log: new behaviour counts, mostly within a minute. "
        "For catalogues of up to 300,000 items.",
    )
    new_item_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the places of a list that is kept for items that the live model has not learnt; 0: none.",
    )
    reload_seconds: float = Field(
        2.0, ge=0.05, le=3600, description="How often a worker looks whether `CURRENT` has changed."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where onnxruntime runs the model.")
    intra_op_threads: int = Field(1, ge=1, le=256, description="onnxruntime threads per worker.")
    ranking: Literal["auto", "exact", "approximate"] = Field(
        "auto",
        description="`exact` scores every item, `approximate` those that an index finds; `auto` is approximate where "
        "the model brings an index, as models of 200,000 items and more do.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )

    @field_validator("redis_url")
    @classmethod
    def _scheme_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @property
    def namespace_artifacts(self) -> Path:
        """The folder that holds this namespace's `CURRENT`."""
        return self.artifacts_dir if self.namespace == "default" else self.artifacts_dir / self.namespace


class SettingsError(ValueError):
    """The environment holds settings that cannot be used; the message lists all of them."""


def load_settings() -> Settings:
    """Read and check the environment; an empty value counts as not set.

    Raises:
        SettingsError: one message with every unknown name and every bad value. Values are not repeated: they may be
            secrets.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    faults = [
        f"{name}: no such setting{_nearest(name.upper(), known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            faults.append(f"{PREFIX}{str(fault['loc'][0]).upper()}: {fault['msg']}")
        raise SettingsError(_message(faults)) from None
    if faults:
        raise SettingsError(_message(faults))
    return settings


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else "; docs/settings.md lists those that exist"


def _message(faults: list[str]) -> str:
    return "the service cannot start with these settings:\n  " + "\n  ".join(faults)
