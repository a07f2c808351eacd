"""Ollama's door: /api/chat, /api/generate, /api/embed, and what lists models."""

from __future__ import annotations

from server.api.ollama.embed import OllamaEmbeddings
from server.api.ollama.listing import OllamaListing
from server.api.ollama.routes import OllamaGeneration

__all__ = ["OllamaEmbeddings", "OllamaGeneration", "OllamaListing"]
