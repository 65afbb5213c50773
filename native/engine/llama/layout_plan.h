// The order in which the engine library lays a model's tensors out: the canonical order of weights.bin.
#pragma once

#include <string>

#include "core/status.h"

namespace sllm::llama {

// See sllm_layout_plan.
Status plan_layout(const std::string &library_dir, const std::string &header_path, std::string *json);

}  // namespace sllm::llama
