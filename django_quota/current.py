"""`request.quota`: the wallet of the person who asks, for views and templates."""

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.utils.functional import cached_property

from . import accounts, wallet
from .models import ProviderAccount, QuotaToken
from .wallet import Balance
from .web import current_page, url_with, user_of

__all__ = ["CurrentQuota"]


class CurrentQuota:
    """What `QuotaMiddleware` sets as `request.quota`. quota-protocol section 17, `useQuota()`.

    Nothing is asked of the database or of Quota before it is read, and nothing twice in a request.
    In async code, await the twin first; the attribute is then known, to templates, too.
    """

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def _user(self) -> Any:
        return self._request.user

    @cached_property
    def account(self) -> ProviderAccount | None:
        """The Quota account of the user, connected or not; None for who has none."""
        return accounts.account_of(self._user) if self._user.is_authenticated else None

    @cached_property
    def connected(self) -> bool:
        """Is there a wallet that Quota, as far as is known here, lets this site bill?"""
        if not self._user.is_authenticated:
            return False
        row = QuotaToken.objects.for_user(self._user).first()
        return row is not None and not row.needs_sign_in

    @cached_property
    def _balance(self) -> tuple[str, Balance | None]:
        return wallet.balance_for_page(self._user)

    @property
    def balance(self) -> Balance | None:
        """What is in the wallet; None where that is not known. Never raises an error of Quota's."""
        return self._balance[1]

    @property
    def balance_state(self) -> str:
        """ "available", "low", "no_wallet" or "unavailable"; "" for who is not connected."""
        return self._balance[0]

    @property
    def login_url(self) -> str:
        """Where to sign in with Quota and come back to this page."""
        return self._url("start")

    @property
    def connect_url(self) -> str:
        """Where to connect a wallet to the user who is signed in, and come back to this page."""
        return self._url("connect")

    @property
    def topup_url(self) -> str:
        """Where to buy credits and come back to this page."""
        return self._url("packages")

    async def aaccount(self) -> ProviderAccount | None:
        """`account`, for async code."""
        return await self._ask("account")  # type: ignore[no-any-return]

    async def aconnected(self) -> bool:
        """`connected`, for async code."""
        return await self._ask("connected")  # type: ignore[no-any-return]

    async def abalance(self) -> Balance | None:
        """`balance`, for async code; `balance_state` is known then, too."""
        return await self._ask("balance")  # type: ignore[no-any-return]

    async def _ask(self, name: str) -> Any:
        """In a thread: what is asked of the database and of Quota there would block the loop."""
        self._user = await user_of(self._request)
        return await sync_to_async(getattr)(self, name)

    def _url(self, view: str) -> str:
        return url_with(f"django_quota:{view}", next=current_page(self._request))
