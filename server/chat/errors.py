"""What can go wrong with a chat template. All of it is the request's or the model file's fault.

TemplateError(ValueError)   kind: "syntax"  the template does not compile
                                  "raised"  it called raise_exception: the text is its own
                                  "limit"   it ran too long or printed too much
                                  "render"  it failed on these messages
"""

from typing import Literal

TemplateErrorKind = Literal["syntax", "raised", "limit", "render"]


class TemplateError(ValueError):
    """A chat template that cannot be compiled or cannot render these messages."""

    def __init__(self, message: str, kind: TemplateErrorKind = "render") -> None:
        super().__init__(message)
        self.kind: TemplateErrorKind = kind
