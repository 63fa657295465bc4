"""TLS of a broker's clients, from the `BROKER_*` variables."""

import ssl
from collections.abc import Iterator
from pathlib import Path

from ..settings import BadSetting

FILES = {
    "broker_ca_file": "/certificates/broker-ca.pem",
    "broker_certificate_file": "/certificates/client.pem",
    "broker_key_file": "/certificates/client.key",
}
"""The settings that are PEM files, each with an example."""


def problems(files: dict[str, Path | None]) -> Iterator[str]:
    """What is wrong with these settings, of those in `FILES`; None for one that is not set."""
    if files["broker_key_file"] and not files["broker_certificate_file"]:
        good = FILES["broker_certificate_file"]
        yield (
            "BROKER_KEY_FILE is set without its certificate: set for example"
            f" BROKER_CERTIFICATE_FILE={good}"
        )
    for name, path in files.items():
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            yield (
                f"{name.upper()}={path} cannot be read ({error.strerror}): set it to a PEM file"
                f" that the service's user may read, for example {name.upper()}={FILES[name]}"
            )


def context(files: dict[str, Path | None]) -> ssl.SSLContext:
    """A client's TLS context from these settings.

    Raises:
        BadSetting: A file is not a valid PEM file.
    """
    ca, certificate, key = (files[name] for name in FILES)
    try:
        made = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, ValueError) as error:
        raise BadSetting(
            f"BROKER_CA_FILE={ca} contains no certificate ({error}): set it to a PEM file that"
            " begins with -----BEGIN CERTIFICATE-----"
        ) from error
    if certificate:
        try:
            # Without a password, OpenSSL asks for one on the terminal.
            made.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise BadSetting(
                f"BROKER_CERTIFICATE_FILE={certificate} and its key"
                f" (BROKER_KEY_FILE={key or 'in the same file'}) do not match, or the key has a"
                f" password ({error}): set both to PEM files without a password"
            ) from error
    return made
