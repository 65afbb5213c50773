// Opening, and the question what the page cache holds.
#include "store/weights_file.h"

#include <fcntl.h>

namespace sllm {

Status WeightsFile::open(Env &env, const std::string &path, WeightsFile *out) {
    WeightsFile file;
    file.env_ = &env;
    file.path_ = path;
    const int buffered = env.open(path.c_str(), O_RDONLY);
    if (buffered < 0) return system_status("open " + path, -buffered);
    file.buffered_ = OwnedFd(env, buffered);
    file.size_ = env.file_size(buffered);
    if (file.size_ < 0) return system_status("stat " + path, static_cast<int>(-file.size_));
    file.file_system_ = env.file_system_of(buffered);
    if (file.file_system_ < 0) return system_status("stat " + path, static_cast<int>(-file.file_system_));
    // A file system without O_DIRECT refuses here or at the first read; the page cache serves then.
    file.direct_ = OwnedFd(env, env.open(path.c_str(), O_RDONLY | O_DIRECT));
    *out = std::move(file);
    return {};
}

bool WeightsFile::is_cached(std::uint64_t bytes, std::uint64_t offset) const {
    return env_->cached_bytes(buffered_.get(), offset, bytes) >= static_cast<std::int64_t>(bytes);
}

}  // namespace sllm
