// RLIMIT_DATA over what the system says is mapped: unlike RLIMIT_AS it leaves host copies and device memory out, which
// are shared mappings, and unlike a control group it needs no rights.
#include "io/memory_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace sllm {

Status limit_memory(Env &env, std::uint64_t bytes) {
    const std::string text = env.read_text("/proc/self/status");
    const std::size_t found = text.find("VmData:");
    if (found == std::string::npos) return {Code::io, "the system does not tell how much memory is mapped"};
    const std::uint64_t mapped = std::strtoull(text.c_str() + found + std::strlen("VmData:"), nullptr, 10) * 1024;
    rlimit limit{};
    if (::getrlimit(RLIMIT_DATA, &limit) < 0) return {Code::io, "the memory's limit cannot be read"};
    const std::uint64_t wanted = bytes > UINT64_MAX - mapped ? UINT64_MAX : mapped + bytes;
    limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
    if (::setrlimit(RLIMIT_DATA, &limit) < 0) {
        return {Code::io, "the memory's limit cannot be set: " + std::string(std::strerror(errno))};
    }
    return {};
}

}  // namespace sllm
