"""The pages: each module is one noun with its routes. To add one, append its line to BLUEPRINTS."""

from __future__ import annotations

import importlib
import importlib.util

from flask import Flask

from webapp import auth
from webapp.assets import assets

# "module:blueprint", in any order.
BLUEPRINTS: tuple[str, ...] = (
    "webapp.pages.setup:setup",
    "webapp.pages.settings:settings",
    "webapp.pages.people:people",
    "webapp.pages.audit:audit",
    "webapp.pages.privacy:privacy",
    "webapp.pages.health:health",
    "webapp.pages.offline:offline",
    "webapp.pages.broadcasts:broadcasts",
    "webapp.pages.files:files",
    "webapp.pages.reports:reports",
    "webapp.pages.channels:channels",
    "webapp.pages.tokens:tokens",
    "webapp.pages.webhooks:webhooks",
    "webapp.pages.styleguide:styleguide",
    "webapp.pages.inbox:inbox",
    "webapp.pages.optouts:optouts",
    "webapp.api:api",
)

# Signed or bearer requests: there is no cookie that a foreign page could misuse.
WITHOUT_CSRF = ("api",)


def register(app: Flask) -> None:
    """Register every blueprint of the list."""
    app.register_blueprint(assets)
    for entry in BLUEPRINTS:
        module, _colon, name = entry.partition(":")
        if importlib.util.find_spec(module) is None:
            continue
        # nosemgrep: non-literal-import (from the list above)
        blueprint = getattr(importlib.import_module(module), name)
        app.register_blueprint(blueprint)
        if name in WITHOUT_CSRF:
            auth.csrf.exempt(blueprint)
