"""What a person sees: language, theme and shortcuts (cookies, the language also with the account), and the menu."""

from __future__ import annotations

from flask import Response, current_app, request
from flask_babel import LazyString

from webapp import auth
from webapp.words import LANGUAGES, MENU, SETTINGS_MENU, THEMES, MenuItem

LANGUAGE, THEME, SHORTCUTS = "molva_language", "molva_theme", "molva_shortcuts"
LINKED = ("/styleguide",)  # reached from the settings alone
YEAR = 365 * 24 * 3600


def locale() -> str:
    """The person's choice, else the browser's, else the server's language."""
    chosen = request.cookies.get(LANGUAGE) or _of_account()
    if chosen in LANGUAGES:
        return str(chosen)
    default = current_app.extensions["molva"].settings.language
    return request.accept_languages.best_match(list(LANGUAGES)) or str(default)


def _of_account() -> str | None:
    who = auth.identity()
    return auth.my_user().language if who and who.user_id else None


def theme() -> str:
    """light, dark or system."""
    chosen = request.cookies.get(THEME, "system")
    return chosen if chosen in THEMES else "system"


def shortcuts() -> str:
    """on, or off for who speaks to the computer or types by chance (WCAG 2.1.4)."""
    return "off" if request.cookies.get(SHORTCUTS) == "off" else "on"


def remember(response: Response, name: str, value: str) -> Response:
    """Keep a choice in the browser. Scripts may read it: the theme switch changes it without a reload."""
    response.set_cookie(name, value, max_age=YEAR, samesite="Lax", secure=request.is_secure, path="/")
    return response


def menu() -> list[MenuItem]:
    """The menu entries that exist and that this person may see."""
    return _seen(MENU)


def settings_menu() -> list[tuple[LazyString | str, str, bool, None]]:
    """The pages around the settings: (label, address, is this one, no count)."""
    items = _seen(SETTINGS_MENU)
    here = max((item.path for item in items if _stands_at(item.path)), key=len, default="")
    return [(item.label, item.path, item.path == here, None) for item in items]


def in_settings() -> bool:
    """Whether this page belongs to the settings, whatever its address begins with."""
    return any(_stands_at(path) for path in (*(item.path for item in SETTINGS_MENU), *LINKED))


def _stands_at(path: str) -> bool:
    return request.path == path or request.path.startswith(path + "/")


def _seen(items: tuple[MenuItem, ...]) -> list[MenuItem]:
    who = auth.identity()
    paths = current_app.extensions["molva"].paths
    return [item for item in items if who and item.path in paths and who.can(item.role)]
