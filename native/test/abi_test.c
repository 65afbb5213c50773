/* The whole C ABI from C, every function, on a checkpoint made before (argv[1]) and the engine libraries (argv[2]).
 * Longer than most files because it is one program of plain C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sllm/sllm.h"

static int failures = 0;

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            char why[600];                                                                \
            sllm_last_error(why, sizeof why);                                             \
            printf("FAIL  %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, why);        \
            failures++;                                                                   \
        }                                                                                 \
    } while (0)

#define CHUNK ((uint64_t)1 << 20)

static char path_buffers[4][4096];

static const char *join(int which, const char *folder, const char *name) {
    snprintf(path_buffers[which], sizeof path_buffers[which], "%s/%s", folder, name);
    return path_buffers[which];
}

static uint64_t file_bytes(const char *path) {
    FILE *file = fopen(path, "rb");
    long n;
    if (file == NULL) return 0;
    fseek(file, 0, SEEK_END);
    n = ftell(file);
    fclose(file);
    return (uint64_t)n;
}

static void test_basics(void) {
    char text[8];
    CHECK(sllm_abi_version() >> 16 == SLLM_ABI_VERSION >> 16);
    CHECK(strcmp(sllm_status_name(SLLM_E_CORRUPT), "SLLM_E_CORRUPT") == 0);
    CHECK(strcmp(sllm_status_name(-12345), "SLLM_E_UNKNOWN") == 0);
    CHECK(sllm_digest_xxh3(NULL, 0) == UINT64_C(0x2D06800538D394C2));
    CHECK(sllm_store_create(NULL, NULL) == SLLM_E_INVALID_ARGUMENT);
    memset(text, 'x', sizeof text);
    CHECK(sllm_last_error(text, 4) > 4);
    CHECK(strlen(text) == 3);
    CHECK(sllm_last_error(NULL, 0) > 0);
    CHECK(sllm_engine_warm(NULL) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_warm("/nowhere") == SLLM_E_LIBRARY_MISSING);
    /* Destroying nothing is allowed. */
    sllm_store_destroy(NULL);
    sllm_engine_destroy(NULL);
}

/* Drains until the request ended; returns its kind and collects the text. */
static sllm_event run_request(sllm_engine *engine, const sllm_request *request, char *answer, size_t cap) {
    sllm_event events[8];
    char text[4096];
    sllm_event last;
    size_t length = 0;
    memset(&last, 0, sizeof last);
    CHECK(sllm_engine_submit(engine, request) == SLLM_OK);
    while (last.kind < SLLM_EVENT_DONE) {
        uint64_t n = 0;
        uint64_t text_n = 0;
        uint64_t i;
        CHECK(sllm_engine_wait(engine, 20000000) == SLLM_OK);
        CHECK(sllm_engine_drain(engine, events, 8, &n, text, sizeof text, &text_n) == SLLM_OK);
        if (n == 0) {
            printf("FAIL  no event came\n");
            failures++;
            break;
        }
        for (i = 0; i < n; i++) {
            last = events[i];
            if (length + last.text_bytes < cap) {
                memcpy(answer + length, text + last.text_offset, last.text_bytes);
                length += last.text_bytes;
            }
        }
    }
    answer[length] = '\0';
    return last;
}

static sllm_engine *create_echo(void) {
    sllm_engine_params params;
    sllm_engine *engine = NULL;
    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.kind = 99;
    params.context_tokens = 100;
    params.slots = 2;
    CHECK(sllm_engine_create(&params, &engine) == SLLM_E_INVALID_ARGUMENT);
    params.kind = SLLM_ENGINE_ECHO;
    params.slots = 0;
    CHECK(sllm_engine_create(&params, &engine) == SLLM_E_INVALID_ARGUMENT);
    params.slots = 2;
    CHECK(sllm_engine_create(&params, &engine) == SLLM_OK);
    return engine;
}

