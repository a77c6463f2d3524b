"""What pyproject.toml says is what the environments of tox.ini test."""

import re
import tomllib
from configparser import RawConfigParser
from pathlib import Path

from django_quota.ai.sdk_http import SUPPORTED

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Pythons named in the classifiers: "3.11" and so on.
PYTHONS = [
    line.rpartition(" ")[2]
    for line in PROJECT["classifiers"]
    if line.startswith("Programming Language :: Python :: 3.")
]


def lower_bounds() -> dict[str, str]:
    """The oldest release of each dependency at run time, of the package and its extras."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    found = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in lines]
    assert None not in found, lines
    return {match[1]: match[2] for match in found if match is not None}


def test_oldest_environment_has_each_lower_bound() -> None:
    text = (ROOT / "tests/oldest.txt").read_text()
    pins = re.findall(r"^([\w-]+)==([\d.]+)(?!.*python_version >=)", text, re.MULTILINE)
    assert dict(pins) == lower_bounds()


def test_extra_has_the_releases_of_the_sdk_that_the_code_accepts() -> None:
    assert PROJECT["optional-dependencies"]["ai"] == [f"openai{SUPPORTED}"]


def test_tox_begins_with_the_python_that_runs_it_and_skips_none() -> None:
    tox = RawConfigParser()
    tox.read(ROOT / "tox.ini")
    assert tox["tox"]["env_list"].split()[0] == "py-sqlite"
    assert tox["tox"]["skip_missing_interpreters"] == "false"


def test_matrix_has_each_supported_python() -> None:
    pairs = (ROOT / "tox.ini").read_text().split("\npairs = ")[1].split("\n\n")[0]
    assert {f"3.{minor}" for minor in re.findall(r"py3(\d+)-", pairs)} == set(PYTHONS)


def test_readme_and_security_name_the_newest_supported_python() -> None:
    newest = max(PYTHONS, key=lambda version: int(version.partition(".")[2]))
    for file in ("README.rst", "SECURITY.md"):
        assert f"Python 3.11 to {newest}" in (ROOT / file).read_text(), file
