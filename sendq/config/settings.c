/*
 * The tables behind settings.h. Nothing here reads a file.
 */
#include <inttypes.h>

#include "settings.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define MEGA INT64_C(1048576)

/* Test builds may shorten what a person must not. */
#ifdef SENDQ_FAULTS
#define VERDICT_MIN SECOND
#else
#define VERDICT_MIN (10 * MINUTE)
#endif

static const char *const tls_words[] = { "required", "none", NULL };
static const char *const duplicates_words[] = { "avoid", "allow", "ask", NULL };
static const char *const tristate_words[] = { "auto", "yes", "no", NULL };
static const char *const message_id_words[] = { "auto", "kept", "rewritten", NULL };
static const char *const eightbit_words[] = { "fail", "send", NULL };
static const char *const masquerade_words[] = { "envelope", "header", "off", NULL };
static const char *const log_words[] = { "error", "warn", "info", "debug", NULL };

#define G(member) offsetof(struct sq_config, member)
#define R(member) offsetof(struct sq_route, member)

const struct sq_setting sq_global_settings[] = {
	{ "routes", SQ_SETTING_ROUTES, G(routes), 0, 0, 0, NULL, NULL,
	  "The accounts, in order: the first route whose *from* matches the sender is used." },
	{ "queue", SQ_SETTING_PATH, G(queue), 0, 0, 0, NULL, "$XDG_STATE_HOME/sendq/queue.db",
	  "The queue's database. Must lie on a local disk." },
	{ "autostart", SQ_SETTING_BOOL, G(autostart), 1, 0, 0, NULL, "true",
	  "sendmail starts the daemon when nobody listens. Never in system mode." },
	{ "identity", SQ_SETTING_STRING, G(identity), 0, 0, 0, NULL, "none",
	  "Sender address where neither the caller, the message nor the route gives one." },
	{ "aliases", SQ_SETTING_PATH, G(aliases), 0, 0, 0, NULL, "none",
	  "File that says where mail to names of this machine goes (*root: me@example.org*), see *sendq-sendmail*(8)." },
	{ "domain", SQ_SETTING_STRING, G(domain), 0, 0, 0, NULL, "the sender's", "Completes recipients that are names without a domain." },
	{ "local_domains", SQ_SETTING_LIST, G(local_domains), 0, 0, 0, NULL, "none",
	  "Patterns (*fnmatch*(3)) of further domains that only this machine knows. _localhost_ and the name of this machine are, "
	  "unless the configuration sends mail by it." },
	{ "masquerade", SQ_SETTING_WORD, G(masquerade), SQ_MASQUERADE_ENVELOPE, 0, 0, masquerade_words, "envelope",
	  "Where a sender such as _root@thismachine_, whom no server knows, gets one's own address: in the *envelope*, in the *header* "
	  "(From) too, or nowhere (*off*). A name without a domain always does, in both." },
	{ "notices", SQ_SETTING_PATH, G(notices), 0, 0, 0, NULL, "$XDG_STATE_HOME/sendq/notices",
	  "Maildir into which reports are delivered." },
	{ "notify", SQ_SETTING_STRING, G(notify), 0, 0, 0, NULL, "desktop",
	  "*desktop*: each report is shown by *notify-send*, where it is installed and the user has a session. *none*, or a shell command"
	  " that is run for each report, see *sendqd*(8)." },
	{ "report_to", SQ_SETTING_STRING, G(report_to), 0, 0, 0, NULL, "local",
	  "*local*, or an address to which reports are mailed as well, by the route and from the address that this is. Never about a report or a bounce." },
	{ "log", SQ_SETTING_STRING, G(log), 0, 0, 0, log_words, "info",
	  "How much the daemon logs. Addresses and server replies appear at *debug* only." },
	{ "undo_window", SQ_SETTING_DURATION, G(undo_window_ms), 0, 0, DAY, NULL, "0",
	  "How long a new message waits before its first try." },
	{ "duplicate_window", SQ_SETTING_DURATION, G(duplicate_window_ms), 10 * MINUTE, 0, 30 * DAY, NULL, "10m",
	  "A message with the Message-ID, content and recipient of one queued within this time is not queued again. 0: no check." },
	{ "ledger_days", SQ_SETTING_DAYS, G(ledger_ms), 90 * DAY, 0, 3650 * DAY, NULL, "90",
	  "How many days *sendq sent* remembers what was accepted. 0: no record is kept." },
	{ "message_size_max", SQ_SETTING_SIZE, G(message_size_max), 150 * MEGA, 0, 0, NULL, "150M",
	  "Larger messages are refused. 0: no limit." },
	{ "queue_size_max", SQ_SETTING_SIZE, G(queue_size_max), 4096 * MEGA, 0, 0, NULL, "4G",
	  "When the queue is as large, sendmail asks its caller to try later. 0: no limit." },
	{ "user_messages_max", SQ_SETTING_INT, G(user_messages_max), 1000, 0, 1000000, NULL, "1000",
	  "In system mode: how many messages of one user may wait; more are refused until some have gone. 0: any number." },
	{ "user_connections_max", SQ_SETTING_INT, G(user_connections_max), 20, 1, 1000, NULL, "20",
	  "In system mode: how many sessions one user may have with the submission and control sockets at once." },
	{ "free_disk_min", SQ_SETTING_SIZE, G(free_disk_min), 64 * MEGA, 0, 0, NULL, "64M",
	  "With less free disk sendmail asks its caller to try later." },
	{ "connect_timeout", SQ_SETTING_DURATION, G(connect_timeout_ms), 120 * SECOND, SECOND, HOUR, NULL, "2m",
	  "For name, connection, TLS, greeting and login together." },
	{ "verdict_timeout", SQ_SETTING_DURATION, G(verdict_timeout_ms), 10 * MINUTE, VERDICT_MIN, DAY, NULL, "10m",
	  "How long the server's answer to a whole message is waited for; at least ten minutes (RFC 5321, 4.5.3.2.6). "
	  "Ten seconds for each MiB come on top, and where this server has been slow before four times as long as it took. "
	  "A server that can resume (CHECKPOINT) is asked again as soon as the connection shows no sign of life." },
	{ "stop_grace", SQ_SETTING_DURATION, G(stop_grace_ms), 10 * SECOND, 0, HOUR, NULL, "10s",
	  "How long a daemon that is told to stop waits for answers to whole messages." },
};
const size_t sq_n_global_settings = SQ_LEN(sq_global_settings);

