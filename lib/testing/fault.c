/* Calls that fail one after another. */
#include <socketserver/fault.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <socketserver/server.h>

#include "../diag.h"
#include "fault_calls.h"
#include "fault_left.h"

/* In memory that all processes of a run share. */
static struct faults {
	atomic_bool armed;
	atomic_int count;  /* of calls since then that may fail */
	atomic_int at;	   /* the one that does; 0: none */
	atomic_int way;	   /* by this one of its errors */
	atomic_int mode;   /* enum ss_fault_mode */
	atomic_int spared; /* the process where nothing fails; 0: none */
	atomic_int error;  /* with this one; 0: with each of a call's own */
	atomic_int call;   /* which it was; CALL_none: there were too few */
	atomic_int code;   /* its errno; 0: it has no such way to fail */
	atomic_bool chosen[CALLS];
} * faults;

/* ---- the call -------------------------------------------------------------*/

static int code_of(enum call call, int way)
{
	int error = atomic_load(&faults->error);
	bool lasting = atomic_load(&faults->mode) != SS_FAULT_ONCE;
	if (!error)
		return call_error(call, way, lasting);
	return way > 0 || (lasting && !call_lasts(call, error)) ? 0 : error;
}

static int first_strike(enum call call)
{
	int code = code_of(call, atomic_load(&faults->way));
	atomic_store(&faults->code, code);
	atomic_store(&faults->call, (int)call);
	return code;
}

static int later_strike(enum call call)
{
	int code = atomic_load(&faults->code);
	int mode = atomic_load(&faults->mode);
	if (mode == SS_FAULT_ONCE || code == 0)
		return 0;
	if ((int)call == atomic_load(&faults->call))
		return code;
	return mode == SS_FAULT_ALL ? code_of(call, 0) : 0;
}

bool faults_strike(enum call call)
{
	if (!faults || !atomic_load(&faults->armed) ||
	    !atomic_load(&faults->chosen[call]) ||
	    getpid() == atomic_load(&faults->spared))
		return false;
	int n = atomic_fetch_add(&faults->count, 1) + 1, code = 0;
	int at = atomic_load(&faults->at);
	if (n == at)
		code = first_strike(call);
	else if (at && n > at)
		code = later_strike(call);
	if (code)
		errno = code;
	return code != 0;
}

/* Before there are threads. */
static void begin(void)
{
	if (faults)
		return;
	faults = ss_shared_alloc(sizeof(*faults));
	calls_install();
}

void ss_fault_look(struct ss_fault_state *state)
{
	begin();
	look(state);
}

/* ---- within a scenario ----------------------------------------------------*/

void ss_fault_arm(void)
{
	if (faults)
		atomic_store(&faults->armed, true);
}

void ss_fault_disarm(void)
{
	if (faults)
		atomic_store(&faults->armed, false);
}

bool ss_fault_struck(struct ss_fault *fault)
{
	int code = faults ? atomic_load(&faults->code) : 0;
	if (code && fault)
		*fault = (struct ss_fault){
			.call = call_name(
				(enum call)atomic_load(&faults->call)),
			.at = atomic_load(&faults->at),
			.error = code,
			.mode = (enum ss_fault_mode)atomic_load(&faults->mode),
		};
	return code != 0;
}

const char *ss_fault_tell(void)
{
	static _Thread_local char text[160];
	struct ss_fault fault;
	if (!ss_fault_struck(&fault))
		return "no call failed";
	snprintf(text, sizeof(text), "call %d, %s: %s%s", fault.at, fault.call,
		 strerror(fault.error),
		 fault.mode == SS_FAULT_LASTING ? ", from then on"
		 : fault.mode == SS_FAULT_ALL	? ", and all after it"
						: "");
	return text;
}

/* ---- one after another ----------------------------------------------------*/

struct sweep {
	struct ss_fault_options options;
	int (*scenario)(void *arg, struct ss_diag *why);
	void *arg;
	struct ss_diag *why;
	int struck;
};

/* What the scenario has said of itself. */
static int judge(const struct sweep *sweep, int result,
		 const struct ss_diag *said)
{
	if (result == 0 || (result < 0 && ss_fault_struck(NULL)))
		return 0;
	return diag_refuse(sweep->why, -EPROTO, "%s: %s", ss_fault_tell(),
			   said->text[0] ? said->text
			   : result < 0	 ? strerror(-result)
					 : "wrong");
}

