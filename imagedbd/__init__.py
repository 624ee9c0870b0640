"""imagedbd: a daemon that keeps a searchable index of picture folders, and its companion CLI."""

from __future__ import annotations

__version__ = "0.1.0"
