// Reads one chunk of weights.bin straight into its place and checks its digest. O_DIRECT where the file system has it,
// through the page cache where the chunk lies there already, as after a conversion, and where O_DIRECT is refused.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "core/status.h"
#include "io/owned.h"

namespace sllm {

// weights.bin, opened for reading. Chunks may be read from several threads at once.
class WeightsFile {
public:
    // NOT_FOUND or IO with the path in the text.
    static Status open(Env &env, const std::string &path, WeightsFile *out);

    WeightsFile() = default;
    WeightsFile(WeightsFile &&other) noexcept;
    WeightsFile &operator=(WeightsFile &&other) noexcept;

    const std::string &path() const { return path_; }
    std::int64_t size() const { return size_; }

    // Fills the parts, one after the other, from `offset` and compares with the digest of all; differing bytes are read
    // once more. Addresses, sizes and offset are multiples of 4096. IO when the system refuses, CORRUPT when the file
    // ends early or the digest differs twice.
    Status read_chunk(std::span<const std::span<std::uint8_t>> parts, std::uint64_t offset, std::uint64_t digest);

    // Whether most bytes so far came around the page cache.
    bool mostly_direct() const;

private:
    Status read(std::uint8_t *out, std::uint64_t bytes, std::uint64_t offset);
    bool reads_direct(std::uint64_t bytes, std::uint64_t offset) const;

    Env *env_ = nullptr;
    std::string path_;
    std::int64_t size_ = 0;
    OwnedFd direct_;    // not valid where the file system has no O_DIRECT
    OwnedFd buffered_;
    std::atomic<bool> direct_refused_{false};
    std::atomic<std::uint64_t> direct_bytes_{0};
    std::atomic<std::uint64_t> buffered_bytes_{0};
};

}  // namespace sllm
