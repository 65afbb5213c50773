// Adapters made with the engine library's own GGUF functions.
#include "test/adapter_files.h"

#include <algorithm>
#include <random>
#include <stdexcept>

#include "ggml.h"
#include "gguf.h"

namespace test {

std::string random_adapter(const std::string &folder, const AdapterWish &wish) {
    gguf_context *file = gguf_init_empty();
    gguf_set_val_str(file, "general.type", "adapter");
    gguf_set_val_str(file, "general.architecture", wish.architecture.c_str());
    gguf_set_val_str(file, "adapter.type", "lora");
    gguf_set_val_f32(file, "adapter.lora.alpha", static_cast<float>(wish.rank));
    const auto numbers = static_cast<std::size_t>(4 * wish.width * wish.rank * wish.layers);
    const std::size_t mem_size = numbers * sizeof(float) + (1 << 16);
    ggml_context *tensors = ggml_init({.mem_size = mem_size, .mem_buffer = nullptr, .no_alloc = false});
    std::mt19937 random(wish.seed);
    std::uniform_real_distribution<float> values(-0.5F, 0.5F);
    const auto add = [&](const std::string &name, std::int64_t columns, std::int64_t rows) {
        ggml_tensor *tensor = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, columns, rows);
        ggml_set_name(tensor, name.c_str());
        auto *data = static_cast<float *>(tensor->data);
        std::generate(data, data + columns * rows, [&] { return values(random); });
        gguf_add_tensor(file, tensor);
    };
    for (int layer = 0; layer < wish.layers; layer++) {
        for (const char *matrix : {"attn_q", "attn_output"}) {
            const std::string name = "blk." + std::to_string(layer) + "." + matrix + ".weight";
            add(name + ".lora_a", wish.width, wish.rank);
            add(name + ".lora_b", wish.rank, wish.width);
        }
    }
    std::string path = folder + "/adapter-" + std::to_string(wish.seed) + ".gguf";
    if (!gguf_write_to_file(file, path.c_str(), false)) throw std::runtime_error("cannot write " + path);
    gguf_free(file);
    ggml_free(tensors);
    return path;
}

std::int64_t adapter_rank(std::uint64_t bytes, int layers) {
    const AdapterWish wish;
    return static_cast<std::int64_t>(bytes / sizeof(float)) / (4 * wish.width * layers);
}

}  // namespace test
