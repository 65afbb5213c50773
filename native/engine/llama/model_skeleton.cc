// Building over reserved addresses, and attaching weights. Longer than other files because all ways in which weights
// come and go, mapped, copied and repacked, keep one set of regions and tensors.
#include "engine/llama/model_skeleton.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>

#include "core/limits.h"
#include "engine/llama/buffer_hook.h"
#include "engine/llama/device_hook.h"
#include "engine/llama/devices.h"
#include "engine/llama/header_stream.h"
#include "engine/llama/log.h"
#include "io/address_space.h"

// Exported by libllama, declared in its src/llama-model.h, which includes too much of the rest.
const std::vector<std::pair<std::string, ggml_tensor *>> &llama_internal_get_tensor_map(const llama_model *model);

namespace sllm::llama {

namespace {

constexpr std::uint64_t page_bytes = 4096;

// Of addresses that nobody may touch.
constexpr int reserved_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

// Where the layers go, in the form that libllama borrows while it builds.
struct Placement {
    std::vector<ggml_backend_dev_t> devices;  // null at the end
    std::vector<float> layers;                // per device
};

llama_model_params skeleton_params(Placement &placement, bool repacked) {
    llama_model_params params = llama_model_default_params();
    const bool on_cpu = placement.devices.size() == 1;
    params.devices = placement.devices.data();
    params.n_gpu_layers = on_cpu ? 0 : -1;  // all
    params.split_mode = LLAMA_SPLIT_MODE_LAYER;
    params.tensor_split = placement.layers.data();
    params.no_host = true;  // the CPU's part is mapped from the arena, not allocated by a device
    params.load_mode = LLAMA_LOAD_MODE_NONE;  // the stream has no descriptor to map
    params.lazy_mode = LLAMA_LAZY_MODE_OFF;
    params.use_extra_bufts = repacked;  // other layouts than the file's
    params.check_tensors = false;    // the bytes are not there yet; the store checks their digests
    params.progress_callback = [](float, void *) { return true; };
    return params;
}

// The buffer types whose tensors are set from the host copy: the devices' own, or the CPU's other layouts.
std::vector<ggml_backend_buffer_type_t> set_afterwards(std::span<const ggml_backend_dev_t> devices, bool repacked) {
    std::vector<ggml_backend_buffer_type_t> types;
    for (ggml_backend_dev_t device : devices) types.push_back(ggml_backend_dev_buffer_type(device));
    if (!repacked) return types;
    const ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const auto list = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
    if (list == nullptr) return types;
    for (ggml_backend_buffer_type_t *type = list(cpu); type != nullptr && *type != nullptr; type++) {
        types.push_back(*type);
    }
    return types;
}

Status place(std::span<const DeviceShare> shares, const GgufHeader &header, std::uint64_t data_bytes, Placement *out) {
    if (Status s = find_devices(shares, &out->devices); !s.ok()) return s;
    out->devices.push_back(nullptr);
    out->layers.assign(llama_max_devices(), 0);
    if (shares.empty()) return {};
    const auto counts = split_layers(layer_bytes(header, data_bytes), shares);
    std::copy(counts.begin(), counts.end(), out->layers.begin());
    return {};
}

}  // namespace

Status map_header(const std::string &path, Mapping *out) {
    Env &env = Env::posix();
    const OwnedFd fd(env, env.open(path.c_str(), O_RDONLY));
    if (!fd.valid()) return system_status("open " + path, -fd.get());
    const std::int64_t size = env.file_size(fd.get());
    if (size < 0) return system_status("stat " + path, static_cast<int>(-size));
    if (size == 0) return {Code::corrupt, path + " is empty"};
    void *memory = nullptr;
    const auto bytes = static_cast<std::size_t>(size);
    const int error = env.map(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd.get(), 0, &memory);
    if (error < 0) return system_status("map " + path, -error);
    *out = Mapping(env, memory, bytes);
    return {};
}

Status ModelSkeleton::build(const SkeletonWish &wish, std::unique_ptr<ModelSkeleton> *out) {
    std::unique_ptr<ModelSkeleton> skeleton(new ModelSkeleton);
    if (Status s = skeleton->load(wish); !s.ok()) return s;
    if (Status s = skeleton->collect_tensors(); !s.ok()) return s;
    *out = std::move(skeleton);
    return {};
}

ModelSkeleton::~ModelSkeleton() {
    // The model's buffers point into regions_, which are unmapped after it.
    llama_model_free(model_);
}

Status ModelSkeleton::load(const SkeletonWish &wish) {
    const std::string &path = wish.header_path;
    Mapping file;
    if (Status s = map_header(path, &file); !s.ok()) return s;
    if (Status s = parse_gguf_header({file.data(), file.bytes()}, &header_); !s.ok()) {
        return {s.code(), path + ": " + s.message()};
    }
    data_bytes_ = wish.data_bytes > 0 ? wish.data_bytes : file.bytes() - header_.data_offset;
    HeaderStream stream({file.data(), header_.data_offset}, header_.data_offset + data_bytes_);
    if (stream.file() == nullptr) return {Code::out_of_memory, "a stream over the header cannot be made"};
    return build_model(stream.file(), [&] { stream.withhold_data(); }, wish);
}

Status ModelSkeleton::build_model(std::FILE *stream, const std::function<void()> &withhold,
                                  const SkeletonWish &wish) {
    Placement placement;
    if (Status s = place(wish.devices, header_, data_bytes_, &placement); !s.ok()) return s;
    const std::span<const ggml_backend_dev_t> devices(placement.devices.data(), placement.devices.size() - 1);
    Status reserved;
    const auto allocate = [&](ggml_backend_buffer_type_t type, std::size_t bytes) -> ggml_backend_buffer_t {
        Mapping region;
        reserved = reserve_addresses(Env::posix(), bytes, &region);
        if (!reserved.ok()) return nullptr;
        withhold();
        regions_.push_back({std::move(region), bytes});
        return wrap_memory(type, regions_.back().memory.data(), bytes);
    };
    const bool repacked = wish.repacked && devices.empty();
    LastWords words;
    {
        const BufferHook hook(allocate, limits::tensor_align_bytes);
        DeviceHook device_hook(set_afterwards(devices, repacked), limits::tensor_align_bytes, withhold);
        model_ = llama_model_load_from_file_ptr(stream, skeleton_params(placement, repacked));
        if (model_ != nullptr) device_hook.finish();
        if (model_ == nullptr && device_hook.refused_bytes() > 0) {
            return {Code::out_of_memory, "a device has no " + std::to_string(device_hook.refused_bytes()) +
                                             " bytes of memory for weights: " + words.text()};
        }
    }
    if (!reserved.ok()) return reserved;
    if (model_ == nullptr) return {Code::model_unsupported, "libllama refuses the model: " + words.text()};
    for (ggml_backend_dev_t device : devices) parts_.push_back({device, {}});
    return {};
}

Status ModelSkeleton::collect_tensors() {
    std::set<const ggml_tensor *> seen;
    for (const auto &[name, tensor] : llama_internal_get_tensor_map(model_)) {
        if (tensor->view_src != nullptr || !seen.insert(tensor).second) continue;
        const auto offset = header_.tensor_offsets.find(name);
        if (offset == header_.tensor_offsets.end()) {
            return {Code::model_unsupported, "the tensor " + name + " is not in the file"};
        }
        if (offset->second > data_bytes_ || ggml_nbytes(tensor) > data_bytes_ - offset->second) {
            return {Code::corrupt, "the tensor " + name + " ends beyond the data"};
        }
        const bool on_cpu = ggml_backend_buffer_is_host(tensor->buffer);
        if (!on_cpu && parts_.empty()) {
            repacked_.push_back({tensor, offset->second});
            continue;
        }
        if (Status s = on_cpu ? collect_on_cpu(name, tensor) : collect_on_device(name, tensor); !s.ok()) return s;
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const SkeletonTensor &a, const SkeletonTensor &b) {
        return a.region != b.region ? a.region < b.region : a.offset < b.offset;
    });
    for (DevicePart &part : parts_) part.runs = merge_runs(std::move(part.runs));
    return {};
}

