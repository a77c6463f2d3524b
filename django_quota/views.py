"""Signing in and out with Quota.

The base classes are mozilla-django-oidc's, for their extension points: `get_extra_params`,
`success_url`, `failure_url`. Their flow is replaced: docs/mozilla-django-oidc.rst lists each
method, and why.
"""

import copy
import logging
import time
from typing import Any

from django.conf import settings as django_settings
from django.contrib import auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.backends.base import UpdateError
from django.http import (
    HttpRequest,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    QueryDict,
)
from django.shortcuts import render, resolve_url
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_variables
from django.views.generic import View
from mozilla_django_oidc.views import (
    OIDCAuthenticationCallbackView,
    OIDCAuthenticationRequestView,
    OIDCLogoutView,
)

from . import accounts, discovery, id_token, messages, pending, provider, tokens, wallet
from .conf import get_settings
from .exceptions import (
    ConfigurationError,
    InsufficientScope,
    QuotaError,
    RequestRefused,
    SignInFailed,
)
from .id_token import Identity
from .models import ProviderAccount
from .pending import PendingSignIn
from .signals import sign_in_failed, signed_in, wallet_connected
from .web import (
    is_sent_on,
    outside_transactions,
    posted,
    private,
    read_scope,
    safe_next,
    send_on,
    sign_scope,
    single,
    url_with,
)

__all__ = ["CallbackView", "ConnectView", "ErrorView", "LogoutView", "StartView"]

logger = logging.getLogger("django_quota.sign_in")

#: Longer than any honest code; not worth a request to Quota.
MAX_CODE_LENGTH = 4096
FAR_FUTURE = 1 << 40  # Unix time


@method_decorator(login_not_required, name="dispatch")
@method_decorator(outside_transactions, name="dispatch")
# As Django's own login and logout: also in a project that has no CSRF middleware.
@method_decorator(csrf_protect, name="dispatch")
class SignInView(View):
    """What start, callback and connect have in common: a failure is a redirect with a code."""

    http_method_names = ["get"]
    request: HttpRequest

    def __init__(self, **kwargs: Any) -> None:
        # Not the base classes' own, which read OIDC_* settings.
        View.__init__(self, **kwargs)
        self.next = ""
        self.retry = ""
        self.needs = ""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return private(super().dispatch(request, *args, **kwargs))
        except QuotaError as error:
            return private(self.login_failure(error))

    def login_failure(self, error: QuotaError) -> HttpResponseBase:
        """Tell the log, the project's signal and the person, all under one reference."""
        self.error_code = messages.code_of(error)
        self.reference = messages.new_reference()
        level = logging.ERROR if isinstance(error, ConfigurationError) else logging.WARNING
        logger.log(level, "sign-in failed: %s: %s [%s]", self.error_code, error, self.reference)
        sign_in_failed.send(
            sender=type(self),
            request=self.request,
            code=self.error_code,
            reason=str(error),
            reference=self.reference,
        )
        return HttpResponseRedirect(self.failure_url)

    @property
    def failure_url(self) -> str:
        """Where a failed sign-in lands: QUOTA_ERROR_URL, with the code and where to go on after."""
        try:
            target = get_settings().error_url
        except ConfigurationError:
            target = "django_quota:error"
        query = {
            "quota_error": self.error_code,
            "quota_ref": self.reference,
            "quota_retry": self.retry,
            "scope": sign_scope(self.needs),
            "next": safe_next(self.request, self.next),
        }
        try:
            return url_with(target, **query)
        except NoReverseMatch:  # `manage.py check` says so; a person must not see a 500
            return url_with("django_quota:error", **query)

    @property
    def success_url(self) -> str:
        """Where the person goes on: where they wanted to, or LOGIN_REDIRECT_URL."""
        # Checked again: the session may have been filled under another host name.
        return safe_next(self.request, self.next) or resolve_url(django_settings.LOGIN_REDIRECT_URL)

    def send_to_quota(self, scopes: tuple[str, ...], **details: Any) -> HttpResponseBase:
        """Remember this sign-in in the session and redirect to Quota (OpenID Connect Core 1.0
        section 3.1.2.1), asking for what a view has missed, too."""
        started = PendingSignIn(
            redirect_uri=get_settings().redirect_uri
            or self.request.build_absolute_uri(reverse("django_quota:callback")),
            next=self.next,
            needs=self.needs,
            **details,
        )
        url = provider.authorization_url(
            redirect_uri=started.redirect_uri,
            scopes=_with_needs(scopes, self.needs),
            state=started.state,
            nonce=started.nonce,
            code_challenge=started.code_challenge,
            extra=self.get_extra_params(self.request),
        )
        pending.keep(self.request.session, started)
        return send_on(self.request, url)

    def get_extra_params(self, request: HttpRequest) -> dict[str, str]:
        """More parameters for the authorization request; override for, say, `prompt`."""
        return {}


