"""How a request is refused, whatever dialect it came in: a RequestError, which names the value and what is allowed."""

from collections.abc import Sequence

from ssd1b.command import nearest


class RequestError(Exception):
    """A request that is refused: the members of OpenAI's error object and the HTTP status."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(
            message, param, code, status, kind
        )  # all of them, so that pickle rebuilds it between processes
        self.message, self.param, self.code, self.status, self.kind = message, param, code, status, kind

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body of OpenAI's error responses."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


NAMED = 20
"""A refusal names so many of what is offered; there may be a thousand adapters."""


def not_offered(param: str, value: str, allowed: Sequence[str]) -> RequestError:
    """The refusal of a value outside a known list: names the nearest of it, and the list as far as it is short."""
    named = ", ".join(allowed[:NAMED]) + (f" and {len(allowed) - NAMED} more" if len(allowed) > NAMED else "")
    hint = nearest(value, allowed) if len(allowed) > 1 else ""
    return RequestError(
        f"{param} {value!r} is not offered{hint}; offered: {named or 'none yet'}",
        param,
        "invalid_value",
    )
