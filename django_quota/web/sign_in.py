"""The views that sign in with Quota: `start` and `callback`.

They inherit the extension points of mozilla-django-oidc (`get_extra_params`, `success_url`,
`failure_url`, `login_failure`) and replace its flow; docs/mozilla-django-oidc.rst lists each method
with the reason.
"""

import logging
from typing import Any

from django.contrib import auth
from django.db import Error
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from mozilla_django_oidc.views import (
    OIDCAuthenticationCallbackView,
    OIDCAuthenticationRequestView,
)

from django_quota import accounts, connecting
from django_quota.conf import get_settings
from django_quota.exceptions import ProviderUnavailable, QuotaError, SignInFailed
from django_quota.models import ProviderAccount
from django_quota.oidc import authorization_code, discovery
from django_quota.oidc.id_token import Identity
from django_quota.signals import signed_in, wallet_connected
from django_quota.tokens import storing
from django_quota.tokens.issued import Issued
from django_quota.tokens.payer import refuse_if_acting, user_of
from django_quota.tokens.places import database_of
from django_quota.tokens.wallet_name import remember_wallet
from django_quota.wallet import balances

from . import outcomes, pending, sessions
from .answers import is_redirect_loop
from .authorization import SignInView, add_scopes
from .pending import PendingSignIn
from .redirects import redirect_browser, safe_next, url_on_this_host, url_with
from .requests import authorization_response, query_value, without_query
from .signed_scopes import read_scope

logger = logging.getLogger("django_quota.sign_in")

#: Unix time of an expiry that never comes.
FAR_FUTURE = 1 << 40


class StartView(SignInView, OIDCAuthenticationRequestView):  # type: ignore[misc]
    """GET start[?next=...][&prompt=login]: redirect to Quota (the recipe, step 04).

    With `prompt=login`, Quota asks the person to sign in again (OpenID Connect Core 1.0 section
    3.1.2.1), so that they can choose another account.
    """

    def get(self, request: HttpRequest) -> HttpResponseBase:
        self.next = safe_next(request, query_value(request, "next"))
        self.extra_scopes = read_scope(query_value(request, "scope"))
        self.prompts_login = query_value(request, "prompt") == "login"
        if failure := outcomes.pop_failure(request, self.next):
            return redirect_browser(request, url_with("django_quota:error", **failure))
        self.next = safe_next(request, outcomes.strip_failure(self.next))
        self.next = url_on_this_host(request, self.success_url) or self.next
        if not self.prompts_login and is_redirect_loop(
            request, self.success_url, self.extra_scopes
        ):
            query = {"quota_error": "not_permitted", "next": self.next}
            return redirect_browser(request, url_with("django_quota:error", **query))
        return self.send_to_quota(get_settings().scopes)


