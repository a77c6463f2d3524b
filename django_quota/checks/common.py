"""What several checks need."""

from django.utils.module_loading import import_string


def is_path_of_subclass(path: str, parent: type) -> bool:
    """True if the dotted `path` names `parent` or a subclass. False if it cannot be imported."""
    try:
        found = import_string(path)
    except Exception:  # an error in the project's own module, which Django reports itself
        return False
    return isinstance(found, type) and issubclass(found, parent)
