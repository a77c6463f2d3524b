"""Run a TestCase of a project whose whole test database is one connection's, in memory."""

import os
import unittest

import django
from django.conf import settings
from django.test import TestCase
from django.test.runner import DiscoverRunner


class RenewalInATransaction(TestCase):
    def test_is_refused_without_the_helper(self) -> None:
        from django_quota.exceptions import RefreshImpossibleHere
        from django_quota.testing import renewals_in_this_transaction
        from django_quota.tokens.access import get_access_token
        from tests.light_provider import LightProvider
        from tests.storms.crew import make_users

        with LightProvider() as quota, self.settings(QUOTA_BASE_URL=quota.origin):
            (user,) = make_users(1)
            with self.assertRaises(RefreshImpossibleHere):
                get_access_token(user)
            assert not quota.counts.sent
            with renewals_in_this_transaction():
                assert get_access_token(user) == "quota_token_u0.1"


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"  # SQLite, whatever the test uses
    settings.DATABASES["default"].update(TEST={"NAME": ":memory:"})
    django.setup()
    runner = DiscoverRunner(verbosity=0)
    databases = runner.setup_databases()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(RenewalInATransaction)
    assert runner.run_suite(suite).wasSuccessful()
