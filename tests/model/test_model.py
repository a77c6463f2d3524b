"""The model of the renewal has no violation, and each of its rules prevents one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.model.engine import Config, Rules
from tests.model.explore import SMALL, explore


@pytest.mark.parametrize("config", SMALL, ids=lambda config: ", ".join(config.actors))
def test_small_configuration_has_no_violation(config: Config) -> None:
    assert explore(config).violations == {}


@pytest.mark.slow
@pytest.mark.parametrize("rule", [rule.name for rule in fields(Rules)])
def test_without_a_rule_there_is_a_violation(rule: str) -> None:
    without = Rules(**{rule: False})

    assert any(explore(replace(config, rules=without)).violations for config in SMALL)


def test_crash_after_the_answer_is_the_only_loss_that_is_excused() -> None:
    """A state that excuses everything would prove nothing: without faults nothing is excused."""
    config = Config(("caller", "caller", "sign-in"))

    assert explore(config).violations == {}
    assert explore(config).states > 100
