/* For config*.c only: the option table and how a value gets into the struct. */
#ifndef PTIER_CONFIG_INTERNAL_H
#define PTIER_CONFIG_INTERNAL_H

#include <stdlib.h>

#include "config.h"

typedef enum ptier_option_type {
    PTIER_OPTION_TEXT,
    PTIER_OPTION_LIST, /* may be given more than once; comma-separated in the environment */
    PTIER_OPTION_SWITCH,
    PTIER_OPTION_COUNT,
    PTIER_OPTION_SIZE,
    PTIER_OPTION_DURATION,
    PTIER_OPTION_LEVEL,
    PTIER_OPTION_DURABILITY,
    PTIER_OPTION_EVICTION,
} ptier_option_type;

typedef struct ptier_option {
    const char *name; /* as on the command line and in the file */
    ptier_option_type type;
    size_t offset;      /* in ptier_config */
    uint64_t min, max;  /* COUNT; SIZE in bytes, or 0; DURATION in ms */
    const char *preset; /* default as text; NULL: none, or found out at start */
    const char *argument;
    const char *help;
} ptier_option;

extern const ptier_option ptier_options[];
extern const size_t ptier_option_count;

/* NULL: there is none. */
const ptier_option *ptier_option_find(const char *name);

/* "PROXYTIER_L1_ENTRIES" for "l1-entries". */
void ptier_option_environment(const ptier_option *option, char name[64]);

/* Where a value comes from: later ones replace earlier ones, lists as a whole. */
typedef enum ptier_config_layer {
    PTIER_LAYER_PRESET,
    PTIER_LAYER_FILE,
    PTIER_LAYER_ENVIRONMENT,
    PTIER_LAYER_FLAG,
    PTIER_LAYER_COUNT,
} ptier_config_layer;

/* The layer that set each option last, beside the struct while loading. */
typedef struct ptier_config_loader {
    ptier_config *config;
    ptier_config_layer *layers; /* one for each option */
} ptier_config_loader;

/* `where` names the place in messages: "--l1-entries", "file.conf:12: l1-entries". */
PTIER_MUST_CHECK ptier_status ptier_option_set(ptier_config_loader *loader,
                                               const ptier_option *option, ptier_config_layer layer,
                                               const char *value, const char *where,
                                               ptier_error *error);

PTIER_MUST_CHECK ptier_status ptier_text_list_add(ptier_text_list *list, const char *text,
                                                  size_t length);
void ptier_text_list_clear(ptier_text_list *list);

/* NULL: not set, or empty. Borrowed until the environment changes. */
static inline const char *
ptier_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* config_keys.c: fills in the keys; those of the environment are wiped from it. */
PTIER_MUST_CHECK ptier_status ptier_config_find_keys(ptier_config *config, bool key_file_is_flag,
                                                     ptier_error *error);

/* config_file.c: the INI file. */
PTIER_MUST_CHECK ptier_status ptier_config_read_file(ptier_config_loader *loader, const char *path,
                                                     ptier_error *error);

#endif
