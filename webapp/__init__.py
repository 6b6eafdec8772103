"""HTTP in, HTML or JSON out. Everything that is true without a browser lives in `worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from worker.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The web application; without `settings` they are read from the environment.

    The import happens here so that `import webapp` costs the worker and the sandbox nothing.
    """
    from webapp.app import build

    return build(settings)
