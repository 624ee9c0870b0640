"""Bounds that both the daemon and those who ask it keep to."""

from typing import Final

MAX_WEIGHT: Final = 1000
"""Of a term or a ranking."""
MAX_TEXT: Final = 10_000
"""Characters of a text or path in a request."""
MAX_LIMIT: Final = 10_000
"""Hits of one search."""
