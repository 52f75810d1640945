"""From flags and variables to settings, and where each came from: flag before variable before default.

It knows names and texts. It knows nothing of what a setting means; `settings` alone decides what a value may be.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from pydantic import ValidationError

from service.settings import PREFIX, SettingProblem, Settings, problem_line

_LINK_NAME = re.compile(r"(_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")


class Origin(StrEnum):
    """Where the value of a setting came from."""

    FLAG = "flag"
    VARIABLE = "environment"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and the origin of each by its name."""

    settings: Settings
    origins: Mapping[str, Origin]


def load(flags: Mapping[str, object], variables: Mapping[str, str]) -> Resolved:
    """Flags that are None were not given. Raises SettingProblem: one line that says what to change."""
    from_flags = {name: value for name, value in flags.items() if value is not None}
    from_variables = dict(_settings_among(variables))
    try:
        settings = Settings.model_validate(from_variables | from_flags)
    except ValidationError as error:
        raise SettingProblem(problem_line(error)) from None  # the cause would hold what was given, secrets too
    origins = dict.fromkeys(Settings.model_fields, Origin.DEFAULT)
    origins |= dict.fromkeys(from_variables, Origin.VARIABLE) | dict.fromkeys(from_flags, Origin.FLAG)
    return Resolved(settings, origins)


def variable_of(name: str) -> str:
    """The variable that sets this field."""
    return PREFIX + name.upper()


def _settings_among(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = {variable_of(name): name for name in Settings.model_fields}
    for variable, value in variables.items():
        # Capitals are no matter here, so that a name in small letters is refused and not passed over.
        if not variable.upper().startswith(PREFIX) or _is_service_link(variable, value):
            continue
        if variable not in known:
            raise SettingProblem(_unknown(variable, list(known)))
        if value:  # an empty variable is as good as none
            yield known[variable], value


def _is_service_link(variable: str, value: str) -> bool:
    """Is it what Kubernetes and Docker tell each container of a service that is called `understudy`?

    UNDERSTUDY_PORT=tcp://10.0.0.7:8000 was never meant for us, and whoever named the service did not expect it.
    """
    return bool(_LINK_NAME.search(variable) or _LINK_VALUE.fullmatch(value))


def _unknown(variable: str, known: list[str]) -> str:
    # Without the prefix, which all share and which would make all look alike.
    asked = variable.upper().removeprefix(PREFIX)
    near = get_close_matches(asked, [name.removeprefix(PREFIX) for name in known], n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "`python -m service config` lists those that there are"
    return f"{variable}: no such setting; {hint}"
