"""The direction of imports: wsgi → webapp → worker → libraries, never back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = {
    0: "settings clock phone segments problems stopwords workbook",
    1: "db models migrations postgres files vault locks logs totp",
    2: "states optouts throttle rendering providers counters audit causes people breaker quiet sieve canary repeats"
    " events latency approvals invitations second_step hashes installation",
    3: "backup broadcasts recipients sender lines proofs delivery inbox reports channels channel_settings channel_health"
    " retention privacy watchdog media direct preflight overlap preview forecast statistics attachments talk confirmations"
    " optout_files rescue webhooks metrics copying undo",
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


# The sandbox is a foreign server beside the house: it imports nothing of it but the worker.
WEB_ROWS = {"pages": 1, "api": 1, "app": 2, "serve": 3, "__main__": 3}


def test_a_web_module_imports_only_from_its_row_and_above() -> None:
    for path in modules("webapp"):
        own = path.relative_to(ROOT / "webapp").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "webapp" and len(parts) > 1:
                assert WEB_ROWS.get(parts[1], 0) <= WEB_ROWS.get(own, 0), f"{path.name} imports {name}"


def test_only_pages_and_api_know_blueprints() -> None:
    for path in modules("webapp"):
        if WEB_ROWS.get(path.relative_to(ROOT / "webapp").parts[0].removesuffix(".py")) != 1:
            assert "flask.Blueprint" not in set(imports(path)) or path.name == "assets.py", path


def test_only_the_clock_asks_for_the_time_in_the_web_too() -> None:
    for path in modules("webapp"):
        if path.name == "sandbox.py":
            continue  # a foreign server that happens to ship with us, with a clock of its own
        source = path.read_text(encoding="utf-8")
        assert "time.time(" not in source and "datetime.now(" not in source, path


def test_no_two_modules_import_each_other() -> None:
    names = {dotted(path): path for folder in ("webapp", "worker") for path in modules(folder)}
    graph = {name: {i for i in top_level_imports(path) if i in names} - {name} for name, path in names.items()}
    seen: dict[str, bool] = {}  # True: on the way down, False: done

    def visit(name: str, way: list[str]) -> None:
        assert not seen.get(name), " → ".join([*way, name])
        if name not in seen:
            seen[name] = True
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            seen[name] = False

    for name in sorted(graph):
        visit(name, [])


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top_level_imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = [f"{node.module}.{name.name}" for name in node.names]
            files = [ROOT.joinpath(*name.split(".")) for name in submodules]
            found = [n for n, f in zip(submodules, files, strict=True) if f.with_suffix(".py").exists() or f.is_dir()]
            yield from found
            if len(found) < len(submodules):
                yield node.module
