/*
 * What is done beside the sessions: the sweep.
 */
#include "store.h"

enum sq_err
gw_worker_round(const struct gw_settings *s, struct sq_error *err)
{
	SQ_CLEANUP(gw_store_freep) struct gw_store *store = NULL;
	enum sq_err e = gw_store_open(s->state, &s->limits, &store, err);

	return e == SQ_OK ? gw_store_sweep(store, err) : e;
}