static void echo_requests(sllm_engine *engine, const int32_t *tokens, uint64_t n) {
    sllm_request request;
    sllm_event last;
    sllm_text stop;
    char answer[256];
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.request = 5;
    request.prompt = tokens;
    request.n_prompt = n;
    last = run_request(engine, &request, answer, sizeof answer);
    CHECK(last.kind == SLLM_EVENT_DONE && last.status == SLLM_FINISH_STOP && last.index == 13);
    CHECK(strcmp(answer, "one two three") == 0);

    stop.data = "two";
    stop.bytes = 3;
    request.n_stop = 1;
    request.stop = &stop;
    last = run_request(engine, &request, answer, sizeof answer);
    CHECK(strcmp(answer, "one ") == 0);
    request.stop = NULL;
    CHECK(sllm_engine_submit(engine, &request) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_cancel(engine, 5) == SLLM_E_NOT_FOUND);
    /* A caller of an older version, whose struct ended after n_prompt. */
    request.struct_size = 32;
    request.n_stop = 77;
    last = run_request(engine, &request, answer, sizeof answer);
    CHECK(strcmp(answer, "one two three") == 0);
}

/* Held, given what it said elsewhere, let go. */
static void echo_held(sllm_engine *engine, const int32_t *tokens, uint64_t n) {
    sllm_request request;
    sllm_event event;
    char text[64];
    uint64_t events = 0;
    uint64_t text_n = 0;
    const int32_t outside = 257;
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.request = 6;
    request.prompt = tokens;
    request.n_prompt = n;
    request.held = 1;
    CHECK(sllm_engine_hold(engine, 6) == SLLM_E_NOT_FOUND && sllm_engine_hold(NULL, 6) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_submit(engine, &request) == SLLM_OK);
    CHECK(sllm_engine_extend(engine, 6, &outside, 1, 1) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_extend(engine, 6, NULL, 1, 1) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_extend(engine, 7, tokens, 1, 1) == SLLM_E_NOT_FOUND);
    CHECK(sllm_engine_extend(engine, 6, tokens, 4, 0) == SLLM_OK);
    do {
        CHECK(sllm_engine_wait(engine, 20000000) == SLLM_OK);
        CHECK(sllm_engine_drain(engine, &event, 1, &events, text, sizeof text, &text_n) == SLLM_OK);
        CHECK(events == 1 && event.kind == SLLM_EVENT_HELD && event.prompt_tokens == n);
    } while (events == 1 && event.index < 4);
    CHECK(sllm_engine_extend(engine, 6, tokens + 4, n - 4, 1) == SLLM_OK);
    do {
        CHECK(sllm_engine_wait(engine, 20000000) == SLLM_OK);
        CHECK(sllm_engine_drain(engine, &event, 1, &events, text, sizeof text, &text_n) == SLLM_OK);
        CHECK(events == 1 && event.kind != SLLM_EVENT_TOKEN);
        if (events == 1 && event.kind == SLLM_EVENT_STARTED) CHECK(memcmp(text, "one two three", 13) == 0);
    } while (events == 1 && event.kind != SLLM_EVENT_DONE);
    CHECK(event.index == 13 && event.status == SLLM_FINISH_STOP);
}

static void echo_activity(sllm_engine *engine) {
    sllm_engine_activity activity;
    memset(&activity, 0, sizeof activity);
    CHECK(sllm_engine_activity_get(engine, &activity) == SLLM_E_INVALID_ARGUMENT);
    activity.struct_size = sizeof activity;
    CHECK(sllm_engine_activity_get(engine, &activity) == SLLM_OK);
    CHECK(activity.slots == 2 && activity.kv_tokens > 0 && activity.steps > 0);
    CHECK(activity.computed_tokens > 0 && activity.progress >= activity.steps);
    CHECK(sllm_engine_activity_get(NULL, &activity) == SLLM_E_INVALID_ARGUMENT);
}

