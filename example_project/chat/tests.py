"""The pages without Quota: `python manage.py test`. Nothing here uses the network."""

from django.contrib.auth import get_user_model
from django.test import TestCase
from django.urls import reverse

from .models import Exchange, conversation
from .tools import look_up_spending


class PagesTests(TestCase):
    def test_home_offers_to_sign_in(self):
        self.assertContains(self.client.get("/"), reverse("django_quota:start"))

    def test_chat_sends_a_visitor_to_sign_in(self):
        response = self.client.get("/chat", headers={"accept": "text/html"})

        self.assertEqual(response["Location"], "/auth/quota/start?next=%2Fchat")

    def test_home_offers_to_connect_a_wallet(self):
        self.client.force_login(get_user_model().objects.create_user("ada"))

        self.assertContains(self.client.get("/"), reverse("django_quota:connect"))

    def test_usage_sends_a_visitor_to_sign_in(self):
        response = self.client.get(reverse("django_quota:usage"), headers={"accept": "text/html"})

        self.assertEqual(response.status_code, 302)


class ConversationTests(TestCase):
    def setUp(self):
        self.ada = get_user_model().objects.create_user("ada")

    def exchange(self, question, user=None):
        return Exchange(user=user or self.ada, question=question, answer="Yes", max_tokens=150)

    def test_only_the_last_exchanges_are_kept(self):
        for number in range(Exchange.KEPT + 2):
            self.exchange(str(number)).keep()

        kept = [exchange.question for exchange in conversation(self.ada)]
        self.assertEqual(kept, ["2", "3", "4", "5", "6", "7"])

    def test_exchanges_of_others_are_neither_shown_nor_deleted(self):
        bob = get_user_model().objects.create_user("bob")
        self.exchange("of bob", bob).keep()
        for number in range(Exchange.KEPT + 2):
            self.exchange(str(number)).keep()

        self.assertEqual([e.question for e in conversation(bob)], ["of bob"])

    def test_tool_stands_any_arguments_of_a_model(self):
        for arguments, days in (
            ('{"days": 3}', 3),
            ('{"days": 1000}', 30),
            ('{"days": -1}', 1),
            ('{"days": Infinity}', 7),
            ('{"days": "x"}', 7),
            ("[]", 7),
            ("{", 7),
        ):
            self.assertEqual(
                look_up_spending(self.ada, arguments), {"days": days, "calls": 0, "credits": 0}
            )
