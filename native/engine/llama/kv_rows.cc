// The library's format of a sequence's state, as its release 0.5.0 writes it.
#include "engine/llama/kv_rows.h"

#include <sys/mman.h>

#include <cstring>
#include <limits>

#include "io/owned.h"

namespace sllm::llama {

namespace {

Status other_form() { return {Code::model_unsupported, "the library keeps the model's KV cache in another form"}; }

// Reads fields one after the other; rows are stepped over.
class Fields {
public:
    Fields(const std::uint8_t *data, std::size_t bytes) : data_(data), left_(bytes) {}

    template <typename T>
    bool take(T *out) {
        if (left_ < sizeof *out) return false;
        std::memcpy(out, data_, sizeof *out);
        return skip(sizeof *out);
    }
    bool skip(std::size_t bytes) {
        if (left_ < bytes) return false;
        data_ += bytes;
        left_ -= bytes;
        return true;
    }
    bool at_end() const { return left_ == 0; }

private:
    const std::uint8_t *data_;
    std::size_t left_;
};

// Memory for a state of which only the fields are written: addresses for all of it, pages for little.
Status reserve(std::size_t bytes, Mapping *out) {
    void *memory = nullptr;
    Env &env = Env::posix();
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (env.map(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0, &memory) < 0) {
        return {Code::out_of_memory, "no addresses for the state of a sequence"};
    }
    *out = Mapping(env, memory, bytes);
    return {};
}

class Writer {
public:
    explicit Writer(std::uint8_t *at) : at_(at), begin_(at) {}

