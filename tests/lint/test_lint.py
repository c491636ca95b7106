#!/usr/bin/python3
"""The lines that the tree must keep (DESIGN §3), read off the sources and the built programs.

Every rule is a function from a root folder to a list of complaints. It must be
silent on the project and, in a made-up tree with one fault in it, must speak:
a rule that cannot fail guards nothing.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import links, tap, zsh  # noqa: E402

# Headers of include/sendq by the folder whose contract they are; agent.h, quality.h and outcome.h are words shared by both sides.
BASE = {"base.h", "buf.h", "error.h", "io.h", "fault.h", "outcome.h", "control.h"}
WORDS = {"agent.h", "quality.h"}
MAY_INCLUDE = {
    "sendq/base": BASE | {"log.h"},
    "queue": BASE | WORDS | {"queue.h"},
    "sendq/config": BASE | WORDS | {"config.h", "provider.h"},
    "sendq/message": BASE | WORDS | {"message.h", "report.h", "bounce.h"},
    "sendq/smtp": BASE | WORDS | {"smtp.h"},
    "sendq/link": BASE | WORDS | {"link.h", "doubt.h"},
    "sendq/net": BASE | WORDS | {"net.h", "imap.h"},
    "sendq/agent": BASE | WORDS | {"log.h", "message.h", "smtp.h", "link.h", "net.h", "imap.h"},
    "sendq/runner": BASE | WORDS | {"log.h", "queue.h", "config.h", "message.h", "report.h", "link.h", "doubt.h", "smtp.h", "runner.h", "probe.h"},
    "sendq/submit": BASE | WORDS | {"log.h", "queue.h", "config.h", "message.h", "link.h"},
    "sendq/status": BASE | WORDS | {"log.h", "queue.h", "config.h", "message.h", "bounce.h", "link.h", "doubt.h", "runner.h", "probe.h", "provider.h"},
}
# Foreign headers that have one home.
HOME = {"curl/": {"sendq/net"}, "sqlite3.h": {"queue"}, "libconfig.h": {"sendq/config"},
        "openssl/": {"sendq/net", "sendq/agent"}, "jansson.h": {"sendq/agent"}, "expat.h": {"sendq/agent"}, "resolv.h": {"sendq/agent"},
        "systemd/": {"sendq/runner"}}
# Where this checkout stands: the folder around it, unless that is everybody's.
PLACE = (ROOT if os.path.dirname(ROOT) in ("/", "/home", "/root", "/srv", "/tmp", "/usr/src", "/var/tmp") else os.path.dirname(ROOT)) + "/"
TOP = {"sendq", "include", "queue", "tests", "contrib", "meson.build", "meson_options.txt", "README.md", "LICENSE"}
SQL_HOME = {"queue/sql.c", "queue/migrate.c"}
# Where a connection is opened its settings are made, and given up without statements of the table.
SETTINGS_HOME = {"queue/open.c"}


def sources(root, *suffixes):
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if not n.startswith((".", "build")) and n != "__pycache__"]
        for name in files:
            if name.endswith(suffixes):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, root), path


def text(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def includes(path):
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', text(path), re.M)


def layers(root):
    """A folder includes only what stands to its left."""
    out = []
    for name, path in sources(root, ".c", ".h"):
        folder = os.path.dirname(name)
        if folder not in MAY_INCLUDE:
            continue
        for mark, header in includes(path):
            if header.startswith("sendq/") and header[6:] not in MAY_INCLUDE[folder]:
                out.append("%s includes <%s>, which does not stand to the left of %s" % (name, header, folder))
            if mark == '"' and "/" in header:
                out.append('%s includes "%s" of another folder: that needs a contract in include/sendq' % (name, header))
    return out


def homes(root):
    """Foreign libraries have one home each."""
    out = []
    for name, path in sources(root, ".c", ".h"):
        folder = os.path.dirname(name)
        if not folder.startswith(("sendq", "queue", "include")):
            continue
        for _, header in includes(path):
            for foreign, home in HOME.items():
                if header.startswith(foreign) and folder not in home:
                    out.append("%s includes <%s>, whose home is %s" % (name, header, " and ".join(sorted(home))))
    return out


def contracts(root):
    """Contracts include nothing foreign: whoever reads one needs no library."""
    out = []
    for name, path in sources(os.path.join(root, "include"), ".h"):
        for _, header in includes(path):
            if "/" in header and not header.startswith(("sendq/", "sys/")):
                out.append("include/%s includes <%s>" % (name, header))
    return out


def sql(root):
    """All SQL stands in the queue's one file (and its migrations)."""
    out = []
    word = re.compile(r'"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN|COMMIT|ROLLBACK|ALTER|DROP|REPLACE)\b[^"]*"')
    for name, path in sources(root, ".c", ".h"):
        if name in SQL_HOME or not name.startswith(("sendq", "queue")):
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            found = word.search(line)
            if found and not (name in SETTINGS_HOME and found.group(1) in ("PRAGMA", "ROLLBACK")):
                out.append("%s:%d holds SQL: %s" % (name, number, line.strip()))
    return out


