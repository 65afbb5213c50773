// The read loop: short reads, interruptions, refusals of O_DIRECT, digests.
#include "store/chunk_reader.h"

#include <fcntl.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "core/digest.h"
#include "core/limits.h"

namespace sllm {

namespace {

std::string hex(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, value);
    return text;
}

}  // namespace

WeightsFile::WeightsFile(WeightsFile &&other) noexcept { *this = std::move(other); }

WeightsFile &WeightsFile::operator=(WeightsFile &&other) noexcept {
    env_ = other.env_;
    path_ = std::move(other.path_);
    size_ = other.size_;
    direct_ = std::move(other.direct_);
    buffered_ = std::move(other.buffered_);
    direct_refused_ = other.direct_refused_.load();
    direct_bytes_ = other.direct_bytes_.load();
    buffered_bytes_ = other.buffered_bytes_.load();
    return *this;
}

Status WeightsFile::open(Env &env, const std::string &path, WeightsFile *out) {
    WeightsFile file;
    file.env_ = &env;
    file.path_ = path;
    const int buffered = env.open(path.c_str(), O_RDONLY);
    if (buffered < 0) return system_status("open " + path, -buffered);
    file.buffered_ = OwnedFd(env, buffered);
    file.size_ = env.file_size(buffered);
    if (file.size_ < 0) return system_status("stat " + path, static_cast<int>(-file.size_));
    // A file system without O_DIRECT refuses here or at the first read; the page cache serves then.
    file.direct_ = OwnedFd(env, env.open(path.c_str(), O_RDONLY | O_DIRECT));
    *out = std::move(file);
    return {};
}

Status WeightsFile::read_chunk(std::span<const std::span<std::uint8_t>> parts, std::uint64_t offset,
                               std::uint64_t digest) {
    std::uint64_t found = 0;
    std::uint64_t bytes = 0;
    // Memory and buses flip bits too: a second read tells a bad transfer from bad bytes on disk.
    for (int attempt = 0; attempt < 2; attempt++) {
        bytes = 0;
        for (const std::span<std::uint8_t> part : parts) {
            if (Status s = read(part.data(), part.size(), offset + bytes); !s.ok()) return s;
            bytes += part.size();
        }
        found = xxh3(parts);
        if (found == digest) return {};
    }
    return {Code::corrupt, path_ + ": the " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) +
                               " have digest " + hex(found) + ", expected " + hex(digest)};
}

// Only a chunk that is in the page cache as a whole is read from there: a buffered read of the rest would be slower,
// and leave in the cache what the arena holds.
bool WeightsFile::reads_direct(std::uint64_t bytes, std::uint64_t offset) const {
    return direct_.valid() && env_->cached_bytes(buffered_.get(), offset, bytes) < static_cast<std::int64_t>(bytes);
}

Status WeightsFile::read(std::uint8_t *out, std::uint64_t bytes, std::uint64_t offset) {
    const bool wants_direct = reads_direct(bytes, offset);
    std::uint64_t done = 0;
    while (done < bytes) {
        // After a short read the rest is not aligned any more, which only the page cache can serve.
        const bool aligned = (offset + done) % limits::file_align_bytes == 0;
        const bool direct = wants_direct && aligned && !direct_refused_.load(std::memory_order_relaxed);
        const int fd = direct ? direct_.get() : buffered_.get();
        const ssize_t n = env_->pread(fd, out + done, bytes - done, offset + done);
        if (n > 0) {
            done += static_cast<std::uint64_t>(n);
            (direct ? direct_bytes_ : buffered_bytes_).fetch_add(static_cast<std::uint64_t>(n));
        } else if (n == 0) {
            return {Code::corrupt, path_ + " ends at byte " + std::to_string(offset + done) + ", expected at least " +
                                       std::to_string(offset + bytes)};
        } else if (direct && (n == -EINVAL || n == -EOPNOTSUPP || n == -EFAULT)) {
            direct_refused_ = true;
        } else if (n != -EINTR && n != -EAGAIN) {
            return system_status("read " + path_ + " at offset " + std::to_string(offset + done),
                                 static_cast<int>(-n));
        }
    }
    return {};
}

bool WeightsFile::mostly_direct() const { return direct_bytes_.load() > buffered_bytes_.load(); }

}  // namespace sllm
