"""The admin: who is connected and in what state; never a secret."""

from typing import Any

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota.admin import grants
from django_quota.models import (
    CreditGrant,
    PendingRevocation,
    ProviderAccount,
    QuotaToken,
    UsageRecord,
    WebhookEvent,
)
from django_quota.oidc import endpoints
from django_quota.tokens import reencryption
from tests.browser import Chromium, live_site, shot
from tests.sandbox_client import Person, Sandbox
from tests.shown import SECRET

pytestmark = pytest.mark.django_db(transaction=True)

TOKENS = "/admin/django_quota/quotatoken/"
ACCOUNTS = "/admin/django_quota/provideraccount/"
USAGE = "/admin/django_quota/usagerecord/"
EVENTS = "/admin/django_quota/webhookevent/"
GRANTS = "/admin/django_quota/creditgrant/"


@pytest.fixture
def admin() -> Client:
    root = get_user_model().objects.create_superuser("root", "root@example.com", "x")
    client = Client(SERVER_NAME="localhost")
    client.force_login(root, "django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def token(person: Person) -> QuotaToken:
    person.sign_in()
    return QuotaToken.objects.get()


def rows(count: int) -> None:
    for n in range(count):
        user = get_user_model().objects.create(username=f"user-{n}")
        account = ProviderAccount.objects.create(user=user, external_id=f"sub-{n}")
        QuotaToken.objects.create(account=account, access_token="quota_token_x")
        note(user)


def note(user: Any) -> None:
    """What else there is to look at of a user."""
    UsageRecord.objects.create(user=user, call_id="chatcmpl-1", credits_used=1_200)
    CreditGrant.objects.create(user=user, idempotency_key=f"k{user.pk}", credits=1_200)
    WebhookEvent.objects.create(
        event_id=f"evt_{user.pk}", user=user, type="x", body="{}", created_at=timezone.now()
    )


def act(admin: Client, action: str) -> Any:
    data = {"action": action, "_selected_action": [t.pk for t in QuotaToken.objects.all()]}
    return admin.post(TOKENS, data, follow=True)


@pytest.mark.parametrize("url", [TOKENS, ACCOUNTS, USAGE, EVENTS, GRANTS])
class TestLists:
    def test_no_more_queries_for_more_rows(
        self, admin: Client, url: str, django_assert_max_num_queries: Any
    ) -> None:
        rows(2)
        with CaptureQueriesContext(connection) as few:
            assert admin.get(url).status_code == 200
        for n in range(2, 30):
            user = get_user_model().objects.create(username=f"user-{n}")
            account = ProviderAccount.objects.create(user=user, external_id=f"sub-{n}")
            QuotaToken.objects.create(account=account)
            note(user)
        with CaptureQueriesContext(connection) as many:
            assert admin.get(url).status_code == 200
        assert len(many) == len(few)

    def test_search_and_filters(self, admin: Client, url: str) -> None:
        rows(3)
        for needle in ("sub-1", "user-1") if url in (TOKENS, ACCOUNTS) else ("user-1",):
            page = admin.get(url, {"q": needle})
            assert page.context["cl"].result_count == 1
        chosen = {
            TOKENS: {"status__exact": "reauthentication_required"},
            ACCOUNTS: {"token__status__exact": "reauthentication_required"},
            USAGE: {"complete__exact": "0"},
            EVENTS: {"type": "y"},
            GRANTS: {"granted_at__isempty": "0"},
        }[url]
        page = admin.get(url, chosen)
        assert page.context["cl"].result_count == 0

    def test_stands_with_an_unreadable_token(self, admin: Client, url: str, settings: Any) -> None:
        rows(2)
        settings.FIELD_ENCRYPTION_KEY = "Zm9yIGEgdGVzdCBvbmx5LCBhbmQgMzIgYnl0ZXMhISE="
        assert admin.get(url).status_code == 200

    def test_a_long_username_is_cut(self, admin: Client, url: str) -> None:
        user = get_user_model().objects.create(username=f"quota-{'0' * 36}")
        account = ProviderAccount.objects.create(user=user, external_id="sub-1")
        QuotaToken.objects.create(account=account)
        note(user)
        page = admin.get(url).content.decode()
        assert "quota-0000000000000…" in page
        assert user.username not in page

    def test_needs_the_permission(self, url: str, client: Client) -> None:
        staff = get_user_model().objects.create_user("staff", is_staff=True)
        client.force_login(staff, "django.contrib.auth.backends.ModelBackend")
        assert client.get(url).status_code == 403


class TestPages:
    def test_hold_no_secret(self, admin: Client, token: QuotaToken) -> None:
        for url in (
            TOKENS,
            ACCOUNTS,
            f"{TOKENS}{token.pk}/change/",
            f"{ACCOUNTS}{token.account_id}/change/",
            f"{ACCOUNTS}{token.account_id}/delete/",
            f"{ACCOUNTS}{token.account_id}/history/",
        ):
            page = admin.get(url)
            assert page.status_code == 200, url
            text = page.content.decode()
            assert not SECRET.search(text), url
            for ours in ("gAAAA", "lease"):
                assert ours not in text, (url, ours)

    def test_who_is_who_is_for_superusers_to_say(self, token: QuotaToken, client: Client) -> None:
        """Whoever may write it could sign in as any user."""
        staff = get_user_model().objects.create_user("staff", is_staff=True)
        staff.user_permissions.set(Permission.objects.filter(content_type__model="provideraccount"))
        client.force_login(staff, "django.contrib.auth.backends.ModelBackend")
        url = f"{ACCOUNTS}{token.account_id}/change/"
        assert client.get(url).status_code == 200
        root = get_user_model().objects.create_superuser("root2", "root@example.com", "x")
        client.post(url, {"user": root.pk, "external_id": "x", "provider": "quota"})
        account = ProviderAccount.objects.get()
        assert account.user != root and account.external_id != "x"
        assert client.get(f"{ACCOUNTS}add/").status_code == 403

    def test_the_account_shows_its_token(self, admin: Client, token: QuotaToken) -> None:
        page = admin.get(f"{ACCOUNTS}{token.account_id}/change/").content.decode()
        assert "credits.spend" in page
        assert "active" in page

    @pytest.mark.parametrize("page", ["token", "account"])
    def test_says_what_cannot_be_read(self, admin: Client, token: QuotaToken, page: str) -> None:
        url = f"{TOKENS}{token.pk}" if page == "token" else f"{ACCOUNTS}{token.account_id}"
        assert "cannot be decrypted" not in admin.get(f"{url}/change/").content.decode()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_quota_quotatoken SET refresh_token = 'spoilt'")
        text = admin.get(f"{url}/change/").content.decode()
        assert "no: refresh_token cannot be decrypted with any key of FIELD_ENCRYPTION_KEY" in text
        assert "spoilt" not in text

    def test_stands_with_a_malformed_key(
        self, admin: Client, token: QuotaToken, settings: Any
    ) -> None:
        settings.FIELD_ENCRYPTION_KEY = "hush"
        page = admin.get(f"{TOKENS}{token.pk}/change/")
        assert page.status_code == 200
        text = page.content.decode()
        assert "not a Fernet key" in text and "hush" not in text

    def test_lists_decrypt_nothing(
        self, admin: Client, token: QuotaToken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(reencryption, "unreadable_columns")
        assert admin.get(TOKENS).status_code == admin.get(ACCOUNTS).status_code == 200

    def test_a_token_cannot_be_added_or_edited(self, admin: Client, token: QuotaToken) -> None:
        assert admin.get(f"{TOKENS}add/").status_code == 403
        admin.post(f"{TOKENS}{token.pk}/change/", {"access_token": "x", "scope": "y"})
        token.refresh_from_db()
        assert token.scope != "y"

    def test_saving_the_page_of_a_token_writes_nothing(
        self, admin: Client, token: QuotaToken
    ) -> None:
        """A renewal may have replaced the tokens since the page's row was read."""
        with CaptureQueriesContext(connection) as queries:
            assert admin.post(f"{TOKENS}{token.pk}/change/", {}).status_code == 302
        written = [q["sql"] for q in queries if q["sql"].startswith("UPDATE")]
        assert not any("django_quota_quotatoken" in sql for sql in written)


class TestReadOnly:
    @pytest.mark.parametrize("model", [UsageRecord, WebhookEvent, CreditGrant])
    def test_is_to_look_at(self, admin: Client, model: Any) -> None:
        note(get_user_model().objects.create(username="ada"))
        url = f"/admin/django_quota/{model._meta.model_name}/"
        page = admin.get(f"{url}{model.objects.get().pk}/change/").content.decode()
        assert "ada" in page
        for name in ("body", "credits_used", "credits"):
            assert f'name="{name}"' not in page
        assert admin.get(f"{url}add/").status_code == 403

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            ('{"data": {"note": "<b>"}}', "&quot;note&quot;: &quot;&lt;b&gt;&quot;"),
            (r'{"data": "\ud800\u0000"}', r"\ud800\u0000"),
            ('{"data": ' + "[" * 900 + "]" * 900 + "}", "&quot;data&quot;: ["),
            ('{"data": ' + "[" * 3000 + "]" * 3000 + "}", "{&quot;data&quot;: [[["),
        ],
    )
    def test_what_an_event_says_is_laid_out(self, admin: Client, body: str, shown: str) -> None:
        note(get_user_model().objects.create(username="ada"))
        WebhookEvent.objects.update(body=body)
        page = admin.get(f"{EVENTS}{WebhookEvent.objects.get().pk}/change/")
        assert shown in page.content.decode()

    def test_a_list_does_not_read_what_events_say(self, admin: Client) -> None:
        note(get_user_model().objects.create(username="ada"))
        with CaptureQueriesContext(connection) as asked:
            assert "evt_" in admin.get(EVENTS).content.decode()
        assert not [query for query in asked if "body" in query["sql"]]

    @pytest.mark.parametrize("url", [USAGE, GRANTS])
    def test_an_amount_is_shown_in_dollars(self, admin: Client, url: str) -> None:
        note(get_user_model().objects.create(username="ada"))
        assert "$0.0012" in admin.get(url).content.decode()

    def test_a_grant_cannot_be_deleted(self, admin: Client) -> None:
        """Its key would credit a second time."""
        note(get_user_model().objects.create(username="ada"))
        grant = CreditGrant.objects.get()
        assert admin.post(f"{GRANTS}{grant.pk}/delete/", {"post": "yes"}).status_code == 403
        assert "delete_selected" not in admin.get(GRANTS).content.decode()