def pure(root):
    """The queue has no clock and no log; session and link arithmetic have no input or output either."""
    clock = r"\b(sq_wall_ms|sq_boot_ms|clock_gettime|gettimeofday|time)\s*\("
    wire = r"\b(socket|connect|send|recv|read|write|poll|open|fopen)\s*\("
    rules = {"queue": clock + r"|\bsq_log\s*\(", "sendq/smtp": clock + "|" + wire, "sendq/link": clock + "|" + wire}
    out = []
    for name, path in sources(root, ".c"):
        pattern = rules.get(os.path.dirname(name))
        # Comments may speak of what the code does not do.
        code = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', lambda m: re.sub(r"[^\n]", " ", m.group()), text(path), flags=re.S)
        for number, line in enumerate(code.splitlines(), 1):
            # How long a lock was waited for is no time of the queue's.
            if pattern and re.search(pattern, line.replace("clock_gettime(CLOCK_MONOTONIC", "")):
                out.append("%s:%d: %s" % (name, number, line.strip()))
    return out


def unfinished(root):
    """No marks of unfinished work, and nothing of the machine it was written on."""
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|(?i:\bnot implemented\b|\bplaceholder\b|\bfor now\b|\bunimplemented\b)"
                       r"|/tmp/[a-z]{1,3}-|" + re.escape(PLACE))
    out = []
    for name, path in sources(root, ".c", ".h", ".py", ".build", ".md", ".sql", ".scd", ".sh", "check", "try", "run"):
        if name.startswith("tests/data/") or os.path.abspath(path) == os.path.abspath(__file__):
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            if marks.search(line):
                out.append("%s:%d: %s" % (name, number, line.strip()))
    return out


def tree(root):
    """The top level stays as agreed."""
    return ["'%s' stands at the top" % n for n in os.listdir(root)
            if n not in TOP and not n.startswith((".", "build")) and n != "__pycache__"]


def opening(root):
    """Every source of the programs opens with what it owns; none grows beyond a screenful of screens."""
    out = []
    for name, path in sources(root, ".c"):
        if not name.startswith(("sendq", "queue")):
            continue
        if not text(path).startswith("/*"):
            out.append("%s does not open with a comment" % name)
        if text(path).count("\n") > 750:
            out.append("%s has %d lines" % (name, text(path).count("\n")))
    return out


def early(root):
    """No TLS early data: what can be replayed must not carry mail (tests/e2e/test_early.py looks at the wire)."""
    out = []
    for name, path in sources(root, ".c", ".h"):
        if name.startswith(("sendq", "queue", "include")) and re.search(r"early_?data", text(path), re.I):
            out.append("%s speaks of early data" % name)
    return out


# rule, and a tree with one fault: {path: text}
RULES = [
    (layers, {"queue/a.c": "/* a */\n#include <sendq/config.h>\n"}),
    (layers, {"sendq/agent/a.c": "/* a */\n#include <sendq/queue.h>\n"}),
    (layers, {"sendq/submit/a.c": '/* a */\n#  include "../runner/loop.h"\n'}),
    (homes, {"sendq/agent/a.c": "#include <curl/curl.h>\n"}),
    (homes, {"sendq/status/a.c": "#include <sqlite3.h>\n"}),
    (homes, {"sendq/runner/a.c": "#include <libconfig.h>\n"}),
    (homes, {"sendq/submit/a.c": "#include <openssl/evp.h>\n"}),
    (contracts, {"include/sendq/a.h": "#include <curl/curl.h>\n"}),
    (sql, {"queue/list.c": 'f("SELECT id FROM message");\n'}),
    (pure, {"queue/a.c": "int64_t t = sq_wall_ms();\n"}),
    (pure, {"sendq/smtp/a.c": "n = read(fd, b, 1);\n"}),
    (unfinished, {"queue/a.c": "/* TO" + "DO: the rest */\n"}),
    (unfinished, {"tests/x/b.py": "# good enough for" + " now\n"}),
    (unfinished, {"tests/x/c.py": "# see " + PLACE + "notes\n"}),
    (early, {"sendq/net/a.c": "/* a */\nSET(CURLOPT_SSL_OPTIONS, CURLSSLOPT_EARLYDATA);\n"}),
    (tree, {"src/a.c": ""}),
    (opening, {"sendq/base/a.c": "int x;\n"}),
]


