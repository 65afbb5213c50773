// sllm_bench_decode <gguf> <threads> <streams> <context tokens> plain|repacked: the yardstick of generation, a loop
// over llama_decode with nothing around it. Reads commands from standard input, one a line, and answers each with one
// line of JSON, {"tokens","ms"}:
//   prefill <text>                   one prompt in one call, until its greedy token
//   decode <streams> <tokens> <text> as many sequences, each generating greedily in common batches; the first token
//                                    is not counted
// The CPU backend is that of the folder SLLM_ENGINE_LIBRARIES, by default the one this program was built with.
// `repacked` lets libllama change the layout of weights, as it does by default; `plain` computes on the file's.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "llama.h"

namespace {

double now_ms() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
}

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "sllm_bench_decode: %s\n", what);
    std::exit(1);
}

struct Loop {
    llama_context *context;
    const llama_vocab *vocab;
    llama_batch batch;
    std::int32_t filled = 0;

    void add(llama_token token, llama_pos position, llama_seq_id sequence, bool wants_logits) {
        const std::int32_t i = filled++;
        batch.token[i] = token;
        batch.pos[i] = position;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = sequence;
        batch.logits[i] = wants_logits ? 1 : 0;
        batch.n_tokens = filled;
    }

    void compute() {
        if (llama_decode(context, batch) != 0) fail("llama_decode failed");
        filled = 0;
    }

    llama_token likeliest(std::int32_t row) const {
        const float *logits = llama_get_logits_ith(context, row);
        const float *end = logits + llama_vocab_n_tokens(vocab);
        return static_cast<llama_token>(std::max_element(logits, end) - logits);
    }

    std::vector<llama_token> tokens_of(const std::string &text) const {
        std::vector<llama_token> tokens(text.size() + 16);
        const std::int32_t n = llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                                              static_cast<std::int32_t>(tokens.size()), true, false);
        if (n <= 0) fail("the prompt cannot be tokenised");
        tokens.resize(static_cast<std::size_t>(n));
        return tokens;
    }

    void forget() const { llama_memory_clear(llama_get_memory(context), false); }
};

void answer(std::size_t tokens, double ms) {
    std::printf("{\"tokens\":%zu,\"ms\":%.3f}\n", tokens, ms);
    std::fflush(stdout);
}

void prefill(Loop &loop, const std::string &text) {
    loop.forget();
    const double started = now_ms();
    const std::vector<llama_token> tokens = loop.tokens_of(text);
    for (std::size_t i = 0; i < tokens.size(); i++) {
        loop.add(tokens[i], static_cast<llama_pos>(i), 0, i + 1 == tokens.size());
    }
    loop.compute();
    if (loop.likeliest(-1) < 0) fail("no token");
    answer(tokens.size(), now_ms() - started);
}

void decode(Loop &loop, std::int32_t streams, std::int32_t wanted, const std::string &text) {
    loop.forget();
    const std::vector<llama_token> tokens = loop.tokens_of(text);
    std::vector<llama_token> next(static_cast<std::size_t>(streams));
    for (std::int32_t s = 0; s < streams; s++) {
        for (std::size_t i = 0; i < tokens.size(); i++) {
            loop.add(tokens[i], static_cast<llama_pos>(i), s, i + 1 == tokens.size());
        }
        loop.compute();
        next[static_cast<std::size_t>(s)] = loop.likeliest(-1);
    }
    const double started = now_ms();
    for (std::int32_t step = 1; step < wanted; step++) {
        const auto position = static_cast<llama_pos>(tokens.size()) + step - 1;
        for (std::int32_t s = 0; s < streams; s++) loop.add(next[static_cast<std::size_t>(s)], position, s, true);
        loop.compute();
        for (std::int32_t s = 0; s < streams; s++) next[static_cast<std::size_t>(s)] = loop.likeliest(s);
    }
    answer(static_cast<std::size_t>(streams) * static_cast<std::size_t>(wanted - 1), now_ms() - started);
}

void follow(Loop &loop, const std::string &line) {
    std::istringstream in(line);
    std::string command;
    std::int32_t streams = 0;
    std::int32_t wanted = 0;
    in >> command;
    if (command == "decode") in >> streams >> wanted;
    std::string text;
    std::getline(in >> std::ws, text);
    if (command == "prefill") {
        prefill(loop, text);
    } else if (command == "decode" && streams > 0 && wanted > 1) {
        decode(loop, streams, wanted, text);
    } else {
        fail("unknown command");
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 6) fail("usage: sllm_bench_decode <gguf> <threads> <streams> <context tokens> plain|repacked");
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    const char *folder = std::getenv("SLLM_ENGINE_LIBRARIES");
    ggml_backend_load_all_from_path(folder != nullptr ? folder : SLLM_TEST_LIBRARIES);
    llama_model_params model_params = llama_model_default_params();
    model_params.use_extra_bufts = std::strcmp(argv[5], "repacked") == 0;
    llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (model == nullptr) fail("the model cannot be loaded");
    llama_context_params params = llama_context_default_params();
    const int streams = std::atoi(argv[3]);
    const int context_tokens = std::atoi(argv[4]);
    params.n_ctx = static_cast<std::uint32_t>(streams * context_tokens);
    params.n_batch = params.n_ubatch = 512;
    params.n_seq_max = static_cast<std::uint32_t>(streams);
    params.n_threads = params.n_threads_batch = std::atoi(argv[2]);
    params.kv_unified = true;
    params.no_perf = true;
    llama_context *context = llama_init_from_model(model, params);
    if (context == nullptr) fail("the context cannot be opened");
    Loop loop{context, llama_model_get_vocab(model), llama_batch_init(512, 0, 1)};
    std::printf("{\"ready\":true}\n");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) follow(loop, line);
    llama_batch_free(loop.batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
