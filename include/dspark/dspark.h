/* dspark: lossless speculative decoding, as a C library.
 *
 * An engine is a loaded model, its drafter and what runs them. Requests join it at any time; dspark_step runs
 * one forward pass over all of them, and dspark_poll hands out what each request has come to.
 *
 * Errors. Functions return a number: negative is one of DSPARK_ERROR_*, and dspark_last_error() is then one
 * line that says what is wrong, where, and how to mend it. Messages name options as the flags of the program
 * `dspark` do: `--ctx` is dspark_options.ctx. A failed call changes nothing. Nothing is thrown, printed, or
 * ended.
 *
 * Threads. Any function may be called from any thread. Calls on one engine take turns in the order they came,
 * so a call waits for the step under way at most; dspark_poll, dspark_get_timings, dspark_tokenize,
 * dspark_detokenize, dspark_render_chat and dspark_get_info do not even wait for that.
 *
 * Who drives. You do, as with llama_decode: a step runs on the thread that calls dspark_step, and where
 * nobody calls it nothing happens. Steps then suit your event loop, and no callback comes from a thread you
 * do not know; a program that wants a thread for them starts one around dspark_step.
 *
 * Memory. What you pass in is copied before a function returns. A pointer that you get in dspark_event is the
 * engine's, and good until the next dspark_poll of that request, its dspark_release or the engine's
 * dspark_free. All other strings that are returned are constants, or dspark_last_error's.
 *
 * Versions. Structs begin with their size and grow at their end only; the *_init functions set every field to
 * its default. A program made for an older header of the same DSPARK_ABI_VERSION runs on. */
#ifndef DSPARK_DSPARK_H_
#define DSPARK_DSPARK_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DSPARK_API __attribute__((visibility("default")))
#else
#define DSPARK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header; the shared library's SONAME carries it. */
#define DSPARK_ABI_VERSION 0

/* Handles are numbers in a pointer's clothes: a freed or made-up one is found out, not followed. */
typedef struct dspark_engine dspark_engine;

/* A request's number, from 1 on, never given twice by an engine. */
typedef int64_t dspark_request_id;

enum {
  DSPARK_OK = 0,
  DSPARK_ERROR_PARAMETER = -1,   /* a NULL, a value out of range, or a request that can never run */
  DSPARK_ERROR_LOAD = -2,        /* model or drafter: missing, broken, of a kind not known, too large */
  DSPARK_ERROR_ENGINE = -3,      /* no such engine: freed, or never loaded */
  DSPARK_ERROR_REQUEST = -4,     /* no such request: released, or never submitted */
  DSPARK_ERROR_RUNNING = -5,     /* the request has not ended yet */
  DSPARK_ERROR_UNSUPPORTED = -6, /* the model has no tokenizer, or no chat template that is known */
  DSPARK_ERROR_VERSION = -7,     /* a struct of a newer header than this library's, or not initialised */
  DSPARK_ERROR_MEMORY = -8,
  DSPARK_ERROR_INTERNAL = -9 /* a bug in dspark */
};

enum {
  DSPARK_FINISH_NONE = 0,      /* still running */
  DSPARK_FINISH_STOP = 1,      /* an end token, a stop token or a stop string */
  DSPARK_FINISH_LENGTH = 2,    /* max_tokens, or the end of the context */
  DSPARK_FINISH_CANCELLED = 3, /* dspark_cancel */
  DSPARK_FINISH_ERROR = 4      /* the model gave no distribution; dspark_event.error says where */
};

enum {
  DSPARK_FORMAT_TEXT = 0,        /* any text */
  DSPARK_FORMAT_JSON_OBJECT = 1, /* any JSON object */
  DSPARK_FORMAT_JSON_SCHEMA = 2  /* what dspark_request.json_schema allows */
};

