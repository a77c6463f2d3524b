from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from encrypted_model_fields.fields import EncryptedTextField


class Account(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    sub = models.CharField(max_length=255, unique=True)
    issuer = models.CharField(max_length=255)
    email = models.EmailField(blank=True)
    name = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    last_sign_in_at = models.DateTimeField(default=timezone.now)

    objects: ClassVar[models.Manager[Account]] = models.Manager()

    def __str__(self) -> str:
        return self.sub


class Token(models.Model):
    account = models.OneToOneField(Account, on_delete=models.CASCADE)
    access_token = EncryptedTextField()
    refresh_token = EncryptedTextField()
    id_token = EncryptedTextField()
    scope = models.CharField(max_length=1000)
    expires_at = models.DateTimeField(db_index=True)
    updated_at = models.DateTimeField(default=timezone.now)

    objects: ClassVar[models.Manager[Token]] = models.Manager()

    def __str__(self) -> str:
        return f"Token {self.pk}"
