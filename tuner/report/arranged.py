"""Puts our Pareto figure at the head of optuna-dashboard's study page, which shows figures of others at its foot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

#: Id of our figure among the study's.
GRAPH = "tuner-pareto"

# The page has no setting for it. Where another release calls its parts otherwise, the rule finds nothing and the figure
# stays where it was.
_PLOT = f'[id="user-defined-plot:{GRAPH}"]'
_STYLE = (
    f"<style>.MuiGrid-container:has(> * > .MuiPaper-root {_PLOT}) {{ order: -1; }} "
    f".MuiGrid-root:has(> .MuiPaper-root {_PLOT}) {{ order: -1; width: 100%; max-width: 100%; flex-basis: 100%; }}"
    "</style></head>"
)


class Arranged:
    """WSGI middleware that adds a style sheet to the dashboard's page.

    Args:
        application: The dashboard.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers a request."""
        if not environ.get("PATH_INFO", "").startswith("/dashboard"):
            return self._application(environ, start_response)
        begun: list[tuple[str, list[tuple[str, str]], tuple[Any, ...]]] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            begun.append((status, headers, rest))

        page = b"".join(self._application(environ, start))
        (status, headers, rest) = begun[-1]
        if page and dict((k.lower(), v) for k, v in headers).get("content-type", "").startswith("text/html"):
            page = page.replace(b"</head>", _STYLE.encode(), 1)
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(page))))
        start_response(status, headers, *rest)
        return [page]
