"""A later template reaches a project that was baked, edited and committed, as its docs/updating.md
tells. The older template is the one here and the later one has a change of every kind; or the older
one is 0.1.0, and the later one is here.
"""

import json
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bakery import Bakery
from conftest import name_of
from matrix import OPTIONS, TEMPLATE, Answers, matrix
from repository import clone_of_the_template, commit, copy_of_the_template, git, knows

CRUFT = (sys.executable, "-m", "cruft")
Edit = Callable[[str], str]


def replaced(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


def appended(line: str) -> Edit:
    return lambda text: f"{text}{line}\n"


def edit_files(folder: Path, edits: dict[str, Edit]) -> None:
    for name, edit in edits.items():
        (folder / name).write_text(edit((folder / name).read_text("utf-8")), "utf-8")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


# --- What a later template does

LATER_VERSION = "9.9.9"
MEMORY = "mem_limit: 320m"
LATER_EDITS: dict[str, Edit] = {
    "compose.yaml": replaced(MEMORY, "mem_limit: 384m"),
    ".env.example": appended("#LATER_SETTING=on"),
    "README.md": replaced("## Run it\n", "## Run all of it\n"),
    "docs/runbook.md": appended("Later."),
    "src/{{cookiecutter.package_name}}/services/payments.py": replaced(
        "or declines it.", "or declines it, later."
    ),
}
RENAMED = ("docs/faults.md", "docs/when-things-fail.md")
LATER_FILE = "src/{{cookiecutter.package_name}}/later.py"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tagged `today` as it is here, and `later` with all that comes after."""
    folder = copy_of_the_template(tmp_path_factory.mktemp("template") / "faststream-otel")
    git(folder, "tag", "today")
    baked = folder / "{{cookiecutter.project_slug}}"
    edit_files(baked, LATER_EDITS)
    (baked / RENAMED[0]).rename(baked / RENAMED[1])
    write(baked / LATER_FILE, '"""What is new."""\n')
    for overlay in (baked / "overlays").glob("*/*"):
        write(overlay / "observability" / f"later-{overlay.parent.name}.txt", f"{overlay.name}\n")
    write(baked / "overlays/cache/redis/compose.cache.yaml", "services: {}\n")
    questions = json.loads((folder / "cookiecutter.json").read_text("utf-8"))
    questions |= {"cache": ["none", "redis"], "_template_version": LATER_VERSION}
    write(folder / "cookiecutter.json", json.dumps(questions, indent=2))
    commit(folder, "later")
    git(folder, "tag", "later")
    return folder


# --- What a user does

PASSWORD_AND_PORT = "GRAFANA_ADMIN_PASSWORD=kept\nGRAFANA_PORT=3001\n"
IGNORED_BY_GIT = {
    ".env": PASSWORD_AND_PORT,
    "observability/.env": PASSWORD_AND_PORT,
    "certificates/client.key": "a key",
    "observability/certificates/collector.key": "another key",
}
USERS_EDITS: dict[str, Edit] = {
    "compose.yaml": replaced(
        '    command: ["notifications"]\n',
        '    command: ["notifications"]\n\n  invoicing:\n    <<: *service\n'
        '    command: ["invoicing"]\n',
    ),
    "README.md": appended("Ours."),
    "pyproject.toml": replaced('version = "0.1.0"', 'version = "1.4.0"'),
    RENAMED[0]: appended("Ours."),
    "src/order_flow/services/payments.py": replaced("= 100_000", "= 75_000"),
}
OWN_SERVICE = "src/order_flow/services/invoicing.py"
OWN_SERVICE_CODE = '''"""Bills what is dispatched."""

from faststream_otel import Service

from ..channels import SHIPMENTS
from ..contracts import OrderDispatched
from ..settings import Settings

service = Service("invoicing", Settings())
app = service.app


@service.subscriber(SHIPMENTS)
async def bill(order: OrderDispatched) -> None:
    """Take the order for billed."""
'''
DELETED = "docs/runbook.md"

# --- The oldest project that there is

OF_0_1_0 = "bbb94d6fbf48a531412ec82fcda676cd1ac3f3b6"
"""The commit with 0.1.0."""


@dataclass(frozen=True)
class Cruft:
    """cruft's command line, with the tests' settings; where it asks, it gets the default."""

    bakery: Bakery
    template: Path

    def create(self, into: Path, answers: Answers) -> Path:
        """Bake today's template and commit that before anything else, as the document tells."""
        into.mkdir(exist_ok=True)
        context = f"--extra-context={json.dumps(answers)}"
        self.run(into, "create", str(self.template), "--checkout=today", "--no-input", context)
        (project,) = into.iterdir()
        commit(project, "baked")
        return project

    def update(self, project: Path, *options: str) -> None:
        self.run(project, "update", "--skip-apply-ask", *options)

    def run(self, folder: Path, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [*CRUFT, *arguments],
            cwd=folder,
            env=self.bakery.environment(),
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == code, f"cruft {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def cruft(bakery: Bakery, template: Path) -> Cruft:
    return Cruft(bakery, template)


def edited(project: Path) -> Path:
    """Do what a user does, and commit it."""
    for name, text in IGNORED_BY_GIT.items():
        write(project / name, text)
    edit_files(project, USERS_EDITS)
    write(project / OWN_SERVICE, OWN_SERVICE_CODE)
    (project / DELETED).unlink()
    commit(project, "ours")
    return project


@pytest.fixture(scope="module", params=matrix(), ids=name_of)
def updated(
    request: pytest.FixtureRequest, cruft: Cruft, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Baked by cruft, edited, and brought up to the later template."""
    project = edited(cruft.create(tmp_path_factory.mktemp("updated"), request.param))
    cruft.update(project)
    return project


@pytest.fixture
def project(cruft: Cruft, tmp_path: Path) -> Path:
    """Baked by cruft, edited, and not updated yet."""
    return edited(cruft.create(tmp_path, {}))


def conflicts(project: Path) -> list[str]:
    return git(project, "diff", "--name-only", "--diff-filter=U").split()


def give_up(project: Path) -> None:
    """As the document says it."""
    git(project, "reset", "--quiet", "--hard")
    git(project, "clean", "--quiet", "-d", "--force")


def test_what_the_later_template_has_is_there(updated: Path) -> None:
    assert "mem_limit: 384m" in (updated / "compose.yaml").read_text("utf-8")
    assert "#LATER_SETTING=on\n" in (updated / ".env.example").read_text("utf-8")
    assert "## Run all of it\n" in (updated / "README.md").read_text("utf-8")
    assert (updated / "src/order_flow/later.py").exists()
    answers = json.loads((updated / ".cruft.json").read_text("utf-8"))["context"]["cookiecutter"]
    for option in OPTIONS:
        later = updated / "observability" / f"later-{option}.txt"
        if answers[option] in {"none", "compose"} or option == "python_version":  # no overlay
            assert not later.exists()
        else:
            assert later.read_text("utf-8") == f"{answers[option]}\n"
    assert not (updated / "overlays").exists()
    assert not (updated / "compose.cache.yaml").exists()  # a new question has its default


def test_what_the_user_did_is_kept(updated: Path) -> None:
    assert (updated / OWN_SERVICE).read_text("utf-8") == OWN_SERVICE_CODE
    assert 'command: ["invoicing"]' in (updated / "compose.yaml").read_text("utf-8")
    assert (updated / "README.md").read_text("utf-8").endswith("Ours.\n")
    payments = (updated / "src/order_flow/services/payments.py").read_text("utf-8")
    assert "CARD_LIMIT_CENTS = 75_000" in payments
    assert "or declines it, later." in payments
    assert project_table(updated)["version"] == "1.4.0"
    assert not (updated / DELETED).exists()


def test_a_file_that_the_template_renames_takes_the_users_edit_along(updated: Path) -> None:
    assert not (updated / RENAMED[0]).exists()
    assert (updated / RENAMED[1]).read_text("utf-8").endswith("Ours.\n")


def test_env_files_and_keys_are_not_touched(updated: Path) -> None:
    for name, text in IGNORED_BY_GIT.items():
        assert (updated / name).read_text("utf-8") == text
    assert stat.S_IMODE((updated / ".env").stat().st_mode) == 0o600


def test_nothing_is_left_to_resolve(updated: Path) -> None:
    assert conflicts(updated) == []
    assert not [*updated.rglob("*.rej"), *updated.rglob("*.orig")]


def test_the_project_says_which_template_it_is_from(updated: Path, cruft: Cruft) -> None:
    assert tool_table(updated)["faststream-otel"]["version"] == LATER_VERSION
    state = json.loads((updated / ".cruft.json").read_text("utf-8"))
    assert state["commit"] == git(cruft.template, "rev-parse", "later").strip()
    cruft.run(updated, "check")


@pytest.mark.parametrize("updated", matrix()[:1], indirect=True, ids=name_of)
def test_its_checks_pass(updated: Path, bakery: Bakery) -> None:
    bakery.run(updated, "make", "lint")
    bakery.run(updated, "make", "test", "ARGS=tests/test_flow.py")


def test_services_that_make_service_adds_are_kept(
    bakery: Bakery, cruft: Cruft, tmp_path: Path
) -> None:
    project = cruft.create(tmp_path, {})
    more = "ARGS=--publishes invoices.issued"
    bakery.run(project, "make", "service", "NAME=invoicing", more)
    (project / "uv.lock").write_text("the user's")  # `make` has written one; no version of it here
    commit(project, "invoicing")
    before = tree(project)

    cruft.update(project)
    assert conflicts(project) == []
    changed = {name for name, content in tree(project).items() if before.get(name) != content}
    assert "src/order_flow/services/invoicing.py" in before
    assert not {name for name in changed if "invoicing" in name or name == "uv.lock"}
    compose = (project / "compose.yaml").read_text("utf-8")
    assert 'command: ["invoicing"]' in compose
    assert "mem_limit: 384m" in compose


def test_both_change_the_same_line(project: Path, cruft: Cruft) -> None:
    """Both versions stand in the file, all else is updated, and there is a way back."""
    edit_files(project, {"compose.yaml": replaced(MEMORY, "mem_limit: 512m")})
    commit(project, "more memory")
    before = tree(project)

    cruft.update(project)
    assert conflicts(project) == ["compose.yaml"]
    assert re.search(
        r"<{7} .*\n.*mem_limit: 512m.*\n={7}\n.*mem_limit: 384m.*\n>{7} ",
        (project / "compose.yaml").read_text("utf-8"),
    )
    assert (project / "src/order_flow/later.py").exists()
    assert (project / OWN_SERVICE).read_text("utf-8") == OWN_SERVICE_CODE

    give_up(project)
    assert tree(project) == before


def test_both_change_the_same_line_and_the_bake_was_never_committed(
    cruft: Cruft, tmp_path: Path
) -> None:
    """Git has no common ancestor then: the user's file stays, what did not fit lies beside it."""
    project = edited(cruft.create(tmp_path, {}))
    edit_files(project, {"compose.yaml": replaced(MEMORY, "mem_limit: 512m")})
    shutil.rmtree(project / ".git")
    commit(project, "baked and edited")
    before = tree(project)

    cruft.update(project)
    assert "mem_limit: 512m" in (project / "compose.yaml").read_text("utf-8")
    assert [path.name for path in project.rglob("*.rej")] == ["compose.yaml.rej"]
    assert "+  mem_limit: 384m" in (project / "compose.yaml.rej").read_text("utf-8")
    assert (project / "src/order_flow/later.py").exists()

    give_up(project)
    assert tree(project) == before


def test_a_file_of_ones_own_is_where_the_later_template_has_one(
    project: Path, cruft: Cruft
) -> None:
    write(project / "src/order_flow/later.py", '"""Ours."""\n')
    commit(project, "ours too")
    cruft.update(project)
    assert conflicts(project) == ["src/order_flow/later.py"]
    both = (project / "src/order_flow/later.py").read_text("utf-8")
    assert '"""Ours."""' in both
    assert '"""What is new."""' in both
    assert "mem_limit: 384m" in (project / "compose.yaml").read_text("utf-8")


def test_what_is_not_committed_is_not_risked(project: Path, cruft: Cruft) -> None:
    edit_files(project, {"README.md": appended("Not committed.")})
    before = tree(project)
    assert "working tree is clean" in cruft.run(project, "update", "--skip-apply-ask", code=1)
    assert tree(project) == before


def test_diff_shows_what_the_user_changed_and_nothing_else(project: Path, cruft: Cruft) -> None:
    patch = cruft.run(project, "diff")
    assert patch.startswith("diff --git ")
    changed = re.findall(r"^diff --git upstream-template-old/(\S+) ", patch, re.MULTILINE)
    assert set(changed) == set(USERS_EDITS)


def test_a_project_of_cookiecutter_is_linked_and_updated(
    bakery: Bakery, cruft: Cruft, tmp_path: Path
) -> None:
    answers = {"project_name": "Other Flow", "license": "BSD-3-Clause"}
    project = bakery.bake(answers, tmp_path)
    commit(project, "baked")
    context = f"--extra-context={json.dumps(answers)}"
    cruft.run(project, "link", str(cruft.template), "--checkout=today", "--no-input", context)
    assert cruft.run(project, "diff") == ""
    commit(project, "linked")

    cruft.update(project)
    assert "mem_limit: 384m" in (project / "compose.yaml").read_text("utf-8")
    assert "BSD 3-Clause" in (project / "LICENSE").read_text("utf-8")
    assert conflicts(project) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, values[-1]) for option, values in OPTIONS.items() if len(values) > 1],
)
def test_another_answer_is_taken_up(
    option: str, value: str, bakery: Bakery, cruft: Cruft, tmp_path: Path
) -> None:
    """The project is then as if it had been baked so."""
    project = cruft.create(tmp_path / "changed", {})
    changed = f"--variables-to-update={json.dumps({option: value})}"
    cruft.update(project, "--checkout=today", changed)
    assert tree(project) == tree(bakery.bake({option: value}, tmp_path / "baked"))


