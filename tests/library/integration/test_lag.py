"""The lag of consumer groups is read from outside, without joining them."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream_otel import Service
from faststream_otel.cli.__main__ import main
from faststream_otel.kafka import KafkaSettings
from faststream_otel.kafka.embedded import embedded_kafka
from faststream_otel.kafka.lag import lag
from faststream_otel.messages.broker import Group, Unreachable

from ..ports import refusing_port


@pytest.fixture
def kafka() -> Iterator[str]:
    with embedded_kafka(["numbers"]) as address:
        yield address


async def send(broker: str, *numbers: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        for number in numbers:
            await producer.send_and_wait("numbers", str(number).encode())


def counting(broker: str) -> tuple[Service, asyncio.Queue[int]]:
    service = Service("counting", KafkaSettings(broker_url=broker))
    taken: asyncio.Queue[int] = asyncio.Queue()

    @service.subscriber("numbers")
    async def count(number: int) -> None:
        taken.put_nowait(number)

    @service.subscriber("nowhere")
    async def ignore(number: int) -> None: ...

    return service, taken


async def ready(service: Service) -> int:
    found = [
        one for one in await service.broker.lag(service.broker.groups()) if one.channel == "numbers"
    ]
    assert {one.group for one in found} == {"counting.numbers"}
    assert len({one.partition for one in found}) == len(found) > 1
    return sum(one.ready for one in found)


async def test_lag_counts_what_was_not_acknowledged(kafka: str) -> None:
    service, taken = counting(kafka)
    await send(kafka, 1, 2, 3)
    assert await ready(service) == 3

    async with asyncio.timeout(30), service.broker.faststream as connected:
        await connected.start()
        for _ in range(3):
            await taken.get()
        while await ready(service):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # the client commits in the background
        # The group has gone on undisturbed.
        await send(kafka, 4)
        assert await taken.get() == 4
        assert service.broker.joined()
    await send(kafka, 5)
    assert await ready(service) == 1
    assert sum(one.position or 0 for one in await service.broker.lag(service.broker.groups())) == 4


async def test_a_channel_that_does_not_exist_has_no_lag(kafka: str) -> None:
    service, _ = counting(kafka)
    assert {one.channel for one in await service.broker.lag(service.broker.groups())} == {"numbers"}


async def test_the_marks_of_transactions_are_no_lag(real_kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=real_kafka)
    await admin.start()
    await admin.create_topics([NewTopic("numbers", 1, 1)])
    await admin.close()

    async def ready() -> int:
        (found,) = await lag(KafkaSettings(broker_url=real_kafka), [Group("numbers", "reading")])
        return found.ready

    async with (
        asyncio.timeout(60),
        AIOKafkaConsumer(
            "numbers", bootstrap_servers=real_kafka, group_id="reading",
            auto_offset_reset="earliest", enable_auto_commit=False,
        ) as consumer,
        AIOKafkaProducer(bootstrap_servers=real_kafka, transactional_id="sending") as producer,
    ):  # fmt: skip

        async def consume() -> None:
            for partition, messages in (await consumer.getmany(timeout_ms=20_000)).items():
                await consumer.commit({partition: messages[-1].offset + 1})

        async with producer.transaction():
            await producer.send_and_wait("numbers", b"1")
        assert await ready() > 0
        await consume()
        assert await ready() == 0
        async with producer.transaction():
            await producer.send_and_wait("numbers", b"2")
        assert await ready() > 0  # behind the first mark
        await consume()
        assert await ready() == 0


async def test_a_broker_that_is_away_is_said_to_be() -> None:
    with refusing_port() as port:
        service, _ = counting(f"127.0.0.1:{port}")
        with pytest.raises(Unreachable):
            await service.broker.lag(service.broker.groups())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka: str) -> Iterator[str]:
    """A package with one service, `counting`."""
    services = tmp_path / "tallying" / "services"
    services.mkdir(parents=True)
    (services / "__init__.py").touch()
    (services.parent / "settings.py").write_text(
        "from faststream_otel.kafka import KafkaSettings as Settings\n"
    )
    (services / "counting.py").write_text(
        "from faststream_otel import Service\n"
        "from ..settings import Settings\n"
        "service = Service('counting', Settings())\n"
        "@service.subscriber('numbers')\n"
        "async def count(number: int) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BROKER_URL", kafka)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    yield "tallying"
    for name in [name for name in sys.modules if name.startswith("tallying")]:
        del sys.modules[name]


def test_the_command_prints_each_group(
    project: str, kafka: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(send(kafka, 1, 2))
    assert main(["--app", project, "lag"]) == 0
    assert capfd.readouterr().out == (
        "channel  group             ready  in flight\nnumbers  counting.numbers      2          0\n"
    )
    assert main(["--app", project, "lag", "--json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sum(line.pop("ready") for line in lines) == 2
    assert lines[1] == {
        "channel": "numbers", "group": "counting.numbers", "in_flight": 0, "position": 0,
        "partition": "1",
    }  # fmt: skip


def test_a_group_of_others_is_named(
    project: str, kafka: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(send(kafka, 1, 2))
    groups = ("--group", "numbers=theirs", "--group", "numbers=counting.numbers")
    assert main(["--app", project, "lag", *groups]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["numbers", "counting.numbers", "2", "0"],
        ["numbers", "theirs", "2", "0"],
    ]
    with pytest.raises(SystemExit):
        main(["--app", project, "lag", "--group", "theirs"])
    assert "theirs is not like orders.placed=billing" in capfd.readouterr().err


def test_groups_of_others_need_no_services(
    kafka: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "adopting").mkdir()
    (tmp_path / "adopting" / "settings.py").write_text(
        "from faststream_otel.kafka import KafkaSettings as Settings\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BROKER_URL", kafka)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert main(["--app", "adopting", "lag", "--group", "numbers=theirs"]) == 0
    assert "theirs" in capfd.readouterr().out
