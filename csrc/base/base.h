/* SPDX-License-Identifier: BSD-2-Clause */
/* Attributes and small helpers that every module uses. */
#ifndef PM_BASE_H
#define PM_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define pm_likely(x) __builtin_expect(!!(x), 1)
#define pm_unlikely(x) __builtin_expect(!!(x), 0)
#define pm_must_check __attribute__((warn_unused_result))
#define pm_noinline __attribute__((noinline))
#define pm_inline inline __attribute__((always_inline))

#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield")
#else
#define cpu_relax() ((void)0)
#endif

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define array_count(array) (sizeof(array) / sizeof((array)[0]))

/* Of memory that others may write to meanwhile: what is looked at is what is used. Else a compiler may read it once for each. */
static inline uint32_t read_once(const uint32_t *word) { return *(const volatile uint32_t *)word; }
#define read_is_done() __asm__ volatile("" ::: "memory")

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define memory_poison(address, size) __asan_poison_memory_region(address, size)
#define memory_unpoison(address, size) __asan_unpoison_memory_region(address, size)
#else
#define memory_poison(address, size) ((void)(address), (void)(size))
#define memory_unpoison(address, size) ((void)(address), (void)(size))
#endif

/* Smallest power of two that is at least value; value is at most 2^31. */
static inline uint32_t round_up_power(uint32_t value) {
    return value <= 1 ? 1 : 1u << (32 - __builtin_clz(value - 1));
}

/* Finalizer of splitmix64: every input bit reaches every output bit. */
static inline uint64_t mix64(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

/* FNV-1a over text, seeded, then mixed. */
static inline uint32_t hash_text(uint64_t seed, const char *text, uint32_t length) {
    uint64_t hash = seed ^ length;
    for (uint32_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    return (uint32_t)mix64(hash);
}

#endif
