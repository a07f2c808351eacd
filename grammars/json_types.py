"""What the JSON module returns."""

from typing import Any

Json = Any
