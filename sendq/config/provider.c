/*
 * The table of providers. Their own help pages are the source; what changes
 * there changes here.
 */
#include <sendq/provider.h>

#define APP_PASSWORD "an app password made in the account's security settings, not the account's own"

const struct sq_provider sq_providers[] = {
	{ "gmail", "Gmail", "gmail.com googlemail.com", ".google.com", "smtps://smtp.gmail.com:465", "imaps://imap.gmail.com:993", true, false,
	  APP_PASSWORD " (it needs two-step login); or OAuth with a client id of yours",
	  "https://accounts.google.com/o/oauth2/v2/auth", NULL, "https://oauth2.googleapis.com/token", "https://mail.google.com/", NULL },
	{ "office365", "Microsoft 365", "", ".mail.protection.outlook.com", "smtp://smtp.office365.com:587", "imaps://outlook.office365.com:993", true, true,
	  "OAuth with a client id of yours; passwords are being switched off for SMTP",
	  "https://login.microsoftonline.com/common/oauth2/v2.0/authorize", "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
	  "https://login.microsoftonline.com/common/oauth2/v2.0/token", "https://outlook.office.com/SMTP.Send offline_access",
	  "https://outlook.office.com/IMAP.AccessAsUser.All" },
	{ "outlook", "Outlook.com", "outlook.com hotmail.com live.com msn.com outlook.de outlook.fr hotmail.co.uk hotmail.de hotmail.fr hotmail.it live.de live.nl",
	  ".olc.protection.outlook.com", "smtp://smtp-mail.outlook.com:587", "imaps://outlook.office365.com:993", true, true,
	  "OAuth with a client id of yours; passwords are switched off for SMTP",
	  "https://login.microsoftonline.com/common/oauth2/v2.0/authorize", "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
	  "https://login.microsoftonline.com/common/oauth2/v2.0/token", "https://outlook.office.com/SMTP.Send offline_access",
	  "https://outlook.office.com/IMAP.AccessAsUser.All" },
	{ "icloud", "iCloud", "icloud.com me.com mac.com", ".mail.icloud.com", "smtp://smtp.mail.me.com:587", "imaps://imap.mail.me.com:993", true, false,
	  "an app-specific password made at account.apple.com", NULL, NULL, NULL, NULL, NULL },
	{ "yahoo", "Yahoo", "yahoo.com yahoo.co.uk yahoo.de yahoo.fr yahoo.it yahoo.es ymail.com rocketmail.com", ".yahoodns.net",
	  "smtps://smtp.mail.yahoo.com:465", "imaps://imap.mail.yahoo.com:993", true, false, APP_PASSWORD, NULL, NULL, NULL, NULL, NULL },
	{ "aol", "AOL", "aol.com aim.com", NULL, "smtps://smtp.aol.com:465", "imaps://imap.aol.com:993", true, false, APP_PASSWORD, NULL, NULL, NULL, NULL, NULL },
	{ "fastmail", "Fastmail", "fastmail.com fastmail.fm fastmail.net sent.com", ".messagingengine.com", "smtps://smtp.fastmail.com:465", "imaps://imap.fastmail.com:993",
	  false, false, "an app password made under Privacy & Security", NULL, NULL, NULL, NULL, NULL },
	{ "gmx", "GMX", "gmx.de gmx.net gmx.at gmx.ch", ".gmx.net", "smtps://mail.gmx.net:465", "imaps://imap.gmx.net:993", false, false,
	  "the usual one, once POP3/IMAP access is switched on in the account", NULL, NULL, NULL, NULL, NULL },
	{ "gmxcom", "GMX", "gmx.com gmx.us gmx.co.uk", NULL, "smtps://mail.gmx.com:465", "imaps://imap.gmx.com:993", false, false,
	  "the usual one, once POP3/IMAP access is switched on in the account", NULL, NULL, NULL, NULL, NULL },
	{ "webde", "WEB.DE", "web.de", ".web.de", "smtps://smtp.web.de:465", "imaps://imap.web.de:993", false, false,
	  "the usual one, once POP3/IMAP access is switched on in the account", NULL, NULL, NULL, NULL, NULL },
	{ "mailru", "Mail.ru", "mail.ru inbox.ru list.ru bk.ru internet.ru", ".mail.ru", "smtps://smtp.mail.ru:465", "imaps://imap.mail.ru:993", false, false,
	  "a password for external applications made in the account's security settings", NULL, NULL, NULL, NULL, NULL },
	{ "yandex", "Yandex", "yandex.ru yandex.com ya.ru", ".yandex.ru", "smtps://smtp.yandex.com:465", "imaps://imap.yandex.com:993", false, false, APP_PASSWORD,
	  NULL, NULL, NULL, NULL, NULL },
	{ "zoho", "Zoho", "zoho.com zohomail.com", ".zoho.com", "smtps://smtp.zoho.com:465", "imaps://imap.zoho.com:993", false, false, NULL, NULL, NULL, NULL, NULL, NULL },
	{ "posteo", "Posteo", "posteo.de posteo.net posteo.org", ".posteo.de", "smtps://posteo.de:465", "imaps://posteo.de:993", false, false, NULL, NULL, NULL, NULL, NULL, NULL },
	{ "mailbox", "mailbox.org", "mailbox.org", ".mailbox.org", "smtps://smtp.mailbox.org:465", "imaps://imap.mailbox.org:993", false, false, NULL, NULL, NULL, NULL, NULL, NULL },
};
const size_t sq_n_providers = SQ_LEN(sq_providers);

/* `word` is one of the words in `list`. */
static bool
is_in(const char *list, struct sq_str word)
{
	while (*list) {
		size_t n = strcspn(list, " ");

		if (word.n > 0 && sq_str_caseeq((struct sq_str){ list, n }, word))
			return true;
		list += n + (list[n] == ' ');
	}
	return false;
}

const struct sq_provider *
sq_provider_of_domain(const char *domain)
{
	for (size_t i = 0; i < sq_n_providers; i++)
		if (is_in(sq_providers[i].domains, sq_str(domain)))
			return &sq_providers[i];
	return NULL;
}

const struct sq_provider *
sq_provider_of_host(const char *host)
{
	for (size_t i = 0; i < sq_n_providers; i++) {
		const char *begin = strstr(sq_providers[i].server, "://") + 3;

		if (sq_str_caseeq((struct sq_str){ begin, strcspn(begin, ":") }, sq_str(host)))
			return &sq_providers[i];
	}
	return NULL;
}

const struct sq_provider *
sq_provider_of_mx(const char *mx)
{
	size_t n = strlen(mx);

	for (size_t i = 0; i < sq_n_providers; i++) {
		size_t m = sq_providers[i].mx ? strlen(sq_providers[i].mx) : 0;

		if (m > 0 && n > m && sq_str_caseeq((struct sq_str){ mx + n - m, m }, sq_str(sq_providers[i].mx)))
			return &sq_providers[i];
	}
	return NULL;
}
