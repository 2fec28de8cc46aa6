"""A small real server on loopback that speaks `/v1/chat/completions`, also what goes wrong with it."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, dict[str, str], str]
"""A caption, or a status with headers and an error's message."""


@dataclass
class Chat:
    """A server on loopback: what it answers, in turn (the last one for ever), and what it was asked.

    Args:
        answers: still to come.
        address: up to and with /v1.
        asked: the bodies of the requests.
        headers: theirs.
        paths: theirs.
    """

    answers: list[Answer]
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def serving(*answers: Answer) -> Generator[Chat]:
    """Such a server, until the block ends."""
    chat = Chat(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            chat.paths.append(self.path)
            chat.headers.append(dict(self.headers))
            chat.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = chat.answer()
            if isinstance(answer, str):
                message = {"role": "assistant", "content": answer}
                told: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
                told["usage"] = {"prompt_tokens": 100, "completion_tokens": len(answer.split())}
                status, headers = 200, dict[str, str]()
            else:
                status, headers, words = answer
                told = {"error": {"message": words, "type": "test"}}
            body = json.dumps(told).encode()
            self.send_response(status)
            for name, value in {
                **headers,
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