static int run(struct sweep *sweep, int at, int way)
{
	struct ss_fault_state before;
	struct ss_diag said = { 0 };
	atomic_store(&faults->armed, false);
	atomic_store(&faults->count, 0);
	atomic_store(&faults->call, CALL_none);
	atomic_store(&faults->code, 0);
	atomic_store(&faults->at, at);
	atomic_store(&faults->way, way);
	ss_fault_look(&before);
	atomic_store(&faults->armed, !sweep->options.unarmed);
	int result = sweep->scenario(sweep->arg, &said);
	atomic_store(&faults->armed, false);
	int r = judge(sweep, result, &said);
	if (r == 0 && left_of(&before, &sweep->options, &said) < 0)
		r = diag_refuse(sweep->why, -EPROTO, "%s: %s", ss_fault_tell(),
				said.text);
	sweep->struck += ss_fault_struck(NULL);
	return r;
}

/* Every way of that call to fail.  1: there is one, 0: there is none. */
static int fail_at(struct sweep *sweep, int at)
{
	int way = 0;
	enum call call;
	do {
		int r = run(sweep, at, way);
		if (r < 0)
			return r;
		call = (enum call)atomic_load(&faults->call);
		if (call == CALL_none)
			return 0;
	} while (code_of(call, ++way));
	return 1;
}

static int fail_each(struct sweep *sweep, enum ss_fault_mode mode)
{
	int r, at = sweep->options.first;
	if (!(sweep->options.modes & (int)mode))
		return 0;
	atomic_store(&faults->mode, (int)mode);
	while ((r = fail_at(sweep, at)) > 0)
		at += sweep->options.stride;
	return r;
}

static int sweep_all(struct sweep *sweep)
{
	/* What is made once in a process: libc's, and the sanitizers'. */
	struct sweep first = *sweep;
	first.options.unchecked = SS_FAULT_CHECKS;
	int r = run(&first, 0, 0);
	if (r == 0)
		r = run(sweep, 0, 0);
	if (r == 0)
		r = fail_each(sweep, SS_FAULT_ONCE);
	if (r == 0)
		r = fail_each(sweep, SS_FAULT_LASTING);
	if (r == 0)
		r = fail_each(sweep, SS_FAULT_ALL);
	return r < 0 ? r : sweep->struck;
}

/* ---- beforehand -----------------------------------------------------------*/

static int choose(const struct ss_fault_options *options, struct ss_diag *why)
{
	for (int call = CALL_none + 1; call < CALLS; call++)
		atomic_store(&faults->chosen[call],
			     !options->calls &&
				     call_error((enum call)call, 0, false));
	const char *word = options->calls ? options->calls : "";
	for (size_t n; *(word += strspn(word, " ")); word += n) {
		n = strcspn(word, " ");
		enum call call = call_named(word, n);
		if (call == CALL_none)
			return diag_refuse(why, -EINVAL, "%.*s: no such call",
					   (int)n, word);
		if (!code_of(call, 0))
			return diag_refuse(
				why, -EINVAL,
				"%.*s: it fails by no error of its own", (int)n,
				word);
		atomic_store(&faults->chosen[call], true);
	}
	return 0;
}

static int prepare(struct sweep *sweep)
{
	struct ss_fault_options *options = &sweep->options;
	const int every = SS_FAULT_ONCE | SS_FAULT_LASTING | SS_FAULT_ALL;
	if (options->first < 0 || options->stride < 0 || options->error < 0 ||
	    options->patience_ms < SS_NONE || options->modes & ~every ||
	    options->unchecked & ~SS_FAULT_CHECKS)
		return diag_refuse(sweep->why, -EINVAL, "no such options");
	options->first += options->first == 0;
	options->stride += options->stride == 0;
	if (!options->modes)
		options->modes = SS_FAULT_ONCE | SS_FAULT_LASTING;
	begin();
	if (!faults)
		return diag_refuse(sweep->why, -ENOMEM, "%s", strerror(ENOMEM));
	atomic_store(&faults->mode, SS_FAULT_ONCE);
	atomic_store(&faults->error, options->error);
	atomic_store(&faults->spared, options->elsewhere ? getpid() : 0);
	return choose(options, sweep->why);
}

int ss_fault_sweep(const struct ss_fault_options *options,
		   int (*scenario)(void *arg, struct ss_diag *why), void *arg,
		   struct ss_diag *why)
{
	struct sweep sweep = { .scenario = scenario, .arg = arg, .why = why };
	if (options)
		sweep.options = *options;
	if (why)
		*why = (struct ss_diag){ 0 };
	int r = prepare(&sweep);
	return r < 0 ? r : sweep_all(&sweep);
}
