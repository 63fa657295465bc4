"""Lay the chosen overlays over the project, write its .env files, print the next steps."""

import json
import re
import secrets
import shlex
import shutil
import tempfile
from pathlib import Path

Path(__file__).unlink(
    missing_ok=True
)  # cookiecutter leaves the rendered hook in a temporary folder

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
ROOT = Path.cwd()
OVERLAYS = ROOT / "overlays"
LIBRARIES = ROOT / "libs"
IGNORED = (
    *(".*_cache", ".coverage", ".hypothesis", ".venv", "*.egg-info", "__pycache__"),
    *("build", "dist", "uv.lock"),
)
"""Ignored by git, but possibly in the library's folder after a test run."""
FRAGMENT = ROOT / "env.example"
"""An overlay's part of .env.example."""
MOUNTED = ("broker", "certificates", "observability")
PASSWORD = re.compile(r"^([A-Z_]+_PASSWORD)=$", re.MULTILINE)


def copy_overlays(overlays: Path) -> None:
    """Lay the overlay of each answer over the project, and then those inside it."""
    for option in sorted(overlays.iterdir()):
        chosen = option / ANSWERS[option.name]
        if not chosen.is_dir():  # the answer adds no files
            continue
        inner = chosen / "overlays"
        if inner.is_dir():
            copy_overlays(inner)
            shutil.rmtree(inner)
        shutil.copytree(chosen, ROOT, dirs_exist_ok=True)
        append_fragment()


def append_fragment() -> None:
    if FRAGMENT.exists():
        with (ROOT / ".env.example").open("a", encoding="utf-8") as example:
            example.write("\n" + FRAGMENT.read_text("utf-8"))
        FRAGMENT.unlink()


def remove_ignored() -> None:
    """Remove files that git ignores, such as caches: cookiecutter copies them too."""
    for path in [path for name in IGNORED for path in LIBRARIES.rglob(name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def open_mounted_folders() -> None:
    """Let containers, which run as other users, read what they mount, whatever the umask is."""
    for folder in (ROOT / name for name in MOUNTED):
        for path in (folder, *folder.rglob("*")):
            if path.exists() and path.name != ".env":
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def write_env_files() -> None:
    """Write each .env from its example, readable by the owner only.

    Each empty `*_PASSWORD` gets a random value, the same in all files.

    An existing `.env` is the user's, and is not changed.
    """
    passwords: dict[str, str] = {}

    def with_password(line: re.Match[str]) -> str:
        password = passwords.setdefault(line[1], secrets.token_urlsafe(18))
        return f"{line[1]}={password}"

    for example in ROOT.rglob(".env.example"):
        env = example.with_name(".env")
        if not env.exists():
            env.touch(mode=0o600)
            env.write_text(PASSWORD.sub(with_password, example.read_text("utf-8")), "utf-8")


def is_baked_for_a_diff() -> bool:
    """Whether cruft bakes this only to compute a diff: in a temporary folder."""
    by_cruft = "_commit" in ANSWERS
    return by_cruft and Path(tempfile.gettempdir()).resolve() in ROOT.resolve().parents


copy_overlays(OVERLAYS)
shutil.rmtree(OVERLAYS)
remove_ignored()
open_mounted_folders()
write_env_files()
IN_KUBERNETES = (
    "    make k8s-up              # or, in Kubernetes\n"
    if ANSWERS["deployment"] == "kubernetes"
    else ""
)
if not is_baked_for_a_diff():
    print(f"""
The project is baked. Next:

    cd {shlex.quote(str(ROOT))}
    docker compose up        # or, without Docker: make dev
{IN_KUBERNETES}
A first commit lets later updates merge with your changes:

    git init && git add --all && git commit --message 'Bake the project'
""")
