"""The pages without Quota: `python manage.py test`. Nothing here uses the network."""

from django.contrib.auth import get_user_model
from django.test import TestCase
from django.urls import reverse


class PagesTests(TestCase):
    def test_home_offers_to_sign_in(self):
        self.assertContains(self.client.get("/"), reverse("django_quota:start"))

    def test_chat_sends_a_visitor_to_sign_in(self):
        response = self.client.get("/chat", headers={"accept": "text/html"})

        self.assertEqual(response["Location"], "/auth/quota/start?next=%2Fchat")

    def test_home_offers_to_connect_a_wallet(self):
        self.client.force_login(get_user_model().objects.create_user("ada"))

        self.assertContains(self.client.get("/"), reverse("django_quota:connect"))