class StartView(SignInView, OIDCAuthenticationRequestView):  # type: ignore[misc]
    """GET start[?next=...]: off to Quota. The recipe, step 04."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        self.next = safe_next(request, single(request, "next"))
        self.needs = read_scope(single(request, "scope"))
        return self.send_to_quota(get_settings().scopes)


class CallbackView(SignInView, OIDCAuthenticationCallbackView):  # type: ignore[misc]
    """GET callback: back from Quota. The recipe, step 05; RFC 6749 section 4.1.2."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        started = self.take_pending()
        if started is not None:
            self.next, self.needs = started.next, started.needs
            self.retry = "connect" if started.user_pk is not None else ""
        if started is None or started.is_expired:
            if request.user.is_authenticated and not self.retry:
                # The back button or a restored tab, after the sign-in: nothing is wrong.
                return HttpResponseRedirect(self.success_url)
            late = "the sign-in was started more than 15 minutes ago, or this clock is wrong"
            unknown = "no sign-in with this state in this session"
            raise SignInFailed("state_mismatch", unknown if started is None else late)
        reply = self.exchange(started)
        if started.user_pk is not None:
            response = self.connect_wallet(started, reply)
        else:
            response = self.sign_in(self.identity(started, reply), reply)
        self.require_needs(reply)
        return response

    def require_needs(self, reply: provider.TokenReply) -> None:
        """RFC 6749 section 3.3: Quota may grant less than was asked for. The person is signed in,
        but the view that has sent them here would only send them here again."""
        if reply.scope and not set(self.needs.split()) <= set(reply.scope.split()):
            raise InsufficientScope(
                "Quota did not grant the scope that a view needs; is it among the app's "
                "allowed_scopes?",
                scope=self.needs,
            )

    def take_pending(self) -> PendingSignIn | None:
        """The sign-in that this callback belongs to, taken out of the session for good."""
        session = self.request.session
        started = pending.take(session, single(self.request, "state"))
        if started is not None:
            # Saved before the slow calls, so that a replay finds nothing, then read anew, so that
            # what other tabs write meanwhile is not overwritten at the end.
            try:
                session.save()
            except UpdateError:
                raise SignInFailed(
                    "state_mismatch", "the session was ended in another tab meanwhile"
                ) from None
            self.request.session = type(session)(session.session_key)
            self.request.session.modified = True
        return started

    @sensitive_variables()
    def exchange(self, started: PendingSignIn) -> provider.TokenReply:
        """The tokens for this callback's code; SignInFailed for any other callback."""
        request = self.request
        quota = discovery.metadata()
        says_who = quota.sends_iss or "iss" in request.GET
        if says_who and single(request, "iss") != quota.issuer:
            # RFC 9207 section 2.4: the answer of another provider (mix-up) is not ours.
            raise SignInFailed("authorization_failed", "the callback's iss is not Quota's")
        if "error" in request.GET:
            raise _authorization_error(single(request, "error"))
        code = single(request, "code")
        if not code or len(code) > MAX_CODE_LENGTH:
            raise SignInFailed("authorization_failed", "the callback has no usable code")
        return provider.exchange_code(
            code=code, redirect_uri=started.redirect_uri, code_verifier=started.code_verifier
        )

    @sensitive_variables()
    def identity(self, started: PendingSignIn, reply: provider.TokenReply) -> Identity:
        """Who signs in: the validated id_token, with userinfo for what that leaves out."""
        settings = get_settings()
        identity = id_token.validate(
            reply.id_token,
            keys=discovery.signing_keys(reply.id_token),
            issuer=discovery.metadata().issuer,
            audience=settings.client_id,
            nonce=started.nonce,
            now=time.time(),
            leeway=settings.clock_skew,
        )
        wanted = {"email": ("email", "email_verified"), "profile": ("name",)}
        given = {claim for claim, value in identity.claims.items() if value is not None}
        if all(given.issuperset(wanted.get(scope, ())) for scope in settings.scopes):
            return identity
        return self.filled_from_userinfo(identity, reply.access_token)

    @sensitive_variables()
    def filled_from_userinfo(self, identity: Identity, access_token: str) -> Identity:
        """`identity` with claims that only userinfo has; the id_token's own are never replaced."""
        try:
            claims = provider.userinfo(access_token)
        except QuotaError as error:
            logger.warning("userinfo not read: %s", error)
            return identity
        if claims.get("sub") != identity.subject:
            # OpenID Connect Core 1.0 section 5.3.2: then it must not be used.
            logger.warning("userinfo is about another sub and was not used")
            return identity
        mine = {claim: value for claim, value in identity.claims.items() if value is not None}
        # An address is verified by whoever names it, and by nobody else.
        if "email" not in mine:
            mine.pop("email_verified", None)
        elif claims.get("email") != mine["email"]:
            claims.pop("email_verified", None)
        return Identity.from_claims({**claims, **mine})

    @sensitive_variables()
    def sign_in(self, identity: Identity, reply: provider.TokenReply) -> HttpResponseBase:
        """Find or make the user, keep the tokens, start the session."""
        self.user = auth.authenticate(self.without_query(), quota_identity=identity)
        account = accounts.find(identity.subject)
        if self.user is None or account is None or account.user_id != self.user.pk:
            raise SignInFailed(
                "sign_in_refused", "no backend accepted them; is AUTHENTICATION_BACKENDS right?"
            )
        self.store(account, reply, get_settings().scopes)
        wallet.forget_balance(self.user)
        response = self.login_success()
        signed_in.send(sender=type(self), request=self.request, user=self.user, account=account)
        return response

    @sensitive_variables()
    def store(self, account: Any, reply: provider.TokenReply, scopes: tuple[str, ...]) -> None:
        """Keep the tokens; where Quota does not name their scope, it is what was asked for."""
        tokens.store(account, reply, asked=" ".join(_with_needs(scopes, self.needs)))

    def without_query(self) -> HttpRequest:
        """This request without the code and state: the backend of stock mozilla-django-oidc takes
        any keyword, and would send Quota's code to its own provider."""
        request = copy.copy(self.request)
        request.GET = QueryDict()
        request.META = {**request.META, "QUERY_STRING": ""}
        return request

    def login_success(self) -> HttpResponseBase:
        """Log in, under a new session key even for the person who is logged in already: whoever
        knew the old key must not share the new session (session fixation)."""
        before = self.request.session.session_key
        auth.login(self.request, self.user)
        if self.request.session.session_key == before:
            self.request.session.cycle_key()
        # The SessionRefresh middleware of stock mozilla-django-oidc, if this project has it for
        # another provider, must not send our users there: to it, this session is fresh for good.
        self.request.session["oidc_id_token_expiration"] = FAR_FUTURE
        return HttpResponseRedirect(self.success_url)

    @sensitive_variables()
    def connect_wallet(
        self, started: PendingSignIn, reply: provider.TokenReply
    ) -> HttpResponseBase:
        """Connect Wallet: the tokens go to the user who started it and is still signed in."""
        user = self.request.user
        if str(user.pk) != started.user_pk:
            raise SignInFailed("state_mismatch", "another user is signed in than at the start")
        account = accounts.connect(
            user,
            external_id=self.wallet_owner(started, reply),
            issuer=discovery.metadata().issuer,
            replaces=started.replaces,
        )
        self.store(account, reply, get_settings().connect_scopes)
        wallet.forget_balance(user)
        wallet_connected.send(sender=ProviderAccount, user=user, account=account)
        return HttpResponseRedirect(self.success_url)

    @sensitive_variables()
    def wallet_owner(self, started: PendingSignIn, reply: provider.TokenReply) -> str:
        """Whose wallet it is: the id_token if there is one, else who the balance is of.

        Without the scope openid there is no id_token (quota-protocol section 5).
        """
        if reply.id_token is not None:
            return self.identity(started, reply).subject
        try:
            owner = provider.balance(reply.access_token).user_id
        except RequestRefused:
            owner = ""
        if not owner or len(owner) > id_token.MAX_SUBJECT_LENGTH or not owner.isprintable():
            raise SignInFailed(
                "authorization_failed",
                "Quota does not say whose wallet this is; add openid to QUOTA_CONNECT_SCOPES",
            )
        return owner


