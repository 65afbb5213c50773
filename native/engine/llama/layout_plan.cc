// A dry build and its tensor names.
#include "engine/llama/layout_plan.h"

#include <nlohmann/json.hpp>
#include <set>

#include "engine/llama/libraries.h"
#include "engine/llama/model_skeleton.h"

namespace sllm::llama {

Status plan_layout(const std::string &library_dir, const std::string &header_path, std::string *json) {
    if (Status s = prepare_libraries(library_dir); !s.ok()) return s;
    std::unique_ptr<ModelSkeleton> skeleton;
    if (Status s = ModelSkeleton::build({.header_path = header_path}, &skeleton); !s.ok()) return s;
    auto names = nlohmann::json::array();
    std::set<std::string> seen;  // a tensor the library holds twice is in the file once
    for (const SkeletonTensor &t : skeleton->tensors()) {
        if (seen.insert(t.name).second) names.push_back(t.name);
    }
    // A name that is not UTF-8 can be in a hostile header only.
    *json = nlohmann::json{{"tensors", names}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return {};
}

}  // namespace sllm::llama
