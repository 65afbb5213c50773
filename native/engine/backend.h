// Backend: what computes tokens. The engine batches, counts and speaks to the caller; a backend knows a model. It is
// made without weights: they come, and may go again, while no slot is in use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "engine/chat.h"
#include "engine/kv_table.h"
#include "engine/sampling_params.h"

namespace sllm {

// How decode calls must be made so that what the model says of a sequence does not depend, to the bit, on what else is
// computed with it.
struct BatchShape {
    bool fixed = false;           // false: no such promise, any shape will do
    bool no_single_rows = false;  // a lone row would be computed by another function than several
};

// How the states of a sequence's tokens become one vector. The values are those of sllm.h.
enum class Pooling : std::uint32_t { none = 0, mean = 1, cls = 2, last = 3, rank = 4 };

// Of an engine that turns sequences into vectors instead of going on with them.
struct EmbeddingFacts {
    Pooling pooling = Pooling::none;  // none: the engine generates
    std::uint32_t values = 0;         // of a vector; rank: scores, of which the first is the relevance
    std::uint32_t sequences = 0;      // of one call at most, with batch_tokens tokens together
};

struct BackendFacts {
    std::uint32_t vocabulary_tokens = 0;
    std::uint32_t context_tokens = 0;  // per slot
    std::uint32_t slots = 0;
    std::uint32_t batch_tokens = 0;  // of one step, at least one per slot
    KvRules kv;
    BatchShape shape;
    bool abortable = false;  // abort_decodes works
    // Engines of equal fingerprint say the same of equal sequences, to the bit; empty: no such promise.
    std::string fingerprint;
    // Of a token in the KV cache, all layers together; 0 where its rows cannot be read and written.
    std::uint64_t kv_token_bytes = 0;
    // Engines of one checkpoint and equal text here take each other's rows.
    std::string kv_fingerprint;
    EmbeddingFacts embedding;
    double model_build_ms = 0;
};

// Memory that an engine takes on one device.
struct DeviceMemoryFacts {
    std::string name;
    std::uint64_t weights_bytes = 0;
    std::uint64_t context_bytes = 0;  // KV cache
    std::uint64_t compute_bytes = 0;
};

// The way of the last attached weights to the devices; zeros on a CPU.
struct UploadReport {
    std::uint64_t bytes = 0;
    double upload_ms = 0;
    double wait_ms = 0;  // of it, waiting for bytes of the host copy
};

// A LoRA adapter to be brought in. Paths as of a model's weights.
struct AdapterFiles {
    std::uint32_t adapter = 0;  // its number, from 1
    std::string header_path;
    std::string weights_path;  // the host copy
    std::uint64_t weights_bytes = 0;
    double scale = 0;  // of what it adds; 0: 1
};

// One token of a batch: it takes `position` of the slot's sequence.
struct BatchToken {
    std::int32_t token = 0;
    std::uint32_t position = 0;
    std::uint32_t slot = 0;
    bool wants_output = false;  // a token will be sampled from what the model says after this one
    bool filler = false;        // only its row matters: the sequence stays as it was
};

class Backend {
public:
    virtual ~Backend() = default;

    // [any]
    virtual const BackendFacts &facts() const = 0;
    virtual Status tokenize(std::string_view text, bool add_special, bool parse_special,
                            std::vector<std::int32_t> *out) const = 0;
    // A query and a document as a model that ranks wants to read them; see sllm_engine_tokenize_pair.
    virtual Status tokenize_pair(std::string_view, std::string_view, std::vector<std::int32_t> *) const {
        return {Code::invalid_argument, "the model does not rank documents"};
    }
    virtual Status render_chat(std::string_view messages, std::string *out) const = 0;
    virtual Status open_chat(std::string_view request, std::unique_ptr<Chat> *out) const = 0;
    // Makes a running decode return soon, with an error. Nothing but destruction may follow.
    virtual void interrupt() = 0;
    // Grows while a decode gets on, where the backend can tell: CPUs tell at every operation, devices do not.
    virtual std::uint64_t progress() const { return 0; }

    // No slot is in use during these two, and none comes into use between a failed attach or a park and the next attach
    // that succeeds. [blocks]

