/* Loads a model and classifies an image.
 *
 *     cc classify.c -I../../src/c_api libsinew.a -lm -lpthread -ldl -o classify
 *     ./classify model.sinew image.ppm
 *
 * The image is a binary PPM ("P6"), which any tool writes: rows of pixels, 3 bytes each. */
#include <stdio.h>
#include <stdlib.h>

#include "sinew.h"

static unsigned char *read_ppm(const char *path, size_t *width, size_t *height) {
    FILE *file = fopen(path, "rb");
    unsigned char *rgb = NULL;
    if (!file) return NULL;
    if (fscanf(file, "P6 %zu %zu 255", width, height) == 2 && fgetc(file) != EOF && *width > 0 && *height > 0 &&
        *width < 1 << 16 && *height < 1 << 16) {
        size_t bytes = *width * *height * 3;
        rgb = malloc(bytes);
        if (rgb && fread(rgb, 1, bytes, file) != bytes) {
            free(rgb);
            rgb = NULL;
        }
    }
    fclose(file);
    return rgb;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: classify MODEL.sinew IMAGE.ppm\n");
        return 2;
    }
    sinew_model *model;
    sinew_session *session;
    sinew_message message;
    if (sinew_model_open(argv[1], NULL, &model, &message) || sinew_session_new(model, NULL, &session, &message)) {
        fprintf(stderr, "%s\n", message.text);
        return 2;
    }
    size_t width, height;
    unsigned char *rgb = read_ppm(argv[2], &width, &height);
    if (!rgb) {
        fprintf(stderr, "%s: no binary PPM\n", argv[2]);
        return 2;
    }
    sinew_tensor_info output;
    sinew_model_output(model, 0, &output);
    float *scores = malloc(output.bytes);
    if (!scores || sinew_session_set_image(session, 0, rgb, width, height, NULL) ||
        sinew_session_bind_output(session, 0, scores, output.bytes) || sinew_session_run(session)) {
        fprintf(stderr, "%s\n", sinew_session_message(session));
        return 2;
    }
    for (int place = 0; place < 3 && (size_t)place < output.elements; place++) {
        size_t best = 0;
        for (size_t i = 1; i < output.elements; i++)
            if (scores[i] > scores[best]) best = i;
        printf("class %zu: %.6f\n", best, scores[best]);
        scores[best] = -3.4e38f;
    }
    free(scores);
    free(rgb);
    sinew_session_free(session);
    sinew_model_free(model);
    return 0;
}
