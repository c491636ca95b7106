/*
 * sendq-lookup: looks for the servers of one address and ends (agent.h).
 * Confined like sendq-oauth; it is given no secret at all.
 */
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include "confine.h"
#include "helper.h"
#include "lookup.h"

static void
found(void *arg, const struct sq_lookup *l)
{
	struct sq_frame f = { .type = SQ_FRAME_LOOKUP };

	f.u.lookup = *l;
	helper_put(arg, &f);
}

int
main(void)
{
	static struct sq_frame f;
	static char words[SQ_REPLY_TEXT_MAX];
	struct sq_stream runner;
	struct lookup l = { .job = &f.u.lookup_job, .found = found, .gone = helper_gone, .arg = &runner };
	struct sq_frame out = { .type = SQ_FRAME_END };
	char *ca;

	signal(SIGPIPE, SIG_IGN);
	confine_process();
	helper_job(&runner, SQ_FRAME_LOOKUP_JOB, &f);
	ca = sq_str_dup(f.u.lookup_job.ca_file);
	confine_to_system(ca);
	lookup_run(&l, words);
	out.u.end = (struct sq_end){ .outcome = SQ_OUTCOME_ACCEPTED, .reply = { .text = sq_str(words) } };
	helper_put(&runner, &out);
	_exit(EX_OK);
}
