"""The wheel works far from here, the source release passes its tests, and a clone stays clean.

Usage: python tests/wheel_check.py DIRECTORY-OF-BOTH-RELEASES
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "django_quota"

#: What uses the wheel as a project does.
PROJECT = CHECKOUT / "tests" / "programs" / "use_wheel.py"


def shipped() -> set[str]:
    """The files of the package that a user needs, from the checkout."""
    return {
        str(path.relative_to(CHECKOUT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def install(python: Path, wheel: str) -> None:
    if subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=False).returncode:
        raise SystemExit(f"{wheel} was not tried: pip could not install what it depends on.")


def check_wheel(wheel: Path, elsewhere: Path) -> None:
    """All files of the package and no others are in `wheel`, and it works without any extra."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    missing, foreign = shipped() - names, names - shipped()
    if missing or foreign:
        raise SystemExit(f"missing from the wheel: {missing}; not ours in it: {foreign}")
    print(f"{wheel.name}: all {len(names)} files of the package and nothing else")
    venv.create(elsewhere, with_pip=True)
    python = elsewhere / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install(python, str(wheel))
    if subprocess.run([python, "-P", PROJECT], check=False, cwd=elsewhere).returncode:
        raise SystemExit(f"{wheel.name} does not work without the checkout; the reason is above.")
    check_sandbox(python, wheel, elsewhere)


def check_sandbox(python: Path, wheel: Path, elsewhere: Path) -> None:
    """The extra `sandbox` is all that a local Quota needs: no project, no other extra."""
    install(python, f"{wheel}[sandbox]")
    command = [str(python), "-m", "django_quota.sandbox", "--port", "0"]
    with subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        said = sandbox.stdout.readline()
        sandbox.terminate()
    if "ready at http://127.0.0.1:" not in said:
        raise SystemExit(f"The sandbox does not run from the wheel alone: {said!r}")
    print(said.strip())


# Without Django, with a database, with the sandbox, and what reads the repository.
SOURCE_TESTS = ["tests/oidc/test_id_token.py", "tests/tokens", "tests/sandbox"]
SOURCE_TESTS += ["tests/test_docs.py", "tests/test_packaging.py"]
SOURCE_TESTS += [
    "-m",
    "not (storm or fuzz or browser or process or slow or neighbour or framework)",
]


def check_source_release(sdist: Path, elsewhere: Path) -> None:
    """All tests are found in the unpacked source release, and one file of each kind passes there.

    The checkout's own run has passed the others.
    """
    with tarfile.open(sdist) as archive:
        archive.extractall(elsewhere, filter="data")
    (root,) = elsewhere.iterdir()
    print(f"{sdist.name}: its own tests", flush=True)
    pytest = [sys.executable, "-m", "pytest", "-q"]
    for words in (["--collect-only", "-qq", "-m", ""], SOURCE_TESTS):
        if subprocess.run([*pytest, *words], check=False, cwd=root).returncode:
            raise SystemExit(f"{sdist.name} does not pass its own tests; they are named above.")


def check_clone_stays_clean(elsewhere: Path) -> None:
    """`pip install CLONE` leaves no file there: a stale one could get into the next wheel."""
    if not (CHECKOUT / ".git").exists() or not shutil.which("git"):
        print("not a clone, or no git here, so there is none to install from")
        return
    clone, target = elsewhere / "clone", elsewhere / "target"
    if subprocess.run(["git", "clone", "-q", CHECKOUT, clone], check=False).returncode:
        raise SystemExit(f"git could not clone {CHECKOUT}; it says why above.")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    if subprocess.run([*pip, "--target", str(target), str(clone)], check=False).returncode:
        raise SystemExit(f"pip could not install {clone}; it says why above.")
    status = ["git", "status", "--porcelain", "--ignored"]
    left = subprocess.run(status, check=True, cwd=clone, capture_output=True, text=True).stdout
    if left:
        raise SystemExit(f"pip install left files in the clone:\n{left}")
    print("pip install leaves nothing in a clone")


def main() -> None:
    releases = Path(sys.argv[1])
    (wheel,), (sdist,) = releases.glob("*.whl"), releases.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as elsewhere:
        for folder in ("wheel", "source", "clone"):
            Path(elsewhere, folder).mkdir()
        check_wheel(wheel, Path(elsewhere, "wheel"))
        check_source_release(sdist, Path(elsewhere, "source"))
        check_clone_stays_clean(Path(elsewhere, "clone"))


if __name__ == "__main__":
    main()
