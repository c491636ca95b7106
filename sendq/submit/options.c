/*
 * The options of sendmail, as LSB, Postfix, Exim and sendmail document them.
 * What a desktop's queue has no use for is taken and ignored, so that no
 * caller fails; what would do something else than asked is refused.
 */
#include "options.h"

#include <strings.h>

#define USED(name, arg, id, value, help) { name, ARGUMENT_##arg, OPTION_USED, OPT_##id, value, help }
#define IGNORED(name, arg, value, why) { name, ARGUMENT_##arg, OPTION_IGNORED, OPT_IGNORED, value, why }
#define REFUSED(name, arg, value, why) { name, ARGUMENT_##arg, OPTION_REFUSED, OPT_REFUSED, value, why }

const struct option sq_options[] = {
	USED("-t", NONE, RECIPIENTS, NULL, "take recipients from To, Cc and Bcc (or the Resent- fields), besides those given as arguments; Bcc is removed"),
	USED("-i", NONE, DOTS, NULL, "a line with a single dot does not end the message"),
	USED("-oi", NONE, DOTS, NULL, "the same as -i"),
	USED("-f", NEEDED, SENDER, "ADDRESS", "the envelope's sender; <> for none"),
	USED("-r", NEEDED, SENDER, "ADDRESS", "the same as -f"),
	USED("-F", NEEDED, FULL_NAME, "NAME", "full name for a From field that has to be added"),
	USED("-B", NEEDED, BODY, "TYPE", "7BIT or 8BITMIME: what the caller says of the body; the octets themselves decide"),
	USED("-N", NEEDED, NOTIFY, "LIST", "when a report is wanted: never, or a list of success, failure and delay (RFC 3461)"),
	USED("-R", NEEDED, RET, "full|hdrs", "how much of the message a report returns (RFC 3461)"),
	USED("-V", NEEDED, ENVID, "ENVID", "identifier that reports quote (RFC 3461)"),
	USED("-bm", NONE, DELIVER, NULL, "read a message and queue it; the default"),
	USED("-bs", NONE, SMTP, NULL, "speak SMTP on standard input and output; 250 means that the message is on disk"),
	USED("-bp", NONE, LIST, NULL, "list the queue, as mailq does"),
	USED("-bi", NONE, INIT, NULL, "initialise aliases, as newaliases does: nothing to do"),
	USED("-I", NONE, INIT, NULL, "the same as -bi"),
	USED("-q", ATTACHED, FLUSH, "INTERVAL", "try the queue now; an interval is not needed: the daemon knows when to try"),
	USED("-C", NEEDED, CONFIG, "FILE", "the configuration"),
	USED("--config", NEEDED, CONFIG, "FILE", "the same as -C"),
	USED("-v", NONE, VERBOSE, NULL, "print the queue id"),
	USED("-O", NEEDED, SET, "NAME=VALUE", "Duplicates=avoid|allow|ask: what is done if this message gets in doubt, instead of the route's setting; other names are taken and have no effect"),
	USED("-o", ATTACHED, SET, "OPTION", "sendmail's short options (-oem, -odb, -oo …): taken and have no effect but -oi"),
	USED("--help", NONE, HELP, NULL, "this text"),
	USED("--version", NONE, VERSION, NULL, "the version"),
	IGNORED("-A", ATTACHED, "c|m", "there is one configuration"),
	IGNORED("-c", NONE, NULL, "a flag of other systems"),
	IGNORED("-D", NEEDED, "FILE", "there is no debugging output"),
	IGNORED("-E", NONE, NULL, "nothing is indirect here"),
	IGNORED("-G", NONE, NULL, "relays are not told from users"),
	IGNORED("-h", NEEDED, "HOPS", "hops are counted by servers"),
	IGNORED("-L", NEEDED, "TAG", "log lines have one tag"),
	IGNORED("-M", ATTACHED, "ID", "single messages are sendq's business (sendq flush ID)"),
	IGNORED("-U", NONE, NULL, "every submission is a user's"),
	IGNORED("-X", NEEDED, "FILE", "traffic is not logged into files of callers"),
	IGNORED("-d", ATTACHED, "LEVEL", "there is no debugging output"),
	IGNORED("-e", ATTACHED, "MODE", "errors are always printed and told by the exit status"),
	IGNORED("-m", NONE, NULL, "the sender's own address is never taken out"),
	IGNORED("-n", NONE, NULL, "aliases do not apply"),
	IGNORED("-p", ATTACHED, "PROTOCOL", "the protocol received by is not recorded"),
	IGNORED("-x", ATTACHED, "FLAGS", "a flag of other systems"),
	IGNORED("-T", ATTACHED, "TIMEOUT", "waits are settings of a route"),
	IGNORED("-s", ATTACHED, NULL, "a flag of other systems"),
	IGNORED("-Q", ATTACHED, "REASON", "holding is sendq's business (sendq hold ID)"),
	REFUSED("-bS", NONE, NULL, "batched SMTP is not offered"),
	REFUSED("-bd", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-bD", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-bt", NONE, NULL, "there are no rewriting rules to test"),
	REFUSED("-bv", NONE, NULL, "addresses are verified by the server that takes the message"),
	REFUSED("-bl", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-ba", NONE, NULL, "ARPANET mode is not offered"),
	REFUSED("-bP", NONE, NULL, "print the queue with -bp, settings stand in sendq.conf"),
	REFUSED("-bh", NONE, NULL, "host status is shown by sendq links"),
	REFUSED("-bH", NONE, NULL, "host status is kept by sendqd"),
};
const size_t sq_n_options = SQ_LEN(sq_options);

void
sq_options_help(FILE *to)
{
	fputs("usage: sendmail [OPTION…] [RECIPIENT…] < message\n       mailq\n       newaliases\n\n", to);
	for (int use = OPTION_USED; use <= OPTION_REFUSED; use++) {
		fputs(use == OPTION_USED ? "Used:\n" : use == OPTION_IGNORED ? "Taken and ignored:\n" : "Refused:\n", to);
		for (size_t i = 0; i < sq_n_options; i++)
			if ((int)sq_options[i].use == use)
				fprintf(to, "  %s %s\n      %s\n", sq_options[i].name, sq_options[i].value ? sq_options[i].value : "", sq_options[i].help);
	}
	fputs("\nExit status: 0 the message is safe on disk; any other (sysexits.h): nothing was queued, and one line says why.\n", to);
}

/* The longest name that the word begins with; one without an argument must be the whole word. */
static const struct option *
find(const char *word)
{
	const struct option *best = NULL;
	size_t longest = 0;

	for (size_t i = 0; i < sq_n_options; i++) {
		const struct option *o = &sq_options[i];
		size_t n = strlen(o->name);
		bool fits = o->argument == ARGUMENT_NONE ? strcmp(word, o->name) == 0 : strncmp(word, o->name, n) == 0;

		if (fits && o->name[1] == '-' && word[n] != '\0' && word[n] != '=')
			fits = false;
		if (fits && n > longest) {
			best = o;
			longest = n;
		}
	}
	return best;
}

static enum sq_err
parse_notify(const char *list, uint8_t *out, struct sq_error *err)
{
	static const struct { const char *word; uint8_t bit; } words[] = {
		{ "never", SQ_NOTIFY_NEVER }, { "success", SQ_NOTIFY_SUCCESS }, { "failure", SQ_NOTIFY_FAILURE }, { "delay", SQ_NOTIFY_DELAY },
	};
	uint8_t all = 0;

	for (const char *p = list; ; ) {
		size_t n = strcspn(p, ","), i = 0;

		while (i < SQ_LEN(words) && (strlen(words[i].word) != n || strncasecmp(words[i].word, p, n) != 0))
			i++;
		if (i == SQ_LEN(words))
			return sq_error_set(err, SQ_EINVAL, "-N: '%.*s' is none of never, success, failure, delay", (int)n, p);
		all |= words[i].bit;
		if (p[n] == '\0')
			break;
		p += n + 1;
	}
	if ((all & SQ_NOTIFY_NEVER) && all != SQ_NOTIFY_NEVER)
		return sq_error_set(err, SQ_EINVAL, "-N: never stands alone (RFC 3461, 4.1)");
	*out = all;
	return SQ_OK;
}

static enum sq_err
check_envid(const char *v, struct sq_error *err)
{
	size_t n = strlen(v);

	if (n == 0 || n > 100)
		return sq_error_set(err, SQ_EINVAL, "-V: an envelope id has 1 to 100 characters (RFC 3461, 4.4)");
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)v[i] < '!' || (unsigned char)v[i] > '~')
			return sq_error_set(err, SQ_EINVAL, "-V: the envelope id holds a blank or a character outside ASCII");
	return SQ_OK;
}

