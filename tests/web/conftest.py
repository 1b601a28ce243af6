"""What the tests of web services share."""

from __future__ import annotations

from google_server import google

__all__ = ["google"]
