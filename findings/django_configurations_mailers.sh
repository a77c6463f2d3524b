#!/usr/bin/env bash
# django-configurations 2.5.1 on Django 6.1.
#
# Behaviour seen: a class that sets MAILERS, as the settings of a new Django 6.1 project do, does not
# start: ImproperlyConfigured, "Deprecated email settings are not allowed when MAILERS is defined",
# although it sets none of them. Without MAILERS it starts.
# Why a good guess misses: `Configuration` copies every default of Django into the settings module, so
# to Django each EMAIL_* setting looks as if the project had set it. For the same reason
# `settings.is_overridden(NAME)` is True there for every setting: it does not say what a project chose.
#
# Run it: bash findings/django_configurations_mailers.sh   (Python 3.12 or newer, a package index)
# Fails if what it sees differs from the above.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/mysettings.py" <<'PYTHON'
from configurations import Configuration


class Dev(Configuration):
    SECRET_KEY = "a key for this script"
    INSTALLED_APPS = []


class WithMailers(Dev):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
PYTHON
cat > "$folder/look.py" <<'PYTHON'
import os

from configurations import setup

name = os.environ["DJANGO_CONFIGURATION"]
try:
    setup()
except Exception as error:
    print(name, type(error).__name__, str(error)[:62])
else:
    from django.conf import settings

    print(name, "starts; LOGIN_URL overridden:", settings.is_overridden("LOGIN_URL"))
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q django==6.1.3 django-configurations==2.5.1
cd "$folder"
export DJANGO_SETTINGS_MODULE=mysettings
for class in Dev WithMailers; do
    DJANGO_CONFIGURATION=$class venv/bin/python look.py
done | tee seen
grep -q "^Dev starts; LOGIN_URL overridden: True" seen
grep -q "^WithMailers ImproperlyConfigured Deprecated email settings are not allowed when MAILERS" seen
echo "as described"
