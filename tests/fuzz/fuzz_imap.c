/* What an IMAP server says of folders and header fields: bounded, and names without control characters. */
#include <sendq/imap.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sq_str in = { (const char *)data, size };
	char folder[SQ_IMAP_FOLDER_MAX], trace[256], id[256];
	int rank = sq_imap_list_rank(in, folder), n = sq_imap_count_received(in, trace);

	sq_imap_message_id(in, id);
	for (const char *c = id; *c; c++)
		if (*c < 33 || *c > 126 || c - id > 254)
			sq_bug("an id with octet %d", *c);
	if (rank < 0 || rank > 3 || (rank > 0 && folder[0] == '\0') || !memchr(folder, 0, sizeof(folder)))
		sq_bug("rank %d of folder '%s'", rank, folder);
	if (n < 0 || (size_t)n > size / 9 || !memchr(trace, 0, sizeof(trace)))
		sq_bug("%d Received fields in %zu octets", n, size);
	for (const char *c = trace; *c; c++)
		if (*c < 32 || *c > 126)
			sq_bug("a trace with octet %d", *c);
	return 0;
}