def made_up(files):
    folder = tempfile.TemporaryDirectory(prefix="sendq-lint-")
    for name, content in files.items():
        path = os.path.join(folder.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(content)
    return folder


def rule_test(rule):
    def run(env):
        complaints = rule(ROOT)
        tap.true(not complaints, "\n".join(complaints))
    return run


def able_to_fail(rule, files):
    def run(env):
        with made_up(files) as folder:
            tap.equal(len(rule(folder)), 1, "complaints about %r" % files)
    return run


def libraries(program):
    """Every library that the loader would load for it, by name."""
    done = subprocess.run(["ldd", links.program(program, os.environ.get("SENDQ_RELEASE"))], stdout=subprocess.PIPE, check=True)
    return set(re.findall(r"(lib[\w+-]+)\.so", done.stdout.decode()))


NEVER = {"sendq-lookup": {"libsqlite3", "libconfig"}, "sendq-oauth": {"libsqlite3", "libconfig"}, "sendq-sendmail": {"libcurl", "libssl", "libcrypto", "libgnutls", "libsystemd"},
         "sendq-submitd": {"libcurl", "libssl", "libcrypto", "libgnutls", "libsystemd"}, "sendqd": {"libcurl"}, "sendq": {"libcurl", "libsystemd"},
         "sendq-smtp": {"libsqlite3", "libconfig", "libsystemd"}}


def links_test(program):
    def run(env):
        found = libraries(program)
        tap.true("libc" in found, "ldd shows no libc for %s" % program)
        tap.equal(found & NEVER[program], set(), "%s is linked with" % program)
    return run


@tap.test("the loader's list shows libcurl where it belongs, so the rule above can fail")
def sees_libcurl(env):
    tap.true("libcurl" in libraries("sendq-smtp"), "sendq-smtp has no libcurl")
    tap.true("libsqlite3" in libraries("sendq-sendmail"), "sendq-sendmail has no libsqlite3")


def verify(folder, *names):
    """What systemd has to say about units."""
    words = ["--user"] if folder.endswith("user") else []
    done = subprocess.run(["systemd-analyze"] + words + ["verify", "--man=no", "--recursive-errors=no"] + [os.path.join(folder, n) for n in names],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "XDG_RUNTIME_DIR": folder})
    return done.stdout.decode() + ("exit %d" % done.returncode if done.returncode else "")


@tap.test("systemd finds nothing wrong in the units, and those of the machine give up what they do not need")
def units(env):
    if not shutil.which("systemd-analyze"):
        raise tap.Skip("systemd-analyze is not installed")
    with tempfile.TemporaryDirectory(prefix="sendq-units-") as folder:
        for kind in ("system", "user"):
            os.mkdir(os.path.join(folder, kind))
            for name in os.listdir(os.path.join(ROOT, "contrib/systemd", kind)):
                unit = re.sub(r"@\w*BINDIR@", folder, text(os.path.join(ROOT, "contrib/systemd", kind, name)))
                for program in re.findall(re.escape(folder) + r"/([\w-]+)", unit):
                    if not os.path.exists(os.path.join(folder, program)):
                        os.symlink("/bin/true", os.path.join(folder, program))
                with open(os.path.join(folder, kind, name), "w") as f:
                    f.write(unit)
        for kind in ("system", "user"):
            names = sorted(os.listdir(os.path.join(folder, kind)))
            tap.true(len(names) >= 3, "units: %r" % names)
            tap.equal(verify(os.path.join(folder, kind), *names), "", kind)
        for name in ("sendqd.service", "sendq-submitd.service"):
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", os.path.join(folder, "system", name)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            tap.equal(done.returncode, 0, done.stdout.decode()[-1500:])
        for name in ("system/sendq-submit.socket", "user/sendqd.socket", "user/sendq-smtp.socket"):
            tap.true("\nTriggerLimitIntervalSec=0\n" in text(os.path.join(folder, name)), name + " stops when much comes at once")
        with open(os.path.join(folder, "system/sendqd.service"), "a") as f:
            f.write("[Service]\nNoSuchThing=yes\n")
        tap.true("NoSuchThing" in verify(os.path.join(folder, "system"), "sendqd.service"), "a wrong unit is found")


