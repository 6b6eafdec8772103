"""`app` for any WSGI server (run `molva worker` beside it); as a script, the command line."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Make the application when a server asks for it, so that the command line does not pay for it."""
    if name != "app":
        raise AttributeError(name)
    from webapp import create_app

    globals()["app"] = app = create_app()
    return app


if __name__ == "__main__":
    from webapp.__main__ import main

    main(prog_name="molva")
