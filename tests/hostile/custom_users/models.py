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
