// Which chunks of an arena are free, in use, or being changed, and which of them have memory behind them. Pure: knows
// nothing of the system, is guarded by its owner's mutex.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sllm {

class ChunkAllocator {
public:
    // Background work on one free chunk: give it memory, or take its memory away.
    enum class Task { none, fault, punch };
    struct Work {
        Task task = Task::none;
        std::uint32_t chunk = 0;
    };

    // `keep_faulted`: how many chunks shall have memory at any time, used ones included.
    ChunkAllocator(std::uint32_t chunks, std::uint32_t keep_faulted);

    // Takes `n` chunks, all or none, in ascending order: those with memory first, in runs as long as can be had, so
    // that few mappings stitch them together. False when fewer are free; `in_work` tells how many soon will be.
    bool take(std::uint32_t n, std::vector<std::uint32_t> *out);
    // Whether a chunk in use has memory behind it.
    bool has_memory(std::uint32_t chunk) const { return states_[chunk] == State::used; }
    // A chunk in use has got memory.
    void got_memory(std::uint32_t chunk);
    // Gives chunks back; each must be in use, anything else is a defect and throws std::logic_error.
    void give_back(std::span<const std::uint32_t> chunks);

    // The next thing to do to keep as many chunks faulted as wanted. The chunk cannot be taken until `finish`.
    Work next_work();
    // `failed`: the chunk stays what it was, and this kind of work is given up. `put_off`: it comes up again.
    enum class Outcome { done, failed, put_off };
    void finish(Work work, Outcome outcome);

    std::uint32_t free() const { return cold_ + warm_; }
    std::uint32_t used() const { return used_ + used_cold_; }
    std::uint32_t in_work() const { return in_work_; }
    // Chunks with memory behind them.
    std::uint32_t faulted() const { return warm_ + used_; }
    std::uint32_t size() const { return static_cast<std::uint32_t>(states_.size()); }

private:
    enum class State : std::uint8_t { cold, warm, used_cold, used, in_work };

    std::uint32_t &count(State state);
    void move(std::uint32_t chunk, State to);
    // Moves `n` chunks of a state to the one of chunks in use and appends them.
    void take_from(State state, State to, std::uint32_t n, std::vector<std::uint32_t> *out);

    std::vector<State> states_;
    std::uint32_t keep_faulted_;
    bool may_punch_ = true;
    std::uint32_t cold_;
    std::uint32_t warm_ = 0;
    std::uint32_t used_cold_ = 0;
    std::uint32_t used_ = 0;
    std::uint32_t in_work_ = 0;
};

}  // namespace sllm
