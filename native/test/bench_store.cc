// sllm_bench_store <file> [<pairs>]: the store alone against the disk. Each pair reads the file cold twice within
// seconds: by the ceiling's reader (bench_reader.h, shares no code with the store) into memory that is there, then by
// the store, digests on, into an arena that was faulted in before. Prints one line of JSON per pair; `fraction` is the
// ceiling's time over ours. Any file will do: it is cut to whole pages, its digests are computed first.
// SLLM_BENCH_METHOD (threads or io_uring), SLLM_BENCH_BLOCK_MIB and SLLM_BENCH_IN_FLIGHT set the ceiling's way;
// SLLM_BENCH_OURS_THREADS=1, SLLM_BENCH_OURS_BLOCK_MIB, SLLM_BENCH_OURS_IN_FLIGHT_MIB, SLLM_BENCH_PREFAULT_MIB and
// SLLM_BENCH_HUGE=0, SLLM_BENCH_REGISTER=0 ours.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/digest.h"
#include "core/limits.h"
#include "test/bench_reader.h"
#include "test/open_store.h"

namespace {

constexpr std::uint64_t window_bytes = std::uint64_t{256} << 20;

unsigned number(const char *variable, unsigned otherwise) {
    const char *given = std::getenv(variable);
    return given == nullptr ? otherwise : static_cast<unsigned>(std::atoi(given));
}

struct CeilingWay {
    bench::ReadOptions options;
    std::uint64_t block_bytes;
};

CeilingWay ceiling_way() {
    const char *method = std::getenv("SLLM_BENCH_METHOD");
    const bool threads = method != nullptr && std::string(method) == "threads";
    return {{true, threads ? bench::Method::threads : bench::Method::io_uring, number("SLLM_BENCH_IN_FLIGHT", 8)},
            std::uint64_t{number("SLLM_BENCH_BLOCK_MIB", 4)} << 20};
}

sllm::LoadRequest request_of(const std::string &path) {
    sllm::LoadRequest request;
    request.weights_path = path;
    request.weights_bytes = bench::file_bytes(path) / sllm::limits::file_align_bytes * sllm::limits::file_align_bytes;
    request.chunk_bytes = sllm::limits::arena_chunk_bytes;
    const bench::Memory window(request.chunk_bytes, bench::Pages::huge);
    const auto pieces = bench::blocks_of(request.weights_bytes, request.chunk_bytes, window.data(), window.bytes());
    for (const bench::Piece &piece : pieces) {
        bench::read_pieces(path, {}, {piece});
        request.chunk_digests.push_back(sllm::xxh3(piece.out, piece.bytes));
    }
    return request;
}

void evict(const std::string &path) {
    for (int i = 0; i < 5; i++) {
        if (bench::evict(path) < (1 << 20)) return;
    }
    throw std::runtime_error(path + " stays in the page cache");
}

sllm::LoadStatus load(sllm::Store &store, const sllm::LoadRequest &request) {
    std::uint64_t number = 0;
    if (sllm::Status s = store.load(request, &number); !s.ok()) throw std::runtime_error(s.message());
    sllm::LoadStatus status;
    do {
        store.wait(1'000'000);
        if (sllm::Status s = store.status(number, &status); !s.ok()) throw std::runtime_error(s.message());
    } while (status.state == 0);
    if (status.state < 0) throw std::runtime_error(status.message);
    if (sllm::Status s = store.release(number); !s.ok()) throw std::runtime_error(s.message());
    return status;
}

void pair(sllm::Store &store, const sllm::LoadRequest &request, const bench::Memory &window) {
    const CeilingWay way = ceiling_way();
    evict(request.weights_path);
    const auto blocks = bench::blocks_of(request.weights_bytes, way.block_bytes, window.data(), window.bytes());
    double started = bench::now_ms();
    bench::read_pieces(request.weights_path, way.options, blocks);
    const double ceiling_ms = bench::now_ms() - started;
    evict(request.weights_path);
    const double cpu = bench::cpu_ms();
    started = bench::now_ms();
    const sllm::LoadStatus status = load(store, request);
    const double ours_ms = bench::now_ms() - started;
    const auto bytes = static_cast<double>(request.weights_bytes);
    std::printf("{\"bytes\":%" PRIu64 ",\"ceiling_ms\":%.1f,\"ceiling_gbps\":%.3f,\"ours_ms\":%.1f,\"gbps\":%.3f,"
                "\"fraction\":%.3f,\"cpu_ms\":%.1f,\"first_read_ms\":%.2f,\"first_verified_ms\":%.2f,"
                "\"last_read_ms\":%.2f,"
                "\"ended_ms\":%.2f,\"memory_wait_ms\":%.2f,\"fault_ms\":%.1f,\"digest_ms\":%.1f,\"direct_io\":%s}\n",
                request.weights_bytes, ceiling_ms, bytes / ceiling_ms / 1e6, ours_ms, bytes / ours_ms / 1e6,
                ceiling_ms / ours_ms, bench::cpu_ms() - cpu, status.trace.first_read_ms, status.trace.first_verified_ms,
                status.trace.last_read_ms, status.trace.ended_ms, status.trace.memory_wait_ms, status.trace.fault_ms,
                status.trace.digest_ms, status.direct_io ? "true" : "false");
    std::fflush(stdout);
}

int run(int argc, char **argv) {
    if (argc < 2 || argc > 3) throw std::runtime_error("usage: <file> [<pairs>]");
    const sllm::LoadRequest request = request_of(argv[1]);
    const std::uint64_t arena = request.weights_bytes + sllm::limits::arena_chunk_bytes;
    sllm::StoreOptions options;
    const std::uint64_t prefault = std::uint64_t{number("SLLM_BENCH_PREFAULT_MIB", 1 << 20)} << 20;
    const bool threads = number("SLLM_BENCH_OURS_THREADS", 0) != 0;
    options.arena = {arena, std::min(arena, prefault), number("SLLM_BENCH_HUGE", 1) != 0};
    options.reads = {threads ? sllm::ReadMethod::threads : sllm::ReadMethod::ring, true,
                     number("SLLM_BENCH_OURS_BLOCK_MIB", 4) << 20,
                     std::uint64_t{number("SLLM_BENCH_OURS_IN_FLIGHT_MIB", 64)} << 20};
    options.register_memory = number("SLLM_BENCH_REGISTER", 1) != 0;
    const auto store = test::open_store(options);
    while (store->arena_status().prefaulting) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const sllm::ArenaStatus arena_status = store->arena_status();
    std::printf("{\"faulted_bytes\":%" PRIu64 ",\"huge_bytes\":%" PRIu64 ",\"prefault_ms\":%.1f}\n",
                arena_status.faulted_bytes, arena_status.huge_bytes, arena_status.prefault_ms);
    const bench::Memory window(window_bytes, bench::Pages::huge);
    for (int i = 0; i < (argc == 3 ? std::atoi(argv[2]) : 3); i++) pair(*store, request, window);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_store: %s\n", error.what());
        return 1;
    }
}
