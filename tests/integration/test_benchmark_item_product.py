"""`python -m scripts.benchmark item-product`, small: every way to multiply finds the same items."""

from pathlib import Path

import numpy as np

from scripts.benchmark import main
from scripts.benchmarks.item_product import in_8_bits, products


def test_every_product_finds_the_best_of_an_exact_one() -> None:
    rng = np.random.default_rng(0)
    table_VD = rng.normal(size=(900, 16)).astype(np.float32)
    states_BD = rng.normal(size=(5, 16)).astype(np.float32)
    expected = np.argsort(-states_BD @ table_VD.T, axis=1)[:, :10]
    for name, product in products(table_VD).items():
        assert product(states_BD).tolist() == expected.tolist(), name


def test_8_bits_are_off_by_half_a_step_of_each_row() -> None:
    table_VD = np.array([[127.0, 0.4, -2.6], [1.27, -0.013, 0.0]], dtype=np.float32)
    numbers_VD, scales_V = in_8_bits(table_VD)
    assert numbers_VD.tolist() == [[127, 0, -3], [127, -1, 0]]
    np.testing.assert_allclose(scales_V, [1.0, 0.01], rtol=1e-6)


def test_the_command_writes_its_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert main(["item-product", "--items", "500", "--dim", "8", "--page", str(page)]) == 0
    assert (
        "| 500 items, d = 8 | best ten as exact | processor ms, 1 at once | processor ms, 32 at once |"
        in page.read_text()
    )
