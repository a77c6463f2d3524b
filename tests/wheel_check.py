"""Install the wheel into a virtual environment of its own, far from this checkout, and use it.

Usage: python tests/wheel_check.py DIRECTORY-OF-THE-WHEEL
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "django_quota"

SCRIPT = """
import sys, types
import django, django_quota
from django.conf import settings
settings.configure(
    MIDDLEWARE=["django_quota.middleware.QuotaMiddleware"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.sessions", "django.contrib.staticfiles", "django_quota"],
    AUTHENTICATION_BACKENDS=["django_quota.backends.QuotaBackend"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF="project_urls", STATIC_URL="/static/", SECRET_KEY="x" * 60,
    QUOTA_CLIENT_ID="quota_client_x", QUOTA_CLIENT_SECRET="quota_secret_x",
    FIELD_ENCRYPTION_KEY="vX3nCwr9nK8x0NQ2Pq7m3dZ1l5yTtG6hR4bJ8sKfE0U=",
)
django.setup()
from django.urls import include, path
urls = sys.modules["project_urls"] = types.ModuleType("project_urls")
urls.urlpatterns = [path("auth/quota/", include("django_quota.urls"))]
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template
call_command("check", fail_level="WARNING", verbosity=0)
call_command("migrate", verbosity=0)
call_command("makemigrations", check=True, dry_run=True, verbosity=0)
for name in ("error", "packages", "connect_confirm", "base", "tags/sign_in", "tags/balance"):
    get_template(f"django_quota/{name}.html")
assert finders.find("django_quota/quota.css"), "quota.css"
print("used from", django_quota.__file__)
"""


def shipped() -> set[str]:
    """The files of the package that a user needs, from the checkout."""
    return {
        str(path.relative_to(CHECKOUT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    missing, foreign = shipped() - names, names - shipped()
    if missing or foreign:
        raise SystemExit(f"missing from the wheel: {missing}; not ours in it: {foreign}")
    print(f"{wheel.name}: all {len(names)} files of the package and nothing else")
    with tempfile.TemporaryDirectory() as elsewhere:
        venv.create(elsewhere, with_pip=True)
        python = Path(elsewhere) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
        subprocess.run([python, "-c", SCRIPT], check=True, cwd=elsewhere)


if __name__ == "__main__":
    main()
