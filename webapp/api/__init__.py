"""The JSON API: bearer tokens, errors as {"error": {"code", "message", "fields"?}}. One module for each noun."""

from __future__ import annotations

# Importing a module registers its routes.
from webapp.api import (
    broadcasts,
    channels,
    files,
    inbox,
    openapi,
    optouts,
    preflight,
    reports,
    tools,
    webhooks,
)
from webapp.api.base import api

NOUNS = (broadcasts, channels, files, inbox, openapi, optouts, preflight, reports, tools, webhooks)
__all__ = ["NOUNS", "api"]