const struct sq_setting sq_route_settings[] = {
	{ "name", SQ_SETTING_STRING, R(name), 0, 0, 0, NULL, "required",
	  "A word for people, unique: letters, digits, dot, underscore and hyphen, at most 64." },
	{ "server", SQ_SETTING_STRING, R(server), 0, 0, 0, NULL, "required",
	  "*smtps://host[:465]* (TLS from the start) or *smtp://host[:587]* (STARTTLS, which the server must offer)." },
	{ "from", SQ_SETTING_LIST, R(from), 0, 0, 0, NULL, "every sender",
	  "Glob or list of globs, matched against the sender's address without case." },
	{ "user", SQ_SETTING_STRING, R(user), 0, 0, 0, NULL, "no login", "Login name." },
	{ "password_command", SQ_SETTING_SECRET, R(secret), 0, SQ_SECRET_COMMAND, 0, NULL, "none",
	  "Shell command that prints the password. Run before each connection, at most 30 seconds." },
	{ "password_file", SQ_SETTING_SECRET, R(secret), 0, SQ_SECRET_FILE, 0, NULL, "none",
	  "File that holds the password; only its owner may read it." },
	{ "password_credential", SQ_SETTING_SECRET, R(secret), 0, SQ_SECRET_CREDENTIAL, 0, NULL, "none",
	  "Name of a credential that systemd gives to the service sendqd, see *SECRETS*." },
	{ "password", SQ_SETTING_SECRET, R(secret), 0, SQ_SECRET_LITERAL, 0, NULL, "none",
	  "The password itself; only the owner may read the configuration then." },
	{ "token_command", SQ_SETTING_SECRET, R(secret), 0, SQ_SECRET_TOKEN_COMMAND, 0, NULL, "none",
	  "Shell command that prints an OAuth 2 access token." },
	{ "auth", SQ_SETTING_STRING, R(auth), 0, 0, 0, NULL, "PLAIN, else LOGIN; XOAUTH2 with token_command",
	  "Login mechanism: PLAIN, LOGIN, CRAM-MD5, XOAUTH2, OAUTHBEARER or EXTERNAL; or *oauth*: sendq gets tokens by itself and "
	  "uses OAUTHBEARER or XOAUTH2, see *OAUTH*." },
	{ "oauth_client_id", SQ_SETTING_STRING, R(oauth_client_id), 0, 0, 0, NULL, "none", "With *oauth*: the id of the client that you registered with the provider." },
	{ "oauth_client_secret_file", SQ_SETTING_PATH, R(oauth_client_secret_file), 0, 0, 0, NULL, "none", "File with the client's secret, where the provider gave one; only its owner may read it." },
	{ "oauth_client_secret_command", SQ_SETTING_STRING, R(oauth_client_secret_command), 0, 0, 0, NULL, "none", "Shell command that prints it instead." },
	{ "oauth_refresh_file", SQ_SETTING_PATH, R(oauth_refresh_file), 0, 0, 0, NULL, "oauth-<route> beside the queue",
	  "Where *sendq oauth* keeps the refresh token (mode 0600), and sendq its successors." },
	{ "oauth_refresh_command", SQ_SETTING_STRING, R(oauth_refresh_command), 0, 0, 0, NULL, "none", "Shell command that prints the refresh token instead, from a keyring for example." },
	{ "oauth_refresh_store", SQ_SETTING_STRING, R(oauth_refresh_store), 0, 0, 0, NULL, "none", "With *oauth_refresh_command*: shell command that keeps the refresh token which it reads on standard input." },
	{ "oauth_auth_url", SQ_SETTING_STRING, R(oauth_auth_url), 0, 0, 0, NULL, "the provider's", "Where you consent in a browser." },
	{ "oauth_device_url", SQ_SETTING_STRING, R(oauth_device_url), 0, 0, 0, NULL, "the provider's", "Where codes for consent on another device come from." },
	{ "oauth_token_url", SQ_SETTING_STRING, R(oauth_token_url), 0, 0, 0, NULL, "the provider's", "Where tokens come from." },
	{ "oauth_scope", SQ_SETTING_STRING, R(oauth_scope), 0, 0, 0, NULL, "the provider's", "What the token is for." },
	{ "oauth_ca_file", SQ_SETTING_PATH, R(oauth_ca_file), 0, 0, 0, NULL, "the system's", "Certificates of authorities to trust for these addresses." },
	{ "tls", SQ_SETTING_WORD, R(tls), SQ_TLS_REQUIRED, 0, 0, tls_words, "required",
	  "*none* sends in the clear; with a login only to this machine." },
	{ "ca_file", SQ_SETTING_PATH, R(ca_file), 0, 0, 0, NULL, "the system's", "Certificates of authorities to trust." },
	{ "fingerprint", SQ_SETTING_STRING, R(fingerprint), 0, 0, 0, NULL, "none",
	  "*sha256:<64 hex digits>* of the one certificate to accept." },
	{ "client_cert", SQ_SETTING_PATH, R(client_cert), 0, 0, 0, NULL, "none", "Client certificate (PEM)." },
	{ "client_key", SQ_SETTING_PATH, R(client_key), 0, 0, 0, NULL, "none", "Its key (PEM)." },
	{ "proxy", SQ_SETTING_STRING, R(proxy), 0, 0, 0, NULL, "none", "*socks5h://host:port* or *http://host:port*." },
	{ "ehlo_name", SQ_SETTING_STRING, R(ehlo_name), 0, 0, 0, NULL, "a random, stable name",
	  "Name given in EHLO. Must not change while messages wait." },
	{ "imap", SQ_SETTING_STRING, R(imap), 0, 0, 0, NULL, "none", "*imaps://host[:port]* of the same account, with the same login: its Sent folder is asked about messages in doubt." },
	{ "mta_log", SQ_SETTING_STRING, R(mta_log), 0, 0, 0, NULL, "none", "Log of the server where it is one's own, Postfix or Exim: a file, or *|command* that prints it. It is asked about messages in doubt; its clock must be right to a second or two." },
	{ "duplicates", SQ_SETTING_WORD, R(duplicates), SQ_DUPLICATES_AVOID, 0, 0, duplicates_words, "avoid",
	  "What is done with a message in doubt: *avoid* a second copy, *allow* one, or *ask* you; see *sendq*(1)." },
	{ "keeps_partial", SQ_SETTING_WORD, R(keeps_partial), SQ_AUTO, 0, 0, tristate_words, "auto",
	  "The server delivers what came before a cut. With *yes* a message starts only where it gets through with an even chance,"
	  " an hour apart, six times a day at most; *auto* is no." },
	{ "message_id", SQ_SETTING_WORD, R(message_id), SQ_MSGID_AUTO, 0, 0, message_id_words, "auto",
	  "Whether the server keeps or rewrites Message-ID: *kept*, *rewritten*, or *auto* to go by what is known and seen." },
	{ "eightbit", SQ_SETTING_WORD, R(eightbit_send), 0, 0, 0, eightbit_words, "fail",
	  "8-bit content for a server without 8BITMIME: *fail* with 5.6.3, or *send* it as it is." },
	{ "connections", SQ_SETTING_INT, R(connections), 1, 1, 20, NULL, "1", "Connections at once." },
	{ "retry_min", SQ_SETTING_DURATION, R(retry_min_ms), 30 * MINUTE, SECOND, DAY, NULL, "30m",
	  "First wait after a temporary refusal." },
	{ "retry_max", SQ_SETTING_DURATION, R(retry_max_ms), 2 * HOUR, SECOND, 7 * DAY, NULL, "2h", "Longest such wait." },
	{ "warn", SQ_SETTING_DURATION, R(warn_ms), 4 * HOUR, 0, 30 * DAY, NULL, "4h",
	  "The sender is told once of a message that waits so long. 0: never." },
	{ "alert", SQ_SETTING_DURATION, R(alert_ms), HOUR, 0, 30 * DAY, NULL, "1h",
	  "The sender is told, on this machine only, when a message first breaks off on the way, and again after so long if it does"
	  " so again. Less than an hour is taken for an hour; 0: never." },
	{ "expire", SQ_SETTING_DURATION, R(expire_ms), 5 * DAY, MINUTE, 365 * DAY, NULL, "5d",
	  "A message that waits so long is given up with a report." },
	{ "fallback", SQ_SETTING_STRING, R(fallback), 0, 0, 0, NULL, "none",
	  "Another route's name: mail that waited *fallback_after* goes by it, unchanged, while this route's server cannot be reached,"
	  " refuses the login, shows no good certificate or has its limit reached, and the other's lets you in. Never what is in doubt or half sent." },
	{ "fallback_after", SQ_SETTING_DURATION, R(fallback_after_ms), 30 * MINUTE, 0, 30 * DAY, NULL, "30m",
	  "How long a message waits, and the server was not logged in to, before the fallback is taken." },
	{ "force_from", SQ_SETTING_STRING, R(force_from), 0, 0, 0, NULL, "none",
	  "Address that every message of this route gets as its sender and in From, whatever its writer said; the name in From stays." },
};
const size_t sq_n_route_settings = SQ_LEN(sq_route_settings);

