// sllm_bench_adapter <folder> <bytes> <rounds>: how long a LoRA adapter of so many bytes takes to be ready for use on
// the sample model. One line of JSON per round: `read_ms` from the page cache into the arena, `add_ms` from there into
// the engine, `first_ms` for the first step with it and `next_ms` for the next, and `library_ms`, what the engine
// library takes to read the same file from the page cache.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/llama/llama_backend.h"
#include "llama.h"
#include "test/adapter_files.h"
#include "test/checkpoint_fixture.h"
#include "test/open_store.h"

namespace {

// All of the sample model: real adapters have many tensors too.
constexpr int layers = 4;

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void require(const sllm::Status &status) {
    if (!status.ok()) throw std::runtime_error(status.message());
}

// From a file that the page cache holds.
double time_library(const std::string &path) {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    llama_model *model = llama_model_load_from_file(test::sample_model().c_str(), params);
    const auto start = Clock::now();
    const llama_adapter_lora *adapter = llama_adapter_lora_init(model, path.c_str());
    const double ms = ms_since(start);
    if (adapter == nullptr) throw std::runtime_error("the library refuses the adapter");
    llama_model_free(model);
    return ms;
}

// A store with room for the adapter, its memory faulted in as a worker's is.
std::unique_ptr<sllm::Store> faulted_store(std::uint64_t bytes) {
    constexpr std::uint64_t chunk = std::uint64_t{16} << 20;
    const std::uint64_t arena = (bytes + chunk - 1) / chunk * chunk;
    constexpr std::uint32_t block = 1 << 20;
    sllm::StoreOptions options;
    options.arena = {arena, arena};
    options.reads = {sllm::ReadMethod::ring, true, block, 16 * block};
    options.workers = 2;
    auto store = test::open_store(options);
    while (store->arena_status().prefaulting) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return store;
}

// Reads the adapter into the arena and waits until it is there.
sllm::LoadStatus read_in(sllm::Store &store, const test::Checkpoint &adapter, std::uint64_t *load) {
    require(store.load({adapter.weights_path, adapter.weights_bytes, adapter.chunk_bytes, adapter.digests}, load));
    sllm::LoadStatus status;
    while (status.state == 0) {
        store.wait(100'000);
        require(store.status(*load, &status));
    }
    if (status.state != 1) throw std::runtime_error(status.message);
    return status;
}

// One step of a prompt of some tokens with the adapter.
double time_step(sllm::llama::LlamaBackend &backend) {
    std::vector<sllm::BatchToken> batch;
    for (std::int32_t token = 10; token < 18; token++) {
        batch.push_back({token, static_cast<std::uint32_t>(batch.size()), 0, token == 17});
    }
    backend.cut(0, 0);
    require(backend.use_adapter(1));
    const auto start = Clock::now();
    require(backend.decode(batch));
    return ms_since(start);
}

void run(const std::string &folder, std::uint64_t bytes, int rounds) {
    const auto base = test::make_checkpoint(test::sample_model(), folder, test::Order::engine);
    const test::HostCopied weights = test::load_checkpoint(base);
    const auto backend = test::open_backend(test::engine_options(base), weights.path);
    const std::string path =
        test::random_adapter(folder, {.rank = test::adapter_rank(bytes, layers), .layers = layers});
    const auto adapter = test::make_checkpoint(path, folder, test::Order::file, std::uint64_t{16} << 20);
    const auto store = faulted_store(adapter.weights_bytes);
    for (int round = 0; round < rounds; round++) {
        std::uint64_t load = 0;
        const sllm::LoadStatus status = read_in(*store, adapter, &load);
        const std::string copy = "/proc/self/fd/" + std::to_string(status.fd);
        const auto start = Clock::now();
        require(backend->add_adapter({1, adapter.header_path, copy, adapter.weights_bytes, 0}));
        const double add_ms = ms_since(start);
        const double first_ms = time_step(*backend);
        const double next_ms = time_step(*backend);
        backend->remove_adapter(1);
        require(store->release(load));
        std::printf("{\"bytes\":%llu,\"read_ms\":%.2f,\"add_ms\":%.2f,\"first_ms\":%.2f,\"next_ms\":%.2f,"
                    "\"library_ms\":%.2f}\n",
                    static_cast<unsigned long long>(adapter.weights_bytes), status.trace.ended_ms, add_ms, first_ms,
                    next_ms, time_library(path));
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: sllm_bench_adapter <folder> <bytes> <rounds>\n");
        return 2;
    }
    try {
        run(argv[1], std::strtoull(argv[2], nullptr, 10), std::atoi(argv[3]));
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_adapter: %s\n", error.what());
        return 1;
    }
}
