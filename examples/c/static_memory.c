/* No allocation of the program's own: the model is an array in read-only memory, used where it lies, and the arena a
 * static array of exactly the size that the header of the model names.
 *
 *     sinew compile model.onnx --c-array model.h
 *     cc static_memory.c -I. -I../../src/c_api libsinew.a -lm -lpthread -ldl -o static_memory */
#include <stdint.h>
#include <stdio.h>

#include "model.h"
#include "sinew.h"

static _Alignas(SINEW_ALIGNMENT) unsigned char arena[MODEL_ARENA_BYTES];
static float input[1 << 18], output[1 << 16];

int main(void) {
    sinew_model *loaded;
    sinew_session *session;
    sinew_message message;
    sinew_session_options options;
    sinew_session_options_init(&options);
    options.arena = arena;
    options.arena_bytes = sizeof arena;
    if (sinew_model_in_place(model, MODEL_BYTES, NULL, &loaded, &message) ||
        sinew_session_new(loaded, &options, &session, &message)) {
        fprintf(stderr, "%s\n", message.text);
        return 2;
    }
    sinew_tensor_info in, out;
    sinew_model_input(loaded, 0, &in);
    sinew_model_output(loaded, 0, &out);
    if (in.bytes > sizeof input || out.bytes > sizeof output) return 2;
    for (size_t i = 0; i < in.elements; i++) input[i] = (float)(i % 17) / 8.0f - 1.0f;
    if (sinew_session_bind_input(session, 0, input, in.bytes) ||
        sinew_session_bind_output(session, 0, output, out.bytes) || sinew_session_run(session)) {
        fprintf(stderr, "%s\n", sinew_session_message(session));
        return 2;
    }
    for (size_t i = 0; i < out.elements && i < 4; i++) printf("%s[%zu] = %.6f\n", out.name, i, output[i]);
    sinew_session_free(session);
    sinew_model_free(loaded);
    return 0;
}
