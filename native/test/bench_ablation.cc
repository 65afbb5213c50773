// Loads weights.bin in one of seven ways, each a step further than the one before, so that the difference of two steps
// is what one idea brings on this machine:
//
//   by_tensor  one buffered read per tensor, into memory that is touched for the first time
//   bulk       buffered reads of whole chunks, without regard to tensors
//   direct     the same with O_DIRECT, one request after the other
//   in_flight  several requests at a time
//   prefaulted into memory whose pages are there already
//   huge_pages into huge pages, of which the system has to look up far fewer
//   pipeline   chunks are verified by the thread that read them, and the model is built while they arrive
//
// All but the last read, then verify, then build the model's skeleton (sllm_layout_plan), one after the other.
//
//   sllm_bench_ablation <step> <weights.bin> <header.gguf> <library_dir> <plan> [<in_flight>]
//
// <plan> has lines "tensor <offset> <bytes>" and "chunk <offset> <bytes> <xxh3 in hexadecimal>". Prints one line of
// JSON: {"step","bytes","read_ms","verify_ms","build_ms","total_ms","cpu_ms"}. Touching memory beforehand is not
// counted.
#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "sllm/sllm.h"
#include "test/bench_reader.h"

namespace {

struct Plan {
    std::vector<bench::Piece> tensors;
    std::vector<bench::Piece> chunks;
    std::vector<std::uint64_t> digests;  // of the chunks
};

Plan read_plan(const std::string &path) {
    std::ifstream in(path);
    Plan plan;
    bench::Piece piece;
    for (std::string kind; in >> kind >> piece.offset >> piece.bytes;) {
        if (kind == "tensor") {
            plan.tensors.push_back(piece);
        } else {
            std::uint64_t digest = 0;
            if (!(in >> std::hex >> digest >> std::dec)) break;
            plan.chunks.push_back(piece);
            plan.digests.push_back(digest);
        }
    }
    if (!in.eof() || plan.tensors.empty() || plan.chunks.empty()) throw std::runtime_error(path + " is no plan");
    return plan;
}

void verify(const Plan &plan, std::size_t chunk) {
    if (sllm_digest_xxh3(plan.chunks[chunk].out, plan.chunks[chunk].bytes) != plan.digests[chunk]) {
        throw std::runtime_error("chunk " + std::to_string(chunk) + " differs from its digest");
    }
}

// Builds the model without its weights, in a buffer for the tensor names that it has to return.
void build(const char *header, const char *libraries) {
    std::vector<char> names(16 << 20);
    std::uint64_t needed = 0;
    if (sllm_layout_plan(libraries, header, names.data(), names.size(), &needed) == SLLM_OK) return;
    std::array<char, 1024> text{};
    sllm_last_error(text.data(), text.size());
    throw std::runtime_error(text.data());
}

struct Step {
    std::string name;
    bool by_tensor;
    bench::ReadOptions options;
    bench::Pages pages;
    bool overlap;
};

Step step_of(const std::string &name, unsigned in_flight) {
    using bench::Pages;
    const std::vector<Step> steps = {
        {"by_tensor", true, {false, bench::Method::threads, 1}, Pages::untouched, false},
        {"bulk", false, {false, bench::Method::threads, 1}, Pages::untouched, false},
        {"direct", false, {true, bench::Method::threads, 1}, Pages::untouched, false},
        {"in_flight", false, {true, bench::Method::threads, in_flight}, Pages::untouched, false},
        {"prefaulted", false, {true, bench::Method::threads, in_flight}, Pages::small, false},
        {"huge_pages", false, {true, bench::Method::threads, in_flight}, Pages::huge, false},
        {"pipeline", false, {true, bench::Method::threads, in_flight}, Pages::huge, true},
    };
    const auto found = std::find_if(steps.begin(), steps.end(), [&](const Step &step) { return step.name == name; });
    if (found == steps.end()) throw std::runtime_error("no step " + name);
    return *found;
}

struct Times {
    double read_ms = 0;
    double verify_ms = 0;
    double build_ms = 0;
    double total_ms = 0;
};

Times one_after_the_other(const Step &step, const Plan &plan, char **argv) {
    const double started = bench::now_ms();
    bench::read_pieces(argv[2], step.options, step.by_tensor ? plan.tensors : plan.chunks);
    const double read = bench::now_ms();
    for (std::size_t i = 0; i < plan.chunks.size(); i++) verify(plan, i);
    const double verified = bench::now_ms();
    build(argv[3], argv[4]);
    const double built = bench::now_ms();
    return {read - started, verified - read, built - verified, built - started};
}

Times overlapped(const Step &step, const Plan &plan, char **argv) {
    const double started = bench::now_ms();
    double built = 0;
    std::exception_ptr failure;
    std::thread builder([&] {
        try {
            build(argv[3], argv[4]);
            built = bench::now_ms();
        } catch (...) {
            failure = std::current_exception();
        }
    });
    try {
        bench::read_pieces(argv[2], step.options, plan.chunks, [&](std::size_t i) { verify(plan, i); });
    } catch (...) {
        builder.join();
        throw;
    }
    const double read = bench::now_ms();
    builder.join();
    if (failure) std::rethrow_exception(failure);
    // Verifying is part of reading here.
    return {read - started, 0, built - started, std::max(read, built) - started};
}

int run(int argc, char **argv) {
    if (argc < 6 || argc > 7) {
        throw std::runtime_error("usage: <step> <weights> <header> <library_dir> <plan> [<in_flight>]");
    }
    const unsigned in_flight = argc == 7 ? static_cast<unsigned>(std::atoi(argv[6])) : 8;
    const Step step = step_of(argv[1], std::clamp(in_flight, 1U, 1024U));
    Plan plan = read_plan(argv[5]);
    const std::uint64_t bytes = bench::file_bytes(argv[2]);
    const bench::Memory memory(bytes, step.pages);
    for (auto *pieces : {&plan.tensors, &plan.chunks}) {
        for (bench::Piece &piece : *pieces) {
            if (piece.offset > bytes || piece.bytes > bytes - piece.offset) {
                throw std::runtime_error("the plan names bytes that the file does not have");
            }
            piece.out = memory.data() + piece.offset;
        }
    }
    const double cpu = bench::cpu_ms();
    const Times times = step.overlap ? overlapped(step, plan, argv) : one_after_the_other(step, plan, argv);
    std::printf("{\"step\":\"%s\",\"bytes\":%" PRIu64 ",\"read_ms\":%.2f,\"verify_ms\":%.2f,\"build_ms\":%.2f,"
                "\"total_ms\":%.2f,\"cpu_ms\":%.1f}\n",
                step.name.c_str(), bytes, times.read_ms, times.verify_ms, times.build_ms, times.total_ms,
                bench::cpu_ms() - cpu);
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sllm_bench_ablation: %s\n", error.what());
        return 1;
    }
}
