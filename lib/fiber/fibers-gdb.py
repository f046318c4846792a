"""The fibers of a process or of a core file, for gdb:

    fibers          all of them, each with its backtrace
    fiber ID        from now on backtrace, frame, up, down, info locals and so
                    on show the one that serves request ID, below the thread's
                    innermost frame; until the process runs on
    fiber           the thread again

gdb loads this file by itself where it lies beside the library and gdb trusts
that directory ("info auto-load"); else by `source`.  It reads the library's own
structures, for which it needs the library's debugging information.  Core files
that gdb's own gcore writes lack the stacks, since it stops at the first page
that it cannot read, as the guard below each stack is; those of the kernel have
them.
"""

import gdb
import gdb.unwinder

# A fiber that is parked is told by its stack pointer alone: at context_parked
# the unwind tables of switch.S find everything else from there.
REGISTERS = {"i386:x86-64": ("rsp", "rip"), "aarch64": ("sp", "pc")}


def symbol_of(name):
    symbol = gdb.lookup_global_symbol(name)
    if symbol is None or symbol.symtab is None:
        raise gdb.GdbError(
            "libsocketserver, or its debugging information, is not here")
    return symbol


def type_of(name, beside):
    """A structure of the file in which a global function or variable is."""
    return gdb.lookup_type(name, symbol_of(beside).symtab.static_block())


class Fiber:
    def __init__(self, server, loop, fiber, base):
        self.server, self.loop, self.fiber = server, loop, fiber
        self.base, self.top = base, int(fiber)

    def id(self):
        return int(self.fiber["req"]["id"])

    def runs(self):
        return self.loop["current"] == self.fiber

    def sp(self):
        return int(self.fiber["context"]["sp"])

    def __str__(self):
        rare, config = self.fiber["req"]["rare"], self.server["config"]
        name = (rare if rare else config)["handler"]["name"]
        parked = self.fiber["parked"] and not self.fiber["woken"]
        return "request #%d, handler %s, loop %d of %s: %s" % (
            self.id(), name.string() if name else "?",
            int(self.loop["number"]), self.server["describe"].string(),
            "runs" if self.runs() else "parked" if parked else "ready")

    def thread(self):
        """The one that runs it."""
        selected = gdb.selected_thread()
        try:
            for thread in gdb.selected_inferior().threads():
                thread.switch()
                sp = int(gdb.newest_frame().read_register(registers()[0]))
                if self.base <= sp < self.top:
                    return thread
        finally:
            selected.switch()
        return None


def servers():
    process = gdb.lookup_symbol(
        "process", symbol_of("process_enter").symtab.static_block())[0]
    server = process.value()["servers"]
    while server:
        yield server
        server = server["next_in_process"]


def loops_of(server):
    mixin = symbol_of("ss_fiber_mixin").value().address
    for i in range(int(server["level_count"])):
        level = server["levels"][i]
        if level["layer"] != mixin or not level["state"]:
            continue
        fibers = level["state"].cast(
            type_of("struct fibers", "ss_fiber_mixin").pointer())
        for k in range(int(fibers["count"])):
            yield fibers["loops"][k]


def stacks_of(loop):
    """The base of each stack that is in use."""
    stacks = loop["stacks"].cast(
        type_of("struct stacks", "stacks_take").pointer())
    stride = int(stacks["stride"]) * int(stacks["page"])
    for i in range(int(stacks["slabs"])):
        slab = stacks["slab"][i]
        for k in range(int(slab["made"])):
            base = int(slab["memory"]) + k * stride + int(stacks["page"])
            if slab["stack"][k]["used"] and base != int(loop["spare"]):
                yield base, int(stacks["size"])


def fibers():
    record = type_of("struct fiber", "fiber_loop_init")
    for server in servers():
        for loop in loops_of(server):
            for base, size in stacks_of(loop):
                # As new_fiber in loop.c lays it out.
                top = base + ((size - record.sizeof) & ~15)
                fiber = gdb.Value(top).cast(record.pointer())
                yield Fiber(server, loop, fiber, base)


def find(wanted):
    for fiber in fibers():
        try:
            if fiber.id() == wanted:
                return fiber
        except gdb.MemoryError:
            continue
    raise gdb.GdbError("no fiber serves request #%d" % wanted)


def registers():
    name = gdb.newest_frame().architecture().name()
    if name not in REGISTERS:
        raise gdb.GdbError("fibers of %s are not known here" % name)
    return REGISTERS[name]


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Unwinder(gdb.unwinder.Unwinder):
    """Says of a thread's innermost frame that a parked fiber called it."""

    def __init__(self):
        super().__init__("libsocketserver fibers")
        self.sp = None

    def select(self, fiber):
        """None: the thread itself."""
        self.sp = None
        gdb.invalidate_cached_frames()
        if fiber is None:
            return
        parked = gdb.parse_and_eval("(unsigned long)&context_parked")
        frame = gdb.newest_frame()
        self.names = registers()
        self.innermost = [frame.read_register(n) for n in self.names]
        self.caller = gdb.Value(fiber.sp()).cast(parked.type), parked
        self.sp = self.caller[0]
        gdb.invalidate_cached_frames()

    def __call__(self, frame):
        if self.sp is None:
            return None
        here = [frame.read_register(n) for n in self.names]
        if [int(r) for r in here] != [int(r) for r in self.innermost]:
            return None
        info = frame.create_unwind_info(FrameId(self.sp, here[1]))
        for name, value in zip(self.names, self.caller):
            info.add_saved_register(name, value)
        return info


unwinder = Unwinder()
gdb.unwinder.register_unwinder(gdb.current_objfile(), unwinder, replace=True)
gdb.events.cont.connect(lambda event: unwinder.select(None))


def backtrace_of(fiber, arguments):
    """As text, with the frames' numbers after `fiber ID`."""
    command = "backtrace " + arguments
    if fiber.runs():
        selected, thread = gdb.selected_thread(), fiber.thread()
        if thread is None:
            return ""
        thread.switch()
        try:
            return gdb.execute(command, to_string=True)
        finally:
            selected.switch()
    unwinder.select(fiber)
    try:
        text = gdb.execute(command, to_string=True)
    finally:
        unwinder.select(None)
    at = text.find("\n#1 ")
    return text[at + 1:] if at >= 0 else ""


class Fibers(gdb.Command):
    """All fibers of libsocketserver's servers, each with its backtrace.
Arguments are those of backtrace."""

    def __init__(self):
        super().__init__("fibers", gdb.COMMAND_STACK)

    def invoke(self, arguments, from_tty):
        unwinder.select(None)
        count = 0
        for fiber in fibers():
            count += 1
            try:
                print("%s\n%s" % (fiber, backtrace_of(fiber, arguments)))
            except gdb.MemoryError as error:
                print("a fiber that is not in the core file: %s\n" % error)
        print("%d fiber%s" % (count, "" if count == 1 else "s"))


class Select(gdb.Command):
    """Shows the frames of the fiber that serves request ID, or without one
those of the thread again."""

    def __init__(self):
        super().__init__("fiber", gdb.COMMAND_STACK)

    def invoke(self, arguments, from_tty):
        unwinder.select(None)
        if not arguments:
            return
        fiber = find(int(gdb.parse_and_eval(arguments.lstrip("#"))))
        print(fiber)
        if not fiber.runs():
            unwinder.select(fiber)
            gdb.execute("frame 1")
        elif fiber.thread():
            fiber.thread().switch()


Fibers()
Select()
