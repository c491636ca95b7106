/*
 * Writes sendq-sendmail(8) in the markup of scdoc: the template named by the
 * argument, with the table of options put in where a line says "@used@",
 * "@ignored@", "@refused@" or "@long@". Run by the build only; so no option can be added
 * without its place in the manual.
 */
#include <sysexits.h>

#include "options.h"

/* What scdoc takes for markup. */
static void
print_text(const char *s)
{
	for (; *s; s++) {
		if (strchr("*_\\<>#~`[]|", *s))
			putchar('\\');
		putchar(*s);
	}
}

static void
print_options(enum option_use use)
{
	for (size_t i = 0; i < sq_n_options; i++) {
		const struct option *o = &sq_options[i];

		if (o->use != use)
			continue;
		printf("*%s*", o->name);
		if (o->value) {
			fputs(o->argument == ARGUMENT_ATTACHED ? "\\[_" : " _", stdout);
			print_text(o->value);
			fputs(o->argument == ARGUMENT_ATTACHED ? "_\\]" : "_", stdout);
		}
		fputs("\n\t", stdout);
		print_text(o->help);
		fputs("\n\n", stdout);
	}
}

static void
print_long(void)
{
	for (size_t i = 0; i < sq_n_long_options; i++) {
		const struct long_option *o = &sq_long_options[i];

		printf("*%s*", o->name);
		if (o->value) {
			fputs("=_", stdout);
			print_text(o->value);
			fputs("_", stdout);
		}
		fputs(o->id == LONG_IGNORED ? "\n\tIgnored: " : "\n\t", stdout);
		print_text(o->help);
		fputs("\n\n", stdout);
	}
}

int
main(int argc, char **argv)
{
	SQ_CLEANUP(sq_fclosep) FILE *f = argc == 2 ? fopen(argv[1], "re") : NULL;
	char line[1024];

	if (!f) {
		fprintf(stderr, "usage: sendmail-manual TEMPLATE\n");
		return EX_USAGE;
	}
	while (fgets(line, sizeof(line), f)) {
		if (strcmp(line, "@used@\n") == 0)
			print_options(OPTION_USED);
		else if (strcmp(line, "@ignored@\n") == 0)
			print_options(OPTION_IGNORED);
		else if (strcmp(line, "@refused@\n") == 0)
			print_options(OPTION_REFUSED);
		else if (strcmp(line, "@long@\n") == 0)
			print_long();
		else
			fputs(line, stdout);
	}
	return ferror(f) || fflush(stdout) != 0 ? EX_IOERR : EX_OK;
}
