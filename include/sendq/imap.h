/*
 * As much IMAP (RFC 3501, RFC 6154) as it takes to ask whether the account's
 * Sent folder has a copy of a message. Reads only: the folder is opened with
 * EXAMINE, header fields are fetched with PEEK, bodies are never downloaded.
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
	char trace[256];       /* the first line of such a field, printable ASCII; "" where none */
};

/*
 * Look for copies by Message-ID, then by X-Microsoft-Original-Message-ID and
 * X-Google-Original-Message-ID. At most SQ_IMAP_COPIES_MAX are looked at.
 * A Message-ID with control octets or quotes is refused: SQ_EINVAL.
 */
SQ_MUST_USE enum sq_err sq_imap_find(struct sq_imap *i, struct sq_str message_id, int traces, int timeout_ms, struct sq_imap_copies *out, struct sq_error *err);

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

/* Received fields in a header block; the first one's start into trace. */
int sq_imap_count_received(struct sq_str header, char trace[256]);

#endif
