#!/usr/bin/env python3
"""One reply from Python, through the C ABI and ctypes alone.

    examples/generate.py LIBRARY MODEL PROMPT [MAX_TOKENS]

LIBRARY is libdspark.so, with its path or found by the loader.
"""
import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p, sizeof


class Options(ctypes.Structure):
    _fields_ = ([("size", c_size_t)]
                + [(name, c_char_p) for name in ("model", "draft", "draft_weights", "policy", "accept", "weights", "kv", "isa")]
                + [(name, c_int32) for name in ("ctx", "threads", "parallel", "kv_tokens", "no_lookup", "keep_costs")])


class Request(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("prompt", POINTER(c_int32)), ("prompt_tokens", c_size_t), ("max_tokens", c_int32),
                ("temperature", c_float), ("top_k", c_int32), ("top_p", c_float), ("min_p", c_float),
                ("repetition_penalty", c_float), ("presence_penalty", c_float), ("frequency_penalty", c_float),
                ("seed", c_int64), ("logit_bias", c_void_p), ("logit_biases", c_size_t), ("stop", POINTER(c_char_p)),
                ("stops", c_size_t), ("stop_tokens", POINTER(c_int32)), ("stop_token_count", c_size_t),
                ("ignore_eos", c_int32), ("top_logprobs", c_int32), ("speculate", c_int32), ("reproducible", c_int32),
                ("format", c_int32), ("json_schema", c_char_p)]


class Event(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("token", c_int32), ("drafted", c_int32), ("finish", c_int32), ("logprob", c_float),
                ("text", c_void_p), ("text_bytes", c_size_t), ("top", c_void_p), ("top_count", c_size_t),
                ("error", c_char_p)]


class Message(ctypes.Structure):
    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class Timings(ctypes.Structure):
    _fields_ = ([("size", c_size_t)]
                + [(name, c_int32) for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "rounds", "committed",
                                                "drafted", "accepted")]
                + [(name, c_double) for name in ("prompt_ms", "decode_ms", "draft_ms", "verify_ms")])


class DsparkError(RuntimeError):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class Engine:
    """A loaded model. Other threads may call while one steps: ctypes gives the interpreter's lock back."""

    def __init__(self, library, model, **options):
        self.lib = ctypes.CDLL(library)
        self.lib.dspark_last_error.restype = c_char_p
        self.lib.dspark_finish_name.restype = c_char_p
        for name in ("tokenize", "render_chat"):
            getattr(self.lib, "dspark_" + name).restype = c_int64
        given = Options()
        self.lib.dspark_options_init(byref(given), c_size_t(sizeof(given)))
        given.model = model.encode()
        for name, value in options.items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        self.handle = c_void_p()
        self.check(self.lib.dspark_load(byref(given), byref(self.handle)))

    def check(self, code):
        """`code`, or an exception with its text where it says that a call failed."""
        if code < 0:
            raise DsparkError(code, self.lib.dspark_last_error().decode())
        return code

    def close(self):
        self.lib.dspark_free(self.handle)
        self.handle = c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def chat_prompt(self, messages):
        """Token ids of [(role, content), ...] through the model's own template."""
        turns = (Message * len(messages))(*[(role.encode(), content.encode()) for role, content in messages])

        def render(buffer, capacity):
            return self.check(self.lib.dspark_render_chat(self.handle, turns, c_size_t(len(turns)), 1, 1, buffer,
                                                          c_size_t(capacity)))

        text = ctypes.create_string_buffer(render(None, 0) + 1)
        render(text, len(text))

        def tokenize(ids, capacity):
            return self.check(self.lib.dspark_tokenize(self.handle, text, c_size_t(len(text) - 1), ids,
                                                       c_size_t(capacity), 0, 1))

        ids = (c_int32 * tokenize(None, 0))()
        tokenize(ids, len(ids))
        return ids

    def submit(self, prompt, **parameters):
        request = Request()
        self.lib.dspark_request_init(byref(request), c_size_t(sizeof(request)))
        request.prompt, request.prompt_tokens = prompt, len(prompt)
        for name, value in parameters.items():
            setattr(request, name, value)
        number = c_int64()
        self.check(self.lib.dspark_submit(self.handle, byref(request), byref(number)))
        return number

    def poll(self, number):
        """Events of a request that are there now."""
        event = Event()
        while self.check(self.lib.dspark_poll(self.handle, number, byref(event), c_size_t(sizeof(event)))):
            if event.error:
                raise DsparkError(event.finish, event.error.decode())
            yield event

    def stream(self, prompt, **parameters):
        """The reply's text, piece by piece."""
        number = self.submit(prompt, **parameters)
        live = 1
        while live:
            live = self.check(self.lib.dspark_step(self.handle))
            for event in self.poll(number):
                yield ctypes.string_at(event.text, event.text_bytes).decode()
        timings = Timings()
        self.check(self.lib.dspark_get_timings(self.handle, number, byref(timings), c_size_t(sizeof(timings))))
        self.timings = timings
        self.check(self.lib.dspark_release(self.handle, number))


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    library, model, prompt = sys.argv[1:4]
    with Engine(library, model) as engine:
        parameters = {"max_tokens": int(sys.argv[4])} if len(sys.argv) > 4 else {}
        for text in engine.stream(engine.chat_prompt([("user", prompt)]), **parameters):
            print(text, end="", flush=True)
        print()
        print(f"{engine.timings.completion_tokens} tokens in {engine.timings.decode_ms:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
