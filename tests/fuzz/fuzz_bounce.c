/* Delivery reports come from anywhere. What is read stays within its bounds and is printable. */
#include <sendq/bounce.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
printable(const char *s, size_t max)
{
	if (strlen(s) >= max)
		abort();
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sq_bounce b;

	if (sq_bounce_read((struct sq_str){ (const char *)data, size }, &b, NULL) != SQ_OK)
		return 0;
	if (b.n_recipients > SQ_BOUNCE_RECIPIENTS_MAX || b.n_message_ids > SQ_BOUNCE_IDS_MAX || (!b.is_report && (b.n_recipients || b.envid[0])))
		abort();
	printable(b.envid, sizeof(b.envid));
	printable(b.by, sizeof(b.by));
	for (size_t i = 0; i < b.n_message_ids; i++)
		printable(b.message_ids[i], sizeof(b.message_ids[i]));
	for (size_t i = 0; i < b.n_recipients; i++) {
		const struct sq_bounce_recipient *r = &b.recipients[i];

		printable(r->original, sizeof(r->original));
		printable(r->final, sizeof(r->final));
		printable(r->enhanced, sizeof(r->enhanced));
		printable(r->words, sizeof(r->words));
		if (r->code != 0 && (r->code < 400 || r->code > 599))
			abort();
	}
	sq_bounce_fini(&b);
	return 0;
}
