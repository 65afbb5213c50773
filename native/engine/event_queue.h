// Events on their way from the compute thread to the caller, who waits and drains.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "core/status.h"
#include "sllm/sllm.h"

namespace sllm {

// All [any].
class EventQueue {
public:
    // event.text_offset and text_bytes are filled when the event is drained; logprobs follow the text there.
    void push(const sllm_event &event, std::string text, std::string logprobs = {});

    // Waits until there is an event, the queue is closed, or for timeout_us. [blocks]
    void wait(std::uint64_t timeout_us);

    // Waits until fewer than limits::undrained_events are here, or the queue is closed. [blocks]
    void wait_for_room();

    // Moves up to cap events and their text out. BUFFER_TOO_SMALL when the first one's text does not fit text_cap.
    Status drain(sllm_event *out, std::uint64_t cap, std::uint64_t *n, char *text, std::uint64_t text_cap,
                 std::uint64_t *text_n);

    // Nobody will drain any more: waiters return at once.
    void close();

private:
    struct Entry {
        sllm_event event;
        std::string text;
        std::string logprobs;
    };

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::condition_variable filled_;
    std::condition_variable drained_;
    std::deque<Entry> entries_;
    bool closed_ = false;
};

}  // namespace sllm