class TestUsage:
    def test_purpose_is_shown_and_filters(self, admin: Client) -> None:
        ada = get_user_model().objects.create(username="ada")
        UsageRecord.objects.create(user=ada, call_id="1", purpose="summary")
        UsageRecord.objects.create(user=ada, call_id="2", purpose="title")
        page = admin.get(USAGE, {"purpose": "summary"})
        assert [row.call_id for row in page.context["cl"].result_list] == ["1"]
        assert '<td class="field-purpose">summary</td>' in page.content.decode()

    @pytest.mark.parametrize("needle", ["reports.report 42", "reports.report", "req_1"])
    def test_object_and_request_are_found(self, admin: Client, needle: str) -> None:
        ada = get_user_model().objects.create(username="ada")
        UsageRecord.objects.create(
            user=ada,
            call_id="1",
            object_type="reports.report",
            object_id="42",
            request_id="req_1",
        )
        UsageRecord.objects.create(user=ada, call_id="2", object_type="shop.order", object_id="42")
        UsageRecord.objects.create(user=ada, call_id="3", object_id="142", request_id="req_12")
        page = admin.get(USAGE, {"q": needle})
        assert [row.call_id for row in page.context["cl"].result_list] == ["1"]
        assert '<td class="field-about">reports.report 42</td>' in page.content.decode()


