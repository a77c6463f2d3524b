"""django_quota.pending: sign-ins that are under way, bound to one browser and good for once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import FrozenInstanceError, replace

import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.cache import SessionStore

from django_quota.web.pending import LIFETIME, MAX_PENDING, PendingSignIn, pop, save

CALLBACK = "http://localhost/auth/quota/callback"


@pytest.fixture
def session() -> SessionBase:
    return SessionStore()


def started(**changes: object) -> PendingSignIn:
    return replace(PendingSignIn(redirect_uri=CALLBACK), **changes)  # type: ignore[arg-type]


class TestNew:
    def test_is_like_no_other(self) -> None:
        one, other = started(), started()

        assert one.state != other.state
        assert one.nonce != other.nonce
        assert one.code_verifier != other.code_verifier
        assert len({one.state, one.nonce, one.code_verifier}) == 3

    def test_is_random_enough(self) -> None:
        """128 bits at least, as in the recipe; six bits to a character."""
        pending = started()
        assert len(pending.state) * 6 >= 128
        assert len(pending.nonce) * 6 >= 128

    def test_has_a_verifier_as_rfc_7636_wants_it(self) -> None:
        assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", started().code_verifier)

    def test_has_the_challenge_of_rfc_7636_appendix_b(self) -> None:
        pending = started(code_verifier="dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")

        assert pending.code_challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    def test_has_the_challenge_of_its_own_verifier(self) -> None:
        pending = started()
        digest = hashlib.sha256(pending.code_verifier.encode()).digest()

        assert base64.urlsafe_b64decode(pending.code_challenge + "=") == digest

    def test_repr_shows_no_secret(self) -> None:
        pending = started()
        assert pending.nonce not in repr(pending)
        assert pending.code_verifier not in repr(pending)

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(FrozenInstanceError):
            started().state = "x"  # type: ignore[misc]


class TestTake:
    def test_gives_back_what_was_kept(self, session: SessionBase) -> None:
        pending = started(next="/next?a=b", user_pk="7", replaces="sub-1")
        save(session, pending)

        assert pop(session, pending.state) == pending

    def test_survives_the_sessions_serializer(self, session: SessionBase) -> None:
        pending = started()
        save(session, pending)
        again = SessionStore()
        again.update(session.decode(session.encode(dict(session.items()))))

        assert pop(again, pending.state) == pending

    def test_is_possible_once(self, session: SessionBase) -> None:
        pending = started()
        save(session, pending)
        pop(session, pending.state)

        assert pop(session, pending.state) is None

    @pytest.mark.parametrize("state", [None, "", "other", " ", "é", "\x00"])
    def test_of_an_unknown_state_is_nothing(self, state: str | None, session: SessionBase) -> None:
        save(session, started())

        assert pop(session, state) is None

    def test_of_an_unknown_state_leaves_the_others(self, session: SessionBase) -> None:
        """Else anybody could end a sign-in that is under way, by an image tag."""
        pending = started()
        save(session, pending)
        session.modified = False
        pop(session, "other")

        assert not session.modified
        assert pop(session, pending.state) == pending

    @pytest.mark.parametrize("cut", [slice(0, -1), slice(1, None)])
    def test_wants_the_whole_state(self, cut: slice, session: SessionBase) -> None:
        pending = started()
        save(session, pending)

        assert pop(session, pending.state[cut]) is None

    def test_of_one_tab_leaves_the_other(self, session: SessionBase) -> None:
        one, other = started(next="/1"), started(next="/2")
        save(session, one)
        save(session, other)

        assert pop(session, other.state) == other
        assert pop(session, one.state) == one

    def test_from_another_browser_is_nothing(self, session: SessionBase) -> None:
        pending = started()
        save(session, pending)

        assert pop(SessionStore(), pending.state) is None

    def test_just_in_time(self, session: SessionBase) -> None:
        pending = started(started_at=time.time() - LIFETIME + 5)
        save(session, pending)

        found = pop(session, pending.state)
        assert found == pending and not found.is_expired

    @pytest.mark.parametrize("age", [LIFETIME + 1, 10 * LIFETIME, -120])
    def test_too_late_is_said_and_forgotten(self, age: float, session: SessionBase) -> None:
        pending = started(started_at=time.time() - age)
        save(session, pending)

        found = pop(session, pending.state)
        assert found is not None and found.is_expired
        assert pending.state not in json.dumps(dict(session.items()))

    def test_stamped_by_a_server_whose_clock_is_a_little_ahead(self, session: SessionBase) -> None:
        pending = started(started_at=time.time() + 30)
        save(session, pending)

        found = pop(session, pending.state)
        assert found == pending and not found.is_expired

    def test_marks_the_session_to_be_saved(self, session: SessionBase) -> None:
        pending = started()
        save(session, pending)
        session.modified = False
        pop(session, pending.state)

        assert session.modified

    def test_of_what_another_version_of_this_package_kept_is_nothing(
        self, session: SessionBase
    ) -> None:
        """People are signing in while a site is being deployed: an error page would be wrong."""
        pending = started()
        save(session, pending)
        ((key, items),) = session.items()
        for item in items:
            item["from_the_future"] = 1
            del item["redirect_uri"]
        session[key] = items

        assert pop(session, pending.state) is None

    @pytest.mark.parametrize("state", [None, "", "None"])
    def test_of_no_state_does_not_find_what_was_kept_without_one(
        self, state: str | None, session: SessionBase
    ) -> None:
        save(session, started())
        ((key, items),) = session.items()
        del items[0]["state"]
        session[key] = items

        assert pop(session, state) is None


class TestKeep:
    def test_marks_the_session_to_be_saved(self, session: SessionBase) -> None:
        session.modified = False
        save(session, started())

        assert session.modified

    def test_drops_the_oldest_for_the_one_too_many(self, session: SessionBase) -> None:
        kept = [started() for _ in range(MAX_PENDING + 1)]
        for pending in kept:
            save(session, pending)

        assert pop(session, kept[0].state) is None
        assert [pop(session, pending.state) for pending in kept[1:]] == kept[1:]

    def test_does_not_let_the_session_grow(self, session: SessionBase) -> None:
        for _ in range(MAX_PENDING):
            save(session, started())
        full = len(session.encode(dict(session.items())))
        for _ in range(50):
            save(session, started())

        assert len(session.encode(dict(session.items()))) < full * 1.1

    def test_leaves_the_rest_of_the_session_alone(self, session: SessionBase) -> None:
        session["cart"] = [1]
        pending = started()
        save(session, pending)
        pop(session, pending.state)

        assert session["cart"] == [1]