def _with_needs(scopes: tuple[str, ...], needs: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*scopes, *needs.split())))


def _authorization_error(error: str | None) -> SignInFailed:
    """What an error response (RFC 6749 section 4.1.2.1) means to the person and to the log."""
    if error == "access_denied":
        return SignInFailed("access_denied", "the person cancelled at Quota")
    if error == "invalid_scope":
        return SignInFailed(
            "invalid_scope",
            "a scope in QUOTA_SCOPES or QUOTA_CONNECT_SCOPES is not among the app's "
            "allowed_scopes; add it with PATCH /developers/apps/:id (manage.py quota_register_app "
            "--client-id ... --scope ...)",
        )
    if error in ("server_error", "temporarily_unavailable"):
        return SignInFailed("provider_unavailable", f"Quota answered {error}")
    # What else arrives is the URL's, anybody's: not for the log.
    return SignInFailed("authorization_failed", "Quota answered with another error")


class ConnectView(SignInView):
    """GET connect: a page that asks whether to connect a wallet to the user who is signed in, and
    whether to replace the one they have. POST: off to Quota.

    Never by GET: where this browser is signed in at Quota as somebody else, a mere link would
    connect that person's identity, who could then sign in as this user.
    """

    http_method_names = ["get", "post"]
    template_name = "django_quota/connect_confirm.html"

    def get(self, request: HttpRequest) -> HttpResponseBase:
        self.next = safe_next(request, single(request, "next"))
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        context = {
            "account": accounts.account_of(request.user),
            "connect_url": reverse("django_quota:connect"),
            "next": self.next,
            "scope": sign_scope(read_scope(single(request, "scope"))),
        }
        return render(request, self.template_name, context)

    def post(self, request: HttpRequest) -> HttpResponseBase:
        self.retry = "connect"
        self.next = safe_next(request, posted(request, "next"))
        self.needs = read_scope(posted(request, "scope"))
        if not request.user.is_authenticated:
            return redirect_to_login(reverse("django_quota:connect"))
        # Who saw the wallet they have, and posts, agrees to have it replaced.
        return self.send_to_quota(
            get_settings().connect_scopes,
            user_pk=str(request.user.pk),
            replaces=posted(request, "replaces")[: id_token.MAX_SUBJECT_LENGTH],
        )


