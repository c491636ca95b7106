/*
 * sendq-dedup: options, one mailbox after the other, and the two printers.
 */
#include <getopt.h>
#include <sysexits.h>

#include "dedup.h"

static const char usage[] =
	"usage: sendq-dedup [OPTION...] MAILBOX...\n"
	"\n"
	"List partial and second copies in a Maildir, an mbox file or an IMAP folder\n"
	"(imaps://USER@HOST[:PORT]/FOLDER, or imap:// for STARTTLS). Changes nothing\n"
	"unless --trash is given.\n"
	"\n"
	"  --trash                  move to Trash what a strictly more complete copy\n"
	"                           in the same mailbox makes needless\n"
	"  --trash-folder NAME      move it there\n"
	"  --json                   one object a line\n"
	"  --password-command CMD   IMAP: run CMD, its output is the password\n"
	"  --password-file FILE     IMAP: read the password from FILE (mode 0600)\n"
	"  --ca-file FILE           IMAP: trust these certificates\n"
	"  --help, --version\n"
	"\n"
	"Manual: sendq-dedup(1)\n";

/* ---- printing ---- */

static const char *
kind_name(enum kind k)
{
	switch (k) {
	case KIND_FIRST: return "first";
	case KIND_PARTIAL: return "partial";
	case KIND_DUPLICATE: return "duplicate";
	case KIND_DIFFERS: return "differs";
	}
	return "?";
}

/* Octets of the well-formed UTF-8 character at p (RFC 3629 section 4), 0: none. */
static size_t
utf8_at(const unsigned char *p, size_t n)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

/* For a terminal or a JSON string: what is neither text nor harmless is replaced or escaped. */
static void
put(const char *s, bool json)
{
	size_t n = s ? strlen(s) : 0;

	if (json)
		putchar('"');
	for (size_t i = 0; i < n; ) {
		unsigned char c = (unsigned char)s[i];
		size_t len = utf8_at((const unsigned char *)s + i, n - i);

		if (len == 0)
			fputs("\xef\xbf\xbd", stdout);
		else if (json && (c == '"' || c == '\\'))
			printf("\\%c", c);
		else if (c < ' ' || c == 127)
			json ? printf("\\u%04x", c) : printf("?");
		else
			fwrite(s + i, 1, len, stdout);
		i += len ? len : 1;
	}
	if (json)
		putchar('"');
}

static void
print_json(const struct mailbox *m, const struct copies *all, const struct copy *c)
{
	printf("{\"mailbox\":");
	put(m->name, true);
	printf(",\"kind\":\"%s\",\"where\":", kind_name(c->kind));
	put(c->where, true);
	printf(",\"octets\":%llu,\"message_id\":", (unsigned long long)c->size);
	c->id ? put(c->id, true) : (void)fputs("null", stdout);
	printf(",\"of\":");
	&all->v[c->of] != c ? put(all->v[c->of].where, true) : (void)fputs("null", stdout);
	printf(",\"strictly_less\":%s,\"trashed\":%s}\n", c->less ? "true" : "false", c->trashed ? "true" : "false");
}

static void
print_words(const struct copies *all, const struct copy *c)
{
	static const char *const relation[] = {
		[KIND_FIRST] = "", [KIND_PARTIAL] = "a copy that is not its continuation: ", [KIND_DUPLICATE] = "the same as ", [KIND_DIFFERS] = "same Message-ID, other content: ",
	};

	printf("  %-9s %10llu  ", kind_name(c->kind), (unsigned long long)c->size);
	put(c->where, false);
	printf("\n            ");
	if (&all->v[c->of] == c) {
		printf("no more complete copy is here");
	} else {
		printf("%s", c->less ? "more complete: " : relation[c->kind]);
		put(all->v[c->of].where, false);
	}
	if (c->id) {
		printf("  ");
		put(c->id, false);
	}
	printf("%s\n", c->trashed ? "\n            moved to Trash" : "");
}

static void
print(const struct mailbox *m, const struct copies *all)
{
	size_t n[4] = { 0 }, less = 0, trashed = 0;

	if (!m->options->json) {
		put(m->name, false);
		printf(":\n");
	}
	for (size_t k = 0; k < all->n; k++) {
		const struct copy *c = &all->v[k];

		n[c->kind]++;
		less += c->less;
		trashed += c->trashed;
		if (c->kind == KIND_FIRST)
			continue;
		if (m->options->json)
			print_json(m, all, c);
		else
			print_words(all, c);
	}
	if (m->options->json)
		return;
	printf("  %zu messages: %zu partial, %zu duplicate, %zu with other content\n", all->n, n[KIND_PARTIAL], n[KIND_DUPLICATE], n[KIND_DIFFERS]);
	if (trashed > 0) {
		printf("  %zu moved to '", trashed);
		put(m->trash, false);
		printf("'\n");
	} else if (less > 0 && !m->options->trash) {
		printf("  %zu could go to Trash: --trash\n", less);
	}
}

static enum sq_err
one(const char *name, const struct options *o)
{
	struct copies all = { 0 };
	struct sq_error err = { 0 };
	struct mailbox m;
	enum sq_err e = mailbox_open(&m, name, o, &err);

	if (e == SQ_OK && (e = m.ops->list(&m, &all, &err)) == SQ_OK && (e = judge(&m, &all, &err)) == SQ_OK) {
		if (o->trash)
			e = m.ops->trash(&m, &all, &err);
		print(&m, &all);
	}
	if (e != SQ_OK)
		fprintf(stderr, "sendq-dedup: %s\n", err.text);
	if (m.ops)
		m.ops->close(&m);
	copies_fini(&all);
	free(m.name);
	free(m.trash);
	return e;
}

int
main(int argc, char **argv)
{
	enum { TRASH = 256, TRASH_FOLDER, JSON, COMMAND, FILE_, CA, HELP, VERSION };
	static const struct option longs[] = {
		{ "trash", no_argument, NULL, TRASH }, { "trash-folder", required_argument, NULL, TRASH_FOLDER },
		{ "json", no_argument, NULL, JSON }, { "password-command", required_argument, NULL, COMMAND },
		{ "password-file", required_argument, NULL, FILE_ }, { "ca-file", required_argument, NULL, CA },
		{ "help", no_argument, NULL, HELP }, { "version", no_argument, NULL, VERSION }, { 0 },
	};
	struct options o = { 0 };
	enum sq_err worst = SQ_OK, e;
	int opt;

	while ((opt = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (opt) {
		case TRASH: o.trash = true; break;
		case TRASH_FOLDER: o.trash_folder = optarg; break;
		case JSON: o.json = true; break;
		case COMMAND: o.password_command = optarg; break;
		case FILE_: o.password_file = optarg; break;
		case CA: o.ca_file = optarg; break;
		case HELP: fputs(usage, stdout); return 0;
		case VERSION: puts("sendq-dedup " SENDQ_VERSION); return 0;
		default: fputs(usage, stderr); return EX_USAGE;
		}
	}
	if (o.trash_folder && !o.trash) {
		fputs("sendq-dedup: --trash-folder says where to, but --trash is not given\n", stderr);
		return EX_USAGE;
	}
	if (optind == argc) {
		fputs(usage, stderr);
		return EX_USAGE;
	}
	for (int k = optind; k < argc; k++)
		if ((e = one(argv[k], &o)) != SQ_OK)
			worst = e;
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fputs("sendq-dedup: cannot write the list\n", stderr);
		return EX_IOERR;
	}
	return sq_err_sysexit(worst);
}
