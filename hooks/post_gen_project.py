"""Lay the chosen overlays over the project, write its .env files, say what to do next."""

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
"""What git ignores in the template, and may lie in the library's folder after a test run."""
PASSWORD = re.compile(r"^GRAFANA_ADMIN_PASSWORD=.*$", re.MULTILINE)


def lay_overlays() -> None:
    for option in sorted(OVERLAYS.iterdir()):
        if ANSWERS[option.name] != "none":  # which adds nothing, and git keeps no empty folder
            shutil.copytree(option / ANSWERS[option.name], ROOT, dirs_exist_ok=True)
    shutil.rmtree(OVERLAYS)


def remove_ignored() -> None:
    """Cookiecutter copies what git ignores too, such as caches of a clone that was worked in."""
    for path in [path for name in IGNORED for path in LIBRARIES.rglob(name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_env_files() -> None:
    """Fill in one random password wherever an example asks for it; only the owner may read it.

    A `.env` that is there is the user's, and stays as it is.
    """
    password = f"GRAFANA_ADMIN_PASSWORD={secrets.token_urlsafe(18)}"
    for example in ROOT.rglob(".env.example"):
        env = example.with_name(".env")
        if not env.exists():
            env.touch(mode=0o600)
            env.write_text(PASSWORD.sub(password, example.read_text("utf-8")), "utf-8")


def is_baked_to_be_compared() -> bool:
    """Whether cruft bakes this to find what changed: in a temporary folder, and for a patch."""
    by_cruft = "_commit" in ANSWERS
    return by_cruft and Path(tempfile.gettempdir()).resolve() in ROOT.resolve().parents


lay_overlays()
remove_ignored()
write_env_files()
if not is_baked_to_be_compared():
    print(f"""
The project is baked. Next:

    cd {shlex.quote(str(ROOT))}
    docker compose up        # or, without Docker: make dev
""")
