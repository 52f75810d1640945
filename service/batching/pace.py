"""How long a model's runs take, learnt from those that have ended. It knows nothing of models."""

_NEWEST = 0.2  # how much a run counts beside all that came before it


class Pace:
    """Seconds a token that a model's runs take, lately."""

    __slots__ = ("token_s",)

    def __init__(self) -> None:
        self.token_s = 0.0
        """0 while nothing was run."""

    def learn(self, tokens: int, seconds: float) -> None:
        """A run has ended; tokens without padding."""
        token_s = seconds / max(tokens, 1)
        self.token_s = (1 - _NEWEST) * self.token_s + _NEWEST * token_s if self.token_s else token_s
