import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import django_quota.fields
import django_quota.models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PendingRevocation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "token",
                    django_quota.fields.EncryptedTokenField(default="", verbose_name="token"),
                ),
                ("token_type_hint", models.CharField(default="refresh_token", max_length=32)),
                ("attempts", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="created at"
                    ),
                ),
                (
                    "expires_at",
                    models.DateTimeField(
                        db_index=True,
                        default=django_quota.models.end_of_revocation,
                        verbose_name="expires at",
                    ),
                ),
            ],
            options={
                "verbose_name": "pending revocation",
                "verbose_name_plural": "pending revocations",
            },
        ),
        migrations.CreateModel(
            name="CreditGrant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "external_id",
                    django_quota.fields.IdentifierField(
                        help_text="The `sub` of the wallet's owner.",
                        max_length=255,
                        verbose_name="external id",
                    ),
                ),
                (
                    "idempotency_key",
                    django_quota.fields.IdentifierField(
                        max_length=100, unique=True, verbose_name="idempotency key"
                    ),
                ),
                ("credits", models.BigIntegerField(verbose_name="credits")),
                (
                    "reason",
                    models.CharField(blank=True, default="", max_length=200, verbose_name="reason"),
                ),
                (
                    "granted_by",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="The name of the member of staff, if the admin was used.",
                        max_length=255,
                        verbose_name="granted by",
                    ),
                ),
                (
                    "attempt",
                    models.PositiveIntegerField(
                        default=1,
                        help_text="So many keys were sent to Quota: a new one after each refusal.",
                        verbose_name="attempt",
                    ),
                ),
                (
                    "unanswered",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="Requests under the last key that may have credited the user.",
                        verbose_name="unanswered",
                    ),
                ),
                (
                    "asked_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        help_text="When Quota was first asked under the last key.",
                        verbose_name="asked at",
                    ),
                ),
                (
                    "last_failure",
                    models.CharField(
                        blank=True, default="", max_length=100, verbose_name="last failure"
                    ),
                ),
                (
                    "ledger_id",
                    models.CharField(
                        blank=True, default="", max_length=100, verbose_name="ledger id"
                    ),
                ),
                (
                    "balance_after",
                    models.BigIntegerField(blank=True, null=True, verbose_name="balance after"),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, verbose_name="created at"
                    ),
                ),
                (
                    "granted_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="Empty until Quota has confirmed the grant.",
                        null=True,
                        verbose_name="granted at",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="quota_grants",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "credit grant",
                "verbose_name_plural": "credit grants",
            },
        ),
        migrations.CreateModel(
            name="ProviderAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "provider",
                    models.CharField(default="quota", max_length=32, verbose_name="provider"),
                ),
                (
                    "external_id",
                    django_quota.fields.IdentifierField(
                        help_text="The provider's stable id: the claim `sub`.",
                        max_length=255,
                        verbose_name="external id",
                    ),
                ),
                (
                    "issuer",
                    models.CharField(blank=True, default="", max_length=255, verbose_name="issuer"),
                ),
                (
                    "email",
                    models.EmailField(
                        blank=True, default="", max_length=254, verbose_name="e-mail"
                    ),
                ),
                (
                    "name",
                    models.CharField(blank=True, default="", max_length=255, verbose_name="name"),
                ),
                (
                    "picture",
                    models.URLField(
                        blank=True, default="", max_length=1000, verbose_name="picture"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created at"
                    ),
                ),
                (
                    "last_sign_in_at",
                    models.DateTimeField(
                        blank=True,
                        default=None,
                        editable=False,
                        null=True,
                        verbose_name="last sign-in at",
                    ),
                ),
                (
                    "created_user",
                    models.BooleanField(
                        default=False,
                        help_text=(
                            "True if a sign-in with Quota created the user. Disconnecting then "
                            "keeps this link unless the user has a password, because it is their "
                            "only way to sign in."
                        ),
                        verbose_name="created the user",
                    ),
                ),
                (
                    "signs_in",
                    models.BooleanField(
                        default=True,
                        help_text=(
                            "True if this person may sign in with Quota. False for a user with a "
                            "password who has only connected a wallet: signing in with it would "
                            "bypass their second factor."
                        ),
                        verbose_name="signs in",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quota_accounts",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "Quota account",
                "verbose_name_plural": "Quota accounts",
            },
        ),
        migrations.CreateModel(
            name="QuotaToken",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "access_token",
                    django_quota.fields.EncryptedTokenField(
                        default="", verbose_name="access token"
                    ),
                ),
                (
                    "refresh_token",
                    django_quota.fields.EncryptedTokenField(
                        default="", verbose_name="refresh token"
                    ),
                ),
                (
                    "id_token",
                    django_quota.fields.EncryptedTokenField(default="", verbose_name="id_token"),
                ),
                (
                    "scope",
                    models.CharField(blank=True, default="", max_length=1000, verbose_name="scope"),
                ),
                (
                    "expires_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="expires at"
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("active", "active"),
                            ("reauthentication_required", "re-authentication required"),
                        ],
                        db_index=True,
                        default="active",
                        max_length=32,
                        verbose_name="status",
                    ),
                ),
                (
                    "version",
                    models.PositiveBigIntegerField(
                        default=0,
                        editable=False,
                        help_text="Grows with every new pair of tokens.",
                        verbose_name="version",
                    ),
                ),
                (
                    "grant",
                    models.PositiveBigIntegerField(
                        default=0,
                        editable=False,
                        help_text="A number for the sign-in that the refresh token comes from.",
                        verbose_name="grant",
                    ),
                ),
                (
                    "lease_owner",
                    models.CharField(blank=True, default="", editable=False, max_length=64),
                ),
                (
                    "lease_until",
                    models.DateTimeField(blank=True, default=None, editable=False, null=True),
                ),
                ("lease_in_grace", models.BooleanField(default=False, editable=False)),
                (
                    "last_failure",
                    models.CharField(
                        blank=True,
                        default="",
                        editable=False,
                        max_length=64,
                        verbose_name="last failure",
                    ),
                ),
                (
                    "last_failure_at",
                    models.DateTimeField(
                        blank=True,
                        default=None,
                        editable=False,
                        null=True,
                        verbose_name="last failure at",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="created at"
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, editable=False, verbose_name="updated at"
                    ),
                ),
                (
                    "account",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="token",
                        to="django_quota.provideraccount",
                    ),
                ),
            ],
            options={
                "verbose_name": "Quota token",
                "verbose_name_plural": "Quota tokens",
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="UsageRecord",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "call_id",
                    django_quota.fields.IdentifierField(
                        help_text="The id of the completion, which is recorded once.",
                        max_length=100,
                        verbose_name="call id",
                    ),
                ),
                (
                    "model",
                    models.CharField(blank=True, default="", max_length=100, verbose_name="model"),
                ),
                (
                    "prompt_tokens",
                    models.PositiveBigIntegerField(default=0, verbose_name="prompt tokens"),
                ),
                (
                    "completion_tokens",
                    models.PositiveBigIntegerField(default=0, verbose_name="completion tokens"),
                ),
                (
                    "cached_tokens",
                    models.PositiveBigIntegerField(
                        default=0,
                        help_text=(
                            "The prompt tokens that the model's provider read from its cache."
                        ),
                        verbose_name="cached tokens",
                    ),
                ),
                (
                    "reasoning_tokens",
                    models.PositiveBigIntegerField(
                        default=0,
                        help_text="The completion tokens that the model spent on reasoning.",
                        verbose_name="reasoning tokens",
                    ),
                ),
                (
                    "credits_used",
                    models.BigIntegerField(
                        blank=True,
                        help_text="1,000,000 credits are $1.00. Empty if a stream ended early.",
                        null=True,
                        verbose_name="credits used",
                    ),
                ),
                (
                    "balance_after",
                    models.BigIntegerField(blank=True, null=True, verbose_name="balance after"),
                ),
                (
                    "complete",
                    models.BooleanField(
                        default=True,
                        help_text="True if the whole answer arrived.",
                        verbose_name="complete",
                    ),
                ),
                (
                    "acted_by",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text=(
                            "The name of the person who acted as the user; empty if the user made "
                            "the call."
                        ),
                        max_length=255,
                        verbose_name="acted by",
                    ),
                ),
                (
                    "purpose",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="What the call was for, from `billed_for(purpose=...)`.",
                        max_length=100,
                        verbose_name="purpose",
                    ),
                ),
                (
                    "object_type",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text=(
                            "The model of `billed_for(object=...)`, such as `reports.report`."
                        ),
                        max_length=200,
                        verbose_name="object type",
                    ),
                ),
                (
                    "object_id",
                    models.CharField(
                        blank=True, default="", max_length=100, verbose_name="object id"
                    ),
                ),
                (
                    "request_id",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="The id of the HTTP request at Quota, to quote to its support.",
                        max_length=100,
                        verbose_name="request id",
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, verbose_name="created at"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quota_usage",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "usage record",
                "verbose_name_plural": "usage records",
            },
        ),
        migrations.CreateModel(
            name="WebhookEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "event_id",
                    django_quota.fields.IdentifierField(
                        max_length=255, unique=True, verbose_name="event id"
                    ),
                ),
                ("type", models.CharField(db_index=True, max_length=100, verbose_name="type")),
                ("body", models.TextField(verbose_name="body")),
                (
                    "created_at",
                    models.DateTimeField(
                        help_text="The time that Quota gives.", verbose_name="created at"
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_index=True, default=django.utils.timezone.now, verbose_name="received at"
                    ),
                ),
                (
                    "handled_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="handled at"),
                ),
                ("claimed_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                (
                    "last_failure",
                    models.CharField(
                        blank=True, default="", max_length=100, verbose_name="last failure"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        help_text="The user that the event is about, if this site knows them.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="quota_events",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "webhook event",
                "verbose_name_plural": "webhook events",
            },
        ),
        migrations.AddConstraint(
            model_name="provideraccount",
            constraint=models.UniqueConstraint(
                fields=("provider", "external_id"), name="quota_account_unique_identity"
            ),
        ),
        migrations.AddConstraint(
            model_name="provideraccount",
            constraint=models.UniqueConstraint(
                fields=("user", "provider"), name="quota_account_unique_per_user"
            ),
        ),
        migrations.AddIndex(
            model_name="quotatoken",
            index=models.Index(fields=["last_failure_at", "id"], name="quota_by_failure"),
        ),
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(fields=["user", "created_at"], name="quota_usage_by_day"),
        ),
        migrations.AddConstraint(
            model_name="usagerecord",
            constraint=models.UniqueConstraint(
                fields=("user", "call_id"), name="quota_usage_unique_call"
            ),
        ),
    ]
