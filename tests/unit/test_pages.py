"""Sections of the measured pages."""

import doctest

from scripts.benchmarks import pages


def test_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(pages).failed == 0


def test_the_machine_is_named() -> None:
    assert "torch 2." in pages.machine()
