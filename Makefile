# libsocketserver.  `make help` lists the targets and the variables.

# ---- what the user may set --------------------------------------------------

# release, debug, asan, tsan, cov, fuzz.  `make test` takes debug unless told.
TEST_VARIANT := $(if $(filter undefined,$(origin VARIANT)),debug,$(VARIANT))
VARIANT ?= release
# The poll(2) path, as on systems without epoll(7).
PORTABLE ?=
# The library's calls through a table, for tests to replace: all variants but
# release, and release too where it is tested.
TABLE ?= $(filter-out release,$(VARIANT))
# Where everything is built; give another for another compiler.
BUILD ?= build/$(VARIANT)$(if $(PORTABLE),-portable)$(if \
	$(filter release,$(VARIANT)),$(if $(TABLE),-table))
# Static probes for tracers: where sys/sdt.h is there, unless PROBES=no.
PROBES ?= auto
WERROR ?=
V ?=

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
BINDIR ?= $(PREFIX)/bin
DESTDIR ?=
INSTALL ?= install
CLANG_FORMAT ?= clang-format
PKG_CONFIG ?= pkg-config

CFLAGS ?= $(OPTIMISE_$(VARIANT))
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),c++)
endif

# `make run` listens here, `make test` runs this suite, `make lint` this check.
ADDRESS ?=
SUITE ?=
CHECK ?=
BENCH_ARGS ?=
# Targets of `make check-cross`.
TARGETS ?=
# For `make soak`: how long; servers with this in their name; a leak of memory,
# descriptors or threads to plant into them.
HOURS ?=
MINUTES ?=
ONLY ?=
LEAK ?=
# Sources that `make coverage` tells all of.
FILES ?=
# What runs programs of another machine, and where they lie wrapped in it.
EMULATOR ?=
EMULATED ?=
# `make fuzz`: seconds a target, which one.
TIME ?= 60
TARGET ?=
# Where chance begins: fuzz, simulate, soak.
SEED ?=

# ---- variants ---------------------------------------------------------------

VARIANTS := release debug asan tsan cov fuzz
ifeq ($(filter $(VARIANTS),$(VARIANT)),)
$(error VARIANT is one of: $(VARIANTS))
endif

OPTIMISE_release := -O2 -g
OPTIMISE_debug := -Og -g
OPTIMISE_asan := -O1 -g -fno-omit-frame-pointer
OPTIMISE_tsan := -O1 -g
OPTIMISE_cov := -O0 -g
OPTIMISE_fuzz := -O1 -g -fno-omit-frame-pointer

DEFINE_release := -DNDEBUG
DEFINE_cov := -DSS_COVERAGE
DEFINE_fuzz := -DSS_FUZZ

# Compiler and linker both.
INSTRUMENT_asan := -fsanitize=address,undefined -fno-sanitize-recover=all
INSTRUMENT_tsan := -fsanitize=thread
INSTRUMENT_cov := --coverage
# By clang alone.
INSTRUMENT_fuzz := -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all
INSTRUMENT := $(INSTRUMENT_$(VARIANT))

# What -Og and the sanitizers guess wrong; the release variant has it on.
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes \
	-Wmissing-prototypes -Wvla -Wwrite-strings $(if $(WERROR),-Werror) \
	$(if $(filter-out release,$(VARIANT)),-Wno-maybe-uninitialized) \
	$(if $(findstring clang,$(CC)),-Wno-unknown-warning-option)

# A test's timeouts, stretched by what the instruments and a busy machine cost.
STRETCH_release := 3
STRETCH_debug := 3
STRETCH_asan := 6
STRETCH_tsan := 10
STRETCH_cov := 6

# Suites that run at a time, for each processor: they wait more than they work,
# but under the sanitizers.
JOBS_release := 4
JOBS_debug := 4
JOBS_tsan := 2

# gcc 12's thread sanitizer dies at start where the kernel spreads mappings
# over more than 28 bits (vm.mmap_rnd_bits): without randomisation it never.
UNSPREAD_tsan = $$(setarch $$(uname -m) -R true 2>/dev/null && \
	echo setarch $$(uname -m) -R)

# ---- files ------------------------------------------------------------------

