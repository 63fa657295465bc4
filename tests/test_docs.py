"""Pages name only existing files, tests, variables and volumes."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from bakery import Bakery
from collector import running, span
from matrix import QUESTIONS, TEMPLATE
from tools import tool

from bench.drills.promises import PROMISES

# What FastStream's page on tracing names, and the two things beyond it.
OF_THE_PAGE = [
    "first -> second -> third",
    "TracerProvider",
    "TelemetryMiddleware",
    "gRPC",
    "HTTP",
    "opentelemetry-exporter-otlp",
    "opentelemetry-exporter-jaeger",
    "InMemorySpanExporter",
    "Jaeger",
    "Zipkin",
    "Tempo",
    "Context propagation",
    "CurrentSpan",
    "Meter provider",
    "Baggage",
]
TRACING_PAGE = "docs/faststream-tracing.md"
# `path/to/file.py::Class.method`; of the template where it says so.
REFERENCE = re.compile(r"`((?:template:)?[\w./-]+\.\w+|\.env\.example)(?:::([\w.]+))?`")


def rows(project: Path) -> list[list[str]]:
    """The cells of each row of the page's tables, without the headings."""
    lines = (project / TRACING_PAGE).read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0] not in {"On the page", "Thing", "---"}]


def roots(project: Path) -> list[Path]:
    """The folders that a path on a page may begin in."""
    (services,) = (project / "src").glob("*/services")
    return [project, services.parent, project / "libs/faststream-otel/src/faststream_otel"]


def located(folders: list[Path], name: str) -> Path:
    """The file with this name on a page."""
    if name.startswith("template:"):
        return TEMPLATE / name.removeprefix("template:")
    return next((root / name for root in folders if (root / name).is_file()), Path(name))


def defined(tree: ast.AST, symbol: str) -> bool:
    """Whether a module, or a class in it, defines this."""
    first, _, rest = symbol.partition(".")
    for node in getattr(tree, "body", ()):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found = node.name == first
            case ast.Assign():
                found = any(isinstance(one, ast.Name) and one.id == first for one in node.targets)
            case _:
                found = False
        if found:
            return not rest or defined(node, rest)
    return False


def wrong(folders: list[Path], text: str) -> Iterator[str]:
    """The names in a text that do not exist."""
    for name, symbol in REFERENCE.findall(text):
        path = located(folders, name)
        if not path.is_file():
            yield f"no file {name}"
        elif symbol and not defined(ast.parse(path.read_text("utf-8")), symbol):
            yield f"no {symbol} in {name}"


def test_the_tracing_page_names_what_there_is(project: Path) -> None:
    assert [
        f"{row[0]}: {what}"
        for row in rows(project)
        for what in wrong(roots(project), "|".join(row[1:]))
    ] == []


def test_a_wrong_name_is_noticed(project: Path) -> None:
    good = (
        "`telemetry/providers.py::Telemetry.close` `tests/test_flow.py::test_an_order_is_one_trace`"
    )
    bad = (
        "`telemetry/provider.py` `telemetry/providers.py::Telemetry.end`"
        " `template:tests/test_docs.py::test_nothing`"
    )
    assert list(wrong(roots(project), good)) == []
    assert list(wrong(roots(project), bad)) == [
        "no file telemetry/provider.py",
        "no Telemetry.end in telemetry/providers.py",
        "no test_nothing in template:tests/test_docs.py",
    ]


def test_each_thing_of_the_tracing_page_is_somewhere_and_shown_by_a_test(project: Path) -> None:
    table = rows(project)
    assert [one for one in OF_THE_PAGE if not any(one in row[0] for row in table)] == []
    for thing, place, shown in table:
        assert place, thing
        tests = [symbol for _, symbol in REFERENCE.findall(shown) if symbol.startswith("test_")]
        assert tests, thing


# --- docs/production.md, docs/without-a-collector.md, docs/joining.md and docs/broker.md

