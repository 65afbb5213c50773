// sllm_bench_device <folder> [<mebibytes> [<rounds>]]: how fast weights come to a device, beside what the disk and the
// device's link can do. Each round measures, one right after the other: the disk (a reader of its own, O_DIRECT), the
// link (copies from page-locked memory in pieces of 16 MiB), a load from disk to the device (store and upload, digests
// on, file evicted before), the same through 16 chunks of the arena, and an upload of what is in host memory already.
// Weights are random bytes in the folder; they are removed. Prints a line of JSON for each round and one with the
// medians; "gbps" are billions of bytes per second. In the first round every byte is read back and compared.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/digest.h"
#include "core/limits.h"
#include "engine/llama/device_upload.h"
#include "test/bench_reader.h"
#include "test/device_fixture.h"
#include "test/harness.h"
#include "test/open_store.h"

namespace {

constexpr std::uint64_t chunk_bytes = sllm::limits::arena_chunk_bytes;
constexpr std::uint32_t stream_chunks = 16;

struct FreeBackend {
    void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
};
struct FreeBuffer {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};
using Buffer = std::unique_ptr<std::remove_pointer_t<ggml_backend_buffer_t>, FreeBuffer>;

struct Weights {
    std::string path;
    std::uint64_t bytes = 0;
    std::vector<std::uint64_t> digests;
};

// Random enough for any link that compresses, at the speed of memory.
Weights make_weights(const std::string &path, std::uint64_t bytes) {
    Weights weights{path, bytes, {}};
    std::vector<std::uint64_t> chunk(chunk_bytes / sizeof(std::uint64_t));
    std::mt19937_64 random(1);
    std::generate(chunk.begin(), chunk.end(), std::ref(random));
    std::FILE *file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) throw std::runtime_error("cannot write " + path);
    for (std::uint64_t at = 0; at < bytes; at += chunk_bytes) {
        for (std::size_t i = 0; i < chunk.size(); i += 512) chunk[i] = random();  // no two chunks are alike
        const std::size_t length = std::min(chunk_bytes, bytes - at);
        weights.digests.push_back(sllm::xxh3(reinterpret_cast<const std::uint8_t *>(chunk.data()), length));
        if (std::fwrite(chunk.data(), 1, length, file) != length) throw std::runtime_error("cannot write " + path);
    }
    if (std::fclose(file) != 0) throw std::runtime_error("cannot write " + path);
    return weights;
}

// A tensor that stands for a whole buffer.
ggml_tensor whole(ggml_backend_buffer_t buffer) {
    ggml_tensor tensor{};
    const std::size_t bytes = ggml_backend_buffer_get_size(buffer);
    tensor.type = GGML_TYPE_I8;
    tensor.ne[0] = static_cast<std::int64_t>(bytes);
    tensor.ne[1] = tensor.ne[2] = tensor.ne[3] = 1;
    tensor.nb[0] = 1;
    tensor.nb[1] = tensor.nb[2] = tensor.nb[3] = bytes;
    tensor.buffer = buffer;
    tensor.data = ggml_backend_buffer_get_base(buffer);
    return tensor;
}

Buffer allocate(ggml_backend_buffer_type_t type, std::uint64_t bytes) {
    Buffer buffer(ggml_backend_buft_alloc_buffer(type, bytes));
    if (!buffer) throw std::runtime_error("no memory of " + std::string(ggml_backend_buft_name(type)));
    return buffer;
}

double disk_ms(const Weights &weights, const bench::Memory &window) {
    bench::evict(weights.path);
    const auto pieces = bench::blocks_of(weights.bytes, 4 << 20, window.data(), window.bytes());
    const double started = bench::now_ms();
    bench::read_pieces(weights.path, {true, bench::Method::threads, 8}, pieces);
    return bench::now_ms() - started;
}

double link_ms(const Weights &weights, ggml_backend_buffer_t target) {
    const std::unique_ptr<std::remove_pointer_t<ggml_backend_t>, FreeBackend> backend(
        ggml_backend_dev_init(test::device(), nullptr));
    const Buffer host = allocate(ggml_backend_dev_host_buffer_type(test::device()), 4 * chunk_bytes);
    const auto *from = static_cast<const std::uint8_t *>(ggml_backend_buffer_get_base(host.get()));
    ggml_tensor tensor = whole(target);
    const double started = bench::now_ms();
    for (std::uint64_t at = 0; at < weights.bytes; at += chunk_bytes) {
        const std::size_t bytes = std::min(chunk_bytes, weights.bytes - at);
        ggml_backend_tensor_set_async(backend.get(), &tensor, from + at % (4 * chunk_bytes), at, bytes);
    }
    ggml_backend_synchronize(backend.get());
    return bench::now_ms() - started;
}

struct Loaded {
    double ms = 0;
    double wait_ms = 0;  // of it, the device's thread waited for bytes
};

Loaded bring(const Weights &weights, sllm::Store &store, std::uint64_t load, ggml_backend_buffer_t target) {
    sllm::LoadStatus status;
    CHECK_OK(store.status(load, &status));
    const std::string path = "/proc/self/fd/" + std::to_string(status.fd);
    sllm::HostCopyView view;
    CHECK_OK(sllm::HostCopyView::open(sllm::Env::posix(), path, weights.bytes, &view));
    const std::vector<sllm::llama::DevicePart> parts{{test::device(), {{0, weights.bytes, target, 0}}}};
    sllm::llama::SharedProgress progress(view, 1);
    sllm::llama::UploadFacts facts;
    CHECK_OK(sllm::llama::upload(parts, view, progress, &facts));
    return {facts.upload_ms, facts.wait_ms};
}

