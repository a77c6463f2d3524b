"""User models that projects really have, and that are not Django's own."""

import uuid

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class EmailUser(AbstractBaseUser):
    """Signs in by e-mail, and has no username."""

    email = models.EmailField(unique=True)
    objects = BaseUserManager["EmailUser"]()
    USERNAME_FIELD = "email"


class UUIDUser(AbstractBaseUser):
    """Its primary key is no number, and its username is short."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    username = models.CharField(max_length=30, unique=True)
    email = models.EmailField(blank=True)
    objects = BaseUserManager["UUIDUser"]()
    USERNAME_FIELD = "username"


class BareUser(AbstractBaseUser):
    """Has no e-mail address, no field `is_active`, and another name for its username."""

    handle = models.CharField(max_length=150, unique=True)
    objects = BaseUserManager["BareUser"]()
    USERNAME_FIELD = "handle"


class DocsUser(AbstractBaseUser):
    """The full example of Django's own documentation: `is_staff` is no column."""

    email = models.EmailField(max_length=255, unique=True)
    is_active = models.BooleanField(default=True)
    is_admin = models.BooleanField(default=False)
    objects = BaseUserManager["DocsUser"]()
    USERNAME_FIELD = "email"

    @property
    def is_staff(self) -> bool:
        return self.is_admin


class UniqueEmailUser(AbstractBaseUser):
    """Has a username, and an address that nobody else may have."""

    username = models.CharField(max_length=150, unique=True)
    email = models.EmailField(unique=True)
    objects = BaseUserManager["UniqueEmailUser"]()
    USERNAME_FIELD = "username"


class MaybeEmailUser(AbstractBaseUser):
    """The same, and it may be none."""

    username = models.CharField(max_length=150, unique=True)
    email = models.EmailField(unique=True, null=True)  # noqa: DJ001
    objects = BaseUserManager["MaybeEmailUser"]()
    USERNAME_FIELD = "username"


class OddEmailUser(AbstractBaseUser):
    """Signs in by an e-mail field of another name, and does not say that it is one."""

    address = models.EmailField(unique=True)
    objects = BaseUserManager["OddEmailUser"]()
    USERNAME_FIELD = "address"


class NumberedUser(AbstractBaseUser):
    """Its username is none that we could make up."""

    number = models.UUIDField(unique=True)
    objects = BaseUserManager["NumberedUser"]()
    USERNAME_FIELD = "number"


class IntegerUser(AbstractBaseUser):
    """Its username is a number."""

    number = models.IntegerField(unique=True)
    objects = BaseUserManager["IntegerUser"]()
    USERNAME_FIELD = "number"


class TwoEmailsUser(AbstractBaseUser):
    """Signs in by an address, and is written to at another."""

    login = models.EmailField(unique=True)
    email = models.EmailField(blank=True)
    objects = BaseUserManager["TwoEmailsUser"]()
    USERNAME_FIELD = "login"
    EMAIL_FIELD = "email"
