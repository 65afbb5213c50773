// Character assembly and stop strings.
#include "engine/text_assembler.h"

#include <algorithm>
#include <utility>

#include "core/utf8.h"

namespace sllm {

TextAssembler::TextAssembler(std::vector<std::string> stops) : stops_(std::move(stops)) {}

std::string TextAssembler::push(std::string_view piece) {
    if (stopped_) return {};
    unfinished_.append(piece);
    std::string text;
    const std::size_t rest = append_utf8(unfinished_, &text);
    unfinished_.erase(0, unfinished_.size() - rest);
    return take_certain(text);
}

std::string TextAssembler::finish() {
    if (stopped_) return {};
    std::string certain;
    if (!unfinished_.empty()) {
        unfinished_.clear();
        certain = take_certain(utf8_replacement);
    }
    if (!stopped_) certain += std::exchange(held_, {});
    return certain;
}

std::string TextAssembler::take_certain(std::string_view text) {
    // Byte by byte, so that the stop string that is complete first wins, however the text was cut.
    for (const char byte : text) {
        held_.push_back(byte);
        std::size_t longest = 0;
        for (const std::string &stop : stops_) {
            if (held_.ends_with(stop)) longest = std::max(longest, stop.size());
        }
        if (longest > 0) {
            stopped_ = true;
            held_.resize(held_.size() - longest);
            return std::exchange(held_, {});
        }
    }
    std::size_t keep = 0;  // the longest end of the text that begins a stop string
    for (const std::string &stop : stops_) {
        for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; n--) {
            if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
        }
    }
    std::string certain = held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return certain;
}

}  // namespace sllm
