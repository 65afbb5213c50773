// sllm_bench_modes <gguf> speed|turns [ftype]: the deterministic mode beside the ordinary one, one line of JSON each.
// With ftype the model is first written anew in that type (an llama_ftype).
// speed: milliseconds of a prompt of 200 tokens, and of a step with one and with four answers, over 32 steps.
// turns: how many answers that are cut and resumed go on otherwise than the undisturbed run; greedy and sampled.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "engine/llama/llama_backend.h"
#include "test/batcher_scene.h"
#include "test/checkpoint_fixture.h"
#include "test/temp_folder.h"

namespace {

using test::BatcherScene;
using Tokens = std::vector<std::int32_t>;

constexpr std::uint32_t prompt_tokens = 200;
constexpr std::uint32_t timed_steps = 32;
constexpr std::uint32_t output_tokens = 200;
constexpr std::uint32_t runs = 12;  // of each temperature

sllm::Request request_of(std::uint64_t number, Tokens prompt, std::uint64_t max_tokens, double temperature) {
    sllm::Request request;
    request.number = number;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.sampling.temperature = temperature;
    request.sampling.seed = number;
    return request;
}

Tokens random_tokens(std::mt19937 &random, const sllm::Backend &backend, std::size_t n) {
    Tokens tokens(n);
    for (auto &token : tokens) token = static_cast<std::int32_t>(random() % backend.facts().vocabulary_tokens);
    return tokens;
}

double ms_of_step(BatcherScene &scene) {
    const double started = sllm::Env::posix().now_ms();
    scene.step();
    return sllm::Env::posix().now_ms() - started;
}

double ms_per_step(BatcherScene &scene) {
    double total = 0;
    for (std::uint32_t i = 0; i < timed_steps; i++) total += ms_of_step(scene);
    return total / timed_steps;
}

void measure_speed(sllm::Backend &backend, bool deterministic) {
    std::mt19937 random(1);
    BatcherScene scene(backend, prompt_tokens);
    scene.submit(request_of(9, random_tokens(random, backend, 16), 4, 0));
    scene.run();
    scene.submit(request_of(1, random_tokens(random, backend, prompt_tokens), 200, 0));
    const double prefill = ms_of_step(scene);
    const double alone = ms_per_step(scene);
    for (std::uint64_t i = 2; i <= 4; i++) scene.submit(request_of(i, random_tokens(random, backend, 16), 200, 0));
    scene.step();
    std::printf("{\"deterministic\":%s,\"prefill_ms\":%.2f,\"step_1_ms\":%.3f,\"step_4_ms\":%.3f}\n",
                deterministic ? "true" : "false", prefill, alone, ms_per_step(scene));
}

// Of one temperature, over random prompts and every twentieth cut.
void measure_turns(sllm::Backend &backend, bool deterministic, double temperature) {
    std::mt19937 random(2);
    std::uint32_t resumed = 0;
    std::uint32_t turned = 0;
    std::uint64_t tokens = 0;  // until the two runs part
    for (std::uint64_t run = 1; run <= runs; run++) {
        BatcherScene scene(backend, prompt_tokens);
        const sllm::Request request = request_of(run, random_tokens(random, backend, 40), output_tokens, temperature);
        scene.submit(request);
        scene.run();
        const Tokens whole = scene.answers[run].tokens;
        for (std::size_t cut = 10; cut < output_tokens; cut += 20) {
            for (std::uint32_t slot = 0; slot < backend.facts().slots; slot++) backend.cut(slot, 0);
            BatcherScene again(backend, prompt_tokens);
            sllm::Request rest = request;
            rest.resume.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut));
            again.submit(rest);
            again.run();
            const Tokens &found = again.answers[run].tokens;
            const auto expected = whole.begin() + static_cast<std::ptrdiff_t>(cut);
            const auto parted = std::mismatch(found.begin(), found.end(), expected);
            tokens += static_cast<std::uint64_t>(parted.first - found.begin());
            resumed++;
            if (parted.first != found.end()) turned++;
        }
    }
    std::printf("{\"deterministic\":%s,\"temperature\":%.1f,\"resumed\":%u,\"turned\":%u,\"equal_tokens\":%llu}\n",
                deterministic ? "true" : "false", temperature, resumed, turned,
                static_cast<unsigned long long>(tokens));
}

int bench(const std::string &gguf, bool speed, int ftype) {
    const test::TempFolder folder;
    const std::string model = ftype < 0 ? gguf : test::quantize(gguf, folder / "", ftype);
    const auto checkpoint = test::make_checkpoint(model, folder / "", test::Order::engine, 16 << 20);
    const auto copied = test::load_checkpoint(checkpoint);
    for (const bool deterministic : {false, true}) {
        sllm::LlamaOptions options = test::engine_options(checkpoint);
        options.slots = 4;
        options.context_tokens = 512;
        options.batch_tokens = 512;
        options.deterministic = deterministic;
        const auto backend = test::open_backend(options, copied.path);
        if (speed) {
            measure_speed(*backend, deterministic);
        } else {
            measure_turns(*backend, deterministic, 0);
            measure_turns(*backend, deterministic, 0.8);
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        std::fprintf(stderr, "sllm_bench_modes <gguf> speed|turns [ftype]\n");
        return 1;
    }
    try {
        return bench(argv[1], std::strcmp(argv[2], "speed") == 0, argc > 3 ? std::atoi(argv[3]) : -1);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_modes: %s\n", error.what());
        return 1;
    }
}
