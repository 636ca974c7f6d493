/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See sepol.h. libsepol's services and its CIL compiler keep their state in globals, so one mutex
 * covers every call into it, and each call first sets what it is about.
 */
#include "sepol.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sepol/cil/cil.h>
#include <sepol/debug.h>
#include <sepol/handle.h>
#include <sepol/kernel_to_cil.h>
#include <sepol/policydb/conditional.h>
#include <sepol/policydb/hashtab.h>
#include <sepol/policydb/policydb.h>
#include <sepol/policydb/services.h>
#include <sepol/policydb/sidtab.h>

#define POLICY_VERSION 33 /* the newest that the tools of current distributions read */

struct pm_sepol {
    sepol_policydb_t *file;
    const struct pm_sepol_state *in_force; /* whose booleans the rules are enabled by; mutex */
    size_t states; /* that are open; mutex */
    int closed;    /* freed with its last state; mutex */
};

struct pm_sepol_state {
    struct pm_sepol *policy;
    sidtab_t sids;
    uint32_t count;
    uint8_t booleans[];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pm_sepol_log *listener; /* who wants to know what is said; mutex */

static policydb_t *tables(const struct pm_sepol *policy)
{
    return &policy->file->p;
}

/* ---- messages ---- */

static void log_text(const char *text)
{
    size_t room = sizeof(listener->text) - 1 - listener->used;
    size_t length = strlen(text);

    if (length > room)
        length = room;
    memcpy(listener->text + listener->used, text, length);
    listener->used += length;
    listener->text[listener->used] = '\0';
}

static void on_cil(int level, const char *message)
{
    if (listener != NULL && level == CIL_ERR)
        log_text(message);
}

__attribute__((format(printf, 3, 4))) static void
on_message(void *context, sepol_handle_t *handle, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    (void)context;
    if (listener == NULL || sepol_msg_get_level(handle) != SEPOL_MSG_ERR)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    log_text(text);
    log_text("\n");
}

/* Purpose: enter libsepol, which is silent but for what `log`, if any, is to hear. */
static void enter(struct pm_sepol_log *log)
{
    pthread_mutex_lock(&mutex);
    listener = log;
    if (log != NULL)
        memset(log, 0, sizeof(*log));
    sepol_debug(0);
}

static void leave(void)
{
    listener = NULL;
    pthread_mutex_unlock(&mutex);
}

static sepol_handle_t *talking_handle(void)
{
    sepol_handle_t *handle = sepol_handle_create();

    if (handle != NULL)
        sepol_msg_set_callback(handle, on_message, NULL);
    return handle;
}

/* ---- policies ---- */

static int add_texts(cil_db_t *db, const struct pm_sepol_text *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (cil_add_file(db, texts[i].name, texts[i].text, texts[i].size) != 0)
            return -1;
    return 0;
}

static sepol_policydb_t *compile_locked(const struct pm_sepol_text *texts, size_t count)
{
    sepol_policydb_t *file = NULL;
    cil_db_t *db;

    cil_set_log_level(CIL_ERR);
    cil_set_log_handler(on_cil);
    cil_db_init(&db);
    cil_set_policy_version(db, POLICY_VERSION);
    cil_set_target_platform(db, SEPOL_TARGET_SELINUX);
    if (add_texts(db, texts, count) != 0 || cil_compile(db) != 0 ||
        cil_build_policydb(db, &file) != 0)
        file = NULL;
    cil_db_destroy(&db);
    return file;
}

void *pm_sepol_compile(const struct pm_sepol_text *texts, size_t count, size_t *size,
                       struct pm_sepol_log *log)
{
    sepol_policydb_t *file;
    sepol_handle_t *handle;
    void *image = NULL;

    enter(log);
    handle = talking_handle();
    file = handle == NULL ? NULL : compile_locked(texts, count);
    /* The image is the policy as others read it; libsepol's own tables are not complete yet. */
    if (file != NULL && policydb_to_image(handle, &file->p, &image, size) != 0)
        image = NULL;
    sepol_policydb_free(file);
    if (handle != NULL)
        sepol_handle_destroy(handle);
    leave();
    return image;
}

/*
 * Purpose: read an image into a new file.
 * Returns: the file; or NULL, with nothing left behind. policydb_from_image() destroys what it could
 * not read, so only the memory is freed then.
 */
static sepol_policydb_t *read_image(const void *image, size_t size)
{
    sepol_handle_t *handle = talking_handle();
    sepol_policydb_t *file = NULL;

    if (handle == NULL)
        return NULL;
    if (sepol_policydb_create(&file) == 0 &&
        policydb_from_image(handle, (void *)(uintptr_t)image, size, &file->p) != 0) {
        free(file);
        file = NULL;
    }
    sepol_handle_destroy(handle);
    return file;
}

struct pm_sepol *pm_sepol_open(const void *image, size_t size, struct pm_sepol_log *log)
{
    struct pm_sepol *policy = calloc(1, sizeof(*policy));

