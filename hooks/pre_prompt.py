"""Refuse what makes cookiecutter itself fail with a traceback: a wrong choice, template syntax.

Cookiecutter ends there before it loads `CheckAnswers`. A `pre_prompt` hook gets no arguments, so
this one reads those of its parent. Where it can't, cookiecutter's own error remains.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import click
from cookiecutter.cli import main
from cookiecutter.exceptions import ConfigDoesNotExistException

TEMPLATE = Path(__file__).resolve().parents[1]  # a copy, which cookiecutter made for this hook
sys.path.insert(0, str(TEMPLATE))

from check_answers import COPY, faults_of_request, refuse  # noqa: E402


def arguments_of_cookiecutter() -> list[str]:
    """Return its command line after its name, or nothing."""
    try:
        line = Path(f"/proc/{os.getppid()}/cmdline").read_text("utf-8").split("\0")[:-1]
    except (OSError, UnicodeDecodeError):  # not Linux
        return []
    for place, part in enumerate(line):
        if Path(part).name == "cookiecutter":
            return line[place + 1 :]
    return []


(TEMPLATE / COPY).touch()
try:
    request = main.make_context("cookiecutter", arguments_of_cookiecutter()).params
except click.ClickException:  # the parent is a program of another name
    sys.exit()
questions = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
faults: list[str] = []
# A relative path is not found from here, where hooks run: `CheckAnswers` reads that file.
with suppress(ConfigDoesNotExistException):
    faults.extend(faults_of_request(request, questions))
refuse(faults, TEMPLATE)
