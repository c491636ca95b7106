/*
 * sendq-dedup: partial and second copies in a mailbox. A mailbox lists its
 * copies, compares two of them and moves one to Trash; judge() decides what
 * each is. Nothing here ever removes octets that are not in another copy.
 */
#ifndef SENDQ_DEDUP_H
#define SENDQ_DEDUP_H

#include <sendq/imap.h>
#include <sendq/message.h>

/* How the bodies of two copies of one message stand to each other. */
enum order { ORDER_SAME, ORDER_LESS, ORDER_MORE, ORDER_OTHER };

enum kind { KIND_FIRST, KIND_PARTIAL, KIND_DUPLICATE, KIND_DIFFERS };

struct copy {
	char *where;          /* file below the Maildir, "octet N" of an mbox, "uid N" */
	char *id;             /* Message-ID as it stands, NULL: none */
	uint64_t offset, size; /* in its file; IMAP: offset 0 */
	uint64_t body;        /* octets before the body */
	uint64_t from_line;   /* mbox: octets of the From line before offset */
	uint32_t uid;
	bool cut;             /* ends before its closing MIME boundary, or in its header (never known over IMAP) */
	struct sq_imap_message *facts; /* IMAP */
	/* judged */
	enum kind kind;
	size_t of;            /* index of the copy it was compared with; itself where there is none */
	bool less;            /* `of` is strictly more complete */
	bool trashed;
};

struct copies { struct copy *v; size_t n, cap; };

struct mailbox;
struct mailbox_ops {
	enum sq_err (*list)(struct mailbox *m, struct copies *out, struct sq_error *err);
	/* More about copies that share a Message-ID, where list() did not look. NULL: nothing. */
	enum sq_err (*look)(struct mailbox *m, struct copy *c, struct sq_error *err);
	enum sq_err (*compare)(struct mailbox *m, const struct copy *a, const struct copy *b, enum order *out, struct sq_error *err);
	/* Move these to Trash (all `less`, in order). Sets trashed on each that was moved. */
	enum sq_err (*trash)(struct mailbox *m, struct copies *all, struct sq_error *err);
	void (*close)(struct mailbox *m);
};

struct options {
	bool json, trash;
	const char *trash_folder, *password_command, *password_file, *ca_file;
};

struct mailbox {
	const struct mailbox_ops *ops;
	const struct options *options;
	char *name;           /* as given */
	char *trash;          /* where to, once known */
	int fd;               /* mbox */
	char *lock;           /* mbox: the lock file that is ours */
	struct remote *remote;
};

/* By its shape: a folder is a Maildir, a file an mbox, imap: and imaps: are URLs. */
SQ_MUST_USE enum sq_err mailbox_open(struct mailbox *m, const char *name, const struct options *o, struct sq_error *err);
SQ_MUST_USE enum sq_err maildir_open(struct mailbox *m, struct sq_error *err);
SQ_MUST_USE enum sq_err mbox_open(struct mailbox *m, struct sq_error *err);
SQ_MUST_USE enum sq_err remote_open(struct mailbox *m, struct sq_error *err);

struct copy *copies_add(struct copies *c);  /* zeroed; memory out ends the program */
void copies_fini(struct copies *c);

/* Say of each copy what it is. Copies stand in the order in which they came. */
SQ_MUST_USE enum sq_err judge(struct mailbox *m, struct copies *c, struct sq_error *err);

/* Compare again, just before the move: true where `c` is still less than the copy it was compared with. */
SQ_MUST_USE enum sq_err still_less(struct mailbox *m, const struct copies *all, const struct copy *c, bool *out, struct sq_error *err);

/* ---- one message in a file (message.c): octets in, facts out ---- */

enum { EDGE_MAX = 998, FIELD_MAX = 64 * 1024 };

struct scan {
	struct sq_buf line;      /* the line under way, its first octets */
	struct sq_buf field;     /* the field under way, CRLF before folds */
	uint64_t octets, line_n; /* seen; of the line under way */
	bool in_body, closed, any_body;
	bool bad;                /* memory */
	char *id;
	char edge[EDGE_MAX + 1];
	uint64_t body;           /* octets before the body */
};

void scan_init(struct scan *s);
void scan_feed(struct scan *s, const char *p, size_t n);
/* True: the message ends before its closing boundary, or in its header. *id is handed over. */
bool scan_finish(struct scan *s, char **id, uint64_t *body);
void scan_fini(struct scan *s);

/* The boundary parameter of an unfolded Content-Type of a multipart; "" where there is none or it is too long. */
void scan_edge(struct sq_str content_type, char edge[EDGE_MAX + 1]);

/*
 * Bodies of two regions without regard to how lines end, and to line ends
 * behind the last line. LESS: a's is a beginning of b's, and shorter.
 */
SQ_MUST_USE enum sq_err compare_regions(int fd_a, uint64_t from_a, uint64_t to_a, int fd_b, uint64_t from_b, uint64_t to_b, enum order *out, struct sq_error *err);

/* Mbox: does a message begin with this line behind an empty one? */
bool mbox_begins(struct sq_str line);

/* IMAP: compare by sizes and structure. */
enum order compare_structure(const struct sq_imap_message *a, const struct sq_imap_message *b);

#endif