Status ModelSkeleton::collect_on_cpu(const std::string &name, ggml_tensor *tensor) {
    const auto *data = static_cast<const std::uint8_t *>(tensor->data);
    const auto region = std::find_if(regions_.begin(), regions_.end(), [&](const WeightRegion &r) {
        return data >= r.memory.data() && data + ggml_nbytes(tensor) <= r.memory.data() + r.bytes;
    });
    if (region == regions_.end()) {
        return {Code::model_unsupported, "the tensor " + name + " is not in the memory reserved for weights"};
    }
    tensors_.push_back({tensor, name, static_cast<std::uint64_t>(data - region->memory.data()),
                        static_cast<std::size_t>(region - regions_.begin())});
    return {};
}

Status ModelSkeleton::collect_on_device(const std::string &name, ggml_tensor *tensor) {
    ggml_backend_buffer_t buffer = tensor->buffer;
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buffer));
    const auto part = std::find_if(parts_.begin(), parts_.end(), [&](const auto &p) { return p.device == device; });
    const auto *base = static_cast<const std::uint8_t *>(ggml_backend_buffer_get_base(buffer));
    const auto to = static_cast<std::uint64_t>(static_cast<const std::uint8_t *>(tensor->data) - base);
    if (part == parts_.end() || to + ggml_nbytes(tensor) > ggml_backend_buffer_get_size(buffer)) {
        return {Code::model_unsupported, "the tensor " + name + " is on no device of this engine"};
    }
    part->runs.push_back({header_.tensor_offsets.at(name), ggml_nbytes(tensor), buffer, to});
    return {};
}

