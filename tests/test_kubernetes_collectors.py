"""Collectors in two layers, as the overlay `production` configures them: traces stay whole."""

import json
import os
import re
import secrets
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from bakery import Bakery
from collector import Collector, attributes, running, span
from ports import free_ports
from tools import tool

ERROR = {"code": 2}

Resources = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def project(bakery: Bakery) -> Path:
    return bakery.baked_once({"deployment": "kubernetes"}, bakery.home / "kubernetes")


@pytest.fixture(scope="module")
def production(project: Path) -> Resources:
    return built(project / "deploy/kubernetes/overlays/production")


def built(overlay: Path) -> Resources:
    """What `kubectl apply --kustomize` would apply, by kind and name."""
    kubectl = tool("kubectl", "Collectors in two layers keep traces whole")
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}


def configured(production: Resources, name: str, folder: Path) -> tuple[Path, list[str]]:
    """Write what a Collector's pod mounts; return the main folder, and the arguments."""
    pod = production["StatefulSet", name]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    maps = {one["name"]: one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one}
    paths = {
        mount["mountPath"]: folder / name / mount["name"]
        for mount in container["volumeMounts"]
        if mount["name"] in maps
    }
    for path in paths.values():
        path.mkdir(parents=True)
        for key, text in production["ConfigMap", maps[path.name]]["data"].items():
            (path / key).write_text(text, "utf-8")
    settings = production["ConfigMap", container["envFrom"][0]["configMapRef"]["name"]]["data"]

    def here(argument: str) -> str:
        filled = re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], argument)
        mount = next(one for one in paths if filled.startswith(f"--config={one}/"))
        return filled.replace(mount, str(paths[mount]))

    return paths["/etc/otelcol"], [here(one) for one in container["args"]]


class Layers:
    """Two gateways and two Collectors behind them, which can be started each by itself."""

    def __init__(self, production: Resources, folder: Path) -> None:
        self.folder = folder
        self.first = configured(production, "otel-collector", folder)
        self.second = configured(production, "otel-collector-sampling", folder)
        self.ports = free_ports(2)

    def run(self, name: str, stack: ExitStack, **options: Any) -> Collector:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return stack.enter_context(running(self.folder, folder, POD_NAME=name, **options))

    def gateway(self, name: str, stack: ExitStack) -> Collector:
        """A gateway that finds the second layer by ports of this machine, and ends soon without."""
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        times = ("initial_interval", "max_interval", "max_elapsed_time")
        changed = {
            "resolver": {"dns": None, "static": {"hostnames": addresses}},
            "protocol": {"otlp": {"retry_on_failure": dict.fromkeys(times, "1s")}},
        }
        added = {"exporters": {"load_balancing": changed}}
        return self.run(name, stack, configured=self.first, added=added)

    def sampling(self, number: int, stack: ExitStack) -> Collector:
        """A Collector of the second layer, which keeps traces with an error only."""
        endpoint = f"127.0.0.1:{self.ports[number]}"
        protocols = {"grpc": {"endpoint": endpoint}}
        return self.run(
            f"sampling-{number}", stack, configured=self.second,
            added={
                "receivers": {"otlp/layer": {"protocols": protocols}},
                "service": {"pipelines": {"traces": {"receivers": ["otlp", "otlp/layer"]}}},
            },
            TAIL_SAMPLING_WAIT="3s", TAIL_SAMPLING_PERCENTAGE="0",
        )  # fmt: skip


@pytest.fixture
def layers(production: Resources, tmp_path: Path) -> Layers:
    return Layers(production, tmp_path)


def stored(collector: Collector) -> dict[str, set[str]]:
    """The ids of the spans of each trace that a Collector has stored."""
    found: dict[str, set[str]] = {}
    *written, _ = collector.received("traces").split("\n")  # the last line may be half written
    for line in written:
        for of_resource in json.loads(line)["resourceSpans"]:
            for of_scope in of_resource["scopeSpans"]:
                for one in of_scope["spans"]:
                    found.setdefault(one["traceId"], set()).add(one["spanId"])
    return found


