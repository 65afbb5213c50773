// sllm_bench_plain <gguf> <prompt> <n>: loads a GGUF file in libllama's normal way, with its defaults, and prints
// {"load_ms","first_token_ms","tokens"} as one line of JSON. The peer that the project's own start is measured against.
// first_token_ms counts from the start of the load. `n` tokens are generated greedily. The engine libraries are those
// this program was built with; SLLM_BENCH_THREADS sets the threads (default: all cores but one).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "llama.h"

namespace {

double now_ms() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
}

int fail(const char *what) {
    std::fprintf(stderr, "sllm_bench_plain: %s\n", what);
    return 1;
}

int threads() {
    const char *given = std::getenv("SLLM_BENCH_THREADS");
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    return given != nullptr ? std::max(std::atoi(given), 1) : std::max(cores - 1, 1);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 4) return fail("usage: sllm_bench_plain <gguf> <prompt> <tokens>");
    const int wanted = std::max(std::atoi(argv[3]), 1);
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all_from_path(SLLM_TEST_LIBRARIES);
    const double started = now_ms();
    llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == nullptr) return fail("the model cannot be loaded");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 2048;
    params.n_threads = params.n_threads_batch = threads();
    params.no_perf = true;
    llama_context *context = llama_init_from_model(model, params);
    if (context == nullptr) return fail("the context cannot be opened");
    const double loaded = now_ms();

    const llama_vocab *vocab = llama_model_get_vocab(model);
    std::vector<llama_token> tokens(std::strlen(argv[2]) + 16);
    const int n = llama_tokenize(vocab, argv[2], static_cast<int>(std::strlen(argv[2])), tokens.data(),
                                 static_cast<int>(tokens.size()), true, true);
    if (n <= 0) return fail("the prompt has no tokens");
    llama_sampler *greedy = llama_sampler_init_greedy();
    llama_batch batch = llama_batch_get_one(tokens.data(), n);
    double first = 0;
    for (int i = 0; i < wanted; i++) {
        if (llama_decode(context, batch) != 0) return fail("libllama failed to compute");
        tokens[0] = llama_sampler_sample(greedy, context, -1);
        if (i == 0) first = now_ms();
        batch = llama_batch_get_one(tokens.data(), 1);
    }
    std::printf("{\"load_ms\":%.2f,\"first_token_ms\":%.2f,\"tokens\":%d}\n", loaded - started, first - started,
                wanted);
    llama_sampler_free(greedy);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