    if (policy == NULL)
        return NULL;
    enter(log);
    policy->file = read_image(image, size);
    if (policy->file != NULL && tables(policy)->policy_type != POLICY_KERN) {
        log_text("a module, not a policy as kernels load it\n");
        sepol_policydb_free(policy->file);
        policy->file = NULL;
    }
    leave();
    if (policy->file == NULL) {
        free(policy);
        policy = NULL;
    }
    return policy;
}

/* Purpose: free a policy that nobody needs any more. Conditions: the mutex is held. */
static void free_if_unused(struct pm_sepol *policy)
{
    if (!policy->closed || policy->states != 0)
        return;
    sepol_policydb_free(policy->file);
    free(policy);
}

void pm_sepol_close(struct pm_sepol *policy)
{
    enter(NULL);
    policy->closed = 1;
    free_if_unused(policy);
    leave();
}

void pm_sepol_free(void *memory)
{
    free(memory);
}

/* ---- what a policy has; none of this changes, so no lock ---- */

uint32_t pm_sepol_version(const struct pm_sepol *policy)
{
    return tables(policy)->policyvers;
}

int pm_sepol_mls(const struct pm_sepol *policy)
{
    return tables(policy)->mls;
}

const char *pm_sepol_unknown(const struct pm_sepol *policy)
{
    unsigned how = tables(policy)->handle_unknown;

    return how == SEPOL_ALLOW_UNKNOWN ? "allow" : how == SEPOL_REJECT_UNKNOWN ? "reject" : "deny";
}

int pm_sepol_permissive(const struct pm_sepol *policy, const char *type)
{
    type_datum_t *datum = hashtab_search(tables(policy)->p_types.table, (hashtab_key_t)type);

    return datum != NULL && ebitmap_get_bit(&tables(policy)->permissive_map, datum->s.value);
}

uint32_t pm_sepol_class(const struct pm_sepol *policy, const char *name)
{
    class_datum_t *datum = hashtab_search(tables(policy)->p_classes.table, (hashtab_key_t)name);

    return datum == NULL ? 0 : datum->s.value;
}

static int known_class(const policydb_t *p, uint32_t tclass)
{
    return tclass >= 1 && tclass <= p->p_classes.nprim && p->class_val_to_struct[tclass - 1] != NULL;
}

uint32_t pm_sepol_permission(const struct pm_sepol *policy, uint32_t tclass, const char *name)
{
    const class_datum_t *datum;
    perm_datum_t *found;

    if (!known_class(tables(policy), tclass))
        return 0;
    datum = tables(policy)->class_val_to_struct[tclass - 1];
    found = hashtab_search(datum->permissions.table, (hashtab_key_t)name);
    if (found == NULL && datum->comdatum != NULL)
        found = hashtab_search(datum->comdatum->permissions.table, (hashtab_key_t)name);
    return found == NULL ? 0 : UINT32_C(1) << (found->s.value - 1);
}

const char *pm_sepol_boolean(const struct pm_sepol *policy, uint32_t number)
{
    const policydb_t *p = tables(policy);

    return number < p->p_bools.nprim ? p->p_bool_val_to_name[number] : NULL;
}

char *pm_sepol_cil(struct pm_sepol *policy)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    int failed;

    if (out == NULL)
        return NULL;
    enter(NULL);
    failed = sepol_kernel_policydb_to_cil(out, tables(policy));
    leave();
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- states ---- */

static void use_booleans(const struct pm_sepol_state *state)
{
    policydb_t *p = tables(state->policy);

    if (state->policy->in_force == state)
        return;
    for (uint32_t i = 0; i < state->count; i++)
        p->bool_val_to_struct[i]->state = state->booleans[i];
    evaluate_conds(p);
    state->policy->in_force = state;
}

/* Purpose: enter libsepol with its globals set to a state. */
static void enter_state(struct pm_sepol_state *state)
{
    enter(NULL);
    use_booleans(state);
    sepol_set_policydb(tables(state->policy));
    sepol_set_sidtab(&state->sids);
}

struct pm_sepol_state *pm_sepol_state_open(struct pm_sepol *policy, const uint8_t *booleans)
{
    uint32_t count = tables(policy)->p_bools.nprim;
    struct pm_sepol_state *state = calloc(1, sizeof(*state) + count);