VERSION := $(shell sed -n 's/^.define SS_VERSION "\(.*\)"/\1/p' \
	include/socketserver/common.h)
SONAME := libsocketserver.so.$(firstword $(subst ., ,$(VERSION)))

HEADERS := $(sort $(wildcard include/socketserver/*.h))
# What needs the table is in a library of its own, for users' tests.
TESTING_SRC := $(sort $(wildcard lib/testing/fault*.c))
LIB_SRC := $(filter-out $(TESTING_SRC),$(sort $(wildcard lib/*.[cS] \
	lib/*/*.[cS])))
HANDLER_SRC := $(sort $(wildcard handlers/*.[cS]))
# Demos inside another library's loop, and its package.  epoll(7) is Linux's.
PACKAGE_embed_event := libevent
PACKAGE_embed_glib := glib-2.0
PACKAGE_embed_sd_event := libsystemd
OPTIONAL := embed_event embed_glib embed_sd_event
LACKED := $(foreach d,$(OPTIONAL),$(shell $(PKG_CONFIG) --exists \
	$(PACKAGE_$d) 2>/dev/null || echo $d))
ifneq ($(shell uname -s),Linux)
LACKED += embed_epoll
endif
DEMO_SRC := $(filter-out $(LACKED:%=demos/%.c),$(sort $(wildcard demos/*.c)))
TEST_SRC := $(sort $(wildcard test/*.c))
PEER_SRC := $(sort $(wildcard test/peers/*.c))
# All but one are targets.
FUZZ_SRC := $(sort $(wildcard test/fuzz/*.c))
FUZZ_TARGETS := $(basename $(notdir $(filter-out %/fuzz.c,$(FUZZ_SRC))))
SIM_SRC := $(sort $(wildcard test/sim/*.c))
BENCH_SRC := $(sort $(wildcard test/bench/*.c test/bench/load/*.c))
BENCH_PEER_SRC := $(sort $(wildcard test/bench/peers/*.c test/bench/peers/*.cc))
# The longest first: the last to end decides how long all take.
LONGEST := t_install t_systemd t_faults t_programs t_connect t_streams t_stop t_races
SUITES := $(basename $(notdir $(filter test/t_%.c,$(TEST_SRC))))
SUITES := $(filter $(SUITES),$(LONGEST)) $(filter-out $(LONGEST),$(SUITES))
# By itself gdb loads what lies beside a library under this name.
GDB_SRC := lib/fiber/fibers-gdb.py
# Those of what is installed.
INSTALLED_DEMOS := ss-replay ssctl
MAN := $(sort $(foreach s,3 5 7,$(wildcard include/*/*.$s lib/*.$s \
	lib/*/*.$s)) $(INSTALLED_DEMOS:%=demos/%.1))