    template <typename T>
    void put(const T &value) {
        std::memcpy(at_, &value, sizeof value);
        at_ += sizeof value;
    }
    void skip(std::size_t bytes) { at_ += bytes; }
    std::size_t bytes() const { return static_cast<std::size_t>(at_ - begin_); }

private:
    std::uint8_t *at_;
    std::uint8_t *begin_;
};

// Of an empty sequence: what stands before its cells, and how many streams of cells the cache has.
struct Head {
    std::uint32_t magic = 0;
    std::uint32_t streams = 0;
};

Status read_head(llama_context *context, llama_seq_id sequence, Head *out) {
    std::vector<std::uint8_t> state(llama_state_seq_get_size(context, sequence) + sizeof(Head));
    const std::size_t bytes = llama_state_seq_get_data(context, state.data(), state.size(), sequence);
    Fields fields(state.data(), bytes);
    llama_seq_id told = 0;
    const bool known = fields.take(&out->magic) && fields.take(&told) && fields.take(&out->streams);
    return known && out->streams > 0 ? Status() : other_form();
}

void put_tensors(const std::vector<KvTensor> &layout, bool keys, std::uint32_t tokens, Writer *writer) {
    for (const KvTensor &one : layout) {
        if (one.is_key != keys) continue;
        writer->put(static_cast<std::int32_t>(one.type));
        writer->put(static_cast<std::uint64_t>(one.row_bytes));
        writer->skip(tokens * one.row_bytes);
    }
}

}  // namespace

Status KvRows::find(llama_context *context, llama_seq_id sequence, std::uint32_t tokens, KvRows *out) {
    const std::size_t bytes = llama_state_seq_get_size(context, sequence);
    if (bytes == 0) return other_form();
    Mapping state;
    if (Status s = reserve(bytes, &state); !s.ok()) return s;
    const auto data = static_cast<std::uint8_t *>(state.data());
    std::size_t written = 0;
    std::vector<TensorTap::Piece> pieces;
    {
        TensorTap tap;
        written = llama_state_seq_get_data(context, data, bytes, sequence);
        pieces = std::move(tap.pieces);
    }
    if (written == 0) return other_form();
    if (Status s = out->read_state(data, written, pieces); !s.ok()) return s;
    if (out->tokens() < tokens) return {Code::wrong_state, "the KV cache holds fewer tokens"};
    return {};
}

Status KvRows::make(llama_context *context, const std::vector<KvTensor> &layout, llama_seq_id sequence,
                    std::uint32_t tokens, KvRows *out) {
    llama_memory_seq_rm(llama_get_memory(context), sequence, -1, -1);
    Head head;
    if (Status s = read_head(context, sequence, &head); !s.ok()) return s;
    std::size_t rows = 0;
    std::uint32_t layers = 0;
    for (const KvTensor &one : layout) {
        rows += one.row_bytes + sizeof(std::int32_t) + sizeof(std::uint64_t);
        layers += one.is_key ? 1 : 0;
    }
    Mapping state;
    const std::size_t fields = std::size_t{64} + head.streams * sizeof(std::uint32_t) + std::size_t{tokens} * 12;
    if (Status s = reserve(fields + std::size_t{tokens} * rows, &state); !s.ok()) return s;
    Writer writer(static_cast<std::uint8_t *>(state.data()));
    writer.put(head.magic);
    writer.put(sequence);
    writer.put(head.streams);
    writer.put(tokens);
    for (std::uint32_t position = 0; position < tokens; position++) {
        writer.put(static_cast<llama_pos>(position));
        writer.put(std::uint32_t{1});
        writer.put(sequence);
    }
    writer.put(std::uint32_t{0});  // values are not transposed
    writer.put(layers);
    put_tensors(layout, true, tokens, &writer);
    put_tensors(layout, false, tokens, &writer);
    for (std::uint32_t stream = 1; stream < head.streams; stream++) writer.put(std::uint32_t{0});

    const auto data = static_cast<std::uint8_t *>(state.data());
    TensorTap tap;
    const std::size_t read = llama_state_seq_set_data(context, data, writer.bytes(), sequence);
    if (read != writer.bytes()) return {Code::engine, "no free cells in the KV cache, or another form"};
    return out->read_state(data, read, tap.pieces);
}

Status KvRows::read_state(const std::uint8_t *state, std::size_t bytes, const std::vector<TensorTap::Piece> &pieces) {
    Fields fields(state, bytes);
    std::uint32_t magic = 0;
    llama_seq_id sequence = 0;
    std::uint32_t streams = 0;
    if (!fields.take(&magic) || !fields.take(&sequence) || !fields.take(&streams)) return other_form();
    std::uint32_t cells = 0;
    std::uint32_t empty = 0;
    while (empty + 1 < streams && fields.take(&cells) && cells == 0) empty++;
    if (cells == 0 && !fields.take(&cells)) return other_form();
    if (cells == 0) return {Code::wrong_state, "the KV cache holds nothing of the sequence"};

    std::vector<std::uint32_t> positions(cells);
    for (std::uint32_t &position : positions) {
        std::uint32_t sequences = 0;
        llama_seq_id owner = 0;
        if (!fields.take(&position) || !fields.take(&sequences) || sequences != 1 || !fields.take(&owner)) {
            return other_form();
        }
        if (position >= cells) return other_form();
    }
    std::uint32_t transposed = 0;
    std::uint32_t layers = 0;
    if (!fields.take(&transposed) || transposed != 0 || !fields.take(&layers)) return other_form();

    layers_.clear();
    places_.assign(cells, {std::numeric_limits<std::uint32_t>::max(), 0});
    const std::size_t after = std::size_t{streams - 1 - empty} * sizeof(std::uint32_t);
    std::size_t piece = 0;
    std::size_t taken = 0;
    std::int32_t type = 0;
    std::uint64_t row_bytes = 0;
    // What follows the last tensor are the counts of the other streams: zeros, and shorter than a tensor's fields.
    while (piece < pieces.size()) {
        if (!fields.take(&type) || !fields.take(&row_bytes) || row_bytes == 0) return other_form();
        Layer layer{row_bytes, {}};
        std::uint32_t cell = 0;
        while (cell < cells && piece < pieces.size()) {
            const auto count = static_cast<std::uint32_t>(pieces[piece].bytes / row_bytes);
            if (count * row_bytes != pieces[piece].bytes || count > cells - cell) return other_form();
            const auto run = static_cast<std::uint32_t>(layer.runs.size());
            for (std::uint32_t i = 0; i < count; i++) places_[positions[cell + i]] = {run, i};
            layer.runs.push_back(pieces[piece++].data);
            cell += count;
        }
        if (cell != cells || !fields.skip(cells * row_bytes)) return other_form();
        layers_.push_back(std::move(layer));
        taken++;
    }
    const bool whole = taken >= layers && fields.skip(after) && fields.at_end();
    return whole ? Status() : other_form();
}

void KvRows::read(std::uint32_t from, std::uint32_t to, std::uint8_t *out) const {
    for (std::uint32_t position = from; position < to; position++) {
        for (const Layer &layer : layers_) {
            const Place &place = places_[position];
            std::memcpy(out, layer.runs[place.run] + place.cell * layer.row_bytes, layer.row_bytes);
            out += layer.row_bytes;
        }
    }
}

void KvRows::write(std::uint32_t from, std::uint32_t to, const std::uint8_t *in) const {
    for (std::uint32_t position = from; position < to; position++) {
        for (const Layer &layer : layers_) {
            const Place &place = places_[position];
            std::memcpy(layer.runs[place.run] + place.cell * layer.row_bytes, in, layer.row_bytes);
            in += layer.row_bytes;
        }
    }
}

}  // namespace sllm::llama
