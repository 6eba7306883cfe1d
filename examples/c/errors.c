/* What can go wrong, and what the library says: every misuse gives a status, none ends the program.
 *
 *     cc errors.c -I../../src/c_api libsinew.a -lm -lpthread -ldl -o errors
 *     ./errors model.sinew */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sinew.h"

static int wrong;

static void expect(sinew_status got, sinew_status wanted, const char *what, const char *text) {
    printf("%s: %s%s%s\n", what, sinew_status_text(got), *text ? ": " : "", text);
    if (got != wanted) {
        printf("  expected %s\n", sinew_status_text(wanted));
        wrong = 1;
    }
}

static void cancel(void *context, size_t step, uint64_t nanoseconds) {
    (void)nanoseconds;
    if (step == 0) sinew_session_cancel(*(sinew_session **)context);
}

static sinew_status nested;
static void run_again(void *context, size_t step, uint64_t nanoseconds) {
    (void)step, (void)nanoseconds;
    nested = sinew_session_run(*(sinew_session **)context);
}

int main(int argc, char **argv) {
    sinew_model *model;
    sinew_session *session = NULL;
    sinew_message message;
    if (argc != 2) return 2;

    expect(sinew_model_open("/no/such/file.sinew", NULL, &model, &message), SINEW_STATUS_FILE, "no file", message.text);
    expect(sinew_model_open(NULL, NULL, &model, &message), SINEW_STATUS_NULL_POINTER, "no path", message.text);
    expect(sinew_model_in_place("SINEW\r\n\032 and more", 19, NULL, &model, &message), SINEW_STATUS_MALFORMED,
           "a damaged model", message.text);
    expect(sinew_model_open(argv[1], NULL, &model, &message), SINEW_STATUS_OK, "a model", message.text);
    sinew_model_options limits;
    sinew_model_options_init(&limits);
    limits.max_arena_bytes = 64;
    sinew_model *small;
    expect(sinew_model_open(argv[1], &limits, &small, &message), SINEW_STATUS_TOO_LARGE, "a limit", message.text);

    sinew_memory memory;
    sinew_model_memory(model, &memory);
    void *block = malloc(memory.arena_bytes + SINEW_ALIGNMENT);
    if (!block) return 2;
    char *arena = (char *)block + (SINEW_ALIGNMENT - (size_t)block % SINEW_ALIGNMENT);
    sinew_session_options options;
    sinew_session_options_init(&options);
    options.arena = arena;
    options.arena_bytes = memory.arena_bytes - 1;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_BAD_ARENA, "a byte less", message.text);
    options.arena_bytes = memory.arena_bytes;
    options.isa = 99;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_BAD_ARGUMENT, "no instruction set",
           message.text);
    int missing = sinew_isa_available(SINEW_ISA_NEON) ? SINEW_ISA_AVX2 : SINEW_ISA_NEON;
    options.isa = missing;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_ISA_UNAVAILABLE,
           "another CPU's instruction set", message.text);
    options.isa = SINEW_ISA_AUTO;
    options.size = 4;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_BAD_ARGUMENT, "options without init",
           message.text);
    options.size = sizeof options;
    options.threads = 1;
    options.on_step = cancel;
    options.step_context = &session;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_OK, "exactly enough", message.text);

    sinew_tensor_info in, out;
    size_t index;
    sinew_model_input(model, 0, &in);
    sinew_model_output(model, 0, &out);
    expect(sinew_model_input(model, 99, &in), SINEW_STATUS_BAD_ARGUMENT, "input 99", "");
    expect(sinew_model_find_input(model, "nobody", &index), SINEW_STATUS_NOT_FOUND, "an unknown name", "");
    expect(sinew_model_find_input(model, in.name, &index), SINEW_STATUS_OK, "a known name", "");
    float *input = calloc(1, in.bytes + 4), *output = calloc(1, out.bytes);
    if (!input || !output) return 2;
    expect(sinew_session_run(session), SINEW_STATUS_BAD_BUFFER, "nothing bound", sinew_session_message(session));
    expect(sinew_session_bind_input(session, 0, input, in.bytes - 4), SINEW_STATUS_BAD_BUFFER, "a short input",
           sinew_session_message(session));
    expect(sinew_session_bind_input(session, 0, (char *)input + 1, in.bytes), SINEW_STATUS_BAD_BUFFER,
           "an input between numbers", sinew_session_message(session));
    expect(sinew_session_bind_input(session, 0, input, in.bytes), SINEW_STATUS_OK, "an input", "");
    expect(sinew_session_bind_output(session, 0, output, out.bytes), SINEW_STATUS_OK, "an output", "");
    expect(sinew_session_run(session), SINEW_STATUS_CANCELLED, "cancelled by its callback",
           sinew_session_message(session));
    expect(sinew_session_free(session), SINEW_STATUS_OK, "freed", "");

    options.on_step = run_again;
    expect(sinew_session_new(model, &options, &session, &message), SINEW_STATUS_OK, "another session", message.text);
    sinew_session_bind_input(session, 0, input, in.bytes);
    sinew_session_bind_output(session, 0, output, out.bytes);
    expect(sinew_session_run(session), SINEW_STATUS_OK, "a run", sinew_session_message(session));
    expect(nested, SINEW_STATUS_BUSY, "a run within it", "");
    sinew_session_cancel(session);
    expect(sinew_session_run(session), SINEW_STATUS_CANCELLED, "cancelled before", sinew_session_message(session));
    expect(sinew_session_run(session), SINEW_STATUS_OK, "and again", sinew_session_message(session));
    if (in.bytes >= out.bytes) {
        sinew_session_bind_output(session, 0, input, out.bytes);
        expect(sinew_session_run(session), SINEW_STATUS_BAD_BUFFER, "one memory for both",
               sinew_session_message(session));
    }
    expect(sinew_session_free(NULL), SINEW_STATUS_OK, "freeing nothing", "");
    static size_t nothing[1024];
    expect(sinew_session_run((sinew_session *)(void *)nothing), SINEW_STATUS_BAD_HANDLE, "no handle", "");
    sinew_session_free(session);
    sinew_model_free(model);
    free(input);
    free(output);
    free(block);
    puts(wrong ? "WRONG" : "all as expected");
    return wrong ? 2 : 0;
}
