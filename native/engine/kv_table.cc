// Choice of slots, and the count of cells.
#include "engine/kv_table.h"

#include <algorithm>

namespace sllm {

namespace {

constexpr std::uint32_t removed_adapter = UINT32_MAX;  // no request can have it

}  // namespace

KvTable::KvTable(std::uint32_t slots, const KvRules &rules) : rules_(rules), slots_(slots) {}

std::uint32_t KvTable::reusable(const Slot &slot, std::span<const std::int32_t> sequence,
                                std::uint32_t adapter) const {
    if (slot.adapter != adapter) return 0;
    const std::size_t most = std::min(slot.held.size(), sequence.size() - 1);
    const auto same = std::mismatch(slot.held.begin(), slot.held.begin() + static_cast<std::ptrdiff_t>(most),
                                    sequence.begin()).first - slot.held.begin();
    const bool whole = static_cast<std::size_t>(same) == slot.held.size();
    return rules_.cuttable || (whole && !slot.busy) ? static_cast<std::uint32_t>(same) : 0;
}

std::optional<std::uint32_t> KvTable::emptiest() const {
    std::optional<std::uint32_t> best;
    for (std::uint32_t i = 0; i < slots_.size(); i++) {
        if (slots_[i].busy) continue;
        // Empty ones first, the lowest of them, so that busy slots stay close together; then the least recently used.
        const auto rank = [this](std::uint32_t slot) { return slots_[slot].held.empty() ? 0 : slots_[slot].last_use; };
        if (!best || rank(i) < rank(*best)) best = i;
    }
    return best;
}

std::optional<KvTable::Place> KvTable::find(std::span<const std::int32_t> sequence,
                                            std::uint32_t adapter) const {
    const std::optional<std::uint32_t> free = emptiest();
    if (!free) return std::nullopt;
    std::uint32_t source = *free;
    std::uint32_t reused = reusable(slots_[source], sequence, adapter);
    for (std::uint32_t i = 0; i < slots_.size(); i++) {
        const Slot &slot = slots_[i];
        if (slot.busy && !rules_.shared) continue;
        const std::uint32_t same = reusable(slot, sequence, adapter);
        // Little is not worth losing most of what the slot holds; another one can have a share of it where that is
        // possible.
        const bool worth = rules_.shared || 2 * std::size_t{same} >= std::min(slot.held.size(), sequence.size());
        if (same > reused && worth) {
            source = i;
            reused = same;
        }
    }
    const Slot &from = slots_[source];
    const bool can_share = rules_.shared && rules_.cuttable;
    const bool in_place = !from.busy && (!can_share || 2 * std::size_t{reused} >= from.held.size());
    return Place{in_place ? source : *free, source, reused};
}

void KvTable::take(const Place &place, std::span<const std::int32_t> sequence, std::uint32_t adapter) {
    Slot &slot = slots_[place.slot];
    slot.held.assign(sequence.begin(), sequence.begin() + place.reused);
    slot.adapter = adapter;
    slot.claimed = static_cast<std::uint32_t>(sequence.size());
    slot.busy = true;
    slots_[place.source].last_use = ++uses_;
}

void KvTable::computed(std::uint32_t slot, std::span<const std::int32_t> tokens) {
    slots_[slot].held.insert(slots_[slot].held.end(), tokens.begin(), tokens.end());
}

void KvTable::release(std::uint32_t slot) {
    slots_[slot].busy = false;
    slots_[slot].last_use = ++uses_;
}

void KvTable::forget_adapter(std::uint32_t adapter) {
    for (Slot &slot : slots_) {
        if (!slot.busy && slot.adapter == adapter) slot.adapter = removed_adapter;
    }
}

void KvTable::clear() {
    for (Slot &slot : slots_) slot = Slot{};
}

std::uint64_t KvTable::spoken_for() const {
    std::uint64_t tokens = 0;
    for (const Slot &slot : slots_) tokens += slot.busy ? slot.claimed : slot.held.size();
    return tokens;
}

bool KvTable::overfull() const { return spoken_for() > rules_.kv_tokens; }

std::optional<std::uint32_t> KvTable::oldest_free() const {
    std::optional<std::uint32_t> oldest;
    for (std::uint32_t i = 0; i < slots_.size(); i++) {
        if (slots_[i].busy || slots_[i].held.empty()) continue;
        if (!oldest || slots_[i].last_use < slots_[*oldest].last_use) oldest = i;
    }
    return oldest;
}

}  // namespace sllm
