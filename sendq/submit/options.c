/*
 * The options of sendmail, as LSB, Postfix, Exim and sendmail document them.
 * What a desktop's queue has no use for is taken and ignored, so that no
 * caller fails; what would do something else than asked is refused.
 */
#include "options.h"

#include <strings.h>

#include <sendq/config.h>
#include <sendq/io.h>

#define USED(name, arg, id, value, help) { name, ARGUMENT_##arg, OPTION_USED, OPT_##id, value, help }
#define IGNORED(name, arg, value, why) { name, ARGUMENT_##arg, OPTION_IGNORED, OPT_IGNORED, value, why }
#define REFUSED(name, arg, value, why) { name, ARGUMENT_##arg, OPTION_REFUSED, OPT_REFUSED, value, why }

const struct option sq_options[] = {
	USED("-t", NONE, RECIPIENTS, NULL, "take recipients from To, Cc and Bcc (or the Resent- fields), besides those given as arguments; Bcc is removed"),
	USED("-i", NONE, DOTS, NULL, "a line with a single dot does not end the message"),
	USED("-oi", NONE, DOTS, NULL, "the same as -i"),
	USED("-oitrue", NONE, DOTS, NULL, "the same as -i"),
	USED("-f", NEEDED, SENDER, "ADDRESS", "the envelope's sender; <> for none"),
	USED("-r", NEEDED, SENDER, "ADDRESS", "the same as -f"),
	USED("-F", NEEDED, FULL_NAME, "NAME", "full name for a From field that has to be added"),
	USED("-B", NEEDED, BODY, "TYPE", "7BIT or 8BITMIME: what the caller says of the body; the octets themselves decide"),
	USED("-N", NEEDED, NOTIFY, "LIST", "when a report is wanted: never, or a list of success, failure and delay (RFC 3461)"),
	USED("-R", NEEDED, RET, "full|hdrs", "how much of the message a report returns (RFC 3461)"),
	USED("-V", NEEDED, ENVID, "ENVID", "identifier that reports quote (RFC 3461)"),
	USED("-bm", NONE, DELIVER, NULL, "read a message and queue it; the default"),
	USED("-bs", NONE, SMTP, NULL, "speak SMTP on standard input and output; 250 means that the message is on disk"),
	USED("-bv", NONE, VERIFY, NULL, "say where mail to the recipients would go, and queue nothing"),
	USED("-bp", NONE, LIST, NULL, "list the queue, as mailq does"),
	USED("-bpa", NONE, LIST, NULL, "the same as -bp"),
	USED("-bpr", NONE, LIST, NULL, "the same as -bp"),
	USED("-bpra", NONE, LIST, NULL, "the same as -bp"),
	USED("-bpru", NONE, LIST, NULL, "the same as -bp"),
	USED("-bpu", NONE, LIST, NULL, "the same as -bp"),
	USED("-bpc", NONE, COUNT, NULL, "print how many messages wait"),
	USED("-bP", NONE, COUNT, NULL, "the same as -bpc"),
	USED("-bi", NONE, INIT, NULL, "check the aliases, as newaliases does; they are read anew with each message, so nothing has to be built"),
	USED("-I", NONE, INIT, NULL, "the same as -bi"),
	USED("-bC", NONE, CHECK, NULL, "check the configuration and the aliases"),
	USED("-bV", NONE, VERSION, NULL, "the version"),
	USED("-q", ATTACHED, FLUSH, "INTERVAL", "try the queue now; an interval is not needed: the daemon knows when to try"),
	USED("-qf", NONE, FLUSH, NULL, "the same as -q"),
	USED("-qff", NONE, FLUSH, NULL, "the same as -q"),
	USED("-qp", ATTACHED, FLUSH, "INTERVAL", "the same as -q"),
	USED("-qI", NEEDED, FLUSH_ID, "TEXT", "try messages now whose queue id holds TEXT; -q!I: those whose does not"),
	USED("-qR", NEEDED, FLUSH_TO, "TEXT", "try messages now of which a recipient holds TEXT; -q!R: none"),
	USED("-qS", NEEDED, FLUSH_FROM, "TEXT", "try messages now whose sender holds TEXT; -q!S: those whose does not"),
	USED("-q!I", NEEDED, FLUSH_NOT_ID, "TEXT", "see -qI"),
	USED("-q!R", NEEDED, FLUSH_NOT_TO, "TEXT", "see -qR"),
	USED("-q!S", NEEDED, FLUSH_NOT_FROM, "TEXT", "see -qS"),
	USED("-C", NEEDED, CONFIG, "FILE", "the configuration"),
	USED("--config", NEEDED, CONFIG, "FILE", "the same as -C"),
	USED("-v", NONE, VERBOSE, NULL, "print the queue id"),
	USED("-O", NEEDED, SET, "NAME=VALUE", "an option by its long name: see below"),
	USED("-o", ATTACHED, SET, "OPTION", "one of sendmail's short options: -oi has a meaning, all others are ignored"),
	USED("--help", NONE, HELP, NULL, "this text"),
	USED("--version", NONE, VERSION, NULL, "the version"),
	IGNORED("-A", ATTACHED, "c|m", "there is one configuration"),
	IGNORED("-c", NONE, NULL, "a flag of other systems"),
	IGNORED("-bnq", NONE, NULL, "names without a domain are of no use to a server"),
	IGNORED("-D", NEEDED, "FILE", "there is no debugging output"),
	IGNORED("-d", ATTACHED, "LEVEL", "there is no debugging output"),
	IGNORED("-dropcr", NONE, NULL, "line ends are made right anyway"),
	IGNORED("-E", NONE, NULL, "nothing is indirect here"),
	IGNORED("-e", ATTACHED, "MODE", "errors are always printed and told by the exit status"),
	IGNORED("-G", NONE, NULL, "relays are not told from users"),
	IGNORED("-h", NEEDED, "HOPS", "hops are counted by servers"),
	IGNORED("-L", NEEDED, "TAG", "log lines have one tag"),
	IGNORED("-m", NONE, NULL, "the sender's own address is never taken out"),
	IGNORED("-n", NONE, NULL, "a name of this machine without its alias leads nowhere"),
	IGNORED("-o7", NONE, NULL, "content is never converted"),
	IGNORED("-o8", NONE, NULL, "content is never converted"),
	IGNORED("-oA", NEEDED, "FILE", "the aliases are a setting"),
	IGNORED("-oB", ATTACHED, "NUMBER", "connections are sendqd's business"),
	IGNORED("-od", ATTACHED, "MODE", "a message is always put on disk first and tried at once"),
	IGNORED("-oe", ATTACHED, "MODE", "errors are always printed and told by the exit status"),
	IGNORED("-om", NONE, NULL, "the sender's own address is never taken out"),
	IGNORED("-oMa", NEEDED, "ADDRESS", "where a message came from is not told to servers"),
	IGNORED("-oMaa", NEEDED, "NAME", "where a message came from is not told to servers"),
	IGNORED("-oMai", NEEDED, "TEXT", "where a message came from is not told to servers"),
	IGNORED("-oMas", NEEDED, "ADDRESS", "where a message came from is not told to servers"),
	IGNORED("-oMi", NEEDED, "ADDRESS", "where a message came from is not told to servers"),
	IGNORED("-oMm", NEEDED, "ID", "where a message came from is not told to servers"),
	IGNORED("-oMr", NEEDED, "PROTOCOL", "where a message came from is not told to servers"),
	IGNORED("-oMs", NEEDED, "HOST", "where a message came from is not told to servers"),
	IGNORED("-oMt", NEEDED, "NAME", "where a message came from is not told to servers"),
	IGNORED("-oo", NONE, NULL, "both styles of headers are understood"),
	IGNORED("-oP", NEEDED, "FILE", "there is no file for a process id"),
	IGNORED("-oPX", NONE, NULL, "there is no file for a process id"),
	IGNORED("-or", NEEDED, "TIME", "input is waited for without limit"),
	IGNORED("-os", NEEDED, "TIME", "input is waited for without limit"),
	IGNORED("-ov", NONE, NULL, "use -v"),
	IGNORED("-oX", NEEDED, "PORT", "there is no port"),
	IGNORED("-oY", NONE, NULL, "there is no such socket"),
	IGNORED("-p", ATTACHED, "PROTOCOL", "the protocol received by is not recorded"),
	IGNORED("-Q", ATTACHED, "REASON", "holding is sendq's business (sendq hold ID)"),
	IGNORED("-qG", ATTACHED, "GROUP", "there is one queue"),
	IGNORED("-s", ATTACHED, NULL, "a flag of other systems"),
	IGNORED("-T", ATTACHED, "TIMEOUT", "waits are settings of a route"),
	IGNORED("-U", NONE, NULL, "addresses themselves tell whether they need SMTPUTF8"),
	IGNORED("-X", NEEDED, "FILE", "traffic is not logged into files of callers"),
	IGNORED("-x", ATTACHED, "FLAGS", "a flag of other systems"),
	IGNORED("-z", NEEDED, "TEXT", "callers write nothing into the log"),
	REFUSED("-ba", NONE, NULL, "ARPANET mode is not offered: -bs speaks SMTP"),
	REFUSED("-bd", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-bdf", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-bD", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-be", NONE, NULL, "there is nothing to expand"),
	REFUSED("-bem", ATTACHED, "FILE", "there is nothing to expand"),
	REFUSED("-bF", ATTACHED, "FILE", "there are no filters"),
	REFUSED("-bf", ATTACHED, "FILE", "there are no filters"),
	REFUSED("-bh", ATTACHED, "ADDRESS", "host status is shown by sendq links"),
	REFUSED("-bH", NONE, NULL, "host status is kept by sendqd"),
	REFUSED("-bI", ATTACHED, NULL, "see --help and --version"),
	REFUSED("-bl", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-bmalware", ATTACHED, "FILE", "there is no scanner"),
	REFUSED("-brt", NONE, NULL, "retries are settings of a route"),
	REFUSED("-brw", NONE, NULL, "there are no rewriting rules to test"),
	REFUSED("-bS", NONE, NULL, "batched SMTP is not offered: -bs speaks SMTP"),
	REFUSED("-bt", NONE, NULL, "there are no rewriting rules to test; -bv says where mail goes"),
	REFUSED("-bvs", NONE, NULL, "senders are not verified"),
	REFUSED("-bw", NONE, NULL, "sendmail is no daemon here: run sendqd"),
	REFUSED("-M", ATTACHED, "ID", "single messages are sendq's business (sendq flush, hold, remove, show ID)"),
	REFUSED("-S", ATTACHED, "TEXT", "messages are chosen by -qS"),
	REFUSED("-tls-on-connect", NONE, NULL, "TLS is not spoken on standard input"),
	REFUSED("-Tqt", ATTACHED, NULL, "there is no test of the queue's times"),
	REFUSED("-q!Q", ATTACHED, "TEXT", "held messages wait for a person (sendq release ID)"),
	REFUSED("-qQ", ATTACHED, "TEXT", "held messages wait for a person (sendq release ID)"),
	REFUSED("-XV", ATTACHED, NULL, "senders with the recipient in them (VERP) are not made"),
};
const size_t sq_n_options = SQ_LEN(sq_options);

/* The long names of -O. Those that sendmail's manual lists beside these are known, too, and ignored. */
const struct long_option sq_long_options[] = {
	{ "NotBefore", "WHEN", LONG_NOT_BEFORE, "the first try is not made before: a duration (2h), a time of day (18:00), a date (2026-12-24 18:00), or seconds since 1970 (@1798131600)" },
	{ "Deadline", "WHEN", LONG_DEADLINE, "the message is given up, with a report, when it has not been sent by then; written as NotBefore" },
	{ "Duplicates", "avoid|allow|ask", LONG_DUPLICATES, "what is done if this message gets in doubt, instead of the route's setting" },
	{ "IgnoreDots", "true|false", LONG_DOTS, "the same as -i" },
	{ "AliasFile", "FILE", LONG_IGNORED, "the aliases are a setting" },
	{ "CheckAliases", NULL, LONG_IGNORED, "they are always checked" },
	{ "CheckpointInterval", "NUMBER", LONG_IGNORED, "each recipient's state is on disk at once" },
	{ "ConnectionCacheSize", "NUMBER", LONG_IGNORED, "connections are settings of a route" },
	{ "ConnectionCacheTimeout", "TIME", LONG_IGNORED, "connections are settings of a route" },
	{ "ConnectionRateThrottle", "NUMBER", LONG_IGNORED, "there is no port" },
	{ "DefaultCharSet", "NAME", LONG_IGNORED, "content is never changed" },
	{ "DeliveryMode", "MODE", LONG_IGNORED, "a message is always put on disk first and tried at once" },
	{ "EightBitMode", "MODE", LONG_IGNORED, "a setting of a route (eightbit)" },
	{ "ErrorMode", "MODE", LONG_IGNORED, "errors are always printed and told by the exit status" },
	{ "ForkEachJob", NULL, LONG_IGNORED, "each connection is a process" },
	{ "HoldExpensive", NULL, LONG_IGNORED, "no server is expensive" },
	{ "LogLevel", "NUMBER", LONG_IGNORED, "a setting (log)" },
	{ "MaxDaemonChildren", "NUMBER", LONG_IGNORED, "there is no port" },
	{ "MaxHopCount", "NUMBER", LONG_IGNORED, "hops are counted by servers" },
	{ "MeToo", "true|false", LONG_IGNORED, "the sender's own address is never taken out" },
	{ "MinQueueAge", "TIME", LONG_IGNORED, "retries are settings of a route" },
	{ "NoRecipientAction", "ACTION", LONG_IGNORED, "a message without To and Cc gets undisclosed-recipients" },
	{ "OldStyleHeaders", NULL, LONG_IGNORED, "both styles of headers are understood" },
	{ "QueueDirectory", "FOLDER", LONG_IGNORED, "a setting (queue)" },
	{ "SaveFromLine", NULL, LONG_IGNORED, "a From line of an mbox is dropped" },
	{ "SendMimeErrors", NULL, LONG_IGNORED, "reports are MIME" },
	{ "SevenBitInput", NULL, LONG_IGNORED, "content is never changed" },
	{ "StatusFile", "FILE", LONG_IGNORED, "sendq links shows what is known" },
	{ "Timeout.queuereturn", "TIME", LONG_IGNORED, "a setting of a route (expire)" },
	{ "UserDatabaseSpec", "NAME", LONG_IGNORED, "there is no user database" },
};
const size_t sq_n_long_options = SQ_LEN(sq_long_options);

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
	fputs("Long names of -O (others are ignored):\n", to);
	for (size_t i = 0; i < sq_n_long_options; i++)
		if (sq_long_options[i].id != LONG_IGNORED)
			fprintf(to, "  %s=%s\n      %s\n", sq_long_options[i].name, sq_long_options[i].value, sq_long_options[i].help);
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
set_when(const char *name, const char *value, int64_t *to, struct sq_error *err)
{
	int64_t now = sq_wall_ms(), when = sq_parse_when(value, now);

	if (when < 0)
		return sq_error_set(err, SQ_EINVAL, "-O %s: '%s' is no time: write 2h, 18:00, 2026-12-24 18:00 or @1798131600", name, value);
	if (when <= now)
		return sq_error_set(err, SQ_EINVAL, "-O %s: '%s' is over", name, value);
	*to = when;
	return SQ_OK;
}

static enum sq_err
set_long(const char *word, struct arguments *a, struct sq_error *err)
{
	size_t n = strcspn(word, "="), i = 0;
	const char *value = word[n] ? word + n + 1 : "true", *near, *names[] = { "NotBefore", "Deadline", "Duplicates", NULL };
	char name[64];

	while (i < sq_n_long_options && (strlen(sq_long_options[i].name) != n || strncasecmp(word, sq_long_options[i].name, n) != 0))
		i++;
	if (i == sq_n_long_options) {
		/* Other systems have many more; but a message that must wait must not go at once for a slip of the finger. */
		snprintf(name, sizeof(name), "%.*s", (int)(n < 60 ? n : 60), word);
		near = sq_nearest_name(name, names);
		return near ? sq_error_set(err, SQ_EINVAL, "-O: unknown name '%s', did you mean '%s'?", name, near) : SQ_OK;
	}
	switch (sq_long_options[i].id) {
	case LONG_NOT_BEFORE:
		return set_when("NotBefore", value, &a->not_before_ms, err);
	case LONG_DEADLINE:
		return set_when("Deadline", value, &a->deadline_ms, err);
	case LONG_DUPLICATES:
		return take_duplicates(value, a, err);
	case LONG_DOTS:
		a->ignore_dots = value[0] == 't' || value[0] == 'T' || value[0] == 'y' || value[0] == 'Y' || value[0] == '1';
		return SQ_OK;
	case LONG_IGNORED:
		return SQ_OK;
	}
	return SQ_OK;
}

static enum sq_err
take_flush(const char *value, enum flush_by by, bool inverse, struct arguments *a)
{
	a->mode = MODE_FLUSH;
	a->flush_by = by;
	a->flush_text = value;
	a->flush_inverse = inverse;
	return SQ_OK;
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
		return take_flush("", FLUSH_ALL, false, a);
	case OPT_FLUSH_ID:
	case OPT_FLUSH_NOT_ID:
		return take_flush(value, FLUSH_BY_ID, o->id == OPT_FLUSH_NOT_ID, a);
	case OPT_FLUSH_TO:
	case OPT_FLUSH_NOT_TO:
		return take_flush(value, FLUSH_BY_RECIPIENT, o->id == OPT_FLUSH_NOT_TO, a);
	case OPT_FLUSH_FROM:
	case OPT_FLUSH_NOT_FROM:
		return take_flush(value, FLUSH_BY_SENDER, o->id == OPT_FLUSH_NOT_FROM, a);
	case OPT_VERIFY:
		a->mode = MODE_VERIFY;
		return SQ_OK;
	case OPT_COUNT:
		a->mode = MODE_COUNT;
		return SQ_OK;
	case OPT_CHECK:
		a->mode = MODE_CHECK;
		return SQ_OK;
	case OPT_CONFIG:
		a->config = value;
		return SQ_OK;
	case OPT_VERBOSE:
		a->verbose = true;
		return SQ_OK;
	case OPT_SET:
		return o->argument == ARGUMENT_NEEDED ? set_long(value, a, err) : SQ_OK;
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

	*out = (struct arguments){ .mode = strcmp(name, "mailq") == 0 ? MODE_LIST : strcmp(name, "newaliases") == 0 ? MODE_INIT
		: strcmp(name, "runq") == 0 ? MODE_FLUSH : MODE_DELIVER };
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