def test_an_env_file_that_is_there_is_kept(bakery: Bakery, tmp_path: Path) -> None:
    """The hook alone, as whatever bakes over a folder would call it."""
    project = bakery.bake({}, tmp_path, "--accept-hooks=no")
    write(project / ".env", PASSWORD_AND_PORT)
    answers = {"broker": "kafka", "deployment": "compose"}
    answers |= {"trace_backend": "tempo", "license": "none"}
    hook = (TEMPLATE / "hooks/post_gen_project.py").read_text("utf-8")
    write(tmp_path / "hook.py", hook.replace("{{ cookiecutter | tojson }}", json.dumps(answers)))
    bakery.run(project, sys.executable, str(tmp_path / "hook.py"))
    assert (project / ".env").read_text("utf-8") == PASSWORD_AND_PORT
    assert "GRAFANA_ADMIN_PASSWORD=" in (project / "observability/.env").read_text("utf-8")


@pytest.fixture(scope="module")
def cruft_of_0_1_0(bakery: Bakery, tmp_path_factory: pytest.TempPathFactory) -> Cruft:
    """With the template's true past: 0.1.0 is `today`, what lies here is the later one."""
    if not knows(OF_0_1_0):
        pytest.skip(f"this clone is shallow: {OF_0_1_0}, which is 0.1.0, is not in it")
    template = clone_of_the_template(tmp_path_factory.mktemp("past") / "faststream-otel")
    git(template, "tag", "today", OF_0_1_0)
    return Cruft(bakery, template)


def test_0_1_0_becomes_what_is_baked_now(
    bakery: Bakery, cruft_of_0_1_0: Cruft, tmp_path: Path
) -> None:
    project = cruft_of_0_1_0.create(tmp_path / "updated", {})
    env_files = {path: path.read_bytes() for path in project.rglob(".env")}

    cruft_of_0_1_0.update(project)
    assert conflicts(project) == []
    assert tree(project) == tree(bakery.bake({}, tmp_path / "baked"))
    assert {path: path.read_bytes() for path in project.rglob(".env")} == env_files


def project_table(project: Path) -> dict[str, str]:
    table: dict[str, str] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))[
        "project"
    ]
    return table


def tool_table(project: Path) -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = tomllib.loads(
        (project / "pyproject.toml").read_text("utf-8")
    )["tool"]
    return table


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's content by its name, but for the passwords and what git and cruft note down."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in {".env", ".cruft.json"}
        and ".git" not in path.relative_to(folder).parts
    }
