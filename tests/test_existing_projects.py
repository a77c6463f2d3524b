"""docs/existing-projects.rst: a project keeps its users, and takes new ones from Quota."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from django_quota.conf import Settings
from tests.helpers.existing_projects import PAGE, ROOT, InPackage, Project, follow


@pytest.mark.process
@pytest.mark.parametrize("kind", [Project, InPackage])
def test_a_project_with_users_keeps_them_and_takes_new_ones(
    kind: type[Project], sandbox_process: str, tmp_path: Path
) -> None:
    follow(kind(tmp_path), sandbox_process)


def test_the_page_names_settings_that_exist() -> None:
    named = set(re.findall(r"\bQUOTA_[A-Z_]+\b", PAGE))
    assert named <= {f"QUOTA_{field.name.upper()}" for field in fields(Settings)}


def test_the_page_has_the_defaults_of_the_settings_to_choose() -> None:
    rows = re.findall(r"^(QUOTA_\w+) +(True|False) ", PAGE, re.MULTILINE)
    defaults = {f"QUOTA_{field.name.upper()}": str(field.default) for field in fields(Settings)}
    assert len(rows) == 4
    assert all(defaults[name] == shown for name, shown in rows)


def test_the_readme_leads_to_the_page() -> None:
    step_2 = (ROOT / "README.rst").read_text().split("\n2. ")[1].split("\n3. ")[0]
    assert "docs/existing-projects.rst" in step_2
