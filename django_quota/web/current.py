"""`request.quota`: the wallet of the request's user, for views and templates."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import cached_property

from django_quota import accounts
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.tokens.payer import user_of
from django_quota.tokens.places import at_place_of_caller
from django_quota.wallet import purchases
from django_quota.wallet.balances import Balance, PageBalance

from .redirects import current_page, url_with
from .responses import mark_personal


class CurrentQuota:
    """`QuotaMiddleware` sets it as `request.quota` (quota-protocol section 17, `useQuota()`).

    Each attribute asks the database or Quota when it is first read, once in a request. In async
    code, await the method first: then the attribute is known, also to templates.
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def _user(self) -> Any:
        user = user_of(self._request)
        if user.is_authenticated:
            mark_personal(self._request)
        return user

    @cached_property
    def account(self) -> ProviderAccount | None:
        """The Quota account of the user, connected or not; None if they have none."""
        return accounts.account_of(self._user) if self._user.is_authenticated else None

    @cached_property
    def connected(self) -> bool:
        """True if this site can bill the user's wallet, as far as it knows without asking Quota."""
        if not self._user.is_authenticated:
            return False
        row = QuotaToken.objects.for_user(self._user).first()
        return row is not None and not row.needs_sign_in

    @cached_property
    def _page_balance(self) -> PageBalance:
        return purchases.balance_for_page(self._user)

    @property
    def balance(self) -> Balance | None:
        """The balance of the wallet; None if it is not known. Raises no error if Quota is away."""
        return self._page_balance.balance

    @property
    def balance_state(self) -> str:
        """ "available", "low", "no_wallet" or "unavailable"; "" if no wallet is connected."""
        return self._page_balance.state

    @property
    def login_url(self) -> str:
        """The URL to sign in with Quota and return to this page."""
        return self._url("start")

    @property
    def connect_url(self) -> str:
        """The URL to connect a wallet to the signed-in user and return to this page."""
        return self._url("connect")

    @property
    def topup_url(self) -> str:
        """The URL to buy credits and return to this page."""
        return self._url("packages")

    async def aaccount(self) -> ProviderAccount | None:
        """`account` for async code."""
        return await self._read_in_thread("account")  # type: ignore[no-any-return]

    async def aconnected(self) -> bool:
        """`connected` for async code."""
        return await self._read_in_thread("connected")  # type: ignore[no-any-return]

    async def abalance(self) -> Balance | None:
        """`balance` for async code; afterwards `balance_state` is known, too."""
        return await self._read_in_thread("balance")  # type: ignore[no-any-return]

    async def _read_in_thread(self, name: str) -> Any:
        """Read an attribute in a thread, as the database and Quota would block the event loop."""
        return await at_place_of_caller(lambda _user: getattr(self, name))(self._request.user)

    def _url(self, view: str) -> str:
        return url_with(f"django_quota:{view}", next=current_page(self._request))
