"""The direction of imports: wsgi → webapp → worker → libraries, never back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = {
    0: "settings clock phone segments",
    1: "db models migrations vault locks logs",
    2: "states optouts throttle rendering providers counters audit causes people",
    3: "broadcasts recipients sender delivery inbox reports channels retention",
    4: "tasks __main__",
}
# The tables name statuses that come from the state tables, which are pure data.
EXCEPTIONS = {("models", "states"), ("recipients", "broadcasts")}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_the_worker_knows_nothing_of_the_web() -> None:
    for path in modules("worker"):
        for name in imports(path):
            assert name.split(".")[0] not in ("flask", "htmx_flask", "jinja2", "webapp", "werkzeug", "wsgi"), path


def test_a_worker_module_imports_only_from_its_row_and_above() -> None:
    row_of = {name: row for row, names in ROWS.items() for name in names.split()}
    for path in modules("worker"):
        own = path.relative_to(ROOT / "worker").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "worker" and len(parts) > 1 and parts[1] in row_of and parts[1] != own:
                allowed = row_of[parts[1]] <= row_of[own] or (own, parts[1]) in EXCEPTIONS
                assert allowed, f"{path.name} imports {name}"


def test_only_tasks_knows_huey_and_only_settings_reads_the_environment() -> None:
    for path in modules("worker"):
        names = set(imports(path))
        if path.name != "tasks.py":
            assert not any(name.split(".")[0] == "huey" for name in names), path
        if "providers" not in path.parts:
            assert "requests" not in names, path
        source = path.read_text(encoding="utf-8")
        if path.name not in ("settings.py", "__main__.py"):
            assert "os.environ" not in source, path
        if path.name != "clock.py":
            assert "time.time(" not in source and "datetime.now(" not in source, path