/* "Duplicates=ask" */
static enum sq_err
take_duplicates(const char *word, struct arguments *a, struct sq_error *err)
{
	static const struct { const char *word; enum sq_own_duplicates value; } words[] = {
		{ "avoid", SQ_OWN_AVOID }, { "allow", SQ_OWN_ALLOW }, { "ask", SQ_OWN_ASK },
	};

	for (size_t i = 0; i < SQ_LEN(words); i++)
		if (strcasecmp(word, words[i].word) == 0) {
			a->duplicates = words[i].value;
			return SQ_OK;
		}
	return sq_error_set(err, SQ_EINVAL, "-O Duplicates: '%s' is none of avoid, allow, ask", word);
}

static enum sq_err
take(const struct option *o, const char *value, struct arguments *a, struct sq_error *err)
{
	switch (o->id) {
	case OPT_IGNORED:
		return SQ_OK;
	case OPT_REFUSED:
		return sq_error_set(err, SQ_EPERM, "%s: %s", o->name, o->help);
	case OPT_RECIPIENTS:
		a->want_recipients = true;
		return SQ_OK;
	case OPT_DOTS:
		a->ignore_dots = true;
		return SQ_OK;
	case OPT_SENDER:
		a->sender = value;
		return SQ_OK;
	case OPT_FULL_NAME:
		a->full_name = value;
		return SQ_OK;
	case OPT_BODY:
		if (strcasecmp(value, "7BIT") != 0 && strcasecmp(value, "8BITMIME") != 0)
			return sq_error_set(err, SQ_EINVAL, "-B: '%s' is neither 7BIT nor 8BITMIME", value);
		a->eightbit = strcasecmp(value, "8BITMIME") == 0;
		return SQ_OK;
	case OPT_NOTIFY:
		return parse_notify(value, &a->notify, err);
	case OPT_RET:
		if (strcasecmp(value, "full") != 0 && strcasecmp(value, "hdrs") != 0)
			return sq_error_set(err, SQ_EINVAL, "-R: '%s' is neither full nor hdrs", value);
		a->ret = strcasecmp(value, "full") == 0 ? SQ_RET_FULL : SQ_RET_HDRS;
		return SQ_OK;
	case OPT_ENVID:
		a->envid = value;
		return check_envid(value, err);
	case OPT_LIST:
		a->mode = MODE_LIST;
		return SQ_OK;
	case OPT_FLUSH:
		a->mode = MODE_FLUSH;
		return SQ_OK;
	case OPT_CONFIG:
		a->config = value;
		return SQ_OK;
	case OPT_VERBOSE:
		a->verbose = true;
		return SQ_OK;
	case OPT_SET:
		/* -oi has its own row; of the long names only the dot's has an effect. */
		if (strcasecmp(value, "IgnoreDots") == 0 || strncasecmp(value, "IgnoreDots=t", 12) == 0)
			a->ignore_dots = true;
		else if (strncasecmp(value, "Duplicates=", 11) == 0)
			return take_duplicates(value + 11, a, err);
		return SQ_OK;
	case OPT_DELIVER:
		a->mode = MODE_DELIVER;
		return SQ_OK;
	case OPT_INIT:
		a->mode = MODE_INIT;
		return SQ_OK;
	case OPT_SMTP:
		a->mode = MODE_SMTP;
		return SQ_OK;
	case OPT_HELP:
		sq_options_help(stdout);
		a->mode = MODE_DONE;
		return SQ_OK;
	case OPT_VERSION:
		puts("sendq-sendmail " SENDQ_VERSION);
		a->mode = MODE_DONE;
		return SQ_OK;
	}
	return SQ_OK;
}