bool ModelSkeleton::in_place() const {
    return parts_.empty() && repacked_.empty() && regions_.size() == 1 && regions_.front().bytes <= data_bytes_ &&
           std::all_of(tensors_.begin(), tensors_.end(), [this](const SkeletonTensor &t) {
               return t.offset == header_.tensor_offsets.at(t.name);
           });
}

Status ModelSkeleton::attach(HostCopyView weights) {
    if (attached_ && attached_->same_copy(weights)) return {};
    attached_.reset();
    if (Status s = bring_in(weights); !s.ok()) {
        // Nobody may read a copy that failed: its chunks will serve other weights. The failure itself is the news.
        return detach().ok() ? s : Status(s.code(), s.message() + "; the engine cannot unmap it");
    }
    attached_ = std::move(weights);
    return {};
}

Status ModelSkeleton::detach() {
    attached_.reset();
    for (const auto &[region, bytes] : regions_) {
        void *memory = nullptr;
        constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        const int error = Env::posix().map(region.data(), region.bytes(), PROT_NONE, flags, -1, 0, &memory);
        if (error < 0) return system_status("reserve " + std::to_string(region.bytes()) + " bytes again", -error);
    }
    drop_repacked();
    return {};
}

void ModelSkeleton::drop_repacked() {
    std::set<ggml_backend_buffer_t> buffers;
    for (const RepackedTensor &one : repacked_) buffers.insert(one.tensor->buffer);
    for (ggml_backend_buffer_t buffer : buffers) {
        // Only whole pages: the allocator's own bytes may share the first and the last one.
        const auto base = reinterpret_cast<std::uintptr_t>(ggml_backend_buffer_get_base(buffer));
        const std::uintptr_t first = (base + page_bytes - 1) / page_bytes * page_bytes;
        const std::uintptr_t last = (base + ggml_backend_buffer_get_size(buffer)) / page_bytes * page_bytes;
        if (first >= last) continue;
        Env::posix().advise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
    }
}

