"""The pages in docs/benchmarks: a command replaces its own section and leaves the rest as somebody wrote it."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path

import torch


def write_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks of section `name`, at the end of the page where it has none yet.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "page.md"
    >>> _ = page.write_text("# Title\\n")
    >>> write_section(page, "a", "old")
    >>> write_section(page, "a", "new")
    >>> print(page.read_text())
    # Title
    <BLANKLINE>
    <!-- a: written by the command below -->
    new
    <!-- end of a -->
    <BLANKLINE>
    """
    begin, end = f"<!-- {name}: written by the command below -->", f"<!-- end of {name} -->"
    inside = text.strip("\n")
    section = f"{begin}\n{inside}\n{end}"
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = found.sub(lambda _: section, old) if found.search(old) else f"{old.rstrip()}\n\n{section}\n".lstrip()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(new, encoding="utf-8")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column reads, the others are numbers.

    >>> print(markdown_table(["set", "NDCG"], [["ml-1m", ".18"]]))
    | set | NDCG |
    |---|--:|
    | ml-1m | .18 |
    """
    rule = "|---|" + "--:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def share(value: float) -> str:
    """A number from 0 to 1, as tables of the field write it.

    >>> share(0.31594), share(1.0)
    ('.3159', '1.0000')
    """
    return f"{value:.4f}".removeprefix("0")


def signed(value: float) -> str:
    """
    >>> signed(0.00712), signed(-0.01)
    ('+.0071', '−.0100')
    """
    return ("−" if value < 0 else "+") + share(abs(value))


def machine() -> str:
    """What a reader needs to know of where the figures come from."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.*)$", info.read_text(), re.MULTILINE) if info.is_file() else []
    processor = models[0].strip() if models else platform.processor() or platform.machine()
    where = f"{len(models) or 'some'} × {processor}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{where}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{where}, no GPU"
