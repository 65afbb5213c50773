// Turns sequences into vectors: as many requests that wait as one call of the backend takes, the oldest first. Nothing
// of a sequence stays behind.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/request_runner.h"
#include "io/env.h"

namespace sllm {

class Embedder : public RequestRunner {
public:
    Embedder(Backend &backend, Env &env, Emit emit) : backend_(backend), env_(env), emit_(std::move(emit)) {}

    bool idle() const override { return waiting_.empty(); }
    void add(std::unique_ptr<Session> session) override { waiting_.push_back(std::move(session)); }
    void cancel(std::uint64_t request) override;
    Status step() override;
    void fail_all(const Status &why) override;
    RunnerActivity activity() const override;

private:
    // How many of those that wait fit into one call.
    std::size_t fitting() const;
    void finish(Session &session, std::vector<float> vector);

    Backend &backend_;
    Env &env_;
    const Emit emit_;
    std::uint64_t steps_ = 0;
    std::uint64_t computed_tokens_ = 0;
    std::uint32_t last_step_tokens_ = 0;
    std::deque<std::unique_ptr<Session>> waiting_;  // in the order they came
};

// The first `dimensions` values (0: all) at length 1. A vector of zeros stays one.
std::vector<float> normalised(std::vector<float> vector, std::uint32_t dimensions);

}  // namespace sllm
