"""Scaling pictures: not needed."""

resize = None
