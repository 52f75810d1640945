"""Which release of Understudy this is. It knows nothing else, and costs nothing to import."""

from importlib.metadata import PackageNotFoundError, version

NAME = "understudy"


def release() -> str:
    """Its version; "0" where it runs from a checkout that was never installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "0"