FORMATTED := $(sort $(HEADERS) $(wildcard $(foreach d,lib lib/* handlers \
	demos test test/* test/bench/*,$d/*.c $d/*.h)))

object = $(addprefix $(BUILD)/obj/,$(addsuffix .o,$(basename $(1))))

LIB_OBJ := $(call object,$(LIB_SRC))
STATIC := $(BUILD)/libsocketserver.a
SHARED := $(BUILD)/libsocketserver.so.$(VERSION)
HANDLERS := $(BUILD)/libsocketserver-handlers.a
TESTING := $(BUILD)/libsocketserver-test.a
TESTING_OBJ := $(patsubst $(BUILD)/obj/%,$(BUILD)/$(if \
	$(TABLE),obj,table)/%,$(call object,$(LIB_SRC) $(TESTING_SRC)))
DEMOS := $(DEMO_SRC:%.c=$(BUILD)/%)
# What test/stack.c stands in front of.
STACK := -Wl,--wrap=ss_server_new_sized
STACKED_DEMOS := $(DEMO_SRC:demos/%.c=$(BUILD)/stacked/%)
RUNNER := $(BUILD)/test/run
PEERS := $(PEER_SRC:%.c=$(BUILD)/%)
FUZZERS := $(FUZZ_TARGETS:%=$(BUILD)/fuzz/%)
SIMULATE := $(BUILD)/test/simulate
BENCHES := $(BUILD)/bench/server $(BUILD)/bench/load
BENCH_PEERS := $(sort $(patsubst test/bench/peers/%,$(BUILD)/bench/peer_%, \
	$(basename $(BENCH_PEER_SRC))))

# ---- commands ---------------------------------------------------------------

# (\043: whether a # is written \# there, makes of different age disagree.)
SDT := $(shell printf '\043include <sys/sdt.h>\n' | $(CC) $(CPPFLAGS) -E - \
	>/dev/null 2>&1 && echo yes)
HAS_PROBES := $(if $(filter no,$(PROBES)),,$(if $(SDT),-DSS_PROBES))

# Ours; the user's CPPFLAGS, CFLAGS and LDFLAGS come after them.
SS_CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 \
	-Iinclude $(DEFINE_$(VARIANT)) \
	$(if $(TABLE),-DSS_SYS_TABLE) $(if $(PORTABLE),-DSS_PORTABLE) \
	$(HAS_PROBES)
SS_CFLAGS := -std=c11 -pthread -fvisibility=hidden $(WARN) $(INSTRUMENT)
COMPILE = $(CC) $(SS_CPPFLAGS) $(CPPFLAGS) $(SS_CFLAGS) $(CFLAGS)
# Bound at once: a forked child would bind every function anew.
LINK = $(CC) -pthread $(INSTRUMENT) $(CFLAGS) -Wl,-z,relro,-z,now $(LDFLAGS)

# By top directory.  The same objects make up both libraries: what is exported
# is still called directly and inlined (-fno-semantic-interposition).  A suite
# is declared by test/main.c alone.
FLAGS_lib := -fPIC -fno-semantic-interposition -iquote lib
FLAGS_handlers := -iquote handlers
FLAGS_demos = -iquote handlers $(patsubst -I%,-isystem %,$(call \
	package,--cflags,$(*F)))
FLAGS_test = -iquote test -iquote lib -iquote handlers -iquote $(BUILD) \
	-Wno-missing-prototypes $$($(PKG_CONFIG) --cflags check 2>/dev/null)

# What pkg-config says of a demo's package.
package = $(if $(PACKAGE_$(2)),$(shell $(PKG_CONFIG) $(1) $(PACKAGE_$(2))))

# The sanitizers' own symbols come with the program.
NO_UNDEFINED := $(if $(filter asan tsan,$(VARIANT)),,-Wl,-z,defs)

QUIET := $(findstring s,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
ifeq ($(V)$(QUIET),)
say = @printf '  %-5s %s\n' $(1) $@;
else
say = $(if $(V),,@)
endif

# Writes the file anew only if the text changes, so that what hangs on it is
# made again then and only then.
quote = '$(subst ','\'',$(1))'
define keep
@mkdir -p $(@D)
@printf '%s\n' $(1) | cmp -s - $@ || printf '%s\n' $(1) >$@
endef

# ---- targets ----------------------------------------------------------------

.PHONY: all library run test test-stacked check-long check-cross cross-packages \
	simulate run-simulate fuzz fuzzers coverage soak bench benches \
	bench-million bench-packages bench-readme lint format install uninstall \
	clean help run-tests need-check FORCE
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

all: library $(TESTING) $(HANDLERS) $(DEMOS) ## the library, handlers and demos
	@$(if $(QUIET),,$(foreach d,$(LACKED),echo '  (no demos/$d: no \
	$(or $(PACKAGE_$d),epoll(7)) here)';)) :

library: $(STATIC) $(SHARED) ## the library alone, static and shared

ECHO := $(BUILD)/demos/echo_server $(BUILD)/demos/echo_client
run: $(ECHO) ## the demo echo server; ADDRESS=... elsewhere
	@exec $< -m threading $(ADDRESS)

test: ## builds and runs all tests; SUITE=t_NAME: one suite
	+@$(MAKE) --no-print-directory VARIANT=$(TEST_VARIANT) TABLE=1 run-tests

# Those that make servers, or run programs that do.
STACKED := $(filter-out t_address t_context t_corpus t_install,$(SUITES))
# Not those that look at bytes, steps and calls of their own servers, or whose
# clients are other people's programs.
PROXIED := $(filter-out t_bearing t_daemon t_faults t_layers t_metrics t_programs \
	t_proxy t_record t_start t_systemd t_traces,$(STACKED))
test-stacked: ## the tests with all layers in each server, and with trace and PROXY, too
	+@SS_STACKED=1 $(MAKE) --no-print-directory SUITE='$(STACKED)' test
	+@SS_STACKED=proxy $(MAKE) --no-print-directory SUITE='$(PROXIED)' test

check-cross: ## the tests on other machines and C libraries; TARGETS=musl: that one
	+@MAKE=$(call quote,$(MAKE)) SUITE='$(SUITE)' test/cross/run.sh $(TARGETS)

cross-packages: ## installs what check-cross needs (apt)
	@test/install/cross-packages.sh

# Counters of several threads are added to at once.
COVER = $(MAKE) --no-print-directory VARIANT=cov TABLE=1 \
	CFLAGS='$(OPTIMISE_cov) -fprofile-update=atomic'
coverage: ## which lines of lib/ the tests reach; FILES=lib/X.c: and its branches
	+@$(COVER) all need-check
	@find build/cov -name '*.gcda' -exec rm -f {} +
	+@$(COVER) run-tests; status=$$?; \
	test/coverage/table.py build/cov $(FILES) && exit $$status

# Leaks for the soak test to find; LEAK= plants one.
$(BUILD)/soak/leak.so: test/soak/leak.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,LINK)$(COMPILE) -Wno-pedantic -fPIC -fvisibility=default -shared -o $@ $<

soak: $(ECHO) $(BUILD)/soak/leak.so ## servers under load for HOURS= and MINUTES= (2): does anything grow?
	@test/soak/soak.py $(BUILD) $(if $(LEAK),--leak $(LEAK)) \
		$(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)') \
		--seconds "$$(echo '$(or $(HOURS),0) $(or $(MINUTES),$(if \
		$(HOURS),0,2))' | awk '{ print $$1 * 3600 + $$2 * 60 }')"
# What failed is played again by SCENARIO=name SEED=n, and told as it happens.
simulate: ## plays servers in memory: SEEDS=1000 [SCENARIO=name] [SEED=n]
	+@$(MAKE) --no-print-directory VARIANT=$(TEST_VARIANT) TABLE=1 \
		run-simulate

run-simulate: $(SIMULATE)
	@$(UNSPREAD_$(VARIANT)) $(SIMULATE) $(if $(SEED),-s $(SEED) $(if \
		$(SCENARIO),-t),-n $(or $(SEEDS),1000)) $(SCENARIO)

check-long: export SS_LONG := 1
check-long: test ## the same, with the loops of a night

BENCH = @SS_BUILD=$(abspath $(BUILD)) test/bench/run
bench: $(BENCHES) $(BENCH_PEERS) ## runs the benchmark; BENCH_ARGS=--help says how
	$(BENCH) $(BENCH_ARGS)

benches: $(BENCHES)

bench-million: $(BENCHES) ## holds a million connections; or BENCH_ARGS=COUNT
	$(BENCH) --soak $(or $(BENCH_ARGS),1000000)

bench-packages: ## installs what the benchmark's peers are made with (apt)
	@test/install/bench-packages.sh

bench-readme: ## writes the benchmark's last figures into README.md
	$(BENCH) --readme

fuzz: ## looks for inputs that break it, by clang; TIME=60 s each, TARGET=NAME: one
	+@MAKE=$(call quote,$(MAKE)) CC=$(call quote,$(if $(findstring \
		clang,$(CC)),$(CC),clang)) TIME=$(call quote,$(TIME)) \
		TARGET=$(call quote,$(TARGET)) SEED=$(call quote,$(SEED)) \
		test/fuzz/run.sh

fuzzers: $(FUZZERS)

# The debug variant shows which objects make system calls, the release one what
# is exported; the benchmark's programs are not built by anything else.
lint: ## every static check; CHECK=NAME: one of test/lint/NAME.sh
	+@$(MAKE) -s --no-print-directory VARIANT=debug TABLE=1 PORTABLE= \
		BUILD=build/debug all
	+@$(MAKE) -s --no-print-directory VARIANT=release TABLE= PORTABLE= \
		BUILD=build/release all benches
	@CC=$(call quote,$(CC)) CXX=$(call quote,$(CXX)) test/lint/run.sh $(CHECK)

format: ## lays out all C by .clang-format
	$(CLANG_FORMAT) -i $(FORMATTED)

help: ## this list
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { \
		sub(/:.*/, "", $$1); printf "make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'VARIANT=release|debug|asan|tsan|cov|fuzz  PORTABLE=1  WERROR=1  V=1'
	@echo 'PROBES=no: no static probes for tracers$(if $(SDT),, (nor are \
there any without sys/sdt.h: systemtap-sdt-dev))'
	@echo 'SS_JOBS=suites that make test runs at a time, by default one or four a processor'
	@echo 'CC CFLAGS CPPFLAGS LDFLAGS  PREFIX DESTDIR BINDIR LIBDIR INCLUDEDIR MANDIR'
	@echo 'BUILD=dir, by default build/$$VARIANT'

clean: ## removes build/
	rm -rf build

# ---- compiling and linking --------------------------------------------------

$(BUILD)/flags: FORCE
	$(call keep,$(call quote,$(COMPILE) $(LDFLAGS)))

define compile
@mkdir -p $(@D)
$(call say,$(1))$(COMPILE) $(2) $(FLAGS_$(firstword $(subst /, ,$*))) \
	-MMD -MP -c -o $@ $<
endef

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	$(call compile,CC)

$(BUILD)/obj/%.o: %.S $(BUILD)/flags
	$(call compile,AS)

$(BUILD)/table/%.o: %.c $(BUILD)/flags
	$(call compile,CC,-DSS_SYS_TABLE)

$(BUILD)/table/%.o: %.S $(BUILD)/flags
	$(call compile,AS,-DSS_SYS_TABLE)

# Which the assembler takes in.
$(call object,handlers/metrics_page.S): handlers/metrics_page.html

# A list of objects, for archives to follow files that go.
$(BUILD)/%.list: FORCE
	$(call keep,$(call quote,$(LIST_$*)))

LIST_libsocketserver = $(LIB_OBJ)
LIST_libsocketserver-handlers = $(call object,$(HANDLER_SRC))
LIST_libsocketserver-test = $(TESTING_OBJ)
$(STATIC): $(LIB_OBJ)
$(HANDLERS): $(LIST_libsocketserver-handlers)
$(TESTING): $(TESTING_OBJ)
$(STATIC) $(HANDLERS) $(TESTING): %.a: %.list
	$(call say,AR)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(SHARED): $(LIB_OBJ) $(BUILD)/libsocketserver.list lib/libsocketserver.map
	$(call say,LINK)$(LINK) -shared -Wl,-soname,$(SONAME) $(NO_UNDEFINED) \
		-Wl,--version-script=lib/libsocketserver.map \
		-o $@ $(LIB_OBJ) $(LDLIBS)
	@ln -sf $(@F) $(BUILD)/$(SONAME)
	@ln -sf $(SONAME) $(BUILD)/libsocketserver.so

define program
@mkdir -p $(@D)
$(call say,LINK)$(LINK) -o $@ $(filter %.o,$^) $(HANDLERS) $(STATIC) $(1) \
	$(LDLIBS)
endef

$(DEMOS): $(BUILD)/%: $(BUILD)/obj/%.o $(HANDLERS) $(STATIC)
	$(call program,$(call package,--libs,$(*F)))

# Their servers with all layers in them.
$(STACKED_DEMOS): $(BUILD)/stacked/%: $(BUILD)/obj/demos/%.o \
		$(BUILD)/obj/test/stack.o $(HANDLERS) $(STATIC)
	$(call program,$(STACK) $(call package,--libs,$(*F)))

$(FUZZERS): $(BUILD)/fuzz/%: $(BUILD)/obj/test/fuzz/%.o \
		$(BUILD)/obj/test/fuzz/fuzz.o $(HANDLERS) $(STATIC)
	$(call program,-fsanitize=fuzzer)

$(BUILD)/bench/server: $(call object,test/bench/server.c)
$(BUILD)/bench/load: $(call object,$(filter test/bench/load/%,$(BENCH_SRC)))
$(BENCHES): $(HANDLERS) $(STATIC)
	$(program)

# Without the library; and only where what a peer is made with is installed:
# else its rows are left out.
define peer
@mkdir -p $(@D) && rm -f $@
@PKG_CONFIG=$(call quote,$(PKG_CONFIG)) CXX=$(call quote,$(CXX)) \
	test/bench/peers/flags $* >$@.flags || echo '  (no $(@F))'
$(call say,PEER)! [ -s $@.flags ] || $(1) $(WARN_PEER) -pthread \
	-Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $< $$(cat $@.flags)
endef
WARN_PEER = -Wall -Wextra -Wshadow $(if $(WERROR),-Werror)
PEER_CXX = $(CXX) -std=c++20 -D_GNU_SOURCE $(CPPFLAGS) $(INSTRUMENT) $(CFLAGS)
PEER_HEADERS := test/bench/bench.h test/bench/peers/peer.h \
	test/bench/peers/flags $(BUILD)/flags

$(BUILD)/bench/peer_%: test/bench/peers/%.c $(PEER_HEADERS)
	$(call peer,$(COMPILE))

$(BUILD)/bench/peer_%: test/bench/peers/%.cc $(PEER_HEADERS)
	$(call peer,$(PEER_CXX))

$(PEERS): $(BUILD)/%: $(BUILD)/obj/%.o $(HANDLERS) $(STATIC)
	$(program)

$(SIMULATE): $(call object,$(SIM_SRC)) $(HANDLERS) $(STATIC)
	$(program)

# ---- tests ------------------------------------------------------------------

# One line a suite, read twice by test/main.c.
$(BUILD)/suites.inc: FORCE
	$(call keep,$(if $(SUITES),$(foreach s,$(SUITES),'SUITE($s)'),''))

# The same of the targets, for test/t_corpus.c.
$(BUILD)/targets.inc: FORCE
	$(call keep,$(foreach t,$(FUZZ_TARGETS),'TARGET($t)'))

need-check:
	@PKG_CONFIG=$(call quote,$(PKG_CONFIG)) test/install/need-check.sh

$(call object,$(TEST_SRC)): | need-check
$(call object,test/main.c): $(BUILD)/suites.inc
$(call object,test/t_corpus.c): $(BUILD)/targets.inc
$(RUNNER): $(call object,$(TEST_SRC) $(FUZZ_SRC) $(TESTING_SRC) \
		test/sim/scenarios.c) $(HANDLERS) $(STATIC) $(BUILD)/suites.inc
	$(call program,$(STACK) $$($(PKG_CONFIG) --libs check))

# For t_install.  What users get has no table.
INSTALL_MAKE = $(MAKE) $(if $(filter release,$(VARIANT)),TABLE=)
INSTALL_FLAGS = -pthread $(INSTRUMENT)

# What the runner has freed, every process that it forks takes along and
# searches for leaks: 256 MB of that, asan's default, made most of the time.
run-tests: all $(RUNNER) $(PEERS) $(if $(SS_STACKED),$(STACKED_DEMOS))
	@export SS_BUILD=$(abspath $(or $(EMULATED),$(BUILD))) SS_VARIANT=$(VARIANT) \
		$(if $(EMULATOR),SS_EMULATED=1); \
	export ASAN_OPTIONS="$${ASAN_OPTIONS-detect_leaks=1:quarantine_size_mb=8}"; \
	export UBSAN_OPTIONS="$${UBSAN_OPTIONS-print_stacktrace=1}"; \
	export TSAN_OPTIONS="$${TSAN_OPTIONS-halt_on_error=1 \
second_deadlock_stack=1 die_after_fork=0}"; \
	export CK_TIMEOUT_MULTIPLIER="$${CK_TIMEOUT_MULTIPLIER-$(or \
		$(STRETCH_$(VARIANT)),1)}"; \
	export SS_JOBS="$${SS_JOBS-$$(($(or $(JOBS_$(VARIANT)),1) * \
		$$(getconf _NPROCESSORS_ONLN)))}"; \
	export MAKE=$(call quote,$(INSTALL_MAKE)) CC=$(call quote,$(CC)) \
		CXX=$(call quote,$(CXX)) FLAGS=$(call quote,$(INSTALL_FLAGS)) \
		PKG_CONFIG=$(call quote,$(PKG_CONFIG)); \
	$(if $(SUITE),export SS_SUITE=$(call quote,$(SUITE));) \
	$(UNSPREAD_$(VARIANT)) $(EMULATOR) $(RUNNER)

# ---- installing -------------------------------------------------------------

# Prints PAGE ALIAS for each further name in a page's NAME section.
ALIASES = awk 'FNR == 1 { page = FILENAME; sub(/.*\//, "", page); \
		section = page; sub(/.*\./, "", section) } \
	$$1 == ".Sh" { name = $$2 == "NAME" } \
	name && $$1 == ".Nm" && $$2 "." section != page { \
		print page, $$2 "." section }' $(MAN) /dev/null
sections := $(sort $(subst .,,$(suffix $(MAN))))
into = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))

