"""Attention."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


@adapter("Attention", known=25)
def attention(call: Call) -> str | None:
    """New in opset 23; 24 added padded caches, 25 windows.

    What vision networks use, softmax(QKᵀ · scale + mask) V with as many key heads as query heads,
    is written with the five operators that exporters used before. Everything else (caches, soft
    caps, grouped heads, masks that only exist at run time and could blank out a whole row) takes
    the function body of the standard.
    """
    mask = _mask(call)
    if mask is None or not _is_plain(call):
        return None
    elem = call.elem(0)
    query, key, value = (_heads(call, index) for index in range(3))
    depth = call.shape(0)[-1]
    heads = call.attr("q_num_heads")
    if call.rank(0) == 3:
        depth = depth // heads
    scale = call.attr("scale", 1 / math.sqrt(depth))
    scaled = call.op("Mul", query, call.const(scale, elem))
    scores = call.op("MatMul", scaled, call.op("Transpose", key, perm=[0, 1, 3, 2]))
    if mask:
        scores = call.op("Add", scores, mask)
    inner = call.attr("softmax_precision", elem)
    if inner != elem:
        scores = call.cast(scores, inner)
    weights = call.op("Softmax", scores, axis=-1)
    if inner != elem:
        weights = call.cast(weights, elem)
    result = call.op("MatMul", weights, value)
    if call.rank(0) == 4:
        return result
    return call.op("Reshape", call.op("Transpose", result, perm=[0, 2, 1, 3]), call.ints(0, 0, -1))


def _is_plain(call: Call) -> bool:
    """Is it the plain case, with everything known that it needs?"""
    if any(call.has(index) for index in (4, 5, 6)) or any(call.wants(i) for i in (1, 2, 3)):
        return False
    if call.attr("softcap") or call.elem(0) not in _FLOATS:
        return False
    if call.schema.since_version >= 25 and (
        call.attr("left_window_size") >= 0 or call.attr("right_window_size") >= 0
    ):
        return False
    query, key = call.shape(0), call.shape(1)
    if query is None or key is None or query[-1] is None:
        return False
    if len(query) == 3:
        return call.attr("q_num_heads") == call.attr("kv_num_heads")
    return query[1] is not None and query[1] == key[1]


def _heads(call: Call, index: int) -> str:
    """Query, key or value as [batch, heads, sequence, features]."""
    name = call.inputs[index]
    if call.rank(0) == 4:
        return name
    heads = call.attr("q_num_heads" if index == 0 else "kv_num_heads")
    split = call.op("Reshape", name, call.ints(0, 0, heads, -1))
    return call.op("Transpose", split, perm=[0, 2, 1, 3])


def _mask(call: Call) -> str | None:
    """What to add to the scores: "" for nothing, None where the plain form can't say it.

    A row in which every key is masked gives zeros by the standard, and NaN or an average in the
    plain form. So only masks are taken whose rows are known to have an open place each.
    """
    given, causal = call.value(3), call.attr("is_causal")
    if call.has(3) and given is None:
        return None
    if not call.has(3) and not causal:
        return ""
    dtype = np.float32 if call.elem(0) == TensorProto.FLOAT16 else np.float64
    mask = np.zeros((1, 1), dtype)
    if given is not None:
        mask = np.where(given, 0.0, -np.inf) if given.dtype == bool else given.astype(dtype)
    if causal:
        lengths = [call.shape(index)[-2] if call.shape(index) else None for index in (0, 1)]
        if None in lengths:
            return None
        mask = mask + np.triu(np.full(lengths, -np.inf), 1)
    total = call.shape(1)[-2] if call.shape(1) else None
    if given is not None and mask.shape[-1] not in (1, total):
        return None
    if not np.isfinite(mask).any(axis=-1).all() or np.isnan(mask).any():
        return None
    return call.const(mask, call.elem(0))
