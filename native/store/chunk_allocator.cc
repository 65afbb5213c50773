// Runs of chunks, and the balance between memory kept and memory given back.
#include "store/chunk_allocator.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sllm {

namespace {

struct Run {
    std::uint32_t first;
    std::uint32_t length;
};

}  // namespace

ChunkAllocator::ChunkAllocator(std::uint32_t chunks, std::uint32_t keep_faulted)
    : states_(chunks, State::cold), keep_faulted_(std::min(keep_faulted, chunks)), cold_(chunks) {}

std::uint32_t &ChunkAllocator::count(State state) {
    switch (state) {
        case State::cold: return cold_;
        case State::warm: return warm_;
        case State::used_cold: return used_cold_;
        case State::used: return used_;
        case State::in_work: break;
    }
    return in_work_;
}

void ChunkAllocator::move(std::uint32_t chunk, State to) {
    count(states_[chunk])--;
    states_[chunk] = to;
    count(to)++;
}

bool ChunkAllocator::take(std::uint32_t n, std::vector<std::uint32_t> *out) {
    if (n > free()) return false;
    out->clear();
    const std::uint32_t warm = std::min(n, warm_);
    take_from(State::warm, State::used, warm, out);
    take_from(State::cold, State::used_cold, n - warm, out);
    std::sort(out->begin(), out->end());
    return true;
}

void ChunkAllocator::take_from(State state, State to, std::uint32_t n, std::vector<std::uint32_t> *out) {
    if (n == 0) return;
    std::vector<Run> runs;
    for (std::uint32_t i = 0; i < size(); i++) {
        if (states_[i] != state) continue;
        if (i > 0 && states_[i - 1] == state) runs.back().length++;
        else runs.push_back({i, 1});
    }
    std::stable_sort(runs.begin(), runs.end(), [](const Run &a, const Run &b) { return a.length > b.length; });
    for (std::size_t i = 0; n > 0; i++) {
        // The longest runs are used up whole; the rest comes from the shortest that holds it, so that long ones last.
        std::size_t chosen = i;
        if (runs[i].length >= n) {
            while (chosen + 1 < runs.size() && runs[chosen + 1].length >= n) chosen++;
        }
        const std::uint32_t length = std::min(n, runs[chosen].length);
        for (std::uint32_t chunk = runs[chosen].first; chunk < runs[chosen].first + length; chunk++) {
            move(chunk, to);
            out->push_back(chunk);
        }
        n -= length;
    }
}

void ChunkAllocator::give_back(std::span<const std::uint32_t> chunks) {
    for (const std::uint32_t chunk : chunks) {
        const bool used = chunk < size() && (states_[chunk] == State::used || states_[chunk] == State::used_cold);
        if (!used) {
            throw std::logic_error("chunk " + std::to_string(chunk) + " was given back but is not in use");
        }
        move(chunk, states_[chunk] == State::used ? State::warm : State::cold);
    }
}

void ChunkAllocator::got_memory(std::uint32_t chunk) {
    if (states_[chunk] == State::used_cold) move(chunk, State::used);
}

ChunkAllocator::Work ChunkAllocator::next_work() {
    // Chunks in use get their memory from whoever uses them.
    const std::uint32_t total = faulted() + used_cold_ + in_work_;
    Work work;
    State wanted = State::cold;
    if (may_punch_ && total > keep_faulted_ && warm_ > 0) {
        work.task = Task::punch;
        wanted = State::warm;
        // From the end, so that what stays lies together.
        const auto last = std::find(states_.rbegin(), states_.rend(), wanted);
        work.chunk = static_cast<std::uint32_t>(states_.rend() - last) - 1;
    } else if (total < keep_faulted_ && cold_ > 0) {
        work.task = Task::fault;
        const auto first = std::find(states_.begin(), states_.end(), wanted);
        work.chunk = static_cast<std::uint32_t>(first - states_.begin());
    } else {
        return work;
    }
    move(work.chunk, State::in_work);
    return work;
}

void ChunkAllocator::finish(Work work, Outcome outcome) {
    const bool has_memory = (work.task == Task::fault) == (outcome == Outcome::done);
    move(work.chunk, has_memory ? State::warm : State::cold);
    if (outcome != Outcome::failed) return;
    if (work.task == Task::fault) keep_faulted_ = std::min(keep_faulted_, faulted());
    else may_punch_ = false;
}

}  // namespace sllm
