"""Bounds that both the daemon and those who ask it keep to."""

from typing import Final

MAX_WEIGHT: Final = 1000
"""Of a term or a ranking."""