    // Brings the weights of a host copy in; see sllm_engine_attach.
    virtual Status attach(const std::string &weights_path) = 0;
    // Lets the memory of all sequences go, and the weights unless they are to be kept and cost nothing.
    virtual Status park(bool keep_weights) = 0;

    // Brings a LoRA adapter in, while others may compute; park lets all go. [any] [blocks]
    virtual Status add_adapter(const AdapterFiles &) {
        return {Code::invalid_argument, "this engine takes no adapters"};
    }

    // While on, the decode under way and all following ones end within an operation. Only with facts().abortable. [any]
    virtual void abort_decodes(bool) {}

    // What the engine takes on its devices; none on a CPU. [any]
    virtual std::vector<DeviceMemoryFacts> device_memory() const { return {}; }
    // Not during an attach. [any]
    virtual UploadReport upload_report() const { return {}; }

    // The rest: compute thread only.

    // The vectors of sequences, in their order and as the model gives them. Only where facts().embedding says that the
    // engine embeds, and within its bounds; then nothing of what follows is called. After an error the backend is
    // unusable.
    virtual Status embed(std::span<const std::span<const std::int32_t>>, std::vector<std::vector<float>> *) {
        return {Code::wrong_state, "the engine generates"};
    }

    // A slot begins to sample for a sequence with this history: what sampling remembers of it is rebuilt here. Nothing
    // is computed. INVALID_ARGUMENT when the constraint cannot be read or does not allow the output.
    virtual Status begin(std::uint32_t slot, const SamplingParams &sampling, const TokenHistory &history) = 0;
    // A slot stops sampling. The cache keeps its sequence.
    virtual void end(std::uint32_t slot) = 0;
    // The cache keeps the first tokens of a slot's sequence only. All or none, unless facts().kv.cuttable.
    virtual void cut(std::uint32_t slot, std::uint32_t length) = 0;
    // A slot without a sequence gets the first tokens of another one's, at no cost. Only with facts().kv.shared.
    virtual void share(std::uint32_t from, std::uint32_t to, std::uint32_t length) = 0;
    // The next three only with facts().kv_token_bytes. The rows of a slot's tokens from one up to another, which the
    // cache holds. MODEL_UNSUPPORTED where it turns out that it keeps them in another form.
    virtual Status read_kv(std::uint32_t, std::uint32_t, std::uint32_t, std::vector<std::uint8_t> *) {
        return {Code::model_unsupported, "the engine has no KV cache that can be read"};
    }
    // A slot without a sequence gets room for so many tokens, whose rows write_kv brings, all before they are used.
    virtual Status make_kv(std::uint32_t, std::uint32_t) {
        return {Code::model_unsupported, "the engine has no KV cache that can be written"};
    }
    // Whole rows, from a token on; within what make_kv has made room for.
    virtual Status write_kv(std::uint32_t, std::uint32_t, std::span<const std::uint8_t>) {
        return {Code::wrong_state, "there is no room for them"};
    }
    // Lets an adapter go that no request uses.
    virtual void remove_adapter(std::uint32_t) {}
    // What the following batches are computed with: an adapter that was added, or 0, the bare model, as at first.
    virtual Status use_adapter(std::uint32_t) { return {}; }
    // Computes a batch of the facts' shape. After an error the backend is unusable, except after CANCELLED, which
    // abort_decodes leads to: then the cache is as it was before.
    virtual Status decode(std::span<const BatchToken> batch) = 0;
    // The token at `position` of the slot's sequence, drawn from the output of batch[index] of the last decode; -1 when
    // the constraint leaves none. Changes nothing: the same call gives the same token.
    virtual std::int32_t sample(std::uint32_t slot, std::size_t index, std::uint32_t position) = 0;
    // The token is now part of the slot's output: the next draw knows of it.
    virtual Status accept(std::uint32_t slot, std::int32_t token) = 0;
    // Log-probabilities of the output of batch[index], before anything changed the logits, as drain tells them: the
    // token's first, then those of the `alternatives` likeliest.
    virtual std::string logprobs(std::size_t index, std::int32_t token, std::uint32_t alternatives) const = 0;
    virtual bool ends_generation(std::int32_t token) const = 0;
    // Appends the bytes of a token in the slot's answer, which may be part of a UTF-8 character.
    virtual void append_piece(std::uint32_t slot, std::int32_t token, std::string *out) const = 0;
};

}  // namespace sllm
