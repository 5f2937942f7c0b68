"""Attention, RotaryEmbedding."""
