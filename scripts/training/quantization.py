"""The graph's matrices as whole numbers of 8 bits, by onnxruntime's own tool.

Only weights are kept in 8 bits: one scale for every 32 of a column. Activations stay float32 between the products, and
what is rounded within one belongs to one row, so an answer does not depend on who else is in the batch, as it does
where activations share a scale. The item vectors are an input of the graph and stay float32.
"""

import logging
from pathlib import Path

import onnx

BLOCK_SIZE = 32
INT8_ARITHMETIC = 4
"""The kernels' `accuracy_level`: products of 8-bit numbers, several times faster than unpacking them to float32."""


def quantize_graph(path: Path) -> None:
    """Rewrites a graph in place; what is not a product with a constant matrix stays as it is."""
    # Here, because importing it makes every library of this process log to stderr.
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logger = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    level = logger.level
    logger.setLevel(logging.WARNING)  # it tells of every node
    try:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(path), bits=8, block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=INT8_ARITHMETIC
        )
        quantizer.process()
    finally:
        logger.setLevel(level)
    quantizer.model.save_model_to_file(str(path))
