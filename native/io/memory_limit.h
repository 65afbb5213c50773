// Bounds the memory that belongs to this process alone.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "io/env.h"

namespace sllm {

// Private writable memory may grow by `bytes` beyond what is mapped now; the system refuses more. What runtimes have
// reserved before counts as theirs already, so the bound is one on growth. IO where the system does not tell or bound
// it.
Status limit_memory(Env &env, std::uint64_t bytes);

}  // namespace sllm
