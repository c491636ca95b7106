/*
 * Frames from a hostile other side: decoded or refused, never read past; what
 * was decoded encodes to the octets it came from.
 */
#include <sendq/agent.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sq_frame f;
	struct sq_str in = { (const char *)data, size };

	while (in.n > 0) {
		struct sq_buf again = SQ_BUF_INIT(SQ_FRAME_MAX + SQ_FRAME_HEADER);
		struct sq_error err = { 0 };
		size_t used = 0;

		if (sq_frame_decode(in, &f, &used, &err) != SQ_OK) {
			if (err.text[0] == '\0')
				sq_bug("a frame is refused without a sentence");
			return 0;
		}
		if (used == 0)
			return 0;
		if (used > in.n)
			sq_bug("%zu octets of %zu were decoded", used, in.n);
		if (sq_frame_encode(&f, &again, &err) != SQ_OK || again.n != used || memcmp(again.p, in.p, used) != 0)
			sq_bug("%s does not encode to what it was: %s", sq_frame_type_name(f.type), err.text);
		sq_buf_fini(&again);
		in.p += used;
		in.n -= used;
	}
	return 0;
}
