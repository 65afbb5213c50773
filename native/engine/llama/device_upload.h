// The way of weights from a host copy to devices: each device has a thread of its own that follows the copy's progress
// and sends on what has arrived, while the rest is still being read.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "core/status.h"
#include "ggml-backend.h"
#include "store/host_copy.h"

namespace sllm::llama {

// Bytes that lie together in weights.bin and in a device's buffer.
struct UploadRun {
    std::uint64_t from;  // in weights.bin
    std::uint64_t bytes;
    ggml_backend_buffer_t buffer;
    std::uint64_t to;  // from the buffer's base
};

// What one device gets.
struct DevicePart {
    ggml_backend_dev_t device;
    std::vector<UploadRun> runs;  // ordered by `from`; ranges of weights.bin may overlap
};

// Joins runs that follow each other in the file as on the device. What lies between them is the file's own padding,
// which is zero, as the padding of a device must be. The result is ordered by `from`.
std::vector<UploadRun> merge_runs(std::vector<UploadRun> runs);

struct UploadFacts {
    std::uint64_t bytes = 0;
    double upload_ms = 0;  // from the first byte that was there to the last one on its device
    double wait_ms = 0;    // of it, waiting for bytes: the slowest device's
};

// Several that follow one host copy, each at its own pace: what all have done with is acknowledged.
class SharedProgress {
public:
    SharedProgress(const HostCopyView &weights, std::size_t followers) : weights_(weights), done_(followers) {}
    // Follower number `follower` needs nothing before `bytes` any more; UINT64_MAX: nothing at all. [any]
    void done(std::size_t follower, std::uint64_t bytes);

private:
    const HostCopyView &weights_;
    std::mutex mutex_;
    std::vector<std::uint64_t> done_;
};

// Follows a host copy to its end and brings each device its part, as follower 0, 1, ... of `progress`. Returns the
// copy's failure, or the first of a device. Not to be called twice for the same buffers at once. [blocks]
Status upload(std::span<const DevicePart> parts, const HostCopyView &weights, SharedProgress &progress,
              UploadFacts *facts);

}  // namespace sllm::llama
