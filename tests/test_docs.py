"""What README and docs say is what the code does."""

import ast
import importlib
import inspect
import re
import tomllib
from dataclasses import Field, fields
from io import StringIO
from pathlib import Path
from textwrap import indent
from typing import Any

import docutils.core
import pytest

from django_quota.conf import REQUIRED, Settings
from django_quota.models import REVOCATION_PERIOD
from django_quota.templatetags import quota
from django_quota.templatetags.quota import register
from django_quota.tokens import bulk, leases, revocation
from django_quota.urls import urlpatterns
from django_quota.web import webhook_delivery
from django_quota.web.current import CurrentQuota
from django_quota.web.error_texts import SIGN_IN_ERRORS, VIEW_ERRORS
from tests.helpers.sources import parsed

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.rst").read_text()
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
SETTINGS = (ROOT / "docs/settings.rst").read_text()
TEMPLATES = (ROOT / "docs/templates.rst").read_text()
ALL = README + "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.rst")))


def table_row(name: str) -> str:
    """The row of the settings table, its continuation lines joined."""
    found = re.search(rf"^{name} +(.*(?:\n {{20,}}.*)*)", SETTINGS, re.MULTILINE)
    assert found is not None, f"{name} is not in docs/settings.rst"
    return re.sub(r"\s+", " ", found[1])


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_each_setting_is_listed_with_its_default(field: "Field[Any]") -> None:
    name = f"QUOTA_{field.name.upper()}"
    default = field.default
    if name in REQUIRED:
        shown = "required"
    elif isinstance(default, tuple) and default and isinstance(default[0], str):
        shown = default[0]
    elif isinstance(default, tuple):
        shown = f"({default[0]}, {default[1]:g})" if default else "None"
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    assert table_row(name).startswith(shown), (shown, table_row(name))


def test_no_setting_is_listed_that_is_none() -> None:
    listed = set(re.findall(r"^(QUOTA_[A-Z_]+) ", SETTINGS, re.MULTILINE))
    assert listed == {f"QUOTA_{field.name.upper()}" for field in fields(Settings)}


@pytest.mark.parametrize("name", [str(pattern.name) for pattern in urlpatterns])
def test_each_url_is_listed(name: str) -> None:
    assert re.search(rf"^(``\w+`` )?``{name}`` ", SETTINGS, re.MULTILINE), name


def test_codes_in_the_troubleshooting_table_exist() -> None:
    section = (ROOT / "docs/troubleshooting.rst").read_text()
    codes = set(re.findall(r"^``(\w+)`` ", section, re.MULTILINE))
    assert codes - {"invalid_redirect_uri"} <= set(SIGN_IN_ERRORS)  # that one is Quota's own


def test_the_page_of_error_codes_has_them_all() -> None:
    page = (ROOT / "docs/errors.rst").read_text()
    table = page.split("The codes\n")[1].split("In the middle of a view")[0]
    listed = re.findall(r"^``(\w+)`` ", table, re.MULTILINE)
    assert listed == list(SIGN_IN_ERRORS)


def test_the_page_of_error_codes_says_how_each_state_is_answered() -> None:
    table = (ROOT / "docs/errors.rst").read_text().split("In the middle of a view")[1]
    listed = re.findall(r"^``(\w+)``", table, re.MULTILINE)
    assert set(VIEW_ERRORS) <= set(listed) <= {*VIEW_ERRORS, *SIGN_IN_ERRORS}


@pytest.mark.parametrize("tag", register.tags)
def test_each_tag_is_listed_with_its_arguments(tag: str) -> None:
    parameters = inspect.signature(getattr(quota, tag)).parameters
    given = [name for name in parameters if name != "context"]
    assert re.search(rf"^``{{% {' '.join([tag, *given])} %}}`` ", TEMPLATES, re.MULTILINE), given


def test_what_request_quota_has_is_listed() -> None:
    section = TEMPLATES.split("\nrequest.quota\n====")[1]
    names = [name for name in vars(CurrentQuota) if not name.startswith("_")]
    assert {"balance", "aconnected"} <= set(names), "the search finds nothing any more"
    assert [name for name in names if not re.search(rf"``{name}(\(\))?``", section)] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"manage\.py (quota_\w+)", ALL))))
def test_each_command_exists(command: str) -> None:
    from django.core.management import get_commands

    assert get_commands()[command] == "django_quota"