PAGES = ["docs/production.md", "docs/without-a-collector.md", "docs/joining.md"]
BROKER_PAGE = "docs/broker.md"
OVERLAYS_PAGES = [BROKER_PAGE, "docs/traces.md"]
LIBRARY_PAGES = "libs/faststream-otel/docs"
ALL_PAGES = [
    "README.md",
    *OVERLAYS_PAGES,
    *(
        f"{folder}/{path.name}"
        for folder in ("docs", LIBRARY_PAGES)
        for path in sorted((TEMPLATE / "{{cookiecutter.project_slug}}" / folder).glob("*.md"))
    ),
]
VARIABLE = re.compile(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`|^ {4}([A-Z0-9_]+)=", re.MULTILINE)
# In the file that a page adds, and of opentelemetry-distro.
OF_THE_READER = {"COLLECTOR_NAME", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"}
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:yaml|py|toml))`")


def settable(project: Path) -> str:
    """What defines variables: for Compose, for services, and in the code."""
    files = [
        project / ".env.example",
        *project.rglob("compose*.yaml"),
        *(project / "src").rglob("*.py"),
        *(project / "libs").rglob("*.py"),
    ]
    return "\n".join(path.read_text("utf-8") for path in files)


def volumes(file: Path) -> set[str]:
    return set(yaml.safe_load(file.read_text("utf-8")).get("volumes") or {})


@pytest.mark.parametrize("page", [*PAGES, BROKER_PAGE])
def test_a_page_names_variables_that_there_are(project: Path, page: str) -> None:
    text = (project / page).read_text("utf-8")
    named = {name or block for name, block in VARIABLE.findall(text)} - OF_THE_READER
    known = settable(project)
    assert named
    assert {name for name in named if not re.search(rf"\b{name}\b", known)} == set()


@pytest.mark.parametrize("page", [*PAGES, BROKER_PAGE])
def test_a_page_names_files_that_there_are(project: Path, page: str) -> None:
    text = (project / page).read_text("utf-8")
    named = set(PATH.findall(text)) - {"collector-name.yaml"}
    made = {"observability/alertmanager/secrets/"}  # by the user
    collector = (project / "observability/otel-collector/config").rglob("*.yaml")
    components = "\n".join(path.read_text("utf-8") for path in collector)
    gone = {
        name
        for name in named - made
        if not name.startswith("/")  # of a container
        and not any((root / name).exists() for root in roots(project))
        and name not in components
    }
    assert gone == set()


def broken_links(here: Path) -> Iterator[str]:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", here.read_text("utf-8")):
        file, _, section = unquote(target).partition("#")
        path = here.parent / file if file else here
        if not path.is_file():
            yield target
            continue
        if not section:
            continue
        heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
        if section not in anchors:
            yield target


@pytest.mark.parametrize("page", ALL_PAGES)
def test_a_link_leads_to_a_page_and_a_section(project: Path, page: str) -> None:
    assert list(broken_links(project / page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_panels_and_alerts_that_there_are(project: Path, page: str) -> None:
    code = re.compile(r"```.*?```|`[^`]*`|^ {4}[^\n]*", re.DOTALL | re.MULTILINE)
    text = code.sub("", (project / page).read_text("utf-8"))
    boards = (project / "observability/grafana/dashboards").glob("*.json")
    panels = {panel["title"] for one in boards for panel in json.loads(one.read_text())["panels"]}
    rules = (project / "observability/prometheus/rules").glob("*.yaml")
    alerts = {name for one in rules for name in re.findall(r"alert: (\w+)", one.read_text())}
    assert set(re.findall(r'"([A-Z][^"]*)"', text)) - panels == set()
    named = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", text)) - {"FastStream", "OpenTelemetry"}
    assert named - alerts == set()
    assert named


def test_the_production_page_knows_every_volume(project: Path) -> None:
    text = (project / "docs/production.md").read_text("utf-8")
    named = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    each = {file: volumes(file) for file in project.rglob("compose*.yaml")}
    # Which the trace store has is the answer's: the page says "of the trace store".
    kept = set().union(*(names for file, names in each.items() if file.stem != "compose.backend"))
    assert kept
    assert named == kept


def test_the_queues_hold_the_outage_that_is_promised(default_project: Path) -> None:
    """Five minutes of 200 orders a second, by the page's own formulas; one number everywhere."""
    page = (default_project / "docs/faults.md").read_text("utf-8")
    folder = default_project / "observability/otel-collector/config"
    config = "".join((folder / name).read_text() for name in ("collector.yaml", "trace-queue.yaml"))
    formulas = re.findall(
        r"^    (\w+_QUEUE_SIZE) / \(orders per second x (\d+) ", page, re.MULTILINE
    )
    assert {name for name, _ in formulas} == {"TRACE_QUEUE_SIZE", "LOG_QUEUE_SIZE"}
    for name, items in formulas:
        (size,) = re.findall(rf"\$\{{env:{name}:-(\d+)\}}", config)
        assert int(size) / (200 * int(items)) >= 300, name
        assert f"`{name}` ({int(size):,})" in page
        for example in (".env.example", "observability/.env.example"):
            assert f"#{name}={size}\n" in (default_project / example).read_text("utf-8")


def shown(project: Path) -> str:
    """The Collector's file that docs/production.md tells the reader to add."""
    text = (project / "docs/production.md").read_text("utf-8")
    (added,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(added)


def validate(project: Path, bakery: Bakery, sampling: str, folder: Path, added: str) -> None:
    """Validate the Collector's configuration with an additional file."""
    collector = tool("otelcol-contrib", "the Collector reads what docs/production.md adds")
    (folder / "added.yaml").write_text(added)
    config = "observability/otel-collector/config"
    files = ["collector", "trace-backend", "otlp/tls/off", "otlp/auth/none", "redaction/on"]
    files.append(f"sampling/{sampling}")
    bakery.run(
        project,
        "env", "FORWARD_ENDPOINT=https://otlp.example", "COLLECTOR_NAME=one",
        f"CONFIG_FOLDER={config}", f"QUEUE_DIRECTORY={folder / 'queue'}",
        collector, "validate",
        *(f"--config={config}/{name}.yaml" for name in files), f"--config={folder / 'added.yaml'}",
    )  # fmt: skip


@pytest.mark.parametrize("sampling", ["all", "tail"])
def test_the_collector_takes_the_file_that_the_page_adds(
    project: Path, bakery: Bakery, tmp_path: Path, sampling: str
) -> None:
    validate(project, bakery, sampling, tmp_path, shown(project))


def test_what_is_chosen_is_forwarded_only_where_something_chooses(
    project: Path, bakery: Bakery, tmp_path: Path
) -> None:
    """With the edit that the page describes."""
    chosen = "processors: [tail_sampling, batch/forward]"
    assert f"`{chosen}`" in (project / "docs/production.md").read_text("utf-8")
    config = project / "observability/otel-collector/config/forward/otlp.yaml"
    edited = config.read_text("utf-8").replace("processors: [batch/forward]", chosen)
    validate(project, bakery, "tail", tmp_path, edited)
    with pytest.raises(AssertionError, match='processor "tail_sampling" which is not configured'):
        validate(project, bakery, "all", tmp_path, edited)


def test_a_collectors_name_is_a_label_of_its_metrics(default_project: Path, tmp_path: Path) -> None:
    label = '{"key":"collector","value":{"stringValue":"second"}}'
    with running(
        default_project,
        tmp_path,
        added=yaml.safe_load(shown(default_project)),
        COLLECTOR_NAME="second",
    ) as collector:
        collector.send_spans([span()], **{"service.name": "orders"})
        collector.wait_for("metrics", lambda text: label in text)


# --- README.md and docs/ of this repository, and the site that is made of them

SITE_PAGES = sorted((TEMPLATE / "docs").glob("*.md"))
OUR_PAGES = [TEMPLATE / name for name in ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md")]
OUR_PAGES += [TEMPLATE / "SECURITY.md", *SITE_PAGES]
BROKERS_PAGE = TEMPLATE / "docs/brokers.md"
BAKED = TEMPLATE / "{{cookiecutter.project_slug}}"
FOLDERS = [
    TEMPLATE,
    BAKED / "libs/faststream-otel/src/faststream_otel",
    BAKED / "libs/faststream-otel",
    BAKED / "overlays/broker/kafka",
    BAKED,
]
"""That a path on the page may begin in."""
OF_A_BAKE = ("docs/broker.md", "docs/traces.md")
"""In the overlays, until a project is baked."""
COMMAND = re.compile(r"(?:^ {4}|`)make ([a-z0-9-]+)((?: [A-Z]+=(?:\"[^\"]*\"|\S+))*)", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


def targets(*makefiles: Path) -> set[str]:
    texts = [path.read_text("utf-8") for path in makefiles]
    return {name for text in texts for name in re.findall(r"^([a-z0-9-]+): ", text, re.MULTILINE)}


@pytest.mark.parametrize("page", OUR_PAGES, ids=name_of)
def test_a_link_of_ours_leads_to_a_page_and_a_section(page: Path) -> None:
    # The badge is a page of whoever hosts the repository: no name of theirs is needed.
    assert [one for one in broken_links(page) if not one.startswith("../../actions/")] == []


@pytest.mark.parametrize("page", [TEMPLATE / "README.md", *SITE_PAGES], ids=name_of)
def test_a_page_of_ours_names_files_and_tests_that_there_are(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = {f"no file {name}" for name in OF_A_BAKE} | {"no file build/drills.md"}
    files = (path.name for path in (BAKED / "docs").glob("*.md"))
    missing |= {f"no file {name}" for name in files}  # as links of their pages show them
    assert set(wrong(FOLDERS, text)) - missing == set()


@pytest.mark.parametrize("page", OUR_PAGES, ids=name_of)
def test_a_page_of_ours_names_commands_that_there_are(page: Path) -> None:
    makefiles = (TEMPLATE / "Makefile", BAKED / "Makefile", *BAKED.rglob("overlays/**/*.mk"))
    known = targets(*makefiles)
    for target, variables in COMMAND.findall(page.read_text("utf-8")):
        assert target in known
        if target == "drills" and (named := re.search(r'ARGS="([^"]*)"', variables)):
            assert {one for one in named[1].split() if one.isidentifier()} <= set(PROMISES)


def test_a_wrong_command_is_noticed() -> None:
    found = COMMAND.findall('`make oder`\n    make drills BROKER=nats ARGS="--quick sigterm"\n')
    assert found == [("oder", ""), ("drills", ' BROKER=nats ARGS="--quick sigterm"')]


def test_our_readme_is_read_in_five_minutes() -> None:
    assert len((TEMPLATE / "README.md").read_text("utf-8").splitlines()) <= 150


def test_the_readme_says_first_what_a_fresh_machine_needs() -> None:
    text = (TEMPLATE / "README.md").read_text("utf-8")
    assert (
        text.index("nothing but Python 3.11") < text.index("    make demo") < text.index("## Start")
    )
    assert "    make test" in text[: text.index("## Start")]


def test_the_readme_shows_every_broker_with_every_trace_backend() -> None:
    text = (TEMPLATE / "README.md").read_text("utf-8")
    backends = [one["name"] for one in QUESTIONS["_trace_backends"].values()]
    cells = "](docs/trace-backends.md) | [".join(backends)
    assert f"| | [{cells}](docs/trace-backends.md) |" in text
    for one in QUESTIONS["_brokers"].values():
        assert f"\n| [{one['name']}](docs/brokers.md) |" in text


@pytest.mark.parametrize("page", [*OUR_PAGES, *BAKED.glob("docs/*.md")], ids=name_of)
def test_a_tag_that_a_page_names_is_a_release(page: Path) -> None:
    """Or is the next one: of that, the version has `.dev0`, and CHANGELOG.md says that it comes."""
    changelog = (TEMPLATE / "CHANGELOG.md").read_text("utf-8")
    released = set(re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE))
    to_come = QUESTIONS["_template_version"].removesuffix(".dev0")
    tags = set(re.findall(r"(?<!@)\bv(\d+\.\d+\.\d+)\b", page.read_text("utf-8")))
    assert tags <= released | {to_come}


def test_the_badge_has_the_templates_version() -> None:
    version = QUESTIONS["_template_version"]
    text = (TEMPLATE / "README.md").read_text("utf-8")
    assert f"[![Template {version}](https://img.shields.io/badge/template-{version}-blue)]" in text


def test_the_trace_backends_page_has_each_backend() -> None:
    text = (TEMPLATE / "docs/trace-backends.md").read_text("utf-8")
    backends = QUESTIONS["_trace_backends"].values()
    assert f"| | {' | '.join(one['name'] for one in backends)} |" in text
    memory = (f"{one['memory']}, {one['limit']} MiB" for one in backends)
    assert f"| Memory: in use, limit | {' | '.join(memory)} |" in text


def test_the_site_has_every_page_and_no_broken_link(tmp_path: Path) -> None:
    def build(*, repository: str = "") -> Path:
        site = tmp_path / ("with" if repository else "without")
        subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site],
            cwd=TEMPLATE,
            env=os.environ | ({"REPOSITORY_URL": repository} if repository else {}),
            check=True,
        )
        return site

    site = build(repository="https://git.example/us/ours")
    for page in SITE_PAGES:
        folder = "" if page.stem == "README" else page.stem
        assert (site / folder / "index.html").is_file()
    text = (site / "adopting/index.html").read_text("utf-8")
    assert 'href="../library/docs/adopt/#only-the-telemetry"' in text
    blob = "https://git.example/us/ours/blob/main/"
    assert f'href="{blob}%7B%7Bcookiecutter.project_slug%7D%7D/docs/joining.md"' in text
    text = (build() / "adopting/index.html").read_text("utf-8")
    assert "joining.md" in text  # as text, since nobody knows where it is
    assert not re.search(r'href="[^"]*joining', text)


# --- docs/brokers.md


def test_the_brokers_page_has_each_broker() -> None:
    text = BROKERS_PAGE.read_text("utf-8")
    brokers = QUESTIONS["_brokers"].values()
    assert f"| | {' | '.join(one['name'] for one in brokers)} |" in text
    for one in brokers:
        assert f"\n### {one['name']}\n" in text
        assert f"| {one['memory']} of {one['limit']} MiB |" in text


def test_each_trap_is_shown_by_a_test() -> None:
    _, _, traps = BROKERS_PAGE.read_text("utf-8").partition("\n## Traps\n")
    traps, _, _ = traps.partition("\n## ")
    table = [line for line in traps.splitlines() if re.match(r"\| \w", line)]
    shown = [line for line in table if "::test_" in line.rsplit("|", 2)[1]]
    assert shown
    assert set(table) - set(shown) == {"| Trap | Here | Shown by |"}
