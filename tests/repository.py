"""Git, and copies of the template's repository that a test may change."""

import os
import shutil
import subprocess
from pathlib import Path

from matrix import TEMPLATE


def git(folder: Path, *arguments: str) -> str:
    """Run git and return its output; a failure has its error."""
    author = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER")
              for what in ("NAME", "EMAIL")}  # fmt: skip
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | author,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}\n{done.stderr}"
    return done.stdout


def commit(folder: Path, message: str) -> None:
    """Commit everything that git does not ignore; the first commit creates the repository."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", f"--message={message}")


def knows(revision: str) -> bool:
    """Whether the template's repository has this commit: a shallow clone has few."""
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=TEMPLATE, capture_output=True
    )
    return found.returncode == 0


def copy_of_the_template(to: Path) -> Path:
    """Commit the template as it is here, with uncommitted changes and without its history."""
    copy_files(to)
    commit(to, "first")
    return to


def clone_of_the_template(to: Path) -> Path:
    """Likewise, on top of its history."""
    git(TEMPLATE, "clone", "--quiet", "--no-checkout", str(TEMPLATE), str(to))
    git(to, "checkout", "--quiet", "-B", "main")  # there may be no branch, as where CI checks out
    git(to, "rm", "-r", "--quiet", ".")
    copy_files(to)
    git(to, "add", "--all")
    git(to, "commit", "--quiet", "--allow-empty", "--message=as it lies here")
    return to


def copy_files(to: Path) -> None:
    """Copy all files of the template, with uncommitted changes."""
    listed = git(TEMPLATE, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (TEMPLATE / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, to / name)
