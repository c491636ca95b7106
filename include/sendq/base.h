/*
 * The ground every other header stands on: attributes, the byte view, the
 * bug exit, and the list of functions this project does not use.
 */
#ifndef SENDQ_BASE_H
#define SENDQ_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SQ_MUST_USE __attribute__((warn_unused_result))
#define SQ_CLEANUP(f) __attribute__((cleanup(f)))
#define SQ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SQ_NORETURN __attribute__((noreturn))
#define SQ_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* A view of octets owned by somebody else. Not terminated; p may be NULL when n is 0. */
struct sq_str {
	const char *p;
	size_t n;
};

#define SQ_STR(literal) ((struct sq_str){ (literal), sizeof(literal) - 1 })

/* A view of a C string; NULL gives the empty view. */
static inline struct sq_str
sq_str(const char *s)
{
	return (struct sq_str){ s, s ? strlen(s) : 0 };
}

/* Equal octets. */
static inline bool
sq_str_eq(struct sq_str a, struct sq_str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Equal but for the case of ASCII letters (no locale). */
bool sq_str_caseeq(struct sq_str a, struct sq_str b);

/* a begins with b, but for the case of ASCII letters. */
bool sq_str_casestarts(struct sq_str a, struct sq_str b);

/* Heap copy with a terminating NUL, or NULL when memory is out. The caller frees. */
char *sq_str_dup(struct sq_str s) SQ_MUST_USE;

/* Print to stderr and abort: for what can only be a mistake in this program. */
SQ_NORETURN void sq_bug(const char *fmt, ...) SQ_PRINTF(1, 2);

/* Cleanup handlers. Each takes a zeroed or invalid value quietly and keeps errno. */
void sq_closep(int *fd);     /* closes *fd when it is >= 0 */
void sq_freep(void *ptr);    /* frees *(void **)ptr */
void sq_fclosep(FILE **f);   /* for streams that were only read */

/* Overwrite secrets in a way that no compiler removes. */
#define sq_wipe(p, n) explicit_bzero((p), (n))

/* What truncates, is unbounded, or depends on the locale does not compile. */
#define SQ_BANNED(f) sorry_##f##_is_a_banned_function
#undef strcpy
#define strcpy(a, b) SQ_BANNED(strcpy)
#undef strcat
#define strcat(a, b) SQ_BANNED(strcat)
#undef strncpy
#define strncpy(a, b, n) SQ_BANNED(strncpy)
#undef strncat
#define strncat(a, b, n) SQ_BANNED(strncat)
#undef sprintf
#define sprintf(...) SQ_BANNED(sprintf)
#undef vsprintf
#define vsprintf(...) SQ_BANNED(vsprintf)
#undef strtok
#define strtok(a, b) SQ_BANNED(strtok)
#undef gmtime
#define gmtime(t) SQ_BANNED(gmtime)
#undef localtime
#define localtime(t) SQ_BANNED(localtime)
#undef atoi
#define atoi(s) SQ_BANNED(atoi)

#endif
