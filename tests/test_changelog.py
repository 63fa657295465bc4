"""CHANGELOG.md has the right form, and agrees with the template's version."""

import json
import re
from datetime import date

from matrix import TEMPLATE

TEXT = (TEMPLATE / "CHANGELOG.md").read_text("utf-8")
VERSION = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))["_template_version"]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)")

Version = tuple[int, ...]

HEADINGS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
SECTIONS = dict(zip(HEADINGS, re.split(r"^## .*\n", TEXT, flags=re.MULTILINE)[1:], strict=True))


def releases() -> list[tuple[Version, date]]:
    """Every release, the newest first."""
    found = [RELEASE.fullmatch(heading) for heading in HEADINGS[1:]]
    assert all(found), HEADINGS
    return [
        (tuple(map(int, match.groups()[:3])), date.fromisoformat(match[4]))
        for match in found
        if match
    ]


def test_unreleased_changes_come_first() -> None:
    assert TEXT.startswith("# Changelog\n")
    assert HEADINGS[0] == "[Unreleased]"


def test_releases_go_from_new_to_old() -> None:
    versions, dates = zip(*releases(), strict=True)
    assert list(versions) == sorted(set(versions), reverse=True)
    assert list(dates) == sorted(dates, reverse=True)


def test_changes_are_sorted_by_kind() -> None:
    for heading, section in SECTIONS.items():
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert set(kinds) <= KINDS, heading
        assert len(kinds) == len(set(kinds)), heading
        assert kinds or heading == "[Unreleased]"
        for changes in re.split(r"^### .*\n", section, flags=re.MULTILINE)[1:]:
            lines = [line for line in changes.splitlines() if line]
            assert lines[0].startswith(("- ", "#### ")), heading
            assert all(line.startswith(("- ", "  ", "#### ")) for line in lines), heading


def test_the_version_is_that_of_the_newest_release_or_of_the_one_to_come() -> None:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(\.dev0)?", VERSION)
    assert match, f"{VERSION} is no version such as 0.2.0, or 0.2.0.dev0 before its release"
    version = tuple(map(int, match.groups()[:3]))
    newest, _ = releases()[0]
    if SECTIONS["[Unreleased]"].strip():
        assert match[4], f"{VERSION} is released already, and there are changes since"
        assert version > newest
    else:
        assert not match[4], "nothing has changed since the newest release"
        assert version == newest