static void echo_requests_refused(sllm_engine *engine, const int32_t *tokens, uint64_t n) {
    sllm_request request;
    char text[256];
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.request = 6;
    request.prompt = tokens;
    request.n_prompt = n;
    CHECK(sllm_engine_submit(engine, &request) == SLLM_E_WRONG_STATE);
    sllm_last_error(text, sizeof text);
    CHECK(strstr(text, "no weights") != NULL);
}

static void test_echo(void) {
    sllm_engine *engine = create_echo();
    sllm_engine_info info;
    uint64_t n = 0;
    char prompt[64];
    int32_t tokens[64];
    const char *messages = "[{\"role\":\"user\",\"content\":\"one two three\"}]";
    if (engine == NULL) return;

    memset(&info, 0, sizeof info);
    CHECK(sllm_engine_info_get(engine, &info) == SLLM_E_INVALID_ARGUMENT);
    info.struct_size = sizeof info;
    CHECK(sllm_engine_info_get(engine, &info) == SLLM_OK);
    CHECK(info.slots == 2 && info.context_tokens == 100 && info.vocabulary_tokens == 257);

    CHECK(sllm_engine_render_chat(engine, messages, strlen(messages), prompt, 3, &n) == SLLM_E_BUFFER_TOO_SMALL);
    CHECK(n == 13);
    CHECK(sllm_engine_render_chat(engine, messages, strlen(messages), prompt, sizeof prompt, &n) == SLLM_OK);
    CHECK(n == 13 && memcmp(prompt, "one two three", 13) == 0);
    CHECK(sllm_engine_render_chat(engine, "{", 1, prompt, sizeof prompt, &n) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_tokenize(engine, prompt, 13, 1, 0, tokens, 2, &n) == SLLM_E_BUFFER_TOO_SMALL);
    CHECK(n == 13);
    CHECK(sllm_engine_tokenize(engine, prompt, 13, 1, 0, tokens, 64, &n) == SLLM_OK);
    echo_requests(engine, tokens, n);
    echo_held(engine, tokens, n);
    echo_activity(engine);
    CHECK(sllm_engine_attach(engine, NULL) == SLLM_E_WRONG_STATE);
    CHECK(sllm_engine_park(engine, 1) == SLLM_OK);
    echo_requests_refused(engine, tokens, n);
    CHECK(sllm_engine_attach(engine, NULL) == SLLM_OK);
    echo_requests(engine, tokens, n);
    echo_held(engine, tokens, n);
    echo_activity(engine);
    sllm_engine_destroy(engine);
    CHECK(sllm_engine_attach(NULL, NULL) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_park(NULL, 0) == SLLM_E_INVALID_ARGUMENT);
}

static sllm_load_status load_weights(sllm_store *store, const char *folder, uint64_t *load) {
    sllm_load_params params;
    sllm_load_status status;
    uint64_t digests[64];
    FILE *file = fopen(join(0, folder, "digests"), "rb");
    memset(&params, 0, sizeof params);
    memset(&status, 0, sizeof status);
    status.struct_size = sizeof status;
    CHECK(file != NULL);
    if (file == NULL) return status;
    params.struct_size = sizeof params;
    params.weights_path = join(1, folder, "weights.bin");
    params.weights_bytes = file_bytes(params.weights_path);
    params.chunk_bytes = CHUNK;
    params.chunk_digests = digests;
    params.n_chunks = fread(digests, sizeof digests[0], 64, file);
    fclose(file);
    CHECK(sllm_store_load(store, &params, load) == SLLM_OK);
    while (sllm_store_status(store, *load, &status) == SLLM_OK && status.state == 0) {
        CHECK(sllm_store_wait(store, 1000000) == SLLM_OK);
    }
    CHECK(status.state == 1 && status.bytes_done == params.weights_bytes && status.message[0] == '\0');
    return status;
}

