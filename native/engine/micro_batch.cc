// The two shapes.
#include "engine/micro_batch.h"

#include <algorithm>
#include <utility>

namespace sllm {

namespace {

// Slots without a token between two that have one: their rows cost less than another pass over all weights.
constexpr std::uint32_t widest_gap = 8;

// A part of so few tokens is computed row by row, where the library may see a lone row: one takes a quarter of the time
// that two do together, since the kernels that add up in one order read the weights fastest for one.
constexpr std::size_t lone_rows = 3;

void append(std::span<const BatchPart> parts, std::size_t part, MicroBatch *batch) {
    const BatchPart &p = parts[part];
    for (std::size_t i = 0; i < p.tokens.size(); i++) {
        const bool last = p.ends && i + 1 == p.tokens.size();
        if (last) batch->outputs.push_back({part, batch->tokens.size()});
        batch->tokens.push_back({p.tokens[i], p.position + static_cast<std::uint32_t>(i), p.slot, last, false});
    }
}

// A row whose result nobody wants; the backend takes it back out of the cache.
BatchToken filler(std::uint32_t slot, std::span<const std::uint32_t> lengths) {
    return {0, lengths[slot], slot, false, true};
}

// Single tokens in the order of their slots, as calls over adjacent slots.
std::vector<MicroBatch> shape_singles(std::span<const BatchPart> parts, std::span<const std::size_t> singles,
                                      std::span<const std::uint32_t> lengths) {
    std::vector<MicroBatch> batches;
    for (const std::size_t part : singles) {
        const std::uint32_t slot = parts[part].slot;
        std::uint32_t next = batches.empty() ? 0 : batches.back().tokens.back().slot + 1;
        if (batches.empty() || slot - next > widest_gap) {
            batches.emplace_back();
            next = slot;
        }
        for (; next < slot; next++) batches.back().tokens.push_back(filler(next, lengths));
        append(parts, part, &batches.back());
    }
    return batches;
}

void widen(MicroBatch *batch, std::span<const std::uint32_t> lengths) {
    if (batch->tokens.size() == 1) batch->tokens.push_back(filler(batch->tokens[0].slot + 1, lengths));
    if (batch->outputs.empty()) return;
    // One output more than wanted, next to a wanted one: the output layer must not see a single row either.
    const std::size_t wanted = batch->outputs[0].index;
    batch->tokens[wanted == 0 ? 1 : wanted - 1].wants_output = true;
}

}  // namespace

std::vector<MicroBatch> shape_batches(std::span<const BatchPart> parts, const BatchShape &shape,
                                      std::span<const std::uint32_t> lengths) {
    std::vector<MicroBatch> batches;
    if (!shape.fixed) {
        batches.emplace_back();
        for (std::size_t i = 0; i < parts.size(); i++) append(parts, i, &batches.back());
        return batches;
    }
    std::vector<std::size_t> singles;
    std::vector<std::size_t> longer;
    std::vector<std::uint32_t> held(lengths.begin(), lengths.end());  // by the cache when the next call comes
    const auto add_alone = [&](std::size_t part) {
        MicroBatch whole;
        append(parts, part, &whole);
        const std::size_t rows = whole.tokens.size();
        if (shape.no_single_rows) widen(&whole, held);
        held[parts[part].slot] += static_cast<std::uint32_t>(rows);
        if (shape.no_single_rows || rows > lone_rows) {
            batches.push_back(std::move(whole));
            return;
        }
        for (const BatchToken &token : whole.tokens) batches.push_back({{token}, {}});
        if (!whole.outputs.empty()) batches.back().outputs.push_back({part, 0});
    };
    for (std::size_t i = 0; i < parts.size(); i++) {
        if (parts[i].hurries) add_alone(i);
        else (parts[i].tokens.size() == 1 ? singles : longer).push_back(i);
    }
    const auto by_slot = [&](std::size_t a, std::size_t b) { return parts[a].slot < parts[b].slot; };
    std::sort(singles.begin(), singles.end(), by_slot);
    for (MicroBatch &batch : shape_singles(parts, singles, held)) {
        if (shape.no_single_rows) widen(&batch, held);
        for (const BatchToken &token : batch.tokens) held[token.slot] += token.filler ? 0 : 1;
        batches.push_back(std::move(batch));
    }
    for (const std::size_t part : longer) add_alone(part);
    return batches;
}

}  // namespace sllm
