/*
 * Writes sendq.conf(5) in the markup of scdoc: the prose of the template named
 * by the argument, with the table of settings put in where a line says
 * "@global@" or "@route@". Run by the build only; so no setting can be added
 * without its place in the manual.
 */
#include <sysexits.h>

#include "settings.h"

static const char *
type_of(const struct sq_setting *t)
{
	switch (t->type) {
	case SQ_SETTING_STRING:
		return t->words ? "word" : "string";
	case SQ_SETTING_PATH:
		return "path";
	case SQ_SETTING_BOOL:
		return "true or false";
	case SQ_SETTING_INT:
		return "number";
	case SQ_SETTING_DURATION:
		return "duration";
	case SQ_SETTING_DAYS:
		return "number of days";
	case SQ_SETTING_SIZE:
		return "size";
	case SQ_SETTING_WORD:
		return "word";
	case SQ_SETTING_LIST:
		return "string or list of strings";
	case SQ_SETTING_SECRET:
		return t->min == SQ_SECRET_FILE ? "path" : "string";
	case SQ_SETTING_ROUTES:
		return "list of groups";
	}
	return "";
}

static bool
is_number(const struct sq_setting *t)
{
	return t->type == SQ_SETTING_INT || t->type == SQ_SETTING_DURATION || t->type == SQ_SETTING_DAYS || t->type == SQ_SETTING_SIZE;
}

/* `*` and `_` mean something to scdoc; the help texts are written for it, names and defaults are not. */
static void
put_plain(const char *s)
{
	for (; *s; s++) {
		if (*s == '*' || *s == '_')
			putchar('\\');
		putchar(*s);
	}
}

static void
put_setting(const struct sq_setting *t)
{
	char range[80];

	putchar('*');
	put_plain(t->name);
	printf("* = _%s_", type_of(t));
	if (is_number(t) && (t->min > 0 || t->max > 0)) {
		sq_setting_range(t, range);
		printf(", %s", range);
	}
	if (t->shown) {
		fputs(strcmp(t->shown, "required") == 0 ? " (" : " (default: ", stdout);
		put_plain(t->shown);
		putchar(')');
	}
	printf("\n\t%s", t->help);
	for (size_t i = 0; t->words && t->words[i]; i++) {
		printf("%s\"%s\"", i ? ", " : " One of ", t->words[i]);
		if (!t->words[i + 1])
			putchar('.');
	}
	puts("\n");
}

int
main(int argc, char **argv)
{
	FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
	char line[1024];

	if (!f) {
		fputs("usage: config-manual TEMPLATE\n", stderr);
		return EX_USAGE;
	}
	while (fgets(line, sizeof(line), f)) {
		bool global = strcmp(line, "@global@\n") == 0, route = strcmp(line, "@route@\n") == 0;

		for (size_t i = 0; global && i < sq_n_global_settings; i++)
			put_setting(&sq_global_settings[i]);
		for (size_t i = 0; route && i < sq_n_route_settings; i++)
			put_setting(&sq_route_settings[i]);
		if (!global && !route)
			fputs(line, stdout);
	}
	fclose(f);
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}
