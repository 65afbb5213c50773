// Models made with the engine library's own GGUF functions.
#include "test/embedding_models.h"

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "ggml.h"
#include "gguf.h"
#include "llama.h"
#include "test/checkpoint_fixture.h"

namespace test {

namespace {

constexpr std::int64_t width = 64;
constexpr std::int64_t inner = 128;
constexpr std::uint32_t layers = 2;
constexpr std::uint32_t positions = 128;

struct SampleFile {
    explicit SampleFile(bool with_data) {
        gguf = gguf_init_from_file(sample_model().c_str(), {.no_alloc = !with_data, .ctx = &tensors});
        if (gguf == nullptr) throw std::runtime_error("the sample model cannot be read");
    }
    ~SampleFile() {
        gguf_free(gguf);
        ggml_free(tensors);
    }
    SampleFile(const SampleFile &) = delete;
    SampleFile &operator=(const SampleFile &) = delete;

    ggml_context *tensors = nullptr;
    gguf_context *gguf = nullptr;
};

std::string written(const gguf_context *file, const std::string &folder, const std::string &name) {
    std::string path = folder + "/" + name;
    if (!gguf_write_to_file(file, path.c_str(), false)) throw std::runtime_error("cannot write " + path);
    return path;
}

// Tensors with random values around 0, or around 1 for the weights of norms.
class RandomTensors {
public:
    explicit RandomTensors(gguf_context *file)
        : file_(file), tensors_(ggml_init({.mem_size = 8 << 20, .mem_buffer = nullptr, .no_alloc = false})) {}
    ~RandomTensors() { ggml_free(tensors_); }
    RandomTensors(const RandomTensors &) = delete;
    RandomTensors &operator=(const RandomTensors &) = delete;

    void add(const std::string &name, std::int64_t columns, std::int64_t rows = 1, float centre = 0) {
        ggml_tensor *tensor = rows == 1 ? ggml_new_tensor_1d(tensors_, GGML_TYPE_F32, columns)
                                        : ggml_new_tensor_2d(tensors_, GGML_TYPE_F32, columns, rows);
        ggml_set_name(tensor, name.c_str());
        std::normal_distribution<float> values(centre, 0.2F);
        auto *data = static_cast<float *>(tensor->data);
        std::generate(data, data + columns * rows, [&] { return values(random_); });
        gguf_add_tensor(file_, tensor);
    }
    void add_linear(const std::string &name, std::int64_t from, std::int64_t to) {
        add(name + ".weight", from, to);
        add(name + ".bias", to);
    }
    void add_norm(const std::string &name) {
        add(name + ".weight", width, 1, 1);
        add(name + ".bias", width);
    }

private:
    gguf_context *file_;
    ggml_context *tensors_;
    std::mt19937 random_{1};  // fixed: the tests compare what the same model says
};

void set_encoder_metadata(gguf_context *file, int pooling) {
    gguf_set_val_str(file, "general.architecture", "bert");
    gguf_set_val_u32(file, "bert.context_length", positions);
    gguf_set_val_u32(file, "bert.embedding_length", width);
    gguf_set_val_u32(file, "bert.block_count", layers);
    gguf_set_val_u32(file, "bert.feed_forward_length", inner);
    gguf_set_val_u32(file, "bert.attention.head_count", 4);
    gguf_set_val_f32(file, "bert.attention.layer_norm_epsilon", 1e-5F);
    gguf_set_val_bool(file, "bert.attention.causal", false);
    gguf_set_val_u32(file, "bert.pooling_type", static_cast<std::uint32_t>(pooling));
    gguf_set_val_u32(file, "tokenizer.ggml.token_type_count", 2);
}

}  // namespace

std::string pooled_sample(const std::string &folder, int pooling) {
    const SampleFile sample(true);
    gguf_context *file = gguf_init_empty();
    gguf_set_kv(file, sample.gguf);
    gguf_set_val_u32(file, "llama.pooling_type", static_cast<std::uint32_t>(pooling));
    for (std::int64_t i = 0; i < gguf_get_n_tensors(sample.gguf); i++) {
        gguf_add_tensor(file, ggml_get_tensor(sample.tensors, gguf_get_tensor_name(sample.gguf, i)));
    }
    std::string path = written(file, folder, "pooled.gguf");
    gguf_free(file);
    return path;
}

std::string random_encoder(const std::string &folder, int pooling) {
    const SampleFile sample(false);
    gguf_context *file = gguf_init_empty();
    gguf_set_kv(file, sample.gguf);
    set_encoder_metadata(file, pooling);
    const ggml_tensor *vocabulary = ggml_get_tensor(sample.tensors, "token_embd.weight");
    RandomTensors tensors(file);
    tensors.add("token_embd.weight", width, vocabulary->ne[1]);
    tensors.add("position_embd.weight", width, positions);
    tensors.add("token_types.weight", width, 2);
    tensors.add_norm("token_embd_norm");
    for (std::uint32_t i = 0; i < layers; i++) {
        const std::string block = "blk." + std::to_string(i) + ".";
        for (const char *name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
            tensors.add_linear(block + name, width, width);
        }
        tensors.add_norm(block + "attn_output_norm");
        tensors.add_linear(block + "ffn_up", width, inner);
        tensors.add_linear(block + "ffn_down", inner, width);
        tensors.add_norm(block + "layer_output_norm");
    }
    if (pooling == LLAMA_POOLING_TYPE_RANK) {
        tensors.add_linear("cls", width, width);
        tensors.add_linear("cls.output", width, 1);
    }
    std::string path = written(file, folder, "encoder.gguf");
    gguf_free(file);
    return path;
}

}  // namespace test
