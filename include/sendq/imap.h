/*
 * As much IMAP (RFC 3501, RFC 6154) as it takes to ask whether the account's
 * Sent folder has a copy of a message, and to tell copies in a folder apart by
 * sizes, envelopes and structure. Header fields are fetched with PEEK, bodies
 * are never downloaded. Folders are opened with EXAMINE, but for a caller who
 * is going to move messages (RFC 6851); nothing is ever expunged.
 * The connection stands and is logged in (sq_conn_open()).
 */
#ifndef SENDQ_IMAP_H
#define SENDQ_IMAP_H

#include <sendq/net.h>

enum { SQ_IMAP_LINE_MAX = 256 * 1024, SQ_IMAP_FOLDER_MAX = 512, SQ_IMAP_COPIES_MAX = 8 };

struct sq_imap {
	struct sq_conn *conn;
	int64_t deadline;              /* boot ms, of the command under way */
	bool (*abandoned)(void *);
	void *abandoned_arg;
	uint32_t tag;
	struct sq_buf in;              /* received, not yet taken */
	size_t taken;
	struct sq_buf line;            /* the response being read, literals included */
	char folder[SQ_IMAP_FOLDER_MAX]; /* as the server writes it, without quotes; "" until found */
	bool opened;
	bool moves;                    /* the server has MOVE; asked for when it is wanted */
};

void sq_imap_init(struct sq_imap *i, struct sq_conn *conn, bool (*abandoned)(void *), void *arg);
void sq_imap_fini(struct sq_imap *i);  /* frees buffers; the connection stays the caller's */

/*
 * Find the folder in which the server files sent mail: the one marked \Sent,
 * else \All, else one of the usual names; and open it for reading.
 * SQ_ENOENT with a sentence: there is none. SQ_EPROTO, SQ_EEOF, SQ_EIO,
 * SQ_ETIMEOUT: the session is of no more use.
 */
SQ_MUST_USE enum sq_err sq_imap_open_sent(struct sq_imap *i, int timeout_ms, struct sq_error *err);

/* What the folder knows of a Message-ID. */
struct sq_imap_copies {
	int n;                 /* copies */
	int traced;            /* of them with more Received fields than `traces` */
	bool rewritten;        /* found by the field in which a provider keeps the Message-ID that it replaced */
	char message_id[256];  /* of the first traced copy, in brackets; "" where none, or none that fits */
	char trace[256];       /* the first line of such a field, printable ASCII; "" where none */
};

/*
 * Look for copies by Message-ID, then by X-Microsoft-Original-Message-ID and
 * X-Google-Original-Message-ID. At most SQ_IMAP_COPIES_MAX are looked at.
 * A Message-ID with control octets or quotes is refused: SQ_EINVAL.
 */
SQ_MUST_USE enum sq_err sq_imap_find(struct sq_imap *i, struct sq_str message_id, int traces, int timeout_ms, struct sq_imap_copies *out, struct sq_error *err);

/* Open a folder by the name that the server uses (modified UTF-7); `writable`: SELECT. SQ_ENOENT: it says no. */
SQ_MUST_USE enum sq_err sq_imap_open_folder(struct sq_imap *i, struct sq_str folder, bool writable, int timeout_ms, uint32_t *out_messages, struct sq_error *err);

struct sq_imap_message;

/*
 * Sizes and envelopes of the messages numbered first to last, and with `uid`
 * not 0 instead of that one message, its structure too. `each` gets them as
 * they come; a response that cannot be read is SQ_EPROTO.
 */
SQ_MUST_USE enum sq_err sq_imap_fetch(struct sq_imap *i, uint32_t first, uint32_t last, uint32_t uid, int timeout_ms, void (*each)(void *arg, const struct sq_imap_message *m), void *arg, struct sq_error *err);

/* The folder marked \Trash, else one of the usual names. SQ_ENOENT: none. */
SQ_MUST_USE enum sq_err sq_imap_find_trash(struct sq_imap *i, int timeout_ms, char folder[SQ_IMAP_FOLDER_MAX], struct sq_error *err);

/* UID MOVE to a folder. SQ_EPERM with a sentence where the server has no MOVE: copying and expunging is not tried. */
SQ_MUST_USE enum sq_err sq_imap_move(struct sq_imap *i, uint32_t uid, struct sq_str folder, int timeout_ms, struct sq_error *err);

/* LOGOUT, best effort, without waiting long. */
void sq_imap_logout(struct sq_imap *i);

/* ---- the pure parts, for tests and fuzzing ---- */

/*
 * One LIST response ("* LIST (\HasNoChildren \Sent) "/" "Sent Items"", the
 * name quoted, an atom or a literal) into its folder. Returns how good it is
 * as the place of sent mail: 3 \Sent, 2 \All, 1 a usual name, 0 none of
 * these or not a LIST response.
 */
int sq_imap_list_rank(struct sq_str line, char folder[SQ_IMAP_FOLDER_MAX]);

/* The same as the place of deleted mail: 3 \Trash, 1 a usual name, 0 none of these. */
int sq_imap_list_trash_rank(struct sq_str line, char folder[SQ_IMAP_FOLDER_MAX]);

enum { SQ_IMAP_PARTS_MAX = 256, SQ_IMAP_DEPTH_MAX = 32, SQ_IMAP_ID_MAX = 998 };

/* A part without parts: what it is (a hash of type, parameters and encoding) and the octets of its content as sent. */
struct sq_imap_part { uint64_t kind, octets; };

/* What FETCH tells of a message. */
struct sq_imap_message {
	uint32_t uid;
	uint64_t size;         /* RFC822.SIZE */
	uint64_t envelope;     /* a hash of it */
	char message_id[SQ_IMAP_ID_MAX + 1]; /* "" where there is none, or none that fits */
	uint64_t edge;         /* octets of the longest boundary, 0: no multipart told */
	size_t n_parts;        /* 0: no structure told, or more than fits */
	struct sq_imap_part parts[SQ_IMAP_PARTS_MAX];
};

/*
 * One FETCH response. Parts inside parts stand in their order; a message that
 * is itself a part counts as one. False: it is none, or breaks the grammar.
 */
bool sq_imap_parse_fetch(struct sq_str response, struct sq_imap_message *out);

/* "<…@…>", printable ASCII, from the Message-ID field of a header block; "" where there is none that fits. */
void sq_imap_message_id(struct sq_str header, char out[256]);

/* Received fields in a header block; the first one's start into trace. */
int sq_imap_count_received(struct sq_str header, char trace[256]);

#endif
