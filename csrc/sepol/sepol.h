/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libsepol as a security server: what `pympi.policy.sepol` needs of it, in a form cffi can read.
 * Headers and archive are the system's (libsepol-dev); the module is built only where both are.
 *
 * A policy is read once. Decisions are those of a state of it: its booleans' values, and a table of
 * the contexts it was asked about. Several policies and states may be used at once, by any thread:
 * libsepol's own globals are set, under one mutex, for each call.
 *
 * libsepol ends the process when its CIL compiler finds no memory; hostile text must be bounded
 * before it comes here.
 */
#ifndef PM_SEPOL_H
#define PM_SEPOL_H

#include <stddef.h>
#include <stdint.h>

/* cdef-begin */
struct pm_sepol;       /* a policy */
struct pm_sepol_state; /* a policy, the values of its booleans, and contexts by SID */

struct pm_sepol_text {
    const char *name;
    const char *text;
    size_t size;
};

/* What libsepol said, one message a line; cut where there is no more room. */
struct pm_sepol_log {
    size_t used;
    char text[8192];
};

struct pm_sepol_vectors {
    uint32_t allowed;
    uint32_t auditallow;
    uint32_t auditdeny;
};

/* 65,536 bits, bit n for number n: the extended permissions that rules allow. */
struct pm_sepol_numbers {
    uint32_t words[2048];
};

/* Kinds of new contexts. */
#define PM_SEPOL_TRANSITION 0
#define PM_SEPOL_CHANGE 1

/*
 * Purpose: compile CIL, neverallow rules checked, to a binary policy of version 33.
 * Returns: the image, to be freed by pm_sepol_free(), and its size; or NULL, and why in `log`.
 */
void *pm_sepol_compile(const struct pm_sepol_text *texts, size_t count, size_t *size,
                       struct pm_sepol_log *log);

/* Purpose: read a binary policy. Returns: the policy; or NULL, and why in `log`. */
struct pm_sepol *pm_sepol_open(const void *image, size_t size, struct pm_sepol_log *log);

/* Purpose: free a policy, with the last of its states. A garbage collector closes them in any order. */
void pm_sepol_close(struct pm_sepol *policy);

/* Purpose: free what this module returned for freeing. */
void pm_sepol_free(void *memory);

/* Returns: the version of the policy's binary form. */
uint32_t pm_sepol_version(const struct pm_sepol *policy);

/* Returns: whether contexts have levels. */
int pm_sepol_mls(const struct pm_sepol *policy);

/* Returns: what is said of unknown classes and permissions: "deny", "reject" or "allow". */
const char *pm_sepol_unknown(const struct pm_sepol *policy);

/* Returns: whether a type is permissive; 0 too if there is no such type. */
int pm_sepol_permissive(const struct pm_sepol *policy, const char *type);

/* Returns: a class's number, 0 if there is no such class. */
uint32_t pm_sepol_class(const struct pm_sepol *policy, const char *name);

/* Returns: the bit of a permission of a class, common's included; 0 if it has no such permission. */
uint32_t pm_sepol_permission(const struct pm_sepol *policy, uint32_t tclass, const char *name);

/* Returns: the name of a boolean, by number from 0; NULL when there are no more. */
const char *pm_sepol_boolean(const struct pm_sepol *policy, uint32_t number);

/* Returns: the policy as CIL, to be freed by pm_sepol_free(); NULL if it cannot be written so. */
char *pm_sepol_cil(struct pm_sepol *policy);

/*
 * Purpose: make a state of a policy.
 * Conditions: `booleans` has a value, 0 or 1, for each boolean, by number.
 * Returns: the state; NULL if there is no memory. The policy must outlive it.
 */
struct pm_sepol_state *pm_sepol_state_open(struct pm_sepol *policy, const uint8_t *booleans);

/* Purpose: free a state. Conditions: not in use. */
void pm_sepol_state_close(struct pm_sepol_state *state);

/* Returns: the SID of a context in this state; 0 if the context is not valid in its policy. */
uint32_t pm_sepol_sid(struct pm_sepol_state *state, const char *context);

/* Returns: the text of a SID's context, to be freed by pm_sepol_free(); NULL if there is none. */
char *pm_sepol_context(struct pm_sepol_state *state, uint32_t sid);

/* Purpose: decide, extended permissions aside. Returns: 0; -1 if SIDs or class are not known. */
int pm_sepol_access(struct pm_sepol_state *state, uint32_t source, uint32_t target, uint32_t tclass,
                    struct pm_sepol_vectors *vectors);

/*
 * Purpose: say why constraints refuse permissions.
 * Returns: text, empty if they do not, to be freed by pm_sepol_free(); NULL if SIDs or class are not
 * known. `reasons` is SEPOL_COMPUTEAV_*: 1 no rule, 2 constraint, 4 role, 8 bounds.
 */
char *pm_sepol_reason(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, uint32_t requested, uint32_t *reasons);

/*
 * Purpose: find the extended permissions that rules allow; libsepol itself does not look at them.
 * Returns: 1 with `numbers` filled; 0 if no rule is about these; -1 if the SIDs are not known.
 */
int pm_sepol_extended(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, struct pm_sepol_numbers *numbers);

/* Returns: the SID of something new, of a kind PM_SEPOL_*; 0 if it would not be valid. */
uint32_t pm_sepol_new(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, int kind);
/* cdef-end */

#endif