std::uint64_t begin(const Weights &weights, sllm::Store &store, std::uint32_t ring) {
    bench::evict(weights.path);
    std::uint64_t load = 0;
    CHECK_OK(store.load({weights.path, weights.bytes, chunk_bytes, weights.digests, ring}, &load));
    return load;
}

// Reads everything back in pieces, and compares it with the digests.
void check(const Weights &weights, ggml_backend_buffer_t target) {
    std::vector<std::uint8_t> found(chunk_bytes);
    ggml_tensor tensor = whole(target);
    for (std::uint64_t at = 0; at < weights.bytes; at += chunk_bytes) {
        const std::size_t bytes = std::min(chunk_bytes, weights.bytes - at);
        ggml_backend_tensor_get(&tensor, found.data(), at, bytes);
        CHECK_EQ(sllm::xxh3(found.data(), bytes), weights.digests[at / chunk_bytes]);
    }
}

void clear(ggml_backend_buffer_t target) { ggml_backend_buffer_clear(target, 0); }

// Milliseconds by what was measured.
using Round = std::vector<std::pair<std::string, double>>;

Round measure(const Weights &weights, sllm::Store &store, ggml_backend_buffer_t target, const bench::Memory &window,
              bool first) {
    Round round;
    round.emplace_back("disk_ceiling", disk_ms(weights, window));
    round.emplace_back("link_ceiling", link_ms(weights, target));
    if (first) clear(target);
    double started = bench::now_ms();
    std::uint64_t load = begin(weights, store, 0);
    const Loaded whole_copy = bring(weights, store, load, target);
    round.emplace_back("disk_to_device", bench::now_ms() - started);
    round.emplace_back("waited_for_disk", whole_copy.wait_ms);
    if (first) check(weights, target);
    round.emplace_back("host_to_device", bring(weights, store, load, target).ms);
    CHECK_OK(store.release(load));
    if (first) clear(target);
    started = bench::now_ms();
    load = begin(weights, store, stream_chunks);
    bring(weights, store, load, target);
    round.emplace_back("streamed_to_device", bench::now_ms() - started);
    if (first) check(weights, target);
    CHECK_OK(store.release(load));
    return round;
}

void print(const char *what, const Round &round, std::uint64_t bytes) {
    std::printf("{\"%s\":{", what);
    for (std::size_t i = 0; i < round.size(); i++) {
        const auto &[name, ms] = round[i];
        const bool is_rate = name != "waited_for_disk";
        std::printf("%s\"%s_%s\":%.3f", i == 0 ? "" : ",", name.c_str(), is_rate ? "gbps" : "ms",
                    is_rate ? static_cast<double>(bytes) / ms / 1e6 : ms);
    }
}

Round medians(const std::vector<Round> &rounds) {
    Round result = rounds.front();
    for (std::size_t i = 0; i < result.size(); i++) {
        std::vector<double> all;
        for (const Round &round : rounds) all.push_back(round[i].second);
        std::sort(all.begin(), all.end());
        result[i].second = all[all.size() / 2];
    }
    return result;
}

void bench_device(const std::string &folder, std::uint64_t mebibytes, int count) {
    test::need_devices(test::one_device());
    const std::string path = folder + "/sllm-bench-device.weights";
    const struct Removed {
        const std::string &path;
        ~Removed() { std::filesystem::remove(path); }
    } removed{path};
    const Weights weights = make_weights(path, mebibytes << 20);
    sllm::StoreOptions options;
    options.arena = {weights.bytes + stream_chunks * chunk_bytes, weights.bytes + stream_chunks * chunk_bytes};
    const auto store = test::open_store(options);
    while (store->arena_status().prefaulting) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const Buffer target = allocate(ggml_backend_dev_buffer_type(test::device()), weights.bytes);
    const bench::Memory window(std::uint64_t{512} << 20, bench::Pages::huge);
    std::vector<Round> rounds;
    for (int i = 0; i < count; i++) {
        rounds.push_back(measure(weights, *store, target.get(), window, i == 0));
        print("round", rounds.back(), weights.bytes);
        std::printf("}}\n");
        std::fflush(stdout);
    }
    print("median", medians(rounds), weights.bytes);
    const char *registers = std::getenv("GGML_CUDA_REGISTER_HOST");
    std::printf("},\"bytes\":%llu,\"rounds\":%d,\"device\":\"%s\",\"registers_host_memory\":%s}\n",
                static_cast<unsigned long long>(weights.bytes), count, ggml_backend_dev_description(test::device()),
                registers != nullptr ? "true" : "false");
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: sllm_bench_device <folder> [<mebibytes> [<rounds>]]\n");
        return 2;
    }
    try {
        bench_device(argv[1], argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4096, argc > 3 ? std::atoi(argv[3]) : 5);
        return 0;
    } catch (const test::Skipped &why) {
        std::fprintf(stderr, "sllm_bench_device: %s\n", why.what());
        return 77;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_device: %s\n", error.what());
        return 1;
    }
}