def cited_tests() -> list[str]:
    """`test_x.py::Class::test`, as the security pages name them."""
    text = (ROOT / "docs/security/threat-model.rst").read_text() + (
        ROOT / "SECURITY.md"
    ).read_text()
    return sorted(set(re.findall(r"`((?:tests/)?(?:\w+/)?test_\w+\.py(?:::\w+)*)`", text)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_valid_restructured_text(page: Path) -> None:
    warnings = StringIO()
    docutils.core.publish_doctree(
        page.read_text(),
        source_path=str(page),
        # Highlighting a code block needs Pygments.
        settings_overrides={"warning_stream": warnings, "syntax_highlight": "none"},
    )
    assert warnings.getvalue() == ""


@pytest.mark.parametrize("cited", cited_tests())
def test_each_test_that_the_security_pages_cite_exists(cited: str) -> None:
    file, *names = cited.removeprefix("tests/").split("::")
    body: list[ast.stmt] = parsed(ROOT / "tests" / file).body
    for name in names:
        (found,) = [node for node in body if getattr(node, "name", "") == name]
        body = getattr(found, "body", [])


def test_the_security_pages_cite_tests() -> None:
    assert len(cited_tests()) > 60


def test_the_page_about_background_work_has_its_commands_and_their_exit_codes() -> None:
    page = (ROOT / "docs/background-work.rst").read_text()
    for command in ("quota_prune", "quota_refresh_tokens", "quota_reencrypt_tokens"):
        assert re.search(rf"^``{command}`` ", page, re.MULTILINE)
        assert re.search(rf"^{command} ", page, re.MULTILINE)
    for module, name in re.findall(r"``django_quota\.([\w.]+)\.(\w+)\(\)``", page):
        assert callable(getattr(importlib.import_module(f"django_quota.{module}"), name))


def test_the_page_about_background_work_has_the_numbers_of_the_code() -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs/background-work.rst").read_text())
    assert REVOCATION_PERIOD.days == 30 and "for 30 days" in page
    assert revocation.EVENT_PERIOD.days == 30 and "that came 30 days ago" in page
    assert webhook_delivery.MAX_AGE.days == 3 and "is accepted (three days)" in page
    assert bulk.OUTAGE == 5 and "Five failures in a row" in page
    assert bulk.LONGEST_PAUSE == 60 and "of more than a minute" in page
    assert leases.MARGIN == 5 and "5 seconds after ``QUOTA_DEADLINE``" in page


def test_the_index_lists_each_page() -> None:
    index = (ROOT / "docs/index.rst").read_text()
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.rst")}
    listed = {name for name in pages if f"``{name}``" in index}
    assert pages - listed == {"index.rst", "security/evidence.rst"}


@pytest.mark.parametrize("cited", sorted(set(re.findall(r"``(docs/[\w/-]+\.rst)``", ALL))))
def test_each_page_that_is_cited_exists(cited: str) -> None:
    assert (ROOT / cited).exists()


RECIPES = sorted((ROOT / "tests/frameworks/recipes").glob("[a-z]*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_page_about_frameworks_shows_each_tested_recipe(recipe: Path) -> None:
    page = (ROOT / "docs/frameworks.rst").read_text()
    shown = indent(recipe.read_text(), "   ")
    assert f".. code-block:: python\n\n{shown}" in page


def test_the_page_about_frameworks_shows_no_other_code() -> None:
    page = (ROOT / "docs/frameworks.rst").read_text()
    assert page.count("code-block::") == len(RECIPES) == 12


def test_the_page_about_frameworks_names_the_releases_that_are_tested() -> None:
    page = (ROOT / "docs/frameworks.rst").read_text()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for group in ("frameworks", "frameworks-openai2"):
        for pin in groups[group]:
            package, release = pin.split("==")
            row = rf"^.+ ``{re.escape(package)}`` +{re.escape(release)} .* ``{group}``$"
            assert re.search(row, page, re.MULTILINE), pin


def test_the_readme_is_short() -> None:
    """A newcomer reads all of it; the rest is in docs."""
    assert len(README.splitlines()) <= 160


LOGGERS = {"django_quota.answers", "django_quota.sign_in"}
NAMED = sorted(set(re.findall(r"``(django_quota(?:\.\w+)+)(?:\(.*?\))?``", ALL)) - LOGGERS)


@pytest.mark.parametrize("name", [name for name in NAMED if not re.search(r"\.[EW]\d", name)])
def test_each_dotted_name_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = importlib.import_module(module)

    assert hasattr(found, attribute) or importlib.import_module(name)