static void test_plan(const char *folder, const char *libraries, const char *header) {
    uint64_t n = 0;
    char *plan;
    CHECK(sllm_layout_plan(libraries, join(3, folder, "missing.gguf"), NULL, 0, &n) == SLLM_E_NOT_FOUND);
    CHECK(sllm_layout_plan(libraries, join(3, folder, "digests"), NULL, 0, &n) == SLLM_E_CORRUPT);
    CHECK(sllm_layout_plan(libraries, header, NULL, 0, &n) == SLLM_E_BUFFER_TOO_SMALL);
    plan = malloc(n + 1);
    CHECK(plan != NULL && sllm_layout_plan(libraries, header, plan, n, &n) == SLLM_OK);
    if (plan == NULL) return;
    plan[n] = '\0';
    CHECK(strncmp(plan, "{\"tensors\":[\"token_embd.weight\"", 31) == 0);
    free(plan);
}

static void model_requests(sllm_engine *engine) {
    sllm_request request;
    sllm_event last;
    uint64_t n = 0;
    int32_t tokens[256];
    char prompt[256];
    char answer[2048];
    char again[2048];
    const char *messages = "[{\"role\":\"user\",\"content\":\"Who is there?\"}]";
    CHECK(sllm_engine_render_chat(engine, messages, strlen(messages), prompt, sizeof prompt, &n) == SLLM_OK);
    CHECK(n > 0 && memcmp(prompt, "USER:\nWho is there?", 19) == 0);
    CHECK(sllm_engine_tokenize(engine, prompt, n, 1, 1, tokens, 256, &n) == SLLM_OK);
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.request = 1;
    request.prompt = tokens;
    request.n_prompt = n;
    request.max_tokens = 32;
    request.seed = 7;
    request.temperature = 0.9;
    request.ignore_eos = 1;
    last = run_request(engine, &request, answer, sizeof answer);
    CHECK(last.kind == SLLM_EVENT_DONE && last.status == SLLM_FINISH_LENGTH && last.index == 32);
    CHECK(last.prompt_tokens == n && last.prefill_ms > 0 && last.decode_ms > 0);
    run_request(engine, &request, again, sizeof again);
    CHECK(strcmp(answer, again) == 0);
    request.seed = 8;
    run_request(engine, &request, again, sizeof again);
    CHECK(strcmp(answer, again) != 0);
    request.n_resume = 2;
    CHECK(sllm_engine_submit(engine, &request) == SLLM_E_INVALID_ARGUMENT);
    request.resume = tokens;
    last = run_request(engine, &request, again, sizeof again);
    CHECK(last.kind == SLLM_EVENT_DONE && last.index == 32 && last.cached_tokens + 1 >= last.prompt_tokens);
    request.n_resume = 128;
    CHECK(sllm_engine_submit(engine, &request) == SLLM_E_CONTEXT_OVERFLOW);
    request.n_resume = 0;
    request.n_prompt = 128;
    CHECK(sllm_engine_submit(engine, &request) == SLLM_E_CONTEXT_OVERFLOW);
}

/* From a skeleton to an engine that was parked in both ways and is attached again. */
static void test_parked(sllm_engine_params *params, const char *weights) {
    sllm_engine_info info;
    sllm_engine *engine = NULL;
    uint8_t keep;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    params->weights_path = NULL;
    CHECK(sllm_engine_create(params, &engine) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_build(params, NULL) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_build(params, &engine) == SLLM_OK);
    if (engine == NULL) return;
    CHECK(sllm_engine_info_get(engine, &info) == SLLM_OK && info.model_build_ms > 0 && info.weights_wait_ms == 0);
    CHECK(sllm_engine_attach(engine, NULL) == SLLM_E_INVALID_ARGUMENT);
    CHECK(sllm_engine_attach(engine, "/proc/self/fd/none") == SLLM_E_NOT_FOUND);
    for (keep = 0; keep < 2; keep++) {
        CHECK(sllm_engine_attach(engine, weights) == SLLM_OK);
        model_requests(engine);
        CHECK(sllm_engine_park(engine, keep) == SLLM_OK);
    }
    CHECK(sllm_engine_attach(engine, weights) == SLLM_OK);
    model_requests(engine);
    CHECK(sllm_engine_info_get(engine, &info) == SLLM_OK && info.weights_wait_ms > 0);
    sllm_engine_destroy(engine);
}

