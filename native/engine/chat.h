// One conversation on its way through an engine: the prompt that it becomes, what its answer must look like, and the
// message that the answer's text is taken apart into.
#pragma once

#include <string>
#include <string_view>

#include "core/status.h"

namespace sllm {

// One caller at a time, unlike the engine it comes from, which must outlive it.
class Chat {
public:
    virtual ~Chat() = default;

    // See sllm_chat_describe.
    virtual const std::string &description() const = 0;
    // More of the answer's text; see sllm_chat_feed.
    virtual Status feed(std::string_view text, bool last) = 0;
    // What the message has gained and nobody has taken, as JSON; see sllm_chat_take.
    virtual std::string delta() const = 0;
    virtual void clear_delta() = 0;
};

}  // namespace sllm
