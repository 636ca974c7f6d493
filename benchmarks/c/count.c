/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs one pair of tasks on a core given as a shared object, for an instruction counter around it:
 *
 *     count LIBRARY POLICY SELECT PAIRS
 *
 * Counting two runs with different PAIRS and dividing the difference leaves the setting up out.
 */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* ISO C has no conversion from an object pointer to a function pointer; POSIX promises this one. */
union symbol {
    void *address;
    struct bench *(*create)(const struct bench_options *options);
    int64_t (*run)(struct bench *bench, uint32_t pairs);
    const char *(*failure)(const struct bench *bench);
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
    struct bench_options options = { .ports = 1, .port_labels = 1, .tasks = 1, .task_labels = 1 };
    struct bench *bench;
    void *library = argc == 5 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;

    if (library == NULL) {
        fprintf(stderr, "count: %s\n", argc == 5 ? dlerror() : "usage: LIBRARY POLICY SELECT PAIRS");
        return 2;
    }
    options.policy = (uint32_t)strtoul(argv[2], NULL, 10);
    options.select = (uint32_t)strtoul(argv[3], NULL, 10);
    bench = find(library, "bench_create").create(&options);
    if (find(library, "bench_failure").failure(bench) == NULL &&
        find(library, "bench_run").run(bench, (uint32_t)strtoul(argv[4], NULL, 10)) >= 0)
        return 0;
    fprintf(stderr, "count: %s\n", find(library, "bench_failure").failure(bench));
    return 1;
}
