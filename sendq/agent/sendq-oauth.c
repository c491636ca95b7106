/*
 * sendq-oauth: one process for one token (agent.h). It hears and speaks on
 * descriptor 3 alone, takes no arguments and no environment of ours, reads
 * nothing but what names and certificates need, writes nothing, and its
 * memory can be read by nobody.
 */
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include <sendq/io.h>

#include "confine.h"
#include "helper.h"
#include "oauth.h"

static void
prompt(void *arg, const struct sq_token_prompt *p)
{
	struct sq_frame f = { .type = SQ_FRAME_TOKEN_PROMPT };

	f.u.token_prompt = *p;
	helper_put(arg, &f);
}

int
main(void)
{
	static struct sq_frame f;
	static struct oauth_answer answer;
	struct sq_stream runner;
	struct oauth o = { .job = &f.u.token_job, .prompt = prompt, .gone = helper_gone, .arg = &runner };
	struct sq_frame out = { .type = SQ_FRAME_TOKEN };
	char *ca;

	signal(SIGPIPE, SIG_IGN);
	confine_process();
	helper_job(&runner, SQ_FRAME_TOKEN_JOB, &f);
	ca = sq_str_dup(f.u.token_job.ca_file);
	confine_to_system(ca);
	oauth_run(&o, &answer);
	out.u.token = answer.token;
	helper_put(&runner, &out);
	sq_wipe(&answer, sizeof(answer));
	sq_stream_wipe(&runner);
	_exit(EX_OK);
}
