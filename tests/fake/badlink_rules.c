/*
 * The rules of badlink: parsed from the command line and the control file,
 * chosen by connection, counted when they fire.
 */
#include "badlink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RULES_MAX = 64 };

static struct rule rules[RULES_MAX];
static int n_fixed, n_rules;
static const char *control_path;

static bool
parse_way(const char *v, int64_t out[2])
{
	if (strncmp(v, "up:", 3) == 0)
		out[UP] = strtoll(v + 3, NULL, 10);
	else if (strncmp(v, "down:", 5) == 0)
		out[DOWN] = strtoll(v + 5, NULL, 10);
	else
		return false;
	return true;
}

static bool
parse_who(const char *w, struct rule *r)
{
	char *end;

	if (strcmp(w, "*") == 0) {
		r->first = 1;
		r->last = INT32_MAX;
		return true;
	}
	r->first = r->last = (int)strtol(w, &end, 10);
	if (*end == '-')
		r->last = end[1] ? (int)strtol(end + 1, &end, 10) : INT32_MAX;
	return r->first > 0 && r->last >= r->first;
}

static bool
parse_word(const char *word, struct rule *r)
{
	const char *v = strchr(word, '=');

	if (strcmp(word, "refuse") == 0)
		return r->refuse = true;
	if (!v)
		return false;
	v++;
#define KEY(k) (strncmp(word, k "=", sizeof(k)) == 0)
	if (KEY("cut"))
		return parse_way(v, r->cut);
	if (KEY("hole"))
		return parse_way(v, r->hole);
	if (KEY("stall"))
		return parse_way(v, r->stall);
	if (KEY("unit")) {
		int64_t n[2] = { 0, 0 };
		bool known = parse_way(v, n);

		r->unit[UP] = (int)n[UP];
		r->unit[DOWN] = (int)n[DOWN];
		return known && (n[UP] > 0 || n[DOWN] > 0);
	}
	if (KEY("off"))
		return (r->off = (int)strtol(v, NULL, 10)) >= -1 && r->off <= 1;
	if (KEY("reply"))
		return (r->reply = (int)strtol(v, NULL, 10)) > 0;
	if (KEY("nth"))
		return (r->nth = (int)strtol(v, NULL, 10)) > 0;
	if (KEY("times"))
		return (r->times = (int)strtol(v, NULL, 10)) > 0;
	if (KEY("pass"))
		return (r->pass = strtoll(v, NULL, 10)) >= 0;
	if (KEY("rate"))
		return (r->rate = strtoll(v, NULL, 10)) > 0;
	if (KEY("delay"))
		return (r->delay = strtoll(v, NULL, 10)) >= 0;
	if (KEY("final")) {
		r->final = strcmp(v, "hold") == 0 ? FINAL_HOLD : FINAL_CUT;
		return strcmp(v, "hold") == 0 || strcmp(v, "cut") == 0;
	}
	if (KEY("with")) {
		r->fin = strcmp(v, "fin") == 0;
		return r->fin || strcmp(v, "rst") == 0;
	}
	if (KEY("side")) {
		r->side_client = strcmp(v, "server") != 0;
		r->side_server = strcmp(v, "client") != 0;
		return strcmp(v, "both") == 0 || r->side_client != r->side_server;
	}
#undef KEY
	return false;
}

/* A rule that cannot be read ends the program: a test must never guard nothing. */
static void
add(const char *text)
{
	struct rule r = { .cut = { NEVER, NEVER }, .hole = { NEVER, NEVER }, .stall = { NEVER, NEVER },
		.nth = 1, .side_client = true, .side_server = true };
	char copy[256], *save = NULL;
	int words = 0;

	if (strlen(text) >= sizeof(copy) || n_rules == RULES_MAX)
		die("rule too long or too many: '%s'", text);
	memcpy(r.text, text, strlen(text) + 1);
	memcpy(copy, text, strlen(text) + 1);
	for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save), words++)
		if (!(words == 0 ? parse_who(w, &r) : parse_word(w, &r)))
			die("cannot read '%s' in rule '%s'", w, text);
	if (words > 0)
		rules[n_rules++] = r;
}

/* Read the control file again; a rule that stands there unchanged keeps its count. */
static void
load_control(void)
{
	struct rule old[RULES_MAX];
	int n_old = n_rules;
	char line[256];
	FILE *f = control_path ? fopen(control_path, "re") : NULL;

	memcpy(old, rules, sizeof(old));
	n_rules = n_fixed;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] != '#')
			add(line);
	}
	if (f)
		fclose(f);
	for (int i = n_fixed; i < n_rules; i++)
		for (int k = n_fixed; k < n_old; k++)
			if (strcmp(rules[i].text, old[k].text) == 0)
				rules[i].fired = old[k].fired;
}

struct rule
rule_for(int n)
{
	struct rule none = { .cut = { NEVER, NEVER }, .hole = { NEVER, NEVER }, .stall = { NEVER, NEVER },
		.nth = 1, .side_client = true, .side_server = true, .first = 0 };

	load_control();
	for (int i = 0; i < n_rules; i++)
		if (n >= rules[i].first && n <= rules[i].last && (rules[i].times == 0 || rules[i].fired < rules[i].times))
			return rules[i];
	return none;
}

void
rule_fired(const struct rule *r)
{
	for (int i = 0; i < n_rules; i++)
		if (strcmp(rules[i].text, r->text) == 0)
			rules[i].fired++;
}

void
rule_add(const char *text)
{
	add(text);
	n_fixed = n_rules;
}

void
rule_file(const char *path)
{
	control_path = path;
}
