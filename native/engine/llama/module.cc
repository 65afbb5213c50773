// The module's one exported function.
#include "engine/llama/devices.h"
#include "engine/llama/layout_plan.h"
#include "engine/llama/libraries.h"
#include "engine/llama/llama_backend.h"
#include "engine/llama_module.h"

extern "C" __attribute__((visibility("default"))) const sllm::LlamaModule *sllm_llama_module() {
    static const sllm::LlamaModule module{SLLM_BUILD, sllm::llama::prepare_libraries,
                                          sllm::llama::LlamaBackend::build, sllm::llama::list_devices,
                                          sllm::llama::plan_layout};
    return &module;
}
