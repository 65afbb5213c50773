// What the KV cache holds: the tokens of every slot's sequence, those of ended requests included, and how many cells
// are spoken for. Decides which slot a request takes and what it can reuse there. Pure bookkeeping: whoever changes the
// cache itself tells it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace sllm {

// What a backend's cache can do.
struct KvRules {
    std::uint32_t kv_tokens = 0;  // cells; all slots share them when `shared`, else each has its own part
    bool shared = true;           // a slot can take over the beginning of another one's sequence
    bool cuttable = true;         // a sequence can be cut back to any length, not to nothing only
};

class KvTable {
public:
    KvTable(std::uint32_t slots, const KvRules &rules);

    // The slot for a new sequence, and how many of its first tokens come from which slot's cache.
    struct Place {
        std::uint32_t slot = 0;
        std::uint32_t source = 0;  // slot itself: its sequence is cut to `reused`
        std::uint32_t reused = 0;  // less than the sequence's length: its last token is always computed
    };
    // Nothing when every slot is busy. What was computed with another adapter is not the same.
    std::optional<Place> find(std::span<const std::int32_t> sequence, std::uint32_t adapter = 0) const;

    // The place's slot becomes busy with a sequence of which the cache holds `reused` tokens.
    void take(const Place &place, std::span<const std::int32_t> sequence, std::uint32_t adapter = 0);
    // A busy slot's sequence has got one more token, not computed yet.
    void grow(std::uint32_t slot) { slots_[slot].claimed++; }
    // The cache has got tokens of a busy slot.
    void computed(std::uint32_t slot, std::span<const std::int32_t> tokens);
    // Tokens of a busy slot from `length` on were not computed after all.
    void cut(std::uint32_t slot, std::uint32_t length) { slots_[slot].held.resize(length); }
    // The slot is free; what it holds stays for the next sequence that begins with the same.
    void release(std::uint32_t slot);
    // A free slot holds nothing any more.
    void forget(std::uint32_t slot) { slots_[slot].held.clear(); }
    // Another adapter may get this one's number: no free slot is the beginning of anything of it.
    void forget_adapter(std::uint32_t adapter);
    // No slot holds anything; none is busy.
    void clear();

    // Tokens of the slot's sequence that the cache holds.
    std::uint32_t length(std::uint32_t slot) const { return static_cast<std::uint32_t>(slots_[slot].held.size()); }
    // Tokens that are spoken for, as overfull counts them.
    std::uint64_t spoken_for() const;
    // Whether more is spoken for than there is: by busy slots for their sequences, by free ones for what they hold.
    // Cells that two slots share count twice, so there are never fewer than this says.
    bool overfull() const;
    // The free slot to forget first when cells run short: the one whose use is longest ago.
    std::optional<std::uint32_t> oldest_free() const;

private:
    struct Slot {
        std::vector<std::int32_t> held;
        std::uint32_t adapter = 0;  // that `held` was computed with
        std::uint32_t claimed = 0;  // length of its sequence; busy slots only
        bool busy = false;
        std::uint64_t last_use = 0;
    };

    std::uint32_t reusable(const Slot &slot, std::span<const std::int32_t> sequence, std::uint32_t adapter) const;
    std::optional<std::uint32_t> emptiest() const;

    const KvRules rules_;
    std::vector<Slot> slots_;
    std::uint64_t uses_ = 0;
};

}  // namespace sllm
