// A checkpoint of the sample model in one type, in host memory, and engines that compute on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/llama/llama_backend.h"
#include "test/checkpoint_fixture.h"
#include "test/temp_folder.h"

namespace test {

class SampleModel {
public:
    // An llama_ftype, or below 0 the file's own.
    explicit SampleModel(int ftype = -1) {
        const std::string sample = sample_model();
        checkpoint_ = make_checkpoint(ftype < 0 ? sample : quantize(sample, folder_ / "", ftype), folder_ / "",
                                      Order::engine);
        copied_ = load_checkpoint(checkpoint_);
    }

    std::unique_ptr<sllm::llama::LlamaBackend> open(std::uint32_t slots, std::uint32_t context,
                                                    std::uint32_t threads = 1, bool deterministic = true) const {
        sllm::LlamaOptions options = engine_options(checkpoint_);
        options.slots = slots;
        options.context_tokens = context;
        options.threads = threads;
        options.deterministic = deterministic;
        return open_backend(options, copied_.path);
    }

private:
    TempFolder folder_;
    Checkpoint checkpoint_;
    HostCopied copied_;
};

}  // namespace test
