// sllm_bench_plain <gguf> <prompt> <n> [<load mode>]: loads a GGUF file in libllama's normal way, with its defaults,
// and prints {"load_ms","first_token_ms","again_ms","resident_bytes","cpu_ms","tokens"} as one line of JSON. The peer
// that the project's own start is measured against. Load modes are libllama's: mmap, none, dio and others; its own
// choice if left out. The clock starts before ggml's backends are loaded; load_ms ends with an open context;
// resident_bytes is the memory that is mapped then, so that one sees whether the weights are there. first_token_ms
// counts from the start of the load; again_ms is the time of the same prompt once more, when nothing is left to load.
// cpu_ms is the processor time of the load. `n` tokens are generated greedily. The CPU backend is that of the
// folder SLLM_ENGINE_LIBRARIES, by default the one this program was built with; SLLM_BENCH_THREADS sets the threads
// (default: all cores but one).
// sllm_bench_plain --vocabulary <gguf>: {"vocabulary_ms"}, what building nothing but the vocabulary takes once the
// backends are loaded.
#include <sys/resource.h>
#include <unistd.h>

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

double cpu_ms() {
    struct rusage usage {};
    getrusage(RUSAGE_SELF, &usage);
    const auto ms = [](const timeval &t) {
        return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3;
    };
    return ms(usage.ru_utime) + ms(usage.ru_stime);
}

long long resident_bytes() {
    long long total = 0;
    long long resident = 0;
    std::FILE *file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr) return 0;
    const int found = std::fscanf(file, "%lld %lld", &total, &resident);
    std::fclose(file);
    return found == 2 ? resident * sysconf(_SC_PAGESIZE) : 0;
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

void load_backends() {
    const char *folder = std::getenv("SLLM_ENGINE_LIBRARIES");
    ggml_backend_load_all_from_path(folder != nullptr ? folder : SLLM_TEST_LIBRARIES);
}

struct Loaded {
    llama_model *model = nullptr;
    llama_context *context = nullptr;
};

// Loads with the defaults of libllama. `mode` may be null. The members that failed stay null.
Loaded load(const char *path, const char *mode) {
    Loaded loaded;
    llama_model_params model_params = llama_model_default_params();
    if (mode != nullptr) model_params.load_mode = llama_load_mode_from_str(mode);
    loaded.model = llama_model_load_from_file(path, model_params);
    if (loaded.model == nullptr) return loaded;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 2048;
    params.n_threads = params.n_threads_batch = threads();
    params.no_perf = true;
    loaded.context = llama_init_from_model(loaded.model, params);
    return loaded;
}

std::vector<llama_token> tokens_of(const llama_model *model, const char *text) {
    const auto bytes = static_cast<int>(std::strlen(text));
    std::vector<llama_token> tokens(static_cast<std::size_t>(bytes) + 16);
    const int n = llama_tokenize(llama_model_get_vocab(model), text, bytes, tokens.data(),
                                 static_cast<int>(tokens.size()), true, true);
    tokens.resize(static_cast<std::size_t>(std::max(n, 0)));
    return tokens;
}

// Generates `wanted` tokens; returns when the first was there, or 0 when libllama failed.
double generate(llama_context *context, std::vector<llama_token> tokens, int wanted) {
    llama_sampler *greedy = llama_sampler_init_greedy();
    llama_batch batch = llama_batch_get_one(tokens.data(), static_cast<int>(tokens.size()));
    double first = 0;
    for (int i = 0; i < wanted; i++) {
        if (llama_decode(context, batch) != 0) return 0;
        llama_token next = llama_sampler_sample(greedy, context, -1);
        if (i == 0) first = now_ms();
        tokens.assign(1, next);
        batch = llama_batch_get_one(tokens.data(), 1);
    }
    llama_sampler_free(greedy);
    return first;
}

int time_vocabulary(const char *path) {
    load_backends();
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    const double started = now_ms();
    llama_model *model = llama_model_load_from_file(path, params);
    if (model == nullptr) return fail("the vocabulary cannot be loaded");
    std::printf("{\"vocabulary_ms\":%.2f}\n", now_ms() - started);
    llama_model_free(model);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    if (argc == 3 && std::strcmp(argv[1], "--vocabulary") == 0) return time_vocabulary(argv[2]);
    if (argc < 4 || argc > 5) {
        return fail("usage: sllm_bench_plain <gguf> <prompt> <tokens> [<load mode>] | --vocabulary <gguf>");
    }
    const int wanted = std::max(std::atoi(argv[3]), 1);
    const double cpu = cpu_ms();
    const double started = now_ms();
    load_backends();
    const Loaded it = load(argv[1], argc == 5 ? argv[4] : nullptr);
    if (it.model == nullptr) return fail("the model cannot be loaded");
    if (it.context == nullptr) return fail("the context cannot be opened");
    const double loaded = now_ms();
    const double load_cpu = cpu_ms() - cpu;
    const long long resident = resident_bytes();

    const std::vector<llama_token> tokens = tokens_of(it.model, argv[2]);
    if (tokens.empty()) return fail("the prompt has no tokens");
    const double first = generate(it.context, tokens, wanted);
    llama_memory_clear(llama_get_memory(it.context), true);
    const double again = now_ms();
    const double second = generate(it.context, tokens, 1);
    if (first == 0 || second == 0) return fail("libllama failed to compute");
    std::printf("{\"load_ms\":%.2f,\"first_token_ms\":%.2f,\"again_ms\":%.2f,\"resident_bytes\":%lld,"
                "\"cpu_ms\":%.1f,\"tokens\":%d}\n",
                loaded - started, first - started, second - again, resident, load_cpu, wanted);
    llama_free(it.context);
    llama_model_free(it.model);
    return 0;
}