@tap.test("debian/control asks for every library that the build takes, and the package has the project's version")
def package_is_in_step(env):
    control = text(os.path.join(ROOT, "contrib/debian/control")).split("\n\n")[0]
    asked = set(re.findall(r"\b(lib[\w.+-]+-dev)\b", control))
    words = re.search(r'^packages_build="([^"]*)"', text(os.path.join(ROOT, "contrib/packages.sh")), re.M).group(1).split()
    # The C library is always there; GMime is the tests' oracle.
    taken = {w for w in words if re.fullmatch(r"lib[\w.+-]+-dev", w)} - {"libc6-dev", "libgmime-3.0-dev"}
    tap.true(len(taken) > 5, "libraries in contrib/packages.sh: %r" % taken)
    tap.equal(asked, taken, "libraries of debian/control")
    version = re.search(r"version: '([^']*)'", text(os.path.join(ROOT, "meson.build"))).group(1)
    tap.equal(re.search(r"\((.*?)\)", text(os.path.join(ROOT, "contrib/debian/changelog"))).group(1), version)


@tap.test("manual and completions name every command and option that sendq --help names")
def manuals_are_whole(env):
    words = subprocess.run([links.program("sendq"), "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    commands = re.findall(r"^  sendq (\w+)", words, re.M)
    options = set(re.findall(r"--[a-z-]+", words))
    tap.true(len(commands) > 10, "the commands of sendq --help")
    for path in ("sendq/status/sendq.1.scd", "contrib/completions/sendq.bash", "contrib/completions/_sendq",
                 "contrib/completions/sendq.fish"):
        there = text(os.path.join(ROOT, path))
        for word in commands:
            tap.true(re.search(r"\b%s\b" % word, there), "%s does not name '%s'" % (path, word))
        for option in options - {"--version", "--help"}:
            tap.true(option in there or "-l " + option[2:] in there, "%s does not name '%s'" % (path, option))


def moves_of_code():
    """{state: states it may go to} by the one table that decides."""
    return {m.group(1).lower(): {w.lower() for w in re.findall(r"TO\((\w+)\)", m.group(2))}
            for m in re.finditer(r"\[SQ_STATE_(\w+)\] = (TO\([^,]+),", text(os.path.join(ROOT, "queue/state.c")))}


def moves_of_manual():
    return {m.group(1): set(re.findall(r"\*(\w+)\*", m.group(2)))
            for m in re.finditer(r"^(?:\[\[|\|) +\*(\w+)\*\n:- .*\n:- then (.*)$", text(os.path.join(ROOT, "sendq/runner/sendqd.8.scd")), re.M)}


@tap.test("sendqd(8) has the table of states that the queue keeps to, and the guarantees")
def states_are_told(env):
    tap.equal(len(moves_of_code()), 9, "states in queue/state.c")
    tap.equal(moves_of_manual(), moves_of_code())
    guarantees = text(os.path.join(ROOT, "sendq/runner/sendqd.8.scd")).split("# GUARANTEES")[1].split("\n# ")[0]
    for word in ("on disk", "same octets", "in doubt", "delays no other route"):
        tap.true(word in guarantees, "the guarantees do not speak of '%s'" % word)


# Loads the completion and prints what it offers for each line of standard input.
BASH = """
. "$1"
sendq() { printf '{"id":"1000","x":1}\n{"id":"1001","x":1}\n'; }
while IFS= read -r line; do
	read -ra COMP_WORDS <<<"$line"
	[[ $line = *' ' ]] && COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	COMPREPLY=()
	_sendq
	echo "${COMPREPLY[*]}"
done
"""


def usages():
    """{command: its options} of sendq --help."""
    words = subprocess.run([links.program("sendq"), "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    out = {m.group(1): set(re.findall(r"--[a-z-]+", m.group(2))) for m in re.finditer(r"^  sendq (\w+)(.*)$", words, re.M)}
    tap.true(len(out) > 10 and out["edit"] >= {"--at", "--to"}, "the usages of sendq --help: %r" % out)
    return out


@tap.test("the completion for bash, loaded: every command, every option of each, ids where ids are wanted")
def bash_completes(env):
    offers = lambda lines: subprocess.run(["bash", "-c", BASH, "bash", os.path.join(ROOT, "contrib/completions/sendq.bash")],  # noqa: E731
                                          input="".join(x + "\n" for x in lines).encode(), stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
    commands = usages()
    commands["setup"] = options_of_setup()
    missing = set(commands) - set(offers(["sendq "])[0].split())
    tap.equal(missing, set(), "commands")
    for command, got in zip(commands, offers(["sendq %s -" % c for c in commands])):
        tap.equal(set(got.split()), commands[command] | {"--json"}, "options of " + command)
    for line, got in zip(("why", "hold", "edit", "undo"), offers(["sendq why ", "sendq hold 10", "sendq --json edit ", "sendq undo "])):
        tap.equal(got.split(), ["1000", "1001"], line)
    tap.equal(offers(["sendq fl", "sendq --js"])[:2], ["flush", "--json"])


def options_of_setup():
    """Those that `sendq setup` knows."""
    return set(re.findall(r'(?:TEXT\(|FLAG\(|\{ |strcmp\(argv\[i\], )"(--[a-z-]+)"', text(os.path.join(ROOT, "sendq/status/setup.c"))))


FISH = """
function sendq; printf '{"id":"1000","x":1}\\n{"id":"1001","x":1}\\n'; end
source %s/sendq.fish
complete -C "sendq "; complete -C "sendq why 10"; complete -C "sendq %s --"
"""


def zsh_completes():
    commands = usages()
    commands["setup"] = options_of_setup()
    offers = zsh.offers(os.path.join(ROOT, "contrib/completions"),
                        ["sendq ", "sendq ed", "sendq why 10", "sendq --json settle ", "sendq setup --store ", "sendq --"] + ["sendq %s --" % c for c in commands])
    tap.equal(offers[:6], [set(commands), {"edit"}, {"1000", "1001"}, {"1000", "1001", "sent", "unsent"}, {"file", "keyring", "config", "credential"},
                           {"--config", "--json", "--version", "--help"}], "zsh")
    for command, got in zip(commands, offers[6:]):
        tap.equal(got, commands[command] | {"--json"}, "zsh, of " + command)


@tap.test("the completions for fish and zsh, asked of the shells: every command and every option")
def fish_and_zsh(env):
    folder = os.path.join(ROOT, "contrib/completions")
    have = [shell for shell in ("fish", "zsh") if shutil.which(shell)]
    if "zsh" in have:
        zsh_completes()
    if "fish" in have:
        for command, options in {**usages(), "setup": options_of_setup()}.items():
            ask = FISH % (folder, command)
            with tempfile.TemporaryDirectory() as home:
                got = subprocess.run(["fish", "--no-config", "-c", ask], stdout=subprocess.PIPE, check=True, env={**os.environ, "HOME": home}).stdout.decode()
            words = {line.split("\t")[0] for line in got.splitlines()}
            tap.equal(({command, "1000", "1001"} | options) - words, set(), "fish, of " + command)
    if len(have) < 2:
        raise tap.Skip("only %s is installed" % (" and ".join(have) or "neither"))


@tap.test("the gateway's manual names every setting, command and option, and every setting that it names there is")
def gateway_manual(env):
    there = text(os.path.join(ROOT, "contrib/gateway/sendq-gateway.8.scd")).replace("\\_", "_")
    settings = set(re.findall(r'^\t\{ "(\w+)",', text(os.path.join(ROOT, "contrib/gateway/settings.c")), re.M))
    words = subprocess.run([links.program("sendq-gateway"), "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    tap.true(len(settings) > 20, "settings found: %r" % settings)
    named = set()
    for heads in re.findall(r"^((?:\*\w+\*(?: \([^)]*\))?(?:, )?)+)$", there.split("# SETTINGS")[1].split("\n# ")[0], re.M):
        named |= set(re.findall(r"\*(\w+)\*", heads))
    tap.equal(sorted(named), sorted(settings), "settings named")
    for word in re.findall(r"\[--config FILE\] (\w+)", words) + re.findall(r"--[a-z]+", words):
        tap.true("*%s*" % word in there, "the manual does not name '%s'" % word)


@tap.test("a release knows nothing of fault points and the test clock")
def no_faults_in_release(env):
    release = os.environ.get("SENDQ_RELEASE")
    if not release:
        raise tap.Skip("SENDQ_RELEASE names no release build")
    for program in NEVER:
        with open(links.program(program, release), "rb") as f:
            octets = f.read()
        for word in (b"SENDQ_FAULT", b"SENDQ_TEST_CLOCK", b"SENDQ_AGENT", b"SENDQ_DAEMON"):
            tap.true(word not in octets, "%s speaks of %s" % (program, word.decode()))


for rule_ in dict.fromkeys(r for r, _ in RULES):
    tap.add("%s: %s" % (rule_.__name__, rule_.__doc__.splitlines()[0]), rule_test(rule_))
for rule_, files_ in RULES:
    tap.add("%s is able to fail: %s" % (rule_.__name__, sorted(files_)[0]), able_to_fail(rule_, files_))
for program_ in NEVER:
    tap.add("%s is linked with none of %s" % (program_, ", ".join(sorted(NEVER[program_]))), links_test(program_))

if __name__ == "__main__":
    tap.main()
