/* The names in outcome.h. */
#include <sendq/outcome.h>

const char *
sq_state_name(enum sq_state s)
{
	switch (s) {
#define X(n, id, name) case SQ_STATE_##id: return name;
	SQ_STATE_LIST(X)
#undef X
	case SQ_STATE_COUNT: break;
	}
	return "?";
}

const char *
sq_phase_name(enum sq_phase p)
{
	switch (p) {
#define X(n, id, name) case SQ_PHASE_##id: return name;
	SQ_PHASE_LIST(X)
#undef X
	case SQ_PHASE_COUNT: break;
	}
	return "?";
}

const char *
sq_outcome_name(enum sq_outcome o)
{
	switch (o) {
#define X(n, id, name) case SQ_OUTCOME_##id: return name;
	SQ_OUTCOME_LIST(X)
#undef X
	case SQ_OUTCOME_COUNT: break;
	}
	return "?";
}
