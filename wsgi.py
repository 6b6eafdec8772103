"""`app` for any WSGI server (run `molva worker` beside it); as a script, the command line."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Make the application when a server asks for it, so that the command line does not pay for it.

    Raises SchemaError, which says what to run, when the database does not fit the program.
    """
    if name != "app":
        raise AttributeError(name)
    from webapp import create_app
    from worker import migrations

    app = create_app()
    migrations.require_current()
    globals()["app"] = app
    return app


if __name__ == "__main__":
    from webapp.__main__ import main

    main(prog_name="molva")