static void test_model(const char *folder, const char *libraries) {
    sllm_store_params store_params = {
        sizeof(sllm_store_params), 2, (uint64_t)256 << 20, (uint64_t)16 << 20, 0, 0, NULL, 0};
    sllm_arena_status arena;
    sllm_volume_status volume;
    sllm_engine_params params;
    sllm_store *store = NULL;
    sllm_engine *engine = NULL;
    sllm_load_status status;
    uint64_t load = 0;
    char weights[64];
    const char *header = join(2, folder, "header.gguf");

    CHECK(sllm_engine_warm(libraries) == SLLM_OK);
    CHECK(sllm_engine_warm(libraries) == SLLM_OK);
    test_plan(folder, libraries, header);
    memset(&arena, 0, sizeof arena);
    memset(&volume, 0, sizeof volume);
    arena.struct_size = sizeof arena;
    volume.struct_size = sizeof volume;
    CHECK(sllm_store_create(&store_params, &store) == SLLM_OK);
    status = load_weights(store, folder, &load);
    snprintf(weights, sizeof weights, "/proc/self/fd/%d", status.fd);
    CHECK(status.first_read_ms > 0 && status.first_verified_ms >= status.first_read_ms);
    CHECK(status.ended_ms >= status.last_read_ms && status.last_read_ms >= status.first_read_ms);
    CHECK(status.direct_bytes + status.cached_bytes + status.buffered_bytes == status.bytes_total);
    CHECK(status.digest_ms > 0 && status.rereads == 0);

    memset(&params, 0, sizeof params);
    params.struct_size = sizeof params;
    params.kind = SLLM_ENGINE_LLAMA;
    params.library_dir = libraries;
    params.header_path = header;
    params.weights_path = weights;
    params.weights_bytes = status.bytes_total + 4096;
    params.context_tokens = 128;
    params.slots = 2;
    params.threads = 1;
    params.deterministic = 1; /* so that the same request gives the same answer whatever the cache holds */
    CHECK(sllm_engine_create(&params, &engine) == SLLM_E_CORRUPT);
    params.weights_bytes = status.bytes_total;
    CHECK(sllm_engine_create(&params, &engine) == SLLM_OK);
    if (engine != NULL) model_requests(engine);
    sllm_engine_destroy(engine);
    test_parked(&params, weights);
    CHECK(sllm_store_release(store, load) == SLLM_OK);
    CHECK(sllm_store_release(store, load) == SLLM_E_NOT_FOUND);
    CHECK(sllm_store_arena(store, &arena) == SLLM_OK);
    CHECK(arena.arena_bytes == (uint64_t)256 << 20 && arena.prefault_bytes == (uint64_t)16 << 20);
    CHECK(arena.used_bytes == 0 && arena.huge_bytes <= arena.faulted_bytes);
    CHECK(sllm_store_volume(store, folder, &volume) == SLLM_OK);
    CHECK(volume.block_bytes > 0 && volume.in_flight_bytes == 2 * volume.block_bytes && volume.queued_loads == 0);
    CHECK(volume.probed == 0 && volume.direct_io == 1 && volume.registered_bytes <= (uint64_t)256 << 20);
    CHECK(sllm_store_volume(store, join(2, folder, "no such file"), &volume) == SLLM_E_NOT_FOUND);
    sllm_store_destroy(store);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: abi_test <checkpoint folder> <engine libraries>\n");
        return 2;
    }
    test_basics();
    test_echo();
    test_model(argv[1], argv[2]);
    printf("%s\n", failures == 0 ? "ok" : "failed");
    return failures == 0 ? 0 : 1;
}
