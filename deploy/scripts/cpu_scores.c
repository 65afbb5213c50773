/* Prints for every library named on the command line how well it suits this processor, as the library itself says:
 * "<score> <path>", 0 where it cannot run. For engines.mjs, which compiles it where it builds a library anew. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_LAZY | RTLD_LOCAL);
        int (*score)(void) = NULL;
        if (library != NULL) *(void **)&score = dlsym(library, "ggml_backend_score");
        printf("%d %s\n", score != NULL ? score() : 0, argv[i]);
    }
    return 0;
}
