// From token pieces to text a client may see: whole characters only, and nothing that could still turn out to be the
// beginning of a stop string. Pure; the result does not depend on how the bytes were cut into pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sllm {

class TextAssembler {
public:
    // stops: not empty, well-formed UTF-8.
    explicit TextAssembler(std::vector<std::string> stops);

    // Takes the bytes of the next token; returns the text that became certain.
    // Does nothing more once stopped().
    std::string push(std::string_view piece);

    // Whether a stop string was completed. The text ends before it; where several end at the same byte, before the
    // longest.
    bool stopped() const { return stopped_; }

    // The text ends here: returns what was held back, an unfinished character as U+FFFD. Empty after a stop, unless
    // the unfinished character completes one.
    std::string finish();

private:
    std::string take_certain(std::string_view text);

    std::vector<std::string> stops_;
    std::string unfinished_;  // bytes of a character that is not complete yet
    std::string held_;        // text that is the beginning of a stop string, or part of one
    bool stopped_ = false;
};

}  // namespace sllm
