"""A model as one web page: libfry in WebAssembly, the weights and the tokenizer in a file that asks nobody anything."""

from __future__ import annotations

from smallfry.export.web.page import export_web

__all__ = ["export_web"]