INSTALLED_PROGRAMS := $(INSTALLED_DEMOS:%=$(BUILD)/demos/%)
PACKAGES := socketserver socketserver-test
install: library $(TESTING) $(INSTALLED_PROGRAMS) ## installs to PREFIX, below DESTDIR
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig \
		$(DESTDIR)$(INCLUDEDIR)/socketserver $(DESTDIR)$(BINDIR) \
		$(sections:%=$(DESTDIR)$(MANDIR)/man%)
	$(INSTALL) -m 644 $(HEADERS) $(DESTDIR)$(INCLUDEDIR)/socketserver
	$(INSTALL) -m 644 $(STATIC) $(TESTING) $(DESTDIR)$(LIBDIR)
	$(INSTALL) -m 755 $(INSTALLED_PROGRAMS) $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 755 $(SHARED) $(DESTDIR)$(LIBDIR)
	$(INSTALL) -m 644 $(GDB_SRC) \
		$(DESTDIR)$(LIBDIR)/$(notdir $(SHARED))-gdb.py
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libsocketserver.so
	@$(foreach p,$(PACKAGES),sed -e 's|@PREFIX@|$(PREFIX)|' \
		-e 's|@VERSION@|$(VERSION)|' \
		-e 's|@LIBDIR@|$(call into,$(LIBDIR))|' \
		-e 's|@INCLUDEDIR@|$(call into,$(INCLUDEDIR))|' \
		lib/$p.pc.in >$(BUILD)/$p.pc &&) :
	$(INSTALL) -m 644 $(PACKAGES:%=$(BUILD)/%.pc) \
		$(DESTDIR)$(LIBDIR)/pkgconfig
	@$(ALIASES) | while read -r page alias; do \
		echo ".so man$${page##*.}/$$page" \
			>"$(DESTDIR)$(MANDIR)/man$${page##*.}/$$alias"; \
	done
	$(foreach s,$(sections),$(INSTALL) -m 644 $(filter %.$s,$(MAN)) \
		$(DESTDIR)$(MANDIR)/man$s &&) :