class TestActions:
    def test_refresh(self, admin: Client, token: QuotaToken, sandbox: Sandbox) -> None:
        sandbox.forget_requests()
        page = act(admin, "refresh_tokens")
        assert "1 token refreshed" in page.content.decode()
        assert sandbox.requests() == ["POST /oauth/token"]
        assert QuotaToken.objects.get().version == token.version + 1

    def test_a_failed_refresh_says_what_to_do(
        self, admin: Client, token: QuotaToken, sandbox: Sandbox
    ) -> None:
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 1})
        assert "HTTP 503" in act(admin, "refresh_tokens").content.decode()
        assert QuotaToken.objects.get().last_failure == "provider_unavailable"

    def test_revoke(self, admin: Client, token: QuotaToken, sandbox: Sandbox) -> None:
        sandbox.forget_requests()
        assert "1 token revoked" in act(admin, "revoke_tokens").content.decode()
        assert not QuotaToken.objects.exists()
        assert not PendingRevocation.objects.exists()
        assert sandbox.requests() == ["POST /oauth/revoke"]

    def test_revoke_asks_quota_after_the_commit_under_atomic_requests(
        self, admin: Client, token: QuotaToken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bool] = []
        monkeypatch.setattr(
            endpoints, "revoke", lambda token, hint: asked.append(connection.in_atomic_block)
        )
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        assert "1 token revoked" in act(admin, "revoke_tokens").content.decode()
        assert asked == [False]

    def test_require_sign_in(self, admin: Client, token: QuotaToken) -> None:
        assert "1 user must sign in again" in act(admin, "require_sign_in").content.decode()
        assert QuotaToken.objects.get().needs_sign_in

    def test_need_their_permissions(self, token: QuotaToken, client: Client) -> None:
        staff = get_user_model().objects.create_user("staff", is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename="view_quotatoken"))
        client.force_login(staff, "django.contrib.auth.backends.ModelBackend")
        for action in ("refresh_tokens", "revoke_tokens", "require_sign_in"):
            act(client, action)
        token.refresh_from_db()
        assert not token.needs_sign_in and token.version == 1

    def test_deleting_an_account_queues_the_revocation(
        self, admin: Client, token: QuotaToken
    ) -> None:
        admin.post(f"{ACCOUNTS}{token.account_id}/delete/", {"post": "yes"})
        assert not ProviderAccount.objects.exists()
        assert PendingRevocation.objects.count() == 1

    def test_times_are_shown(self, admin: Client, token: QuotaToken) -> None:
        page = admin.get(TOKENS).content.decode()
        assert str(timezone.localtime(token.expires_at).year) in page


