"""The JSON API: bearer tokens, errors as {"error": {"code", "message", "fields"?}}. One module for each noun."""

from __future__ import annotations

# Importing a module registers its routes.
from webapp.api import broadcasts, channels, files, openapi, optouts, preflight, reports, tools, webhooks
from webapp.api.base import api

__all__ = ["api", "broadcasts", "channels", "files", "openapi", "optouts", "preflight", "reports", "tools", "webhooks"]
