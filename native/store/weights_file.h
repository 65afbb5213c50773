// weights.bin, opened for reading: with O_DIRECT where the file system has it, and through the page cache.
#pragma once

#include <cstdint>
#include <string>

#include "core/status.h"
#include "io/owned.h"

namespace sllm {

class WeightsFile {
public:
    // NOT_FOUND or IO with the path in the text.
    static Status open(Env &env, const std::string &path, WeightsFile *out);

    const std::string &path() const { return path_; }
    std::int64_t size() const { return size_; }
    // Number of the file system that it lies on.
    std::int64_t file_system() const { return file_system_; }

    // Whether all of these bytes are in the page cache. Only then they are read from there: a buffered read of others
    // would be slower than a direct one, and leave in the cache what the arena holds.
    bool is_cached(std::uint64_t bytes, std::uint64_t offset) const;

    bool has_direct() const { return direct_.valid() && !direct_refused_; }
    // The file system takes the flag, but not reads with it.
    void refuse_direct() { direct_refused_ = true; }
    int fd(bool direct) const { return direct ? direct_.get() : buffered_.get(); }

private:
    Env *env_ = nullptr;
    std::string path_;
    std::int64_t size_ = 0;
    std::int64_t file_system_ = 0;
    OwnedFd direct_;  // not valid where the file system has no O_DIRECT
    OwnedFd buffered_;
    bool direct_refused_ = false;
};

}  // namespace sllm
