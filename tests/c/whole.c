/* Uses the whole interface: what a program that links the library grows by is measured with this one. */
#include "sinew.h"

int main(int argc, char **argv) {
#ifdef EMPTY
    return argc + (argv == 0);
#else
    sinew_model *model = 0;
    sinew_session *session = 0;
    sinew_message message;
    sinew_model_options model_options;
    sinew_session_options options;
    sinew_image_options image;
    sinew_tensor_info in, out;
    sinew_step_info step;
    sinew_memory memory;
    size_t index;
    static float data[16];
    sinew_model_options_init(&model_options);
    sinew_session_options_init(&options);
    sinew_image_options_init(&image);
    int sum = sinew_version() > 0;
    sum += sinew_isa_available(SINEW_ISA_AVX2) + sinew_isa_name(0)[0] + sinew_status_text(argc)[0];
    sum += sinew_model_open(argv[argc - 1], &model_options, &model, &message);
    sum += sinew_model_from_memory(argv, 1, &model_options, &model, &message);
    sum += sinew_model_in_place(argv, 1, &model_options, &model, &message);
    sum += sinew_model_name(model) != 0;
    sum += (int)(sinew_model_input_count(model) + sinew_model_output_count(model) + sinew_model_step_count(model));
    sum += (int)sinew_model_threads(model);
    sum += sinew_model_input(model, 0, &in) + sinew_model_output(model, 0, &out) + sinew_model_step(model, 0, &step);
    sum += sinew_model_find_input(model, "x", &index) + sinew_model_find_output(model, "y", &index);
    sum += sinew_model_memory(model, &memory);
    sum += sinew_session_new(model, &options, &session, &message);
    sum += sinew_session_bind_input(session, 0, data, 16) + sinew_session_bind_output(session, 0, data, 16);
    sum += sinew_session_set_image(session, 0, (const unsigned char *)argv, 1, 1, &image);
    sum += sinew_session_run(session) + sinew_session_cancel(session) + sinew_session_isa(session);
    sum += sinew_session_message(session)[0];
    sum += sinew_session_free(session) + sinew_model_free(model);
    return sum;
#endif
}
