"""The models of the sandbox: users, apps, signing keys, developer sessions and credits."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.text import slugify
from jwcrypto import jwk
from oauth2_provider.models import AbstractApplication
from oauth2_provider.utils import jwk_from_pem

from .tokens import checksum, generate_api_key, generate_client_id, generate_client_secret

__all__ = [
    "ApiKey",
    "Application",
    "Checkout",
    "DeveloperSession",
    "Funding",
    "LedgerEntry",
    "SigningKey",
    "User",
    "Webhook",
]


class UserManager(BaseUserManager["User"]):
    """Creates and finds users by e-mail address, ignoring case."""

    def get_by_natural_key(self, username: str | None) -> User:
        """Return the user with this e-mail address."""
        return self.get(email=(username or "").strip().lower())

    def add(self, email: str, password: str, **fields: Any) -> User:
        """Create a user, with a hashed password."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser):  # type: ignore[django-manager-missing, unused-ignore]
    """A user or developer, with a wallet. The primary key is the ``sub`` claim."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=200, blank=True)
    email_verified = models.BooleanField(default=False)
    plan = models.CharField(max_length=40, default="free")
    #: Credits; 1,000,000 are 1 USD. Only the module ``ledger`` changes it.
    balance = models.BigIntegerField(default=0)
    #: The part of the balance that is reserved for running calls, in credits.
    reserved = models.BigIntegerField(default=0)
    is_active = models.BooleanField(default=True)
    created = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    objects: ClassVar[UserManager] = UserManager()

    def __str__(self) -> str:
        return self.email

    @property
    def picture_path(self) -> str:
        """The path of the picture, or "" if the e-mail address has no letter for it."""
        slug = slugify(self.email.partition("@")[0])
        return f"/avatars/{slug}.svg" if slug else ""


class SigningKey(models.Model):
    """An RSA key for id_tokens. The newest key signs; all keys are published."""

    kid = models.CharField(max_length=64, unique=True)
    pem = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[SigningKey]] = models.Manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.kid

    @classmethod
    def rotate(cls) -> SigningKey:
        """Create a key, which signs from now on."""
        key = jwk.JWK.generate(kty="RSA", size=2048)
        pem = key.export_to_pem(private_key=True, password=None).decode()
        return cls.objects.create(kid=key.thumbprint(), pem=pem)

    @classmethod
    def current(cls) -> SigningKey:
        """Return the key that signs, and create it if there is none."""
        key = cls.objects.first()
        return key if key is not None else cls.rotate()

    @property
    def jwk(self) -> jwk.JWK:
        """The key as a jwcrypto object."""
        return jwk_from_pem(self.pem)


class Application(AbstractApplication):  # type: ignore[misc]  # the library is untyped
    """An OAuth app of a developer."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    allowed_scopes = models.JSONField(default=list)

    class Meta(AbstractApplication.Meta):  # type: ignore[misc]
        pass

    @classmethod
    def add(cls, *, owner: User, public: bool = False, **fields: Any) -> tuple[Application, str]:
        """Create an app; return it and its client secret, which is "" for a public client."""
        secret = "" if public else generate_client_secret()
        application = cls.objects.create(
            user=owner,
            client_id=generate_client_id(),
            client_secret=secret,
            # The secret has 32 random bytes, so it needs no slow hash at every token request.
            hash_client_secret=False,
            client_type=cls.CLIENT_PUBLIC if public else cls.CLIENT_CONFIDENTIAL,
            authorization_grant_type=cls.GRANT_AUTHORIZATION_CODE,
            algorithm=cls.RS256_ALGORITHM,
            **fields,
        )
        return application, secret

    def redirect_uri_allowed(self, uri: str) -> bool:
        """Compare exact strings. The library would accept any port on a loopback address."""
        return uri in self.redirect_uris.split()

    def post_logout_redirect_uri_allowed(self, uri: str) -> bool:
        """Compare exact strings."""
        return uri in self.post_logout_redirect_uris.split()

    @cached_property  # the library reads it twice for each id_token
    def jwk_key(self) -> jwk.JWK:
        """The key that signs the id_tokens; all apps share it."""
        return SigningKey.current().jwk


class DeveloperSession(models.Model):
    """The session of a developer at the JSON API. Only a checksum of its token is stored."""

    token_checksum = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    expires_at = models.DateTimeField()

    objects: ClassVar[models.Manager[DeveloperSession]] = models.Manager()

    def __str__(self) -> str:
        return f"session {self.pk}"

    @classmethod
    def find(cls, token: str) -> DeveloperSession | None:
        """Return the session of this token, or None if it is unknown or has expired."""
        return (
            cls.objects.select_related("user")
            .filter(token_checksum=checksum(token), expires_at__gt=timezone.now())
            .first()
        )


class ApiKey(models.Model):
    """An API key of a developer. Only a checksum of the key is stored."""

    key_checksum = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[ApiKey]] = models.Manager()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def add(cls, owner: User, name: str) -> str:
        """Create an API key, and return it."""
        key = generate_api_key()
        cls.objects.create(key_checksum=checksum(key), user=owner, name=name)
        return key


class LedgerEntry(models.Model):
    """A change of a balance. The entries of a user add up to their balance."""

    class Kind(models.TextChoices):
        """The reason for the change."""

        ADJUSTMENT = "adjustment"
        CHARGE = "charge"
        PURCHASE = "purchase"
        GRANT = "grant"

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    application = models.ForeignKey(Application, null=True, on_delete=models.SET_NULL)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    #: Credits; negative for a charge.
    amount = models.BigIntegerField()
    balance_after = models.BigIntegerField()
    description = models.CharField(max_length=200, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[LedgerEntry]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class Checkout(models.Model):
    """A purchase of credits, which the user pays or cancels on the payment page."""

    class Status(models.TextChoices):
        """The state of a purchase. PAID and CANCELLED are final."""

        OPEN = "open"
        PAID = "paid"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    application = models.ForeignKey(Application, on_delete=models.CASCADE)
    package_id = models.CharField(max_length=40)
    price_cents = models.PositiveIntegerField()
    credits = models.BigIntegerField()
    success_url = models.TextField()
    cancel_url = models.TextField()
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.OPEN)
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Checkout]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.package_id} {self.status}"


class Webhook(models.Model):
    """A URL of a developer that events are posted to, signed with the secret."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    url = models.TextField()
    events = models.JSONField(default=list)
    low_balance_threshold = models.BigIntegerField(null=True)
    secret = models.CharField(max_length=100)
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Webhook]] = models.Manager()

    def __str__(self) -> str:
        return f"webhook {self.pk}"


class Funding(models.Model):
    """The answer to a developer's request to fund a user, which is repeated for the same key."""

    developer = models.ForeignKey(User, on_delete=models.CASCADE, related_name="fundings")
    idempotency_key = models.CharField(max_length=200)
    #: The request's ``user_id`` and ``amount``, in JSON.
    request = models.TextField()
    status = models.PositiveSmallIntegerField()
    body = models.JSONField()
    created = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[models.Manager[Funding]] = models.Manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["developer", "idempotency_key"], name="quota_sandbox_unique_funding"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.idempotency_key} {self.status}"
