"""The recording of `make demo` is a small picture that moves, and says nothing of this machine."""

import re
from pathlib import Path
from xml.etree import ElementTree

from matrix import TEMPLATE

from bench.recording import PICTURE, ROWS, Printed, picture

TEXT = "{http://www.w3.org/2000/svg}text"
RUN = [
    Printed(1, "Installed 71 packages\n"),
    Printed(9, "Starting orders …\n"),
    Printed(30, "An order ───\n\x1b[1;31mprocess\x1b[0m  /home/me/build\n"),
    Printed(31, "Another ───\n" + "line <1>\n" * ROWS),
]


def seconds(svg: str) -> float:
    return float(re.findall(r"animation: ([\d.]+)s", svg)[0])


def test_the_demo_is_shown_from_its_first_line_on() -> None:
    svg = picture(RUN, {"/home/me": "~"})
    shown = [one.text for one in ElementTree.fromstring(svg).iter(TEXT)]
    assert shown[:6] == [
        "$",
        "make demo",
        "Starting orders …",
        "An order ───",
        "process",
        "~/build",
    ]
    assert shown[-1] == "line <1>"
    assert '<text class="red bold" x="0.0"' in svg


def test_waiting_is_shortened_and_scenes_stay() -> None:
    """All 22 s of waiting take a second; the two scenes 5 s and 8 s."""
    assert 13 < seconds(picture(RUN, {})) < 16


def test_what_comes_later_is_hidden_first_and_the_screen_follows() -> None:
    svg = picture(RUN, {})
    assert re.search(r"@keyframes s1 \{ 0% \{ visibility: hidden \} [\d.]+% \{ visibility", svg)
    # Five lines more than fit, 18 pixels each.
    assert svg.count("translateY(-90px)") == 2


def test_the_picture_in_the_readme_is_small_and_names_no_machine() -> None:
    svg = PICTURE.read_text("utf-8")
    assert len(svg) < 200_000
    shown = " ".join(one.text or "" for one in ElementTree.fromstring(svg).iter(TEXT))
    assert "make demo Starting " in shown
    assert "dead letters" in shown
    assert "Done" in shown
    assert str(TEMPLATE) not in svg
    assert str(Path.home()) not in svg
    assert not re.search(r"https?:(?!//www\.w3\.org)", svg), "loads nothing"
