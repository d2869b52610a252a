"""A small real OpenAI-like server: `python fake_engine.py PORT MODEL FOLDER`.

Files in FOLDER tell it how to misbehave: `crash-at-start` (say why, exit 1), `never` (listen, but never healthy),
`sick` (health 503), `refuse` (completions 400), `silent` (no reply to completions), `break` (a stream that breaks
off), `empty` (a stream without a token).
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL, FOLDER = sys.argv[2], Path(sys.argv[3])
COMMON = {"id": "1", "created": 1, "model": MODEL}
SEEN: set[str] = set()


def told(what: str) -> bool:
    return (FOLDER / what).exists()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(503 if told("never") or told("sick") else 200, {"pid": os.getpid()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/forget":
            SEEN.clear()
            (FOLDER / "forgot").touch()
            return self.answer(200, {})
        if told("refuse") or body.get("model") != MODEL:
            return self.answer(400, {"error": {"message": "no such model here"}})
        if told("silent"):
            time.sleep(30)
        prompt = body["messages"][-1]["content"]
        context = prompt.split("\n\nQuestion:")[0]
        time.sleep(0.002 if context in SEEN else 0.2 * (len(context) > 300))
        SEEN.add(context)
        if body.get("stream"):
            return self.stream(body["max_tokens"])
        message = {"role": "assistant", "content": f"{MODEL} says: {prompt[:40]}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self.answer(
            200, {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        )

    def stream(self, tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens = -1 if told("empty") else tokens
        for i in range(tokens):
            self.event({"choices": [{"index": 0, "delta": {"content": f"w{i} "}}]})
            if told("break"):
                self.wfile.flush()
                self.connection.close()
                return
            time.sleep(0.001)
        if tokens >= 0:
            usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
            reason = "stop" if told("done") else "length"
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage})
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value: dict) -> None:
        chunk = {**COMMON, "object": "chat.completion.chunk", **value}
        data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


if told("crash-at-start"):
    print(
        "INFO: loading\nTraceback (most recent call last):\n  File x\nValueError: the weights are not to my taste"
    )
    print("INFO: bye", flush=True)
    sys.exit(1)
print("INFO: serving", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
