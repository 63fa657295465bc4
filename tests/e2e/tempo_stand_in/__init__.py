"""Where Tempo's image cannot be had: the library's own OTLP receiver under its name.

It keeps what Tempo would get and gives it back the way that Tempo does, so that the same tests hold
for both.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

LABEL = "e2e.stand-in"

DOCKERFILE = f"""
ARG BASE
FROM $BASE
LABEL {LABEL}=true
COPY --chmod=755 server.py /tempo
ENTRYPOINT ["/tempo"]
"""


def build(image: str, base: str) -> None:
    """Make the image.

    Args:
        image: Its name.
        base: The image of the project's services, which has the library.
    """
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(Path(__file__).with_name("server.py"), context)
        Path(context, "Dockerfile").write_text(DOCKERFILE)
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", image, "--build-arg", f"BASE={base}", context],
            check=True, capture_output=True,
        )  # fmt: skip


def remove(image: str) -> None:
    """Remove the image if it is a stand-in; leave a real one alone."""
    template = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    label = subprocess.run(
        ["docker", "image", "inspect", "--format", template, image],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if label.stdout.strip() == "true":
        subprocess.run(["docker", "image", "rm", image], check=True, capture_output=True)
