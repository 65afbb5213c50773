// What an sllm_engine is, for the parts of the border that take one.
#pragma once

#include <memory>
#include <utility>

#include "engine/engine.h"

struct sllm_engine {
    sllm_engine(std::unique_ptr<sllm::Backend> backend, const sllm::EngineOptions &options)
        : impl(std::move(backend), options) {}
    sllm::Engine impl;
};
