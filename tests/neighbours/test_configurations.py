"""django-configurations: settings in classes, as docs/existing-projects.rst says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.helpers.existing_projects import OWN_SETTINGS, Project, block, follow

pytest.importorskip("configurations")
pytestmark = pytest.mark.neighbour


class InClasses(Project):
    """Settings in classes of django-configurations."""

    def write_settings(self) -> None:
        flat = self.read("mysite/settings.py") + OWN_SETTINGS
        # It does not start with them: findings/django_configurations_mailers.sh.
        flat = re.sub(r"\nMAILERS = \{.*?\n\}\n", "\n", flat, flags=re.DOTALL)
        head, body = flat.split("# SECURITY WARNING: keep the secret", 1)
        self.write(
            "mysite/settings.py",
            f"{head}from configurations import Configuration, values\n\n\n"
            f"class Base(Configuration):\n{textwrap.indent('# ' + body, '    ')}\n\n"
            "class Dev(Base):\n    DEBUG = True\n",
        )
        for name in ("manage.py", "mysite/wsgi.py"):
            text = self.read(name)
            text = text.replace("django.core.management", "configurations.management")
            text = text.replace("django.core.wsgi", "configurations.wsgi")
            self.write(name, text)

    def add_quota(self) -> None:
        self.write(".env", "")
        code = block("settings.py, with classes")
        text = self.read("mysite/settings.py")
        dotenv = next(line for line in code.split("\n") if "DOTENV =" in line)
        text = text.replace(
            "class Base(Configuration):\n", f"class Base(Configuration):\n{dotenv}\n"
        )
        for name, last in (
            ("INSTALLED_APPS", '"django_quota",'),
            ("MIDDLEWARE", '"django_quota.middleware.QuotaMiddleware",'),
        ):
            assert last in code
            text = re.sub(rf"(    {name} = \[\n(?:        .*\n)+)", rf"\1        {last}\n", text)
        rest = code[code.index("    AUTHENTICATION_BACKENDS") :]
        self.write("mysite/settings.py", text.replace("\n\nclass Dev", f"\n{rest}\n\nclass Dev"))


def test_a_project_with_users_keeps_them_and_takes_new_ones(
    sandbox_process: str, tmp_path: Path
) -> None:
    follow(InClasses(tmp_path), sandbox_process)


def test_with_classes_lines_at_the_end_of_the_module_are_lost(tmp_path: Path) -> None:
    project = InClasses(tmp_path)
    project.add("mysite/settings.py", 'AUTHENTICATION_BACKENDS = ["lost"]\nLOGIN_URL = "/lost"\n')
    said = project.manage("diffsettings", "--all")
    assert "lost" not in said
    assert "AUTHENTICATION_BACKENDS" in said


def test_with_classes_the_environment_is_read_before_the_env_file(tmp_path: Path) -> None:
    project = InClasses(tmp_path)
    project.add_quota()
    project.write(".env", "QUOTA_CLIENT_ID=from-the-file\n")
    text = project.read("mysite/settings.py")
    asks = 'os.environ.get("QUOTA_CLIENT_ID", "")'
    assert "'from-the-file'" in project.manage("diffsettings", "--all")
    ours = 'values.Value("", environ_prefix=None)'
    text = "import os\n" + text.replace(f"QUOTA_CLIENT_ID = {ours}", f"QUOTA_CLIENT_ID = {asks}")
    project.write("mysite/settings.py", text)
    assert "'from-the-file'" not in project.manage("diffsettings", "--all")
