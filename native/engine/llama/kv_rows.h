// Where the rows of a sequence's tokens lie in the KV cache of a context on the CPU, and new places for such rows. The
// library writes and reads the state of a sequence as one stream of bytes; it is asked to with a TensorTap, which tells
// the addresses of the rows and copies none. So rows can be moved in parts of any size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/status.h"
#include "engine/llama/context_memory.h"
#include "engine/llama/tensor_tap.h"
#include "llama.h"

namespace sllm::llama {

class KvRows {
public:
    // Of the first tokens of a sequence that the cache holds. MODEL_UNSUPPORTED where it keeps them in another form.
    static Status find(llama_context *context, llama_seq_id sequence, std::uint32_t tokens, KvRows *out);

    // Cells for the first tokens of a sequence, which loses what it has. Their rows are to be written before anything
    // is computed with it. ENGINE when there are not enough free cells.
    static Status make(llama_context *context, const std::vector<KvTensor> &layout, llama_seq_id sequence,
                       std::uint32_t tokens, KvRows *out);

    std::uint32_t tokens() const { return static_cast<std::uint32_t>(places_.size()); }
    // The rows of tokens from one up to another, all layers of one token after those of the one before.
    void read(std::uint32_t from, std::uint32_t to, std::uint8_t *out) const;
    void write(std::uint32_t from, std::uint32_t to, const std::uint8_t *in) const;

private:
    struct Place {
        std::uint32_t run = 0;   // of adjacent cells
        std::uint32_t cell = 0;  // in the run
    };
    struct Layer {
        std::size_t row_bytes = 0;
        std::vector<std::uint8_t *> runs;
    };

    // The state's bytes without those of rows, which the pieces stand for.
    Status read_state(const std::uint8_t *state, std::size_t bytes, const std::vector<TensorTap::Piece> &pieces);

    std::vector<Place> places_;  // by position
    std::vector<Layer> layers_;  // keys, then values
};

}  // namespace sllm::llama
