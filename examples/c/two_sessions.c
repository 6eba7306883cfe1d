/* One model, shared by two threads; each has a session of its own.
 *
 *     cc two_sessions.c -I../../src/c_api libsinew.a -lm -lpthread -ldl -o two_sessions
 *     ./two_sessions model.sinew */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sinew.h"

typedef struct {
    const sinew_model *model;
    const float *input;
    float *output;
    size_t input_bytes, output_bytes;
    int failed;
} job;

static void *run(void *context) {
    job *j = context;
    sinew_session *session;
    sinew_message message;
    if (sinew_session_new(j->model, NULL, &session, &message)) {
        fprintf(stderr, "%s\n", message.text);
        j->failed = 1;
        return NULL;
    }
    j->failed = sinew_session_bind_input(session, 0, j->input, j->input_bytes) ||
                sinew_session_bind_output(session, 0, j->output, j->output_bytes);
    for (int i = 0; i < 10 && !j->failed; i++) j->failed = sinew_session_run(session) != SINEW_STATUS_OK;
    if (j->failed) fprintf(stderr, "%s\n", sinew_session_message(session));
    sinew_session_free(session);
    return NULL;
}

int main(int argc, char **argv) {
    sinew_model *model;
    sinew_message message;
    if (argc != 2 || sinew_model_open(argv[1], NULL, &model, &message)) {
        fprintf(stderr, "%s\n", argc == 2 ? message.text : "usage: two_sessions MODEL.sinew");
        return 2;
    }
    sinew_tensor_info in, out;
    sinew_model_input(model, 0, &in);
    sinew_model_output(model, 0, &out);
    float *input = malloc(in.bytes);
    if (!input) return 2;
    for (size_t i = 0; i < in.elements; i++) input[i] = (float)(i % 13) / 6.0f - 1.0f;
    job jobs[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        jobs[i] = (job){model, input, calloc(1, out.bytes), in.bytes, out.bytes, 0};
        if (!jobs[i].output || pthread_create(&threads[i], NULL, run, &jobs[i])) return 2;
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    int failed = jobs[0].failed || jobs[1].failed || memcmp(jobs[0].output, jobs[1].output, out.bytes) != 0;
    puts(failed ? "FAILED" : "two sessions, the same bits");
    for (int i = 0; i < 2; i++) free(jobs[i].output);
    free(input);
    sinew_model_free(model);
    return failed ? 2 : 0;
}
