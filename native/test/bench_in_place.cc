// sllm_bench_in_place <folder> [<gguf>]: times a start from disk to the first token. With a GGUF file it first makes
// the checkpoint in the folder. Prints one line of JSON: read_ms and gb_per_s of the store, build_ms and wait_ms of the
// engine, first_token_ms from the start of the load, prefill_ms of 8 tokens once ready and once more. The page cache
// plays no part where the file system has O_DIRECT. SLLM_BENCH_THREADS as in sllm_bench_plain; SLLM_BENCH_PREFAULT_MIB
// sets what the arena keeps faulted in; cpu_ms is the time of all threads from there to ready.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "core/digest.h"
#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"
#include "test/checkpoint_fixture.h"
#include "test/open_store.h"
#include "test/temp_folder.h"

namespace {

int fail(const std::string &what) {
    std::fprintf(stderr, "sllm_bench_in_place: %s\n", what.c_str());
    return 1;
}

std::uint32_t number(const char *variable, std::uint32_t otherwise) {
    const char *given = std::getenv(variable);
    return given == nullptr ? otherwise : static_cast<std::uint32_t>(std::atoi(given));
}

// Processor time of all threads so far.
double cpu_ms() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    const auto seconds = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    return seconds * 1e3 + static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
}

// The checkpoint's description is kept beside it, so that a second run only loads.
void write_digests(const std::string &folder, const test::Checkpoint &checkpoint) {
    const auto *bytes = reinterpret_cast<const std::uint8_t *>(checkpoint.digests.data());
    test::write_file(folder + "/digests", {bytes, bytes + checkpoint.digests.size() * sizeof(std::uint64_t)});
}

test::Checkpoint read_checkpoint(const std::string &folder) {
    test::Checkpoint checkpoint;
    checkpoint.header_path = folder + "/header.gguf";
    checkpoint.weights_path = folder + "/weights.bin";
    checkpoint.weights_bytes = std::filesystem::file_size(checkpoint.weights_path);
    const auto bytes = test::read_file(folder + "/digests");
    const auto *digests = reinterpret_cast<const std::uint64_t *>(bytes.data());
    checkpoint.digests.assign(digests, digests + bytes.size() / sizeof(std::uint64_t));
    return checkpoint;
}

int bench(const std::string &folder) {
    sllm::Env &env = sllm::Env::posix();
    const test::Checkpoint checkpoint = read_checkpoint(folder);
    if (sllm::Status s = sllm::llama::prepare_libraries(test::engine_libraries()); !s.ok()) return fail(s.message());
    const std::uint64_t prefault = std::uint64_t{number("SLLM_BENCH_PREFAULT_MIB", 0)} << 20;
    sllm::StoreOptions store_options;
    store_options.arena = {checkpoint.weights_bytes + prefault, prefault};
    const auto store_owner = test::open_store(store_options);
    sllm::Store &store = *store_owner;
    while (store.arena_status().prefaulting) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const double cpu_before = cpu_ms();
    const double started = env.now_ms();
    std::uint64_t load = 0;
    sllm::LoadRequest request{checkpoint.weights_path, checkpoint.weights_bytes, checkpoint.chunk_bytes,
                              checkpoint.digests};
    if (sllm::Status s = store.load(request, &load); !s.ok()) return fail(s.message());
    sllm::LoadStatus status;
    if (sllm::Status s = store.status(load, &status); !s.ok()) return fail(s.message());
    sllm::LlamaOptions options;
    options.library_dir = test::engine_libraries();
    options.header_path = checkpoint.header_path;
    options.weights_bytes = checkpoint.weights_bytes;
    options.context_tokens = 2048;
    options.slots = 4;
    options.batch_tokens = 512;
    options.threads = number("SLLM_BENCH_THREADS", 0);
    std::unique_ptr<sllm::Backend> backend;
    if (sllm::Status s = sllm::llama::LlamaBackend::build(options, &backend); !s.ok()) return fail(s.message());
    const double built = env.now_ms();
    if (sllm::Status s = backend->attach("/proc/self/fd/" + std::to_string(status.fd)); !s.ok()) {
        return fail(s.message());
    }
    const double ready = env.now_ms();
    const double cpu = cpu_ms() - cpu_before;
    double first = 0;
    double again = 0;
    // The same prompt twice: what the first pass costs beyond the second is what "ready" left undone.
    for (std::uint32_t slot = 0; slot < 2; slot++) {
        std::vector<sllm::BatchToken> batch;
        for (std::uint32_t i = 0; i < 8; i++) batch.push_back({static_cast<std::int32_t>(i + 3), i, slot, i == 7});
        if (sllm::Status s = backend->begin(slot, {}, {}); !s.ok()) return fail(s.message());
        if (sllm::Status s = backend->decode(batch); !s.ok()) return fail(s.message());
        backend->sample(slot, 7, 8);
        (slot == 0 ? first : again) = env.now_ms();
    }
    if (sllm::Status s = store.status(load, &status); !s.ok()) return fail(s.message());
    const sllm::BackendFacts &facts = backend->facts();
    std::printf("{\"in_place\":%s,"
                "\"read_ms\":%.1f,\"gb_per_s\":%.2f,\"direct_io\":%s,\"build_ms\":%.1f,\"wait_ms\":%.1f,"
                "\"ready_ms\":%.1f,\"cpu_ms\":%.1f,"
                "\"first_token_ms\":%.1f,\"prefill_ms\":%.1f,\"prefill_again_ms\":%.1f}\n",
                static_cast<const sllm::llama::LlamaBackend &>(*backend).in_place() ? "true" : "false",
                status.read_ms, static_cast<double>(checkpoint.weights_bytes) / status.read_ms / 1e6,
                status.direct_io ? "true" : "false", facts.model_build_ms, ready - built, ready - started,
                cpu, first - started, first - ready, again - first);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) return fail("usage: sllm_bench_in_place <folder> [<gguf>]");
    try {
        const std::string folder = argv[1];
        if (argc > 2) {
            std::filesystem::create_directories(folder);
            write_digests(folder, test::make_checkpoint(argv[2], folder, test::Order::engine, 16 << 20));
        }
        return bench(folder);
    } catch (const std::exception &error) {
        return fail(error.what());
    }
}
