"""What several checks need."""

from django.utils.module_loading import import_string

from django_quota.conf import Settings, get_settings
from django_quota.exceptions import ConfigurationError


def valid_settings() -> Settings | None:
    """The settings; None if they are not valid, which `check_settings` reports."""
    try:
        return get_settings()
    except ConfigurationError:
        return None


def is_path_of_subclass(path: str, parent: type) -> bool:
    """True if the dotted `path` names `parent` or a subclass. False if it cannot be imported."""
    try:
        found = import_string(path)
    except Exception:  # an error in the project's own module, which Django reports itself
        return False
    return isinstance(found, type) and issubclass(found, parent)
