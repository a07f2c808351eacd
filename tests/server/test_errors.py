"""Every error has one status, and one shape."""

from __future__ import annotations

import pytest

from engine import errors as engine_errors
from server import errors as server_errors
from server.errors import FATES, ApiError, InvalidRequest, fate_of, field_path, problem


def subclasses(cls: type[Exception]) -> list[type[Exception]]:
    return [cls, *(deeper for sub in cls.__subclasses__() for deeper in subclasses(sub))]


ENGINE_ERRORS = subclasses(engine_errors.EngineError)
API_ERRORS = [cls for cls in subclasses(ApiError) if cls is not ApiError]


@pytest.mark.parametrize("cls", ENGINE_ERRORS + API_ERRORS)
def test_every_error_has_a_row_of_its_own(cls: type[Exception]) -> None:
    assert cls in FATES


@pytest.mark.parametrize("module", [engine_errors, server_errors])
def test_the_tree_in_the_docstring_is_whole(module: object) -> None:
    names = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__ == module.__name__  # type: ignore[attr-defined]
    }
    assert names
    assert all(name in str(module.__doc__) for name in names)


def test_an_unknown_subclass_takes_the_row_of_its_parent() -> None:
    class Unheard(engine_errors.QueueFull):
        pass

    assert fate_of(Unheard(1, 1)).status == 429


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (engine_errors.QueueFull(1, 7), "7"),
        (engine_errors.EngineUnavailable("loading"), "2"),
        (engine_errors.EngineUnavailable("failed"), "30"),
        (engine_errors.ModelLoadError("x"), "30"),
    ],
)
def test_retry_after(error: Exception, seconds: str) -> None:
    assert problem(error).headers["retry-after"] == seconds


def test_no_retry_after_where_a_retry_is_pointless() -> None:
    assert "retry-after" not in problem(InvalidRequest("x")).headers


def test_field_path() -> None:
    assert field_path(("messages", 0, "content", 1, "type")) == "messages[0].content[1].type"
