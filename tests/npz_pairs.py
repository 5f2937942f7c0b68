"""Pairs of tensors around every rule of the comparison, for npz_compare's tests."""

from __future__ import annotations

import numpy as np

F4, I1, I4, U1, U2 = np.float32, np.int8, np.int32, np.uint8, np.uint16

# Pairs that npz_tool passes by mistake, and what npz_compare calls them.
PASSED_BY_MISTAKE = {
    "nan_same_place": "not_finite",
    "nan_in_target": "not_finite",
    "nan_in_reference": "not_finite",
    "infinite_in_target": "not_finite",
    "cropped": "not_match",
    "cropped_other_way": "not_match",
}


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (np.asarray(values, F4).view(np.uint32) >> 16).astype(U2)


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (target, reference)."""
    random = np.random.default_rng(1684)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(F4)

    base = normal(2, 3, 40, 50)
    noise = normal(2, 3, 40, 50)
    made: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "equal": (base, base.copy()),
        "equal_zeros": (np.zeros((3, 4), F4), np.zeros((3, 4), F4)),
        "negative_zero": (np.zeros(5, F4), -np.zeros(5, F4)),
        "empty": (np.zeros((0, 4), F4), np.zeros((0, 4), F4)),
        "scalar_equal": (np.array(2.5, F4), np.array(2.5, F4)),
        "scalar_close": (np.array(2.5, F4), np.array(2.501, F4)),
        "scalar_far": (np.array(2.5, F4), np.array(25, F4)),
        "scalar_and_vector": (np.array(2.5, F4), np.array([2.5], F4)),
        "one_far_element": (base, base + 1e3 * (np.arange(base.size) == 7).reshape(base.shape)),
        "zeros_and_noise": (np.zeros_like(base), noise),
        "noise_and_zeros": (noise, np.zeros_like(base)),
        "zeros_and_tiny": (np.zeros(100, F4), np.full(100, 9e-9, F4)),
        "zeros_and_less_tiny": (np.zeros(100, F4), np.full(100, 2e-8, F4)),
        "tiny_similar": (noise * F4(1e-7), noise * F4(1.05e-7)),
        "constants_equal": (np.full(64, 3, F4), np.full(64, 3, F4)),
        "constants_apart": (np.full(64, 3, F4), np.full(64, 3.02, F4)),
        "constants_far": (np.full(64, 3, F4), np.full(64, 4, F4)),
        "negated": (base, -base),
        "unrelated": (base, noise),
        "scaled_1_percent": (base, base * F4(1.01)),
        "scaled_twice": (base, base * 2),
        "shifted": (base + 100, base + F4(100.5)),
        "large_offset": (base + 1000, noise + 1000),
        "large_values": (base * F4(1e6), (base + F4(1e-3) * noise) * F4(1e6)),
        "squares_overflow": (base * F4(1e20), (base + F4(1e-2) * noise) * F4(1e20)),
        "huge_close": (base * F4(1e30), base * F4(1.00001e30)),
        "transposed_shape": (base, base.reshape(50, 40, 3, 2)),
        "reshaped_close": (base.reshape(6, -1), base * F4(1.00001)),
        "really_transposed": (base[0, 0], np.ascontiguousarray(base[0, 0].T)),
        "column_major": (np.asfortranarray(base[0, 0]), base[0, 0] * F4(1.00001)),
        "other_size": (base, base[:1, :2].ravel()),
        "other_size_no_crop": (base[:, :2, :3], base[:1, :3, :2]),
        "int8_equal": ((base * 40).astype(I1), (base * 40).astype(I1)),
        "int8_off_by_one": ((base * 30).astype(I1), (base * 30).astype(I1) + I1(1)),
        "int8_one_off": (np.arange(100, dtype=I1), np.array([1, *range(1, 100)], I1)),
        "int8_and_float": (np.arange(100, dtype=I1), np.arange(100, dtype=F4) + F4(0.7)),
        "float_and_int8": (np.arange(100, dtype=F4) - F4(0.5), np.arange(100, dtype=I1)),
        "int8_and_int32": (np.arange(100, dtype=I1), np.arange(100, dtype=I4)),
        "int8_and_uint8_over": (np.full(9, -56, I1), np.full(9, 200, U1)),
        "uint8_off_by_one": (np.arange(200, dtype=U1), np.arange(200, dtype=U1) + U1(1)),
        "uint8_similar": (np.arange(100, 200, dtype=U1), np.arange(101, 201, dtype=U1)),
        "uint8_far": (np.arange(200, dtype=U1), np.arange(200, dtype=U1)[::-1].copy()),
        "uint8_and_float": (np.arange(200, dtype=U1), np.arange(200, dtype=F4)),
        "int32_equal": (np.arange(99, dtype=I4), np.arange(99, dtype=I4)),
        "int32_similar": (np.arange(999, dtype=I4), np.arange(999, dtype=I4) + 1),
        "int32_far": (np.arange(999, dtype=I4), np.arange(999, dtype=I4)[::-1].copy()),
        "int32_and_float": (np.arange(99, dtype=I4), np.arange(99, dtype=F4) + F4(0.9)),
        "int64_equal": (np.arange(99), np.arange(99)),
        "int64_similar": (np.arange(999), np.arange(999) + 1),
        "int16_similar": (np.arange(999, dtype=np.int16), np.arange(1, 1000, dtype=np.int16)),
        "bool_equal": (base > 0, base > 0),
        "bool_apart": (base > 0, base > 1),
        "bf16_equal": (bfloat16(base), bfloat16(base)),
        "bf16_and_float": (bfloat16(base), base),
        "float_and_bf16": (base, bfloat16(base)),
        "bf16_far": (bfloat16(base), bfloat16(noise)),
        "bf16_and_int8": (bfloat16(np.arange(100)), np.arange(100, dtype=I1)),
        "float16_and_float": (base.astype(np.float16), base),
        "float64_and_float": (base.astype(np.float64), base),
        "float64_close": (base.astype(np.float64), base * 1.0005),
        "same_infinity": (
            np.array([1, np.inf, -np.inf, 2], F4),
            np.array([1, np.inf, -np.inf, 2], F4),
        ),
        "same_infinity_close": (
            np.array([1, np.inf, -np.inf, 2], F4),
            np.array([1.0001, np.inf, -np.inf, 2], F4),
        ),
        "infinity_of_other_sign": (np.array([1, np.inf], F4), np.array([1, -np.inf], F4)),
        "nan_same_place": (np.array([1, np.nan, 3], F4), np.array([1, np.nan, 3], F4)),
        "nan_in_target": (np.array([1e3, np.nan, 3], F4), np.array([1e3, 1e-3, 3], F4)),
        "nan_in_reference": (np.array([1e3, 1e-3, 3], F4), np.array([1e3, np.nan, 3], F4)),
        "infinite_in_target": (np.array([1, np.inf], F4), np.array([1, 10000], F4)),
        "cropped": (base, base[:, :, :-1]),
        "cropped_other_way": (base[:, :, :-1], base),
        "boxes_NonMaxSuppression": (
            np.arange(30, dtype=I4).reshape(10, 3),
            np.arange(12).reshape(4, 3),
        ),
        "far_boxes_NonMaxSuppression": (np.zeros((10, 3), F4), np.ones((4, 3), F4)),
        "text": (np.array(["a", "b"]), np.array(["a", "b"])),
    }
    small, large = (1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2), (0.05, 0.09, 0.0995, 0.1005, 0.11, 0.2, 1)
    for level in small + large:
        made[f"noise_{level:g}"] = (base + F4(level) * noise, base)
    # Relative errors about the bound of "close", 1e-3, with one element that decides.
    for error in (9.5e-5, 9.9e-4, 9.99e-4, 1.001e-3, 1.01e-3):
        reference = np.full(1000, 0.001, F4)
        reference[0] = 100
        target = reference.copy()
        target[0] *= F4(1 + error)
        made[f"relative_{error:g}"] = (target, reference)
    # A large tensor, of several pieces, wrong only in its last element.
    large = random.standard_normal(300_001).astype(F4)
    wrong = large.copy()
    wrong[-1] += 1000
    made["wrong_at_the_end"] = (wrong, large)
    return made