/* How to load. Strings may be NULL for their defaults. */
typedef struct dspark_options {
  size_t size;
  const char* model;         /* a GGUF file or a Hugging Face directory; NULL: the one `dspark pull` gets */
  const char* draft;         /* drafters, with commas between them; auto, lookup or none [auto] */
  const char* draft_weights; /* f32, bf16, int8, int4 [as in the drafter's file] */
  const char* policy;        /* adaptive, zos, fixed:N, threshold:P, cumulative:P, off [adaptive] */
  const char* accept;        /* of sampled drafts: block or token [block] */
  const char* weights;       /* f32, bf16, int8, int4 [as in the file] */
  const char* kv;            /* f16 or f32 [f16] */
  const char* isa;           /* reference, avx2, avx512_vnni [the best this processor has] */
  int32_t ctx;               /* positions of one request, 16 or more [0: the model's, at most 8192] */
  int32_t threads;           /* [0: the cores this process may use] */
  int32_t parallel;          /* requests decoding at once, 1 to 1024; others wait [1] */
  int32_t kv_tokens;         /* of K/V for all requests together, 16 or more [0: ctx of each] */
  int32_t no_lookup;         /* 1: the drafters alone, without prompt lookup beside it [0] */
  int32_t keep_costs; /* 1: what passes cost is measured once and kept under ~/.cache/dspark, else at every
                         load [1] */
} dspark_options;

typedef struct dspark_logit_bias {
  int32_t token;
  float bias; /* -100 to 100, added to the token's logit */
} dspark_logit_bias;

/* What to generate. The defaults are those of `dspark run`. */
typedef struct dspark_request {
  size_t size;
  const int32_t* prompt; /* token ids, one at least */
  size_t prompt_tokens;
  int32_t max_tokens;                  /* 1 or more [512] */
  float temperature;                   /* 0 to 100; 0: greedy [0] */
  int32_t top_k;                       /* 0: off [0] */
  float top_p;                         /* 0 to 1; 1: off [1] */
  float min_p;                         /* 0 to 1; 0: off [0] */
  float repetition_penalty;            /* 0.01 to 100; 1: off [1] */
  float presence_penalty;              /* -2 to 2; 0: off [0] */
  float frequency_penalty;             /* -2 to 2; 0: off [0] */
  int64_t seed;                        /* of a sampled reply; -1: any [-1] */
  const dspark_logit_bias* logit_bias; /* [none] */
  size_t logit_biases;
  const char* const* stop; /* the text ends before any of these [none] */
  size_t stops;
  const int32_t* stop_tokens; /* the reply ends with any of these, beside the model's own [none] */
  size_t stop_token_count;
  int32_t ignore_eos;   /* 1: the model's end tokens do not end the reply [0] */
  int32_t top_logprobs; /* 0 or more: log-probabilities, and that many alternatives; -1: none [-1] */
  int32_t speculate;    /* 0: plain decoding [1] */
  int32_t reproducible; /* 1: a sampled reply is plain decoding's for its seed, whatever else runs [0] */
  int32_t format; /* DSPARK_FORMAT_*: what a reply that ends by itself is a text of [DSPARK_FORMAT_TEXT] */
  const char* json_schema; /* of DSPARK_FORMAT_JSON_SCHEMA: a JSON schema's text; its keywords are those of
                              docs/reply_forms.md */
} dspark_request;

/* log p of the model's own distribution: temperature 1, nothing cut off, no penalties. */
typedef struct dspark_logprob {
  int32_t token;
  float logprob;
} dspark_logprob;

/* One token of a reply. Text lags behind tokens while a character, or what may become a stop string, is
 * incomplete. */
typedef struct dspark_event {
  size_t size;
  int32_t token;             /* -1: no token, only the end */
  int32_t drafted;           /* 1: an accepted draft */
  int32_t finish;            /* DSPARK_FINISH_*; not NONE: the last event */
  float logprob;             /* where top_logprobs >= 0 */
  const char* text;          /* UTF-8 that this token completes, never half a character; NUL behind it */
  size_t text_bytes;         /* without the NUL; the text may hold NULs of its own */
  const dspark_logprob* top; /* best first */
  size_t top_count;
  const char* error; /* one line with DSPARK_FINISH_ERROR, else NULL */
} dspark_event;

typedef struct dspark_message {
  const char* role; /* system, user, assistant */
  const char* content;
} dspark_message;

typedef struct dspark_info {
  size_t size;
  int32_t context;       /* positions of one request */
  int32_t vocab;         /* token ids are 0 to vocab - 1 */
  int32_t threads;       /* that compute */
  int32_t has_tokenizer; /* 0: token ids only */
  int32_t has_chat;      /* 1: dspark_render_chat knows the model's template */
  int32_t has_drafter;   /* 1: something proposes, prompt lookup included */
  double load_ms;
} dspark_info;

