"""What can go wrong in the engine, and whether it is lost for good.

EngineError
├── RequestError               the request is at fault; the same request fails again
│   ├── ContextLengthExceeded  the prompt does not fit the context of one request
│   ├── InvalidToken           a token id that the vocabulary does not have
│   ├── InvalidLora            adapters that the model does not have, or one named twice
│   ├── InvalidGrammar         the matcher refuses the grammar
│   └── NoTokenPossible        bans and grammar together leave no token to sample
├── QueueFull                  try again after `retry_after` seconds
├── EngineUnavailable          loading, draining or stopped: another try may reach another state
├── StepFailed                 a step raised; the requests in flight are lost, the engine goes on
└── ModelLoadError             start-up: the file or the settings cannot be served
    ├── ModelFileNotFound
    ├── InvalidModelFile       not a GGUF, truncated, corrupt, or of an unknown architecture
    ├── OutOfMemory            weights and context need more memory than the machine has
    └── NativeCrash            llama.cpp aborted the probe's process; carries the signal
"""


class EngineError(Exception):
    """Base of every error that leaves the engine on purpose."""


class RequestError(EngineError):
    """The request is at fault. `param` names the field of the request where one is known."""

    param: str | None = None


class InvalidLora(RequestError):
    """The request names LoRA adapters that the model does not have, or one of them twice."""

    param = "lora"


class ContextLengthExceeded(RequestError):
    """`prompt_tokens` do not fit the `context` tokens of one request."""

    param = "messages"

    def __init__(
        self,
        prompt_tokens: int,
        context: int,
        max_tokens: int | None = None,
        *,
        at_least: bool = False,
    ) -> None:
        """`at_least`: of a prompt too long to be worth counting."""
        self.prompt_tokens = prompt_tokens
        self.context = context
        self.max_tokens = max_tokens
        wanted = f"{'at least ' if at_least else ''}{prompt_tokens} tokens of prompt"
        if max_tokens is not None:
            wanted += f" and {max_tokens} of completion"
        super().__init__(f"the context of one request is {context} tokens, but {wanted} were asked")


class InvalidToken(RequestError):
    """A token id outside the vocabulary."""


class InvalidGrammar(RequestError):
    """The grammar cannot be executed: too large, ambiguous beyond its limits, or malformed."""

    param = "response_format"


class NoTokenPossible(RequestError):
    """Every token is banned at this position."""

    param = "logit_bias"


class QueueFull(EngineError):
    """The waiting queue is at its bound."""

    def __init__(self, limit: int, retry_after: int) -> None:
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(f"{limit} requests are waiting, which is the limit")


class EngineUnavailable(EngineError):
    """The engine takes no requests: `state` is loading, draining, stopped or failed."""

    def __init__(self, state: str, reason: str = "") -> None:
        self.state = state
        super().__init__(f"the model is {state}" + (f": {reason}" if reason else ""))


class StepFailed(EngineError):
    """A step of the engine raised while this request was in it."""


class ModelLoadError(EngineError):
    """The model cannot be served; the message is one line for the terminal."""


class ModelFileNotFound(ModelLoadError):
    """No file at the given path."""


class InvalidModelFile(ModelLoadError):
    """The file is not a GGUF that llama.cpp can load."""


class OutOfMemory(ModelLoadError):
    """Weights and KV cache do not fit the machine's memory."""


class NativeCrash(ModelLoadError):
    """Loading or running the file killed the probe's process with `signal`."""

    def __init__(self, signal: int, message: str) -> None:
        self.signal = signal
        super().__init__(message)
