/*
 * Shared by content.c, which stores octets, and submit.c, which makes a
 * message of them.
 */
#ifndef SENDQ_QUEUE_INGEST_H
#define SENDQ_QUEUE_INGEST_H

#include "db.h"

enum { SQ_COMPARED_MAX = 8 };

struct sq_ingest {
	struct sq_queue *q;
	int lock_fd;             /* holds the lock on octet `id` of <queue>.ingest; -1: none taken */
	int64_t id;              /* 0 while all octets are in `pending` */
	int64_t chunks;          /* stored */
	uint64_t size;
	struct sq_buf pending;   /* the last, unfinished chunk */
	enum sq_err failed;
	struct {
		int64_t id;
		bool equal;
	} compared[SQ_COMPARED_MAX]; /* earlier messages whose content was looked at */
	size_t n_compared;
	int polite;            /* so many chunks more with a pause behind them */
	bool hashed;
	uint8_t sha256[32];
};

SQ_MUST_USE enum sq_err sq_content_add(struct sq_queue *q, int64_t id, int64_t chunk, struct sq_str data, struct sq_error *err);
void sq_ingest_free(struct sq_ingest *in);

#endif
