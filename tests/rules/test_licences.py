"""Who serves Understudy owes nobody anything: the licences of all that the image holds."""

import pytest

from tests.pages.licences import Licensed, of_the_image, page
from tests.rules.test_repository import read


@pytest.mark.parametrize("package", of_the_image(), ids=lambda package: package.name)
def test_a_package_of_the_image_has_a_licence_that_asks_for_nothing(package: Licensed) -> None:
    assert package.allowed, f"{package.name}: {package.licence}"


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "not stated", "AGPL-3.0-only OR SSPL-1.0"])
def test_another_licence_is_noticed(licence: str) -> None:
    assert not Licensed("x", "1", licence).allowed


def test_one_of_two_may_be_chosen() -> None:
    assert Licensed("x", "1", "GPL-2.0-only OR MIT").allowed


def test_the_page_is_what_the_packages_say() -> None:
    assert read("docs/licences.md") == page(), "python -m tests.pages.licences > docs/licences.md"
