// The C interface from C++: handles that free themselves, failures as exceptions.
//
//     c++ -std=c++17 classify.cpp -I../../src/c_api libsinew.a -lm -lpthread -ldl -o classify_cpp
//     ./classify_cpp model.sinew
#include <algorithm>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

#include "sinew.h"

struct Free {
    void operator()(sinew_model *model) const { sinew_model_free(model); }
    void operator()(sinew_session *session) const { sinew_session_free(session); }
};
using Model = std::unique_ptr<sinew_model, Free>;
using Session = std::unique_ptr<sinew_session, Free>;

static void check(sinew_status status, const char *text) {
    if (status != SINEW_STATUS_OK) throw std::runtime_error(text);
}

int main(int argc, char **argv) try {
    if (argc != 2) throw std::runtime_error("usage: classify_cpp MODEL.sinew");
    sinew_message message;
    sinew_model *opened = nullptr;
    check(sinew_model_open(argv[1], nullptr, &opened, &message), message.text);
    Model model(opened);
    sinew_session *made = nullptr;
    check(sinew_session_new(model.get(), nullptr, &made, &message), message.text);
    Session session(made);

    sinew_tensor_info in, out;
    sinew_model_input(model.get(), 0, &in);
    sinew_model_output(model.get(), 0, &out);
    std::vector<float> input(in.elements, 0.5f), output(out.elements);
    check(sinew_session_bind_input(session.get(), 0, input.data(), in.bytes), "input");
    check(sinew_session_bind_output(session.get(), 0, output.data(), out.bytes), "output");
    check(sinew_session_run(session.get()), sinew_session_message(session.get()));
    auto best = std::max_element(output.begin(), output.end());
    std::printf("class %td: %.6f\n", best - output.begin(), *best);
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
}