Status ModelSkeleton::bring_in(const HostCopyView &weights) {
    SharedProgress progress(weights, parts_.size() + 1);
    if (parts_.empty()) return bring_to_cpu(weights, progress);
    Status uploaded;
    std::thread uploader([&] { uploaded = upload(parts_, weights, progress, &uploaded_); });
    const Status mapped = bring_to_cpu(weights, progress);
    if (!mapped.ok()) progress.done(parts_.size(), UINT64_MAX);  // the devices shall not wait for it
    uploader.join();
    return mapped.ok() ? uploaded : mapped;
}

Status ModelSkeleton::bring_to_cpu(const HostCopyView &weights, SharedProgress &progress) {
    // What streams by has no place of its own to compute on.
    return in_place() && !weights.streamed() ? map_in_place(weights) : copy_tensors(weights, progress);
}

Status ModelSkeleton::map_in_place(const HostCopyView &weights) {
    const auto &[region, bytes] = regions_.front();
    if (Status s = weights.map_at(region.data(), bytes); !s.ok()) return s;
    return weights.wait_ready([&](std::uint64_t begin, std::uint64_t ready) {
        // Page tables are filled while the rest is still being read; the first token would pay for it otherwise.
        // Kernels without this advice fill them at the first touch, so the answer does not matter.
        const std::uint64_t end = (std::min<std::uint64_t>(ready, bytes) + page_bytes - 1) / page_bytes * page_bytes;
        if (end > begin) Env::posix().advise(region.data() + begin, end - begin, MADV_POPULATE_READ);
    });
}

void ModelSkeleton::copy_arrived(const std::uint8_t *source, std::uint64_t begin, std::uint64_t end) {
    for (const SkeletonTensor &t : tensors_) {
        const std::uint64_t from = header_.tensor_offsets.at(t.name);
        const std::uint64_t first = std::max(begin, from);
        const std::uint64_t last = std::min<std::uint64_t>(end, from + ggml_nbytes(t.tensor));
        if (first >= last) continue;
        auto *to = static_cast<std::uint8_t *>(t.tensor->data) + (first - from);
        std::memcpy(to, source + first, last - first);
    }
}

void ModelSkeleton::repack_arrived(const std::uint8_t *source, std::uint64_t begin, std::uint64_t end,
                                   std::vector<std::uint64_t> *arrived) {
    for (std::size_t i = 0; i < repacked_.size(); i++) {
        const auto &[tensor, from] = repacked_[i];
        const std::uint64_t bytes = ggml_nbytes(tensor);
        const std::uint64_t first = std::max(begin, from);
        const std::uint64_t last = std::min(end, from + bytes);
        if (first >= last) continue;
        std::uint64_t &there = (*arrived)[i];
        there += last - first;
        if (there == bytes) ggml_backend_tensor_set(tensor, source + from, 0, bytes);
    }
}

Status ModelSkeleton::copy_tensors(const HostCopyView &weights, SharedProgress &progress) {
    Mapping source;
    if (Status s = weights.map(&source); !s.ok()) return s;
    Env &env = Env::posix();
    for (const auto &[region, bytes] : regions_) {
        void *memory = nullptr;
        constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        const int error = env.map(region.data(), region.bytes(), PROT_READ | PROT_WRITE, flags, -1, 0, &memory);
        if (error < 0) return system_status("allocate " + std::to_string(region.bytes()) + " bytes", -error);
    }
    std::vector<std::uint64_t> arrived(repacked_.size());  // bytes of each
    return weights.wait_ready([&](std::uint64_t begin, std::uint64_t end) {
        copy_arrived(source.data(), begin, end);
        repack_arrived(source.data(), begin, end, &arrived);
        progress.done(parts_.size(), end);
    });
}

}  // namespace sllm::llama