/* "-tiv", "-tfann@x": several letters in one word, as getopt takes them; one with an argument is the last. */
static enum sq_err
take_letters(int argc, char **argv, int *i, struct arguments *a, struct sq_error *err)
{
	const char *word = argv[*i];
	enum sq_err e;

	for (const char *p = word + 1; *p; p++) {
		char single[3] = { '-', *p, '\0' };
		const struct option *o = find(single);
		const char *value = p + 1;

		if (!o)
			return sq_error_set(err, SQ_EINVAL, "unknown option '%s' (see --help)", word);
		if (o->argument == ARGUMENT_NONE) {
			if ((e = take(o, "", a, err)) != SQ_OK)
				return e;
			continue;
		}
		if (o->argument == ARGUMENT_NEEDED && *value == '\0') {
			if (*i + 1 >= argc)
				return sq_error_set(err, SQ_EINVAL, "option '%s' needs a value", o->name);
			value = argv[++*i];
		}
		return take(o, value, a, err);
	}
	return SQ_OK;
}

static enum sq_err
take_word(int argc, char **argv, int *i, struct arguments *a, struct sq_error *err)
{
	const char *word = argv[*i], *value = NULL;
	const struct option *o = find(word);

	if (!o && word[1] == '-')
		return sq_error_set(err, SQ_EINVAL, "unknown option '%s' (see --help)", word);
	if (!o)
		return take_letters(argc, argv, i, a, err);
	value = word + strlen(o->name);
	if (o->name[1] == '-' && *value == '=')
		value++;
	if (o->argument == ARGUMENT_NEEDED && *value == '\0') {
		if (*i + 1 >= argc)
			return sq_error_set(err, SQ_EINVAL, "option '%s' needs a value", o->name);
		value = argv[++*i];
	}
	return take(o, value, a, err);
}

enum sq_err
sq_options_parse(int argc, char **argv, struct arguments *out, struct sq_error *err)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL, *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
	enum sq_err e;
	int i;

	*out = (struct arguments){ .mode = strcmp(name, "mailq") == 0 ? MODE_LIST : strcmp(name, "newaliases") == 0 ? MODE_INIT : MODE_DELIVER };
	for (i = 1; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		if ((e = take_word(argc, argv, &i, out, err)) != SQ_OK)
			return e;
		if (out->mode == MODE_DONE)
			return SQ_OK;
	}
	out->recipients = argv + (i < argc ? i : argc);
	out->n_recipients = i < argc ? argc - i : 0;
	return SQ_OK;
}