@pytest.fixture
def wallets(sandbox: Sandbox, settings: Any) -> list[Person]:
    """Two people with a dollar each, users of this site, and a developer with a dollar to give."""
    _email, session = sandbox.new_developer()
    settings.QUOTA_API_KEY = sandbox.api_key(session)
    people = [sandbox.person(), sandbox.person()]
    for n, person in enumerate(people):
        user = get_user_model().objects.create(username=f"person-{n}")
        ProviderAccount.objects.create(user=user, external_id=sandbox.sub_of(person.email))
    return people


class Granting:
    """A member of staff who grants credits to all users."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def send(self, **fields: Any) -> Any:
        chosen = list(ProviderAccount.objects.values_list("pk", flat=True))
        data = {"action": "grant_credits", "_selected_action": chosen, **fields}
        return self.client.post(ACCOUNTS, data, follow=True)

    def fields_of(self, page: Any) -> dict[str, str]:
        """What the form on the page sends again."""
        soup = BeautifulSoup(page.content.decode(), "html.parser")
        inputs = soup.select("#content form input[name]")
        fields = {str(field["name"]): str(field.get("value", "")) for field in inputs}
        return {name: fields[name] for name in fields if not name.startswith(("_", "csrf"))}

    def confirm_page(self, dollars: str = "0.25", reason: str = "refund") -> Any:
        return self.send(**self.fields_of(self.send()) | {"dollars": dollars, "reason": reason})

    def grant(self, **fields: str) -> Any:
        return self.send(**self.fields_of(self.confirm_page(**fields)))


class TestGrantCredits:
    def test_amount_is_confirmed_and_granted_to_each(
        self, admin: Client, wallets: list[Person], sandbox: Sandbox
    ) -> None:
        staff = Granting(admin)
        form = staff.send().content.decode()
        assert "person-0" in form and "person-1" in form
        page = staff.confirm_page()
        text = page.content.decode()
        for shown in ("$0.25", "250,000 credits", "2 users", "$0.50 in total", "refund"):
            assert shown in text, shown
        assert not CreditGrant.objects.exists()

        done = staff.send(**staff.fields_of(page))

        assert "$0.25 granted to each of 2 users." in done.content.decode()
        assert [sandbox.balance_of(p.email) for p in wallets] == [1_250_000] * 2
        for row in CreditGrant.objects.all():
            assert (row.credits, row.reason, row.granted_by) == (250_000, "refund", "root")
        assert "once more" not in done.content.decode()

    def test_amount_to_confirm_is_not_rounded(self, admin: Client, wallets: list[Person]) -> None:
        text = Granting(admin).confirm_page(dollars="1.000001").content.decode()
        assert "$1.000001 (1,000,001 credits)" in text and "$2.000002 in total" in text

    def test_form_that_is_sent_twice_grants_once(
        self, admin: Client, wallets: list[Person], sandbox: Sandbox
    ) -> None:
        """A double click, a reload, and the way back to the form."""
        staff = Granting(admin)
        fields = staff.fields_of(staff.confirm_page())
        for _ in range(2):
            assert "$0.25 granted" in staff.send(**fields).content.decode()
        assert "belongs to a grant of" in staff.send(**fields | {"dollars": "0.3"}).content.decode()
        assert [sandbox.balance_of(p.email) for p in wallets] == [1_250_000] * 2

    def test_form_that_is_opened_twice_grants_twice(
        self, admin: Client, wallets: list[Person], sandbox: Sandbox
    ) -> None:
        for _ in range(2):
            Granting(admin).grant()
        assert [sandbox.balance_of(p.email) for p in wallets] == [1_500_000] * 2

    def test_error_is_shown_with_its_user_and_the_others_go_on(
        self, admin: Client, wallets: list[Person], sandbox: Sandbox
    ) -> None:
        ProviderAccount.objects.filter(user__username="person-0").update(external_id="Stranger")
        text = Granting(admin).grant().content.decode()
        assert "Grant to person-0 (Stranger): Quota does not know this user" in text
        assert "send this form once more" in text
        left = BeautifulSoup(text, "html.parser").select("#content li")
        assert [item.text for item in left] == ["person-0 (Stranger)"]
        assert "$0.25 granted to 1 user." in text
        assert sandbox.balance_of(wallets[1].email) == 1_250_000

    def test_lost_answer_is_repeated_by_sending_the_form_again(
        self, admin: Client, wallets: list[Person], sandbox: Sandbox
    ) -> None:
        staff = Granting(admin)
        fields = staff.fields_of(staff.confirm_page())
        sandbox.set(fail={"path": "/v1/funding/oauth_user", "status": 504, "after": True})
        again = staff.send(**fields)
        assert "It is unknown whether" in again.content.decode()
        staff.send(**staff.fields_of(again))
        assert [sandbox.balance_of(p.email) for p in wallets] == [1_250_000] * 2

    def test_missing_api_key_is_an_error_message(
        self, admin: Client, wallets: list[Person], settings: Any
    ) -> None:
        settings.QUOTA_API_KEY = None
        assert "QUOTA_API_KEY is missing" in Granting(admin).grant().content.decode()

    @pytest.mark.parametrize("dollars", ["", "0", "-1", "x", "0.0000001", "NaN", "1000001"])
    def test_malformed_amount_is_asked_for_again(
        self, admin: Client, wallets: list[Person], dollars: str
    ) -> None:
        staff = Granting(admin)
        page = staff.confirm_page(dollars=dollars)
        assert "errorlist" in page.content.decode()
        staff.send(**staff.fields_of(page) | {"dollars": dollars, "confirmed": "yes"})
        assert not CreditGrant.objects.exists()

    @pytest.mark.parametrize("change", [{"reason": "a\u200bb"}, {"key": "mine"}])
    def test_malformed_form_grants_nothing(
        self, admin: Client, wallets: list[Person], change: dict[str, str]
    ) -> None:
        staff = Granting(admin)
        staff.send(**staff.fields_of(staff.confirm_page()) | change)
        assert not CreditGrant.objects.exists()

    def test_too_many_accounts_at_once(
        self, admin: Client, wallets: list[Person], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(grants, "MAX_ACCOUNTS", 1)
        assert "at most 1 accounts" in Granting(admin).send().content.decode()

    def test_needs_its_permission(self, client: Client, wallets: list[Person]) -> None:
        staff = get_user_model().objects.create_user("staff", is_staff=True)
        for name in ("change_provideraccount", "view_creditgrant", "change_creditgrant"):
            staff.user_permissions.add(Permission.objects.get(codename=name))
        client.force_login(staff, "django.contrib.auth.backends.ModelBackend")
        key = "0" * 32
        fields = {"dollars": "1", "reason": "x", "key": key, "confirmed": "yes"}
        Granting(client).send(**fields)
        assert not CreditGrant.objects.exists()
        assert "grant_credits" not in client.get(ACCOUNTS).content.decode()

        staff.user_permissions.add(Permission.objects.get(codename="add_creditgrant"))
        Granting(client).send(**fields | {"dollars": "0.1"})
        assert {row.granted_by for row in CreditGrant.objects.all()} == {"staff"}

    def test_pages_hold_no_secret(self, admin: Client, wallets: list[Person]) -> None:
        staff = Granting(admin)
        pages = [staff.send(), staff.confirm_page(), staff.grant(), admin.get(GRANTS)]
        row = CreditGrant.objects.filter(user__username="person-0").get()
        pages.append(admin.get(f"{GRANTS}{row.pk}/change/"))
        assert not [page for page in pages if SECRET.search(page.content.decode())]


@pytest.mark.browser
def test_double_click_in_a_browser_grants_once(
    admin: Client, wallets: list[Person], sandbox: Sandbox, settings: Any, chromium: Chromium
) -> None:
    cookie = admin.cookies["sessionid"].value
    people = [p.email for p in wallets]
    problems: list[str] = []
    with live_site(sandbox, settings) as origin, chromium.opened_page(problems) as page:
        page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": origin}])
        page.goto(f"{origin}{ACCOUNTS}")
        page.locator("#action-toggle").check()
        page.locator("select[name=action]").select_option("grant_credits")
        page.locator("button[name=index]").click()
        page.get_by_label("US dollars for each user").fill("0.25")
        page.get_by_label("Reason").fill("refund")
        shot(page, "admin-grant-form")
        page.get_by_role("button", name="Continue").click()
        shot(page, "admin-grant-confirm")
        page.get_by_role("button", name="Grant credits").dblclick()
        page.get_by_text("$0.25 granted to each of 2 users.").wait_for()
        shot(page, "admin-grant-done")
    assert [sandbox.balance_of(email) for email in people] == [1_250_000] * 2