uninstall: ## removes what install put there
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(notdir $(STATIC) $(SHARED) \
		$(TESTING)) $(notdir $(SHARED))-gdb.py $(SONAME) \
		libsocketserver.so $(PACKAGES:%=pkgconfig/%.pc)) \
		$(addprefix $(DESTDIR)$(BINDIR)/,$(INSTALLED_DEMOS)) \
		$(addprefix $(DESTDIR)$(INCLUDEDIR)/socketserver/,$(notdir \
			$(HEADERS))) \
		$(foreach m,$(MAN),$(DESTDIR)$(MANDIR)/man$(subst \
			.,,$(suffix $m))/$(notdir $m))
	@$(ALIASES) | while read -r page alias; do \
		rm -f "$(DESTDIR)$(MANDIR)/man$${page##*.}/$$alias"; \
	done
	@rmdir $(DESTDIR)$(INCLUDEDIR)/socketserver 2>/dev/null || :

-include $(patsubst %.o,%.d,$(TESTING_OBJ) $(call object,$(LIB_SRC) \
	$(HANDLER_SRC) $(DEMO_SRC) $(TEST_SRC) $(PEER_SRC) $(FUZZ_SRC) \
	$(SIM_SRC) $(BENCH_SRC) $(TESTING_SRC)))
