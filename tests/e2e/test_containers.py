"""Every container runs the way that the compose files promise."""

import re

import pytest

from .stack import Stack

pytestmark = pytest.mark.every_broker


def test_all_are_healthy(stack: Stack) -> None:
    """The one-shot excepted, which has ended without an error."""
    containers = stack.containers()
    assert {
        name: one["State"].get("Health", {}).get("Status") for name, one in containers.items()
    } == {name: None if name == "channels" else "healthy" for name in stack.services}
    assert containers["channels"]["State"]["ExitCode"] == 0


def test_ports_are_open_on_loopback_only(stack: Stack) -> None:
    addresses = {
        (name, binding["HostIp"])
        for name, one in stack.containers().items()
        for bindings in one["HostConfig"]["PortBindings"].values()
        for binding in bindings
    }
    assert addresses
    assert {address for _, address in addresses} == {"127.0.0.1"}, addresses


def test_nothing_runs_as_root(stack: Stack) -> None:
    for name in stack.running():
        users = stack.process_users(name)
        assert users, name
        assert not {"0", "root"} & users, f"{name} runs as {users}"


def test_containers_are_confined(stack: Stack) -> None:
    for name, one in stack.containers().items():
        host = one["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["CapAdd"] is None, name
        assert not host["Privileged"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        expected = "no" if name == "channels" else "unless-stopped"
        assert host["RestartPolicy"]["Name"] == expected, name


def test_the_kernel_holds_them_to_it(stack: Stack) -> None:
    """Not what was asked for, but what the processes have."""
    for name in stack.running():
        inside = stack.look_inside(name)
        assert inside.processes, name
        for status in inside.processes.values():
            assert "0" not in status["Uid"].split(), (name, status)
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, (name, status)
            assert status["NoNewPrivs"] == "1", (name, status)
            assert status["Seccomp"] == "2", (name, status)  # Docker's filter of system calls
        assert inside.written == "", name  # by root, and refused nevertheless


def test_nothing_was_restarted(stack: Stack) -> None:
    assert {name: one["RestartCount"] for name, one in stack.containers().items()} == dict.fromkeys(
        stack.services, 0
    )


def test_there_is_no_default_password(stack: Stack) -> None:
    """Without one, Compose refuses and says what to set."""
    passwords = {"GRAFANA_ADMIN_PASSWORD"}
    if stack.setting("BROKER_PASSWORD"):  # which baking made
        passwords.add("BROKER_PASSWORD")
    for name in passwords:
        assert name in stack.try_config(**{name: ""})


def test_services_are_told_no_password(stack: Stack) -> None:
    """Unless one is set in .env, as it is for brokers that have no other way."""
    told = {
        (name, variable.partition("=")[0])
        for name, one in stack.containers().items()
        for variable in one["Config"]["Env"]
        if re.match("[A-Z_]*(PASSWORD|TOKEN|SECRET)[A-Z_]*=.", variable)
    }
    if stack.setting("BROKER_PASSWORD"):
        told = {(name, variable) for name, variable in told if variable != "BROKER_PASSWORD"}
    assert told <= {("grafana", "GF_SECURITY_ADMIN_PASSWORD")}
