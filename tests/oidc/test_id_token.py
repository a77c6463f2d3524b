"""django_quota.id_token: what is believed of an id_token, and what is refused and why."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import jwt
import pytest
from jwt.algorithms import RSAAlgorithm

from django_quota.exceptions import SignInFailed
from django_quota.oidc import id_token
from django_quota.oidc.id_token import (
    Identity,
    key_id,
    unverified_claims,
    usable_keys,
    validate,
    verify,
)
from tests.shown import shown
from tests.signing import (
    CLIENT_ID,
    ISSUER,
    NONCE,
    NOW,
    b64,
    claims,
    ec_jwk,
    forge,
    forge_hmac,
    jwk,
    okp_jwk,
    public_pem,
    rsa_key,
    sign,
)

LEEWAY = 60
RS256 = {"alg": "RS256", "kid": "k1"}


def keys(*members: Any) -> list[jwt.PyJWK]:
    return usable_keys({"keys": list(members or [jwk()])})


def check(token: object, **changes: Any) -> Identity:
    arguments = {
        "issuer": ISSUER,
        "audience": CLIENT_ID,
        "nonce": NONCE,
        "access_token": "quota_token_hush",
        "now": NOW,
        "leeway": LEEWAY,
    }
    claims = verify(token, changes.pop("keys", keys()))
    return validate(claims, **(arguments | changes))  # type: ignore[arg-type]


def refusal(token: object, **changes: Any) -> str:
    with pytest.raises(SignInFailed) as raised:
        check(token, **changes)
    assert raised.value.code == "invalid_id_token"
    return str(raised.value)


def refusal_of(**changes: Any) -> str:
    """Why a token that is honest but for these claims is refused."""
    return refusal(sign(claims(**changes)))


def test_an_honest_token_names_the_person() -> None:
    identity = check(sign(claims(email="ada@example.com", email_verified=True, name="Ada")))

    assert identity.issuer == ISSUER
    assert identity.subject == "8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11"
    assert (identity.email, identity.email_verified) == ("ada@example.com", True)
    assert identity.name == "Ada"
    assert identity.claims["nonce"] == NONCE


class TestSignature:
    def test_by_another_key(self) -> None:
        assert "signature is wrong" in refusal(sign(key="attacker"))

    def test_of_another_payload(self) -> None:
        header, _, signature = sign().split(".")
        payload = b64(json.dumps(claims(sub="somebody-else")).encode())

        assert "signature is wrong" in refusal(f"{header}.{payload}.{signature}")

    @pytest.mark.parametrize("cut", [1, 10, 342])
    def test_that_is_cut_off(self, cut: int) -> None:
        refusal(sign()[:-cut])

    def test_that_is_empty(self) -> None:
        assert "signature is wrong" in refusal(forge(RS256, claims(), b""))

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 7, ["RS256"]])
    def test_none_at_all(self, alg: Any) -> None:
        assert "not signed with RS256" in refusal(forge({"alg": alg}, claims(), b""))

    def test_without_an_algorithm(self) -> None:
        refusal(forge({"kid": "k1"}, claims()))

    def test_with_the_client_secret(self) -> None:
        token = forge_hmac({"alg": "HS256", "kid": "k1"}, claims(), b"quota_secret_test")

        assert "not signed with RS256" in refusal(token)

    def test_with_the_public_key_taken_for_a_secret(self) -> None:
        """RFC 8725 section 2.1."""
        token = forge_hmac({"alg": "HS256", "kid": "k1"}, claims(), public_pem())

        assert "not signed with RS256" in refusal(token)

    def test_with_a_secret_under_the_name_of_rs256(self) -> None:
        assert "signature is wrong" in refusal(forge_hmac(RS256, claims(), public_pem()))

    @pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "rs256", "RS256 "])
    def test_with_another_algorithm_than_ours(self, alg: str) -> None:
        assert "not signed with RS256" in refusal(forge({"alg": alg, "kid": "k1"}, claims()))

    def test_the_tokens_own_key_is_not_used(self) -> None:
        header = RS256 | {"jwk": jwk(name="attacker"), "jku": "https://evil.example/jwks"}

        assert "signature is wrong" in refusal(forge(header, claims(), key="attacker"))


class TestKid:
    def test_chooses_among_several(self) -> None:
        several = keys(jwk("k0", name="attacker"), jwk("k1"))

        assert check(sign(kid="k1"), keys=several)

    def test_of_another_key_is_not_tried_with_all(self) -> None:
        several = keys(jwk("k0"), jwk("k1", name="attacker"))

        assert "signature is wrong" in refusal(sign(kid="k1"), keys=several)

    def test_unknown(self) -> None:
        assert "0 of Quota's keys fit" in refusal(sign(kid="k2"))

    def test_ambiguous(self) -> None:
        twins = keys(jwk("k1"), jwk("k1", name="attacker"))

        assert "2 of Quota's keys fit" in refusal(sign(), keys=twins)

    def test_missing_with_one_key(self) -> None:
        assert check(sign(kid=None))

    def test_missing_with_several_keys(self) -> None:
        several = keys(jwk("k1"), jwk("k2", name="attacker"))

        assert "2 of Quota's keys fit" in refusal(sign(kid=None), keys=several)

    def test_missing_in_the_only_key(self) -> None:
        assert "0 of Quota's keys fit" in refusal(sign(kid="k1"), keys=keys(jwk(None)))

    def test_empty_is_not_missing(self) -> None:
        assert "0 of Quota's keys fit" in refusal(forge(RS256 | {"kid": ""}, claims()))

    def test_without_any_keys(self) -> None:
        assert "0 of Quota's keys fit" in refusal(sign(kid=None), keys=[])

    @pytest.mark.parametrize("kid", [7, 1.5, True, ["k1"], {"k": 1}])
    def test_that_is_no_string(self, kid: Any) -> None:
        refusal(forge(RS256 | {"kid": kid}, claims()))


class TestAccessTokenHash:
    """The example of OpenID Connect Core 1.0, appendix A.3."""

    ACCESS_TOKEN = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
    AT_HASH = "77QmUPtjPfzWtF2AnpK9RQ"

    def test_that_fits_is_accepted(self) -> None:
        assert check(sign(claims(at_hash=self.AT_HASH)), access_token=self.ACCESS_TOKEN)

    @pytest.mark.parametrize("value", [..., None])
    def test_need_not_be_there(self, value: Any) -> None:
        assert check(sign(claims(at_hash=value)), access_token=self.ACCESS_TOKEN)

    def test_of_another_access_token_is_refused(self) -> None:
        assert "at_hash" in refusal(sign(claims(at_hash=self.AT_HASH)), access_token="another")

    @pytest.mark.parametrize(
        "value", ["", AT_HASH + "==", AT_HASH.lower(), AT_HASH[:-1], 7, True, [AT_HASH], {}]
    )
    def test_that_is_none_is_refused(self, value: Any) -> None:
        token = sign(claims(at_hash=value))
        assert "at_hash" in refusal(token, access_token=self.ACCESS_TOKEN)


class TestShape:
    @pytest.mark.parametrize("token", [None, "", 7, b"bytes", ["a.b.c"], {"id_token": "a.b.c"}])
    def test_that_is_no_text(self, token: object) -> None:
        assert "no usable id_token" in refusal(token)

    def test_of_a_megabyte(self) -> None:
        assert "too long" in refusal("a" * 1_000_000)

    def test_token_of_the_greatest_length_is_accepted(self) -> None:
        shorter = sign(claims(padding="x" * 48_000))
        left = (id_token.MAX_TOKEN_LENGTH - len(shorter)) * 3 // 4
        token = sign(claims(padding="x" * (48_000 + left)))

        assert len(token) == id_token.MAX_TOKEN_LENGTH == 64 * 1024
        assert check(token)

    def test_token_longer_than_the_greatest_length_is_refused(self) -> None:
        token = sign(claims(padding="x" * 49_000))
        assert len(token) > id_token.MAX_TOKEN_LENGTH
        assert "too long" in refusal(token)

    @pytest.mark.parametrize(
        "token",
        [
            "opaque",
            "..",
            "a.b",
            "a.b.c.d",
            "\ud800.\ud800.\ud800",
            "é.é.é",
            "a b.c d.e f",
            "\x00.\x00.\x00",
            "eyJhbGciOiJSUzI1NiJ9..",
        ],
    )
    def test_that_is_no_jwt(self, token: str) -> None:
        refusal(token)

    def test_of_an_encrypted_token(self) -> None:
        """RFC 7516: five parts."""
        header = b64(b'{"alg":"RSA-OAEP","enc":"A256GCM"}')
        refusal(f"{header}.a2V5.aXY.Y2lwaGVydGV4dA.dGFn")

    @pytest.mark.parametrize("payload", [b"[]", b'"text"', b"7", b"null", b"{", b"\xff", b""])
    def test_whose_claims_are_no_object(self, payload: bytes) -> None:
        assert "not a JWT" in refusal(forge(RS256, payload))

    @pytest.mark.parametrize("header", [b"[]", b'"text"', b"null", b"{", b"\xff", b""])
    def test_whose_header_is_no_object(self, header: bytes) -> None:
        refusal(forge(header, claims()))

    def test_with_deeply_nested_claims(self) -> None:
        refusal(forge(RS256, b'{"a":' * 2000 + b"1" + b"}" * 2000))

    def test_with_a_deeply_nested_header(self) -> None:
        refusal(forge(b"[" * 11_000, claims()))

    def test_with_a_number_too_long_to_read(self) -> None:
        """Python refuses to turn more than 4300 digits into a number, by a ValueError."""
        refusal(forge(RS256, b'{"exp":' + b"9" * 5000 + b"}"))

    @pytest.mark.parametrize("crit", [["exp"], ["b64"], [], None, "exp"])
    def test_with_critical_headers(self, crit: Any) -> None:
        """RFC 7515 section 4.1.11: what is not understood must be refused."""
        assert "(crit" in refusal(forge(RS256 | {"crit": crit, "exp": 1}, claims()))

    def test_critical_header_that_pyjwt_understands_is_refused(self) -> None:
        """RFC 7797: PyJWT may follow `b64`, and then checks another text than it reads."""
        with pytest.raises(SignInFailed, match="crit"):
            key_id(forge(RS256 | {"crit": ["b64"], "b64": True}, claims()))

    def test_with_an_unencoded_payload(self) -> None:
        refusal(forge(RS256 | {"b64": False}, claims()))

    def test_reasons_do_not_repeat_the_token(self) -> None:
        token = sign(claims(sub="ada-the-person"), key="attacker")
        with pytest.raises(SignInFailed) as raised:
            check(token)

        text = shown(raised.value)
        assert not any(part in text for part in [*token.split("."), "ada-the-person"])


class TestParties:
    @pytest.mark.parametrize(
        "iss",
        [None, "", 7, [ISSUER], "https://evil.example", f"{ISSUER}/", ISSUER.upper()],
    )
    def test_foreign_issuer(self, iss: Any) -> None:
        assert "iss is not the issuer" in refusal_of(iss=iss)

    @pytest.mark.parametrize(
        "aud",
        [
            None,
            "",
            7,
            [],
            {CLIENT_ID: 1},
            "quota_client_other",
            f"{CLIENT_ID} ",
            f"x{CLIENT_ID}",
            CLIENT_ID.upper(),
            ["quota_client_other"],
            [[CLIENT_ID]],
        ],
    )
    def test_foreign_audience(self, aud: Any) -> None:
        assert "aud is not our client id" in refusal_of(aud=aud)

    def test_a_part_of_the_audience_is_not_the_audience(self) -> None:
        assert "aud" in refusal_of(aud=f"{CLIENT_ID}-and-more")

    def test_audience_in_a_list_of_one(self) -> None:
        assert check(sign(claims(aud=[CLIENT_ID])))

    def test_several_audiences_with_azp(self) -> None:
        assert check(sign(claims(aud=[ISSUER, CLIENT_ID], azp=CLIENT_ID)))

    @pytest.mark.parametrize("other", ["other", "", None, 7, ["other"], {}, f"{ISSUER}/"])
    def test_somebody_else_in_the_audience(self, other: Any) -> None:
        assert "names another audience" in refusal_of(aud=[CLIENT_ID, other], azp=CLIENT_ID)

    @pytest.mark.parametrize("azp", [..., None])
    def test_several_audiences_without_azp(self, azp: Any) -> None:
        assert "no azp" in refusal_of(aud=[ISSUER, CLIENT_ID], azp=azp)

    @pytest.mark.parametrize("azp", ["other", "", 7, False, [CLIENT_ID], f"{CLIENT_ID} "])
    @pytest.mark.parametrize("aud", [CLIENT_ID, [CLIENT_ID], [CLIENT_ID, ISSUER]])
    def test_foreign_azp(self, azp: Any, aud: Any) -> None:
        assert "azp is not our client id" in refusal_of(aud=aud, azp=azp)

    def test_our_azp_does_not_make_a_foreign_audience_ours(self) -> None:
        assert "aud" in refusal_of(aud="other", azp=CLIENT_ID)

    @pytest.mark.parametrize(
        "sub", [None, "", 7, True, ["a"], {"a": 1}, "a\x00b", "a\nb", "\ud800", "\u202ea"]
    )
    def test_unusable_subject(self, sub: Any) -> None:
        assert "no usable sub" in refusal_of(sub=sub)

    def test_longest_subject(self) -> None:
        assert check(sign(claims(sub="s" * 255))).subject == "s" * 255

    def test_subject_longer_than_the_standard_allows(self) -> None:
        assert "sub is too long" in refusal_of(sub="s" * 256)

    @pytest.mark.parametrize("sub", ["Ada", "ada", "8c5f|x@y z"])
    def test_subject_is_kept_to_the_letter(self, sub: str) -> None:
        assert check(sign(claims(sub=sub))).subject == sub


class TestRequiredClaims:
    @pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "iat", "nonce"])
    def test_missing(self, name: str) -> None:
        assert refusal_of(**{name: ...}) == f"the id_token has no {name}"


class TestTimes:
    @pytest.mark.parametrize("exp", [NOW - LEEWAY + 1, NOW - LEEWAY + 0.5, NOW, NOW + 10**10])
    def test_not_expired(self, exp: float) -> None:
        assert check(sign(claims(exp=exp)))

    @pytest.mark.parametrize("exp", [NOW - LEEWAY, NOW - LEEWAY - 0.5, 0, -1])
    def test_expired(self, exp: float) -> None:
        assert "has expired (exp)" in refusal_of(exp=exp)

    @pytest.mark.parametrize("iat", [NOW + LEEWAY, NOW + LEEWAY - 0.5, NOW - 3600])
    def test_issued_by_now(self, iat: float) -> None:
        assert check(sign(claims(iat=iat)))

    @pytest.mark.parametrize("iat", [NOW + LEEWAY + 0.5, NOW + LEEWAY + 1, NOW * 1000])
    def test_issued_in_the_future(self, iat: float) -> None:
        assert "from the future (iat)" in refusal_of(iat=iat)

    def test_issued_at_the_last_moment_that_is_accepted(self) -> None:
        assert check(sign(claims(iat=NOW - 86_400 - LEEWAY)))

    @pytest.mark.parametrize("iat", [NOW - 86_400 - LEEWAY - 0.5, 0, -1])
    def test_issued_long_ago(self, iat: float) -> None:
        assert "issued long ago (iat)" in refusal_of(iat=iat)

    @pytest.mark.parametrize("nbf", [..., NOW + LEEWAY, NOW, 0])
    def test_valid_by_now(self, nbf: Any) -> None:
        assert check(sign(claims(nbf=nbf)))

    @pytest.mark.parametrize("nbf", [NOW + LEEWAY + 0.5, NOW + LEEWAY + 1])
    def test_not_yet_valid(self, nbf: float) -> None:
        assert "not valid yet (nbf)" in refusal_of(nbf=nbf)

    @pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
    @pytest.mark.parametrize("value", [None, True, False, str(NOW), "", [NOW], {"a": NOW}])
    def test_that_are_no_number(self, name: str, value: Any) -> None:
        assert f"{name} is not a number" in refusal_of(**{name: value})

    @pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
    def test_that_are_not_finite(self, name: str, value: str) -> None:
        """Python reads them, though they are no JSON; no comparison with them means anything."""
        payload = json.dumps(claims(**{name: "HERE"})).replace('"HERE"', value)

        assert name in refusal(forge(RS256, payload.encode()))

    def test_the_clock_is_the_callers(self) -> None:
        token = sign(claims(iat=1000, exp=2000))

        assert check(token, now=1500)
        assert "expired" in refusal(token, now=2060)
        assert "future" in refusal(token, now=939)

    def test_without_leeway(self) -> None:
        assert "expired" in refusal(sign(claims(exp=NOW)), leeway=0)
        assert check(sign(claims(exp=NOW + 1)), leeway=0)


class TestNonce:
    @pytest.mark.parametrize("nonce", [None, 7, True, [NONCE], {"nonce": NONCE}])
    def test_that_is_no_string(self, nonce: Any) -> None:
        assert "nonce is not a string" in refusal_of(nonce=nonce)

    @pytest.mark.parametrize(
        "nonce", ["", "other", NONCE[:-1], f"{NONCE}x", NONCE.upper(), "\ud800", f"{NONCE}\ud800"]
    )
    def test_of_another_sign_in(self, nonce: str) -> None:
        assert "nonce mismatch" in refusal_of(nonce=nonce)

    def test_outside_of_ascii(self) -> None:
        assert "nonce mismatch" in refusal_of(nonce="ñonce")


class TestKeyId:
    def test_of_a_token(self) -> None:
        assert key_id(sign(kid="k7")) == "k7"

    def test_of_a_token_without(self) -> None:
        assert key_id(sign(kid=None)) is None

    def test_needs_no_right_signature(self) -> None:
        """It is asked before the keys are there."""
        assert key_id(forge(RS256, claims(), b"x")) == "k1"

    @pytest.mark.parametrize("token", [None, "opaque", "a" * 20_000, "\ud800"])
    def test_of_something_else(self, token: object) -> None:
        with pytest.raises(SignInFailed) as raised:
            key_id(token)
        assert raised.value.code == "invalid_id_token"


class TestUsableKeys:
    def ids(self, *members: Any) -> list[str | None]:
        return [key.key_id for key in usable_keys({"keys": list(members)})]

    def test_are_all_that_may_sign(self) -> None:
        assert self.ids(jwk("a"), jwk("b", name="attacker")) == ["a", "b"]

    def test_may_leave_out_what_is_optional(self) -> None:
        assert self.ids(jwk(None, use=None, alg=None)) == [None]

    @pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}])
    def test_of_a_strange_document(self, document: Any) -> None:
        assert usable_keys(document) == []

    @pytest.mark.parametrize("member", [None, 7, "key", [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}])
    def test_a_strange_member_does_not_spoil_the_others(self, member: Any) -> None:
        assert self.ids(member, jwk("good"), member) == ["good"]

    @pytest.mark.parametrize("bits", [1024, 2040])
    def test_not_a_weak_one(self, bits: int) -> None:
        """RFC 7518 section 3.3: 2048 bits at least."""
        assert self.ids(jwk("weak", name=f"weak-{bits}", bits=bits)) == []

    def test_not_of_another_kind(self) -> None:
        assert self.ids(ec_jwk(), okp_jwk()) == []

    @pytest.mark.parametrize("kty", ["EC", "OKP", "oct", "rsa", None])
    def test_not_under_the_name_of_another_kind(self, kty: Any) -> None:
        assert self.ids(jwk(kty=kty)) == []

    @pytest.mark.parametrize("use", ["enc", "", 7, ["sig"]])
    def test_not_for_another_use(self, use: Any) -> None:
        assert self.ids(jwk(use=use)) == []

    @pytest.mark.parametrize("alg", ["RS512", "PS256", "HS256", "none", "", 7])
    def test_not_for_another_algorithm(self, alg: Any) -> None:
        assert self.ids(jwk(alg=alg)) == []

    @pytest.mark.parametrize("kid", [7, ["k1"], {"a": 1}, True])
    def test_not_with_a_kid_that_is_no_string(self, kid: Any) -> None:
        assert self.ids(jwk(kid=kid)) == []

    @pytest.mark.parametrize("member", ["n", "e"])
    @pytest.mark.parametrize("value", [None, "", "!", 7, [], "AA", "\ud800"])
    def test_not_a_broken_one(self, member: str, value: Any) -> None:
        assert self.ids(jwk("broken", **{member: value}), jwk("good")) == ["good"]

    def test_not_with_an_exponent_of_one(self) -> None:
        """With e = 1 the message is its own signature."""
        assert self.ids(jwk(e=base64.urlsafe_b64encode(b"\x01").decode())) == []

    def test_key_that_names_no_operations_is_usable(self) -> None:
        assert self.ids(jwk("a", key_ops=None)) == ["a"]

    @pytest.mark.parametrize("operations", [["verify"], ["sign", "verify"]])
    def test_key_for_verifying_is_usable(self, operations: list[str]) -> None:
        assert self.ids(jwk("a", key_ops=operations)) == ["a"]

    @pytest.mark.parametrize("operations", [["sign"], ["encrypt"], [], "verify", {"verify": 1}, 7])
    def test_key_for_other_operations_is_not_usable(self, operations: Any) -> None:
        """RFC 7517 section 4.3."""
        assert self.ids(jwk("a", key_ops=operations)) == []

    def test_private_key_is_not_even_parsed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without its primes PyJWT would look for them, for hours."""
        monkeypatch.delattr("jwt.PyJWK")

        assert self.ids(jwk(d="AQAB")) == []

    def test_not_a_private_one(self) -> None:
        private = RSAAlgorithm.to_jwk(rsa_key(), as_dict=True) | {"kid": "k1"}
        assert self.ids(private) == []


