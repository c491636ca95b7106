/*
 * The one table of settings: what the loader takes, what the manual says.
 * Inside sendq/config and its manual's generator only.
 */
#ifndef SENDQ_CONFIG_SETTINGS_H
#define SENDQ_CONFIG_SETTINGS_H

#include <sendq/config.h>

enum sq_setting_type {
	SQ_SETTING_STRING,    /* char * */
	SQ_SETTING_PATH,      /* char *, absolute or beginning with ~/ */
	SQ_SETTING_BOOL,      /* bool */
	SQ_SETTING_INT,       /* int */
	SQ_SETTING_DURATION,  /* int64_t, milliseconds; a string, or an integer in seconds */
	SQ_SETTING_DAYS,      /* int64_t, milliseconds; an integer in days */
	SQ_SETTING_SIZE,      /* int64_t, octets; a string, or an integer in octets */
	SQ_SETTING_WORD,      /* an enum, or bool where the member is one: one of `words` */
	SQ_SETTING_LIST,      /* char **, a string or a list of strings */
	SQ_SETTING_SECRET,    /* sets secret_kind (min) and secret */
	SQ_SETTING_ROUTES,    /* the list of routes */
};

struct sq_setting {
	const char *name;
	enum sq_setting_type type;
	size_t offset;           /* in struct sq_config or struct sq_route */
	int64_t fallback;        /* numbers: the default in the member's unit */
	int64_t min, max;        /* in the member's unit; max 0: no limit */
	const char *const *words;
	const char *shown;       /* the default, for people */
	const char *help;        /* one or two sentences, in the markup of scdoc */
};

extern const struct sq_setting sq_global_settings[], sq_route_settings[];
extern const size_t sq_n_global_settings, sq_n_route_settings;

/* What a number may be, for people: "1 to 20", "10m to 1d", "at least 0". Numbers only. */
void sq_setting_range(const struct sq_setting *t, char out[80]);

#endif
