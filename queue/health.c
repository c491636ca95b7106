/*
 * How the database is: its size, and whether its pages hang together.
 */
#include "db.h"

struct patience {
	bool (*go_on)(void *);
	void *arg;
	bool over;
};

static int
ask(void *arg)
{
	struct patience *p = arg;

	p->over = p->go_on && !p->go_on(p->arg);
	return p->over;
}

static enum sq_err
quick_check(struct sq_queue *q, struct patience *p, struct sq_queue_health *out, struct sq_error *err)
{
	enum sq_step step;
	SQ_STMT(s, q, SQL_QUICK_CHECK);

	sqlite3_progress_handler(q->db, 10000, ask, p);
	step = sq_stmt_step(&s, err);
	sqlite3_progress_handler(q->db, 0, NULL, NULL);
	if (step == SQ_FAILED && p->over)
		return SQ_OK;
	if (step == SQ_FAILED && err->code == SQ_ECORRUPT) {
		snprintf(out->problem, sizeof(out->problem), "%s", err->text);
		return SQ_OK;
	}
	if (step == SQ_FAILED)
		return err->code;
	out->checked = true;
	if (step == SQ_ROW && !sq_str_eq(sq_col_str(&s, 0), SQ_STR("ok")))
		snprintf(out->problem, sizeof(out->problem), "%.500s", (const char *)sqlite3_column_text(s.st, 0));
	return SQ_OK;
}

enum sq_err
sq_queue_health(struct sq_queue *q, bool (*go_on)(void *), void *arg, struct sq_queue_health *out, struct sq_error *err)
{
	struct patience p = { go_on, arg, false };
	int64_t pages = 0, unused = 0, version = 0;
	enum sq_err e;

	*out = (struct sq_queue_health){ 0 };
	if ((e = sq_db_int(q, SQL_PAGE_COUNT, &pages, err)) != SQ_OK || (e = sq_db_int(q, SQL_FREE_PAGES, &unused, err)) != SQ_OK ||
	    (e = sq_db_int(q, SQL_USER_VERSION, &version, err)) != SQ_OK)
		return e;
	out->octets = pages * 4096;
	out->free_octets = unused * 4096;
	out->version = (int)version;
	return quick_check(q, &p, out, SQ_ERR(err));
}
