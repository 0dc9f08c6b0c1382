"""The product of states and item vectors alone: what another order in memory and 8 bits a number would gain.

Shapes: B batch, D embedding, V items, k best.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from scripts.benchmarks.pages import machine, markdown_table, write_section

BEST = 10
RESCORED = 100
"""What 8 bits find best is scored again with the float32 rows."""
BATCHES = (1, 32)
ROUNDS = 30


@dataclass(frozen=True, eq=False)
class Product:
    """A graph from `states` (B, D) to `scores` and `items`, the ten best, and the tables that it takes as inputs."""

    session: ort.InferenceSession
    tables: dict[str, NDArray[Any]]

    def __call__(self, states_BD: NDArray[np.float32]) -> NDArray[np.int64]:
        items_Bk: NDArray[np.int64]
        (items_Bk,) = self.session.run(("items",), {"states": states_BD, **self.tables})
        return items_Bk


def in_8_bits(table_VD: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 (V, D) and the scale of each row, float32 (V,): a row is its numbers times its scale."""
    scales_V = np.maximum(np.abs(table_VD).max(axis=1), 1e-12) / 127
    return np.rint(table_VD / scales_V[:, None]).astype(np.int8), scales_V.astype(np.float32)


def products(table_VD: NDArray[np.float32]) -> dict[str, Product]:
    table_DV = np.ascontiguousarray(table_VD.T)
    numbers_VD, scales_V = in_8_bits(table_VD)
    numbers_DV = np.ascontiguousarray(numbers_VD.T)
    node = helper.make_node
    best = node("TopK", ["product", "ten"], ["scores", "items"])
    packed = node("Constant", [], ["numbers"], value=numpy_helper.from_array(numbers_DV))
    of_8_bits: dict[str, NDArray[Any]] = {"numbers": numbers_DV, "scales": scales_V, "table": table_VD}
    inside: dict[str, NDArray[Any]] = {"scales": scales_V, "table": table_VD}
    return {
        "float32, item after item (as exported)": _product(
            [node("Gemm", ["states", "table"], ["product"], transB=1), best], {"table": table_VD}
        ),
        "float32, dimension after dimension": _product(
            [node("MatMul", ["states", "table"], ["product"]), best], {"table": table_DV}
        ),
        "int8, dimension after dimension": _product(_integer_nodes(), of_8_bits),
        "int8, inside the graph": _product([packed, *_integer_nodes()], inside),
    }


def _integer_nodes() -> list[NodeProto]:
    """States are rounded row by row, so that no row depends on another."""
    node = helper.make_node
    return [
        node("Constant", [], ["axis1"], value_ints=[1]),
        node("Constant", [], ["axis2"], value_ints=[2]),
        node("Constant", [], ["largest"], value_float=127.0),
        node("Constant", [], ["middle"], value_float=128.0),
        node("Constant", [], ["zero_point"], value=helper.make_tensor("", TensorProto.UINT8, [], [128])),
        node("Constant", [], ["hundred"], value_ints=[RESCORED]),
        node("Abs", ["states"], ["sizes"]),
        node("ReduceMax", ["sizes", "axis1"], ["size"], keepdims=1),
        node("Div", ["size", "largest"], ["step"]),
        node("Div", ["states", "step"], ["steps"]),
        node("Round", ["steps"], ["rounded"]),
        node("Add", ["rounded", "middle"], ["shifted"]),
        node("Cast", ["shifted"], ["states8"], to=TensorProto.UINT8),
        node("MatMulInteger", ["states8", "numbers", "zero_point"], ["product8"]),
        node("Cast", ["product8"], ["whole"], to=TensorProto.FLOAT),
        node("Mul", ["whole", "scales"], ["product"]),
        node("TopK", ["product", "hundred"], ["_", "found"]),
        node("Gather", ["table", "found"], ["rows"]),
        node("Unsqueeze", ["states", "axis2"], ["column"]),
        node("MatMul", ["rows", "column"], ["exact1"]),
        node("Squeeze", ["exact1", "axis2"], ["exact"]),
        node("TopK", ["exact", "ten"], ["scores", "places"]),
        node("GatherElements", ["found", "places"], ["items"], axis=1),
    ]


def _product(nodes: Sequence[NodeProto], tables: dict[str, NDArray[Any]]) -> Product:
    inputs = [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", None])]
    inputs += [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(table.dtype), table.shape)
        for name, table in tables.items()
    ]
    ten = helper.make_node("Constant", [], ["ten"], value_ints=[BEST])
    items = helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", BEST])
    graph = helper.make_graph([ten, *nodes], "product", inputs, [items])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return Product(ort.InferenceSession(model.SerializeToString(), options), tables)


def product_table(num_items: int, dim: int, *, rounds: int = ROUNDS) -> str:
    """Markdown: random states and vectors; the run of each that took least processor time (all of it is the calling
    thread's), which a busy machine does not stretch by the waits between its turns."""
    rng = np.random.default_rng(0)
    table_VD = rng.normal(size=(num_items, dim)).astype(np.float32)
    variants = products(table_VD)
    fastest = {name: dict.fromkeys(BATCHES, np.inf) for name in variants}
    same: dict[str, float] = {}
    for batch in BATCHES:
        states_BD = rng.normal(size=(batch, dim)).astype(np.float32)
        exact = np.argsort(-states_BD @ table_VD.T, axis=1)[:, :BEST]
        for _ in range(max(3, rounds // batch)):
            for name, product in variants.items():
                start = time.thread_time()
                found = product(states_BD)
                fastest[name][batch] = min(fastest[name][batch], 1000 * (time.thread_time() - start))
                kept = [len(set(mine) & set(its)) for mine, its in zip(found.tolist(), exact.tolist(), strict=True)]
                same[name] = float(np.mean(kept)) / BEST
    rows = [[name, f"{same[name]:.1%}", *(f"{fastest[name][batch]:.1f}" for batch in BATCHES)] for name in variants]
    head = [
        f"{num_items:,} items, d = {dim}",
        "best ten as exact",
        *(f"processor ms, {batch} at once" for batch in BATCHES),
    ]
    return markdown_table(head, rows)


def register(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subjects.add_parser("item-product", help="states times item vectors, in other orders and in 8 bits")
    parser.add_argument("--items", type=int, default=100_000, metavar="N", help="default %(default)s")
    parser.add_argument("--dim", type=int, default=128, metavar="D", help="default %(default)s")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/quantization.md"),
                        help="whose section is written (default %(default)s)")  # fmt: skip
    parser.set_defaults(run=_main)


def _main(options: argparse.Namespace) -> None:
    table = product_table(options.items, options.dim)
    command = f"    python -m scripts.benchmark item-product --items {options.items} --dim {options.dim}"
    what = (
        f"{machine()}, one thread of onnxruntime; processor time of the best of {ROUNDS} runs, of 3 for {BATCHES[-1]}."
    )
    write_section(options.page, "item product", f"{command}\n\n{what}\n\n{table}")
    print(table, end="\n\n")
    print(options.page)
