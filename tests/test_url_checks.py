"""System check E007: another pattern of the project's answers at our URLs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import ERROR, CheckMessage
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import get_script_prefix, include, path, re_path, set_script_prefix
from django.utils import translation
from django.views import View
from pytest_django.fixtures import Settings

from django_quota.checks import check_urls
from django_quota.urls import urlpatterns as our_patterns
from django_quota.web import wallet
from django_quota.web.sign_in import StartView

Project = Callable[..., None]


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("a page of the project's")


OURS = path("auth/quota/", include("django_quota.urls"))
CATCH_ALL = path("<path:where>", page, name="page")


@pytest.fixture
def project(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with these URL patterns."""

    def has(*patterns: Any) -> None:
        module = ModuleType("urls_of_this_test")
        module.urlpatterns = list(patterns)
        monkeypatch.setitem(sys.modules, "urls_of_this_test", module)
        settings.ROOT_URLCONF = "tests.urls"  # has Django forget what it knows of the other
        settings.ROOT_URLCONF = "urls_of_this_test"

    return has


@pytest.fixture
def below(settings: Settings) -> Iterator[None]:
    before = get_script_prefix()
    set_script_prefix("/käse/")
    yield
    set_script_prefix(before)


def only() -> CheckMessage:
    (message,) = check_urls()
    assert (message.id, message.level) == ("django_quota.E007", ERROR)
    return message


class TestCatchAll:
    def test_before_our_urls_is_named_with_the_line_to_move(
        self, project: Project, client: Client
    ) -> None:
        project(CATCH_ALL, OURS)
        assert client.get("/auth/quota/start").content == b"a page of the project's"
        message = only()
        assert message.msg == (
            "/auth/quota/start is one of django_quota's URLs, but the pattern '<path:where>' "
            "(page) comes before them and matches it."
        )
        assert "path('auth/quota/', include('django_quota.urls')) before" in str(message.hint)

    def test_after_our_urls_is_no_error(self, project: Project) -> None:
        project(OURS, CATCH_ALL)
        assert check_urls() == []

    def test_by_a_regular_expression_is_named(self, project: Project) -> None:
        project(re_path(r"^", page), OURS)
        assert f"'^' ({__name__}.page)" in only().msg

    def test_in_an_include_is_named(self, project: Project) -> None:
        project(path("", include(([CATCH_ALL], "cms"))), OURS)
        assert "'<path:where>' (cms:page)" in only().msg

    def test_of_some_urls_only_is_named_with_the_first(self, project: Project) -> None:
        project(re_path(r"^auth/quota/(?:me|status)$", page), OURS)
        assert only().msg.startswith("/auth/quota/me is one")

    def test_two_are_two_errors(self, project: Project) -> None:
        project(path("auth/quota/st<str:rest>", page), CATCH_ALL, OURS)
        assert len(check_urls()) == 2

    def test_is_named_by_manage_py_check(self, project: Project) -> None:
        project(CATCH_ALL, OURS)
        with pytest.raises(SystemCheckError, match=r"django_quota\.E007"):
            call_command("check")


class TestWhereOurUrlsAre:
    @pytest.mark.parametrize("language", ["de", "en", None])
    @pytest.mark.parametrize("is_first", [True, False])
    def test_below_a_language(self, project: Project, is_first: bool, language: str | None) -> None:
        patterns: list[Any] = [CATCH_ALL, OURS] if is_first else [OURS, CATCH_ALL]
        project(*i18n_patterns(*patterns))
        with translation.override(language):
            assert len(check_urls()) == is_first

    def test_a_catch_all_before_the_languages(self, project: Project) -> None:
        project(CATCH_ALL, *i18n_patterns(OURS))
        assert only().msg.startswith("/en")

    @pytest.mark.parametrize("is_first", [True, False])
    def test_below_a_script_prefix(self, project: Project, below: None, is_first: bool) -> None:
        project(*([CATCH_ALL, OURS] if is_first else [OURS, CATCH_ALL]))
        assert len(check_urls()) == is_first

    @pytest.mark.parametrize("is_first", [True, False])
    def test_below_a_prefix_that_is_not_ascii(self, project: Project, is_first: bool) -> None:
        ours = path("/größe/a b/", include("django_quota.urls"))
        project(*([CATCH_ALL, ours] if is_first else [ours, CATCH_ALL]))
        assert len(check_urls()) == is_first

    def test_in_a_namespace_of_the_projects(self, project: Project) -> None:
        ours = include("django_quota.urls", namespace="quota")
        project(path("quota/", ours), CATCH_ALL)
        assert check_urls() == []
        project(CATCH_ALL, path("quota/", ours))
        assert only()

    def test_without_one_of_them_the_others_are_looked_at(self, project: Project) -> None:
        rest = [pattern for pattern in our_patterns if pattern.name != "start"]
        project(CATCH_ALL, path("auth/quota/", include((rest, "django_quota"))))
        assert only().msg.startswith("/auth/quota/callback ")

    def test_below_a_prefix_that_the_project_fills_in_says_nothing(self, project: Project) -> None:
        project(CATCH_ALL, path("<slug:tenant>/quota/", include("django_quota.urls")))
        assert check_urls() == []

    def test_nowhere_says_nothing(self, project: Project) -> None:
        """E005 does."""
        project(CATCH_ALL)
        assert check_urls() == []

    @pytest.mark.parametrize("urls", ["no.such.module", "tests.settings", "", 7])
    def test_in_urls_that_cannot_be_read_does_not_raise(
        self, settings: Settings, urls: Any
    ) -> None:
        settings.ROOT_URLCONF = urls
        assert check_urls() == []


class TestWhatAProjectHasMadeOfThem:
    def test_a_subclass_before_our_urls_is_no_error(self, project: Project) -> None:
        class Own(StartView):
            pass

        project(path("auth/quota/start", Own.as_view()), OURS)
        assert check_urls() == []

    def test_view_that_replaces_one_of_ours_at_its_very_path_is_no_error(
        self, project: Project
    ) -> None:
        class Other(View):
            pass

        project(path("auth/quota/start", Other.as_view()), OURS)
        assert check_urls() == []

    @pytest.mark.parametrize("view", [wallet.balance, our_patterns[0].callback])
    def test_a_decorated_view_is_no_error(self, project: Project, view: Any) -> None:
        @wraps(view)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            return view(*args, **kwargs)

        name = "balance" if view is wallet.balance else "start"
        project(path(f"auth/quota/{name}", decorated), OURS)
        assert check_urls() == []

    def test_a_url_of_our_name_in_our_namespace_is_no_error(self, project: Project) -> None:
        own = ([path("me", page, name="me"), *our_patterns], "django_quota")
        project(path("auth/quota/", include(own)))
        assert check_urls() == []
