#!/usr/bin/env python3
"""The `openai` package from PyPI, unchanged, against `dspark serve` on a tiny model.

    tests/openai_client_test.py DSPARK

Runs under the Python of $DSPARK_OPENAI_PYTHON where that is set (a venv with the package), else under this one. Exit
code 77: skipped, for want of the package.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy  # noqa: F401
    import openai
except ImportError:
    python = os.environ.get("DSPARK_OPENAI_PYTHON")
    if python and pathlib.Path(python) != pathlib.Path(sys.executable):
        sys.exit(subprocess.run([python, *sys.argv]).returncode)
    print("*** SKIPPED: no openai or numpy package; set DSPARK_OPENAI_PYTHON to a venv's python that has both ***")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from serve_process import ServeProcess  # noqa: E402

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "on on on on on"}], "max_tokens": 24, "seed": 3}


def check_chat(client):
    reply = client.chat.completions.create(**ASK, temperature=0)
    assert reply.object == "chat.completion" and reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in ("length", "stop")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.choices[0].timings["rounds"] >= 1, "extra fields do not arrive"
    return reply.choices[0].message.content


def check_stream(client, whole):
    chunks = list(client.chat.completions.create(**ASK, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole, f"streamed {text!r}, whole {whole!r}"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("length", "stop")
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices


def check_choices(client):
    reply = client.chat.completions.create(**ASK, temperature=1, n=3)
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert len({c.message.content for c in reply.choices}) == 3, "the choices are alike"
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**ASK, temperature=1, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [c.message.content for c in reply.choices], "streamed choices differ"


def check_logprobs(client):
    choice = client.chat.completions.create(**ASK, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace") == choice.message.content
    assert all(t.top_logprobs[0].logprob == t.logprob and len(t.top_logprobs) == 3 for t in content)
    old = client.completions.create(model="tiny", prompt="on on", max_tokens=5, temperature=0, logprobs=2).choices[0]
    assert len(old.logprobs.tokens) == len(old.logprobs.token_logprobs) == len(old.logprobs.text_offset) == 5


def check_completions(client):
    reply = client.completions.create(model="tiny", prompt=["on on", "off off"], max_tokens=8, temperature=0)
    one = client.completions.create(model="tiny", prompt="off off", max_tokens=8, temperature=0)
    assert reply.choices[1].text == one.choices[0].text
    streamed = client.completions.create(model="tiny", prompt="off off", max_tokens=8, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == one.choices[0].text
    stopped = client.completions.create(model="tiny", prompt="off off", max_tokens=8, temperature=0,
                                        stop=one.choices[0].text[2:4] or None)
    assert stopped.choices[0].text == one.choices[0].text[:one.choices[0].text.find(one.choices[0].text[2:4])]


def check_errors(client, url):
    def fails(kind, **changes):
        try:
            client.chat.completions.create(**{**ASK, **changes})
        except kind as error:
            return error.body
        raise AssertionError(f"{changes} is taken")

    assert fails(openai.BadRequestError, temperature=-1)["param"] == "temperature"
    assert fails(openai.NotFoundError, model="other")["code"] == "model_not_found"
    assert fails(openai.BadRequestError, messages=[{"role": "user", "content": "x" * 4000}])["code"] == \
        "context_length_exceeded"
    try:
        openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key is taken")


def main():
    with tempfile.TemporaryDirectory() as scratch, \
            ServeProcess(sys.argv[1], scratch, "--api-key", "secret") as served:
        client = openai.OpenAI(base_url=served.url + "/v1", api_key="secret", max_retries=0, timeout=60)
        assert [m.id for m in client.models.list()] == ["tiny"]
        whole = check_chat(client)
        check_stream(client, whole)
        check_choices(client)
        check_logprobs(client)
        check_completions(client)
        check_errors(client, served.url)
    print(f"openai {openai.__version__}: chat, streams, choices, log-probabilities, completions, errors")


if __name__ == "__main__":
    main()
