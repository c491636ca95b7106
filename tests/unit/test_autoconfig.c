/* Autoconfig files of friends and of strangers; the table of providers. */
#include <sendq/provider.h>

#include "../../sendq/agent/autoconfig.h"
#include "harness.h"

#define FILE_OF(body) "<?xml version=\"1.0\"?><clientConfig version=\"1.1\"><emailProvider id=\"x\">" body "</emailProvider></clientConfig>"
#define SMTP(host, port, socket) "<outgoingServer type=\"smtp\"><hostname>" host "</hostname><port>" port "</port><socketType>" socket "</socketType>"
#define END "</outgoingServer>"

static const struct { const char *text, *server, *user; } files[] = {
	{ FILE_OF(SMTP("mx.example.org", "465", "SSL") "<username>%EMAILADDRESS%</username>" END), "smtps://mx.example.org:465", "ann@example.org" },
	{ FILE_OF(SMTP(" smtp.%EMAILDOMAIN%\n", " 587 ", "STARTTLS") "<username>%EMAILLOCALPART%</username>" END), "smtp://smtp.example.org:587", "ann" },
	/* TLS from the start is taken, wherever it stands; what is not encrypted is not. */
	{ FILE_OF(SMTP("a.org", "587", "STARTTLS") END SMTP("b.org", "465", "SSL") END SMTP("c.org", "25", "plain") END), "smtps://b.org:465", "" },
	{ FILE_OF(SMTP("b.org", "465", "SSL") END SMTP("a.org", "587", "STARTTLS") END), "smtps://b.org:465", "" },
	{ FILE_OF(SMTP("c.org", "25", "plain") END), "", NULL },
	/* What is no host, no port, or no such file. */
	{ FILE_OF(SMTP("a.org/x", "465", "SSL") END), "", NULL },
	{ FILE_OF(SMTP("a.org&quot;; x = &quot;", "465", "SSL") END), "", NULL },
	{ FILE_OF(SMTP("-oX", "465", "SSL") END), "", NULL },
	{ FILE_OF(SMTP("a..org", "465", "SSL") END), "", NULL },
	{ FILE_OF(SMTP("a.org", "65536", "SSL") END), "", NULL },
	{ FILE_OF(SMTP("a.org", "465x", "SSL") END), "", NULL },
	{ "<html><body>" SMTP("a.org", "465", "SSL") END "</body></html>", "", NULL },
	{ "<clientConfig>" SMTP("a.org", "465", "SSL") END, "", NULL },
	{ "<!DOCTYPE a [<!ENTITY e \"a.org\">]><clientConfig>" SMTP("&e;", "465", "SSL") END "</clientConfig>", "", NULL },
	{ "", "", NULL },
};

START_TEST(taken_or_not)
{
	struct autoconfig a;
	const char *why = "";
	bool good = autoconfig_parse(files[_i].text, strlen(files[_i].text), "ann@example.org", &a, &why);

	ck_assert_msg(good == (files[_i].server[0] != '\0'), "%s: %s", files[_i].text, why);
	if (good) {
		ck_assert_str_eq(a.server, files[_i].server);
		ck_assert_str_eq(a.user, files[_i].user);
	}
}
END_TEST

/* However it is cut, nothing is read past and nothing is taken. */
START_TEST(cut)
{
	struct autoconfig a;
	const char *why;

	for (size_t n = 0; n < strlen(files[0].text); n++) {
		char *part = malloc(n ? n : 1);

		memcpy(part, files[0].text, n);
		ck_assert_msg(!autoconfig_parse(part, n, "ann@example.org", &a, &why), "%zu octets are taken for a file", n);
		free(part);
	}
}
END_TEST

static const struct { const char *domain, *host, *mx, *id; } known[] = {
	{ "gmail.com", "smtp.gmail.com", "aspmx.l.google.com", "gmail" },
	{ "GoogleMail.com", NULL, NULL, "gmail" },
	{ "icloud.com", "smtp.mail.me.com", "mx01.mail.icloud.com", "icloud" },
	{ NULL, "SMTP.office365.com", "example-org.mail.protection.outlook.com", "office365" },
	{ "hotmail.com", "smtp-mail.outlook.com", NULL, "outlook" },
	{ "gmx.net", "mail.gmx.net", NULL, "gmx" },
	{ "mail.ru", "smtp.mail.ru", "mxs.mail.ru", "mailru" },
};

START_TEST(providers)
{
	if (known[_i].domain)
		ck_assert_str_eq(sq_provider_of_domain(known[_i].domain)->id, known[_i].id);
	if (known[_i].host)
		ck_assert_str_eq(sq_provider_of_host(known[_i].host)->id, known[_i].id);
	if (known[_i].mx)
		ck_assert_str_eq(sq_provider_of_mx(known[_i].mx)->id, known[_i].id);
}
END_TEST

START_TEST(strangers)
{
	static const char *const names[] = { "", "mail.com", "notgmail.com", "gmail.com.example.org", "com", "google.com.evil.org", ".google.com" };

	for (size_t i = 0; i < SQ_LEN(names); i++) {
		ck_assert_msg(!sq_provider_of_domain(names[i]), "%s", names[i]);
		ck_assert_msg(!sq_provider_of_host(names[i]), "%s", names[i]);
		ck_assert_msg(!sq_provider_of_mx(names[i]), "%s", names[i]);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("autoconfig");
	TCase *t = tcase_create("autoconfig");

	tcase_add_loop_test(t, taken_or_not, 0, (int)SQ_LEN(files));
	tcase_add_test(t, cut);
	tcase_add_loop_test(t, providers, 0, (int)SQ_LEN(known));
	tcase_add_test(t, strangers);
	suite_add_tcase(s, t);
	return test_main(s);
}
