/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs one pair of tasks on a core given as a shared object, for an instruction counter around it:
 *
 *     count LIBRARY POLICY PAIRS
 *
 * Counting two runs with different PAIRS and dividing the difference leaves the setting up out.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* As in bench_core.c. */
struct bench_options {
    uint32_t policy, ports, port_labels, tasks, task_labels, audit, trace, no_fast_path, whole;
};

/* ISO C has no conversion from an object pointer to a function pointer; POSIX promises this one. */
union symbol {
    void *address;
    void *(*create)(const struct bench_options *options);
    int64_t (*run)(void *bench, uint32_t pairs);
};

static union symbol find(void *library, const char *name)
{
    union symbol symbol = { dlsym(library, name) };

    if (symbol.address == NULL) {
        fprintf(stderr, "count: %s\n", dlerror());
        exit(2);
    }
    return symbol;
}

int main(int argc, char **argv)
{
    struct bench_options options = { 0, 1, 1, 1, 1, 0, 0, 0, 0 };
    void *library = argc == 4 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;

    if (library == NULL) {
        fprintf(stderr, "count: %s\n", argc == 4 ? dlerror() : "usage: LIBRARY POLICY PAIRS");
        return 2;
    }
    options.policy = (uint32_t)strtoul(argv[2], NULL, 10);
    return find(library, "bench_run").run(find(library, "bench_create").create(&options),
                                          (uint32_t)strtoul(argv[3], NULL, 10)) < 0;
}
