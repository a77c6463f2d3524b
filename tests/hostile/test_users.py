"""The same rules for projects with another user model: see custom_users/."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.helpers.programs import GIVE_UP_AFTER
from tests.programs import user_model


@pytest.mark.process
@pytest.mark.source("Django: AUTH_USER_MODEL")
@pytest.mark.parametrize(
    "model",
    [
        "EmailUser",
        "UUIDUser",
        "BareUser",
        "DocsUser",
        "UniqueEmailUser",
        "MaybeEmailUser",
        "OddEmailUser",
        "NumberedUser",
        "IntegerUser",
        "TwoEmailsUser",
    ],
)
def test_another_user_model(model: str, tmp_path: Path) -> None:
    """In a process of its own, as the user model cannot be changed after Django has started."""
    output = tmp_path / "output"
    fork_server = multiprocessing.get_context("forkserver")
    fork_server.set_forkserver_preload([user_model.__name__])
    process = fork_server.Process(target=user_model.run_cases, args=(model, output))
    process.start()
    process.join(GIVE_UP_AFTER)
    process.kill()
    process.join()
    assert process.exitcode == 0, output.read_text() if output.exists() else "no output"
