// Batches of sequences, and the end of each of their requests.
#include "engine/embedder.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

namespace sllm {

void Embedder::cancel(std::uint64_t request) {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [request](const auto &one) { return one->request.number == request; });
    if (found == waiting_.end()) return;
    waiting_.erase(found);
    const Status why{Code::cancelled, "the request was cancelled"};
    emit_(error_event(request, why), why.message(), {});
}

Status Embedder::step() {
    const std::size_t count = fitting();
    if (count == 0) return {};
    std::vector<std::span<const std::int32_t>> sequences;
    for (std::size_t i = 0; i < count; i++) {
        Session &session = *waiting_[i];
        session.started_ms = env_.now_ms();
        sequences.emplace_back(session.sequence);
        sllm_event event = event_of(session, SLLM_EVENT_STARTED);
        event.prompt_tokens = session.prompt_tokens();
        emit_(event, {}, {});
    }
    steps_++;
    last_step_tokens_ = 0;
    for (const auto &sequence : sequences) last_step_tokens_ += static_cast<std::uint32_t>(sequence.size());
    computed_tokens_ += last_step_tokens_;
    std::vector<std::vector<float>> vectors;
    if (Status s = backend_.embed(sequences, &vectors); !s.ok()) return s;
    for (std::vector<float> &vector : vectors) {
        const std::unique_ptr<Session> session = std::move(waiting_.front());
        waiting_.pop_front();
        finish(*session, std::move(vector));
    }
    return {};
}

std::size_t Embedder::fitting() const {
    const BackendFacts &facts = backend_.facts();
    std::size_t count = 0;
    std::size_t tokens = 0;
    while (count < waiting_.size() && count < facts.embedding.sequences) {
        tokens += waiting_[count]->sequence.size();
        if (tokens > facts.batch_tokens) break;
        count++;
    }
    return count;
}

void Embedder::finish(Session &session, std::vector<float> vector) {
    // A score is what the model says; only directions are compared with each other.
    if (backend_.facts().embedding.pooling != Pooling::rank) {
        vector = normalised(std::move(vector), session.request.dimensions);
    }
    sllm_event event = event_of(session, SLLM_EVENT_VECTOR);
    event.index = static_cast<std::uint32_t>(vector.size());
    const auto *bytes = reinterpret_cast<const char *>(vector.data());
    emit_(event, std::string(bytes, vector.size() * sizeof(float)), {});

    event = event_of(session, SLLM_EVENT_DONE);
    event.status = SLLM_FINISH_STOP;
    event.prompt_tokens = session.prompt_tokens();
    event.queue_ms = session.started_ms - session.submitted_ms;
    event.prefill_ms = env_.now_ms() - session.started_ms;
    emit_(event, {}, {});
}

void Embedder::fail_all(const Status &why) {
    for (const auto &session : std::exchange(waiting_, {})) {
        emit_(error_event(session->request.number, why), why.message(), {});
    }
}

RunnerActivity Embedder::activity() const {
    RunnerActivity activity;
    activity.waiting = static_cast<std::uint32_t>(waiting_.size());
    activity.steps = steps_;
    activity.computed_tokens = computed_tokens_;
    activity.last_step_tokens = last_step_tokens_;
    return activity;
}

std::vector<float> normalised(std::vector<float> vector, std::uint32_t dimensions) {
    if (dimensions > 0 && dimensions < vector.size()) vector.resize(dimensions);
    double squares = 0;
    for (const float value : vector) squares += static_cast<double>(value) * value;
    if (squares == 0) return vector;
    const double length = std::sqrt(squares);
    for (float &value : vector) value = static_cast<float>(value / length);
    return vector;
}

}  // namespace sllm