/* In the largest unit that leaves no rest: "10m", "25M", "90". */
static void
show(const struct sq_setting *t, int64_t v, char out[32])
{
	static const struct { char name; int64_t ms; } durations[] = { { 'd', DAY }, { 'h', HOUR }, { 'm', MINUTE }, { 's', SECOND } };
	static const struct { char name; int64_t octets; } sizes[] = { { 'G', 1024 * MEGA }, { 'M', MEGA }, { 'k', 1024 } };

	for (size_t i = 0; t->type == SQ_SETTING_DURATION && v > 0 && i < SQ_LEN(durations); i++)
		if (v % durations[i].ms == 0) {
			snprintf(out, 32, "%" PRId64 "%c", v / durations[i].ms, durations[i].name);
			return;
		}
	for (size_t i = 0; t->type == SQ_SETTING_SIZE && v > 0 && i < SQ_LEN(sizes); i++)
		if (v % sizes[i].octets == 0) {
			snprintf(out, 32, "%" PRId64 "%c", v / sizes[i].octets, sizes[i].name);
			return;
		}
	snprintf(out, 32, "%" PRId64, t->type == SQ_SETTING_DAYS ? v / DAY : v);
}

void
sq_setting_range(const struct sq_setting *t, char out[80])
{
	char low[32], high[32];

	show(t, t->min, low);
	show(t, t->max, high);
	if (t->max > 0)
		snprintf(out, 80, "%s to %s", low, high);
	else
		snprintf(out, 80, "at least %s", low);
}