/* What a reply took. Rounds are forward passes after the prompt's last one, which gives the first token. */
typedef struct dspark_timings {
  size_t size;
  int32_t prompt_tokens;
  int32_t cached_tokens; /* of the prompt, that an earlier request had left and that were not run again */
  int32_t completion_tokens;
  int32_t rounds;
  int32_t committed; /* tokens that came out of rounds: committed / rounds is tau */
  int32_t drafted;   /* drafts that were verified */
  int32_t accepted;  /* of these, kept */
  double prompt_ms;  /* up to the first token */
  double decode_ms;  /* all rounds */
  double draft_ms;   /* of decode_ms: proposing */
  double verify_ms;  /* of decode_ms: the model's passes and the accept rule */
} dspark_timings;

/* "0.1.0" */
DSPARK_API const char* dspark_version(void);
/* The DSPARK_ABI_VERSION that the library was built with. */
DSPARK_API int32_t dspark_abi_version(void);
/* Of the latest failed call of this thread; "" before the first. Good until the thread's next call. */
DSPARK_API const char* dspark_last_error(void);
/* "stop", "length", "cancelled", "error"; "" for others. */
DSPARK_API const char* dspark_finish_name(int32_t finish);

/* Every field's default; `size` is sizeof the struct. Does nothing with NULL. */
DSPARK_API void dspark_options_init(dspark_options* options, size_t size);
DSPARK_API void dspark_request_init(dspark_request* request, size_t size);

/* Loads what `options` (NULL: all defaults) say into *engine. Takes from some tenths of a second up to
 * however long the disk needs. */
DSPARK_API int32_t dspark_load(const dspark_options* options, dspark_engine** engine);
/* Ends all requests and gives the memory back; calls on the engine that are under way end in order first. */
DSPARK_API int32_t dspark_free(dspark_engine* engine);
DSPARK_API int32_t dspark_get_info(dspark_engine* engine, dspark_info* info, size_t size);

/* Token ids of `bytes` bytes of text. Returns how many there are, and writes the first `capacity` of them:
 * call it twice where you do not know. `add_bos`: with the model's beginning token where it wants one, for
 * prompts without a chat template. `parse_special`: text such as <|im_end|> becomes that token; say 0 for
 * text you do not trust. */
DSPARK_API int64_t dspark_tokenize(dspark_engine* engine, const char* text, size_t bytes, int32_t* tokens,
                                   size_t capacity, int32_t add_bos, int32_t parse_special);
/* The text of token ids. Returns its bytes without the NUL, and writes as snprintf does: at most `capacity`
 * bytes, the last one a NUL. `skip_special`: special tokens give no text. Bytes that are no UTF-8 become
 * U+FFFD. */
DSPARK_API int64_t dspark_detokenize(dspark_engine* engine, const int32_t* tokens, size_t count, char* text,
                                     size_t capacity, int32_t skip_special);
/* A conversation as the model's own template renders it, for dspark_tokenize with add_bos 0 and parse_special
 * 1. Written as dspark_detokenize does. `add_assistant`: the assistant's turn is opened. `think` 0: it is
 * asked not to think, where the template knows thoughts. */
DSPARK_API int64_t dspark_render_chat(dspark_engine* engine, const dspark_message* messages, size_t count,
                                      int32_t add_assistant, int32_t think, char* text, size_t capacity);

/* A request joins, at the next step at the earliest. Release it when you are done with it. */
DSPARK_API int32_t dspark_submit(dspark_engine* engine, const dspark_request* request, dspark_request_id* id);
/* Runs one step of all requests: some milliseconds. Returns how many still run or wait; 0: nothing is left to
 * do. */
DSPARK_API int32_t dspark_step(dspark_engine* engine);
/* 1: *event is the request's next token; 0: there is none now, or the last one was handed out. */
DSPARK_API int32_t dspark_poll(dspark_engine* engine, dspark_request_id id, dspark_event* event, size_t size);
/* Ends a request at the next step, whose last event is then DSPARK_FINISH_CANCELLED. One that has ended stays
 * as it is. */
DSPARK_API int32_t dspark_cancel(dspark_engine* engine, dspark_request_id id);
/* What a request that has ended took: its last step has run, polled or not. Else DSPARK_ERROR_RUNNING. */
DSPARK_API int32_t dspark_get_timings(dspark_engine* engine, dspark_request_id id, dspark_timings* timings,
                                      size_t size);
/* Forgets a request and its events; one that runs is cancelled. */
DSPARK_API int32_t dspark_release(dspark_engine* engine, dspark_request_id id);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* DSPARK_DSPARK_H_ */
