// The queue itself.
#include "engine/event_queue.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/limits.h"

namespace sllm {

void EventQueue::push(const sllm_event &event, std::string text, std::string logprobs) {
    {
        const std::lock_guard lock(mutex_);
        entries_.push_back({event, std::move(text), std::move(logprobs)});
    }
    filled_.notify_one();
}

void EventQueue::wait(std::uint64_t timeout_us) {
    std::unique_lock lock(mutex_);
    // Bounded, because a deadline near the end of the clock's range overflows in the standard library.
    const std::chrono::microseconds timeout(std::min<std::uint64_t>(timeout_us, 3'600'000'000));
    filled_.wait_for(lock, timeout, [this] { return closed_ || !entries_.empty(); });
}

void EventQueue::wait_for_room() {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [this] { return closed_ || entries_.size() < limits::undrained_events; });
}

Status EventQueue::drain(sllm_event *out, std::uint64_t cap, std::uint64_t *n, char *text, std::uint64_t text_cap,
                         std::uint64_t *text_n) {
    *n = 0;
    *text_n = 0;
    const std::lock_guard lock(mutex_);
    while (*n < cap && !entries_.empty()) {
        Entry &entry = entries_.front();
        const std::size_t bytes = entry.text.size() + entry.logprobs.size();
        if (bytes > text_cap - *text_n) {
            if (*n > 0) break;
            return {Code::buffer_too_small, "the first event has " + std::to_string(bytes) + " bytes of text"};
        }
        entry.event.text_offset = static_cast<std::uint32_t>(*text_n);
        entry.event.text_bytes = static_cast<std::uint32_t>(entry.text.size());
        if (entry.event.kind == SLLM_EVENT_TOKEN) {
            entry.event.logprob_bytes = static_cast<std::uint32_t>(entry.logprobs.size());
        }
        for (const std::string *part : {&entry.text, &entry.logprobs}) {
            if (!part->empty()) std::memcpy(text + *text_n, part->data(), part->size());
            *text_n += part->size();
        }
        out[(*n)++] = entry.event;
        entries_.pop_front();
    }
    drained_.notify_one();
    return {};
}

void EventQueue::close() {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    filled_.notify_all();
    drained_.notify_all();
}

}  // namespace sllm
