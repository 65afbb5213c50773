// Probe: tries ways to read a volume and says which is the fastest. What suits one disk halves the rate of another, and
// nothing but a try tells.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "core/status.h"
#include "io/read_queue.h"

namespace sllm {

class Env;

// How a volume is read.
struct ReadSettings {
    ReadMethod method = ReadMethod::ring;
    bool direct = true;  // around the page cache, where the file system can
    std::uint32_t block_bytes = std::uint32_t{4} << 20;
    std::uint64_t in_flight_bytes = std::uint64_t{64} << 20;

    // Reads in flight at once.
    std::uint32_t depth() const;
};

struct ProbeResult {
    ReadSettings settings;
    double bytes_per_second = 0;
};

// The ways that are tried, the one to prefer among equals first.
std::span<const ReadSettings> probe_candidates();

// Reads parts of a file in each way for `slice_ms` and chooses. The first way is kept unless another is clearly faster.
// `candidates` is not empty. Stops when `go_on` says so, which is asked whenever a read ends. CLOSED when it was
// stopped, or no way works; NOT_FOUND, IO, OUT_OF_MEMORY. [blocks]
Status probe(Env &env, const std::string &path, std::span<const ReadSettings> candidates, double slice_ms,
             const std::function<bool()> &go_on, ProbeResult *out);

// What is kept of a probe between runs: one line of text. False for text that says nothing usable.
std::string to_text(const ProbeResult &result);
bool from_text(const std::string &text, ProbeResult *out);

}  // namespace sllm
