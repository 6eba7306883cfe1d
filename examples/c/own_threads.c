/* The program's own threads instead of the library's: `parallel_for` hands the parts of a step to a small pool.
 * The model must be compiled for several threads: sinew compile model.onnx --threads 3 -o model.sinew
 *
 *     cc own_threads.c -I../../src/c_api libsinew.a -lm -lpthread -ldl -o own_threads
 *     ./own_threads model.sinew */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sinew.h"

typedef void (*task_function)(void *context, size_t index);

enum { WORKERS = 2 };

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t workers[WORKERS];
    task_function task;
    void *task_context;
    size_t next, parts, running, steps;
    int stop;
} pool;

/* Takes parts until none is left. The lock is held on entry and on return. */
static void take_parts(pool *p) {
    while (p->next < p->parts) {
        size_t index = p->next++;
        p->running++;
        pthread_mutex_unlock(&p->lock);
        p->task(p->task_context, index);
        pthread_mutex_lock(&p->lock);
        p->running--;
    }
    if (p->running == 0) pthread_cond_broadcast(&p->done);
}

static void *worker(void *context) {
    pool *p = context;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        take_parts(p);
        pthread_cond_wait(&p->work, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* What the library calls: returns when all parts are computed. */
static void parallel_for(void *context, size_t parts, task_function task, void *task_context) {
    pool *p = context;
    pthread_mutex_lock(&p->lock);
    p->task = task;
    p->task_context = task_context;
    p->next = 0;
    p->parts = parts;
    p->steps++;
    pthread_cond_broadcast(&p->work);
    take_parts(p);
    while (p->running > 0) pthread_cond_wait(&p->done, &p->lock);
    p->parts = 0;
    pthread_mutex_unlock(&p->lock);
}

static int run(sinew_model *model, const sinew_session_options *options, const void *input, size_t input_bytes,
               void *output, size_t output_bytes) {
    sinew_session *session;
    sinew_message message;
    if (sinew_session_new(model, options, &session, &message)) {
        fprintf(stderr, "%s\n", message.text);
        return 1;
    }
    int failed = sinew_session_bind_input(session, 0, input, input_bytes) ||
                 sinew_session_bind_output(session, 0, output, output_bytes) || sinew_session_run(session);
    if (failed) fprintf(stderr, "%s\n", sinew_session_message(session));
    sinew_session_free(session);
    return failed;
}

int main(int argc, char **argv) {
    sinew_model *model;
    sinew_message message;
    if (argc != 2 || sinew_model_open(argv[1], NULL, &model, &message)) {
        fprintf(stderr, "%s\n", argc == 2 ? message.text : "usage: own_threads MODEL.sinew");
        return 2;
    }
    pool p = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    for (int i = 0; i < WORKERS; i++)
        if (pthread_create(&p.workers[i], NULL, worker, &p)) return 2;

    sinew_tensor_info in, out;
    sinew_model_input(model, 0, &in);
    sinew_model_output(model, 0, &out);
    float *input = malloc(in.bytes), *one = calloc(1, out.bytes), *many = calloc(1, out.bytes);
    if (!input || !one || !many) return 2;
    for (size_t i = 0; i < in.elements; i++) input[i] = (float)(i % 31) / 16.0f - 1.0f;

    sinew_session_options options;
    sinew_session_options_init(&options);
    options.threads = 1;
    int failed = run(model, &options, input, in.bytes, one, out.bytes);
    options.threads = 0;
    options.parallel_for = parallel_for;
    options.parallel_context = &p;
    failed = failed || run(model, &options, input, in.bytes, many, out.bytes);

    pthread_mutex_lock(&p.lock);
    p.stop = 1;
    pthread_cond_broadcast(&p.work);
    pthread_mutex_unlock(&p.lock);
    for (int i = 0; i < WORKERS; i++) pthread_join(p.workers[i], NULL);
    if (!failed) {
        int equal = memcmp(one, many, out.bytes) == 0;
        printf("%zu threads, %zu shared steps: %s\n", sinew_model_threads(model), p.steps,
               equal ? "the same bits" : "OTHER BITS");
        failed = !equal || p.steps == 0;
    }
    free(input);
    free(one);
    free(many);
    sinew_model_free(model);
    return failed ? 2 : 0;
}
