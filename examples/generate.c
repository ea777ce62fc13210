/* One reply from C: load, render the chat, submit, step and poll.
 *
 *     generate MODEL PROMPT [MAX_TOKENS] */
#include <dspark/dspark.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char* what) {
  fprintf(stderr, "%s: %s\n", what, dspark_last_error());
  return 1;
}

/* The token ids of a user's message, or NULL; to be freed. */
static int32_t* chat_prompt(dspark_engine* engine, const char* text, size_t* count) {
  dspark_message message;
  message.role = "user";
  message.content = text;
  const int64_t bytes = dspark_render_chat(engine, &message, 1, 1, 1, NULL, 0);
  if (bytes < 0) return NULL;
  char* chat = malloc((size_t)bytes + 1);
  int32_t* ids = malloc(((size_t)bytes + 1) * sizeof *ids); /* a token is one byte at least */
  int64_t n = -1;
  if (chat != NULL && ids != NULL &&
      dspark_render_chat(engine, &message, 1, 1, 1, chat, (size_t)bytes + 1) >= 0)
    n = dspark_tokenize(engine, chat, (size_t)bytes, ids, (size_t)bytes + 1, 0, 1);
  free(chat);
  if (n < 0 || n > bytes + 1) {
    free(ids);
    return NULL;
  }
  *count = (size_t)n;
  return ids;
}

/* Writes the reply as it comes. */
static int generate(dspark_engine* engine, dspark_request_id id) {
  dspark_event event;
  dspark_timings timings;
  int32_t live, got;
  do {
    live = dspark_step(engine);
    if (live < 0) return complain("step");
    while ((got = dspark_poll(engine, id, &event, sizeof event)) == 1) {
      fwrite(event.text, 1, event.text_bytes, stdout);
      if (event.error != NULL) fprintf(stderr, "%s\n", event.error);
    }
    if (got < 0) return complain("poll");
    fflush(stdout);
  } while (live > 0);
  printf("\n");
  if (dspark_get_timings(engine, id, &timings, sizeof timings) < 0) return complain("timings");
  fprintf(stderr, "%d tokens in %d rounds, %.0f ms\n", (int)timings.completion_tokens, (int)timings.rounds,
          timings.decode_ms);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL PROMPT [MAX_TOKENS]\n", argv[0]);
    return 2;
  }
  dspark_options options;
  dspark_options_init(&options, sizeof options);
  options.model = argv[1];
  dspark_engine* engine;
  if (dspark_load(&options, &engine) < 0) return complain("load");

  dspark_request request;
  dspark_request_init(&request, sizeof request);
  if (argc > 3) request.max_tokens = atoi(argv[3]);
  int32_t* prompt = chat_prompt(engine, argv[2], &request.prompt_tokens);
  request.prompt = prompt;
  dspark_request_id id;
  const int failed = prompt == NULL                             ? complain("prompt")
                     : dspark_submit(engine, &request, &id) < 0 ? complain("submit")
                                                                : generate(engine, id);
  free(prompt);
  dspark_free(engine);
  return failed;
}
