// Names, layer sizes and borders.
#include "engine/device_split.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "core/limits.h"

namespace sllm {

namespace {

// The N of "blk.N."; -1 for tensors outside the repeating layers.
std::int64_t layer_of(std::string_view name) {
    constexpr std::string_view prefix = "blk.";
    if (!name.starts_with(prefix)) return -1;
    name.remove_prefix(prefix.size());
    std::uint32_t layer = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    const bool whole = error == std::errc() && end != name.data() + name.size() && *end == '.';
    if (!whole || layer >= limits::tensors) return -1;
    return layer;
}

Status parse_share(std::string_view text, DeviceShare *out) {
    const std::size_t equals = text.find('=');
    out->name = text.substr(0, equals);
    if (out->name.empty()) return {Code::invalid_argument, "devices names an empty device"};
    if (equals == std::string_view::npos) return {};
    const std::string_view number = text.substr(equals + 1);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), out->share);
    if (error != std::errc() || end != number.data() + number.size() || !(out->share > 0) || out->share > 1e15) {
        return {Code::invalid_argument, "the share of the device " + out->name + " is no positive number"};
    }
    return {};
}

}  // namespace

Status parse_devices(std::string_view text, std::vector<DeviceShare> *out) {
    out->clear();
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        DeviceShare one;
        if (Status s = parse_share(text.substr(0, comma), &one); !s.ok()) return s;
        const bool twice = std::any_of(out->begin(), out->end(), [&](const auto &d) { return d.name == one.name; });
        if (twice) return {Code::invalid_argument, "devices names " + one.name + " twice"};
        if (out->size() == limits::devices) {
            return {Code::invalid_argument, "at most " + std::to_string(limits::devices) + " devices"};
        }
        out->push_back(std::move(one));
        text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    }
    return {};
}

std::vector<std::uint64_t> layer_bytes(const GgufHeader &header, std::uint64_t data_bytes) {
    std::map<std::uint64_t, std::string_view> by_offset;
    for (const auto &[name, offset] : header.tensor_offsets) by_offset.emplace(offset, name);
    std::map<std::int64_t, std::uint64_t> layers;
    std::uint64_t output = 0;
    std::uint64_t tied_output = 0;
    for (auto tensor = by_offset.begin(); tensor != by_offset.end(); ++tensor) {
        const auto next = std::next(tensor);
        const std::uint64_t end = next == by_offset.end() ? std::max(data_bytes, tensor->first) : next->first;
        const std::uint64_t bytes = end - tensor->first;
        const std::string_view name = tensor->second;
        if (const std::int64_t layer = layer_of(name); layer >= 0) {
            layers[layer] += bytes;
        } else if (name.starts_with("output")) {
            output += bytes;
        } else if (name == "token_embd.weight") {
            tied_output = bytes;
        }
    }
    // Without an output matrix of its own a model uses the embeddings once more.
    if (!header.tensor_offsets.contains("output.weight")) output += tied_output;
    std::vector<std::uint64_t> all(layers.empty() ? 0 : static_cast<std::size_t>(layers.rbegin()->first) + 1);
    for (const auto &[layer, bytes] : layers) all[static_cast<std::size_t>(layer)] = bytes;
    all.push_back(output);
    return all;
}

std::vector<std::uint32_t> split_layers(std::span<const std::uint64_t> layers, std::span<const DeviceShare> devices) {
    double total_bytes = 0;
    for (const std::uint64_t bytes : layers) total_bytes += static_cast<double>(bytes);
    double total_share = 0;
    for (const DeviceShare &device : devices) total_share += device.share;
    std::vector<std::uint32_t> counts;
    std::size_t layer = 0;
    double placed = 0;
    double wanted = 0;
    for (std::size_t d = 0; d < devices.size(); d++) {
        wanted += devices[d].share / total_share * total_bytes;
        const std::size_t first = layer;
        const bool last = d + 1 == devices.size();
        // A layer goes where its middle lies.
        while (layer < layers.size() && (last || placed + static_cast<double>(layers[layer]) / 2 < wanted)) {
            placed += static_cast<double>(layers[layer++]);
        }
        counts.push_back(static_cast<std::uint32_t>(layer - first));
    }
    return counts;
}

}  // namespace sllm
