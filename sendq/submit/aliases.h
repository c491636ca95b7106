/*
 * The file of aliases, in the form of aliases(5): local names to addresses.
 * Read anew by each process, so there is nothing to initialise. Names of
 * commands ("|…") and files ("/…") are refused: sendq delivers to servers.
 * Inside sendq/submit only.
 */
#ifndef SENDQ_SUBMIT_ALIASES_H
#define SENDQ_SUBMIT_ALIASES_H

#include <sendq/message.h>

enum {
	ALIASES_FILE_MAX = 4 * 1024 * 1024,
	ALIASES_MAX = 10000,             /* entries */
	ALIASES_DEPTH_MAX = 20,          /* of aliases of aliases, and of :include: */
	ALIASES_ADDRESSES_MAX = 65535,
};

struct aliases;

/*
 * Read and check the whole file: SQ_EINVAL with file and line for what cannot
 * be understood, for a name given twice, a command, a file. SQ_EPERM where
 * others may write it. SQ_ENOENT: no such file.
 */
SQ_MUST_USE enum sq_err aliases_load(const char *path, struct aliases **out, struct sq_error *err);
void aliases_free(struct aliases *al);
size_t aliases_count(const struct aliases *al);
size_t aliases_longest(const struct aliases *al);   /* octets of the longest list */
size_t aliases_octets(const struct aliases *al);    /* of all lists */

/*
 * What the name stands for, aliases of aliases included, appended to `out`
 * (unqualified names that are no aliases as they stand). *found false: it is
 * no alias. A "default" entry stands for names that have none of their own
 * where `use_default` says so. SQ_EINVAL for a loop (the sentence shows the
 * way round), a bad address, an :include: that cannot be read.
 */
SQ_MUST_USE enum sq_err aliases_expand(const struct aliases *al, struct sq_str name, bool use_default, struct sq_address_list *out, bool *found, struct sq_error *err);

/* Expand every entry, so that loops and missing :include: files are found before mail comes. */
SQ_MUST_USE enum sq_err aliases_check(const struct aliases *al, struct sq_error *err);

#endif