class TestIdentity:
    def of(self, **changes: Any) -> Identity:
        return Identity.from_claims(claims(**changes))

    def test_without_optional_claims(self) -> None:
        identity = self.of()

        assert (identity.email, identity.email_verified) == ("", False)
        assert (identity.name, identity.picture) == ("", "")

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.of().subject = "somebody-else"  # type: ignore[misc]

    def test_repr_leaves_the_claims_out(self) -> None:
        assert NONCE not in repr(self.of())

    @pytest.mark.parametrize("value", ["true", "True", 1, "1", [True], None, False, 0, ...])
    def test_email_is_verified_only_by_true(self, value: Any) -> None:
        assert self.of(email="ada@example.com", email_verified=value).email_verified is False

    @pytest.mark.parametrize(
        "email", ["ada@example.com", "Ada.Lovelace+quota@Example.COM", "ada@exämple.com"]
    )
    def test_email_is_kept_to_the_letter(self, email: str) -> None:
        assert self.of(email=email).email == email

    def test_email_of_the_greatest_length(self) -> None:
        """RFC 5321 section 4.5.3.1, and the width of the column."""
        longest = f"{'a' * 242}@example.com"

        assert (len(longest), self.of(email=longest).email) == (254, longest)
        assert self.of(email=f"a{longest}").email == ""

    @pytest.mark.parametrize(
        "email",
        [
            None,
            "",
            7,
            True,
            ["ada@example.com"],
            "ada",
            "@example.com",
            "ada@",
            "ada@example",
            "ada@example.com\n",
            "ada@example.com\x00",
            "\x00ada@example.com",
            "ada@example.com, eve@example.com",
            "Ada <ada@example.com>",
            "ada\ud800@example.com",
            f"{'a' * 250}@example.com",
            f"a@{'b' * 300}.com",
        ],
    )
    def test_email_that_is_none(self, email: Any) -> None:
        assert self.of(email=email).email == ""

    def test_long_name_is_cut(self) -> None:
        assert self.of(name="n" * 10_000).name == "n" * 255

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("Ada Lovelace", "Ada Lovelace"),
            ("Žofie 李 🙂", "Žofie 李 🙂"),
            ("A\x00d\x1ba\r\n", "Ada"),
            ("\u202eadA", "adA"),
            ("A\ud800da", "Ada"),
            ("\x00" * 300 + "Ada", "Ada"),
            ("<script>", "<script>"),
            (None, ""),
            (7, ""),
            (["Ada"], ""),
        ],
    )
    def test_name_is_one_line(self, name: Any, line: str) -> None:
        assert self.of(name=name).name == line

    @pytest.mark.parametrize(
        "picture", ["https://q.example/a.png", "http://127.0.0.1:5281/avatars/ada.svg"]
    )
    def test_picture(self, picture: str) -> None:
        assert self.of(picture=picture).picture == picture

    @pytest.mark.parametrize(
        "picture",
        [
            None,
            "",
            7,
            ["https://q.example/a.png"],
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            " javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "ftp://q.example/a.png",
            "//q.example/a.png",
            "/a.png",
            "a.png",
            "https://q.example/a\x00.png",
            "https://q.example/a\n.png",
            "https://q.example/\ud800",
            "https://[q.example",
            f"https://q.example/{'a' * 1000}",
        ],
    )
    def test_picture_that_no_browser_should_load(self, picture: Any) -> None:
        assert self.of(picture=picture).picture == ""

    def test_picture_of_the_greatest_length(self) -> None:
        url = "https://q.example/".ljust(1000, "a")
        assert self.of(picture=url).picture == url

    def test_picture_longer_than_the_greatest_length_is_left_out(self) -> None:
        assert self.of(picture="https://q.example/".ljust(1001, "a")).picture == ""


class TestUnverifiedClaims:
    def test_of_a_renewed_token(self) -> None:
        said = claims(sub="ada", exp=1, nonce=...)
        assert unverified_claims(sign(said)) == said

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "opaque",
            "a.b.c",
            "\ud800",
            forge(RS256, b"[]"),
            forge(RS256, b"{"),
            forge(RS256, b"[" * 5000 + b"]" * 5000),
        ],
    )
    def test_something_else(self, token: str) -> None:
        assert unverified_claims(token) == {}
