"""What the edge itself refuses, before a request has a meaning."""

from __future__ import annotations


class BadRequest(Exception):
    """The body cannot be understood; `param` is the field, `code` the kind of mistake."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class BodyTooLarge(Exception):
    """The body is larger than this gateway takes."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the request body is larger than {bytes_max} bytes, the most that is accepted")


class UnsupportedMedia(Exception):
    """The body is not plain JSON."""


class UnknownModel(Exception):
    """The request names a model that is not offered here."""

    def __init__(self, model: str, offered: list[str]) -> None:
        names = ", ".join(sorted(offered)) or "none at the moment"
        super().__init__(f"the model {model[:100]!r} does not exist here; offered: {names}")


class Starting(Exception):
    """This gateway has not read yet what is served."""

    def __init__(self) -> None:
        super().__init__("this gateway has just started and does not know the models yet; try again in 1 s")
        self.retry_after_s = 1


class NotFound(Exception):
    """There is no such thing for this tenant."""


class Forbidden(Exception):
    """The credential is good, and not for this."""


class NoPrice(Exception):
    """The model is here, and nothing says what it costs: what cannot be billed is not served."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"{model} has no price yet, so it is not served; nothing was billed. Whoever runs this platform "
            "sets one with `penstock prices add`"
        )
        self.retry_after_s = 5
