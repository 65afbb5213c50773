// What an sllm_engine is, for the parts of the border that take one.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "engine/engine.h"

struct sllm_engine {
    sllm_engine(std::unique_ptr<sllm::Backend> backend, std::uint32_t queue) : impl(std::move(backend), queue) {}
    sllm::Engine impl;
};