def test_a_trace_is_sampled_and_stored_as_a_whole(layers: Layers) -> None:
    """Its spans come by both gateways, and only one of them says that it failed."""
    with ExitStack() as stack:
        sampling = [layers.sampling(number, stack) for number in range(2)]
        gateways = [layers.gateway(f"gateway-{number}", stack) for number in range(2)]
        failed: set[str] = set()
        for number in range(40):
            trace, parent = secrets.token_hex(16), secrets.token_hex(8)
            send = span(traceId=trace, spanId=parent, kind=4, name="send orders")
            status = ERROR if number % 2 else {}
            failed |= {trace} if status else set()
            process = span(traceId=trace, parentSpanId=parent, status=status)
            gateways[0].send_spans([send], **{"service.name": "orders"})
            gateways[1].send_spans([process], **{"service.name": "payments"})
        for one in sampling:
            one.wait_for("traces", lambda text: text != "")
            # Both ends of a call are in one Collector, and each has series of its own.
            one.wait_for("metrics", lambda text: "traces_service_graph_request_total" in text)
            assert f'"stringValue":"{one.folder.name}"' in one.received("metrics")
        sampling[0].wait_for("traces", lambda _: sum(map(len, map(stored, sampling))) == 20)
        first, second = map(stored, sampling)
    assert not first.keys() & second.keys(), "traces were sampled in two places"
    assert {*first, *second} == failed
    assert all(len(spans) == 2 for spans in [*first.values(), *second.values()])
    assert not any(one.received("traces") for one in gateways), "a gateway stored spans itself"
    assert not any("calls" in one.received("metrics") for one in gateways), "it counted them too"


def test_a_gateway_that_ends_keeps_spans_for_the_second_layer(layers: Layers) -> None:
    sent = span(status=ERROR)
    with ExitStack() as stack:
        layers.gateway("gateway-0", stack).send_spans([sent], **{"service.name": "orders"})
    with ExitStack() as stack:
        sampling = [layers.sampling(number, stack) for number in range(2)]
        layers.gateway("gateway-0", stack)
        sampling[0].wait_for("traces", lambda _: any(map(stored, sampling)))
        assert {sent["traceId"]} == set().union(*map(stored, sampling))


def test_records_are_masked_by_the_gateway(layers: Layers) -> None:
    with ExitStack() as stack:
        sampling = [layers.sampling(number, stack) for number in range(2)]
        mail = attributes({"note": "of jane@example.org"})
        layers.gateway("gateway-0", stack).send_spans(
            [span(status=ERROR, attributes=mail)], **{"service.name": "orders"}
        )
        sampling[0].wait_for("traces", lambda _: any(map(stored, sampling)))
        written = "".join(one.received("traces") for one in sampling)
    assert "jane@example.org" not in written


@pytest.mark.parametrize("name", ["otel-collector", "otel-collector-sampling"])
def test_no_store_is_left_when_everything_goes_elsewhere(
    name: str, project: Path, tmp_path: Path
) -> None:
    program = tool("otelcol-contrib", "everything can go elsewhere")
    overlay = project / "deploy/kubernetes/overlays/elsewhere"
    overlay.mkdir(exist_ok=True)
    (overlay / "kustomization.yaml").write_text(
        "resources: [../production]\ncomponents: [../../components/elsewhere]\n"
    )
    config, arguments = configured(built(overlay), name, tmp_path)
    places = {
        "CONFIG_FOLDER": str(config),
        "QUEUE_DIRECTORY": str(tmp_path),
        "FORWARD_ENDPOINT": "https://otlp.example.org",
        "POD_NAME": name,
    }
    checked = subprocess.run(
        [program, "validate", *arguments], env=os.environ | places, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    pipelines: dict[str, Any] = {}
    for argument in arguments:
        part = yaml.safe_load(Path(argument.removeprefix("--config=")).read_text("utf-8"))
        for pipeline, changed in part.get("service", {}).get("pipelines", {}).items():
            pipelines.setdefault(pipeline, {}).update(changed)
    ends = {end for one in pipelines.values() for end in one["exporters"]}
    between = {"forward/store", "span_metrics", "service_graph", "load_balancing"}
    assert ends - between == {"nop", "otlp_http/forward"}
