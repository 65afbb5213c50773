// What the disk can do, measured apart from the store: reads a file with O_DIRECT, several requests in flight, into
// memory that was touched before the clock starts.
//
//   sllm_bench_ceiling <file> [<method> <block_bytes> <in_flight>]   one reading; methods: threads, io_uring
//   sllm_bench_ceiling --sweep <file>                                several settings, one line each, the best one last
//   sllm_bench_ceiling --evict-check <file>                          drops its cached pages and counts what is left
//
// Prints lines of JSON: {"method","block_bytes","in_flight","bytes","ms","gbps","cpu_ms"} or {"resident_bytes"}.
// gbps are billions of bytes per second.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "test/bench_reader.h"

namespace {

// Larger than the processor's caches, so that the bytes go to memory as those of a checkpoint do.
constexpr std::uint64_t window_bytes = 512ULL << 20;

struct Setting {
    bench::Method method = bench::Method::threads;
    std::uint64_t block_bytes = 4ULL << 20;
    unsigned in_flight = 8;
};

struct Outcome {
    Setting setting;
    std::uint64_t bytes = 0;
    double ms = 0;
    double cpu_ms = 0;
    double gbps() const { return static_cast<double>(bytes) / ms / 1e6; }
};

const char *name_of(bench::Method method) { return method == bench::Method::threads ? "threads" : "io_uring"; }

Outcome measure(const std::string &path, const Setting &setting, const bench::Memory &window) {
    const auto pieces = bench::blocks_of(bench::file_bytes(path), setting.block_bytes, window.data(), window.bytes());
    Outcome outcome{setting};
    for (const bench::Piece &piece : pieces) outcome.bytes += piece.bytes;
    const double cpu = bench::cpu_ms();
    const double started = bench::now_ms();
    bench::read_pieces(path, {true, setting.method, setting.in_flight}, pieces);
    outcome.ms = bench::now_ms() - started;
    outcome.cpu_ms = bench::cpu_ms() - cpu;
    return outcome;
}

void print(const Outcome &o) {
    std::printf("{\"method\":\"%s\",\"block_bytes\":%" PRIu64 ",\"in_flight\":%u,\"bytes\":%" PRIu64
                ",\"ms\":%.2f,\"gbps\":%.3f,\"cpu_ms\":%.1f}\n",
                name_of(o.setting.method), o.setting.block_bytes, o.setting.in_flight, o.bytes, o.ms, o.gbps(),
                o.cpu_ms);
    std::fflush(stdout);
}

void sweep(const std::string &path) {
    const bench::Memory window(window_bytes, bench::Pages::huge);
    Outcome best;
    for (const bench::Method method : {bench::Method::threads, bench::Method::io_uring}) {
        for (const std::uint64_t mib : {1ULL, 4ULL, 16ULL}) {
            for (const unsigned in_flight : {2U, 4U, 8U, 32U}) {
                const Outcome found = measure(path, {method, mib << 20, in_flight}, window);
                print(found);
                if (best.ms == 0 || found.gbps() > best.gbps()) best = found;
            }
        }
    }
    print(best);
}

Setting setting_of(const std::vector<std::string> &arguments) {
    Setting setting;
    setting.method = arguments[1] == "io_uring" ? bench::Method::io_uring : bench::Method::threads;
    setting.block_bytes = std::strtoull(arguments[2].c_str(), nullptr, 10);
    setting.in_flight = static_cast<unsigned>(std::strtoul(arguments[3].c_str(), nullptr, 10));
    const bool aligned = setting.block_bytes > 0 && setting.block_bytes % bench::align_bytes == 0;
    if (!aligned || setting.block_bytes > window_bytes || setting.in_flight == 0 || setting.in_flight > 1024 ||
        (arguments[1] != "threads" && arguments[1] != "io_uring")) {
        throw std::runtime_error("<method> threads or io_uring, <block_bytes> a multiple of 4096, <in_flight> 1-1024");
    }
    return setting;
}

int run(const std::vector<std::string> &arguments) {
    if (arguments.size() == 2 && arguments[0] == "--evict-check") {
        std::printf("{\"resident_bytes\":%" PRIu64 "}\n", bench::evict(arguments[1]));
    } else if (arguments.size() == 2 && arguments[0] == "--sweep") {
        sweep(arguments[1]);
    } else if (arguments.size() == 1 || arguments.size() == 4) {
        const bench::Memory window(window_bytes, bench::Pages::huge);
        print(measure(arguments[0], arguments.size() == 4 ? setting_of(arguments) : Setting(), window));
    } else {
        throw std::runtime_error("usage: <file> [<method> <block_bytes> <in_flight>] | --sweep <file> | "
                                 "--evict-check <file>");
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        return run({argv + 1, argv + argc});
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_ceiling: %s\n", error.what());
        return 1;
    }
}
