// Bounds of the native library. Those that also exist in schema/limits.ts carry the same names and values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sllm::limits {

// Stop strings of one request, and bytes of one of them: the text held back is bounded by the longest.
inline constexpr std::uint32_t stop_strings = 16;
inline constexpr std::uint64_t stop_bytes = 256;

// Tokens that one request may favour or avoid, and alternatives that are told with each token.
inline constexpr std::size_t logit_bias = 1'024;
inline constexpr std::uint32_t top_logprobs = 20;

// What one answer must look like: JSON around a grammar. A schema of 64 KiB becomes a grammar several times as long.
inline constexpr std::uint64_t constraint_bytes = std::uint64_t{4} << 20;

// Parallel sequences of one instance; libllama's own bound is the same.
inline constexpr std::uint32_t slots = 256;

// Context of one sequence.
inline constexpr std::uint32_t context_tokens = 1'048'576;

// Requests waiting inside one engine beyond its slots, when the caller names no number, and at most.
inline constexpr std::uint32_t engine_queue = 1'024;
inline constexpr std::uint32_t engine_queue_max = 65'536;

// Tokens of one step when the caller names no number, and at most: it bounds the pause a prefill puts into streams.
inline constexpr std::uint32_t batch_tokens = 512;
inline constexpr std::uint32_t batch_tokens_max = 16'384;

// Tokens of a step for prompts while a stream runs, at most, when the caller names no number: fast devices get no
// faster by more. Slower ones take fewer, so that a long prompt pauses streams no longer than is bearable.
inline constexpr std::uint32_t prefill_tokens = 256;
// Of them at least, however long they take: fewer cost nearly as much, for a call reads all weights.
inline constexpr std::uint32_t prompt_tokens_least = 32;
// A step with prompts may take so long whatever streams take: readers notice no pause of this length, and with no
// stream to pause only those who come during it wait, while every prompt pays for steps that are short.
inline constexpr double stream_pause_ms = 50;
inline constexpr double step_ms = 5'000;
// Of a step for sequences that are held, at most, while anything else is computed: nobody waits for them yet. What they
// cost the streams that stay decides, so on a device with room for more than its streams it is this many.
inline constexpr std::uint32_t held_tokens = 64;
// At least, and before it is known what they cost: some more than the one that a source makes in a step, so that rounds
// shrink.
inline constexpr std::uint32_t held_tokens_first = 4;

// Bytes of the KV cache that are moved to another engine or from one between two steps: some milliseconds of them.
inline constexpr std::uint64_t kv_move_bytes = 8 << 20;

// Tokens of the KV cache kept free for every running request when another one is admitted.
inline constexpr std::uint32_t kv_tokens_ahead = 16;

// Sequences that one call turns into vectors: more bring no speed, each takes room for its vector.
inline constexpr std::uint32_t embedding_sequences = 64;

// LoRA adapters that one engine holds at once.
inline constexpr std::size_t adapters = 256;

// Events nobody drained: the compute thread pauses there instead of filling memory for a consumer that stopped.
inline constexpr std::size_t undrained_events = 65'536;

// Reads of one volume in flight that a caller may ask for: more only queue at the disk.
inline constexpr std::uint32_t reader_threads = 64;

// Devices of one engine; the engine library has the same bound.
inline constexpr std::size_t devices = 16;

// Reads of one volume in flight whatever its settings: io_uring's queue, or the threads of the fallback.
inline constexpr std::uint32_t reads_in_flight = 256;

// Bytes of one volume in flight: more only wait inside the device.
inline constexpr std::uint64_t in_flight_bytes = std::uint64_t{1} << 30;

// Compute threads of an engine.
inline constexpr std::uint32_t threads = 512;

// Bytes of weights of one checkpoint.
inline constexpr std::uint64_t weights_bytes = std::uint64_t{4} << 40;

// Chunk of the arena: as large as a checkpoint's chunks, so that one usually holds the other; schema/limits.ts calls it
// chunk_bytes. The arena's bound keeps chunk numbers within 32 bits with room to spare.
inline constexpr std::uint64_t arena_chunk_bytes = std::uint64_t{16} << 20;
inline constexpr std::uint64_t arena_bytes = std::uint64_t{64} << 40;

// Alignment of chunks and of the end of weights.bin: O_DIRECT on any common device.
inline constexpr std::uint64_t file_align_bytes = 4'096;

// Alignment of tensors in weights.bin.
inline constexpr std::uint64_t tensor_align_bytes = 128;

// Bounds of a GGUF header.
inline constexpr std::uint64_t gguf_header_bytes = std::uint64_t{512} << 20;
inline constexpr std::uint64_t tensors = 131'072;
inline constexpr std::uint64_t gguf_pairs = 65'536;
inline constexpr std::uint64_t gguf_array = 8'388'608;
inline constexpr std::uint64_t gguf_string_bytes = std::uint64_t{16} << 20;
inline constexpr int gguf_array_depth = 4;

// Text of one answer that is taken apart into a message.
inline constexpr std::uint64_t answer_bytes = std::uint64_t{16} << 20;

// JSON of one conversation.
inline constexpr std::uint64_t messages_bytes = std::uint64_t{16} << 20;

}  // namespace sllm::limits