@method_decorator(login_not_required, name="dispatch")
@method_decorator(outside_transactions, name="dispatch")
@method_decorator(csrf_protect, name="dispatch")
class LogoutView(OIDCLogoutView):  # type: ignore[misc]
    """POST logout: out of this site, then out of Quota. The recipe, "Sign out cleanly".

    A form is redirected; a fetch() gets `{"logout_url": ...}` to go to.
    """

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponseBase:
        url = self.redirect_url  # before the logout: it needs to know who is leaving
        auth.logout(request)
        if is_sent_on(request):
            return private(send_on(request, url))
        return private(JsonResponse({"logout_url": url}))

    @property
    @sensitive_variables()
    def redirect_url(self) -> str:
        """Quota's end_session_endpoint, or a page of this site where that is not possible."""
        home = None
        try:
            home = get_settings().post_logout_redirect_uri
            hint = tokens.newest_id_token(self.request.user)
            url = hint and provider.end_session_url(
                id_token_hint=hint,
                post_logout_redirect_uri=home or self.request.build_absolute_uri("/"),
            )
        except QuotaError as error:
            # Nobody is kept signed in here because Quota is down.
            logger.warning("signed out of this site only, not of Quota: %s", error)
            url = None
        return url or home or "/"


@method_decorator(login_not_required, name="dispatch")
class ErrorView(View):
    """GET error?quota_error=<code>: what happened, in words, and a way to try again."""

    http_method_names = ["get", "head"]
    template_name = "django_quota/error.html"

    def get(self, request: HttpRequest) -> HttpResponseBase:
        context = messages.explain(request)
        context["error"] = context["error"] or messages.UNKNOWN
        context["home_url"] = "/"
        return private(render(request, self.template_name, context))
