// What a message gains from one reading of the answer's text to the next.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace sllm {

struct MessageToolCall {
    std::string name;
    std::string arguments;  // JSON text, perhaps its beginning
};

struct AnswerMessage {
    std::string content;
    std::string reasoning_content;
    std::vector<MessageToolCall> tool_calls;
};

// Collects growth. Readings of a text that is not over may take back their last guess (a half-written marker, a name
// that is not complete): what was told stays, and only what goes on from it is told later.
class MessageDelta {
public:
    // The message as a longer text reads; last: no longer one follows.
    void grow(const AnswerMessage &message, bool last);
    // {"content"?,"reasoning_content"?,"tool_calls"?:[{"index","name"?,"arguments"?}]}
    std::string json() const;
    void clear() { pending_ = {}; }

private:
    struct Pending {
        std::string content;
        std::string reasoning_content;
        struct Piece {
            std::size_t index = 0;
            bool begins = false;
            std::string arguments;
        };
        std::vector<Piece> calls;
    };

    AnswerMessage told_;
    Pending pending_;
};

}  // namespace sllm