class CallbackView(SignInView, OIDCAuthenticationCallbackView):  # type: ignore[misc]
    """GET callback: Quota redirects here (the recipe, step 05; RFC 6749 section 4.1.2)."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.finish(request)
        except QuotaError:
            sessions.load_or_discard(request.session)
            raise
        except Error as error:
            logger.error("the database failed in a sign-in", exc_info=error)
            request.session = sessions.discard_changes(request.session)
            raise ProviderUnavailable(
                "The database failed in a sign-in; see the log. The person can try again.",
                request_sent=False,
            ) from None

    def finish(self, request: HttpRequest) -> HttpResponseBase:
        """Sign in, or connect the wallet. Raises QuotaError and database errors."""
        started = self.pop_pending()
        if started is None or started.is_expired:
            return self.answer_unknown_state(started)
        reply = authorization_code.exchange(
            authorization_response(request),
            redirect_uri=started.redirect_uri,
            code_verifier=started.code_verifier,
        )
        self.refusal = authorization_code.missing_scopes(reply, self.extra_scopes)
        with Issued(reply) as issued:
            if started.user_pk is None:
                response = self.sign_in(started, issued)
            else:
                response = self.connect_wallet(started, issued)
        self.record_landing()  # `login_success` has, unless the project overrides it
        sessions.save(request.session)
        if self.refusal is not None:
            raise self.refusal
        return response

    def pop_pending(self) -> PendingSignIn | None:
        """Remove the sign-in of this callback from the session, so that it cannot be used again."""
        session = self.request.session
        started = pending.pop(session, query_value(self.request, "state"))
        if started is None:
            return None
        self.next, self.extra_scopes = started.next, started.extra_scopes
        self.retry_view = "connect" if started.user_pk is not None else ""
        # Save the session before the slow calls, so that a replay finds nothing. Then read it
        # again, so that the save at the end does not overwrite what other tabs save meanwhile.
        sessions.save_or_refuse(session)
        if started.user_pk is not None:
            # Before Quota issues tokens, and before the session is read again, as it may end in
            # another tab meanwhile.
            refuse_if_acting(self.request)
        self.request.session = sessions.reopen(session)
        return started

    def answer_unknown_state(self, started: PendingSignIn | None) -> HttpResponseBase:
        """Answer a callback whose sign-in is unknown or too old.

        A person who is signed in is redirected as after that sign-in: they used the back button or
        restored a tab, or the browser has prefetched this page.
        """
        if user_of(self.request).is_authenticated and not self.retry_view:
            landed = outcomes.landing_url(self.request.session, query_value(self.request, "state"))
            self.next = safe_next(self.request, landed)
            return HttpResponseRedirect(self.success_url)
        late = "the sign-in was started more than 15 minutes ago, or this clock is wrong"
        unknown = "no sign-in with this state in this session"
        raise SignInFailed("state_mismatch", unknown if started is None else late)

    def sign_in(self, started: PendingSignIn, issued: Issued) -> HttpResponseBase:
        """Find or create the user, store the tokens and log the user in."""
        identity = authorization_code.identity_of(issued.reply, nonce=started.nonce)
        account = self.authenticate(identity)
        self.store_tokens(account, issued, get_settings().scopes)
        remember_wallet(self.user, database_of(self.user), account.pk, account.external_id)
        balances.forget_balance(self.user, anew=False)
        response = self.login_success()
        signed_in.send(sender=type(self), request=self.request, user=self.user, account=account)
        return response

    def authenticate(self, identity: Identity) -> ProviderAccount:
        """Let the backends find or create `self.user`, and return the user's account."""
        request = without_query(self.request)
        self.user = auth.authenticate(request, quota_identity=identity)
        account = getattr(request, "quota_account", None)  # set by QuotaBackend
        if account is None or account.external_id != identity.subject:
            account = accounts.find(identity.subject, with_token=True)
        if self.user is None or account is None or account.user_id != self.user.pk:
            raise SignInFailed(
                "sign_in_refused", "no backend accepted them; is AUTHENTICATION_BACKENDS right?"
            )
        return account

    def store_tokens(self, account: Any, issued: Issued, scopes: tuple[str, ...]) -> None:
        """Store the tokens. If Quota names no scope, they have the requested one (RFC 6749 section
        5.1)."""
        storing.store(account, issued, asked=" ".join(add_scopes(scopes, self.extra_scopes)))

    def login_success(self) -> HttpResponseBase:
        """Log in with a new session key, also if the same user is logged in already."""
        session = self.request.session
        sessions.add_user(session, self.user)
        # A project may use mozilla-django-oidc's SessionRefresh for another provider. At this time
        # it would redirect our users to that provider.
        session["oidc_id_token_expiration"] = FAR_FUTURE
        self.record_landing()
        auth.login(self.request, self.user)
        return HttpResponseRedirect(self.success_url)

    def record_landing(self) -> None:
        """Note in the session, once, where this sign-in leads to, unless it has failed."""
        session, state = self.request.session, str(query_value(self.request, "state"))
        if self.refusal is None and not outcomes.landing_url(session, state):
            outcomes.record_landing(session, state, self.success_url, self.extra_scopes)

    def connect_wallet(self, started: PendingSignIn, issued: Issued) -> HttpResponseBase:
        """Connect Wallet: store the tokens for the user who started it and is still signed in."""
        user = user_of(self.request)
        if str(user.pk) != started.user_pk:
            raise SignInFailed("state_mismatch", "another user is signed in than at the start")
        account = connecting.connect(
            user,
            external_id=authorization_code.wallet_owner(issued.reply, nonce=started.nonce),
            issuer=discovery.metadata().issuer,
            replaces=started.replaces,
        )
        self.store_tokens(account, issued, get_settings().connect_scopes)
        balances.forget_balance(user)
        wallet_connected.send(sender=ProviderAccount, user=user, account=account)
        return HttpResponseRedirect(self.success_url)