    if (state == NULL)
        return NULL;
    state->policy = policy;
    state->count = count;
    if (count != 0)
        memcpy(state->booleans, booleans, count);
    enter(NULL);
    if (sepol_sidtab_init(&state->sids) != 0 ||
        policydb_load_isids(tables(policy), &state->sids) != 0) {
        sepol_sidtab_destroy(&state->sids);
        free(state);
        state = NULL;
    } else {
        policy->states++;
    }
    leave();
    return state;
}

void pm_sepol_state_close(struct pm_sepol_state *state)
{
    struct pm_sepol *policy = state->policy;

    enter(NULL);
    if (policy->in_force == state)
        policy->in_force = NULL;
    sepol_sidtab_destroy(&state->sids);
    free(state);
    policy->states--;
    free_if_unused(policy);
    leave();
}

uint32_t pm_sepol_sid(struct pm_sepol_state *state, const char *context)
{
    sepol_security_id_t sid = 0;

    enter_state(state);
    if (sepol_context_to_sid(context, strlen(context) + 1, &sid) != 0)
        sid = 0;
    leave();
    return sid;
}

char *pm_sepol_context(struct pm_sepol_state *state, uint32_t sid)
{
    char *text = NULL;
    size_t size;

    enter_state(state);
    if (sepol_sid_to_context(sid, &text, &size) != 0)
        text = NULL;
    leave();
    return text;
}

/* ---- decisions ---- */

int pm_sepol_access(struct pm_sepol_state *state, uint32_t source, uint32_t target, uint32_t tclass,
                    struct pm_sepol_vectors *vectors)
{
    struct sepol_av_decision decision = { 0 };
    int failed;

    if (!known_class(tables(state->policy), tclass))
        return -1;
    enter_state(state);
    failed = sepol_compute_av(source, target, (sepol_security_class_t)tclass, 0, &decision);
    leave();
    *vectors = (struct pm_sepol_vectors){ decision.allowed, decision.auditallow,
                                          decision.auditdeny };
    return failed ? -1 : 0;
}

char *pm_sepol_reason(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, uint32_t requested, uint32_t *reasons)
{
    struct sepol_av_decision decision;
    unsigned reason = 0;
    char *text = NULL;
    int failed;

    if (!known_class(tables(state->policy), tclass))
        return NULL;
    enter_state(state);
    failed = sepol_compute_av_reason_buffer(source, target, (sepol_security_class_t)tclass,
                                            requested, &decision, &reason, &text, 0);
    leave();
    *reasons = reason;
    if (failed) {
        free(text);
        return NULL;
    }
    return text != NULL ? text : calloc(1, 1);
}

/* Purpose: add a rule's numbers. A driver is the upper byte of a number, a function the lower. */
static void add_numbers(const avtab_extended_perms_t *rule, struct pm_sepol_numbers *numbers)
{
    if (rule->specified == AVTAB_XPERMS_IOCTLFUNCTION) {
        for (int word = 0; word < 8; word++)
            numbers->words[rule->driver * 8 + word] |= rule->perms[word];
        return;
    }
    for (unsigned driver = 0; driver < 256; driver++)
        if (xperm_test(driver, rule->perms))
            memset(numbers->words + driver * 8, 0xff, 8 * sizeof(uint32_t));
}

static int add_rules(policydb_t *p, avtab_key_t *key, struct pm_sepol_numbers *numbers)
{
    avtab_ptr_t node = avtab_search_node(&p->te_avtab, key);
    int found = node != NULL;

    for (; node != NULL; node = avtab_search_node_next(node, key->specified))
        add_numbers(node->datum.xperms, numbers);
    return found;
}

/* Rules are about types and attributes; a type's map has itself and its attributes. */
static int extended_locked(policydb_t *p, uint32_t source, uint32_t target, uint32_t tclass,
                           struct pm_sepol_numbers *numbers)
{
    avtab_key_t key = { .target_class = (uint16_t)tclass, .specified = AVTAB_XPERMS_ALLOWED };
    ebitmap_node_t *outer, *inner;
    unsigned i, j;
    int found = 0;

    ebitmap_for_each_positive_bit(&p->type_attr_map[source - 1], outer, i)
    {
        ebitmap_for_each_positive_bit(&p->type_attr_map[target - 1], inner, j)
        {
            key.source_type = (uint16_t)(i + 1);
            key.target_type = (uint16_t)(j + 1);
            found |= add_rules(p, &key, numbers);
        }
    }
    return found;
}

int pm_sepol_extended(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, struct pm_sepol_numbers *numbers)
{
    const context_struct_t *subject, *object;
    int result = -1;

    memset(numbers, 0, sizeof(*numbers));
    enter_state(state);
    subject = sepol_sidtab_search(&state->sids, source);
    object = sepol_sidtab_search(&state->sids, target);
    if (subject != NULL && object != NULL)
        result = extended_locked(tables(state->policy), subject->type, object->type, tclass,
                                 numbers);
    leave();
    return result;
}

uint32_t pm_sepol_new(struct pm_sepol_state *state, uint32_t source, uint32_t target,
                      uint32_t tclass, int kind)
{
    sepol_security_class_t sclass = (sepol_security_class_t)tclass;
    sepol_security_id_t made = 0;
    int failed;

    enter_state(state);
    if (kind == PM_SEPOL_CHANGE)
        failed = sepol_change_sid(source, target, sclass, &made);
    else
        failed = sepol_transition_sid(source, target, sclass, &made);
    leave();
    return failed ? 0 : made;
}
