/*
 * A mailbox that is anything: read in pieces of two sizes it is the same, what
 * is found lies inside it, and of two copies at most one is less.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "dedup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
facts(const char *p, size_t n, size_t step, char **id, uint64_t *body)
{
	struct scan s;
	bool cut;

	scan_init(&s);
	for (size_t k = 0; k < n; k += step)
		scan_feed(&s, p + k, n - k < step ? n - k : step);
	cut = scan_finish(&s, id, body);
	scan_fini(&s);
	return cut;
}

static void
message(const char *p, size_t n)
{
	uint64_t body_a, body_b;
	char *a, *b;
	bool cut_a = facts(p, n, n + 1, &a, &body_a), cut_b = facts(p, n, 7, &b, &body_b);

	if (cut_a != cut_b || body_a != body_b || !a != !b || (a && strcmp(a, b) != 0))
		sq_bug("in pieces another message");
	if (body_a > n || (a && strchr(a, '\n')))
		sq_bug("body at %llu of %zu", (unsigned long long)body_a, n);
	free(a);
	free(b);
}

/* Two FETCH responses with a NUL between them. */
static void
structures(const char *p, size_t n)
{
	static struct sq_imap_message a, b;
	const char *nul = n ? memchr(p, '\0', n) : NULL;
	enum order there, back;

	if (!nul || !sq_imap_parse_fetch((struct sq_str){ p, (size_t)(nul - p) }, &a) ||
	    !sq_imap_parse_fetch((struct sq_str){ nul + 1, n - (size_t)(nul + 1 - p) }, &b))
		return;
	there = compare_structure(&a, &b);
	back = compare_structure(&b, &a);
	if (there == ORDER_LESS ? back != ORDER_MORE : there == ORDER_MORE ? back != ORDER_LESS : there != back)
		sq_bug("%d there and %d back", there, back);
	if (a.n_parts > 0 && compare_structure(&a, &a) != ORDER_SAME)
		sq_bug("a message is not the same as itself");
	if (a.n_parts > SQ_IMAP_PARTS_MAX || !memchr(a.message_id, 0, sizeof(a.message_id)))
		sq_bug("%zu parts", a.n_parts);
}

static void
mailbox(const uint8_t *data, size_t size)
{
	static const struct options o = { .json = true };
	struct copies all = { 0 };
	struct sq_error err = { 0 };
	struct mailbox m;
	uint64_t before = 0;
	char path[64];
	int fd = memfd_create("mbox", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		sq_bug("no memory for a file");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (mailbox_open(&m, path, &o, &err) != SQ_OK)
		sq_bug("%s", err.text);
	if (m.ops->list(&m, &all, &err) == SQ_OK && judge(&m, &all, &err) == SQ_OK)
		for (size_t k = 0; k < all.n; k++) {
			const struct copy *c = &all.v[k];

			if (c->offset - c->from_line < before || c->offset + c->size > size || c->body > c->size)
				sq_bug("message %zu lies at %llu", k, (unsigned long long)c->offset);
			if (c->less && (c->of == k || all.v[c->of].less || c->kind != KIND_PARTIAL))
				sq_bug("message %zu is less than one that may go itself", k);
			before = c->offset + c->size;
		}
	m.ops->close(&m);
	copies_fini(&all);
	free(m.name);
	free(m.trash);
	close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char edge[EDGE_MAX + 1];

	message((const char *)data, size);
	structures((const char *)data, size);
	scan_edge((struct sq_str){ (const char *)data, size }, edge);
	if (!memchr(edge, 0, sizeof(edge)) || strlen(edge) > size)
		sq_bug("a boundary longer than its field");
	mailbox(data, size);
	return 0;
}
